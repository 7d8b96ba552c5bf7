//! Database services that follow the roles of a replicated MariaDB: a primary with two replicas by GTID.

use std::net::IpAddr;
use std::time::Duration;

use lb_lab::mariadb::{CHECK_PASSWORD, CHECK_USER, Installation, MariaDb, remote};
use lb_lab::process::run;
use lb_lab::scratch::ScratchDir;
use lb_lab::serde_json::Value;
use lb_lab::service;
use lb_lab::topology::VIPS_V4;
use lb_lab::wait::wait_until;
use lb_lab::{Forward, Interfaces, Lbd, Plan, ServiceText, Topology, require};

const TIMEOUT: Duration = Duration::from_secs(30);
const BACKENDS: [&str; 3] = ["web1", "web2", "web3"];

/// A primary (web1) and two replicas, with a writer and a reader service in front of them.
struct Databases {
    lbd: Lbd,
    servers: Vec<MariaDb>,
    _password: ScratchDir,
    net: Topology,
}

fn writer_vip() -> IpAddr {
    VIPS_V4[0].into()
}

fn reader_vip() -> IpAddr {
    VIPS_V4[1].into()
}

impl Databases {
    fn start() -> Self {
        let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 3)).unwrap();
        let installation = Installation::new().unwrap();
        let servers: Vec<MariaDb> = (1..)
            .zip(&net.backends)
            .map(|(id, backend)| {
                MariaDb::start(&installation, &backend.name, &backend.netns, id).unwrap()
            })
            .collect();
        servers[0].set_up().unwrap();
        for replica in &servers[1..] {
            replica.follow(net.backends[0].v4.into()).unwrap();
        }
        let password = ScratchDir::new("check-password").unwrap();
        let file = password.write("password", CHECK_PASSWORD).unwrap();
        let check = format!(
            "type = \"mysql\"\nuser = \"{CHECK_USER}\"\npassword_file = \"{}\"\n\
             interval = \"500ms\"\nfast_interval = \"200ms\"\ntimeout = \"400ms\"\nfall = 2",
            file.display()
        );
        let service = |name, vip, role| {
            let service = ServiceText::new(&net, name, vip).port(3306);
            let service = service.key("role", role).check(&check);
            service.backends(&net, &BACKENDS)
        };
        let services = [
            service("writer", writer_vip(), "writer"),
            service("reader", reader_vip(), "reader").key("max_lag", "5s"),
        ];
        let lbd = Lbd::start(&net.lb, &service::config(&net, &services)).unwrap();
        Self {
            lbd,
            servers,
            _password: password,
            net,
        }
    }

    /// Waits until the new flows of a service go to these backends and no other.
    fn await_eligible(&self, service: &str, expected: &[&str]) {
        let what = format!("{expected:?} to be those of {service}");
        let waited = wait_until(&what, TIMEOUT, || {
            let shown = self.lbd.ctl_json(&["service", "show", service])?;
            let backends = shown["backends"].as_array().cloned().unwrap_or_default();
            let eligible = |one: &&Value| one["is_eligible"] == true;
            let names: Vec<_> = backends
                .iter()
                .filter(eligible)
                .map(|one| &one["name"])
                .collect();
            Ok((names == expected).then_some(()))
        });
        if let Err(error) = waited {
            let health = self.lbd.ctl_ok(&["health", "list"]);
            panic!("{error:#}\n{health:?}\n{}", self.lbd.log_tail());
        }
    }

    /// Runs a statement over a VIP.
    fn ask(&self, vip: IpAddr, statement: &str) -> anyhow::Result<String> {
        run(remote(self.net.client.netns(), vip).args(["-e", statement]))
    }

    /// Who answers over a VIP, from many ports.
    fn servers_behind(&self, vip: IpAddr) -> Vec<String> {
        let ids = (0..20).map(|_| {
            self.ask(vip, "SELECT @@server_id")
                .unwrap()
                .trim()
                .to_owned()
        });
        let mut ids: Vec<String> = ids.collect();
        ids.sort();
        ids.dedup();
        ids
    }

    fn alarms(&self) -> Value {
        self.lbd.ctl_json(&["health", "list"]).unwrap()["alarms"].clone()
    }
}

#[test]
fn services_follow_the_roles_of_a_replicated_database() {
    if require(&["ip", "mariadbd", "mariadb", "mariadb-install-db"]).is_missing() {
        return;
    }
    let mut databases = Databases::start();
    databases.await_eligible("writer", &["web1"]);
    databases.await_eligible("reader", &["web2", "web3"]);
    databases.lbd.await_ring("reader").unwrap();
    assert_eq!(databases.servers_behind(writer_vip()), ["1"]);
    assert_eq!(databases.servers_behind(reader_vip()), ["2", "3"]);
    databases
        .ask(writer_vip(), "INSERT INTO log (text) VALUES ('one')")
        .unwrap();
    assert_eq!(databases.alarms(), Value::Array(vec![]));

    // A replica whose applier has stopped answers well, and with old data.
    databases.servers[2].sql("STOP SLAVE SQL_THREAD").unwrap();
    databases.await_eligible("reader", &["web2"]);
    databases.servers[2].sql("START SLAVE SQL_THREAD").unwrap();
    databases.await_eligible("reader", &["web2", "web3"]);

    // The primary dies: nobody gets writes until somebody is promoted.
    databases.servers[0].process().kill9_all().unwrap();
    databases.await_eligible("writer", &[]);
    databases.servers[1].promote().unwrap();
    databases.servers[2]
        .follow(databases.net.backends[1].v4.into())
        .unwrap();
    databases.await_eligible("writer", &["web2"]);
    databases.await_eligible("reader", &["web3"]);
    databases
        .ask(writer_vip(), "INSERT INTO log (text) VALUES ('two')")
        .unwrap();
    let rows = databases.servers[1]
        .sql("SELECT text FROM shop.log ORDER BY id")
        .unwrap();
    assert_eq!(rows.lines().collect::<Vec<_>>(), ["one", "two"]);

    // It comes back, and believes that it is the primary still.
    let (first, netns) = (&mut databases.servers[0], &databases.net.backends[0].netns);
    first.start_again(netns).unwrap();
    databases.await_eligible("writer", &[]);
    let alarm = databases.alarms();
    let reason = alarm[0]["reason"].as_str().unwrap_or_default();
    assert_eq!(
        reason, "`web1` and `web2` accept writes: nobody gets any",
        "{alarm}"
    );
    assert!(databases.ask(writer_vip(), "SELECT 1").is_err());

    databases.servers[0]
        .sql("SET GLOBAL read_only = 1")
        .unwrap();
    databases.await_eligible("writer", &["web2"]);
    assert_eq!(databases.servers_behind(writer_vip()), ["2"]);
    assert_eq!(databases.alarms(), Value::Array(vec![]));

    // Who is asked so often has nothing to complain about.
    let aborted = databases.servers[1]
        .sql("SHOW GLOBAL STATUS LIKE 'Aborted_c%'")
        .unwrap();
    for line in aborted.lines() {
        assert!(line.ends_with("\t0"), "{aborted}");
    }
}

//! What can be wrong with a database, and how `lbctl health show` says it.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use lb_lab::databases::{Databases, Replication, reader_vip, writer_vip};
use lb_lab::mariadb::{CHECK_PASSWORD, CHECK_USER, Installation, MariaDb};
use lb_lab::scratch::ScratchDir;
use lb_lab::service;
use lb_lab::sql_client::{SqlConnection, SqlError};
use lb_lab::topology::VIP_V4;
use lb_lab::wait::wait_until;
use lb_lab::{Forward, Interfaces, Lbd, Plan, ServiceText, Topology, require};

/// The least that MariaDB can be limited to.
const CONNECTIONS_MAX: usize = 10;
/// ER_CON_COUNT_ERROR.
const TOO_MANY: u16 = 1040;

const TIMEOUT: Duration = Duration::from_secs(30);
/// Checks that a server takes before somebody treats it badly.
const GOOD_COUNT: u64 = 80;

/// Connections to web2 until it takes no more.
fn fill(databases: &Databases) -> Vec<SqlConnection> {
    let web2 = &databases.net.backends[1];
    let address = SocketAddr::new(web2.v4.into(), 3306);
    let open = || {
        let timeout = Duration::from_secs(5);
        SqlConnection::open(address, "app", "shop", timeout)
    };
    let mut connections = Vec::new();
    loop {
        match databases.net.client.run(open).unwrap() {
            Ok(connection) => connections.push(connection),
            Err(SqlError::Said { code: TOO_MANY, .. }) => return connections,
            Err(error) => panic!("{error}"),
        }
        assert!(connections.len() <= CONNECTIONS_MAX, "no limit");
    }
}

#[test]
fn lag_a_full_server_and_a_wrong_password_are_told_and_keep_readers_away() {
    if require(&["ip", "mariadbd", "mariadb", "mariadb-install-db"]).is_missing() {
        return;
    }
    let databases = Databases::start(Replication::Asynchronous).unwrap();
    databases.await_eligible("writer", &["web1"]).unwrap();
    let both = ["web2", "web3"];
    databases.await_eligible("reader", &both).unwrap();
    let [_, web2, web3] = databases.servers.as_slice() else {
        panic!("three servers");
    };

    // A replica that applies what it receives an hour later.
    let delay =
        |seconds| format!("STOP SLAVE; CHANGE MASTER TO MASTER_DELAY={seconds}; START SLAVE;");
    web3.sql(&delay(3600)).unwrap();
    let insert = "INSERT INTO log (text) VALUES ('late')";
    databases.ask(writer_vip(), insert).unwrap();
    databases.await_eligible("reader", &["web2"]).unwrap();
    databases
        .await_words("reader", "web3", "s behind, more than max_lag 5 s")
        .unwrap();
    databases.lbd.await_ring("reader").unwrap();
    assert_eq!(databases.servers_behind(reader_vip()).unwrap(), ["2"]);
    web3.sql(&delay(0)).unwrap();
    databases.await_eligible("reader", &both).unwrap();

    // A server that is full: also its checks find no room.
    web2.sql(&format!("SET GLOBAL max_connections = {CONNECTIONS_MAX}"))
        .unwrap();
    let connections = fill(&databases);
    databases.await_eligible("reader", &["web3"]).unwrap();
    databases
        .await_words("reader", "web2", "Too many connections")
        .unwrap();
    drop(connections);
    databases.await_eligible("reader", &both).unwrap();

    // Somebody has changed the password of the checks' user, on one server alone.
    let password = |text: &str| {
        format!("SET sql_log_bin = 0; SET PASSWORD FOR lbcheck@'%' = PASSWORD('{text}');")
    };
    web3.sql(&password("another")).unwrap();
    databases.await_eligible("reader", &["web2"]).unwrap();
    let told = databases
        .await_words("reader", "web3", "Access denied for user 'lbcheck'")
        .unwrap();
    assert!(!told.contains(CHECK_PASSWORD), "{told}");
    assert!(!databases.lbd.log().contains(CHECK_PASSWORD));
    web3.sql(&password(CHECK_PASSWORD)).unwrap();
    databases.await_eligible("reader", &both).unwrap();
}

/// Good answers of all checks, and whether each backend is as `health` says.
fn checked(lbd: &Lbd, health: &str) -> anyhow::Result<(u64, bool)> {
    let report = lbd.ctl_json(&["health", "list"])?;
    let backends = report["backends"].as_array().cloned().unwrap_or_default();
    let checks = backends.iter().filter_map(|one| one["checks"].as_array());
    let goods = checks
        .flatten()
        .filter_map(|check| check["success_count"].as_u64());
    let is_so = backends.iter().all(|one| one["health"] == health);
    Ok((goods.sum(), is_so && !backends.is_empty()))
}

/// Waits until every backend is as `health` says, after so many good answers.
fn await_checked(lbd: &Lbd, health: &str, good_count: u64) {
    let what = format!("{health} after {good_count} good answers");
    let waited = wait_until(&what, TIMEOUT, || {
        let (good, is_so) = checked(lbd, health)?;
        Ok((is_so && good >= good_count).then_some(()))
    });
    if let Err(error) = waited {
        panic!("{error:#}\n{:?}", lbd.ctl_ok(&["health", "list"]));
    }
}

/// A server that shuts out whoever breaks off one handshake never shuts out the checks for what they do.
#[test]
fn checks_are_not_shut_out_for_broken_handshakes_and_others_are() {
    if require(&["ip", "mariadbd", "mariadb", "mariadb-install-db"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 1)).unwrap();
    let backend = &net.backends[0];
    let balancer = net.lb_address_like(VIP_V4);
    let hosts = format!("127.0.0.1 localhost\n{balancer} balancer\n");
    let installation = Installation::new().unwrap();
    let server = MariaDb::start_unforgiving(&installation, "web1", &backend.netns, &hosts).unwrap();
    server.set_up().unwrap();
    let password = ScratchDir::new("check-password").unwrap();
    let file = password.write("password", CHECK_PASSWORD).unwrap();
    // Different questions: equal ones would be asked once.
    let check = |number| {
        format!(
            "type = \"mysql\"\nquery = \"SELECT {number}\"\nuser = \"{CHECK_USER}\"\n\
             password_file = \"{}\"\ninterval = \"1s\"\nfast_interval = \"200ms\"\ntimeout = \"1s\"",
            file.display()
        )
    };
    let service = ServiceText::new(&net, "db", VIP_V4).port(3306);
    let service = (0..8).fold(service, |service, number| service.check(&check(number)));
    let config = service::config(&net, &[service.backends(&net, &["web1"])]);
    let lbd = Lbd::start(&net.lb, &config).unwrap();
    await_checked(&lbd, "up", GOOD_COUNT);

    // Somebody on the balancer's own address connects, and says nothing.
    let address = SocketAddr::new(backend.v4.into(), 3306);
    let broken_off = net.lb.run(|| TcpStream::connect(address).map(drop));
    broken_off.unwrap().unwrap();
    await_checked(&lbd, "down", GOOD_COUNT);
    let told = lbd.ctl_ok(&["health", "show", "web1"]).unwrap();
    let shut_out = "is blocked because of many connection errors";
    assert!(told.contains(shut_out), "{told}");
    server.sql("FLUSH HOSTS").unwrap();
    await_checked(&lbd, "up", GOOD_COUNT);
}

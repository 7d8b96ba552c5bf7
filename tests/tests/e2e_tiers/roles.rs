//! Services that follow the roles of a replicated PostgreSQL, and of a Redis.

use lb_lab::program::Program;
use lb_lab::scratch::ScratchDir;
use lb_lab::topology::VIPS_V4;
use lb_lab::{ServiceText, Topology, postgres, redis, require};

use crate::tier::{ALL, TIMING, Tier, network, on_all};

/// A writer and a reader service; the reader's replicas must follow.
fn services(net: &Topology, port: u16, check: &str) -> [ServiceText; 2] {
    let service = |name, vip: usize, role, more: &str| {
        ServiceText::new(net, name, VIPS_V4[vip].into())
            .port(port)
            .key("hold_down", "0s")
            .key("role", role)
            .check(&format!("{TIMING}{check}{more}"))
            .backends(net, &ALL)
    };
    [
        service("writer", 0, "writer", ""),
        service("reader", 1, "reader", "replication = \"running\"\n"),
    ]
}

/// Who writes, and who reads.
fn roles_are(tier: &Tier, writer: &[&str], readers: &[&str]) {
    tier.await_eligible("writer", writer);
    tier.await_eligible("reader", readers);
}

fn reason(tier: &Tier, backend: &str, reason: &str) {
    let words = ["health", "show", backend, "--service", "reader"];
    tier.await_that(&format!("{backend} of reader to say {reason:?}"), || {
        tier.lbd.ctl_ok(&words).unwrap().contains(reason)
    });
}

fn two_primaries_alarm(tier: &Tier) {
    roles_are(tier, &[], &[]);
    tier.await_that("an alarm", || {
        let report = tier.lbd.ctl_json(&["health", "list"]).unwrap();
        report["alarms"][0]["reason"] == "`web1` and `web2` accept writes: nobody gets any"
    });
}

#[test]
fn services_follow_the_roles_of_a_postgresql_and_its_standby() {
    let programs = [
        "ip",
        "postgres",
        "initdb",
        "pg_basebackup",
        "psql",
        "setpriv",
    ];
    if require(&programs).is_missing() {
        return;
    }
    let net = network();
    let primary = postgres::start("web1", &net.backends[0].netns).unwrap();
    let from = net.backends[0].v4.into();
    let standby = postgres::start_standby("web2", &net.backends[1].netns, from).unwrap();
    let scratch = ScratchDir::new("check-password").unwrap();
    let password = scratch.write("password", postgres::CHECK_PASSWORD).unwrap();
    let check = format!(
        "type = \"postgres\"\nuser = \"{}\"\npassword_file = \"{}\"\n",
        postgres::CHECK_USER,
        password.display()
    );
    let services = services(&net, postgres::PORT, &check);
    let mut tier = Tier::start(net, vec![primary, standby], "", &services);
    let sql = |server: &Program, statements| postgres::sql(server, statements).unwrap();
    roles_are(&tier, &["web1"], &["web2"]);

    sql(&tier.programs[1], "SELECT pg_wal_replay_pause()");
    roles_are(&tier, &["web1"], &[]);
    reason(&tier, "web2", "the standby's replay is paused");
    sql(&tier.programs[1], "SELECT pg_wal_replay_resume()");
    roles_are(&tier, &["web1"], &["web2"]);

    tier.program().kill_all().unwrap();
    roles_are(&tier, &[], &[]);
    reason(&tier, "web2", "the standby receives no WAL from a primary");
    sql(&tier.programs[1], "SELECT pg_promote()");
    roles_are(&tier, &["web2"], &[]);

    // It comes back, and believes that it is the primary still.
    tier.start_again();
    two_primaries_alarm(&tier);
    tier.program().kill_all().unwrap();
    roles_are(&tier, &["web2"], &[]);
}

#[test]
fn services_follow_the_roles_of_a_redis_and_its_replica() {
    if require(&["ip", "redis-server", "redis-cli"]).is_missing() {
        return;
    }
    let net = network();
    let programs = on_all(&net, redis::start);
    let scratch = ScratchDir::new("check-password").unwrap();
    let password = scratch.write("password", redis::PASSWORD).unwrap();
    let check = format!(
        "type = \"redis\"\npassword_file = \"{}\"\n",
        password.display()
    );
    let services = services(&net, redis::PORT, &check);
    let mut tier = Tier::start(net, programs, "", &services);
    let follow = |tier: &Tier, replica: usize, primary: &str| {
        let (primary, port) = primary.rsplit_once(' ').unwrap();
        let netns = &tier.net.backends[replica].netns;
        redis::tell(netns, redis::PASSWORD, &["REPLICAOF", primary, port]).unwrap();
    };
    two_primaries_alarm(&tier);
    let address = |tier: &Tier, of: usize| format!("{} {}", tier.net.backends[of].v4, redis::PORT);
    follow(&tier, 1, &address(&tier, 0));
    roles_are(&tier, &["web1"], &["web2"]);

    tier.program().kill_all().unwrap();
    roles_are(&tier, &[], &[]);
    reason(&tier, "web2", "the link to the primary is \"connect\"");
    follow(&tier, 1, "NO ONE");
    roles_are(&tier, &["web2"], &[]);

    tier.start_again();
    two_primaries_alarm(&tier);
    follow(&tier, 0, &address(&tier, 1));
    roles_are(&tier, &["web2"], &["web1"]);
}

//! Database services that follow the roles of a replicated MariaDB: a primary with two replicas by GTID.

use lb_lab::databases::{Databases, Replication, reader_vip, writer_vip};
use lb_lab::require;
use lb_lab::serde_json::Value;

#[test]
fn services_follow_the_roles_of_a_replicated_database() {
    if require(&["ip", "mariadbd", "mariadb", "mariadb-install-db"]).is_missing() {
        return;
    }
    let mut databases = Databases::start(Replication::Asynchronous).unwrap();
    databases.await_eligible("writer", &["web1"]).unwrap();
    databases
        .await_eligible("reader", &["web2", "web3"])
        .unwrap();
    databases.lbd.await_ring("reader").unwrap();
    assert_eq!(databases.servers_behind(writer_vip()).unwrap(), ["1"]);
    assert_eq!(databases.servers_behind(reader_vip()).unwrap(), ["2", "3"]);
    databases
        .ask(writer_vip(), "INSERT INTO log (text) VALUES ('one')")
        .unwrap();
    assert_eq!(databases.alarms().unwrap(), Value::Array(vec![]));

    // A replica whose applier has stopped answers well, and with old data.
    databases.servers[2].sql("STOP SLAVE SQL_THREAD").unwrap();
    databases.await_eligible("reader", &["web2"]).unwrap();
    databases.servers[2].sql("START SLAVE SQL_THREAD").unwrap();
    databases
        .await_eligible("reader", &["web2", "web3"])
        .unwrap();

    // The primary dies: nobody gets writes until somebody is promoted.
    databases.servers[0].process().kill9_all().unwrap();
    databases.await_eligible("writer", &[]).unwrap();
    databases.servers[1].promote().unwrap();
    databases.servers[2]
        .follow(databases.net.backends[1].v4.into())
        .unwrap();
    databases.await_eligible("writer", &["web2"]).unwrap();
    databases.await_eligible("reader", &["web3"]).unwrap();
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
    databases.await_eligible("writer", &[]).unwrap();
    let alarm = databases.alarms().unwrap();
    let reason = alarm[0]["reason"].as_str().unwrap_or_default();
    assert_eq!(
        reason, "`web1` and `web2` accept writes: nobody gets any",
        "{alarm}"
    );
    assert!(databases.ask(writer_vip(), "SELECT 1").is_err());

    databases.servers[0]
        .sql("SET GLOBAL read_only = 1")
        .unwrap();
    databases.await_eligible("writer", &["web2"]).unwrap();
    assert_eq!(databases.servers_behind(writer_vip()).unwrap(), ["2"]);
    assert_eq!(databases.alarms().unwrap(), Value::Array(vec![]));

    // Who is asked so often has nothing to complain about.
    let aborted = databases.servers[1]
        .sql("SHOW GLOBAL STATUS LIKE 'Aborted_c%'")
        .unwrap();
    for line in aborted.lines() {
        assert!(line.ends_with("\t0"), "{aborted}");
    }
}

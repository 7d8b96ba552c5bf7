//! What can be wrong with a database, and how `lbctl health show` says it.

use std::net::SocketAddr;
use std::time::Duration;

use lb_lab::databases::{Databases, Replication, reader_vip, writer_vip};
use lb_lab::mariadb::CHECK_PASSWORD;
use lb_lab::require;
use lb_lab::sql_client::{SqlConnection, SqlError};

/// The least that MariaDB can be limited to.
const CONNECTIONS_MAX: usize = 10;
/// ER_CON_COUNT_ERROR.
const TOO_MANY: u16 = 1040;

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

//! Against servers that speak as the protocol's documentation says, and against those that do not.
//! (<https://dev.mysql.com/doc/dev/mysql-server/latest/PAGE_PROTOCOL.html>)

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::scramble::{self, tests as keys};
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::health::probe::hostile::{Server, ask};
use crate::health::probe::rigged;
use crate::model::check::{CheckKind, MysqlCheck, Replication, Secret};

const NONCE: &[u8; 20] = b"abcdefghijklmnopqrst";
const OTHER_NONCE: &[u8; 20] = b"ABCDEFGHIJKLMNOPQRST";
const OK: &[u8] = &[0, 0, 0, 2, 0, 0, 0];
const EOF: &[u8] = &[0xfe, 0, 0, 2, 0];
const COM_QUIT: u8 = 1;
const COM_PING: u8 = 14;
const COM_QUERY: u8 = 3;

/// The server's side of a connection.
struct Side {
    stream: TcpStream,
    sequence: u8,
}

impl Side {
    async fn say(&mut self, payload: &[u8]) {
        let mut packet = (payload.len() as u32).to_le_bytes();
        packet[3] = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        let whole = [&packet, payload].concat();
        self.stream
            .write_all(&whole)
            .await
            .expect("the client reads");
    }

    /// `None` once the client has gone.
    async fn hear(&mut self) -> Option<Vec<u8>> {
        let mut header = [0; 4];
        self.stream.read_exact(&mut header).await.ok()?;
        self.sequence = header[3].wrapping_add(1);
        let length = u32::from_le_bytes([header[0], header[1], header[2], 0]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(payload)
    }

    async fn greet(&mut self, version: &str, plugin: &str) {
        let mut greeting = vec![10];
        greeting.extend(version.as_bytes());
        greeting.extend([0, 1, 0, 0, 0]);
        greeting.extend(&NONCE[..8]);
        // Filler, capabilities (low), character set, status, capabilities (high), length of the nonce.
        greeting.extend([0, 0xff, 0xff, 45, 2, 0, 0xff, 0xff, 21]);
        greeting.extend([0; 10]);
        greeting.extend(&NONCE[8..]);
        greeting.push(0);
        greeting.extend(plugin.as_bytes());
        greeting.push(0);
        self.say(&greeting).await;
    }

    /// The user and the proof of the client's response.
    async fn response(&mut self) -> (String, Vec<u8>, String) {
        let payload = self.hear().await.expect("a response");
        let mut parts = payload[32..].splitn(2, |byte| *byte == 0);
        let user = String::from_utf8(parts.next().unwrap().to_vec()).unwrap();
        let rest = parts.next().unwrap();
        let (proof, plugin) = rest[1..].split_at(usize::from(rest[0]));
        let plugin = String::from_utf8(plugin[..plugin.len() - 1].to_vec()).unwrap();
        (user, proof.to_vec(), plugin)
    }

    async fn table(&mut self, columns: &[&str], rows: &[&[Option<&str>]]) {
        self.say(&[columns.len() as u8]).await;
        for name in columns {
            let mut definition = b"\x03def\0\0\0".to_vec();
            definition.extend(text(name));
            definition.extend([0, 12, 45, 0, 0, 0, 0, 0, 253, 0, 0, 0, 0, 0]);
            self.say(&definition).await;
        }
        self.say(EOF).await;
        for row in rows {
            let fields = row.iter().map(|value| value.map_or(vec![0xfb], text));
            self.say(&fields.collect::<Vec<_>>().concat()).await;
        }
        self.say(EOF).await;
    }
}

fn text(value: &str) -> Vec<u8> {
    [&[value.len() as u8], value.as_bytes()].concat()
}

fn error(code: u16, words: &str) -> Vec<u8> {
    [
        &[0xff],
        &code.to_le_bytes()[..],
        b"#HY000",
        words.as_bytes(),
    ]
    .concat()
}

/// A password that every machine's environment has, and every test may read.
fn password() -> (Secret, Vec<u8>) {
    let value = std::env::var("PATH").expect("a PATH").into_bytes();
    (Secret::Env("PATH".to_owned()), value)
}

fn check(replication: Replication) -> CheckKind {
    CheckKind::Mysql(MysqlCheck {
        user: "lbd".to_owned(),
        password: Some(password().0),
        query: String::new(),
        replication,
    })
}

fn quick(query: &str) -> CheckKind {
    CheckKind::Mysql(MysqlCheck {
        user: "lbd".to_owned(),
        password: None,
        query: query.to_owned(),
        replication: Replication::default(),
    })
}

/// One connection to a server that does this to its end, and what the probe made of it.
async fn against<S>(
    kind: &CheckKind,
    script: impl FnOnce(Side) -> S + Send + 'static,
) -> (Result<(), Failure>, Observed)
where
    S: Future<Output = ()> + Send + 'static,
{
    let server = Server::start(|stream| {
        script(Side {
            stream,
            sequence: 0,
        })
    })
    .await;
    let outcome = ask(kind, server.target()).await;
    server.ended().await;
    outcome
}

/// Answers a ping, and waits for the farewell before it closes.
async fn ping_and_quit(mut side: Side) {
    assert_eq!(side.hear().await.as_deref(), Some(&[COM_PING][..]));
    side.say(OK).await;
    quit(side).await;
}

async fn quit(mut side: Side) {
    assert_eq!(side.hear().await.as_deref(), Some(&[COM_QUIT][..]));
}

#[tokio::test]
async fn caching_sha2_on_the_fast_path() {
    let (result, _) = against(&check(Replication::default()), |mut side| async move {
        side.greet("8.0.36", "caching_sha2_password").await;
        let (user, proof, plugin) = side.response().await;
        assert_eq!(
            (user.as_str(), plugin.as_str()),
            ("lbd", "caching_sha2_password")
        );
        assert_eq!(proof, scramble::caching_sha2(&password().1, NONCE));
        side.say(&[1, 3]).await;
        side.say(OK).await;
        ping_and_quit(side).await;
    })
    .await;
    assert_eq!(result, Ok(()));
}

/// The test's key is of 1024 bits, which leaves 86 bytes for the password and its NUL.
fn short_password() -> (CheckKind, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "s3cret\n").unwrap();
    let kind = CheckKind::Mysql(MysqlCheck {
        user: "lbd".to_owned(),
        password: Some(Secret::File(file.path().to_owned())),
        query: String::new(),
        replication: Replication::default(),
    });
    (kind, file)
}

#[tokio::test]
async fn caching_sha2_with_the_whole_authentication() {
    let (kind, _file) = short_password();
    let (result, _) = against(&kind, |mut side| async move {
        side.greet("8.0.36", "caching_sha2_password").await;
        side.response().await;
        side.say(&[1, 4]).await;
        assert_eq!(side.hear().await.unwrap(), [2], "asks for the key");
        side.say(&[&[1], keys::TEST_KEY_PEM.as_bytes()].concat())
            .await;
        let cipher = side.hear().await.unwrap();
        assert_eq!(keys::decrypted(&cipher, NONCE), b"s3cret\0");
        side.say(OK).await;
        ping_and_quit(side).await;
    })
    .await;
    assert_eq!(result, Ok(()));
}

#[tokio::test]
async fn a_user_with_another_plugin_than_the_servers_default() {
    let (result, _) = against(&check(Replication::default()), |mut side| async move {
        side.greet("8.0.36", "caching_sha2_password").await;
        side.response().await;
        side.say(&[b"\xfemysql_native_password\0", &OTHER_NONCE[..], &[0]].concat())
            .await;
        let proof = side.hear().await.unwrap();
        assert_eq!(proof, scramble::native(&password().1, OTHER_NONCE));
        side.say(OK).await;
        ping_and_quit(side).await;
    })
    .await;
    assert_eq!(result, Ok(()));
}

#[tokio::test]
async fn a_plugin_that_is_not_known_is_given_up_without_harm() {
    let (result, _) = against(&check(Replication::default()), |mut side| async move {
        side.greet("5.5.5-10.11.6-MariaDB", "mysql_native_password")
            .await;
        side.response().await;
        side.say(b"\xfeclient_ed25519\0abcdefghijklmnopqrstuvwxyz012345")
            .await;
        assert_eq!(side.hear().await.unwrap(), [0; 0]);
        side.say(&error(1045, "Access denied")).await;
    })
    .await;
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Access);
    assert!(failure.reason.contains("client_ed25519"), "{failure}");
}

#[tokio::test]
async fn a_refusal_is_told_in_the_servers_words() {
    for (code, words) in [
        (1040, "Too many connections"),
        (
            1129,
            "Host 'lb1' is blocked because of many connection errors",
        ),
    ] {
        let server = Server::start(move |stream| async move {
            let mut side = Side {
                stream,
                sequence: 0,
            };
            side.say(&error(code, words)).await;
        })
        .await;
        let failure = ask(&quick(""), server.target()).await.0.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Access);
        assert_eq!(
            failure.reason,
            format!("the server refuses: error {code}: {words}")
        );
    }
}

#[tokio::test]
async fn a_wrong_password_is_a_matter_of_access() {
    let (result, _) = against(&check(Replication::default()), |mut side| async move {
        side.greet("8.0.36", "caching_sha2_password").await;
        side.response().await;
        side.say(&error(1045, "Access denied for user 'lbd'")).await;
    })
    .await;
    assert_eq!(result.unwrap_err().kind, FailureKind::Access);
}

#[tokio::test]
async fn the_query_is_asked_and_its_error_told() {
    let (result, _) = against(&quick("SELECT 1 FROM shop.cart"), |mut side| async move {
        side.greet("8.0.36", "mysql_native_password").await;
        side.response().await;
        side.say(OK).await;
        let query = side.hear().await.unwrap();
        assert_eq!(
            query,
            [&[COM_QUERY][..], b"SELECT 1 FROM shop.cart"].concat()
        );
        side.say(&error(1146, "Table 'shop.cart' doesn't exist"))
            .await;
        quit(side).await;
    })
    .await;
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unexpected);
    assert!(failure.reason.contains("doesn't exist"), "{failure}");
}

#[tokio::test]
async fn a_file_of_this_node_is_not_given() {
    let (result, _) = against(&quick("SELECT 1"), |mut side| async move {
        side.greet("8.0.36", "mysql_native_password").await;
        side.response().await;
        side.say(OK).await;
        side.hear().await.unwrap();
        side.say(b"\xfb/etc/shadow").await;
        quit(side).await;
    })
    .await;
    assert_eq!(result.unwrap_err().kind, FailureKind::Protocol);
}

#[tokio::test]
async fn rows_without_end_are_not_read_to_their_end() {
    let server = Server::start(|stream| async move {
        let mut side = Side {
            stream,
            sequence: 0,
        };
        side.greet("8.0.36", "mysql_native_password").await;
        side.response().await;
        side.say(OK).await;
        side.hear().await;
        side.say(&[1]).await;
        side.say(b"\x03def\0\0\0\x01a\x0c\x2d\0").await;
        side.say(EOF).await;
        for _ in 0..1_000_000 {
            let row = [&[3, 0, 0, side.sequence], &b"\x02hi"[..]].concat();
            side.sequence = side.sequence.wrapping_add(1);
            if side.stream.write_all(&row).await.is_err() {
                return;
            }
        }
    })
    .await;
    let failure = ask(&quick("SELECT a FROM t"), server.target())
        .await
        .0
        .unwrap_err();
    assert!(failure.reason.contains("more than 256 rows"), "{failure}");
}

/// A MySQL 8 that knows the names of 8.0.22 and has no `innodb_read_only`.
async fn replica_of_mysql_8(mut side: Side) {
    side.greet("8.0.36", "mysql_native_password").await;
    side.response().await;
    side.say(OK).await;
    while let Some(command) = side.hear().await {
        match command.split_first() {
            Some((&COM_PING, _)) => side.say(OK).await,
            Some((&COM_QUIT, _)) => return,
            Some((&COM_QUERY, b"SELECT @@global.read_only")) => {
                side.table(&["@@global.read_only"], &[&[Some("1")]]).await;
            }
            Some((&COM_QUERY, b"SHOW REPLICA STATUS")) => {
                let columns = [
                    "Replica_IO_Running",
                    "Replica_SQL_Running",
                    "Seconds_Behind_Source",
                ];
                side.table(&columns, &[&[Some("Yes"), Some("Yes"), Some("42")]])
                    .await;
            }
            Some((&COM_QUERY, sql)) if sql.starts_with(b"SELECT GTID_SUBSET('a-b:1-9'") => {
                side.table(&["subset", "executed"], &[&[Some("0"), Some("a-b:1-8")]])
                    .await;
            }
            _ => side.say(&error(1193, "Unknown system variable")).await,
        }
    }
}

#[tokio::test]
async fn a_replica_is_observed_and_judged() {
    let wanted = Replication {
        writable: Some(false),
        max_lag_s: Some(10),
        ..Replication::default()
    };
    let (result, observed) = against(&check(wanted), replica_of_mysql_8).await;
    assert_eq!(
        result.unwrap_err().reason,
        "replica is 42 s behind, more than max_lag 10 s"
    );
    assert_eq!(observed.writable, Some(false));
    assert_eq!(observed.replication_running, Some(true));
    assert_eq!(observed.lag_s, Some(42));
}

#[tokio::test]
async fn a_position_of_mysql_is_compared_by_the_server() {
    let wanted = Replication {
        gtid: "a-b:1-9".to_owned(),
        ..Replication::default()
    };
    let (result, _) = against(&check(wanted), replica_of_mysql_8).await;
    let reason = result.unwrap_err().reason;
    assert!(reason.contains("\"a-b:1-8\""), "{reason}");
}

#[tokio::test]
async fn a_server_that_does_not_take_leave_is_left() {
    let server = Server::start(|stream| async move {
        let mut side = Side {
            stream,
            sequence: 0,
        };
        side.greet("8.0.36", "mysql_native_password").await;
        side.response().await;
        side.say(OK).await;
        side.hear().await;
        side.say(OK).await;
        std::future::pending::<()>().await;
        drop(side);
    })
    .await;
    assert_eq!(ask(&quick(""), server.target()).await.0, Ok(()));
}

#[tokio::test]
async fn hostile_servers_cost_a_deadline_and_nothing_more() {
    rigged::survives(&quick("")).await;
}

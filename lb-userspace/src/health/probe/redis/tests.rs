//! Against servers with prepared answers, and hostile ones.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Role, Value, lag_s};
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::health::probe::hostile::{Server, ask};
use crate::health::probe::rigged;
use crate::model::check::{CheckKind, RedisCheck, Replication, Secret};

fn check(password: Option<Secret>, replication: Replication) -> CheckKind {
    CheckKind::Redis(RedisCheck {
        user: String::new(),
        password,
        replication,
    })
}

fn quick() -> CheckKind {
    check(None, Replication::default())
}

fn following() -> CheckKind {
    check(
        None,
        Replication {
            must_run: true,
            max_lag_s: Some(10),
            ..Replication::default()
        },
    )
}

/// Answers each command that comes by the next of these.
async fn against(kind: &CheckKind, answers: &[&str]) -> (Result<(), Failure>, Observed) {
    let answers: Vec<String> = answers.iter().map(|one| (*one).to_owned()).collect();
    let server = Server::start(|mut stream| async move {
        let mut command = [0; 4096];
        for answer in answers {
            let read = stream.read(&mut command).await.expect("a command");
            assert!(command[..read].starts_with(b"*"), "an array");
            stream.write_all(answer.as_bytes()).await.expect("a reader");
        }
        // Whoever wants more hears nothing.
        let _ = stream.read(&mut command).await;
    })
    .await;
    ask(kind, server.target()).await
}

#[tokio::test]
async fn a_pong_is_enough() {
    assert_eq!(against(&quick(), &["+PONG\r\n"]).await.0, Ok(()));
}

#[tokio::test]
async fn refusals_are_told_in_the_servers_words() {
    for (answer, kind) in [
        (
            "-LOADING Redis is loading the dataset in memory\r\n",
            FailureKind::Unexpected,
        ),
        ("-NOAUTH Authentication required.\r\n", FailureKind::Access),
        (
            "-ERR max number of clients reached\r\n",
            FailureKind::Access,
        ),
    ] {
        let failure = against(&quick(), &[answer]).await.0.unwrap_err();
        assert_eq!(failure.kind, kind, "{failure}");
        assert_eq!(failure.reason, format!("PING: {}", answer[1..].trim_end()));
    }
}

#[tokio::test]
async fn the_password_is_not_repeated_when_the_server_does() {
    let secret = Secret::Env("PATH".to_owned());
    let path = std::env::var("PATH").expect("a PATH");
    let quoting = format!("-ERR unknown command 'AUTH', with args beginning with: '{path}'\r\n");
    let kind = check(Some(secret), Replication::default());
    let failure = against(&kind, &[&quoting]).await.0.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Access);
    assert_eq!(
        failure.reason,
        "AUTH: ERR unknown command 'AUTH', with args beginning with: '***'"
    );
}

const REPLICA: &str =
    "*5\r\n$5\r\nslave\r\n$8\r\n10.0.0.1\r\n:6379\r\n$9\r\nconnected\r\n:3167038\r\n";

#[tokio::test]
async fn a_replica_is_observed_and_judged() {
    let info = "role:slave\r\nmaster_link_status:up\r\nmaster_last_io_seconds_ago:42\r\n";
    let info = format!("${}\r\n{info}\r\n", info.len());
    let (result, observed) = against(&following(), &["+PONG\r\n", REPLICA, &info]).await;
    assert_eq!(
        result.unwrap_err().reason,
        "replica is 42 s behind, more than max_lag 10 s"
    );
    assert_eq!(observed.writable, Some(false));
    assert_eq!(observed.replication_running, Some(true));
    assert_eq!(observed.lag_s, Some(42));
}

#[tokio::test]
async fn a_replica_without_its_primary_is_told() {
    let role = "*5\r\n$5\r\nslave\r\n$8\r\n10.0.0.1\r\n:6379\r\n$7\r\nconnect\r\n:-1\r\n";
    let (result, observed) = against(&following(), &["+PONG\r\n", role]).await;
    assert_eq!(
        result.unwrap_err().reason,
        "the link to the primary is \"connect\""
    );
    assert_eq!(observed.replication_running, Some(false));
}

#[tokio::test]
async fn a_primary_with_replicas_is_writable() {
    let role = "*3\r\n$6\r\nmaster\r\n:9\r\n*1\r\n*3\r\n$3\r\nabc\r\n$4\r\n6379\r\n$1\r\n9\r\n";
    let (result, observed) = against(&following(), &["+PONG\r\n", role]).await;
    assert_eq!(result, Ok(()));
    assert_eq!(observed.writable, Some(true));
    assert_eq!(observed.replication_running, None);
}

#[test]
fn roles_that_are_none() {
    let text = |word: &str| Value::Text(word.to_owned());
    assert!(Role::of(&[Value::Array(2), text("sentinel"), Value::Array(0)]).is_err());
    assert!(Role::of(&[]).is_err());
    assert!(Role::of(&[Value::Null]).is_err());
    assert!(Role::of(&[Value::Array(1), text("slave")]).is_err());
}

#[test]
fn the_lag_of_info() {
    assert_eq!(lag_s("a:1\r\nmaster_last_io_seconds_ago:7\r\n"), Some(7));
    assert_eq!(lag_s("master_last_io_seconds_ago:-1\r\n"), None);
    assert_eq!(lag_s(""), None);
}

#[tokio::test]
async fn arrays_and_strings_without_measure_are_refused() {
    for answer in [
        "*1000000000\r\n",
        "*18446744073709551615\r\n*18446744073709551615\r\n",
        "$1000000000\r\n",
        "*-2\r\n",
        ":x\r\n",
        "\r\n",
        "é\r\n",
    ] {
        let failure = against(&quick(), &[answer]).await.0.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Protocol, "{answer:?}: {failure}");
    }
}

#[tokio::test]
async fn hostile_servers_cost_a_deadline_and_nothing_more() {
    rigged::survives(&quick()).await;
}

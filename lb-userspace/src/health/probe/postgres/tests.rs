//! Against servers that speak as the protocol's documentation says, and against those that do not.
//! (<https://www.postgresql.org/docs/current/protocol-message-formats.html>)

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::State;
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::health::probe::hostile::{Server, ask};
use crate::health::probe::rigged;
use crate::model::check::{CheckKind, PostgresCheck, Replication, Secret};

const AUTHENTICATION_OK: &[u8] = &[0, 0, 0, 0];
const READY: &[u8] = b"I";

struct Side(TcpStream);

impl Side {
    async fn say(&mut self, tag: u8, payload: &[u8]) {
        let length = (payload.len() as u32 + 4).to_be_bytes();
        let message = [&[tag], &length[..], payload].concat();
        // Who refuses a client may find it gone.
        let _ = self.0.write_all(&message).await;
    }

    /// The payload of a message; `None` once the client has gone.
    async fn hear(&mut self) -> Option<(u8, Vec<u8>)> {
        let tag = self.0.read_u8().await.ok()?;
        Some((tag, self.body().await?))
    }

    async fn body(&mut self) -> Option<Vec<u8>> {
        let length = self.0.read_u32().await.ok()?;
        let mut payload = vec![0; length as usize - 4];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(payload)
    }

    async fn let_in(&mut self) {
        self.say(b'R', AUTHENTICATION_OK).await;
        self.say(b'S', b"server_version\x0016.2\0").await;
        self.say(b'K', &[0; 8]).await;
        self.say(b'Z', READY).await;
    }

    async fn refuse(&mut self, code: &str, words: &str) {
        let fields = format!("SFATAL\0C{code}\0M{words}\0\0");
        self.say(b'E', fields.as_bytes()).await;
    }

    async fn row(&mut self, values: &[Option<&str>]) {
        let mut row = (values.len() as u16).to_be_bytes().to_vec();
        for value in values {
            let length = value.map_or(-1, |value| value.len() as i32);
            row.extend(length.to_be_bytes());
            row.extend(value.unwrap_or_default().as_bytes());
        }
        self.say(b'T', &[0, 0]).await;
        self.say(b'D', &row).await;
        self.say(b'C', b"SELECT 1\0").await;
        self.say(b'Z', READY).await;
    }

    /// Answers the query for the state with this row, and others with `t`.
    async fn answer(&mut self, state: &[Option<&str>]) {
        while let Some((b'Q', sql)) = self.hear().await {
            if sql == [super::STATE.as_bytes(), &[0]].concat() {
                self.row(state).await;
            } else {
                self.row(&[Some("t")]).await;
            }
        }
    }
}

fn check(password: Option<Secret>, query: &str, replication: Replication) -> CheckKind {
    CheckKind::Postgres(PostgresCheck {
        user: "lbd".to_owned(),
        password,
        database: "shop".to_owned(),
        query: query.to_owned(),
        replication,
    })
}

fn quick() -> CheckKind {
    check(None, "", Replication::default())
}

/// One connection to a server that does this to its end, and what the probe made of it.
async fn against<S>(
    kind: &CheckKind,
    script: impl FnOnce(Side) -> S + Send + 'static,
) -> (Result<(), Failure>, Observed)
where
    S: Future<Output = ()> + Send + 'static,
{
    let server = Server::start(|stream| async move {
        let mut side = Side(stream);
        let startup = side.body().await.expect("a start-up message");
        assert!(startup.starts_with(b"\0\x03\0\0user\0lbd\0database\0shop\0"));
        script(side).await;
    })
    .await;
    let outcome = ask(kind, server.target()).await;
    server.ended().await;
    outcome
}

async fn against_state(
    replication: Replication,
    state: &'static [Option<&'static str>],
) -> (Result<(), String>, Observed) {
    let kind = check(None, "", replication);
    let (result, observed) = against(&kind, move |mut side| async move {
        side.let_in().await;
        side.answer(state).await;
    })
    .await;
    (result.map_err(|failure| failure.reason), observed)
}

#[tokio::test]
async fn a_server_that_lets_in_is_up() {
    let (result, observed) = against(&quick(), |mut side| async move {
        side.let_in().await;
        assert_eq!(side.hear().await.expect("a farewell").0, b'X');
    })
    .await;
    assert_eq!(result, Ok(()));
    assert_eq!(observed, Observed::default());
}

#[tokio::test]
async fn refusals_are_told_in_the_servers_words() {
    for (code, words, kind) in [
        (
            "28P01",
            "password authentication failed",
            FailureKind::Access,
        ),
        (
            "53300",
            "sorry, too many clients already",
            FailureKind::Access,
        ),
        (
            "57P03",
            "the database system is starting up",
            FailureKind::Unexpected,
        ),
    ] {
        let (result, _) = against(&quick(), move |mut side| async move {
            side.refuse(code, words).await;
        })
        .await;
        let failure = result.unwrap_err();
        assert_eq!(failure.kind, kind);
        assert_eq!(failure.reason, format!("signing in: error {code}: {words}"));
    }
}

#[tokio::test]
async fn a_password_is_not_sent_in_clear_text() {
    let secret = Some(Secret::Env("PATH".to_owned()));
    let kind = check(secret, "", Replication::default());
    let (result, _) = against(&kind, |mut side| async move {
        side.say(b'R', &[0, 0, 0, 3]).await;
        assert_eq!(side.hear().await.expect("a farewell").0, b'X');
    })
    .await;
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Access);
    assert!(failure.reason.contains("clear text"), "{failure}");
}

#[tokio::test]
async fn work_without_measure_is_not_done_for_a_server() {
    let secret = Some(Secret::Env("PATH".to_owned()));
    let kind = check(secret, "", Replication::default());
    let (result, _) = against(&kind, |mut side| async move {
        side.say(b'R', b"\0\0\0\x0aSCRAM-SHA-256\0\0").await;
        let (_, first) = side.hear().await.expect("a first message");
        let text = String::from_utf8_lossy(&first).into_owned();
        let nonce = text.split("r=").nth(1).expect("a nonce");
        let challenge = format!("r={nonce}x,s=c2FsdA==,i=4000000000");
        side.say(b'R', &[&[0, 0, 0, 11], challenge.as_bytes()].concat())
            .await;
        side.hear().await;
    })
    .await;
    let failure = result.unwrap_err();
    assert!(failure.reason.contains("iteration count"), "{failure}");
}

#[tokio::test]
async fn the_querys_error_is_told() {
    let kind = check(None, "SELECT 1 FROM cart", Replication::default());
    let (result, _) = against(&kind, |mut side| async move {
        side.let_in().await;
        assert_eq!(
            side.hear().await.expect("a query"),
            (b'Q', b"SELECT 1 FROM cart\0".to_vec())
        );
        side.refuse("42P01", "relation \"cart\" does not exist")
            .await;
        side.say(b'Z', READY).await;
        assert_eq!(side.hear().await.expect("a farewell").0, b'X');
    })
    .await;
    let failure = result.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unexpected);
    assert!(failure.reason.contains("42P01"), "{failure}");
}

fn following() -> Replication {
    Replication {
        writable: Some(false),
        must_run: true,
        max_lag_s: Some(10),
        ..Replication::default()
    }
}

const T: Option<&str> = Some("t");
const F: Option<&str> = Some("f");

#[tokio::test]
async fn a_standby_is_observed() {
    let (result, observed) = against_state(following(), &[T, F, T, F, Some("0"), None]).await;
    assert_eq!(result, Ok(()));
    assert_eq!(observed.writable, Some(false));
    assert_eq!(observed.replication_running, Some(true));
    assert_eq!(observed.lag_s, Some(0));
}

#[tokio::test]
async fn a_standby_that_catches_up_at_once_was_not_behind() {
    let idle_for_an_hour = &[T, F, T, F, Some("3600"), Some("0/3000148")];
    let (result, observed) = against_state(following(), idle_for_an_hour).await;
    assert_eq!(result, Ok(()));
    assert_eq!(observed.lag_s, Some(0));
}

#[tokio::test]
async fn a_standby_without_a_primary_and_a_paused_one_are_told() {
    let (result, _) = against_state(following(), &[T, F, F, F, Some("0"), None]).await;
    assert_eq!(
        result.unwrap_err(),
        "the standby receives no WAL from a primary"
    );
    let paused = &[T, F, T, T, Some("42"), Some("0/1")];
    let (result, observed) = against_state(following(), paused).await;
    assert_eq!(result.unwrap_err(), "the standby's replay is paused");
    assert_eq!(observed.lag_s, Some(42));
}

#[tokio::test]
async fn a_primary_is_told_from_a_standby() {
    let writer = Replication {
        writable: Some(true),
        ..Replication::default()
    };
    let primary = &[F, T, F, None, None, None];
    let (result, observed) = against_state(writer.clone(), primary).await;
    assert_eq!(result, Ok(()));
    assert_eq!(observed.replication_running, None);
    let standby = &[T, F, T, F, Some("0"), None];
    let (result, _) = against_state(writer, standby).await;
    assert_eq!(result.unwrap_err(), "the server is read-only");
}

#[test]
fn an_answer_of_another_form_is_refused() {
    let row = |count: usize| vec![Some("t".to_owned()); count];
    assert!(State::of(&vec![]).is_err());
    assert!(State::of(&vec![row(5)]).is_err());
    assert!(State::of(&vec![row(6), row(6)]).is_err());
    let injected = State::of(&vec![vec![
        Some("t".to_owned()),
        None,
        None,
        None,
        None,
        Some("0/1' OR 't".to_owned()),
    ]]);
    assert_eq!(injected.expect("six columns").received, "");
}

#[tokio::test]
async fn hostile_servers_cost_a_deadline_and_nothing_more() {
    rigged::survives(&quick()).await;
}

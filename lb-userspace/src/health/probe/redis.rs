//! Redis and its kin: AUTH, PING, and what ROLE and INFO say.
//!
//! Lag is what INFO calls `master_last_io_seconds_ago`: how long a replica has heard nothing from its
//! primary. A primary with nothing to say speaks every `repl-ping-replica-period` (10 s), so a `max_lag`
//! below that finds fault with every replica of an idle one.

mod resp;
#[cfg(test)]
mod tests;

use self::resp::{Resp, Value};
use super::replication::{Replica, is_about_replicas, is_about_role, judge};
use super::secret::{self, Password};
use super::text::quote;
use super::{Target, connect};
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::{RedisCheck, Replication};

/// Signs in if there is a password, pings, and examines the server's role. There is no farewell: Redis
/// does not mind.
pub(super) async fn redis(
    check: &RedisCheck,
    target: Target,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let password = secret::read(check.password.as_ref()).await?;
    let stream = connect::open(target, observed).await?;
    let mut server = Server {
        resp: Resp::over(stream),
        password: password.as_ref(),
    };
    server.sign_in(&check.user).await?;
    server.ping().await?;
    if !is_about_role(&check.replication) {
        return Ok(());
    }
    let replica = server.examine(&check.replication, observed).await?;
    judge(&check.replication, observed, &replica)
}

struct Server<'a> {
    resp: Resp,
    password: Option<&'a Password>,
}

impl Server<'_> {
    async fn sign_in(&mut self, user: &str) -> Result<(), Failure> {
        let Some(password) = self.password else {
            return Ok(());
        };
        let (name, secret) = (user.as_bytes(), password.as_bytes());
        let command: &[&[u8]] = match user {
            "" => &[b"AUTH", secret],
            _ => &[b"AUTH", name, secret],
        };
        self.ask(command, "AUTH").await.map(drop)
    }

    /// `-LOADING`, `-MASTERDOWN` and `-BUSY` are answers to PING too, and no healthy ones.
    async fn ping(&mut self) -> Result<(), Failure> {
        let answer = self.ask(&[b"PING"], "PING").await?;
        match answer.first().and_then(Value::text) {
            Some("PONG") => Ok(()),
            _ => Err(strange("PING", answer.first())),
        }
    }

    async fn examine(
        &mut self,
        wanted: &Replication,
        observed: &mut Observed,
    ) -> Result<Replica, Failure> {
        let role = Role::of(&self.ask(&[b"ROLE"], "ROLE").await?)?;
        observed.writable = Some(role == Role::Primary);
        let Role::Replica { link } = role else {
            return Ok(Replica::default());
        };
        let is_running = link == "connected";
        let mut replica = Replica {
            is_running: Some(is_running),
            lag_s: None,
            trouble: format!("the link to the primary is {}", quote(&link)),
        };
        if is_running && is_about_replicas(wanted) {
            let info = self.ask(&[b"INFO", b"replication"], "INFO").await?;
            replica.lag_s = lag_s(info.first().and_then(Value::text).unwrap_or_default());
        }
        replica.observed(observed);
        Ok(replica)
    }

    async fn ask(&mut self, command: &[&[u8]], name: &str) -> Result<Vec<Value>, Failure> {
        self.resp.send(command, name).await?;
        let answer = self.resp.read(name).await?;
        match answer.first() {
            Some(Value::Error(words)) => Err(self.refused(words, name)),
            _ => Ok(answer),
        }
    }

    /// Redis quotes arguments of a command that it does not know, and that may be AUTH.
    fn refused(&self, words: &str, name: &str) -> Failure {
        let words = match self.password {
            Some(password) => password.hidden_in(words),
            None => words.to_owned(),
        };
        let is_access = ["NOAUTH", "WRONGPASS", "NOPERM", "ERR max number of clients"]
            .iter()
            .any(|begin| words.starts_with(begin))
            || name == "AUTH";
        let kind = if is_access {
            FailureKind::Access
        } else {
            FailureKind::Unexpected
        };
        Failure::new(kind, format!("{name}: {words}"))
    }
}

/// What ROLE says.
#[derive(Debug, PartialEq, Eq)]
enum Role {
    Primary,
    Replica {
        /// `connected`, `connect`, `connecting`, `sync`.
        link: String,
    },
}

impl Role {
    fn of(answer: &[Value]) -> Result<Self, Failure> {
        let texts: Vec<Option<&str>> = answer.iter().map(Value::text).collect();
        match texts.as_slice() {
            [_, Some("master"), ..] => Ok(Self::Primary),
            // An array of five: the word, the primary's host and port, the link, the offset.
            [_, Some("slave"), _host, _port, Some(link), ..] => Ok(Self::Replica {
                link: (*link).to_owned(),
            }),
            [_, Some("sentinel"), ..] => Err(Failure::new(
                FailureKind::Unexpected,
                "this is a Sentinel, which has neither data nor a role",
            )),
            _ => Err(strange("ROLE", answer.get(1).or(answer.first()))),
        }
    }
}

/// The seconds since a replica last heard from its primary; -1 = the link is down.
fn lag_s(info: &str) -> Option<u32> {
    info.lines()
        .find_map(|line| line.strip_prefix("master_last_io_seconds_ago:"))
        .and_then(|seconds| seconds.trim().parse().ok())
}

fn strange(name: &str, answer: Option<&Value>) -> Failure {
    let said = match answer {
        Some(Value::Text(text)) => quote(text),
        Some(Value::Integer(number)) => number.to_string(),
        _ => "nothing that is known".to_owned(),
    };
    Failure::new(
        FailureKind::Protocol,
        format!("{name} is answered by {said}"),
    )
}

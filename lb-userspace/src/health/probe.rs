//! One question to one backend, and its answer.
//!
//! Nothing that a server does may cost more than its time-out and a bounded buffer, or leave anything
//! behind: connections are closed without TIME_WAIT here (RST where the protocol has no farewell).

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::outcome::{Failure, FailureKind, Observed};
use crate::model::check::{Check, CheckKind};

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Target {
    /// The backend's address, and the port that the check asks at.
    pub address: SocketAddr,
    /// Where from; `None` = as routing says.
    pub source: Option<IpAddr>,
    /// With [`crate::model::check::Via::Datapath`], the VIP that the question is addressed to.
    pub vip: Option<SocketAddr>,
}

mod agent;
pub mod connect;
mod dns;
mod exchange;
mod exec;
mod fastcgi;
mod grpc;
#[cfg(test)]
mod hostile;
mod http;
mod http1;
mod http2;
mod icmp;
mod mysql;
mod postgres;
mod redis;
mod replication;
#[cfg(test)]
mod rigged;
mod secret;
mod text;
mod tls;
mod udp;
pub mod wire;

/// Asks once. Ends by `deadline` at the latest, whatever the server does; the caller measures the time.
///
/// # Errors
/// [`Failure`], beside what was observed until then.
pub async fn probe(
    kind: &CheckKind,
    target: Target,
    deadline: Instant,
) -> (Result<(), Failure>, Observed) {
    let allowed = deadline.saturating_duration_since(Instant::now());
    let mut observed = Observed::default();
    let in_time = tokio::time::timeout_at(deadline.into(), ask(kind, target, &mut observed)).await;
    let doing = std::mem::take(&mut observed.doing);
    let result = in_time.unwrap_or_else(|_| Err(timed_out(&doing, allowed)));
    (result, observed)
}

fn timed_out(doing: &str, allowed: Duration) -> Failure {
    let allowed_ms = allowed.as_micros().div_ceil(1_000);
    match doing {
        "" => Failure::new(
            FailureKind::TimedOut,
            format_args!("no answer within {allowed_ms} ms"),
        ),
        _ => Failure::new(
            FailureKind::TimedOut,
            format_args!("{doing}: timed out after {allowed_ms} ms"),
        ),
    }
}

async fn ask(kind: &CheckKind, target: Target, observed: &mut Observed) -> Result<(), Failure> {
    match kind {
        CheckKind::Tcp(check) => exchange::tcp(check, target, observed).await,
        CheckKind::Http(check) => http::http(check, target, observed).await,
        CheckKind::Grpc(check) => grpc::grpc(check, target, observed).await,
        CheckKind::Mysql(check) => mysql::mysql(check, target, observed).await,
        CheckKind::Postgres(check) => postgres::postgres(check, target, observed).await,
        CheckKind::Redis(check) => redis::redis(check, target, observed).await,
        CheckKind::Fastcgi(check) => fastcgi::fastcgi(check, target, observed).await,
        CheckKind::Udp(check) => udp::udp(check, target, observed).await,
        CheckKind::Dns(check) => dns::dns(check, target, observed).await,
        CheckKind::Icmp => icmp::icmp(target, observed).await,
        CheckKind::Exec(check) => exec::exec(check, target, observed).await,
        CheckKind::Agent(check) => agent::agent(check, target, observed).await,
    }
}

impl Check {
    /// Whom to ask for a backend at this address and port, of a service with this VIP and port.
    pub fn target(&self, backend: SocketAddr, vip: SocketAddr) -> Target {
        let port = self.port.unwrap_or(backend.port());
        Target {
            address: SocketAddr::new(backend.ip(), port),
            source: self.source,
            vip: match self.via {
                crate::model::check::Via::Direct => None,
                crate::model::check::Via::Datapath => {
                    Some(SocketAddr::new(vip.ip(), self.port.unwrap_or(vip.port())))
                }
            },
        }
    }
}

//! Health checks as the operator wants them: what a backend is asked, how often, and what counts as an
//! answer.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

mod check_type;
mod describe;
mod keys;

pub use check_type::{CheckType, OwnChecks, ReplicationState};
pub use keys::{KEYS, keys_of, types_of};

/// One check of a backend.
///
/// Equal checks of the same address and port are one check, however many services ask for it: equality
/// is what the runner shares by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Check {
    /// What is asked, and what is an answer.
    pub kind: CheckKind,
    /// When, and how often an answer has to repeat itself.
    pub timing: Timing,
    /// The port in place of the backend's.
    pub port: Option<u16>,
    /// The address in place of the one that routing chooses.
    pub source: Option<IpAddr>,
    /// Which way the question takes.
    pub via: Via,
}

/// When a check is made, and how many answers in a row decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timing {
    /// Between the begins of two checks, jitter aside. Unit: milliseconds, 10 to 3,600,000.
    pub interval_ms: u32,
    /// The same while the last answer and the state disagree. Unit: milliseconds, at most
    /// `interval_ms`.
    pub fast_interval_ms: u32,
    /// A check that has not ended by then has failed. Unit: milliseconds, 1 to 600,000.
    pub timeout_ms: u32,
    /// Successes in a row after which a backend that is down is up, 1 to 100.
    pub rise: u8,
    /// Failures in a row after which a backend that is up is down, 1 to 100.
    pub fall: u8,
}

impl Timing {
    /// What applies where the file says nothing.
    pub const DEFAULT: Self = Self {
        interval_ms: 2_000,
        fast_interval_ms: 500,
        timeout_ms: 1_000,
        rise: 2,
        fall: 3,
    };
}

/// Which way a check takes to its backend.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// To the backend's own address.
    #[default]
    Direct,
    /// The way of the traffic: to the VIP at the backend's Ethernet address, so that a backend that lacks
    /// the VIP on its loopback is found out. L2 DSR only.
    Datapath,
}

/// How several checks of one backend are combined.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CheckMode {
    /// Up while all of them are.
    #[default]
    All,
    /// Up while any of them is.
    Any,
}

/// Which of its backends a replicated database service is for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Role {
    /// It is no such service: all of them.
    #[default]
    None,
    /// The one that accepts writes; nobody while two do.
    Writer,
    /// Those that do not, as long as they follow closely.
    Reader,
}

/// What a backend is asked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckKind {
    /// Whether it accepts a connection; and, if wanted, what it says there.
    Tcp(ExchangeCheck),
    /// An HTTP request, over TLS or not.
    Http(HttpCheck),
    /// MySQL's or MariaDB's handshake, and a query.
    Mysql(MysqlCheck),
    /// PostgreSQL's start-up, and a query.
    Postgres(PostgresCheck),
    /// Redis' PING or ROLE.
    Redis(RedisCheck),
    /// A FastCGI request, such as php-fpm's ping.
    Fastcgi(FastcgiCheck),
    /// grpc.health.v1.Health/Check.
    Grpc(GrpcCheck),
    /// A datagram, and the answer to it.
    Udp(ExchangeCheck),
    /// A DNS query.
    Dns(DnsCheck),
    /// An echo request (ICMP, ICMPv6).
    Icmp,
    /// A program's exit code.
    Exec(ExecCheck),
    /// HAProxy's agent-check: the backend says itself how it is.
    Agent(AgentCheck),
}

/// Bytes to send, and bytes that the answer must hold. Without `send`, whoever is asked speaks first.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExchangeCheck {
    /// Sent after the connection, if not empty.
    pub send: String,
    /// Must occur in the answer's first 4 KiB, if not empty.
    pub expect: String,
}

/// The version of HTTP that is spoken.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum HttpVersion {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2; with prior knowledge where there is no TLS.
    Http2,
}

/// An HTTP request and what its answer must be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct HttpCheck {
    /// With TLS or without.
    pub tls: Option<TlsCheck>,
    /// The version.
    pub version: HttpVersion,
    /// A token, such as `GET`.
    pub method: String,
    /// The path, and a query if any; begins with `/`.
    pub path: String,
    /// The `Host` header or `:authority`; `None` = the backend's address and port.
    pub host: Option<String>,
    /// More headers, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The status codes that count as an answer.
    pub status: Vec<StatusRange>,
    /// Must occur in the body's first 64 KiB, if not empty.
    pub body: String,
}

/// Status codes, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StatusRange {
    /// The lowest, 100 to 599.
    pub first: u16,
    /// The highest, `first` to 599.
    pub last: u16,
}

/// What TLS has to be like.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TlsCheck {
    /// The name that is asked for (SNI) and that the certificate must be for; `None` = the check's host,
    /// if that is a name, else the backend's address and no SNI.
    pub server_name: Option<String>,
    /// Whom the certificate must come from.
    pub trust: Trust,
    /// A certificate that is valid for fewer days draws a warning. 0 = none does.
    pub min_valid_days: u16,
}

/// Whom a certificate must come from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// From anybody; its name and dates are not looked at either.
    Anybody,
    /// From one of the authorities in a PEM file, as it was when the configuration was read.
    Authorities {
        /// The file.
        file: PathBuf,
        /// Its content. Not saved: it is read again.
        #[serde(skip)]
        pem: Arc<[u8]>,
    },
}

/// A password: from a file or the environment, never in the configuration itself. It is read for each
/// check, so that a changed one needs no reload.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Secret {
    /// The first line of a file.
    File(PathBuf),
    /// A variable of lbd's environment.
    Env(String),
}

/// A MySQL or MariaDB client, and what it must find.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MysqlCheck {
    /// The user.
    pub user: String,
    /// Its password; `None` = it has none.
    pub password: Option<Secret>,
    /// A query that must succeed, if not empty.
    pub query: String,
    /// What replication must be like.
    pub replication: Replication,
}

/// A PostgreSQL client, and what it must find.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PostgresCheck {
    /// The user.
    pub user: String,
    /// Its password; `None` = it has none.
    pub password: Option<Secret>,
    /// The database.
    pub database: String,
    /// A query that must succeed, if not empty.
    pub query: String,
    /// What replication must be like.
    pub replication: Replication,
}

/// A Redis client, and what it must find.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RedisCheck {
    /// The user of `AUTH`; empty = the default one.
    pub user: String,
    /// Its password; `None` = no `AUTH`.
    pub password: Option<Secret>,
    /// What replication must be like.
    pub replication: Replication,
}

/// What a database must be like to count as up. Where nothing is asked for, nothing is queried.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Replication {
    /// Whether it must accept writes (`Some(true)`), or must not.
    pub writable: Option<bool>,
    /// A replica must be fetching and applying.
    pub must_run: bool,
    /// A replica may be this far behind. Unit: seconds.
    pub max_lag_s: Option<u32>,
    /// A replica must have applied at least this GTID position, if not empty.
    pub gtid: String,
    /// Writable, running and lag are found out for the service's role, whatever is required above.
    /// Comes from the service, not from the check.
    pub observe: bool,
}

/// A FastCGI request.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FastcgiCheck {
    /// `SCRIPT_NAME` and `SCRIPT_FILENAME`, such as `/ping`.
    pub path: String,
    /// The status codes that count as an answer.
    pub status: Vec<StatusRange>,
    /// Must occur in the body, if not empty.
    pub body: String,
}

/// A gRPC health check.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GrpcCheck {
    /// With TLS or without.
    pub tls: Option<TlsCheck>,
    /// The service that is asked after; empty = the server as a whole.
    pub service: String,
}

/// What a DNS query asks for.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(rename_all = "snake_case")]
pub enum DnsType {
    /// An IPv4 address.
    #[default]
    A,
    /// An IPv6 address.
    Aaaa,
    /// Name servers.
    Ns,
    /// The start of authority.
    Soa,
}

/// A DNS query over the service's protocol.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DnsCheck {
    /// The name.
    pub name: String,
    /// What is asked for.
    pub query_type: DnsType,
    /// An address that must be among the answers; `None` = any answer without an error does.
    pub expect: Option<IpAddr>,
    /// Over TCP in place of UDP.
    pub is_tcp: bool,
}

/// A program; exit code 0 is a success.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ExecCheck {
    /// Its absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
}

/// HAProxy's agent-check.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AgentCheck {
    /// Sent before the answer is read, if not empty.
    pub send: String,
}

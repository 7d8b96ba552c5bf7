//! The API of `lbd`: HTTP and JSON over a unix socket, versioned, described by an OpenAPI document.
//!
//! `curl --unix-socket /run/lbd/lbd.sock http://lbd/v1/status` works; `lbctl` uses [`client`].

use std::time::Duration;

use crate::events::EventLog;
use crate::health::runner::HealthHandle;
use crate::tally::Tally;

mod body;
pub mod client;
mod connections;
mod datapath;
mod error;
pub mod herald;
mod journal;
mod openapi;
pub mod peers;
pub mod proto;
mod read;
mod routes;
pub mod server;
mod socket;
mod view;
pub mod vrrp;

/// Where `lbd` listens unless told otherwise.
pub const SOCKET_DEFAULT: &str = "/run/lbd/lbd.sock";

/// Version of the API: the first part of each path. Within a version, keys are only added.
pub const API_VERSION: &str = "v1";

/// How long a request may take: the largest ring is written in tens of milliseconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

pub use socket::{Socket, SocketError};

/// What the API tells besides what the engine knows. Clones tell the same.
#[derive(Clone, Debug, Default)]
pub struct Monitor {
    /// What checks have found.
    pub health: HealthHandle,
    /// What has happened.
    pub events: EventLog,
    /// What the daemon counts of itself.
    pub tally: Tally,
    /// `lbd-vrrp`, and the way to it.
    pub vrrp: vrrp::VrrpHandle,
    /// The other nodes.
    pub peers: peers::PeersHandle,
}

//! How the links are, for `lbctl peer status` and metrics.

use std::net::SocketAddr;

use super::Introduction;
use crate::sync::hello::{Refusal, Version};
use crate::sync::replicate::replicator::FlowsStatus;

/// Why a session has ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DownReason {
    /// The peer has said goodbye: it stops in good order.
    #[error("it said goodbye")]
    Goodbye,
    /// This node stops.
    #[error("this node's daemon stops")]
    Stopped,
    /// Nothing was heard of it.
    #[error("nothing was heard of it for {silent_ms} ms")]
    Silent {
        /// For so long.
        silent_ms: u64,
    },
    /// It has closed the connection without a word.
    #[error("it closed the connection")]
    Closed,
    /// The connection has failed.
    #[error("the connection failed: {0}")]
    Failed(String),
    /// It has begun a newer session.
    #[error("it has begun a newer session")]
    Replaced,
    /// It has stopped reading.
    #[error("it takes no frames: too many wait to be sent")]
    Overflow,
    /// It, or somebody in its place, has broken the protocol.
    #[error("{0}")]
    Refused(#[from] Refusal),
}

/// What went one way over a link since the daemon began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Frames.
    pub frames: u64,
    /// Bytes over TCP, handshakes included.
    pub stream_bytes: u64,
    /// Datagrams, those that were taken.
    pub datagrams: u64,
    /// Their bytes, above UDP.
    pub datagram_bytes: u64,
}

/// How the link to one peer is. Counts are since the daemon began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkStatus {
    /// Its name.
    pub peer: String,
    /// Its address, as config has it.
    pub address: SocketAddr,
    /// Whether there is a session.
    pub is_up: bool,
    /// Since when it is so. Unit: milliseconds ago.
    pub since_ms: u64,
    /// Since when it is so. Unit: milliseconds since 1970, UTC.
    pub since_unix_ms: u64,
    /// Since anything authentic was heard of it; `None` = never. Unit: milliseconds.
    pub heard_ms: Option<u64>,
    /// To the peer and back, by heartbeats, smoothed; `None` if none came back in this session. Unit: microseconds.
    pub rtt_us: Option<u32>,
    /// What both speak, in the last session.
    pub version: Option<Version>,
    /// What it told about itself in the last session.
    pub introduction: Option<Introduction>,
    /// Sessions that have come up.
    pub sessions: u64,
    /// To it.
    pub sent: Traffic,
    /// From it.
    pub received: Traffic,
    /// Datagrams that it sent in this session and that have not arrived.
    pub missing_datagrams: u64,
    /// Datagrams in its name that were taken before, or were too old.
    pub replayed_datagrams: u64,
    /// Datagrams in its name that it has not made.
    pub forged_datagrams: u64,
    /// Sessions in its name that were refused.
    pub refused_sessions: u64,
    /// Frames and datagrams of kinds that this version does not know.
    pub unknown_kinds: u64,
    /// Authentic ones that break the protocol all the same: the peer has a fault.
    pub malformed: u64,
    /// How the replication of flows stands in this session; all 0 while the link is down.
    pub flows: FlowsStatus,
    /// Datagrams for which the daemon was too slow.
    pub overruns: u64,
    /// Why the last session, or the last attempt at one, has failed.
    pub last_error: Option<String>,
    /// When. Unit: milliseconds since 1970, UTC.
    pub last_error_unix_ms: Option<u64>,
}

/// How all links are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LinksStatus {
    /// By peer, in the order of their names.
    pub peers: Vec<LinkStatus>,
    /// Connections that were refused: of nobody's, or more at a time than there are places.
    pub refused_connections: u64,
    /// Datagrams of no session.
    pub stranger_datagrams: u64,
}

//! The kinds of frames and datagrams. A kind that the reader does not know is ignored and counted: so a node may
//! talk to an older one of the same major version.

/// Kinds below are the link's own, and those of the replication of flows.
pub const FREE_MIN: u16 = 1024;
/// Kinds from here on, below [`FREE_MIN`], are the replication's.
pub const REPLICATION_MIN: u16 = 256;

/// Frame: the first one each way. See [`crate::sync::link::Introduction`].
pub const WELCOME: u16 = 0;
/// Frame: asks for a [`PONG`] with the same content.
pub const PING: u16 = 1;
/// Frame: the answer.
pub const PONG: u16 = 2;
/// Frame: the sender ends in good order.
pub const GOODBYE: u16 = 3;
/// Frame: a part of the sender's dictionary.
pub const DICTIONARY: u16 = REPLICATION_MIN;

/// Datagram: the sender lives.
pub const HEARTBEAT: u16 = 0;
/// Datagram: flows.
pub const FLOWS: u16 = REPLICATION_MIN;
/// Datagram: which of the peer's flow datagrams have arrived.
pub const FLOWS_ACK: u16 = REPLICATION_MIN + 1;

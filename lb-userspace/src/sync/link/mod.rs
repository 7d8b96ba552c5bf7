//! The links to all peers: one session for each, kept up, and what goes over it.
//!
//! TCP carries frames ([`super::session`]): they arrive, in order, or the link is reset. UDP carries datagrams
//! ([`super::datagram`]) of the same session, heartbeats among them, in a thread of its own ([`wire`]), so that
//! they are not late because the daemon is busy. Between two nodes, the one with the smaller name connects.
//!
//! Every queue is bounded. Whoever has not shown yet that it has the secret costs one of a few places, for
//! [`HANDSHAKE_TIMEOUT`]; nodes at the peers' own addresses have places of their own.

mod beats;
mod dial;
mod listen;
mod room;
mod shared;
mod status;
mod stream;
mod wire;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

pub use self::room::FrameBytes;
use self::shared::Shared;
pub use self::status::{DownReason, LinkStatus, LinksStatus, Traffic};
use self::wire::{Command, Wire};
use super::datagram::PAYLOAD_MAX_BYTES;
use super::hello::Version;
use super::kind;
use super::replicate::dictionary::ServiceEndpoint;
use super::replicate::table::SharedTable;
use super::secret::Secret;
use super::session::FRAME_MAX_BYTES;
use crate::model::cluster::{Cluster, PEERS_MAX};

/// How long whoever connects may take to show that it has the secret.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long an attempt to connect may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// A link over which nothing at all was heard for so long is down: far longer than anybody's judgement by
/// heartbeats takes, so that a link with heavy loss is not reset for it.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);
/// What [`LinksHandle::status`] says of the flows was so this long ago at most.
pub const STATUS_AGE_MAX: Duration = Duration::from_millis(20);
/// The longest payload of a heartbeat. Unit: bytes.
pub const HEARTBEAT_MAX_BYTES: usize = PAYLOAD_MAX_BYTES - size_of::<beats::Beat>();
/// Events that wait for the daemon: whatever frames of all peers there are, there is a place for heartbeats.
const EVENTS_MAX: usize = PEERS_MAX * room::FRAMES_MAX + 1024;

/// What a node tells about itself when a link comes up. Encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Introduction {
    /// The program's version, for people.
    pub software: String,
    /// When its daemon began. Unit: milliseconds since 1970, UTC.
    pub started_unix_ms: u64,
    /// [`super::secret::hash_key_fingerprint`] of its datapath; 0 = it has none yet.
    pub hash_key_fingerprint: u64,
}

/// What has happened on the links.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkEvent {
    /// A session has begun. Nothing of an earlier one arrives after this.
    Up {
        /// The peer's name.
        peer: String,
        /// What both speak.
        version: Version,
        /// What it tells about itself.
        introduction: Introduction,
    },
    /// The session has ended.
    Down {
        /// The peer's name.
        peer: String,
        /// Why.
        reason: DownReason,
    },
    /// A frame of the daemon's own kinds.
    Frame {
        /// The peer's name.
        peer: String,
        /// [`kind::FREE_MIN`] or higher.
        kind: u16,
        /// Its content.
        bytes: FrameBytes,
    },
    /// The peer lives.
    Heartbeat {
        /// The peer's name.
        peer: String,
        /// What its daemon says, see [`LinksHandle::set_heartbeat`].
        payload: Vec<u8>,
        /// Since its daemon said so. Unit: milliseconds.
        payload_age_ms: u32,
        /// How old the last heartbeat of this node is that the peer has heard; `None` = it has heard none. Unit:
        /// milliseconds.
        echo_age_ms: Option<u64>,
        /// When it arrived.
        at: Instant,
    },
    /// The peer has flows of backends that this node's services do not have: each is told once a dictionary.
    Strangers {
        /// The peer's name.
        peer: String,
        /// Their services, and where they are.
        backends: Vec<(ServiceEndpoint, SocketAddr)>,
    },
    /// A datagram of the daemon's own kinds.
    Datagram {
        /// The peer's name.
        peer: String,
        /// [`kind::FREE_MIN`] or higher.
        kind: u16,
        /// Its content.
        bytes: Vec<u8>,
    },
}

/// Why something was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no peer of this name.
    #[error("the cluster has no peer {0:?}")]
    Unknown(String),
    /// There is no session with it.
    #[error("the link to peer {0} is down")]
    Down(String),
    /// Too much waits for it already. For a frame, the link is reset: the peer has stopped reading.
    #[error("too much waits to be sent to peer {0}")]
    Full(String),
    /// It is too long.
    #[error("{what} of {len_bytes} bytes cannot be sent: {max_bytes} are possible")]
    TooLong {
        /// What it is.
        what: &'static str,
        /// Its length.
        len_bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The kind is the link's own.
    #[error("kind {0} is the link's own: the daemon's begin with {min}", min = kind::FREE_MIN)]
    Reserved(u16),
}

/// Makes the links.
pub struct Links;

impl Links {
    /// Listens, connects, and goes on until [`LinksHandle::shutdown`], or until the events' receiver is dropped.
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the address of `[cluster] listen` cannot be used; the error names it.
    pub fn start(
        config: &Cluster,
        node: &str,
        secret: &Secret,
        introduction: Introduction,
    ) -> io::Result<(LinksHandle, mpsc::Receiver<LinkEvent>)> {
        let (event_sender, events) = mpsc::channel(EVENTS_MAX);
        let (stop, stopping) = watch::channel(false);
        let listener = listen::bind(config.listen)?;
        let listen = listener.local_addr()?;
        let (wire, commands) = Wire::bind(listen)?;
        let shared = Arc::new(Shared::new(
            config,
            node,
            secret,
            introduction,
            event_sender,
            commands,
        ));
        let thread = wire.spawn(Arc::clone(&shared))?;
        let mut tasks = JoinSet::new();
        tasks.spawn(listen::run(Arc::clone(&shared), listener, stopping.clone()));
        for peer in config
            .peers
            .values()
            .filter(|peer| peer.name.as_str() > node)
        {
            tasks.spawn(dial::run(
                Arc::clone(&shared),
                peer.clone(),
                listen,
                stopping.clone(),
            ));
        }
        let running = Running {
            stop,
            tasks,
            thread,
        };
        let handle = LinksHandle {
            shared,
            listen,
            running: Arc::new(Mutex::new(Some(running))),
        };
        Ok((handle, events))
    }
}

struct Running {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
    thread: std::thread::JoinHandle<()>,
}

/// What the daemon does with the links. Nothing here waits, but for [`Self::shutdown`].
#[derive(Clone)]
pub struct LinksHandle {
    shared: Arc<Shared>,
    listen: SocketAddr,
    running: Arc<Mutex<Option<Running>>>,
}

impl LinksHandle {
    /// Where this node listens: the port that the system chose, if config has port 0.
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Sends a frame. It arrives, in order, or a [`LinkEvent::Down`] follows.
    ///
    /// # Errors
    /// [`SendError`]: it was not sent.
    pub fn send(&self, peer: &str, kind: u16, bytes: Vec<u8>) -> Result<(), SendError> {
        check(kind, "a frame", bytes.len(), FRAME_MAX_BYTES)?;
        self.shared.send_frame(peer, None, kind, bytes)
    }

    /// Sends a datagram. It may be lost, and may be overtaken.
    ///
    /// # Errors
    /// [`SendError`]: it was not sent.
    pub fn send_datagram(&self, peer: &str, kind: u16, bytes: Vec<u8>) -> Result<(), SendError> {
        check(kind, "a datagram", bytes.len(), PAYLOAD_MAX_BYTES)?;
        self.shared.send_datagram(peer, kind, bytes)
    }

    /// What heartbeats say from now on, to all peers; said at once if it differs from before.
    ///
    /// # Errors
    /// [`SendError::TooLong`]: [`HEARTBEAT_MAX_BYTES`].
    pub fn set_heartbeat(&self, payload: Vec<u8>) -> Result<(), SendError> {
        let (len_bytes, max_bytes) = (payload.len(), HEARTBEAT_MAX_BYTES);
        if len_bytes > max_bytes {
            return Err(SendError::TooLong {
                what: "a heartbeat",
                len_bytes,
                max_bytes,
            });
        }
        self.shared.set_heartbeat(payload);
        Ok(())
    }

    /// What this node tells about itself in sessions to come.
    pub fn set_introduction(&self, introduction: Introduction) {
        self.shared.set_introduction(introduction);
    }

    /// Shares a flow table with all peers from now on, or none. The table goes to the thread of the datagrams, and
    /// is dropped there when another takes its place or the links end.
    pub async fn share_table(&self, table: Option<Box<dyn SharedTable>>) {
        self.shared.commands.send(Command::Table(table)).await;
    }

    /// Has all peers know each flow's age, at once: this node has given flows up to one of them.
    pub fn tell_ages(&self) {
        // A thread for which so much waits refreshes the ages by itself, within seconds.
        let _full = self.shared.commands.try_send(Command::TellAges);
    }

    /// How the links are.
    pub fn status(&self) -> LinksStatus {
        self.shared.status()
    }

    /// Says goodbye to all peers, and ends. The address is free again after it.
    pub async fn shutdown(&self) {
        let running = self
            .running
            .lock()
            .map_or(None, |mut running| running.take());
        let Some(mut running) = running else { return };
        // Nobody hears it if all have ended already.
        let _ = running.stop.send(true);
        while running.tasks.join_next().await.is_some() {}
        self.shared.commands.stop();
        let joined = tokio::task::spawn_blocking(move || running.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("the thread of the peer link's datagrams has panicked");
        }
    }
}

fn check(
    kind: u16,
    what: &'static str,
    len_bytes: usize,
    max_bytes: usize,
) -> Result<(), SendError> {
    if kind < kind::FREE_MIN {
        Err(SendError::Reserved(kind))
    } else if len_bytes > max_bytes {
        Err(SendError::TooLong {
            what,
            len_bytes,
            max_bytes,
        })
    } else {
        Ok(())
    }
}

#[cfg(test)]
#[path = "../link_tests.rs"]
mod tests;

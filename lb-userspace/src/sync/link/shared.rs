//! What the tasks and the thread of the links share: by peer, its session and its figures.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::{Notify, mpsc, watch};
use tracing::{info, warn};

use super::room::Room;
use super::status::{DownReason, LinkStatus, LinksStatus, Traffic};
use super::wire::{Command, Commands};
use super::{Introduction, LinkEvent, SendError};
use crate::model::cluster::Cluster;
use crate::sync::hello::{Hello, Version};
use crate::sync::replicate::replicator::FlowsStatus;
use crate::sync::secret::Secret;

/// Frames that wait to be sent to one peer: more than twice as many as there are services, each of which has one
/// when a link comes up, and when a node takes over.
const OUTBOUND_MAX: usize = 1 << 16;
/// Their bytes: a full ring history, and some. Unit: bytes.
const OUTBOUND_MAX_BYTES: usize = 16 << 20;
/// Refusals of strangers, and of those who claim to be a peer, are logged at most so often: anybody can be one.
const STRANGER_LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A lock that a panic elsewhere does not poison: what it guards is whole between statements.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until the links are to end, or nobody is left who could say so.
pub(super) async fn stopped(stopping: &mut watch::Receiver<bool>) {
    // An error says the latter.
    let _ = stopping.wait_for(|is_stopping| *is_stopping).await;
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_millis() as u64
}

/// What everything of the links knows.
pub(super) struct Shared {
    pub(super) hello: Hello,
    pub(super) key: [u8; 32],
    pub(super) heartbeat: Duration,
    pub(super) events: mpsc::Sender<LinkEvent>,
    pub(super) commands: Commands,
    pub(super) peers: BTreeMap<String, Arc<PeerState>>,
    /// The names of those that connect to this node.
    pub(super) callers: BTreeSet<String>,
    pub(super) refused_connections: AtomicU64,
    pub(super) stranger_datagrams: AtomicU64,
    introduction: Mutex<Introduction>,
    beat: Mutex<Arc<BeatPayload>>,
    session_number: AtomicU64,
    stranger_log: Mutex<Option<Instant>>,
}

/// What heartbeats say, and since when.
pub(super) struct BeatPayload {
    pub(super) bytes: Vec<u8>,
    pub(super) set_at: Instant,
    /// Grows with each change of the content.
    pub(super) number: u64,
}

/// A peer.
pub(super) struct PeerState {
    pub(super) name: String,
    pub(super) address: SocketAddr,
    pub(super) counts: Counts,
    /// Held by the session that is up: the next one comes up when this one has said that it is down.
    pub(super) turn: tokio::sync::Mutex<()>,
    /// For its frames, until the daemon has dealt with them.
    pub(super) room: Room,
    session: Mutex<Option<Active>>,
    story: Mutex<Story>,
    flows: Mutex<FlowsStatus>,
    /// When the links began: `heard_ms` counts from here.
    began: Instant,
    /// When anything authentic was heard last, plus one; 0 = never. Unit: milliseconds since `began`.
    heard_ms: AtomicU64,
}

/// What is counted of a peer, without a lock.
#[derive(Default)]
pub(super) struct Counts {
    pub(super) frames_sent: AtomicU64,
    pub(super) frames_received: AtomicU64,
    pub(super) stream_bytes_sent: AtomicU64,
    pub(super) stream_bytes_received: AtomicU64,
    pub(super) datagrams_sent: AtomicU64,
    pub(super) datagrams_received: AtomicU64,
    pub(super) datagram_bytes_sent: AtomicU64,
    pub(super) datagram_bytes_received: AtomicU64,
    pub(super) missing: AtomicU64,
    pub(super) replayed: AtomicU64,
    pub(super) forged: AtomicU64,
    pub(super) refused_sessions: AtomicU64,
    pub(super) unknown_kinds: AtomicU64,
    pub(super) malformed: AtomicU64,
    pub(super) overruns: AtomicU64,
    /// 0 = unknown.
    pub(super) rtt_us: AtomicU64,
}

/// Adds to a count.
pub(super) fn add(count: &AtomicU64, more: usize) {
    count.fetch_add(more as u64, Ordering::Relaxed);
}

/// A session that is up.
#[derive(Clone)]
struct Active {
    number: u64,
    outbound: mpsc::Sender<(u16, Vec<u8>)>,
    /// Of the frames that wait.
    waiting_bytes: Arc<AtomicUsize>,
    end: Arc<EndSignal>,
}

/// Tells a session to end.
#[derive(Default)]
pub(super) struct EndSignal {
    reason: Mutex<Option<DownReason>>,
    notify: Notify,
}

impl EndSignal {
    fn give(&self, reason: DownReason) {
        lock(&self.reason).get_or_insert(reason);
        self.notify.notify_one();
    }

    /// Waits for it.
    pub(super) async fn wait(&self) -> DownReason {
        loop {
            self.notify.notified().await;
            if let Some(reason) = lock(&self.reason).clone() {
                return reason;
            }
        }
    }
}

/// A session's own end of [`Active`].
pub(super) struct Seat {
    pub(super) number: u64,
    pub(super) outbound: mpsc::Receiver<(u16, Vec<u8>)>,
    pub(super) waiting_bytes: Arc<AtomicUsize>,
    pub(super) end: Arc<EndSignal>,
}

/// What has become of a peer so far.
struct Story {
    since: Instant,
    since_unix_ms: u64,
    version: Option<Version>,
    introduction: Option<Introduction>,
    session_count: u64,
    last_error: Option<(String, u64)>,
    /// When it was last logged that somebody in its name was refused.
    refused_at: Option<Instant>,
}

impl Shared {
    pub(super) fn new(
        config: &Cluster,
        node: &str,
        secret: &Secret,
        introduction: Introduction,
        events: mpsc::Sender<LinkEvent>,
        commands: Commands,
    ) -> Self {
        let others = config.peers.values().filter(|peer| peer.name != node);
        let peers: BTreeMap<_, _> = others
            .map(|peer| {
                let state = PeerState::new(peer.name.clone(), peer.address);
                (peer.name.clone(), Arc::new(state))
            })
            .collect();
        let callers = peers.keys().filter(|name| name.as_str() < node).cloned();
        Self {
            hello: Hello::of(node),
            key: secret.link_key(),
            heartbeat: Duration::from_millis(config.heartbeat_ms.into()),
            events,
            commands,
            callers: callers.collect(),
            peers,
            refused_connections: AtomicU64::new(0),
            stranger_datagrams: AtomicU64::new(0),
            introduction: Mutex::new(introduction),
            beat: Mutex::new(Arc::new(BeatPayload {
                bytes: Vec::new(),
                set_at: Instant::now(),
                number: 0,
            })),
            session_number: AtomicU64::new(1),
            stranger_log: Mutex::new(None),
        }
    }

    pub(super) fn introduction(&self) -> Introduction {
        lock(&self.introduction).clone()
    }

    pub(super) fn set_introduction(&self, introduction: Introduction) {
        *lock(&self.introduction) = introduction;
    }

    pub(super) fn beat(&self) -> Arc<BeatPayload> {
        Arc::clone(&lock(&self.beat))
    }

    pub(super) fn set_heartbeat(&self, bytes: Vec<u8>) {
        let mut beat = lock(&self.beat);
        let is_same = beat.bytes == bytes;
        *beat = Arc::new(BeatPayload {
            bytes,
            set_at: Instant::now(),
            number: beat.number + u64::from(!is_same),
        });
        drop(beat);
        if !is_same {
            self.commands.wake();
        }
    }

    fn peer(&self, name: &str) -> Result<&Arc<PeerState>, SendError> {
        let peer = self.peers.get(name);
        peer.ok_or_else(|| SendError::Unknown(name.to_owned()))
    }

    /// Queues a frame; of a certain session, if one is named. If too much waits, the session ends.
    pub(super) fn send_frame(
        &self,
        name: &str,
        session: Option<u64>,
        kind: u16,
        bytes: Vec<u8>,
    ) -> Result<(), SendError> {
        let active = lock(&self.peer(name)?.session).clone();
        let active = active
            .filter(|active| session.is_none_or(|number| number == active.number))
            .ok_or_else(|| SendError::Down(name.to_owned()))?;
        let len_bytes = bytes.len();
        let waiting_bytes = active.waiting_bytes.fetch_add(len_bytes, Ordering::Relaxed);
        let is_full = waiting_bytes + len_bytes > OUTBOUND_MAX_BYTES
            || active.outbound.try_send((kind, bytes)).is_err();
        if is_full {
            active.end.give(DownReason::Overflow);
            return Err(SendError::Full(name.to_owned()));
        }
        Ok(())
    }

    pub(super) fn send_datagram(
        &self,
        name: &str,
        kind: u16,
        bytes: Vec<u8>,
    ) -> Result<(), SendError> {
        if lock(&self.peer(name)?.session).is_none() {
            return Err(SendError::Down(name.to_owned()));
        }
        let peer = name.to_owned();
        let command = Command::Datagram { peer, kind, bytes };
        let sent = self.commands.try_send(command);
        sent.map_err(|()| SendError::Full(name.to_owned()))
    }

    /// Makes room for a new session with a peer: the one before it ends.
    pub(super) fn replace(&self, peer: &PeerState) {
        if let Some(active) = &*lock(&peer.session) {
            active.end.give(DownReason::Replaced);
        }
    }

    /// A session with a peer is up.
    pub(super) fn seat(
        &self,
        peer: &PeerState,
        version: Version,
        introduction: Introduction,
    ) -> Seat {
        let (sender, outbound) = mpsc::channel(OUTBOUND_MAX);
        let seat = Seat {
            number: self.session_number.fetch_add(1, Ordering::Relaxed),
            outbound,
            waiting_bytes: Arc::default(),
            end: Arc::default(),
        };
        *lock(&peer.session) = Some(Active {
            number: seat.number,
            outbound: sender,
            waiting_bytes: Arc::clone(&seat.waiting_bytes),
            end: Arc::clone(&seat.end),
        });
        peer.counts.rtt_us.store(0, Ordering::Relaxed);
        peer.counts.missing.store(0, Ordering::Relaxed);
        peer.heard();
        info!(peer = peer.name, address = %peer.address, %version, software = introduction.software, "the link is up");
        let mut story = lock(&peer.story);
        story.turn(version, introduction);
        seat
    }

    /// The session with a peer has ended.
    pub(super) fn unseat(&self, peer: &PeerState, reason: &DownReason) {
        *lock(&peer.session) = None;
        let mut story = lock(&peer.story);
        (story.since, story.since_unix_ms) = (Instant::now(), unix_ms());
        story.last_error = Some((reason.to_string(), unix_ms()));
        warn!(peer = peer.name, address = %peer.address, %reason, "the link is down");
    }

    /// A session with a peer, or what claimed to be it, has not come up. Logged if the last one failed otherwise.
    pub(super) fn note_failure(&self, peer: &PeerState, text: String) {
        let mut story = lock(&peer.story);
        let is_new = story
            .last_error
            .as_ref()
            .is_none_or(|(last, _)| *last != text);
        if is_new {
            warn!(peer = peer.name, address = %peer.address, reason = text, "no link to the peer");
        }
        story.last_error = Some((text, unix_ms()));
    }

    /// Somebody was refused who has called in a peer's name, and need not be it.
    pub(super) fn note_refused(&self, peer: &PeerState, text: String) {
        add(&peer.counts.refused_sessions, 1);
        let mut story = lock(&peer.story);
        let is_due = |at: Instant| at.elapsed() >= STRANGER_LOG_INTERVAL;
        if story.refused_at.is_none_or(is_due) {
            story.refused_at = Some(Instant::now());
            warn!(peer = peer.name, address = %peer.address, reason = text, "no link to the peer");
        }
        story.last_error = Some((text, unix_ms()));
    }

    /// Somebody who is no peer was refused.
    pub(super) fn note_stranger(&self, address: SocketAddr, text: &str) {
        add(&self.refused_connections, 1);
        let mut last = lock(&self.stranger_log);
        if last.is_none_or(|last| last.elapsed() >= STRANGER_LOG_INTERVAL) {
            *last = Some(Instant::now());
            warn!(%address, reason = text, "a connection to the peer link was refused");
        }
    }

    pub(super) fn status(&self) -> LinksStatus {
        LinksStatus {
            peers: self.peers.values().map(|peer| peer.status()).collect(),
            refused_connections: self.refused_connections.load(Ordering::Relaxed),
            stranger_datagrams: self.stranger_datagrams.load(Ordering::Relaxed),
        }
    }
}

impl Story {
    fn turn(&mut self, version: Version, introduction: Introduction) {
        (self.since, self.since_unix_ms) = (Instant::now(), unix_ms());
        self.version = Some(version);
        self.introduction = Some(introduction);
        self.session_count += 1;
    }
}

impl PeerState {
    fn new(name: String, address: SocketAddr) -> Self {
        Self {
            name,
            address,
            counts: Counts::default(),
            turn: tokio::sync::Mutex::default(),
            room: Room::default(),
            session: Mutex::new(None),
            flows: Mutex::default(),
            story: Mutex::new(Story {
                since: Instant::now(),
                since_unix_ms: unix_ms(),
                version: None,
                introduction: None,
                session_count: 0,
                last_error: None,
                refused_at: None,
            }),
            began: Instant::now(),
            heard_ms: AtomicU64::new(0),
        }
    }

    /// How replication stands in this session.
    pub(super) fn set_flows(&self, status: FlowsStatus) {
        *lock(&self.flows) = status;
    }

    /// Something authentic came from it.
    pub(super) fn heard(&self) {
        let now_ms = self.began.elapsed().as_millis() as u64;
        self.heard_ms.store(now_ms + 1, Ordering::Relaxed);
    }

    /// Since something authentic came from it; `None` = never.
    pub(super) fn silent_ms(&self) -> Option<u64> {
        let now_ms = self.began.elapsed().as_millis() as u64;
        let heard_ms = self.heard_ms.load(Ordering::Relaxed).checked_sub(1)?;
        Some(now_ms.saturating_sub(heard_ms))
    }

    fn status(&self) -> LinkStatus {
        let is_up = lock(&self.session).is_some();
        let story = lock(&self.story);
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts = &self.counts;
        LinkStatus {
            peer: self.name.clone(),
            address: self.address,
            is_up,
            since_ms: story.since.elapsed().as_millis() as u64,
            since_unix_ms: story.since_unix_ms,
            heard_ms: self.silent_ms(),
            rtt_us: Some(count(&counts.rtt_us) as u32).filter(|rtt_us| *rtt_us > 0),
            version: story.version,
            introduction: story.introduction.clone(),
            sessions: story.session_count,
            sent: Traffic {
                frames: count(&counts.frames_sent),
                stream_bytes: count(&counts.stream_bytes_sent),
                datagrams: count(&counts.datagrams_sent),
                datagram_bytes: count(&counts.datagram_bytes_sent),
            },
            received: Traffic {
                frames: count(&counts.frames_received),
                stream_bytes: count(&counts.stream_bytes_received),
                datagrams: count(&counts.datagrams_received),
                datagram_bytes: count(&counts.datagram_bytes_received),
            },
            missing_datagrams: count(&counts.missing),
            replayed_datagrams: count(&counts.replayed),
            forged_datagrams: count(&counts.forged),
            refused_sessions: count(&counts.refused_sessions),
            unknown_kinds: count(&counts.unknown_kinds),
            malformed: count(&counts.malformed),
            flows: *lock(&self.flows),
            overruns: count(&counts.overruns),
            last_error: story.last_error.as_ref().map(|(text, _)| text.clone()),
            last_error_unix_ms: story.last_error.as_ref().map(|(_, at)| *at),
        }
    }
}

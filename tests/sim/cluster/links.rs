//! The sync link's sessions: a stand-in for the real link, by the same rules. A session is up at both ends or being
//! taken down; each end notices on its own that nothing is heard any more; what belongs to an old session is lost.

use std::collections::BTreeMap;

/// Between two heartbeats. Unit: milliseconds.
pub(super) const HEARTBEAT_MS: u64 = 100;
/// After which an end that hears nothing takes the session down. Unit: milliseconds.
const SILENCE_MAX_MS: u64 = 1_000;
/// Between two attempts to connect. Unit: milliseconds.
const RETRY_MS: u64 = 200;

/// One pair of nodes.
#[derive(Clone, Debug, Default)]
struct Session {
    number: u64,
    /// By end.
    is_up: [bool; 2],
    heard_ms: [u64; 2],
    /// When what was sent last over the reliable channel arrives, by sending end.
    arrives_ms: [u64; 2],
    retry_ms: u64,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(super) struct Links {
    pairs: BTreeMap<(usize, usize), Session>,
    count: u64,
}

const fn key(one: usize, other: usize) -> ((usize, usize), usize) {
    if one < other {
        ((one, other), 0)
    } else {
        ((other, one), 1)
    }
}

impl Links {
    fn session(&mut self, one: usize, other: usize) -> (&mut Session, usize) {
        let (pair, end) = key(one, other);
        (self.pairs.entry(pair).or_default(), end)
    }

    /// The session that is up at this end.
    pub(super) fn up(&self, one: usize, other: usize) -> Option<u64> {
        let (pair, end) = key(one, other);
        let session = self.pairs.get(&pair)?;
        session.is_up[end].then_some(session.number)
    }

    /// Whether these two may try to connect now.
    pub(super) fn may_connect(&mut self, one: usize, other: usize, now_ms: u64) -> bool {
        let (session, _) = self.session(one, other);
        let is_due = session.is_up == [false, false] && now_ms >= session.retry_ms;
        if is_due {
            session.retry_ms = now_ms + RETRY_MS;
        }
        is_due
    }

    pub(super) fn connect(&mut self, one: usize, other: usize, now_ms: u64) {
        self.count += 1;
        let number = self.count;
        let (session, _) = self.session(one, other);
        *session = Session {
            number,
            is_up: [true, true],
            heard_ms: [now_ms, now_ms],
            arrives_ms: [now_ms, now_ms],
            retry_ms: now_ms,
        };
    }

    /// An end takes the session down; returns whether it was up there.
    pub(super) fn disconnect(&mut self, one: usize, other: usize) -> bool {
        let (session, end) = self.session(one, other);
        std::mem::replace(&mut session.is_up[end], false)
    }

    pub(super) fn hear(&mut self, one: usize, other: usize, now_ms: u64) {
        let (session, end) = self.session(one, other);
        session.heard_ms[end] = now_ms;
    }

    pub(super) fn is_silent(&self, one: usize, other: usize, now_ms: u64) -> bool {
        let (pair, end) = key(one, other);
        let session = self.pairs.get(&pair);
        session.is_some_and(|session| now_ms > session.heard_ms[end] + SILENCE_MAX_MS)
    }

    /// Keeps the order of a reliable channel: when what takes so long arrives.
    pub(super) fn arrival_ms(&mut self, from: usize, to: usize, at_ms: u64) -> u64 {
        let (session, end) = self.session(from, to);
        session.arrives_ms[end] = session.arrives_ms[end].max(at_ms);
        session.arrives_ms[end]
    }
}

//! The sync link's sessions: the real ones, over streams and datagrams of the simulated network. Each end notices on
//! its own that nothing is heard any more; what belongs to an old session is lost.

use std::collections::{BTreeMap, BTreeSet};

use lb_userspace::sync::datagram::{DatagramKey, Opener, Rejected, Sealer, session_of};
use lb_userspace::sync::hello::{Hello, Refusal};
use lb_userspace::sync::session::{Event, Role, Session, Terms};

use super::node::name;
use crate::rng::Rng;

/// Between two heartbeats. Unit: milliseconds.
pub(super) const HEARTBEAT_MS: u64 = 100;
/// After which an end that hears nothing takes the session down. Unit: milliseconds.
const SILENCE_MAX_MS: u64 = 1_000;
/// Between two attempts to connect. Unit: milliseconds.
const RETRY_MS: u64 = 200;
/// Until a stream sends for the second time what was lost (RFC 6298, as Linux has it). Unit: milliseconds.
const RESEND_MS: u64 = 200;
/// Times that it does so.
const RESENDS_MAX: u32 = 7;
/// The cluster's secret.
const SECRET: [u8; 32] = [9; 32];

/// One end of a connection.
struct End {
    session: Session,
    sealer: Sealer,
    /// The other end's datagrams, and the session number in them: once its welcome is there.
    opener: Option<(u64, Opener)>,
    heard_ms: u64,
    /// What this end's kernel has yet to bring over.
    outgoing: Vec<u8>,
    is_under_way: bool,
    tries: u32,
}

/// One pair of nodes.
#[derive(Default)]
struct Pair {
    /// The number of the connection, which no other has had.
    connection: u64,
    /// By end.
    ends: [Option<End>; 2],
    retry_ms: u64,
}

/// All of them.
pub(super) struct Links {
    pairs: BTreeMap<(usize, usize), Pair>,
    count: u64,
    rng: Rng,
}

/// A datagram that was opened.
pub(super) struct Opened {
    pub(super) from: usize,
    pub(super) connection: u64,
    pub(super) kind: u16,
    pub(super) payload: Vec<u8>,
}

const fn key(one: usize, other: usize) -> ((usize, usize), usize) {
    if one < other {
        ((one, other), 0)
    } else {
        ((other, one), 1)
    }
}

/// What a node's end of a session begins with.
pub(super) fn terms(one: usize, other: usize, welcome: Vec<u8>) -> Terms {
    Terms {
        role: if one < other {
            Role::Dialler
        } else {
            Role::Acceptor
        },
        hello: Hello::of(&name(one)),
        expected: BTreeSet::from([name(other)]),
        key: SECRET,
        welcome,
    }
}

fn welcome(key: &DatagramKey) -> Vec<u8> {
    [&key.session.to_be_bytes()[..], &key.key].concat()
}

fn key_of(welcome: &[u8]) -> Option<DatagramKey> {
    let (session, key) = welcome.split_first_chunk::<8>()?;
    Some(DatagramKey {
        session: u64::from_be_bytes(*session),
        key: key.try_into().ok()?,
    })
}

impl Links {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            pairs: BTreeMap::new(),
            count: 0,
            rng,
        }
    }

    fn pair(&mut self, one: usize, other: usize) -> (&mut Pair, usize) {
        let (pair, end) = key(one, other);
        (self.pairs.entry(pair).or_default(), end)
    }

    fn end(&mut self, one: usize, other: usize) -> Option<&mut End> {
        let (pair, end) = self.pair(one, other);
        pair.ends[end].as_mut()
    }

    /// The connection that this end has, up or not.
    pub(super) fn connection(&self, one: usize, other: usize) -> Option<u64> {
        let (pair, end) = key(one, other);
        let pair = self.pairs.get(&pair)?;
        pair.ends[end].is_some().then_some(pair.connection)
    }

    /// The session that is up at this end.
    pub(super) fn up(&self, one: usize, other: usize) -> Option<u64> {
        let (pair, end) = key(one, other);
        let pair = self.pairs.get(&pair)?;
        let is_up = pair.ends[end].as_ref()?.opener.is_some();
        is_up.then_some(pair.connection)
    }

    /// Whether these two may try to connect now.
    pub(super) fn may_connect(&mut self, one: usize, other: usize, now_ms: u64) -> bool {
        let (pair, _) = self.pair(one, other);
        let is_due = pair.ends.iter().all(Option::is_none) && now_ms >= pair.retry_ms;
        if is_due {
            pair.retry_ms = now_ms + RETRY_MS;
        }
        is_due
    }

    /// A stream between these two is there.
    pub(super) fn connect(&mut self, one: usize, other: usize, now_ms: u64) {
        self.count += 1;
        let ends = [(one, other), (other, one)].map(|(here, there)| {
            let mut bytes = [0; 32];
            for word in bytes.chunks_mut(8) {
                word.copy_from_slice(&self.rng.next().to_le_bytes());
            }
            let datagram_key = DatagramKey {
                session: self.rng.next(),
                key: bytes,
            };
            let mut outgoing = Vec::new();
            let terms = terms(here, there, welcome(&datagram_key));
            Some(End {
                session: Session::new(terms, &mut outgoing),
                sealer: Sealer::new(&datagram_key),
                opener: None,
                heard_ms: now_ms,
                outgoing,
                is_under_way: false,
                tries: 0,
            })
        });
        let connection = self.count;
        let (pair, end) = self.pair(one, other);
        assert_eq!(end, 0, "the smaller number connects");
        *pair = Pair {
            connection,
            ends,
            retry_ms: now_ms,
        };
    }

    /// An end takes the session down; returns whether there was a connection, and whether it was up.
    pub(super) fn disconnect(&mut self, one: usize, other: usize) -> Option<bool> {
        let (pair, end) = self.pair(one, other);
        let end = pair.ends[end].take()?;
        Some(end.opener.is_some())
    }

    pub(super) fn hear(&mut self, one: usize, other: usize, now_ms: u64) {
        if let Some(end) = self.end(one, other) {
            end.heard_ms = now_ms;
        }
    }

    pub(super) fn is_silent(&self, one: usize, other: usize, now_ms: u64) -> bool {
        let (pair, end) = key(one, other);
        let end = self
            .pairs
            .get(&pair)
            .and_then(|pair| pair.ends[end].as_ref());
        end.is_some_and(|end| now_ms > end.heard_ms + SILENCE_MAX_MS)
    }

    /// Says something over the stream.
    pub(super) fn send(&mut self, from: usize, to: usize, kind: u16, payload: &[u8]) {
        if let Some(end) = self.end(from, to) {
            // Only while the session is up: nobody else asks.
            let _not_up = end.session.send(kind, payload, &mut end.outgoing);
        }
    }

    /// What the stream has to bring over sets out; the connection's number, if there is anything and nothing is
    /// under way.
    pub(super) fn set_out(&mut self, from: usize, to: usize) -> Option<u64> {
        let end = self.end(from, to)?;
        if end.outgoing.is_empty() || end.is_under_way {
            return None;
        }
        end.is_under_way = true;
        self.connection(from, to)
    }

    /// It was lost: when it is sent again; `None`: the connection is as good as dead. Unit: milliseconds.
    pub(super) fn resend_ms(&mut self, from: usize, to: usize) -> Option<u64> {
        let end = self.end(from, to)?;
        let wait_ms = RESEND_MS << end.tries;
        end.tries += 1;
        (end.tries <= RESENDS_MAX).then_some(wait_ms)
    }

    /// It arrives, with all that was written meanwhile.
    pub(super) fn land(&mut self, from: usize, to: usize) -> Vec<u8> {
        let Some(end) = self.end(from, to) else {
            return Vec::new();
        };
        end.is_under_way = false;
        end.tries = 0;
        std::mem::take(&mut end.outgoing)
    }

    /// Takes what has come over the stream.
    pub(super) fn receive(
        &mut self,
        at: usize,
        from: usize,
        bytes: &[u8],
    ) -> Result<Vec<Event>, Refusal> {
        let Some(end) = self.end(at, from) else {
            return Ok(Vec::new());
        };
        let mut events = Vec::new();
        end.session.receive(bytes, &mut end.outgoing, &mut events)?;
        for event in &events {
            if let Event::Up { welcome, .. } = event {
                let key = key_of(welcome);
                end.opener = key.map(|key| (key.session, Opener::new(&key)));
            }
        }
        Ok(events)
    }

    /// Seals a datagram; `None` if there is no session.
    pub(super) fn seal(
        &mut self,
        from: usize,
        to: usize,
        kind: u16,
        payload: &[u8],
    ) -> Option<Vec<u8>> {
        self.up(from, to)?;
        let mut datagram = Vec::new();
        self.end(from, to)?
            .sealer
            .seal(kind, payload, &mut datagram);
        Some(datagram)
    }

    /// Opens a datagram that has come to a node, whoever has sent it.
    pub(super) fn open(&mut self, at: usize, datagram: &[u8]) -> Result<Opened, Rejected> {
        let number = session_of(datagram);
        let own = self.pairs.iter_mut().filter_map(|(nodes, pair)| {
            let (place, from) = match *nodes {
                (one, other) if one == at => (0, other),
                (one, other) if other == at => (1, one),
                _ => return None,
            };
            let (session, opener) = pair.ends[place].as_mut()?.opener.as_mut()?;
            (Some(*session) == number).then_some((from, pair.connection, opener))
        });
        let (from, connection, opener) = own.last().ok_or(Rejected::Stranger)?;
        let mut bytes = datagram.to_vec();
        let (kind, payload) = opener.open(&mut bytes)?;
        Ok(Opened {
            from,
            connection,
            kind,
            payload: payload.to_vec(),
        })
    }
}

//! Somebody on both networks who does not have the secret: records what passes, and sends it again later, to whom it
//! went and to others, in later sessions too, as it was and altered. Nothing of it is to be taken.

use std::collections::{BTreeMap, VecDeque};

use lb_userspace::sync::session::Session;
use lb_userspace::vrrp::machine::{ANSWER_SPACING_US, Router};
use lb_userspace::vrrp::protocol::State;
use lb_userspace::vrrp::router::{Input, Output};

use super::super::links;
use super::super::vips::{Outputs, Packet, Process, address};
use super::World;
use crate::rng::Rng;

/// Recordings of each kind that are kept.
const KEPT_MAX: usize = 512;
/// What is kept of a stream: more than its handshake, and frames. Unit: bytes.
const STREAM_BYTES_MAX: usize = 8_192;
/// How often something is sent, of a thousand ticks.
const OFTEN: u64 = 100;
/// Of a thousand, those that are streams: they are dear.
const STREAMS: u64 = 30;
/// Of a thousand, those that are altered.
const ALTERED: u64 = 400;

/// The byte of a VRRP packet that names its virtual router (RFC 9568 section 5.1).
const VRID: usize = 1;

/// Whose packet it is: each virtual router of a node counts its own.
fn router(packet: &Packet) -> (usize, u8) {
    (packet.from, packet.payload[VRID])
}

/// What passed over a stream, from its beginning.
struct Stream {
    connection: u64,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
}

/// What an attacker's packet must not change of a router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stance {
    state: State,
    /// Advertisements that it has believed.
    believed: u64,
    /// When it does something next. Unit: microseconds.
    deadline_us: Option<u64>,
}

impl Stance {
    fn of(router: &Router, now_us: u64) -> Self {
        let status = router.status(now_us, 0);
        Self {
            state: status.state,
            believed: status.counters.received,
            deadline_us: router.deadline(),
        }
    }

    /// Whether a router may stand so after an attacker's packet at `now_us`. Who may be new is answered, at once
    /// (`has_answered`) or when it is not too soon after the last answer.
    fn may_become(self, after: Self, has_answered: bool, now_us: u64) -> bool {
        let is_answer_due = || {
            let in_us = after
                .deadline_us
                .map(|due_us| due_us.saturating_sub(now_us));
            in_us.is_some_and(|in_us| in_us <= ANSWER_SPACING_US)
        };
        (self.state, self.believed) == (after.state, after.believed)
            && (self.deadline_us == after.deadline_us || has_answered || is_answer_due())
    }
}

/// Who may be new is asked for a proof.
fn is_answer(output: &Output) -> bool {
    matches!(output, Output::Send { .. })
}

/// Whether no more comes of a packet than its refusal, of which people may be told, and answers.
fn is_harmless(outputs: &[Output]) -> bool {
    let is_refusal =
        |output: &Output| matches!(output, Output::Refused { .. } | Output::Distrusted { .. });
    outputs.iter().all(|one| is_answer(one) || is_refusal(one))
}

/// The attacker.
pub(super) struct Attacker {
    rng: Rng,
    datagrams: VecDeque<Vec<u8>>,
    streams: VecDeque<Stream>,
    adverts: VecDeque<Packet>,
    /// By sender, virtual router and receiver: the number of the latest packet that has arrived.
    heard: BTreeMap<(usize, u8, usize), u64>,
}

fn keep<T>(kept: &mut VecDeque<T>, one: T) {
    kept.push_back(one);
    if kept.len() > KEPT_MAX {
        kept.pop_front();
    }
}

impl Attacker {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            rng,
            datagrams: VecDeque::new(),
            streams: VecDeque::new(),
            adverts: VecDeque::new(),
            heard: BTreeMap::new(),
        }
    }

    /// A datagram has arrived, and was taken.
    pub(super) fn record_datagram(&mut self, bytes: &[u8]) {
        keep(&mut self.datagrams, bytes.to_vec());
    }

    /// More of a stream has arrived.
    pub(super) fn record_stream(&mut self, from: usize, to: usize, connection: u64, bytes: &[u8]) {
        let is_it = |one: &&mut Stream| (one.connection, one.from) == (connection, from);
        if let Some(stream) = self.streams.iter_mut().find(is_it) {
            let room = STREAM_BYTES_MAX.saturating_sub(stream.bytes.len());
            stream.bytes.extend(&bytes[..room.min(bytes.len())]);
        } else {
            let bytes = bytes.to_vec();
            let stream = Stream {
                connection,
                from,
                to,
                bytes,
            };
            keep(&mut self.streams, stream);
        }
    }

    /// An advertisement, or another packet of VRRP, has arrived.
    pub(super) fn record_advert(&mut self, to: usize, packet: &Packet) {
        let (from, vrid) = router(packet);
        let heard = self.heard.entry((from, vrid, to)).or_default();
        *heard = packet.number.max(*heard);
        if self.adverts.back().map(|last| last.number) != Some(packet.number) {
            keep(&mut self.adverts, packet.clone());
        }
    }

    /// One of the recordings, and whether it is altered: a bit, its length, or what is behind it.
    fn altered(&mut self, bytes: &mut Vec<u8>) -> bool {
        if bytes.is_empty() || !self.rng.happens(ALTERED) {
            return false;
        }
        let place = self.rng.below(bytes.len() as u64) as usize;
        match self.rng.below(4) {
            0 => bytes.truncate(place),
            1 => bytes.push(place as u8),
            _ => bytes[place] ^= 1 << self.rng.below(8),
        }
        true
    }

    fn pick<T: Clone>(&mut self, kept: impl Fn(&Self) -> &VecDeque<T>) -> Option<T> {
        let place = self.rng.below(kept(self).len() as u64) as usize;
        kept(self).get(place).cloned()
    }
}

impl World<'_> {
    /// Something of what was recorded is sent, perhaps.
    pub(super) fn attack(&mut self) {
        let Some(mut attacker) = self.attacker.take() else {
            return;
        };
        if attacker.rng.happens(OFTEN) {
            let node = attacker.rng.below(self.machines.len() as u64) as usize;
            if attacker.rng.happens(STREAMS) {
                self.attack_stream(&mut attacker);
            } else if attacker.rng.happens(500) {
                self.attack_datagram(node, &mut attacker);
            } else if self.plan.attack.has_lan() {
                self.attack_lan(node, &mut attacker);
            }
        }
        self.attacker = Some(attacker);
    }

    fn attack_datagram(&mut self, node: usize, attacker: &mut Attacker) {
        let Some(mut bytes) = attacker.pick(|one| &one.datagrams) else {
            return;
        };
        attacker.altered(&mut bytes);
        self.outcome.attack_count += 1;
        if self.links.open(node, &bytes).is_ok() {
            self.note_taken(format!("node {node} has taken an attacker's datagram"));
        }
    }

    /// Somebody connects to a node that was recorded, or is connected to, and says what was said there then.
    fn attack_stream(&mut self, attacker: &mut Attacker) {
        let place = attacker.rng.below(attacker.streams.len() as u64) as usize;
        let Some(stream) = attacker.streams.get(place) else {
            return;
        };
        let (node, peer, mut bytes) = (stream.to, stream.from, stream.bytes.clone());
        attacker.altered(&mut bytes);
        self.outcome.attack_count += 1;
        let (mut out, mut events) = (Vec::new(), Vec::new());
        let mut session = Session::new(links::terms(node, peer, b"welcome".to_vec()), &mut out);
        // It refuses, or waits for what never comes.
        let _refusal = session.receive(&bytes, &mut out, &mut events);
        if session.is_up() || !events.is_empty() {
            self.note_taken(format!("node {node} has taken an attacker for node {peer}"));
        }
    }

    fn attack_lan(&mut self, node: usize, attacker: &mut Attacker) {
        let Some(mut packet) = attacker.pick(|one| &one.adverts) else {
            return;
        };
        let mut source = packet.from;
        let (from, vrid) = router(&packet);
        let is_altered = attacker.altered(&mut packet.payload);
        if !is_altered && attacker.rng.happens(100) {
            source = attacker.rng.below(self.machines.len() as u64) as usize;
        }
        let heard = attacker.heard.get(&(from, vrid, node));
        // What has not come there before, nor anything later, is only late.
        let is_replay = heard.is_some_and(|latest| *latest >= packet.number);
        let is_hostile = is_altered || source != packet.from || is_replay;
        let (now_ms, now_us) = (self.now_ms, self.local_us(node));
        let Some(process) = &mut self.machines[node].vrrp else {
            return;
        };
        if !is_hostile || source == node || !process.is_running(now_ms) {
            return;
        }
        self.outcome.attack_count += 1;
        let stances = |process: &Process| {
            let routers = process.routers.each_ref();
            routers.map(|router| Stance::of(router, now_us))
        };
        let before = stances(process);
        let mut out = Outputs::default();
        let received = Input::Received {
            source: address(source),
            destination: packet.destination,
            hop_limit: 255,
            payload: &packet.payload,
        };
        process.handle(now_us, received, &mut out);
        let after = stances(process);
        for (group, said) in out.iter().enumerate() {
            let (before, after) = (before[group], after[group]);
            if !is_harmless(said) || !before.may_become(after, said.iter().any(is_answer), now_us) {
                let text = format!(
                    "an attacker's packet has changed node {node}: {before:?} {after:?} {said:?}"
                );
                self.note_taken(text);
            }
        }
        self.carry_out(node, out);
    }

    fn note_taken(&mut self, text: String) {
        self.outcome.violate(self.now_ms - super::START_MS, text);
    }
}

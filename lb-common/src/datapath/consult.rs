//! Backends by the flow table: where a slot is in transition, and for services that keep every flow
//! on record.
//!
//! What is on record is followed. What is not: a packet that opens a flow goes to the slot's `current`
//! (round robin: to the next turn's) and is recorded, any other goes to the slot's `miss`, the backend
//! that it went to before the slot began to move, and is learned; but where every flow is on record and there are
//! peers, it waits a moment for one of them to tell of it ([`super::pending`]). ARCHITECTURE.md has the argument
//! why no connection breaks by that.

use super::flow::{self, FlowPlace};
use super::life;
use super::select::{Chosen, Refusal};
use crate::abi::{
    Backend, Delivery, FlowOrigin, FlowRecord, FlowState, NewFlows, Scheduler, Service, Slot,
};
use crate::kernel::{Handshake, Kernel, Signal};
use crate::limits::{HALF_OPEN_PROTECTED_S, HANDSHAKE_WINDOW_BYTES};
use crate::wire::tcp::{PROTOCOL_TCP, TcpFlags};

/// A packet, as far as the flow table is concerned.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Consultation {
    /// The flow's keyed hash.
    pub flow_hash: u64,
    /// The service that the packet is for.
    pub service: Service,
    /// The slot that the hash names.
    pub slot: Slot,
    /// The origin of the flow, if this is its first packet.
    pub origin: FlowOrigin,
    /// TCP's control bits; all 0 for UDP.
    pub flags: TcpFlags,
    /// IP protocol number.
    pub protocol: u8,
    /// What the packet tells of its backend: handed through, since the caller has no room to keep it.
    pub signal: Signal,
}

/// An entry of the flow table.
#[derive(Clone, Copy)]
struct Found {
    place: FlowPlace,
    record: FlowRecord,
}

/// What the flow table says of a packet.
enum Answer {
    /// It belongs to the flow on record, and goes to its backend.
    Follow(u16),
    /// It opens a flow in the place of the one on record.
    Reopens(Found),
    /// The entry is of another connection of the same client and port, or of somebody who pretends:
    /// the packet counts as not on record, and the entry stays.
    Stranger,
    /// Nothing.
    Unknown,
    /// Of a flow that has ended; and a peer may be about to tell of the next one.
    Ended,
}

/// Chooses the backend of a packet; the answer is [`Refusal::pack`]ed. To be called by way of
/// [`Kernel::consult`].
#[inline(always)]
pub fn consult<K: Kernel>(kernel: &K, packet: &Consultation) -> u64 {
    let chosen = choose(kernel, packet);
    Refusal::pack(chosen) | packet.signal.pack()
}

/// Whether a segment waits, since a peer may be about to tell of its flow ([`super::pending`]): one of a flow that is
/// not on record, or behind the end of the flow that is (`ended`). Where flows find no room in the table, it
/// is one of those. To be called by way of [`Kernel::waits`].
#[inline(always)]
pub fn waits<K: Kernel>(
    kernel: &K,
    packet: &Consultation,
    ended: Option<(FlowPlace, FlowRecord)>,
) -> bool {
    // A RST is sent once.
    if packet.service.tracks_flows == 0 || packet.flags.has_rst() || packet.is_short_of_room(kernel)
    {
        return false;
    }
    if let Some((place, record)) = ended
        && !packet.is_of_next(kernel, place, record)
    {
        return false;
    }
    kernel.may_be_told(packet.flow_hash)
}

#[inline(always)]
fn choose<K: Kernel>(kernel: &K, packet: &Consultation) -> Result<Chosen, Refusal> {
    let fingerprint = flow::fingerprint(&packet.service, packet.flow_hash);
    let now_s = kernel.now_s();
    let found = flow::find(kernel, fingerprint).map(|(place, record)| Found { place, record });
    match answer(kernel, packet, found, now_s) {
        Answer::Follow(backend_id) => Ok(Chosen::known(backend_id)),
        Answer::Reopens(found) => open(kernel, packet, Some(found)),
        Answer::Unknown if packet.may_open() => open(kernel, packet, None),
        Answer::Unknown if kernel.waits(packet, None) => Err(Refusal::Wait),
        Answer::Ended => Err(Refusal::Wait),
        Answer::Unknown => {
            let backend_id = packet.miss(kernel);
            learn(kernel, packet, backend_id);
            Ok(Chosen::known(backend_id))
        }
        Answer::Stranger => {
            kernel.suppress(packet.service.id, kernel.now_s());
            Ok(Chosen::known(packet.miss(kernel)))
        }
    }
}

#[inline(always)]
fn answer<K: Kernel>(
    kernel: &K,
    packet: &Consultation,
    found: Option<Found>,
    now_s: u32,
) -> Answer {
    let Some(found) = found else {
        return Answer::Unknown;
    };
    let record = found.record;
    let Some(backend) = live_backend(kernel, packet, record) else {
        // A removed backend's flow is nobody's: whoever comes may have its place.
        return if packet.may_open() {
            Answer::Reopens(found)
        } else {
            Answer::Unknown
        };
    };
    let remaining_s = record.remaining_s(now_s);
    if packet.protocol != PROTOCOL_TCP {
        // There is no RST to a datagram: the next one begins anew, at a backend that answers.
        let is_ended = backend.delivery == Delivery::Reset as u8;
        return if remaining_s < packet.grace_s(kernel) || is_ended {
            Answer::Reopens(found)
        } else {
            follow(kernel, packet, found, packet.next_state(record), now_s)
        };
    }
    let is_closing = record.state().is_closing();
    if packet.flags.opens() && (remaining_s < 0 || is_closing || backend.is_up == 0) {
        return Answer::Reopens(found);
    }
    if is_closing && kernel.waits(packet, Some((found.place, record))) {
        return Answer::Ended;
    }
    if !record.state().is_half_open() {
        return follow(kernel, packet, found, packet.next_state(record), now_s);
    }
    match kernel.handshake(found.place) {
        Some(handshake) if packet.flags.opens() => {
            if handshake.sequence == packet.origin.sequence {
                follow(kernel, packet, found, packet.next_state(record), now_s)
            } else {
                Answer::Reopens(found)
            }
        }
        Some(handshake) if !packet.is_of(&handshake) => {
            follow_displaced(kernel, packet, found, handshake)
        }
        _ => follow(kernel, packet, found, packet.next_state(record), now_s),
    }
}

/// The backend of a record, if it is still the one that was recorded.
#[inline(always)]
fn live_backend<'k, K: Kernel>(
    kernel: &'k K,
    packet: &Consultation,
    record: FlowRecord,
) -> Option<&'k Backend> {
    let backend = kernel.backend(record.backend_id())?;
    let is_its =
        backend.is_live(record.backend_generation()) && backend.service_id == packet.service.id;
    is_its.then_some(backend)
}

/// A packet of the flow on record. The record is written at a change of state and once a second, so
/// that CPUs do not fight over the line. A segment follows an expired record too, as long as nothing
/// else has taken its entry: the connection may just have been silent.
#[inline(always)]
fn follow<K: Kernel>(
    kernel: &K,
    packet: &Consultation,
    found: Found,
    state: FlowState,
    now_s: u32,
) -> Answer {
    let updated = found.record.updated(packet.expiry(state, now_s), state);
    if updated != found.record {
        flow::update(kernel, found.place, found.record, updated);
        // Not where it only lives a little longer: that would be every flow, once a second.
        let silent_s = updated.remaining_s(now_s) - found.record.remaining_s(now_s);
        if state != found.record.state() || silent_s >= life::SILENCE_TOLD_S as i32 {
            kernel.note_change(found.place.set());
        }
    }
    Answer::Follow(found.record.backend_id())
}

/// A segment that is none of the half-open flow's belongs to the flow which that one displaced. If the
/// handshake is not completed within a few seconds, it was forged, and the displaced flow gets its place
/// back: so a forged SYN steals nothing, and the last segments of a connection whose port is used anew at once
/// do not steal from its successor.
///
/// But a RST that acknowledges nothing is the client's answer to what the SYN has met: a backend that still has a
/// former connection of the same ports challenges the SYN (RFC 9293, section 3.10.7.4), and until it gets that RST,
/// whose number is the former connection's, no SYN is answered.
#[inline(always)]
fn follow_displaced<K: Kernel>(
    kernel: &K,
    packet: &Consultation,
    found: Found,
    handshake: Handshake,
) -> Answer {
    let (id, generation) = (handshake.displaced_id, handshake.displaced_generation);
    let is_there = id != 0 && is_live(kernel, packet, id, generation);
    // Once more, as in `again`.
    let now_s = kernel.now_s();
    let remaining_s = found.record.remaining_s(now_s);
    let lingers_s = packet.expiry(found.record.state(), 0) as i32;
    let is_recent = lingers_s - remaining_s < HALF_OPEN_PROTECTED_S as i32;
    if is_recent && packet.flags.is_bare_rst() {
        return Answer::Follow(found.record.backend_id());
    }
    if !is_there {
        // An expired handshake keeps nobody from being learned in its place.
        return if remaining_s < 0 {
            Answer::Unknown
        } else {
            Answer::Stranger
        };
    }
    if !is_recent {
        let state = FlowState::OPEN;
        let restored = FlowRecord::new(id, generation, packet.expiry(state, now_s), state);
        flow::update(kernel, found.place, found.record, restored);
        kernel.note_change(found.place.set());
    }
    Answer::Follow(id)
}

/// Whether a backend of the packet's service is still the one that was noted.
#[inline(always)]
fn is_live<K: Kernel>(kernel: &K, packet: &Consultation, id: u16, generation: u16) -> bool {
    kernel.backend(id).is_some_and(|backend| {
        backend.is_live(generation) && backend.service_id == packet.service.id
    })
}

/// Schedules a flow and records it, over the entry `old` if its packet found one. What cannot be
/// recorded goes where the flow's later packets will go without a record: to `miss`.
#[inline(always)]
fn open<K: Kernel>(
    kernel: &K,
    packet: &Consultation,
    old: Option<Found>,
) -> Result<Chosen, Refusal> {
    if packet.service.new_flows != NewFlows::Schedule as u8 {
        return Err(Refusal::of_new_flow(packet.service.new_flows));
    }
    let current = packet.scheduled(kernel);
    // A quiet slot records nothing new; but an entry that is there would be followed by what comes next.
    if packet.slot.is_quiet() && old.is_none() {
        return Ok(Chosen::new_flow(current));
    }
    let (fingerprint, now_s) = packet.again(kernel);
    let generation = kernel
        .backend(current)
        .map_or(0, |backend| backend.generation);
    let state = opening_state(old).with(packet.exposure(kernel));
    let record = FlowRecord::new(current, generation, packet.expiry(state, now_s), state);
    let place = match old {
        Some(old) => {
            flow::update(kernel, old.place, old.record, record);
            Some(old.place)
        }
        None => kernel.record_flow(fingerprint, record, now_s),
    };
    let Some(place) = place else {
        kernel.suppress(packet.service.id, now_s);
        return Ok(Chosen::new_flow(packet.miss(kernel)));
    };
    let (displaced_id, displaced_generation) = displaced(kernel, old);
    kernel.put_flow_origin(place, &packet.origin);
    kernel.put_displaced(place, displaced_id, displaced_generation);
    kernel.note_change(place.set());
    Ok(Chosen::new_flow(current))
}

/// A handshake in the place of a flow that may live, or in that of a handshake which was in such a place,
/// is marked: it must not be evicted, and what it has displaced with it.
#[inline(always)]
fn opening_state(old: Option<Found>) -> FlowState {
    let old = old.map_or(FlowState::HALF_OPEN, |old| old.record.state());
    if old.is_in_probation() {
        FlowState::HALF_OPEN
    } else {
        FlowState::HALF_OPEN.with(FlowState::DISPLACING)
    }
}

/// The flow that a SYN displaces: that of the entry, or the one which that had displaced.
#[inline(always)]
fn displaced<K: Kernel>(kernel: &K, old: Option<Found>) -> (u16, u16) {
    let Some(old) = old else {
        return (0, 0);
    };
    if old.record.state().is_half_open() {
        let handshake = kernel.handshake(old.place);
        return handshake.map_or((0, 0), |handshake| {
            (handshake.displaced_id, handshake.displaced_generation)
        });
    }
    (old.record.backend_id(), old.record.backend_generation())
}

/// Puts a flow on record that goes to `previous` because it is not: it will still go there when the
/// slot has settled. Where `miss` and `current` are the same, there is nothing to remember.
///
/// Of a service that keeps every flow on record, those whose SYN found no room follow their hash: they are
/// put on record too, or would move with the ring. Only while there are such: else an unknown segment is no
/// flow's, and a flood of them shall not fill the table.
#[inline(always)]
fn learn<K: Kernel>(kernel: &K, packet: &Consultation, backend_id: u16) {
    let slot = packet.slot;
    let is_wanted = if packet.service.tracks_flows != 0 {
        packet.is_short_of_room(kernel)
    } else {
        backend_id != slot.current() && !slot.is_quiet()
    };
    if !is_wanted || packet.flags.has_rst() {
        return;
    }
    let (fingerprint, now_s) = packet.again(kernel);
    let generation = kernel
        .backend(backend_id)
        .map_or(0, |backend| backend.generation);
    let state = life::after_segment(FlowState::OPEN, packet.flags).with(FlowState::LEARNED);
    let record = FlowRecord::new(backend_id, generation, packet.expiry(state, now_s), state);
    match kernel.record_flow(fingerprint, record, now_s) {
        Some(place) => {
            kernel.put_flow_origin(place, &packet.origin);
            kernel.note_change(place.set());
        }
        None => kernel.suppress(packet.service.id, now_s),
    }
}

impl Consultation {
    /// Fingerprint and time, once more: kept over all that comes before, they would take room on the stack.
    #[inline(always)]
    fn again<K: Kernel>(&self, kernel: &K) -> (u64, u32) {
        let flow_hash = kernel.opaque(self.flow_hash);
        (flow::fingerprint(&self.service, flow_hash), kernel.now_s())
    }

    /// Whether the packet can be a flow's first: a SYN, or any of UDP.
    #[inline(always)]
    fn may_open(&self) -> bool {
        self.protocol != PROTOCOL_TCP || self.flags.opens()
    }

    /// Whether a segment can belong to a handshake.
    #[inline(always)]
    fn is_of(&self, handshake: &Handshake) -> bool {
        self.origin.sequence.wrapping_sub(handshake.sequence) < HANDSHAKE_WINDOW_BYTES
    }

    /// Whether a segment looks like one of the next flow of the same ports, after the one on record that has ended:
    /// that was a second ago, and its sequence numbers were others. A late segment of a flow that has sent much
    /// looks so too; all that it does is wait.
    #[inline(always)]
    fn is_of_next<K: Kernel>(&self, kernel: &K, place: FlowPlace, record: FlowRecord) -> bool {
        let lingers_s = self.expiry(record.state(), 0) as i32;
        let is_recent = record.remaining_s(kernel.now_s()) >= lingers_s;
        if is_recent || self.flags.has_fin() {
            return false;
        }
        let handshake = kernel.handshake(place);
        handshake.is_some_and(|handshake| !self.is_of(&handshake))
    }

    #[inline(always)]
    fn next_state(&self, record: FlowRecord) -> FlowState {
        if self.flags.opens() {
            return record.state();
        }
        life::after_segment(record.state(), self.flags)
    }

    /// The least that may remain of a record that is still followed, 0 or less. Where there are peers, one may have had
    /// the flow's last packets, and have died before it told of them ([`life::untold_s`]). Unit: seconds.
    #[inline(always)]
    fn grace_s<K: Kernel>(&self, kernel: &K) -> i32 {
        if kernel.has_peers() {
            -(life::untold_s(self.service.idle_timeout_s) as i32)
        } else {
            0
        }
    }

    #[inline(always)]
    fn expiry(&self, state: FlowState, now_s: u32) -> u32 {
        let linger_s = life::linger_s(state, self.protocol, self.service.idle_timeout_s);
        now_s.wrapping_add(linger_s)
    }

    /// The backend of a new flow. Any datagram may be a flow's first; while some find no room in the table,
    /// it may as well be the next one of a flow that follows its hash, and goes on doing so.
    #[inline(always)]
    fn scheduled<K: Kernel>(&self, kernel: &K) -> u16 {
        let follows_hash = self.protocol != PROTOCOL_TCP && self.is_short_of_room(kernel);
        match Scheduler::from_byte(self.service.scheduler) {
            Scheduler::RoundRobin if !follows_hash => self.next_turn(kernel).current(),
            Scheduler::Maglev | Scheduler::RoundRobin => self.slot.current(),
        }
    }

    /// Whether a flow of the service has found no room in the last idle time-out.
    #[inline(always)]
    fn is_short_of_room<K: Kernel>(&self, kernel: &K) -> bool {
        // A machine that has just booted: all of its time.
        let since_s = kernel.now_s().saturating_sub(self.service.idle_timeout_s);
        kernel.is_suppressed(self.service.id, since_s)
    }

    #[inline(always)]
    fn next_turn<K: Kernel>(&self, kernel: &K) -> Slot {
        let service = &self.service;
        // No ring is empty here, which the compiler cannot know: it would add a call to a panic.
        let ring_len = if service.ring_len == 0 {
            1
        } else {
            service.ring_len
        };
        let turn = (kernel.next_round(service.id) % u64::from(ring_len)) as u32;
        kernel
            .ring_slot(service.ring_block, turn)
            .unwrap_or(Slot::EMPTY)
    }

    /// [`FlowState::EXPOSED`] if a flow that is not on record goes to a backend that is down.
    #[inline(always)]
    fn exposure<K: Kernel>(&self, kernel: &K) -> FlowState {
        let previous = kernel.backend(self.slot.previous());
        let is_exposed = previous.is_some_and(|one| {
            one.is_up == 0 && one.service_id == self.service.id && !self.slot.is_quiet()
        });
        FlowState(FlowState::EXPOSED.0 * u8::from(is_exposed))
    }

    /// The backend of a flow that is not on record. Where that is removed: `current`.
    #[inline(always)]
    fn miss<K: Kernel>(&self, kernel: &K) -> u16 {
        let miss = self.slot.miss();
        let is_there = kernel
            .backend(miss)
            .is_some_and(|backend| backend.service_id == self.service.id);
        if is_there { miss } else { self.slot.current() }
    }
}

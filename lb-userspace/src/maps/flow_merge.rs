//! A flow of another node into the flow table, beside the packets that use it.

use std::ops::ControlFlow;

use lb_common::abi::{FINGERPRINT_MIN, FLOW_SET_ENTRIES, FlowEntry, FlowRecord, FlowState};
use lb_common::datapath::flow::{self, FlowPlace};
use lb_common::limits::{
    HALF_OPEN_PROTECTED_S, HALF_OPEN_TIMEOUT_S, LEARNED_PER_SET, LEARNING_FILL_MAX,
    PROBATION_PER_SET,
};

use super::{Flow, FlowMemory, Written};
use crate::sync::replicate::table::Merged;

/// Packets may change an entry while it is being judged; then it is judged again, so many times.
const ATTEMPTS_MAX: u32 = 8;

/// A half-open flow with less than this may lose its place. Unit: seconds.
const UNPROTECTED_S: i32 = (HALF_OPEN_TIMEOUT_S - HALF_OPEN_PROTECTED_S) as i32;

/// How a present record stands to the one that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is out of date.
    Earlier,
    /// They tell the same.
    Same,
    /// It is the later one.
    Later,
}

/// Merges a flow. The present record of the same flow, if there is one, is judged by `standing`.
pub(super) fn merge(
    table: &FlowMemory,
    new: &Flow,
    now_s: u32,
    standing: impl Fn(&Flow) -> Standing,
) -> Merged {
    let mut met = None;
    for _ in 0..ATTEMPTS_MAX {
        let attempt = match find(table, new.fingerprint) {
            Some(place) => {
                met = Some(place);
                over(table, place, new, &standing)
            }
            None => beside(table, new, now_s),
        };
        if let ControlFlow::Break(merged) = attempt {
            return merged;
        }
    }
    // Whoever is so busy with it knows more of it.
    met.map_or(Merged::NoRoom, |place| Merged::Later { place })
}

/// Where a flow is on record.
fn find(table: &FlowMemory, fingerprint: u64) -> Option<FlowPlace> {
    places(table, fingerprint).find(|place| {
        let entry = table.entry(place.0 as usize);
        entry.is_some_and(|entry| entry.fingerprint == fingerprint)
    })
}

/// The places that a flow may have, the likelier first.
fn places(table: &FlowMemory, fingerprint: u64) -> impl Iterator<Item = FlowPlace> + use<> {
    let (first, second) = flow::sets(fingerprint, table.set_count());
    let second = (second != first).then_some(second);
    std::iter::once(first).chain(second).flat_map(places_of)
}

fn places_of(set: u32) -> impl Iterator<Item = FlowPlace> {
    let first = set * FLOW_SET_ENTRIES as u32;
    (first..first + FLOW_SET_ENTRIES as u32).map(FlowPlace)
}

/// Over the record of the same flow.
fn over(
    table: &FlowMemory,
    place: FlowPlace,
    new: &Flow,
    standing: impl Fn(&Flow) -> Standing,
) -> ControlFlow<Merged> {
    let words = table.words(place.0 as usize);
    let present = words.read();
    let Some(present) = present.filter(|present| present.fingerprint == new.fingerprint) else {
        return ControlFlow::Continue(());
    };
    match standing(&present) {
        Standing::Same => agreed(place, &present),
        Standing::Later => ControlFlow::Break(Merged::Later { place }),
        Standing::Earlier => match words.replace(&present, new) {
            Written::Yes => agreed(place, new),
            Written::No => ControlFlow::Continue(()),
        },
    }
}

fn agreed(place: FlowPlace, flow: &Flow) -> ControlFlow<Merged> {
    let entry = FlowEntry {
        fingerprint: flow.fingerprint,
        record: flow.record,
    };
    ControlFlow::Break(Merged::Agreed { place, entry })
}

/// Into a place that can be spared.
fn beside(table: &FlowMemory, new: &Flow, now_s: u32) -> ControlFlow<Merged> {
    let Some((place, old)) = room(table, new, now_s) else {
        return ControlFlow::Break(Merged::NoRoom);
    };
    if table.words(place.0 as usize).take(old, new) == Written::No {
        return ControlFlow::Continue(());
    }
    // A packet of the flow may have put it on record at the same moment, elsewhere: then that counts.
    let has_twin = places(table, new.fingerprint).any(|other| {
        let entry = table.entry(other.0 as usize);
        other != place && entry.is_some_and(|entry| entry.fingerprint == new.fingerprint)
    });
    if has_twin {
        let entry = FlowEntry {
            fingerprint: new.fingerprint,
            record: new.record,
        };
        table.delete(place.0 as usize, &entry);
        return ControlFlow::Continue(());
    }
    agreed(place, new)
}

/// The place for a flow that is not on record, and the fingerprint there: by the packet path's rules
/// ([`lb_common::datapath::flow`]), so that the other node's flood is none here. Only an established flow may
/// come into a set whose probation is full; who established it need not pass it once more.
fn room(table: &FlowMemory, new: &Flow, now_s: u32) -> Option<(FlowPlace, u64)> {
    let (first, second) = flow::sets(new.fingerprint, table.set_count());
    let kind = Kind::of(new.record, now_s);
    let rooms = [first, second].map(|set| room_in(table, set, kind, now_s));
    let best = rooms.into_iter().flatten().min_by_key(|room| room.cost);
    best.map(|room| (room.place, room.old))
}

/// What admission looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Established,
    HalfOpen,
    Learned,
    /// Its flow may be over.
    Expired(i32),
}

impl Kind {
    fn of(record: FlowRecord, now_s: u32) -> Self {
        let (state, remaining_s) = (record.state(), record.remaining_s(now_s));
        if remaining_s < 0 {
            Self::Expired(remaining_s)
        } else if state.is_half_open() {
            Self::HalfOpen
        } else if state.has(FlowState::LEARNED) {
            Self::Learned
        } else {
            Self::Established
        }
    }
}

/// What takes a place costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Cost {
    /// Nothing.
    Free,
    /// An expired record; the less, the longer it has been so.
    Expired(i32),
    /// A handshake that nobody has answered; the less, the older it is.
    HalfOpen(i32),
}

struct Room {
    place: FlowPlace,
    /// The fingerprint there.
    old: u64,
    cost: Cost,
}

fn room_in(table: &FlowMemory, set: u32, kind: Kind, now_s: u32) -> Option<Room> {
    let mut best: Option<Room> = None;
    let (mut live, mut half_open, mut learned) = (0, 0, 0);
    for place in places_of(set) {
        let words = table.words(place.0 as usize);
        let fingerprint = words.fingerprint.load(std::sync::atomic::Ordering::Acquire);
        let record = FlowRecord(words.record.load(std::sync::atomic::Ordering::Acquire));
        let cost = cost(fingerprint, record, now_s);
        if fingerprint != 0 && !matches!(cost, Some(Cost::Expired(_))) {
            live += 1;
            half_open += u32::from(record.state().is_half_open());
            learned += u32::from(record.state().has(FlowState::LEARNED));
        }
        let Some(cost) = cost else {
            continue;
        };
        if best.as_ref().is_none_or(|best| cost < best.cost) {
            best = Some(Room {
                place,
                old: fingerprint,
                cost,
            });
        }
    }
    best.filter(|room| {
        let is_vacant = !matches!(room.cost, Cost::HalfOpen(_));
        match kind {
            Kind::Established => true,
            Kind::HalfOpen => !is_vacant || half_open < PROBATION_PER_SET,
            Kind::Learned => is_vacant && live < LEARNING_FILL_MAX && learned < LEARNED_PER_SET,
            Kind::Expired(remaining_s) => room.cost < Cost::Expired(remaining_s),
        }
    })
}

/// `None`: the entry is not to be spared.
fn cost(fingerprint: u64, record: FlowRecord, now_s: u32) -> Option<Cost> {
    let remaining_s = record.remaining_s(now_s);
    if fingerprint == 0 {
        Some(Cost::Free)
    } else if fingerprint < FINGERPRINT_MIN {
        None
    } else if remaining_s < 0 {
        Some(Cost::Expired(remaining_s))
    } else if record.state().is_in_probation() && remaining_s <= UNPROTECTED_S {
        Some(Cost::HalfOpen(remaining_s))
    } else {
        None
    }
}

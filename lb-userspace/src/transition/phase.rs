//! What a slot is, and what becomes of it: pure functions of one word.

use lb_common::abi::Slot;

/// Where a slot is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// `{c, 0}`: every packet goes to c; the flow table is not touched.
    Settled,
    /// `{c, c}`: as settled, but flows are consulted and recorded: a change is being prepared.
    Armed,
    /// `{c, p}`: new flows go to c and are recorded, what is not on record goes to p.
    Moving,
    /// `{c, c, quiet}`: flows are consulted; those of other backends than c still live.
    Quiet,
}

impl Phase {
    /// The phase of a slot.
    pub const fn of(slot: Slot) -> Self {
        if slot.is_quiet() {
            Self::Quiet
        } else if slot.previous() == 0 {
            Self::Settled
        } else if slot.previous() == slot.current() {
            Self::Armed
        } else {
            Self::Moving
        }
    }
}

/// Whether a slot may take its new current now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readiness {
    /// It has not been armed for long enough.
    Waiting,
    /// It has been armed for as long as a handshake under way takes.
    Prepared,
    /// It changes at once: its backend is dead, or the operator accepts broken handshakes.
    Urgent,
}

/// The next step of `slot` towards `target`.
pub(super) const fn towards(slot: Slot, target: u16, readiness: Readiness) -> Slot {
    let current = slot.current();
    if current == target {
        return slot;
    }
    match (Phase::of(slot), readiness) {
        // Nobody's slot has no flow to be kept, and no word for "armed".
        (Phase::Settled | Phase::Quiet, _) if current == 0 => Slot::settled(target),
        (Phase::Moving, _) => Slot::in_transition(target, slot.previous()),
        (_, Readiness::Urgent) | (Phase::Armed, Readiness::Prepared) => {
            Slot::in_transition(target, current)
        }
        (Phase::Settled | Phase::Quiet, _) => Slot::in_transition(current, current),
        (Phase::Armed, Readiness::Waiting) => slot,
    }
}

/// What becomes of a slot while a peer cannot be asked: new flows go where flows that are not on record go, if
/// that is somebody who can take them. So whatever either side has not told the other is right by default.
pub(super) const fn withdrawn(slot: Slot) -> Slot {
    match Phase::of(slot) {
        Phase::Moving => Slot::in_transition(slot.previous(), slot.previous()),
        Phase::Settled | Phase::Armed | Phase::Quiet => slot,
    }
}

/// The first half of becoming quiet in company: what is not on record goes to current from now on, and new
/// flows are still recorded, since a peer may send them to previous until it has heard of this.
pub(super) const fn landed(slot: Slot) -> Slot {
    if slot.current() == 0 {
        return slot;
    }
    Slot::in_transition(slot.current(), slot.current())
}

/// The slot with its previous given up: what is not on record goes to current from now on. A slot
/// without a current has nobody to give the flows to, and keeps them.
pub(super) const fn quiet(slot: Slot) -> Slot {
    if slot.current() == 0 {
        return slot;
    }
    Slot::in_transition(slot.current(), slot.current()).quieted()
}

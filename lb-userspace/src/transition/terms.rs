//! What goes into the machine and what comes out of it.

use std::collections::BTreeSet;

use lb_common::limits::PREPARE_MS;

/// How long the machine waits for what. Only the simulator uses other values than the default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// From the armed ring in force to the change: [`PREPARE_MS`]. Unit: milliseconds.
    pub prepare_ms: u64,
    /// The least time between two rings that differ only in what is quiet or settled: whole rings are
    /// written, and nobody waits for these. Unit: milliseconds.
    pub settle_interval_ms: u64,
    /// The least time between two sweeps for the sake of quiet slots: a sweep reads the whole flow
    /// table. Unit: milliseconds.
    pub sweep_interval_ms: u64,
    /// For how long a backend that is down still gets the unknown flows of slots that have moved away
    /// from it, when flows cannot be recorded for want of room: as long as false alarms last. Unit:
    /// milliseconds.
    pub give_up_ms: u64,
    /// For how long the slots of a dead backend wait for the peers to consult the flow table before they
    /// move. Unit: milliseconds.
    pub urgent_wait_ms: u64,
    /// In company, what is added to the idle time-out before a slot settles: what peers have seen is known
    /// that much later. Unit: milliseconds.
    pub hearsay_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            prepare_ms: PREPARE_MS,
            settle_interval_ms: 1_000,
            sweep_interval_ms: 2_000,
            give_up_ms: 15_000,
            urgent_wait_ms: 300,
            hearsay_ms: 4_000,
        }
    }
}

/// Nodes that share a ring, as bits: [`Members::SELF`], and one for each peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Members(u8);

impl Members {
    /// Nobody.
    pub const NONE: Self = Self(0);
    /// This node.
    pub const SELF: Self = Self(1);
    /// Peers that there is a bit for.
    pub const PEERS_MAX: usize = 7;

    /// The peer with this number; nobody from [`Self::PEERS_MAX`] on.
    pub const fn peer(number: usize) -> Self {
        if number < Self::PEERS_MAX {
            Self(2 << number)
        } else {
            Self::NONE
        }
    }

    /// Those of both.
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Those of this set that are not of the other.
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of the other set are in this one.
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether there is nobody.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Whether everybody who may forward with a copy of the ring can be asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// Yes, or what cannot be asked counts as gone.
    #[default]
    All,
    /// A peer is silent, and may live.
    Cut,
}

/// Whether slots may become quiet or settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Settling {
    /// As far as the clocks allow.
    #[default]
    Free,
    /// Not now: it is not known how the peers fare.
    Withheld,
}

/// With whom a node shares a ring. The default is a node on its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Company {
    /// The peers that answer.
    pub present: Members,
    /// Whether there are others.
    pub reach: Reach,
    /// What is known of the peers' flows.
    pub settling: Settling,
}

impl Company {
    /// Nobody else has a copy of the ring.
    pub fn is_alone(&self) -> bool {
        self.present.is_empty() && self.reach == Reach::All
    }
}

/// Who decides what a ring becomes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lead {
    /// This node.
    #[default]
    Own,
    /// A peer: slots change by [`super::RingTransition::follow`] alone.
    Peer,
}

/// What the machine has to know of the world at a step.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// When a flow of the service was last not recorded that should have been, on the caller's clock;
    /// `None` = never. Of all nodes the latest, once there are several.
    pub suppressed_ms: Option<u64>,
    /// The service's idle time-out. Unit: milliseconds.
    pub idle_timeout_ms: u64,
    /// The backends that are down.
    pub down: &'a BTreeSet<u16>,
}

/// What has to be done after a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The ring has changed: all of [`super::RingTransition::slots`] is to be put in force, packets that may
    /// still read the old ring are to be waited for, and [`super::RingTransition::in_force`] to be called.
    pub write: bool,
    /// Quiet slots wait for a sweep ([`super::sweep`]) and for [`super::RingTransition::swept`].
    pub sweep: bool,
    /// When to step again at the latest, if nothing happens before; `None` = never.
    pub deadline_ms: Option<u64>,
}

/// The slots of a ring by phase, and how far it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Slots that touch no state.
    pub settled_count: usize,
    /// Slots in preparation of a change.
    pub armed_count: usize,
    /// Slots that have changed, not longer ago than an idle time-out.
    pub moving_count: usize,
    /// Slots with exceptions, as far as is known.
    pub quiet_count: usize,
    /// Slots that do not have the backend yet that they are to have.
    pub pending_count: usize,
    /// Live flows of quiet slots, of other backends than the slot's, when last swept.
    pub exception_count: u64,
    /// Since when the slot that has been in its phase for longest is in it; `None` if all are settled.
    pub oldest_ms: Option<u64>,
}

/// A ring of another length was wanted. Every flow's slot would change, and there is no rule for that.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`ring_slots` has changed from {actual} to {wanted}, and with the length of the ring every flow's slot"
)]
pub struct RingLengthChanged {
    /// Slots of the ring as it is.
    pub actual: usize,
    /// Slots of the ring that was wanted.
    pub wanted: usize,
}

//! A look at all slots of a ring: what it saves is looking again while nothing is due.

use lb_common::abi::Slot;

use super::phase::Phase;
use super::terms::{Company, Lead, Members, Reach, Summary};

/// When a slot got into its phase.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// When the slot as it is came in force; [`NOT_IN_FORCE`] until then.
    pub(super) since_ms: u64,
    /// The revision in which the slot became what it is. Clocks are most of a ring's memory: 32 bits do for
    /// a century of changes every second.
    pub(super) revision: u32,
    /// Whose sweeps, begun after that, have left nothing of the slot in their flow tables.
    pub(super) clear: Members,
    /// Whose have found it so once more, after all others had.
    pub(super) confirmed: Members,
    /// When the latest of the sweeps in `clear` began. Unit: seconds, modulo 2^16.
    pub(super) cleared_s: u16,
}

impl Clock {
    /// Of a slot that is as it is since then.
    pub(super) const fn new(since_ms: u64, revision: u32) -> Self {
        Self {
            since_ms,
            revision,
            clear: Members::NONE,
            confirmed: Members::NONE,
            cleared_s: 0,
        }
    }

    /// A sweep of one of `everybody`, begun then, has found so many exceptions of the slot. When all have found
    /// none, each has to find so once more: what was under way between two of them has arrived by then.
    pub(super) fn note_swept(
        &mut self,
        whose: Members,
        everybody: Members,
        exception_count: u32,
        began_s: u16,
    ) {
        if exception_count > 0 {
            self.clear = self.clear.without(whose);
            self.confirmed = Members::NONE;
            return;
        }
        if !self.clear.has(everybody) {
            let is_later = self.clear.is_empty() || seconds_from(self.cleared_s, began_s) > 0;
            self.cleared_s = if is_later { began_s } else { self.cleared_s };
            self.clear = self.clear.and(whose);
        } else if seconds_from(self.cleared_s, began_s) > IN_FLIGHT_S {
            self.confirmed = self.confirmed.and(whose);
        }
    }

    /// Forgets what sweeps have found.
    pub(super) const fn doubt(&mut self) {
        self.clear = Members::NONE;
        self.confirmed = Members::NONE;
    }
}

/// The most that what a node tells of a flow is under way, rounded up. Unit: seconds.
const IN_FLIGHT_S: i16 = 2;

/// From one moment to the other, modulo 2^16. Unit: seconds.
const fn seconds_from(earlier_s: u16, later_s: u16) -> i16 {
    later_s.wrapping_sub(earlier_s) as i16
}

const _: () = assert!(size_of::<Clock>() == 16);

/// Of a slot whose ring is still to be written.
pub(super) const NOT_IN_FORCE: u64 = u64::MAX;

/// What a look at all slots has shown: it saves looking again while nothing is due.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Survey {
    pub(super) summary: Summary,
    /// The earliest moment at which a slot of those that are to change is prepared.
    pub(super) change_due_ms: Option<u64>,
    /// The longest unchanged moving slot's time.
    pub(super) oldest_moving_ms: Option<u64>,
    /// Armed slots whose change was taken back, or is not known.
    pub(super) has_idle_arms: bool,
    /// Quiet slots that are clear.
    pub(super) has_clear: bool,
    /// Quiet slots that a sweep can tell something about.
    pub(super) has_sweepable: bool,
}

/// Whether nothing of a quiet slot is left in any flow table.
pub(super) fn is_clear(clock: &Clock, company: &Company) -> bool {
    if company.is_alone() {
        return clock.clear.has(Members::SELF);
    }
    clock.confirmed.has(company.present.and(Members::SELF))
}

/// A survey on its way; what has not been found yet is [`NOT_IN_FORCE`].
pub(super) struct Looking {
    summary: Summary,
    oldest_ms: u64,
    oldest_armed_ms: u64,
    oldest_moving_ms: u64,
    has_idle_arms: bool,
    has_clear: bool,
    has_sweepable: bool,
    company: Company,
    lead: Lead,
}

impl Looking {
    /// A look in this company.
    pub(super) fn new(company: Company, lead: Lead) -> Self {
        Self {
            company,
            lead,
            summary: Summary::default(),
            oldest_ms: NOT_IN_FORCE,
            oldest_armed_ms: NOT_IN_FORCE,
            oldest_moving_ms: NOT_IN_FORCE,
            has_idle_arms: false,
            has_clear: false,
            has_sweepable: false,
        }
    }

    /// Looks at all slots; `clocks` is empty while none has ever changed, `target` is the ring to come. Rings
    /// are long, and a host that dies changes as many as it has services: this is most of what a change costs.
    pub(super) fn look(&mut self, slots: &[Slot], clocks: &[Clock], target: Option<&[u16]>) {
        let is_pending = |position: usize, slot: Slot| {
            target.is_some_and(|target| target[position] != slot.current())
        };
        if clocks.is_empty() {
            for (position, slot) in slots.iter().enumerate() {
                self.see(*slot, None, is_pending(position, *slot));
            }
            return;
        }
        for (position, (slot, clock)) in slots.iter().zip(clocks).enumerate() {
            self.see(*slot, Some(clock), is_pending(position, *slot));
        }
    }

    #[inline]
    fn see(&mut self, slot: Slot, clock: Option<&Clock>, is_pending: bool) {
        self.summary.pending_count += usize::from(is_pending);
        let phase = Phase::of(slot);
        if phase == Phase::Settled {
            self.summary.settled_count += 1;
            return;
        }
        let since_ms = clock.map_or(NOT_IN_FORCE, |clock| clock.since_ms);
        self.oldest_ms = self.oldest_ms.min(since_ms);
        match phase {
            Phase::Settled => {}
            Phase::Armed => {
                self.summary.armed_count += 1;
                self.has_idle_arms |= !is_pending && self.may_land(since_ms);
                if is_pending {
                    self.oldest_armed_ms = self.oldest_armed_ms.min(since_ms);
                }
            }
            Phase::Moving => {
                self.summary.moving_count += 1;
                self.oldest_moving_ms = self.oldest_moving_ms.min(since_ms);
            }
            Phase::Quiet => {
                self.summary.quiet_count += 1;
                let is_clear = clock.is_some_and(|clock| is_clear(clock, &self.company));
                self.has_clear |= is_clear && !is_pending;
                self.has_sweepable |= since_ms != NOT_IN_FORCE && self.is_worth_a_sweep(is_clear);
            }
        }
    }

    /// Whether an armed slot that nobody wants to move may become quiet: in company not before it is armed
    /// everywhere.
    fn may_land(&self, since_ms: u64) -> bool {
        self.company.is_alone() || since_ms != NOT_IN_FORCE
    }

    fn is_worth_a_sweep(&self, is_clear: bool) -> bool {
        match self.company.reach {
            Reach::Cut => false,
            // The owner asks more than once.
            Reach::All if self.lead == Lead::Peer => true,
            Reach::All => !is_clear,
        }
    }

    /// What was seen, as of a ring in which a change takes so long to prepare. Unit: milliseconds.
    pub(super) fn survey(self, exception_count: u64, prepare_ms: u64) -> Survey {
        let found = |since_ms: u64| (since_ms != NOT_IN_FORCE).then_some(since_ms);
        Survey {
            summary: Summary {
                exception_count,
                oldest_ms: found(self.oldest_ms),
                ..self.summary
            },
            change_due_ms: found(self.oldest_armed_ms).map(|since_ms| since_ms + prepare_ms),
            oldest_moving_ms: found(self.oldest_moving_ms),
            has_idle_arms: self.has_idle_arms,
            has_clear: self.has_clear,
            has_sweepable: self.has_sweepable,
        }
    }
}

//! The machine: one ring, its clocks, and the ring that it is on its way to.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::Slot;

use super::phase::{Phase, Readiness, landed, quiet, towards, withdrawn};
use super::survey::{Clock, Looking, NOT_IN_FORCE, Survey, is_clear};
use super::sweep::Exceptions;
use super::terms::{
    Company, Facts, Lead, Members, Reach, RingLengthChanged, Settling, Step, Summary, Timing,
};

/// The transition of one service's ring.
#[derive(Clone, Debug)]
pub struct RingTransition {
    pub(super) timing: Timing,
    pub(super) slots: Vec<Slot>,
    /// By slot; empty while all are settled.
    pub(super) clocks: Vec<Clock>,
    /// The ring to come; `None` when it is there.
    pub(super) target: Option<Vec<u16>>,
    /// Backends whose slots change without preparation.
    pub(super) urgent: BTreeSet<u16>,
    /// Since when they are, in company.
    pub(super) urgent_since_ms: BTreeMap<u16, u64>,
    /// When slots were last looked at for changes.
    pub(super) changed_ms: u64,
    pub(super) revision: u64,
    in_force_revision: u64,
    /// Since when backends are down that are.
    down_since_ms: BTreeMap<u16, u64>,
    last_settle_ms: Option<u64>,
    last_sweep_ms: Option<u64>,
    /// The caller's word on takeovers and restarts: nothing settles before an idle time-out from here.
    pub(super) restarted_ms: u64,
    /// `want` was called since slots were last moved towards the target.
    pub(super) is_target_new: bool,
    pub(super) survey: Survey,
    pub(super) company: Company,
    pub(super) lead: Lead,
}

impl RingTransition {
    /// The ring of a new service: there is no flow to be kept.
    pub fn settled(backends: &[u16]) -> Self {
        let slots = backends.iter().copied().map(Slot::settled).collect();
        Self::new(slots, 0)
    }

    /// A ring that was found in force, by a daemon that does not know since when, or by a node that
    /// takes over: all clocks begin now. Armed slots become quiet unless a change is wanted.
    pub fn adopted(slots: &[Slot], now_ms: u64) -> Self {
        Self::new(slots.to_vec(), now_ms)
    }

    fn new(slots: Vec<Slot>, now_ms: u64) -> Self {
        let mut machine = Self {
            timing: Timing::default(),
            slots,
            clocks: Vec::new(),
            target: None,
            urgent: BTreeSet::new(),
            urgent_since_ms: BTreeMap::new(),
            changed_ms: 0,
            revision: 0,
            in_force_revision: 0,
            down_since_ms: BTreeMap::new(),
            last_settle_ms: None,
            last_sweep_ms: None,
            restarted_ms: now_ms,
            is_target_new: false,
            survey: Survey::default(),
            company: Company::default(),
            lead: Lead::default(),
        };
        machine.look_around();
        if !machine.is_settled() {
            machine.start_clocks(now_ms);
            machine.look_around();
        }
        machine
    }

    /// The same with other timing: the simulator switches rules off with it.
    pub fn with_timing(mut self, timing: Timing) -> Self {
        self.timing = timing;
        self
    }

    /// The ring's content, to be in force.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Grows with each change of [`Self::slots`].
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Whether [`Self::slots`] is in force, as far as [`Self::in_force`] was told.
    pub fn is_in_force(&self) -> bool {
        self.revision == self.in_force_revision
    }

    /// Whether every slot is settled, and as it should be.
    pub fn is_settled(&self) -> bool {
        let is_met = self.target.is_none() || self.lead == Lead::Peer;
        self.survey.summary.settled_count == self.slots.len() && is_met
    }

    /// The slots by phase.
    pub fn summary(&self) -> Summary {
        self.survey.summary
    }

    /// The backends that any slot leads to, or is to lead to: their entries must stay.
    pub fn backends(&self) -> BTreeSet<u16> {
        let in_slots = self
            .slots
            .iter()
            .flat_map(|slot| [slot.current(), slot.previous()]);
        let to_come = self.target.iter().flatten().copied();
        in_slots.chain(to_come).filter(|id| *id != 0).collect()
    }

    /// Whether any slot leads to this backend, or is to lead to it.
    pub fn refers_to(&self, backend_id: u16) -> bool {
        let is_in_slots = self
            .slots
            .iter()
            .any(|slot| slot.current() == backend_id || slot.previous() == backend_id);
        let is_to_come = || {
            self.target
                .as_ref()
                .is_some_and(|target| target.contains(&backend_id))
        };
        is_in_slots || is_to_come()
    }

    /// When the last slot that moved away from a backend did so; `None` if there is none, or if one has
    /// yet to. Unit: milliseconds.
    pub fn moved_from_ms(&self, backend_id: u16) -> Option<u64> {
        let slots = self.slots.iter().zip(&self.clocks);
        let mut moved_ms = None;
        for (slot, clock) in slots {
            let is_its = slot.previous() == backend_id || slot.current() == backend_id;
            if is_its && (Phase::of(*slot) != Phase::Moving || clock.since_ms == NOT_IN_FORCE) {
                return None;
            }
            if is_its {
                moved_ms = moved_ms.max(Some(clock.since_ms));
            }
        }
        moved_ms
    }

    /// Says which ring should be in force, by backend ids (0 = none), and from which backends slots are
    /// taken without preparation: dead ones, and drained ones where the operator prefers broken
    /// handshakes. To be said at any time, as often as one likes.
    ///
    /// # Errors
    /// [`RingLengthChanged`], unless the ring had no slots; nothing has changed then.
    pub fn want(
        &mut self,
        target: &[u16],
        urgent: &BTreeSet<u16>,
    ) -> Result<(), RingLengthChanged> {
        if self.lead == Lead::Peer {
            self.note_wanted(target, urgent);
            return Ok(());
        }
        if self.slots.is_empty() && !target.is_empty() {
            self.slots = vec![Slot::EMPTY; target.len()];
        }
        if target.len() != self.slots.len() {
            return Err(RingLengthChanged {
                actual: self.slots.len(),
                wanted: target.len(),
            });
        }
        let is_reached = self
            .slots
            .iter()
            .zip(target)
            .all(|(slot, backend_id)| slot.current() == *backend_id);
        let is_known = self.urgent == *urgent && self.target.as_deref() == Some(target);
        if is_reached && self.target.is_none() || is_known {
            self.urgent.clone_from(urgent);
            return Ok(());
        }
        // What a cut makes slots fall back from is to be found again.
        let is_to_come = !is_reached || self.company.reach == Reach::Cut;
        self.target = is_to_come.then(|| target.to_vec());
        self.urgent.clone_from(urgent);
        self.is_target_new = true;
        Ok(())
    }

    /// What this node would want, if a peer did not decide.
    fn note_wanted(&mut self, target: &[u16], urgent: &BTreeSet<u16>) {
        self.target = (target.len() == self.slots.len()).then(|| target.to_vec());
        self.urgent.clone_from(urgent);
    }

    /// Moves on as far as the time and the facts allow.
    pub fn step(&mut self, now_ms: u64, facts: &Facts<'_>) -> Step {
        let before = self.revision;
        self.note_down(now_ms, facts);
        if self.lead == Lead::Own {
            self.note_urgent(now_ms);
            self.change(now_ms);
        }
        if self.may_settle(now_ms, facts) {
            self.settle(now_ms, facts);
        }
        Step {
            write: self.revision != before || !self.is_in_force(),
            sweep: self.sweep_due_ms().is_some_and(|due_ms| now_ms >= due_ms),
            deadline_ms: self.deadline_ms(facts),
        }
    }

    /// The ring of this revision is in force: it was written, and no packet reads an older one. In company
    /// that this node leads, also: all peers that are present have acknowledged it.
    pub fn in_force(&mut self, revision: u64, now_ms: u64) {
        self.in_force_revision = self.in_force_revision.max(revision);
        for clock in &mut self.clocks {
            let is_new = clock.since_ms == NOT_IN_FORCE && u64::from(clock.revision) <= revision;
            clock.since_ms = if is_new { now_ms } else { clock.since_ms };
        }
        // Slots of dead backends may have waited for just this.
        self.is_target_new |= !self.urgent_since_ms.is_empty();
        self.look_around();
    }

    /// What may be done to the flow table's entries of a slot: the backend that they need not name, if
    /// the slot is quiet in force. `None`: hands off.
    pub fn sweepable(&self, slot: usize) -> Option<u16> {
        let clock = self.clocks.get(slot)?;
        let is_quiet = Phase::of(self.slots[slot]) == Phase::Quiet;
        let is_in_force = clock.since_ms != NOT_IN_FORCE;
        // What a peer that is silent would refresh must not be forgotten meanwhile.
        let is_swept = is_quiet && is_in_force && self.company.reach == Reach::All;
        is_swept.then(|| self.slots[slot].current())
    }

    /// A sweep has ended. It has left of each quiet slot only the exceptions that it counted.
    pub fn swept(&mut self, exceptions: &Exceptions, now_ms: u64) {
        self.last_sweep_ms = Some(now_ms);
        if !self.survey.has_sweepable && !self.survey.has_clear {
            self.survey.summary.exception_count = 0;
            return;
        }
        let exception_count = self.note_swept(Members::SELF, exceptions, now_ms);
        self.look_around();
        self.survey.summary.exception_count = exception_count;
    }

    /// Notes what a sweep that began then has found, and counts it.
    pub(super) fn note_swept(
        &mut self,
        whose: Members,
        exceptions: &Exceptions,
        began_ms: u64,
    ) -> u64 {
        let everybody = self.company.present.and(Members::SELF);
        let began_s = (began_ms / 1_000) as u16;
        let mut exception_count = 0;
        for (slot, count) in exceptions.by_slot.iter().copied().enumerate() {
            if self.sweepable(slot).is_none() {
                continue;
            }
            let clock = &mut self.clocks[slot];
            if u64::from(clock.revision) <= exceptions.revision {
                clock.note_swept(whose, everybody, count, began_s);
                exception_count += u64::from(count);
            }
        }
        exception_count
    }

    /// All clocks begin again: this node has taken over from another, or it is not known what happened
    /// while nobody watched.
    pub fn restart_clocks(&mut self, now_ms: u64) {
        self.restarted_ms = now_ms;
        for clock in &mut self.clocks {
            if clock.since_ms != NOT_IN_FORCE {
                clock.since_ms = now_ms;
            }
            clock.doubt();
        }
        self.look_around();
    }

    /// Moves slots towards the target.
    fn change(&mut self, now_ms: u64) {
        let due_ms = [self.change_due_ms(), self.urgent_due_ms()];
        let is_due = due_ms.into_iter().flatten().any(|due_ms| now_ms >= due_ms);
        if !self.is_target_new && !is_due {
            return;
        }
        self.is_target_new = false;
        self.changed_ms = now_ms;
        let Some(target) = self.target.take() else {
            // What was wanted before is not any more.
            self.look_around();
            return;
        };
        let revision = self.revision + 1;
        let mut is_reached = true;
        for (slot, backend_id) in target.iter().copied().enumerate() {
            let next = self.changed_slot(slot, backend_id, now_ms);
            self.put(slot, next, revision);
            is_reached &= next.current() == backend_id;
        }
        let is_to_come = !is_reached || self.company.reach == Reach::Cut;
        self.target = is_to_come.then_some(target);
        if is_reached {
            self.urgent_since_ms = BTreeMap::new();
        }
        self.look_around();
    }

    /// The next step of a slot towards its target.
    fn changed_slot(&self, slot: usize, backend_id: u16, now_ms: u64) -> Slot {
        let old = self.slots[slot];
        if self.company.reach == Reach::Cut {
            let fallen_back = withdrawn(old);
            if fallen_back != old && !self.urgent.contains(&fallen_back.current()) {
                return fallen_back;
            }
            if !self.urgent.contains(&old.current()) && old.current() != 0 {
                return old;
            }
        }
        towards(old, backend_id, self.readiness(slot, now_ms))
    }

    fn readiness(&self, slot: usize, now_ms: u64) -> Readiness {
        if self.urgent.contains(&self.slots[slot].current()) {
            return self.urgent_readiness(slot, now_ms);
        }
        match self.prepared_ms(slot) {
            Some(prepared_ms) if now_ms >= prepared_ms => Readiness::Prepared,
            _ => Readiness::Waiting,
        }
    }

    /// When a slot has been armed for long enough; `None` while it is not armed in force.
    fn prepared_ms(&self, slot: usize) -> Option<u64> {
        let clock = self.clocks.get(slot)?;
        let is_armed = Phase::of(self.slots[slot]) == Phase::Armed;
        (is_armed && clock.since_ms != NOT_IN_FORCE)
            .then(|| clock.since_ms + self.timing.prepare_ms)
    }

    /// When the first slot is prepared for its change, if changes may be made.
    fn change_due_ms(&self) -> Option<u64> {
        let may_change = self.lead == Lead::Own && self.company.reach == Reach::All;
        self.survey.change_due_ms.filter(|_| may_change)
    }

    /// Whether it is worth a look at which slots become quiet or settled.
    fn may_settle(&self, now_ms: u64, facts: &Facts<'_>) -> bool {
        let due_ms = self.settle_due_ms(facts);
        due_ms.is_some_and(|due_ms| now_ms >= due_ms)
    }

    /// The earliest moment at which a slot becomes quiet or settled, by what is known now.
    fn settle_due_ms(&self, facts: &Facts<'_>) -> Option<u64> {
        if self.is_settling_withheld() {
            return None;
        }
        let survey = &self.survey;
        let quieted_ms = survey
            .oldest_moving_ms
            .map(|oldest_ms| self.quiet_due_ms(oldest_ms, facts));
        let given_up_ms = self.give_up_due_ms(facts);
        let at_once = (survey.has_idle_arms || survey.has_clear).then_some(0);
        let due_ms = [quieted_ms, given_up_ms, at_once]
            .into_iter()
            .flatten()
            .min()?;
        let interval_ms = self.timing.settle_interval_ms;
        let earliest_ms = self
            .last_settle_ms
            .map_or(0, |last_ms| last_ms + interval_ms);
        Some(due_ms.max(earliest_ms))
    }

    /// When a slot that has been moving since `since_ms` becomes quiet.
    fn quiet_due_ms(&self, since_ms: u64, facts: &Facts<'_>) -> u64 {
        let last_ms = since_ms
            .max(self.restarted_ms)
            .max(facts.suppressed_ms.unwrap_or(0));
        let hearsay_ms = if self.company.is_alone() {
            0
        } else {
            self.timing.hearsay_ms
        };
        last_ms + facts.idle_timeout_ms + hearsay_ms
    }

    fn note_down(&mut self, now_ms: u64, facts: &Facts<'_>) {
        self.down_since_ms.retain(|id, _| facts.down.contains(id));
        for id in facts.down {
            self.down_since_ms.entry(*id).or_insert(now_ms);
        }
    }

    /// When the first backend that is down is given up, if flows find no room. Since when they find none
    /// does not matter: it is a matter of slots that are moving.
    fn give_up_due_ms(&self, facts: &Facts<'_>) -> Option<u64> {
        let oldest_ms = self.survey.oldest_moving_ms?;
        facts
            .suppressed_ms
            .filter(|last_ms| *last_ms >= oldest_ms)?;
        let since_ms = self.down_since_ms.values().min()?;
        Some(since_ms + self.timing.give_up_ms)
    }

    fn settle(&mut self, now_ms: u64, facts: &Facts<'_>) {
        let revision = self.revision + 1;
        for slot in 0..self.slots.len() {
            let next = self.settled_slot(slot, now_ms, facts);
            self.put(slot, next, revision);
        }
        self.last_settle_ms = Some(now_ms);
        if self
            .slots
            .iter()
            .all(|slot| Phase::of(*slot) == Phase::Settled)
        {
            self.clocks = Vec::new();
        }
        self.look_around();
    }

    /// What a slot is once it has settled as far as it may.
    fn settled_slot(&self, slot: usize, now_ms: u64, facts: &Facts<'_>) -> Slot {
        let old = self.slots[slot];
        let Some(clock) = self.clocks.get(slot) else {
            return old;
        };
        match Phase::of(old) {
            Phase::Moving if clock.since_ms == NOT_IN_FORCE => old,
            Phase::Moving if now_ms >= self.quiet_due_ms(clock.since_ms, facts) => self.calmed(old),
            Phase::Moving if self.is_given_up(old, clock.since_ms, now_ms, facts) => {
                self.calmed(old)
            }
            Phase::Armed if !self.company.is_alone() && clock.since_ms == NOT_IN_FORCE => old,
            Phase::Armed if !self.is_pending(slot) => quiet(old),
            Phase::Quiet if is_clear(clock, &self.company) && !self.is_pending(slot) => {
                Slot::settled(old.current())
            }
            Phase::Settled | Phase::Armed | Phase::Moving | Phase::Quiet => old,
        }
    }

    /// A slot that moves no more: in company in two steps, the first of which is made everywhere before the
    /// second is made anywhere.
    fn calmed(&self, slot: Slot) -> Slot {
        if self.company.is_alone() {
            quiet(slot)
        } else {
            landed(slot)
        }
    }

    fn is_settling_withheld(&self) -> bool {
        let company = &self.company;
        self.lead == Lead::Peer
            || company.reach == Reach::Cut
            || company.settling == Settling::Withheld
    }

    /// Whether unknown flows of a slot should no longer be sent to a dead backend: new ones that find no
    /// room in the flow table are unknown too, and would all be lost.
    fn is_given_up(&self, slot: Slot, since_ms: u64, now_ms: u64, facts: &Facts<'_>) -> bool {
        let down_since_ms = self.down_since_ms.get(&slot.previous());
        facts
            .suppressed_ms
            .is_some_and(|last_ms| last_ms >= since_ms)
            && down_since_ms.is_some_and(|down_ms| now_ms >= down_ms + self.timing.give_up_ms)
    }

    fn is_pending(&self, slot: usize) -> bool {
        self.target
            .as_ref()
            .is_some_and(|target| target[slot] != self.slots[slot].current())
    }

    /// When the next sweep is due; `None` if there is nothing to sweep.
    fn sweep_due_ms(&self) -> Option<u64> {
        let interval_ms = self.timing.sweep_interval_ms;
        self.survey.has_sweepable.then(|| {
            self.last_sweep_ms
                .map_or(0, |last_ms| last_ms + interval_ms)
        })
    }

    fn deadline_ms(&self, facts: &Facts<'_>) -> Option<u64> {
        let due = [
            self.change_due_ms(),
            self.urgent_due_ms(),
            self.settle_due_ms(facts),
            self.sweep_due_ms(),
        ];
        due.into_iter().flatten().min()
    }

    /// Changes a slot, as part of `revision`.
    pub(super) fn put(&mut self, slot: usize, next: Slot, revision: u64) {
        if self.slots[slot] == next {
            return;
        }
        if self.clocks.is_empty() {
            self.start_clocks(0);
        }
        self.slots[slot] = next;
        self.clocks[slot] = Clock::new(NOT_IN_FORCE, revision as u32);
        self.revision = revision;
    }

    pub(super) fn start_clocks(&mut self, now_ms: u64) {
        let clock = Clock::new(now_ms, self.revision as u32);
        self.clocks = vec![clock; self.slots.len()];
    }

    /// Looks at all slots, after something has changed.
    pub(super) fn look_around(&mut self) {
        let mut looking = Looking::new(self.company, self.lead);
        let target = self.target.as_deref();
        looking.look(&self.slots, &self.clocks, target);
        let exception_count = self.survey.summary.exception_count;
        self.survey = looking.survey(exception_count, self.timing.prepare_ms);
    }
}

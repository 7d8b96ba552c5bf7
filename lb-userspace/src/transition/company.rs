//! A ring that other nodes have, too: who decides what becomes of it, who is there, and what they have said.

use lb_common::abi::Slot;

use super::RingTransition;
use super::phase::{Phase, Readiness, quiet};
use super::survey::NOT_IN_FORCE;
use super::sweep::Exceptions;
use super::terms::{Company, Lead, Members, Reach};

impl RingTransition {
    /// Who decides what becomes of the ring.
    pub fn lead(&self) -> Lead {
        self.lead
    }

    /// With whom the ring is shared.
    pub fn company(&self) -> Company {
        self.company
    }

    /// The nodes that share the ring from now on. Who comes or goes has had flows that this node knows
    /// nothing of, so clocks begin again then.
    pub fn keep_company(&mut self, company: Company, now_ms: u64) {
        let old = std::mem::replace(&mut self.company, company);
        if old == company {
            return;
        }
        if (old.present, old.reach) != (company.present, company.reach) {
            self.restart_clocks(now_ms);
            if company.reach == Reach::Cut && self.target.is_none() {
                let currents = self.slots.iter().map(|slot| slot.current());
                self.target = Some(currents.collect());
            }
            self.is_target_new = true;
        }
        self.look_around();
    }

    /// The ring is another node's: it becomes what that one says, whatever its length. To be put in force,
    /// and [`Self::in_force`] to be called, as with any other.
    pub fn follow(&mut self, slots: &[Slot]) {
        self.lead = Lead::Peer;
        let revision = self.revision + 1;
        if slots.len() != self.slots.len() {
            self.slots = slots.to_vec();
            self.target = None;
            self.revision = revision;
            self.start_clocks(NOT_IN_FORCE);
        }
        for (slot, next) in slots.iter().copied().enumerate() {
            self.put(slot, next, revision);
        }
        self.look_around();
    }

    /// A peer decides from now on; until it has said what, the ring stays as it is.
    pub fn yield_lead(&mut self) {
        self.lead = Lead::Peer;
        self.look_around();
    }

    /// This node decides from now on, and begins with the ring as it is. No slot counts as in force that
    /// is not settled: the peers may have an older one, or one that the last owner made.
    pub fn take_lead(&mut self, now_ms: u64) {
        self.lead = Lead::Own;
        self.is_target_new = true;
        self.urgent_since_ms.clear();
        self.restart_clocks(now_ms);
        self.announce_anew();
    }

    /// A node has joined that may have an older ring: what is in force is to be acknowledged again.
    pub fn announce_anew(&mut self) {
        if self.clocks.is_empty() {
            self.revision += 1;
            return;
        }
        self.revision += 1;
        let (revision, slots) = (self.revision as u32, &self.slots);
        for (clock, slot) in self.clocks.iter_mut().zip(slots) {
            if Phase::of(*slot) != Phase::Settled {
                clock.since_ms = NOT_IN_FORCE;
                clock.revision = revision;
                clock.doubt();
            }
        }
        self.look_around();
    }

    /// Settled slots consult the flow table again, where `is_doubtful` says so: somebody may have moved them
    /// whom nobody can ask.
    pub fn consult(&mut self, is_doubtful: impl Fn(usize) -> bool) {
        let revision = self.revision + 1;
        for slot in 0..self.slots.len() {
            let old = self.slots[slot];
            if Phase::of(old) == Phase::Settled && is_doubtful(slot) {
                self.put(slot, quiet(old), revision);
            }
        }
        self.look_around();
    }

    /// A peer's sweep has ended, that began then by this node's clock, and while the peer had this node's
    /// ring of `exceptions.revision` in force.
    pub fn swept_by(&mut self, peer: Members, exceptions: &Exceptions, began_ms: u64) {
        self.note_swept(peer, exceptions, began_ms);
        let exception_count = self.survey.summary.exception_count;
        self.look_around();
        self.survey.summary.exception_count = exception_count;
    }

    /// Whether entries of quiet slots that are purged count as exceptions once more, and those that only say
    /// where the flow would go anyway stay while they live: in company, a peer may just have sent the one,
    /// and would not send the other again.
    pub(super) fn is_swept_with_care(&self) -> bool {
        !self.company.is_alone()
    }

    /// Notes since when backends' slots are to change without preparation.
    pub(super) fn note_urgent(&mut self, now_ms: u64) {
        if self.company.present.is_empty() || self.target.is_none() {
            self.urgent_since_ms.clear();
            return;
        }
        let urgent = &self.urgent;
        self.urgent_since_ms.retain(|id, _| urgent.contains(id));
        for id in urgent {
            self.urgent_since_ms.entry(*id).or_insert(now_ms);
        }
    }

    /// When slots that wait for the peers to consult the table move all the same.
    pub(super) fn urgent_due_ms(&self) -> Option<u64> {
        let since_ms = self.urgent_since_ms.values();
        let due_ms = since_ms.map(|since_ms| since_ms + self.timing.urgent_wait_ms);
        due_ms.filter(|due_ms| *due_ms > self.changed_ms).min()
    }

    /// Whether a dead backend's slot may move: where peers forward as well, not before they consult the
    /// table for it, but no later than [`super::Timing::urgent_wait_ms`] after the death.
    pub(super) fn urgent_readiness(&self, slot: usize, now_ms: u64) -> Readiness {
        if self.company.present.is_empty() {
            return Readiness::Urgent;
        }
        let old = self.slots[slot];
        let clock = self.clocks.get(slot);
        let is_in_force = clock.is_some_and(|clock| clock.since_ms != NOT_IN_FORCE);
        if is_in_force && matches!(Phase::of(old), Phase::Armed | Phase::Quiet) {
            return Readiness::Urgent;
        }
        let since_ms = self.urgent_since_ms.get(&old.current());
        let is_due =
            since_ms.is_some_and(|since_ms| now_ms >= since_ms + self.timing.urgent_wait_ms);
        if is_due {
            Readiness::Urgent
        } else {
            Readiness::Waiting
        }
    }
}

impl Members {
    /// The peers in this set, by number.
    pub fn peers(self) -> impl Iterator<Item = usize> {
        (0..Self::PEERS_MAX).filter(move |number| self.has(Self::peer(*number)))
    }
}

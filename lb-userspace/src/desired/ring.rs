//! What a service's ring is made of, and the making.

use std::collections::BTreeMap;
use std::sync::Arc;

use lb_common::abi::Slot;
use lb_common::limits::{RING_BLOCK_SLOTS, RING_SLOTS_MAX};
use lb_common::maglev::{self, Cursor, Member};
use lb_common::round_robin::{self, Turn};

use crate::model::Scheduler;

/// The ring that a service should have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RingContent {
    /// Built anew whenever its members change: what was there before is in the flow table, or nowhere.
    Built(RingSpec),
    /// Slot by slot, by a [`crate::transition::RingTransition`].
    Slots(Arc<[u32]>),
}

impl RingContent {
    /// No backend at all.
    pub const fn empty(scheduler: Scheduler) -> Self {
        Self::Built(RingSpec {
            scheduler,
            maglev_slots: 0,
            members: Vec::new(),
        })
    }

    /// The slots.
    pub fn build(&self) -> Arc<[u32]> {
        match self {
            Self::Built(spec) => spec.build().into(),
            Self::Slots(slots) => Arc::clone(slots),
        }
    }

    /// How many slots it has; `None` where only building it tells.
    pub fn slot_count(&self) -> Option<u32> {
        match self {
            Self::Slots(slots) => Some(slots.len() as u32),
            Self::Built(spec) if spec.members.is_empty() => Some(0),
            Self::Built(spec) if spec.scheduler == Scheduler::Maglev => Some(spec.maglev_slots),
            Self::Built(_) => None,
        }
    }
}

/// Everything that the content of a ring depends on. Equal specs give equal rings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingSpec {
    /// Which algorithm fills it.
    pub scheduler: Scheduler,
    /// Slots of a Maglev ring, a prime; round robin takes what its weights need.
    pub maglev_slots: u32,
    /// The backends, by identity.
    pub members: Vec<Member>,
}

impl RingSpec {
    /// Fills the ring. Without members it has no slots.
    pub fn build(&self) -> Vec<u32> {
        if self.members.is_empty() {
            return Vec::new();
        }
        match self.scheduler {
            Scheduler::Maglev => self.build_maglev(),
            Scheduler::RoundRobin => self.build_round_robin(),
        }
    }

    fn build_maglev(&self) -> Vec<u32> {
        let mut slots = vec![0; self.maglev_slots as usize];
        let mut scratch = vec![Cursor::default(); self.members.len()];
        maglev::fill(&mut slots, &self.members, &mut scratch);
        slots
    }

    fn build_round_robin(&self) -> Vec<u32> {
        let mut slots = vec![0; RING_SLOTS_MAX as usize];
        let mut scratch = vec![Turn::default(); self.members.len()];
        let slot_count = round_robin::schedule(&mut slots, &self.members, &mut scratch);
        slots.truncate(slot_count);
        slots
    }
}

/// Blocks of ring storage that a ring of `slot_count` slots takes.
pub const fn blocks_for(slot_count: u32) -> u32 {
    slot_count.div_ceil(RING_BLOCK_SLOTS as u32)
}

/// How many slots each backend id holds.
pub fn shares(slots: &[u32]) -> BTreeMap<u16, u32> {
    // Rings are long and changed often; ids are small.
    let mut counts: Vec<u32> = Vec::new();
    for slot in slots {
        let id = usize::from(Slot(*slot).current());
        if id >= counts.len() {
            counts.resize(id + 1, 0);
        }
        counts[id] += 1;
    }
    let counted = (0..).zip(counts);
    counted.filter(|(_, count)| *count > 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::limits::RING_SLOTS_DEFAULT;

    fn spec(scheduler: Scheduler, weights: &[u32]) -> RingSpec {
        RingSpec {
            scheduler,
            maglev_slots: RING_SLOTS_DEFAULT,
            members: (1..)
                .zip(weights)
                .map(|(id, weight)| Member {
                    id,
                    identity: lb_common::hash::mix(u64::from(id)),
                    weight: *weight,
                })
                .collect(),
        }
    }

    #[test]
    fn a_maglev_ring_has_all_its_slots_filled() {
        let ring = spec(Scheduler::Maglev, &[1, 3]).build();
        assert_eq!(ring.len(), RING_SLOTS_DEFAULT as usize);
        let shares = shares(&ring);
        assert_eq!(shares.keys().copied().collect::<Vec<_>>(), [1, 2]);
        assert!(shares[&2].abs_diff(3 * shares[&1]) < 200, "{shares:?}");
    }

    #[test]
    fn a_round_robin_ring_is_as_short_as_its_weights_allow() {
        let ring = spec(Scheduler::RoundRobin, &[100, 200]).build();
        assert_eq!(shares(&ring), BTreeMap::from([(1, 1), (2, 2)]));
    }

    #[test]
    fn without_members_there_is_no_ring() {
        for scheduler in [Scheduler::Maglev, Scheduler::RoundRobin] {
            assert!(spec(scheduler, &[]).build().is_empty());
        }
    }

    #[test]
    fn blocks_are_rounded_up() {
        let block = RING_BLOCK_SLOTS as u32;
        let expected = [
            (0, 0),
            (1, 1),
            (block, 1),
            (block + 1, 2),
            (RING_SLOTS_MAX, 4),
        ];
        for (slot_count, blocks) in expected {
            assert_eq!(blocks_for(slot_count), blocks);
        }
    }
}

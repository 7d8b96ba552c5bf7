//! Which blocks of ring storage are free.

use std::collections::BTreeSet;
use std::ops::Range;

use lb_common::abi::Service;

use crate::desired::ring::blocks_for;

/// The blocks that a service's ring takes.
pub(super) fn blocks_of(service: &Service) -> Range<u32> {
    service.ring_block..service.ring_block + blocks_for(service.ring_len)
}

/// The storage's book-keeping within one plan.
#[derive(Clone, Debug)]
pub(super) struct Blocks {
    block_count: u32,
    used: BTreeSet<u32>,
    /// Out of use, but packets under way may still read them.
    draining: BTreeSet<u32>,
}

impl Blocks {
    /// Storage of `block_count` blocks of which `used` are in use.
    pub(super) fn new(block_count: u32, used: impl Iterator<Item = Range<u32>>) -> Self {
        Self {
            block_count,
            used: used.flatten().collect(),
            draining: BTreeSet::new(),
        }
    }

    /// Takes the first gap of `count` adjacent blocks.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        let mut start = 0;
        for block in self.used.union(&self.draining) {
            if block - start >= count {
                break;
            }
            start = block + 1;
        }
        if start + count > self.block_count {
            return None;
        }
        self.used.extend(start..start + count);
        Some(start)
    }

    /// Takes blocks out of use; [`Blocks::drained`] makes them free.
    pub(super) fn give_back(&mut self, blocks: Range<u32>) {
        for block in blocks {
            self.used.remove(&block);
            self.draining.insert(block);
        }
    }

    /// No packet reads any more what was given back. Returns whether that freed anything.
    pub(super) fn drained(&mut self) -> bool {
        let freed_any = !self.draining.is_empty();
        self.draining.clear();
        freed_any
    }

    /// Blocks in use.
    pub(super) fn used_count(&self) -> u32 {
        self.used.len() as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_gap_that_is_long_enough_is_taken() {
        let mut blocks = Blocks::new(10, [1..2, 4..6].into_iter());
        assert_eq!(blocks.take(2), Some(2));
        assert_eq!(blocks.take(1), Some(0));
        assert_eq!(blocks.take(4), Some(6));
        assert_eq!(blocks.take(1), None);
        assert_eq!(blocks.used_count(), 10);
    }

    #[test]
    fn blocks_given_back_are_free_only_when_drained() {
        let mut blocks = Blocks::new(2, [0..1, 1..2].into_iter());
        blocks.give_back(0..1);
        assert_eq!(blocks.take(1), None);
        assert!(blocks.drained());
        assert_eq!(blocks.take(1), Some(0));
        assert!(!blocks.drained());
    }

    #[test]
    fn a_gap_at_the_end_must_fit_too() {
        let mut blocks = Blocks::new(3, std::iter::once(0..1));
        assert_eq!(blocks.take(3), None);
        assert_eq!(blocks.take(2), Some(1));
    }
}

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

    /// Takes `count` adjacent blocks: single ones from the beginning, more from the end, so that
    /// single ones do not break up what others need whole.
    pub(super) fn take(&mut self, count: u32) -> Option<u32> {
        let fits = |gap: &Range<u32>| gap.len() >= count as usize;
        let start = match count {
            1 => self.gaps().find(fits)?.start,
            _ => self.gaps().filter(fits).last()?.end - count,
        };
        self.used.extend(start..start + count);
        Some(start)
    }

    /// As [`Blocks::take`], if that leaves a gap of `reserve` blocks.
    pub(super) fn take_sparing(&mut self, count: u32, reserve: u32) -> Option<u32> {
        if reserve == 0 {
            return self.take(count);
        }
        let mut after = self.clone();
        let block = after.take(count)?;
        if after.largest_gap() < reserve {
            return None;
        }
        *self = after;
        Some(block)
    }

    /// The most adjacent blocks that are free.
    pub(super) fn largest_gap(&self) -> u32 {
        self.gaps()
            .map(|gap| gap.end - gap.start)
            .max()
            .unwrap_or(0)
    }

    /// Runs of free blocks, in order.
    fn gaps(&self) -> impl Iterator<Item = Range<u32>> {
        let mut start = 0;
        let taken = self.used.union(&self.draining).copied();
        let ends = taken.chain(std::iter::once(self.block_count));
        ends.map(move |end| {
            let gap = start..end;
            start = end + 1;
            gap
        })
        .filter(|gap| !gap.is_empty())
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
    fn single_blocks_come_from_the_beginning_and_others_from_the_end() {
        let mut blocks = Blocks::new(10, [1..2, 4..6].into_iter());
        assert_eq!(blocks.take(2), Some(8));
        assert_eq!(blocks.take(1), Some(0));
        assert_eq!(blocks.take(2), Some(6));
        assert_eq!(blocks.take(2), Some(2));
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
    fn what_larger_rings_need_is_spared() {
        let mut blocks = Blocks::new(6, std::iter::once(0..1));
        assert_eq!(blocks.largest_gap(), 5);
        assert_eq!(blocks.take_sparing(1, 4), Some(1));
        assert_eq!(blocks.take_sparing(1, 4), None);
        assert_eq!(blocks.largest_gap(), 4, "nothing was taken");
    }

    #[test]
    fn a_gap_at_the_end_must_fit_too() {
        let mut blocks = Blocks::new(3, std::iter::once(0..1));
        assert_eq!(blocks.take(3), None);
        assert_eq!(blocks.take(2), Some(1));
    }
}

//! The sets of the flow table that are to be looked at for a peer, and since when.

use std::collections::VecDeque;

/// A set that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The set.
    pub set: u32,
    /// Since its change, or before. Unit: microseconds.
    pub since_us: u64,
    /// What is told of it belongs to the round.
    pub is_owed: bool,
}

/// Sets that wait, the lost ones first. A set waits at most once as changed and once as lost, each with its own age.
#[derive(Debug)]
pub struct Queue {
    fresh: VecDeque<(u32, u64)>,
    lost: VecDeque<(u32, u64)>,
    is_fresh: Bits,
    is_lost: Bits,
    is_owed: Bits,
    owed_count: u32,
}

#[derive(Debug)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(count: u32) -> Self {
        Self(vec![0; count.div_ceil(u64::BITS) as usize])
    }

    fn place(bit: u32) -> (usize, u64) {
        ((bit / u64::BITS) as usize, 1 << (bit % u64::BITS))
    }

    /// Sets a bit; whether it was clear.
    fn set(&mut self, bit: u32) -> bool {
        let (word, bit) = Self::place(bit);
        let was_clear = self.0[word] & bit == 0;
        self.0[word] |= bit;
        was_clear
    }

    /// Clears a bit; whether it was set.
    fn clear(&mut self, bit: u32) -> bool {
        let (word, bit) = Self::place(bit);
        let was_set = self.0[word] & bit != 0;
        self.0[word] &= !bit;
        was_set
    }
}

impl Queue {
    /// Of a table with so many sets.
    pub fn new(set_count: u32) -> Self {
        Self {
            fresh: VecDeque::new(),
            lost: VecDeque::new(),
            is_fresh: Bits::new(set_count),
            is_lost: Bits::new(set_count),
            is_owed: Bits::new(set_count),
            owed_count: 0,
        }
    }

    /// Sets that wait.
    pub fn len(&self) -> usize {
        self.fresh.len() + self.lost.len()
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether any that wait belong to the round.
    pub fn owes(&self) -> bool {
        self.owed_count > 0
    }

    /// Since when the oldest one waits. Unit: microseconds.
    pub fn oldest_us(&self) -> Option<u64> {
        let lost = self.lost.iter().map(|(_, since_us)| *since_us).min();
        let fresh = self.fresh.front().map(|(_, since_us)| *since_us);
        [lost, fresh].into_iter().flatten().min()
    }

    /// A set has changed since then.
    pub fn mark(&mut self, set: u32, since_us: u64) {
        if self.is_fresh.set(set) {
            self.fresh.push_back((set, since_us));
        }
    }

    /// What was told of a set was lost.
    pub fn mark_lost(&mut self, waiting: Waiting) {
        if waiting.is_owed && self.is_owed.set(waiting.set) {
            self.owed_count += 1;
        }
        if self.is_lost.set(waiting.set) {
            self.lost.push_back((waiting.set, waiting.since_us));
        }
    }

    /// The next one.
    pub fn take(&mut self) -> Option<Waiting> {
        let (set, since_us) = if let Some(lost) = self.lost.pop_front() {
            self.is_lost.clear(lost.0);
            lost
        } else {
            let fresh = self.fresh.pop_front()?;
            self.is_fresh.clear(fresh.0);
            fresh
        };
        let is_owed = self.is_owed.clear(set);
        self.owed_count -= u32::from(is_owed);
        Some(Waiting {
            set,
            since_us,
            is_owed,
        })
    }

    /// A round begins anew: nothing is owed yet.
    pub fn forgive(&mut self) {
        self.is_owed.0.fill(0);
        self.owed_count = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_waits_once_and_lost_ones_come_first() {
        let mut queue = Queue::new(100);
        queue.mark(99, 10);
        queue.mark(5, 20);
        queue.mark(99, 30);
        let lost = Waiting {
            set: 7,
            since_us: 3,
            is_owed: true,
        };
        queue.mark_lost(lost);
        assert_eq!((queue.len(), queue.oldest_us()), (3, Some(3)));
        let order: Vec<_> = std::iter::from_fn(|| queue.take()).collect();
        assert_eq!(
            order.iter().map(|waiting| waiting.set).collect::<Vec<_>>(),
            [7, 99, 5]
        );
        assert_eq!((order[0], order[1].since_us), (lost, 10));
        assert!(queue.is_empty() && queue.oldest_us().is_none());
    }

    #[test]
    fn a_set_that_has_changed_and_was_lost_is_owed_once_and_keeps_both_ages() {
        let mut queue = Queue::new(100);
        queue.mark(5, 20);
        for _ in 0..2 {
            queue.mark_lost(Waiting {
                set: 5,
                since_us: 3,
                is_owed: true,
            });
        }
        assert!(queue.owes());
        let first = queue.take().expect("lost");
        assert_eq!((first.is_owed, first.since_us), (true, 3));
        let second = queue.take().expect("changed");
        assert_eq!((second.is_owed, second.since_us), (false, 20));
        assert!(!queue.owes() && queue.is_empty());
    }
}

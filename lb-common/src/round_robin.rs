//! The round-robin schedule: a ring in which every backend stands as often as its weight says,
//! spread as evenly as can be. A counter walks it, one step for each new flow.
//!
//! Stride scheduling: the k-th turn of a backend of weight w is due at (k + ½) / w of the cycle;
//! the schedule is all turns in the order of their due times.

use crate::abi::Slot;
use crate::maglev::Member;

/// A member's next turn; scratch space of [`schedule`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    identity: u64,
    weight: u32,
    /// Due time in units of 1 / (2 · weight) of the cycle: 1, 3, 5, ….
    halves: u32,
    id: u16,
}

impl Turn {
    /// Whether this turn comes before the other. Ties go to the lower identity.
    fn is_before(&self, other: &Self) -> bool {
        let due = u64::from(self.halves) * u64::from(other.weight);
        let other_due = u64::from(other.halves) * u64::from(self.weight);
        (due, self.identity) < (other_due, other.identity)
    }
}

/// Writes the schedule of `members` into `ring` and returns its length: the sum of the weights
/// divided by their greatest common divisor, or, where that is more than the ring holds, of
/// weights scaled down to fit (each at least 1). Equal weights give one turn each: any number of
/// flows in sequence then differs by at most one between backends. Without members, 0.
///
/// # Panics
/// If `scratch` is shorter than `members`, or there are more members than slots.
pub fn schedule(ring: &mut [u32], members: &[Member], scratch: &mut [Turn]) -> usize {
    assert!(members.len() <= ring.len());
    if members.is_empty() {
        return 0;
    }
    let heap = &mut scratch[..members.len()];
    let scale = Scale::of(members, ring.len());
    for (turn, member) in heap.iter_mut().zip(members) {
        *turn = Turn {
            identity: member.identity,
            weight: scale.apply(member.weight),
            halves: 1,
            id: member.id,
        };
    }
    let slot_count = heap.iter().map(|turn| turn.weight as usize).sum();
    for root in (0..heap.len() / 2).rev() {
        sift_down(heap, root);
    }
    for slot in &mut ring[..slot_count] {
        *slot = Slot::settled(heap[0].id).0;
        heap[0].halves += 2;
        sift_down(heap, 0);
    }
    slot_count
}

/// How weights become numbers of turns.
struct Scale {
    divisor: u64,
    /// (numerator, denominator) where the ring is too small for the exact proportion.
    shrink: Option<(u64, u64)>,
}

impl Scale {
    fn of(members: &[Member], capacity: usize) -> Self {
        let divisor = members.iter().fold(0, |divisor, member| {
            gcd(divisor, u64::from(member.weight.max(1)))
        });
        let total: u64 = members
            .iter()
            .map(|member| u64::from(member.weight.max(1)) / divisor)
            .sum();
        let shrink = (total > capacity as u64).then(|| ((capacity - members.len()) as u64, total));
        Self { divisor, shrink }
    }

    fn apply(&self, weight: u32) -> u32 {
        let turns = u64::from(weight.max(1)) / self.divisor;
        let turns = self.shrink.map_or(turns, |(numerator, denominator)| {
            turns * numerator / denominator
        });
        turns.max(1) as u32
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if a == 0 { b } else { gcd(b % a, a) }
}

/// Restores the heap order (earliest turn first) below `root`.
fn sift_down(heap: &mut [Turn], mut root: usize) {
    loop {
        let mut earliest = root;
        for child in [2 * root + 1, 2 * root + 2] {
            if child < heap.len() && heap[child].is_before(&heap[earliest]) {
                earliest = child;
            }
        }
        if earliest == root {
            return;
        }
        heap.swap(root, earliest);
        root = earliest;
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;
    use std::{vec, *};

    use super::*;

    fn schedule_of(weights: &[u32], capacity: usize) -> Vec<u32> {
        let members: Vec<_> = weights
            .iter()
            .zip(1..)
            .map(|(&weight, id)| Member {
                id,
                identity: u64::from(id),
                weight,
            })
            .collect();
        let mut ring = vec![0; capacity];
        let slot_count = schedule(
            &mut ring,
            &members,
            &mut vec![Turn::default(); weights.len()],
        );
        ring.truncate(slot_count);
        ring
    }

    #[test]
    fn equal_weights_take_turns() {
        assert_eq!(schedule_of(&[100, 100, 100], 16), [1, 2, 3]);
        assert_eq!(schedule_of(&[7], 16), [1]);
        assert_eq!(schedule_of(&[], 16), []);
    }

    #[test]
    fn heavy_backends_are_spread_over_the_cycle() {
        assert_eq!(schedule_of(&[300, 100], 16), [1, 1, 2, 1]);
        assert_eq!(schedule_of(&[20, 10, 10], 16), [1, 2, 3, 1]);
    }

    #[test]
    fn every_backend_has_its_turns_and_a_bounded_wait() {
        let weights = [5, 3, 2, 9, 1];
        let ring = schedule_of(&weights, 64);
        assert_eq!(ring.len(), 20);
        for (&weight, id) in weights.iter().zip(1_u32..) {
            let turns: Vec<usize> = (0..ring.len()).filter(|&slot| ring[slot] == id).collect();
            assert_eq!(turns.len(), weight as usize);
            let widest = turns
                .windows(2)
                .map(|pair| pair[1] - pair[0])
                .max()
                .unwrap_or(0);
            assert!(
                widest <= 2 * ring.len() / weight as usize,
                "backend {id}: {widest}"
            );
        }
    }

    #[test]
    fn a_small_ring_scales_the_weights_down_and_forgets_nobody() {
        let weights = [1000, 999, 997, 1];
        let ring = schedule_of(&weights, 100);
        assert!(ring.len() <= 100);
        let count = |id| ring.iter().filter(|&&slot| slot == id).count();
        assert_eq!(count(4), 1);
        for id in 1..=3 {
            assert!((30..=34).contains(&count(id)), "{id}: {}", count(id));
        }
    }
}

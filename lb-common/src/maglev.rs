//! The Maglev fill (Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
//! Balancer", NSDI 2016, section 3.4) with weights.
//!
//! Each member walks its own permutation of the slots, given by an offset and a skip taken from
//! its identity, and takes the next free slot at each of its turns. A member of weight w has w
//! turns in T rounds, T being the smallest power of two that is no less than any weight; turns of
//! other members do not depend on it, so that its coming and going disturbs the others little. The
//! first turn is in the first round: nobody goes without, as long as there are slots for all.

use crate::abi::Slot;
use crate::hash::mix;

/// A backend as a ring sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Backend id, not 0.
    pub id: u16,
    /// What the backend is, whatever its id and its place in the list: [`crate::hash::identity`]
    /// of its address and port. Must differ between members.
    pub identity: u64,
    /// Its share, at least 1.
    pub weight: u32,
}

/// Where a member stands in its permutation; scratch space of [`fill`].
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    identity: u64,
    slot: u32,
    skip: u32,
    weight: u32,
    credit: u32,
    id: u16,
}

impl Cursor {
    fn new(member: &Member, slot_count: u32, round_cost: u32) -> Self {
        Self {
            identity: member.identity,
            slot: (mix(member.identity) % u64::from(slot_count)) as u32,
            skip: (mix(!member.identity) % u64::from(slot_count - 1)) as u32 + 1,
            weight: member.weight,
            credit: round_cost.saturating_sub(member.weight),
            id: member.id,
        }
    }

    /// Takes the member's next free slot. Terminates while one slot is free, because the slot
    /// count is prime and the permutation therefore visits all of them.
    fn take_slot(&mut self, ring: &mut [u32]) {
        let slot_count = ring.len() as u32;
        loop {
            let slot = self.slot as usize;
            self.slot += self.skip;
            if self.slot >= slot_count {
                self.slot -= slot_count;
            }
            if ring[slot] == Slot::EMPTY.0 {
                ring[slot] = Slot::settled(self.id).0;
                return;
            }
        }
    }
}

/// Fills `ring` with settled slots of `members`, in the proportion of their weights. The result
/// depends on the set of members only, not on their order. Without members, all slots are empty.
///
/// # Panics
/// If `ring` has fewer than 2 slots, if `scratch` is shorter than `members`, or if there are more
/// members than slots. The ring's length must be prime: checked in debug builds.
pub fn fill(ring: &mut [u32], members: &[Member], scratch: &mut [Cursor]) {
    let slot_count = ring.len();
    assert!(slot_count >= 2 && members.len() <= slot_count);
    debug_assert!(
        is_prime(slot_count as u32),
        "{slot_count} slots: must be prime"
    );
    ring.fill(Slot::EMPTY.0);
    if members.is_empty() {
        return;
    }
    let heaviest = members
        .iter()
        .map(|member| member.weight)
        .max()
        .unwrap_or(1)
        .max(1);
    let round_cost = heaviest.next_power_of_two();
    let cursors = &mut scratch[..members.len()];
    for (cursor, member) in cursors.iter_mut().zip(members) {
        *cursor = Cursor::new(member, slot_count as u32, round_cost);
    }
    cursors.sort_unstable_by_key(|cursor| cursor.identity);

    let mut free_count = slot_count;
    loop {
        for cursor in cursors.iter_mut() {
            cursor.credit += cursor.weight.max(1);
            if cursor.credit < round_cost {
                continue;
            }
            cursor.credit -= round_cost;
            cursor.take_slot(ring);
            free_count -= 1;
            if free_count == 0 {
                return;
            }
        }
    }
}

/// Whether `n` is prime; by trial division, for ring sizes.
pub const fn is_prime(n: u32) -> bool {
    if n < 2 {
        return false;
    }
    let mut divisor = 2;
    while divisor <= n / divisor {
        if n.is_multiple_of(divisor) {
            return false;
        }
        divisor += 1;
    }
    true
}

const _: () = assert!(is_prime(crate::limits::RING_SLOTS_DEFAULT));
const _: () = assert!(is_prime(crate::limits::RING_SLOTS_LARGE));

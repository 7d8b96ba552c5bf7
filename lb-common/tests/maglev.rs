//! Properties of the Maglev fill that the product promises.

use lb_common::abi::Address;
use lb_common::hash::identity;
use lb_common::limits::{RING_SLOTS_DEFAULT, RING_SLOTS_LARGE};
use lb_common::maglev::{Cursor, Member, fill};
use proptest::prelude::*;

fn ring(slot_count: u32, members: &[Member]) -> Vec<u32> {
    let mut ring = vec![0; slot_count as usize];
    fill(
        &mut ring,
        members,
        &mut vec![Cursor::default(); members.len()],
    );
    ring
}

/// Members with the identities of neighbouring addresses, as real backends have them.
fn members(count: u16, base: u32, weight: impl Fn(u16) -> u32) -> Vec<Member> {
    (1..=count)
        .map(|id| {
            let address = Address::from_ipv4_be((base + u32::from(id)).to_be());
            Member {
                id,
                identity: identity(&address, 80),
                weight: weight(id),
            }
        })
        .collect()
}

fn share(ring: &[u32], id: u16) -> usize {
    ring.iter().filter(|&&slot| slot == u32::from(id)).count()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn balance_is_within_one_per_cent(count in 1_u16..=163, base in any::<u32>()) {
        let members = members(count, base, |_| 100);
        let ring = ring(RING_SLOTS_DEFAULT, &members);
        let fair = f64::from(RING_SLOTS_DEFAULT) / f64::from(count);
        for member in &members {
            let share = share(&ring, member.id) as f64;
            prop_assert!((share - fair).abs() <= (fair * 0.01).max(1.0), "{share} of {fair}");
        }
    }

    #[test]
    fn shares_follow_the_weights(base in any::<u32>(), weights in prop::collection::vec(1_u32..=1000, 2..20)) {
        let members = members(weights.len() as u16, base, |id| weights[usize::from(id) - 1]);
        let ring = ring(RING_SLOTS_DEFAULT, &members);
        let total: u32 = weights.iter().sum();
        for member in &members {
            let fair = f64::from(RING_SLOTS_DEFAULT) * f64::from(member.weight) / f64::from(total);
            let share = share(&ring, member.id) as f64;
            prop_assert!((share - fair).abs() <= (fair * 0.01).max(2.0), "{share} of {fair}");
        }
    }

    #[test]
    fn order_does_not_matter(base in any::<u32>(), count in 2_u16..50, seed in any::<u64>()) {
        let straight = members(count, base, |id| u32::from(id) * 7 % 100 + 1);
        let mut shuffled = straight.clone();
        shuffled.sort_by_key(|member| member.identity.wrapping_mul(seed | 1));
        prop_assert_eq!(ring(RING_SLOTS_DEFAULT, &straight), ring(RING_SLOTS_DEFAULT, &shuffled));
    }

    #[test]
    fn removal_moves_little_but_the_removed(
        count in 2_u16..=163,
        base in any::<u32>(),
        gone in any::<prop::sample::Index>(),
        large in any::<bool>(),
    ) {
        let slot_count = if large { RING_SLOTS_LARGE } else { RING_SLOTS_DEFAULT };
        let mut rest = members(count, base, |_| 100);
        let before = ring(slot_count, &rest);
        let gone = rest.remove(gone.index(rest.len()));
        let after = ring(slot_count, &rest);
        let moved = before
            .iter()
            .zip(&after)
            .filter(|&(old, new)| old != new && *old != u32::from(gone.id))
            .count();
        let moved = moved as f64 / f64::from(slot_count);
        prop_assert!(moved <= 0.02, "{:.2} % moved beside the removed backend's", moved * 100.0);
    }
}

#[test]
fn an_empty_ring_has_empty_slots() {
    assert!(ring(RING_SLOTS_DEFAULT, &[]).iter().all(|&slot| slot == 0));
}

#[test]
fn one_backend_has_every_slot() {
    assert_eq!(
        share(&ring(RING_SLOTS_DEFAULT, &members(1, 1, |_| 1)), 1),
        RING_SLOTS_DEFAULT as usize
    );
}

/// A weight of 1 among many of 1000 is less than a slot's worth, and still gets one.
#[test]
fn nobody_goes_without() {
    let members = members(163, 1, |id| if id == 77 { 1 } else { 1000 });
    assert_eq!(share(&ring(RING_SLOTS_DEFAULT, &members), 77), 1);
}

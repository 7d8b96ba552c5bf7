//! Datagrams between a sealer and an opener, in every order, and spoilt.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

fn ends() -> (Sealer, Opener) {
    let key = DatagramKey::random();
    (Sealer::new(&key), Opener::new(&key))
}

fn sealed(sealer: &mut Sealer, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Vec::new();
    sealer.seal(kind, payload, &mut datagram);
    datagram
}

#[test]
fn what_is_sealed_is_opened_once_and_the_longest_one_fits() {
    let (mut sealer, mut opener) = ends();
    for payload in [&[][..], b"flows", &[7; PAYLOAD_MAX_BYTES]] {
        let datagram = sealed(&mut sealer, 2000, payload);
        assert!(datagram.len() <= DATAGRAM_MAX_BYTES);
        assert_eq!(opener.open(&mut datagram.clone()), Ok((2000, payload)));
        assert_eq!(opener.open(&mut datagram.clone()), Err(Rejected::Replayed));
    }
    assert_eq!((opener.count(), opener.missing_count()), (3, 0));
}

#[test]
fn a_datagram_of_another_session_is_a_strangers() {
    let (mut sealer, _) = ends();
    let (_, mut opener) = ends();
    let mut datagram = sealed(&mut sealer, 2000, b"flows");
    assert_eq!(opener.open(&mut datagram), Err(Rejected::Stranger));
}

#[test]
fn a_datagram_that_is_cut_or_changed_anywhere_is_not_taken_and_harms_nothing() {
    let (mut sealer, mut opener) = ends();
    let datagram = sealed(&mut sealer, 2000, b"flows");
    for len in 0..datagram.len() {
        assert!(opener.open(&mut datagram[..len].to_vec()).is_err());
    }
    for bit in 0..datagram.len() * 8 {
        let mut changed = datagram.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert!(opener.open(&mut changed).is_err(), "bit {bit}");
    }
    assert!(opener.open(&mut datagram.clone()).is_ok());
}

#[test]
fn what_is_missing_is_counted_until_it_arrives() {
    let (mut sealer, mut opener) = ends();
    let mut first = sealed(&mut sealer, 2000, b"first");
    let mut second = sealed(&mut sealer, 2000, b"second");
    opener.open(&mut second).expect("the second");
    assert_eq!(opener.missing_count(), 1);
    opener.open(&mut first).expect("the first");
    assert_eq!(opener.missing_count(), 0);
}

#[test]
fn a_number_is_taken_while_it_is_within_the_window_and_never_later() {
    let mut window = Window::default();
    window.take(10 * REPLAY_WINDOW);
    assert!(window.is_new(9 * REPLAY_WINDOW));
    assert!(!window.is_new(9 * REPLAY_WINDOW - WORD_BITS));
    assert!(!window.is_new(0));
    assert!(!window.is_new(u64::MAX), "the next number would not exist");
}

proptest! {
    /// Against a window that remembers everything: no number is taken twice, and one within the window is
    /// refused only if it was taken.
    #[test]
    fn each_number_is_taken_once(
        steps in proptest::collection::vec((0..6_u32, 0..10_000_u64), 1..400),
    ) {
        let (mut window, mut taken, mut at) = (Window::default(), BTreeSet::new(), 0_u64);
        for (kind, step) in steps {
            let sequence = match kind {
                0 => at + step,
                1 | 2 => at + step % 70,
                _ => at.saturating_sub(step % 4500),
            };
            at = at.max(sequence);
            let is_new = window.is_new(sequence);
            prop_assert!(!(is_new && taken.contains(&sequence)));
            if sequence + REPLAY_WINDOW > at {
                prop_assert_eq!(is_new, !taken.contains(&sequence), "{} of {}", sequence, at);
            }
            if is_new {
                window.take(sequence);
                taken.insert(sequence);
            }
        }
    }
}

//! Rings on the wire.

use super::super::message::{MESSAGE_BYTES_MAX, Message};
use super::*;

const fn service() -> ServiceEndpoint {
    ServiceEndpoint {
        vip: std::net::IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 10)),
        port: 80,
        protocol: 6,
    }
}

fn term() -> Term {
    Term {
        number: 3,
        owner: "lb1".to_owned(),
    }
}

fn address(id: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, (id >> 8) as u8, id as u8], 80))
}

fn long_address(id: u16) -> SocketAddr {
    SocketAddr::from((
        [0x2001, 0xdb8, 0xffff, 0xffff, 0xffff, 0xffff, 0xffff, id],
        65_000,
    ))
}

/// Sends a ring through its encoding, message by message.
fn carry(parts: Vec<RingPart>, known: Option<&ReceivedRing>) -> ReceivedRing {
    let mut assembly = None;
    for part in parts {
        let bytes = Message::Ring(part).encode();
        assert!(bytes.len() <= MESSAGE_BYTES_MAX, "{} bytes", bytes.len());
        let Ok(Message::Ring(part)) = Message::decode(&bytes) else {
            panic!("another message")
        };
        let so_far = match assembly.take() {
            Some(so_far) => so_far,
            None => Assembly::begin(&part, known).unwrap(),
        };
        match so_far.take(part).unwrap() {
            Progress::Waiting(so_far) => assembly = Some(so_far),
            Progress::Done(ring) => return ring,
        }
    }
    panic!("parts are missing")
}

/// The ids of the receiving node: others.
fn ids(ring: &ReceivedRing) -> Vec<u16> {
    let ids = ring.backends.iter().map(|address| 100 + address.port());
    ids.zip(1..).map(|(_, id)| id + 1_000).collect()
}

#[test]
fn a_ring_and_its_changes_arrive_whole() {
    let mut shared = SharedRing::default();
    let mut slots = vec![Slot::settled(7); 100];
    slots[3] = Slot::in_transition(9, 7);
    slots[4] = Slot::in_transition(7, 7).quieted();
    slots[5] = Slot::EMPTY;
    shared.update(11, &slots, |id| Some(address(id)));
    let first = carry(shared.parts(service(), &term(), None), None);
    let here = first.slots(&ids(&first));
    assert_eq!(here[0], Slot::settled(1_001));
    assert_eq!(here[3], Slot::in_transition(1_002, 1_001));
    assert_eq!(here[4], Slot::in_transition(1_001, 1_001).quieted());
    assert_eq!(here[5], Slot::EMPTY);

    let sent = shared.sent();
    slots[50] = Slot::in_transition(8, 7);
    shared.update(12, &slots, |id| Some(address(id)));
    let parts = shared.parts(service(), &term(), Some(&sent));
    assert_eq!((parts.len(), parts[0].pieces.len()), (1, 1));
    assert_eq!(parts[0].backends, [address(8)]);
    let second = carry(parts, Some(&first));
    assert_eq!(second.revision, 12);
    assert_eq!(
        second.slots(&ids(&second))[50],
        Slot::in_transition(1_003, 1_001)
    );
    assert_eq!(second.slots(&ids(&second))[3], here[3]);
}

#[test]
fn the_largest_ring_fits_its_messages() {
    let mut shared = SharedRing::default();
    let id = |slot: u32| 1 + (slot % SERVICE_BACKENDS_MAX as u32) as u16;
    let slots: Vec<Slot> = (0..RING_SLOTS_MAX)
        .map(|slot| Slot::in_transition(id(slot), id(slot + 1)))
        .collect();
    shared.update(1, &slots, |id| Some(long_address(id)));
    let first = carry(shared.parts(service(), &term(), None), None);
    assert_eq!(first.backends.len(), SERVICE_BACKENDS_MAX);
    // A change of every second slot is the worst.
    let sent = shared.sent();
    let changed: Vec<Slot> = (0..)
        .zip(&slots)
        .map(|(at, slot)| if at % 2 == 0 { Slot::settled(1) } else { *slot })
        .collect();
    shared.update(2, &changed, |id| Some(long_address(id)));
    let second = carry(shared.parts(service(), &term(), Some(&sent)), Some(&first));
    assert_eq!(second.slots(&ids(&second))[0], Slot::settled(1_001));
    assert_eq!(second.slots(&ids(&second))[1], first.slots(&ids(&first))[1]);
}

#[test]
fn numbers_begin_anew_before_there_are_too_many() {
    let mut shared = SharedRing::default();
    let mut known: Option<(SentRing, ReceivedRing)> = None;
    for revision in 1..=12_u16 {
        let slots: Vec<Slot> = (0..600)
            .map(|slot| Slot::settled(1 + slot + revision * 600))
            .collect();
        shared.update(u64::from(revision), &slots, |id| Some(address(id)));
        let before = known.as_ref().map(|(sent, _)| sent);
        let parts = shared.parts(service(), &term(), before);
        let ring = carry(parts, known.as_ref().map(|(_, ring)| ring));
        let last = usize::from(ring.words[599] as u16) - 1;
        assert_eq!(ring.backends[last], address(600 + revision * 600));
        known = Some((shared.sent(), ring));
    }
}

#[test]
fn parts_that_do_not_fit_are_refused() {
    let mut shared = SharedRing::default();
    shared.update(1, &[Slot::settled(1); 10], |id| Some(address(id)));
    let part = shared.parts(service(), &term(), None).remove(0);
    let refused = |change: &dyn Fn(&mut RingPart)| {
        let mut part = part.clone();
        change(&mut part);
        match Assembly::begin(&part, None) {
            Err(misfit) => misfit,
            Ok(assembly) => assembly.take(part).unwrap_err(),
        }
    };
    assert_eq!(refused(&|part| part.part = 1), Misfit::Incomplete);
    assert_eq!(refused(&|part| part.base = Some(7)), Misfit::Incomplete);
    assert_eq!(
        refused(&|part| part.slot_count = u32::MAX),
        Misfit::Nonsense
    );
    assert_eq!(refused(&|part| part.part_count = 0), Misfit::Nonsense);
    assert_eq!(refused(&|part| part.pieces[0].first = 1), Misfit::Nonsense);
    assert_eq!(
        refused(&|part| part.pieces[0].first = u32::MAX),
        Misfit::Nonsense
    );
    assert_eq!(refused(&|part| part.pieces.clear()), Misfit::Nonsense);
    assert_eq!(refused(&|part| part.backends.clear()), Misfit::Nonsense);
    assert_eq!(
        refused(&|part| part.pieces[0].slots[0] = 2),
        Misfit::Nonsense
    );
    let many = vec![address(1); RING_BACKENDS_MAX + 1];
    assert_eq!(
        refused(&|part| part.backends.clone_from(&many)),
        Misfit::Nonsense
    );
}

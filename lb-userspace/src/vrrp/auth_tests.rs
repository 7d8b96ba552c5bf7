//! Authentication: what is believed, and what of forgeries, recordings and fragments is not.

use std::net::IpAddr;

use proptest::prelude::*;

use super::auth::{Flags, Guard, Key, Kind, Opened};
use super::packet::{Ipv4Checksum, Packet, PacketType, Path, Refusal, parse, seal};
use super::router::Session;

const KEY: Key = Key::new([7; 32]);

fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

fn path(from: u8) -> Path {
    Path {
        source: ip(from),
        destination: IpAddr::from([224, 0, 0, 18]),
    }
}

/// A node: its address ends in `last`.
struct Node {
    guard: Guard,
    last: u8,
}

fn node(last: u8, session: u64) -> Node {
    keyed(KEY, last, session)
}

fn keyed(key: Key, last: u8, session: u64) -> Node {
    let session = Session {
        id: session,
        seed: [session as u8; 32],
    };
    Node {
        guard: Guard::new(key, session),
        last,
    }
}

impl Node {
    fn make(&mut self, now_us: u64, kind: Kind) -> Vec<u8> {
        let packet_type = match kind {
            Kind::Advertisement => PacketType::Advertisement,
            _ => PacketType::Extension,
        };
        let packet = Packet {
            packet_type,
            vrid: 51,
            priority: 100,
            interval_cs: 100,
            addresses: Vec::new(),
        };
        let mut payload = packet.emit();
        let said = (kind, Flags::default(), 0);
        self.guard.close(now_us, ip(self.last), said, &mut payload);
        seal(path(self.last), Ipv4Checksum::PseudoHeader, &mut payload);
        payload
    }

    fn hello(&mut self) -> Vec<u8> {
        self.make(0, Kind::Hello)
    }

    fn advertisement(&mut self) -> Vec<u8> {
        self.make(0, Kind::Advertisement)
    }

    fn open(&mut self, from: u8, payload: &[u8]) -> Result<Opened, Refusal> {
        let parsed = parse(path(from), 255, payload)?;
        self.guard.open(0, ip(from), payload, &parsed)
    }

    /// Whether it is believed.
    fn believes(&mut self, from: u8, payload: &[u8]) -> bool {
        self.open(from, payload)
            .is_ok_and(|opened| opened.is_proven)
    }
}

/// Two that know each other.
fn acquainted() -> (Node, Node) {
    let (mut a, mut b) = (node(1, 11), node(2, 22));
    let from_a = a.hello();
    assert!(!b.believes(1, &from_a));
    let from_b = b.hello();
    assert!(a.believes(2, &from_b));
    let from_a = a.hello();
    assert!(b.believes(1, &from_a));
    (a, b)
}

#[test]
fn the_first_echo_proves_a_sender() {
    let (mut a, mut b) = acquainted();
    let payload = a.advertisement();
    assert!(b.believes(1, &payload));
    let payload = b.advertisement();
    assert!(a.believes(2, &payload));
    assert!(!a.guard.wants_echo(0) && !b.guard.wants_echo(0));
}

#[test]
fn a_hello_waits_for_an_answer_once() {
    let (mut a, mut b) = (node(1, 11), node(2, 22));
    let hello = a.hello();
    assert!(b.open(1, &hello).unwrap().wants_answer);
    let answer = b.hello();
    assert!(a.open(2, &answer).unwrap().wants_answer);
    let answer = a.hello();
    assert!(
        b.open(1, &answer).unwrap().wants_answer,
        "a new challenge was drawn"
    );
    let answer = b.hello();
    assert!(a.open(2, &answer).unwrap().wants_answer, "here, too");
    let answer = a.hello();
    assert!(!b.open(1, &answer).unwrap().wants_answer);
    let answer = b.hello();
    assert!(!a.open(2, &answer).unwrap().wants_answer);
}

#[test]
fn without_a_trailer_nothing_is_believed() {
    let mut a = node(1, 11);
    let packet = Packet {
        packet_type: PacketType::Advertisement,
        vrid: 51,
        priority: 255,
        interval_cs: 100,
        addresses: Vec::new(),
    };
    let mut payload = packet.emit();
    seal(path(2), Ipv4Checksum::PseudoHeader, &mut payload);
    assert_eq!(a.open(2, &payload), Err(Refusal::NoTrailer));
}

#[test]
fn another_secret_is_refused() {
    let mut a = node(1, 11);
    let mut stranger = keyed(Key::new([8; 32]), 2, 22);
    let payload = stranger.hello();
    assert_eq!(a.open(2, &payload), Err(Refusal::Code));
}

#[test]
fn each_altered_byte_is_noticed() {
    let (mut a, mut b) = acquainted();
    let good = a.advertisement();
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut forged = good.clone();
            forged[at] ^= 1 << bit;
            // Whoever forges can make a checksum.
            seal(path(1), Ipv4Checksum::PseudoHeader, &mut forged);
            let is_checksum = (6..8).contains(&at);
            assert!(
                is_checksum || b.open(1, &forged).is_err(),
                "byte {at} bit {bit}"
            );
        }
    }
    assert!(b.believes(1, &good));
}

#[test]
fn each_truncation_and_extension_is_noticed() {
    let (mut a, mut b) = acquainted();
    let good = a.advertisement();
    for length in 0..good.len() {
        let mut cut = good[..length].to_vec();
        seal(path(1), Ipv4Checksum::PseudoHeader, &mut cut);
        assert!(b.open(1, &cut).is_err(), "{length} bytes");
    }
    let mut long = [&good[..], &[0; 8]].concat();
    seal(path(1), Ipv4Checksum::PseudoHeader, &mut long);
    assert_eq!(b.open(1, &long), Err(Refusal::TrailerMalformed));
}

#[test]
fn another_source_is_refused() {
    let (mut a, mut b) = acquainted();
    let mut payload = a.advertisement();
    seal(path(3), Ipv4Checksum::PseudoHeader, &mut payload);
    assert_eq!(b.open(3, &payload), Err(Refusal::Code));
}

#[test]
fn replayed_and_reordered_packets_are_refused() {
    let (mut a, mut b) = acquainted();
    let (first, second) = (a.advertisement(), a.advertisement());
    assert!(b.believes(1, &second));
    for old in [&first, &second] {
        let refusal = b.open(1, old).unwrap_err();
        assert!(matches!(refusal, Refusal::Replayed { .. }), "{refusal}");
    }
}

#[test]
fn a_packet_sent_back_to_its_sender_is_refused() {
    let mut a = node(1, 11);
    let payload = a.hello();
    let refusal = a.open(1, &payload).unwrap_err();
    assert!(matches!(refusal, Refusal::Replayed { .. }), "{refusal}");
}

#[test]
fn recordings_prove_nothing_to_a_restarted_node() {
    let (mut a, mut b) = acquainted();
    let recorded: Vec<Vec<u8>> = (0..5).map(|_| a.advertisement()).collect();
    assert!(b.believes(1, &recorded[0]));
    let mut restarted = node(2, 23);
    for payload in &recorded {
        assert!(!restarted.believes(1, payload));
    }
}

#[test]
fn recordings_of_a_former_session_prove_nothing_once_there_is_a_new_one() {
    let (mut a, mut b) = acquainted();
    // The last ones of the old session were kept from `b`, and repeat its challenge of that time.
    let recorded = [a.advertisement(), a.advertisement()];
    let mut restarted = node(1, 12);
    let hello = restarted.hello();
    assert!(!b.believes(1, &hello));
    let hello = b.hello();
    restarted.open(2, &hello).unwrap();
    let hello = restarted.hello();
    assert!(b.believes(1, &hello));
    for payload in &recorded {
        assert!(!b.believes(1, payload));
    }
    let payload = restarted.advertisement();
    assert!(b.believes(1, &payload));
}

#[test]
fn many_sessions_take_no_memory_and_no_acquaintance_away() {
    let (mut a, mut b) = acquainted();
    for session in 100..1100 {
        let mut other = node(3, session);
        let hello = other.hello();
        assert!(!b.believes(3, &hello));
    }
    let payload = b.hello();
    assert!(payload.len() < 256, "{} bytes", payload.len());
    let payload = a.advertisement();
    assert!(b.believes(1, &payload));
}

#[test]
fn a_forgotten_sender_proves_itself_again() {
    let mut b = node(200, 1);
    let mut others: Vec<Node> = (1..=20)
        .map(|last| node(last, 100 + u64::from(last)))
        .collect();
    for other in &mut others {
        let hello = b.hello();
        other.open(200, &hello).unwrap();
        let hello = other.hello();
        assert!(b.believes(other.last, &hello));
    }
    let first = &mut others[0];
    let payload = first.advertisement();
    assert!(
        !b.believes(1, &payload),
        "it was forgotten, and its echo is old"
    );
    let hello = b.hello();
    first.open(200, &hello).unwrap();
    let payload = first.advertisement();
    assert!(b.believes(1, &payload));
}

#[test]
fn keys_are_64_hexadecimal_digits() {
    assert_eq!(Key::from_hex(&"07".repeat(32)), Some(KEY));
    assert_eq!(Key::from_hex(&"0G".repeat(32)), None);
    assert_eq!(Key::from_hex(&"07".repeat(31)), None);
    assert_eq!(Key::from_hex(&"07".repeat(33)), None);
    assert_eq!(Key::from_hex(&format!("{}0", "07".repeat(32))), None);
    assert_eq!(format!("{KEY:?}"), "Key(secret)");
}

proptest! {
    #[test]
    fn no_trailer_makes_it_panic_or_is_believed(rest: Vec<u8>, kind in 0_u8..6, echoes in 0_u8..20) {
        let mut a = node(1, 11);
        let mut payload = vec![0x31, 51, 255, 0, 0, 100, 0, 0];
        payload.extend(*b"LBVR");
        payload.extend([1, kind, 0, echoes]);
        payload.extend(rest);
        seal(path(2), Ipv4Checksum::PseudoHeader, &mut payload);
        prop_assert!(!a.believes(2, &payload));
    }
}

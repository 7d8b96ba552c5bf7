//! Packets byte by byte, and what is refused of them.

use std::net::{IpAddr, Ipv6Addr};

use proptest::prelude::*;

use super::packet::*;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn path(source: &str, destination: &str) -> Path {
    Path {
        source: ip(source),
        destination: ip(destination),
    }
}

fn ipv4_path() -> Path {
    path("10.0.0.3", "224.0.0.18")
}

fn ipv6_path() -> Path {
    path("fe80::3", "ff02::12")
}

/// An advertisement that keepalived was seen to send (its issue 1490).
fn keepalived() -> Packet {
    Packet {
        packet_type: PacketType::Advertisement,
        vrid: 2,
        priority: 150,
        interval_cs: 100,
        addresses: vec![ip("185.203.112.1"), ip("10.0.0.1"), ip("10.0.8.1")],
    }
}

fn sealed(packet: &Packet, path: Path, form: Ipv4Checksum) -> Vec<u8> {
    let mut payload = packet.emit();
    seal(path, form, &mut payload);
    payload
}

#[test]
fn an_ipv4_advertisement_byte_by_byte() {
    let expected = [
        0x31, 2, 150, 3, 0, 100, 0x08, 0x2d, 185, 203, 112, 1, 10, 0, 0, 1, 10, 0, 8, 1,
    ];
    let payload = sealed(&keepalived(), ipv4_path(), Ipv4Checksum::PseudoHeader);
    assert_eq!(payload, expected);
    let parsed = parse(ipv4_path(), 255, &payload).unwrap();
    assert_eq!(parsed.packet, keepalived());
    assert_eq!(parsed.checksum, Ipv4Checksum::PseudoHeader);
    assert!(parsed.trailer.is_empty());
}

#[test]
fn both_checksums_of_ipv4_are_taken() {
    let payload = sealed(&keepalived(), ipv4_path(), Ipv4Checksum::MessageAlone);
    // By hand: 3102 + 9603 + 0064 + b9cb + 7001 + 0a00 + 0001 + 0a00 + 0801 = 2_0d37.
    assert_eq!(payload[6..8], (!0x0d39_u16).to_be_bytes());
    let parsed = parse(ipv4_path(), 255, &payload).unwrap();
    assert_eq!(parsed.checksum, Ipv4Checksum::MessageAlone);
}

#[test]
fn an_ipv6_advertisement_byte_by_byte() {
    let packet = Packet {
        packet_type: PacketType::Advertisement,
        vrid: 51,
        priority: 200,
        interval_cs: 3,
        addresses: vec![ip("fe80::10")],
    };
    // By hand: 2 * fe80 + 3 + ff02 + 12 + length 18 + protocol 70 + 3133 + c801 + 0003 + fe80 + 0010.
    let words = [
        0xfe80_u32, 0x3, 0xff02, 0x12, 24, 112, 0x3133, 0xc801, 0x3, 0xfe80, 0x10,
    ];
    let sum: u32 = words.iter().sum();
    let sum = !(((sum >> 16) + (sum & 0xffff)) as u16);
    let payload = sealed(&packet, ipv6_path(), Ipv4Checksum::PseudoHeader);
    assert_eq!(payload[..6], [0x31, 51, 200, 1, 0, 3]);
    assert_eq!(payload[6..8], sum.to_be_bytes());
    let address: Ipv6Addr = "fe80::10".parse().unwrap();
    assert_eq!(payload[8..], address.octets());
    assert_eq!(parse(ipv6_path(), 255, &payload).unwrap().packet, packet);
}

#[test]
fn reserved_bits_are_ignored() {
    let mut payload = keepalived().emit();
    payload[4] |= 0xf0;
    seal(ipv4_path(), Ipv4Checksum::PseudoHeader, &mut payload);
    assert_eq!(
        parse(ipv4_path(), 255, &payload)
            .unwrap()
            .packet
            .interval_cs,
        100
    );
}

#[test]
fn what_section_7_1_refuses_is_refused() {
    let good = sealed(&keepalived(), ipv4_path(), Ipv4Checksum::PseudoHeader);
    let refusal = |payload: &[u8]| parse(ipv4_path(), 255, payload).unwrap_err();
    let with = |at: usize, byte: u8| {
        let mut payload = good.clone();
        payload[at] = byte;
        payload
    };
    let hop_limit = parse(ipv4_path(), 254, &good).unwrap_err();
    assert_eq!(hop_limit, Refusal::HopLimit(254));
    assert_eq!(refusal(&[]), Refusal::Short(0));
    assert_eq!(refusal(&good[..7]), Refusal::Short(7));
    assert_eq!(refusal(&with(0, 0x21)), Refusal::Version(2));
    assert_eq!(refusal(&with(0, 0x32)), Refusal::Type(2));
    let truncated = Refusal::Truncated {
        addresses: 3,
        needed: 20,
        has: 19,
    };
    assert_eq!(refusal(&good[..19]), truncated);
    assert_eq!(refusal(&with(2, 151)), Refusal::Checksum(0x082d));
    assert_eq!(refusal(&[&good[..], &[0]].concat()), Refusal::Trailing(1));
    let still = Packet {
        interval_cs: 100,
        ..keepalived()
    };
    let mut payload = still.emit();
    payload[4..6].fill(0);
    seal(ipv4_path(), Ipv4Checksum::PseudoHeader, &mut payload);
    assert_eq!(refusal(&payload), Refusal::Interval);
    let mixed = path("10.0.0.3", "ff02::12");
    assert_eq!(parse(mixed, 255, &good).unwrap_err(), Refusal::Family);
}

#[test]
fn a_checksum_over_ipv6_needs_its_pseudo_header() {
    let packet = Packet {
        addresses: vec![ip("2001:db8::1")],
        ..keepalived()
    };
    let mut payload = packet.emit();
    let alone = lb_common::checksum::of_bytes(&payload);
    payload[6..8].copy_from_slice(&alone.to_ne_bytes());
    let refusal = parse(ipv6_path(), 255, &payload).unwrap_err();
    assert!(matches!(refusal, Refusal::Checksum(_)), "{refusal}");
}

#[test]
fn more_addresses_than_can_be_counted_are_left_out() {
    let packet = Packet {
        addresses: vec![ip("10.0.0.1"); 300],
        ..keepalived()
    };
    let payload = packet.emit();
    assert_eq!(payload[3], 255);
    assert_eq!(payload.len(), 8 + 255 * 4);
}

fn any_packet() -> impl Strategy<Value = (Packet, Path)> {
    let ipv4 = prop::collection::vec(any::<[u8; 4]>().prop_map(IpAddr::from), 0..8);
    let ipv6 = prop::collection::vec(any::<[u8; 16]>().prop_map(IpAddr::from), 0..8);
    let addresses = prop_oneof![
        ipv4.prop_map(|list| (list, ipv4_path())),
        ipv6.prop_map(|list| (list, ipv6_path())),
    ];
    let types = prop_oneof![Just(PacketType::Advertisement), Just(PacketType::Extension)];
    (
        types,
        any::<u8>(),
        any::<u8>(),
        1..=INTERVAL_MAX_CS,
        addresses,
    )
        .prop_map(
            |(packet_type, vrid, priority, interval_cs, (addresses, path))| {
                let packet = Packet {
                    packet_type,
                    vrid,
                    priority,
                    interval_cs,
                    addresses,
                };
                (packet, path)
            },
        )
}

proptest! {
    #[test]
    fn what_was_made_is_understood((packet, path) in any_packet()) {
        let payload = sealed(&packet, path, Ipv4Checksum::PseudoHeader);
        prop_assert_eq!(parse(path, 255, &payload).map(|parsed| parsed.packet), Ok(packet));
    }

    #[test]
    fn one_flipped_bit_is_noticed((packet, path) in any_packet(), at: prop::sample::Index, bit in 0_u8..8) {
        let mut payload = sealed(&packet, path, Ipv4Checksum::PseudoHeader);
        let at = at.index(payload.len());
        payload[at] ^= 1 << bit;
        prop_assert!(parse(path, 255, &payload).is_err());
    }

    #[test]
    fn nothing_makes_it_panic(payload: Vec<u8>, hop_limit: u8, is_ipv6: bool) {
        let path = if is_ipv6 { ipv6_path() } else { ipv4_path() };
        let _ = parse(path, hop_limit, &payload);
        let _ = parse(path, 255, &payload);
    }

    #[test]
    fn nothing_that_looks_right_makes_it_panic(mut payload: Vec<u8>, is_ipv6: bool) {
        let path = if is_ipv6 { ipv6_path() } else { ipv4_path() };
        if let Some(first) = payload.first_mut() {
            *first = 0x31;
        }
        seal(path, Ipv4Checksum::PseudoHeader, &mut payload);
        let _ = parse(path, 255, &payload);
    }
}

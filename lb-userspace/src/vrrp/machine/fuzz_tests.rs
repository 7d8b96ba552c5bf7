//! Hostile messages, by the thousand: nothing is accepted, nothing moves, nothing grows.

use super::net::{Dice, Net, member};
use super::test_kit::{KEY, MS, SECOND, ip};
use crate::vrrp::packet::{Ipv4Checksum, Path, seal};
use crate::vrrp::protocol::State;
use crate::vrrp::router::{Input, MULTICAST_IPV4, Output, RouterConfig};

/// Messages to each of two routers.
const MESSAGES: u64 = 20_000;

fn pair() -> Net {
    let configs = [(0, 200), (1, 100)].map(|(number, priority)| RouterConfig {
        key: Some(KEY),
        ..member(number, priority)
    });
    let mut net = Net::new(3, configs.to_vec());
    net.run_for(5 * SECOND);
    net
}

/// A real packet, damaged, cut, prolonged, or told by somebody else; or nothing but noise.
fn hostile(dice: &mut Dice, real: &[u8]) -> (u8, Vec<u8>) {
    let mut payload = real.to_vec();
    let from = 1 + dice.below(3) as u8;
    let random_bytes = |dice: &mut Dice, limit: u64| -> Vec<u8> {
        let count = dice.below(limit);
        (0..count).map(|_| dice.below(256) as u8).collect()
    };
    match dice.below(5) {
        0 => payload.truncate(dice.below(payload.len() as u64) as usize),
        1 => payload.extend(random_bytes(dice, 2000)),
        2 => payload = random_bytes(dice, 300),
        _ => {}
    }
    for _ in 0..=dice.below(4) {
        if !payload.is_empty() {
            let at = dice.below(payload.len() as u64) as usize;
            payload[at] ^= 1 << dice.below(8);
        }
    }
    // The virtual router's number is right more often than not.
    if let Some(vrid) = payload.get_mut(1) {
        *vrid = if dice.below(8) > 0 { 51 } else { *vrid };
    }
    let path = Path {
        source: ip(from),
        destination: MULTICAST_IPV4.into(),
    };
    if dice.below(4) > 0 {
        seal(path, Ipv4Checksum::PseudoHeader, &mut payload);
    }
    (from, payload)
}

#[test]
fn no_hostile_message_is_accepted() {
    let net = pair();
    let tape = net.tape.clone();
    let mut dice = Dice::new(11);
    for node in [0, 1] {
        let mut router = net.nodes[node].router.clone();
        let before = router.status(net.now, 0).counters;
        let mut now = net.now;
        let mut out = Vec::new();
        let mut complaints = 0;
        for _ in 0..MESSAGES {
            let real = &tape[dice.below(tape.len() as u64) as usize].2;
            let (from, payload) = hostile(&mut dice, real);
            // Time stands nearly still: what happens is by the messages alone.
            now += u64::from(dice.below(100) == 0);
            let input = Input::Received {
                source: ip(from),
                destination: MULTICAST_IPV4.into(),
                hop_limit: 255 - u8::from(dice.below(16) == 0),
                payload: &payload,
            };
            router.handle(now, input, &mut out);
            let is_complaint = |output: &&Output| matches!(output, Output::Distrusted { .. });
            complaints += out.iter().filter(is_complaint).count();
            let is_harmless = |output: &Output| {
                matches!(output, Output::Refused { .. } | Output::Distrusted { .. })
            };
            assert!(out.iter().all(is_harmless), "{payload:02x?}: {out:?}");
            out.clear();
        }
        assert_eq!(complaints, 1, "once a minute");
        let after = router.status(now, 0);
        assert_eq!(after.counters.received, before.received);
        assert_eq!(after.state, net.nodes[node].router.state());
        let refused = after.counters.refused + after.counters.unauthentic;
        assert!(refused > MESSAGES / 2, "{refused}");
    }
}

/// Whoever knows no secret may say anything to a router that asks for none: it must not panic, stand still or grow.
#[test]
fn any_message_to_a_router_without_authentication_is_survived() {
    let mut net = Net::new(3, vec![member(0, 200), member(1, 100)]);
    net.run_for(5 * SECOND);
    let tape = net.tape.clone();
    let mut dice = Dice::new(12);
    for _ in 0..MESSAGES {
        let real = &tape[dice.below(tape.len() as u64) as usize].2;
        let (from, payload) = hostile(&mut dice, real);
        net.inject(ip(from), MULTICAST_IPV4.into(), &payload);
        net.run_for(MS / 10);
        for node in &mut net.nodes {
            node.said.clear();
        }
    }
    net.run_for(60 * SECOND);
    let states = [0, 1].map(|node| net.nodes[node].router.state());
    assert_eq!(states, [State::Active, State::Backup]);
}

#[test]
fn the_same_events_have_the_same_consequences() {
    let run = || {
        let mut net = pair();
        net.lost = 200;
        net.tell(0, Input::HandOver);
        net.run_for(5 * SECOND);
        let said: Vec<Vec<Output>> = net.nodes.into_iter().map(|node| node.said).collect();
        (net.tape, said)
    };
    assert_eq!(run(), run());
}

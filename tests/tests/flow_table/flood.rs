//! Floods of ten times the table: what they may take, and what not.

use std::collections::BTreeMap;

use lb_common::abi::FlowState;
use lb_common::limits::HALF_OPEN_PROTECTED_S;

use crate::stage::{CAPACITY, CURRENT, Entry, LEARNED, MOVING, OPEN, PREVIOUS, Stage};

/// Packets of a flood, each of a client of its own.
const FLOOD: std::ops::Range<u32> = 1_000_000..1_000_000 + 10 * CAPACITY;

/// Sends the flood, spread evenly over the seconds from `first_s` to `last_s`.
fn flood(stage: &Stage, first_s: u32, last_s: u32, send: impl Fn(&Stage, u32) -> u16) {
    let packets_per_s = FLOOD.len() as u32 / (last_s - first_s + 1);
    for (number, client) in (0..).zip(FLOOD) {
        let second = first_s + number / packets_per_s;
        send(stage.at(second.min(last_s)), client);
    }
}

fn is_half_open(entry: &Entry) -> bool {
    entry.1.is_half_open()
}

/// Those of the flows that have left probation.
fn beyond_probation(flows: BTreeMap<u64, Entry>) -> BTreeMap<u64, Entry> {
    let mut flows = flows;
    flows.retain(|_, entry| !is_half_open(entry));
    flows
}

#[test]
fn a_syn_flood_evicts_no_established_learned_or_closing_flow() {
    let stage = Stage::new(MOVING);
    for client in 0..400 {
        stage.open(client);
    }
    for client in 400..800 {
        stage.open(client);
        stage.fin(client);
    }
    for client in 800..1_200 {
        assert_eq!(stage.ack(client), PREVIOUS, "learned");
    }
    for client in 1_200..1_600 {
        assert_eq!(stage.ack(client), PREVIOUS);
        assert_eq!(stage.ack(client), PREVIOUS, "confirmed");
    }
    for client in 1_600..1_700 {
        stage.open(client);
        stage.rst(client);
    }
    let before = beyond_probation(stage.flows());
    let count = |entry: Entry| before.values().filter(|other| **other == entry).count();
    // A set may have met more than its share of flows.
    for entry in [
        (CURRENT, OPEN),
        (CURRENT, FlowState::FIN),
        (PREVIOUS, LEARNED),
        (PREVIOUS, OPEN),
    ] {
        assert!(count(entry) > 350, "{} of {entry:?}", count(entry));
    }
    // Not as long as a RST lingers.
    flood(&stage, 1, 9, Stage::syn);
    let after = stage.flows();
    for (flow, entry) in &before {
        assert_eq!(after.get(flow), Some(entry), "flow {flow:#x}");
    }
    let half_open = after.values().filter(|entry| is_half_open(entry)).count() as u32;
    assert!(half_open > CAPACITY / 4, "only {half_open} of the flood's");
    assert_eq!(before, beyond_probation(after));
    for client in 0..400 {
        assert_eq!(stage.ack(client), CURRENT, "client {client}");
    }
}

/// SYNs in the first second, then a flood. Returns how many of those that got in still are, and of how
/// many.
fn half_open_flows_after_a_flood(age_s: u32) -> (usize, usize) {
    let stage = Stage::new(MOVING);
    stage.at(0);
    for client in 0..500 {
        stage.syn(client);
    }
    let before = stage.flows();
    stage.at(age_s);
    for client in FLOOD {
        stage.syn(client);
    }
    let after = stage.flows();
    let left = before.keys().filter(|flow| after.contains_key(flow));
    (left.count(), before.len())
}

#[test]
fn a_young_half_open_flow_survives_a_flood_and_an_old_one_does_not() {
    let (left, all) = half_open_flows_after_a_flood(HALF_OPEN_PROTECTED_S - 1);
    assert!(all > 490, "{all} of 500 were recorded");
    assert_eq!(left, all);
    assert_eq!(
        half_open_flows_after_a_flood(HALF_OPEN_PROTECTED_S),
        (0, all)
    );
}

/// The client whose SYN was recorded gets its connection, whatever else arrives before its answer.
#[test]
fn a_handshake_completes_during_a_flood() {
    let stage = Stage::new(MOVING);
    let mut recorded = 0;
    for (number, client) in (0_u32..).zip(FLOOD) {
        stage.at(number / CAPACITY);
        stage.syn(client);
        let (answers, begins) = (number % 100 == 99, number % 100 == 0);
        if begins {
            recorded += u32::from(stage.syn(number) == CURRENT);
        } else if answers {
            let client = number - 99;
            let backend = stage.entry(client).map(|(backend, _)| backend);
            let expected = if backend.is_some() { CURRENT } else { PREVIOUS };
            assert_eq!(stage.ack(client), expected, "client {client}");
            assert_eq!(stage.ack(client), expected, "client {client}");
        }
    }
    assert!(recorded > 40, "{recorded} SYNs were recorded");
}

#[test]
fn one_datagram_each_is_probation_and_two_are_a_flow() {
    let stage = Stage::new(MOVING);
    for client in 0..600 {
        stage.datagram(client);
    }
    assert!(stage.flows().values().all(is_half_open));
    for client in 0..600 {
        stage.datagram(client);
    }
    let before = beyond_probation(stage.flows());
    assert!(before.len() > 590, "{} of 600 are on record", before.len());
    assert!(before.values().all(|(_, state)| *state == OPEN));
    flood(&stage, 1, 30, Stage::datagram);
    assert_eq!(beyond_probation(stage.flows()), before);
}

//! Two nodes, their tables and a network between them that delays, reorders, repeats and loses.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lb_common::abi::{FlowRecord, FlowState};
use lb_common::hash;
use proptest::prelude::*;

use super::dictionary::{BackendEndpoint, Dictionary, ServiceEndpoint};
use super::memory::{MemoryTable, REFRESH_S};
use super::replicator::{FlowsStatus, Outlet, Replicator};
use super::table::{Now, Table};
use crate::sync::flow::REFRESH_WALK_S;
use crate::sync::kind;

const SET_COUNT: u32 = 2048;
const SESSION: u64 = 1;
const LATENCY_US: u64 = 500;

const fn service() -> ServiceEndpoint {
    ServiceEndpoint {
        vip: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)),
        port: 80,
        protocol: 6,
    }
}

/// A dictionary with ten backends, under ids that begin here.
fn dictionary(service_id: u16, first_id: u16, backend_count: u16) -> Dictionary {
    let service = service();
    let backend = |number| {
        let endpoint = BackendEndpoint {
            service_id,
            generation: 1,
            address: SocketAddr::from(([10, 0, 0, 1], 8000 + number)),
        };
        (first_id + number, endpoint)
    };
    Dictionary {
        services: BTreeMap::from([(service_id, service)]),
        backends: (0..backend_count).map(backend).collect(),
    }
}

/// One way of the network.
#[derive(Default)]
struct Way {
    /// By time of arrival and number.
    datagrams: BTreeMap<(u64, u64), (u16, Vec<u8>)>,
    frames: BTreeMap<(u64, u64), (u16, Vec<u8>)>,
    number: u64,
    now_us: u64,
    loss_percent: u64,
    random: u64,
    datagram_count: u64,
}

impl Way {
    fn random(&mut self) -> u64 {
        self.random = hash::mix(self.random.wrapping_add(1));
        self.random
    }
}

impl Outlet for Way {
    fn datagram(&mut self, _session: u64, kind: u16, payload: &[u8]) {
        self.datagram_count += 1;
        // One in twenty comes twice.
        let copies = 1 + u64::from(self.random().is_multiple_of(20));
        for _ in 0..copies {
            if self.random() % 100 < self.loss_percent {
                continue;
            }
            let jitter_us = self.random() % LATENCY_US;
            self.number += 1;
            let at = (self.now_us + LATENCY_US + jitter_us, self.number);
            self.datagrams.insert(at, (kind, payload.to_vec()));
        }
    }

    fn frame(&mut self, _session: u64, kind: u16, payload: Vec<u8>) {
        self.number += 1;
        let at = (self.now_us + 4 * LATENCY_US, self.number);
        self.frames.insert(at, (kind, payload));
    }
}

struct Pair {
    now_us: u64,
    /// Between two ticks.
    tick_us: u64,
    nodes: [Replicator<MemoryTable>; 2],
    ways: [Way; 2],
}

impl Pair {
    fn new(seed: u64, loss_percent: u64) -> Self {
        Self::with_sets(SET_COUNT, seed, loss_percent)
    }

    fn with_sets(set_count: u32, seed: u64, loss_percent: u64) -> Self {
        let mut pair = Self {
            now_us: 1_000_000_000,
            tick_us: 250,
            nodes: [Replicator::new(), Replicator::new()],
            ways: [Way::default(), Way::default()],
        };
        // The same backends under other ids.
        let dictionaries = [dictionary(3, 1, 10), dictionary(9, 101, 10)];
        for (node, words) in pair.nodes.iter_mut().zip(dictionaries) {
            node.attach(MemoryTable::new(set_count, words), Now { us: pair.now_us });
        }
        for (number, way) in pair.ways.iter_mut().enumerate() {
            way.random = seed.wrapping_mul(2) + number as u64;
            way.loss_percent = loss_percent;
        }
        pair.connect();
        pair
    }

    fn now(&self) -> Now {
        Now { us: self.now_us }
    }

    fn connect(&mut self) {
        let now = self.now();
        for (node, way) in self.nodes.iter_mut().zip(&mut self.ways) {
            way.now_us = now.us;
            node.session_up(SESSION, now, way);
        }
    }

    /// The session ends, and what is under way is dropped.
    fn disconnect(&mut self) {
        for (node, way) in self.nodes.iter_mut().zip(&mut self.ways) {
            node.session_down(SESSION);
            way.datagrams.clear();
            way.frames.clear();
        }
    }

    fn write(&mut self, node: usize, flow: u64, backend: u16, life_s: u32) {
        let expires_s = self.now().s() + life_s;
        let ids = [(3, 1), (9, 101)][node];
        let record = FlowRecord::new(ids.1 + backend, 1, expires_s, FlowState::OPEN);
        let table = self.nodes[node].table_mut().expect("attached");
        assert!(table.write(fingerprint(flow), ids.0, record), "room");
    }

    /// The number of the backend that a node has on record for a flow.
    fn backend(&self, node: usize, flow: u64) -> Option<u16> {
        let record = self.nodes[node]
            .table()
            .expect("attached")
            .find(fingerprint(flow))?;
        Some(record.backend_id() - [1, 101][node])
    }

    /// Has these flows live on without a mark: as where packets only keep them alive.
    fn prolong(&mut self, node: usize, flows: impl Iterator<Item = u64>, lifetime_s: u32) {
        let expires_s = self.now().s() + lifetime_s;
        let table = self.nodes[node].table_mut().expect("attached");
        for flow in flows {
            let record = table.find(fingerprint(flow)).expect("it is on record");
            let longer = record.updated(expires_s, record.state());
            assert!(table.write(fingerprint(flow), [3, 9][node], longer));
        }
        table.take_changed(&mut Vec::new(), usize::MAX);
    }

    fn step(&mut self) {
        self.now_us += self.tick_us;
        let now = self.now();
        for to in 0..2 {
            let way = &mut self.ways[1 - to];
            let later = (now.us + 1, 0);
            let frames = way.frames.split_off(&later);
            for (kind, payload) in std::mem::replace(&mut way.frames, frames).into_values() {
                self.nodes[to]
                    .take_frame(SESSION, kind, &payload)
                    .expect("well formed");
            }
            let datagrams = way.datagrams.split_off(&later);
            for (kind, payload) in std::mem::replace(&mut way.datagrams, datagrams).into_values() {
                self.nodes[to]
                    .take_datagram(SESSION, kind, &payload, now)
                    .expect("well formed");
            }
            self.ways[to].now_us = now.us;
            self.nodes[to].tick(now, &mut self.ways[to]);
        }
    }

    fn run_ms(&mut self, span_ms: u64) {
        let end_us = self.now_us + span_ms * 1000;
        while self.now_us < end_us {
            self.step();
        }
    }

    fn status(&self, node: usize) -> FlowsStatus {
        self.nodes[node]
            .status(SESSION, self.now())
            .expect("a session")
    }

    /// Runs until this holds; how long it took. Unit: milliseconds.
    fn until(&mut self, within_ms: u64, is_so: impl Fn(&Self) -> bool) -> u64 {
        let began_us = self.now_us;
        while !is_so(self) {
            let passed_ms = (self.now_us - began_us) / 1000;
            assert!(
                passed_ms < within_ms,
                "{:#?}",
                [self.status(0), self.status(1)]
            );
            self.step();
        }
        (self.now_us - began_us) / 1000
    }

    fn is_quiet(&self) -> bool {
        (0..2).all(|node| {
            let status = self.status(node);
            status.is_caught_up && status.has_told_all && status.lag_ms == 0
        })
    }
}

fn fingerprint(flow: u64) -> u64 {
    hash::mix(flow + 2)
}

#[test]
fn a_change_is_with_the_peer_within_five_milliseconds() {
    let mut pair = Pair::new(1, 0);
    pair.until(1000, Pair::is_quiet);
    for flow in 0..100 {
        pair.write(0, flow, (flow % 10) as u16, 900);
        let passed_ms = pair.until(6, |pair| pair.backend(1, flow) == Some((flow % 10) as u16));
        assert!(passed_ms <= 5, "{passed_ms} ms");
    }
    let passed_ms = pair.until(10, Pair::is_quiet);
    assert!(passed_ms <= 8, "{passed_ms} ms until all is acknowledged");
    assert_eq!(pair.status(1).received.agreed, 100);
    assert_eq!(pair.status(0).sent.flows, 100, "each was told once");
}

#[test]
fn what_was_merged_is_not_told_back() {
    let mut pair = Pair::new(2, 0);
    (0..500).for_each(|flow| pair.write(0, flow, 1, 900));
    pair.until(1000, Pair::is_quiet);
    // Two refreshes.
    pair.run_ms(10_000);
    assert_eq!(pair.status(1).sent.flows, 0);
    assert_eq!(pair.status(0).sent.flows, 500);
}

#[test]
fn a_session_begins_with_everything_both_ways() {
    let mut pair = Pair::new(3, 0);
    pair.until(1000, Pair::is_quiet);
    pair.disconnect();
    (0..800).for_each(|flow| pair.write(0, flow, 1, 900));
    (800..1600).for_each(|flow| pair.write(1, flow, 2, 900));
    pair.run_ms(100);
    pair.connect();
    assert!(!pair.status(0).is_caught_up && !pair.status(1).is_caught_up);
    pair.until(1000, Pair::is_quiet);
    for flow in 0..1600 {
        let expected = Some(if flow < 800 { 1 } else { 2 });
        assert_eq!(
            [pair.backend(0, flow), pair.backend(1, flow)],
            [expected; 2]
        );
    }
}

/// Caught up means caught up: at the moment when a node says so, it has everything.
#[test]
fn a_node_that_says_that_it_has_caught_up_has_everything() {
    for (seed, loss_percent) in [(4, 0), (5, 10), (6, 50), (7, 90)] {
        let mut pair = Pair::new(seed, loss_percent);
        (0..1500).for_each(|flow| pair.write(0, flow, 1, 900));
        pair.until(60_000, |pair| pair.status(1).is_caught_up);
        let missing = (0..1500)
            .filter(|flow| pair.backend(1, *flow).is_none())
            .count();
        let status = [pair.status(0), pair.status(1)];
        assert_eq!(missing, 0, "with {loss_percent} % loss: {status:#?}");
    }
}

#[test]
fn flows_arrive_whatever_the_loss() {
    for (loss_percent, within_ms) in [(0, 10), (10, 100), (50, 300), (90, 5_000)] {
        let mut pair = Pair::new(8, loss_percent);
        pair.until(60_000, Pair::is_quiet);
        (0..1000).for_each(|flow| pair.write(0, flow, 3, 900));
        let passed_ms = pair.until(within_ms, |pair| {
            (0..1000).all(|flow| pair.backend(1, flow) == Some(3))
        });
        println!(
            "{loss_percent} % loss: {passed_ms} ms, {:?}",
            pair.status(0)
        );
    }
}

#[test]
fn a_touched_flow_is_told_again_after_a_quarter_of_its_time_out_and_not_before() {
    let mut pair = Pair::new(9, 0);
    pair.write(0, 1, 1, 120);
    pair.until(1000, Pair::is_quiet);
    let before = pair.status(0).sent.flows;
    for second in 1..=120 {
        pair.now_us += 1_000_000;
        pair.write(0, 1, 1, 120);
        pair.run_ms(20);
        let remaining_s = pair.nodes[1]
            .table()
            .and_then(|table| table.find(fingerprint(1)))
            .expect("it is kept alive")
            .remaining_s(pair.now().s());
        assert!(
            remaining_s >= 120 - REFRESH_S as i32 - 5,
            "{remaining_s} s after {second} s"
        );
    }
    let told = pair.status(0).sent.flows - before;
    assert!((4..=5).contains(&told), "{told} times in two minutes");
}

#[test]
fn a_node_that_gives_its_flows_up_tells_how_old_they_are() {
    let mut pair = Pair::new(9, 0);
    (1..=100).for_each(|flow| pair.write(0, flow, 1, 120));
    pair.until(1000, Pair::is_quiet);
    pair.now_us += 20_000_000;
    (1..=100).for_each(|flow| pair.write(0, flow, 1, 120));
    pair.run_ms(5_000);
    let known_s = |pair: &Pair, flow| {
        let table = pair.nodes[1].table().expect("attached");
        let record = table.find(fingerprint(flow)).expect("it is on record");
        record.remaining_s(pair.now().s())
    };
    assert!(known_s(&pair, 1) <= 96, "no refresh is due");
    pair.nodes[0].tell_ages();
    pair.run_ms(100);
    for flow in 1..=100 {
        assert!(known_s(&pair, flow) >= 113, "{flow}");
    }
    // Once: from then on the refresh has its patience again.
    let before = pair.status(0).sent.flows;
    pair.now_us += 20_000_000;
    (1..=100).for_each(|flow| pair.write(0, flow, 1, 120));
    pair.run_ms(5_000);
    assert_eq!(pair.status(0).sent.flows, before);
}

/// What does not fit into a datagram at the end of the walk waits, and is told like the rest.
#[test]
fn every_age_is_told_however_the_datagrams_fill() {
    for flow_count in 20..=100 {
        let mut pair = Pair::with_sets(32, 9, 0);
        (1..=flow_count).for_each(|flow| pair.write(0, flow, 1, 120));
        pair.until(1000, Pair::is_quiet);
        let before = pair.status(0).sent.flows;
        pair.prolong(0, 1..=flow_count, 120 + REFRESH_S - 10);
        pair.nodes[0].tell_ages();
        pair.run_ms(20);
        assert_eq!(pair.status(0).sent.flows - before, flow_count);
    }
}

/// However many sets there are, and however often it is looked at what is to be sent: `untold_s` counts on it.
#[test]
fn the_walk_tells_every_flow_once_in_four_seconds_and_in_its_turn() {
    for (set_count, tick_us) in [
        (3, 250),
        (1_000, 250),
        (1_001, 1_700),
        (SET_COUNT, 250),
        (SET_COUNT, 1_700),
        (40_009, 30_000),
    ] {
        let case = format!("{set_count} sets, every {tick_us} us");
        let mut pair = Pair::with_sets(set_count, 9, 0);
        let flow_count = 500.min(2 * u64::from(set_count));
        (1..=flow_count).for_each(|flow| pair.write(0, flow, 1, 120));
        pair.until(1000, Pair::is_quiet);
        pair.tick_us = tick_us;
        pair.run_ms(100);
        let before = pair.status(0).sent.flows;
        pair.prolong(0, 1..=flow_count, 120 + 2 * REFRESH_S);
        // Flows are spread over the sets at random, and a set is walked as a whole.
        let tolerance = flow_count / 20 + 8;
        for second in 1..REFRESH_WALK_S.into() {
            pair.run_ms(1000);
            let told = pair.status(0).sent.flows - before;
            let due = flow_count * second / u64::from(REFRESH_WALK_S);
            assert!(
                told.abs_diff(due) <= tolerance,
                "{case}: {told} told after {second} s"
            );
        }
        for round_ms in [1_100, 10_000] {
            pair.run_ms(round_ms);
            let told = pair.status(0).sent.flows - before;
            assert_eq!(told, flow_count, "{case}");
        }
    }
}

#[test]
fn a_backend_that_the_peer_does_not_have_yet_is_caught_up_with_when_it_does() {
    let mut pair = Pair::new(10, 0);
    pair.until(1000, Pair::is_quiet);
    let node = pair.nodes[0].table_mut().expect("attached");
    node.set_dictionary(dictionary(3, 1, 20));
    pair.run_ms(20);
    pair.write(0, 1, 15, 900);
    pair.run_ms(100);
    assert_eq!(
        (pair.backend(1, 1), pair.status(1).received.unknown),
        (None, 1)
    );
    assert!(!pair.status(1).is_caught_up, "it waits for the backend");
    let strangers = pair.nodes[1].take_strangers(SESSION);
    let backend = SocketAddr::from(([10, 0, 0, 1], 8015));
    assert_eq!(strangers, [(service(), backend)]);
    assert_eq!(pair.nodes[1].take_strangers(SESSION), [], "once");
    let node = pair.nodes[1].table_mut().expect("attached");
    node.set_dictionary(dictionary(9, 101, 20));
    pair.until(100, |pair| pair.backend(1, 1) == Some(15));
    pair.until(1000, Pair::is_quiet);
}

/// There may be no room for its backend, and somebody must have the VIP.
#[test]
fn a_flow_whose_backend_does_not_come_is_not_waited_for_any_longer() {
    let mut pair = Pair::new(12, 0);
    let node = pair.nodes[0].table_mut().expect("attached");
    node.set_dictionary(dictionary(3, 1, 20));
    pair.write(0, 1, 15, 900);
    pair.run_ms(200);
    assert!(!pair.status(1).is_caught_up);
    let waited_ms = pair.until(6000, |pair| pair.status(1).is_caught_up);
    assert!((4700..=5100).contains(&waited_ms), "{waited_ms}");
}

#[test]
fn a_flow_whose_backend_this_node_has_no_word_for_is_told_when_it_has() {
    let mut pair = Pair::new(11, 0);
    let node = pair.nodes[1].table_mut().expect("attached");
    node.set_dictionary(dictionary(9, 101, 20));
    pair.until(1000, Pair::is_quiet);
    pair.write(0, 1, 15, 900);
    pair.run_ms(100);
    assert_eq!(pair.status(0).sent.flows, 0);
    let node = pair.nodes[0].table_mut().expect("attached");
    node.set_dictionary(dictionary(3, 1, 20));
    pair.until(100, |pair| pair.backend(1, 1) == Some(15));
}

#[test]
fn the_link_cut_for_a_minute_heals_with_the_present_state_and_the_lag_tells() {
    let mut pair = Pair::new(12, 0);
    pair.until(1000, Pair::is_quiet);
    pair.ways.iter_mut().for_each(|way| way.loss_percent = 100);
    for round in 0..60_u64 {
        (0..100).for_each(|flow| pair.write(0, flow, (round % 10) as u16, 900));
        pair.run_ms(1000);
    }
    let lag_ms = pair.status(0).lag_ms;
    assert!((59_000..61_000).contains(&lag_ms), "{lag_ms} ms");
    let sent = pair.ways[0].datagram_count;
    assert!(sent < 60_000, "{sent} datagrams into the void in a minute");
    pair.ways.iter_mut().for_each(|way| way.loss_percent = 0);
    pair.until(700, |pair| {
        (0..100).all(|flow| pair.backend(1, flow) == Some(9))
    });
    pair.until(700, Pair::is_quiet);
}

#[test]
fn a_table_that_is_exchanged_is_told_anew_in_the_same_session() {
    let mut pair = Pair::new(13, 0);
    (0..100).for_each(|flow| pair.write(0, flow, 1, 900));
    pair.until(1000, Pair::is_quiet);
    let now = pair.now();
    let old = pair.nodes[1].detach().expect("it was attached");
    assert_eq!(old.len(), 100);
    pair.run_ms(50);
    assert!(!pair.status(1).is_caught_up);
    pair.nodes[1].attach(MemoryTable::new(2 * SET_COUNT, dictionary(9, 101, 10)), now);
    pair.until(1000, |pair| {
        (0..100).all(|flow| pair.backend(1, flow) == Some(1))
    });
    pair.write(1, 200, 4, 900);
    pair.until(1000, |pair| pair.backend(0, 200) == Some(4));
    pair.until(1000, Pair::is_quiet);
}

/// Both nodes record the same flow differently in the same moment: they end with one answer, and fall silent.
#[test]
fn a_flow_that_both_nodes_record_ends_the_same_on_both() {
    let mut pair = Pair::new(14, 10);
    pair.until(2000, Pair::is_quiet);
    for flow in 0..200 {
        pair.write(0, flow, 1, 900);
        pair.write(1, flow, 2, 900);
    }
    pair.run_ms(20_000);
    for flow in 0..200 {
        let answers = [pair.backend(0, flow), pair.backend(1, flow)];
        assert_eq!(answers[0], answers[1], "flow {flow}");
    }
    let before = pair.status(0).sent.flows + pair.status(1).sent.flows;
    pair.run_ms(20_000);
    let after = pair.status(0).sent.flows + pair.status(1).sent.flows;
    assert!(after - before <= 20, "{} more", after - before);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever changes when, on whichever node, and whatever the network does: the tables converge.
    #[test]
    fn tables_converge(
        seed in any::<u64>(),
        loss_percent in prop::sample::select(vec![0_u64, 1, 10, 50]),
        changes in proptest::collection::vec((0..2_usize, 0..60_u64, 0..10_u16, 0..20_u64, any::<bool>()), 1..150),
    ) {
        let mut pair = Pair::new(seed, loss_percent);
        for (node, flow, backend, wait_ms, is_cut) in changes {
            // A later packet of the flow, on either node, lives longer: so the last one wins.
            pair.now_us += 1_000_000;
            pair.write(node, flow, backend, 900);
            pair.run_ms(wait_ms);
            if is_cut && wait_ms == 7 {
                pair.disconnect();
                pair.connect();
            }
        }
        pair.until(60_000, Pair::is_quiet);
        pair.run_ms(5_000);
        pair.until(60_000, Pair::is_quiet);
        for flow in 0..60 {
            prop_assert_eq!(pair.backend(0, flow), pair.backend(1, flow), "flow {}", flow);
        }
    }

    /// What a peer may send when it has lost its mind: nothing is taken that is not whole, and nothing panics.
    #[test]
    fn payloads_of_noise_harm_nothing(
        payloads in proptest::collection::vec(
            (prop::sample::select(vec![kind::FLOWS, kind::FLOWS_ACK, 7]), proptest::collection::vec(any::<u8>(), 0..1300)),
            1..40,
        ),
    ) {
        let mut pair = Pair::new(15, 0);
        pair.until(1000, Pair::is_quiet);
        let now = pair.now();
        for (kind, payload) in payloads {
            let _ = pair.nodes[1].take_datagram(SESSION, kind, &payload, now);
            let _ = pair.nodes[1].take_frame(SESSION, kind::DICTIONARY, &payload);
        }
        pair.nodes[1].tick(now, &mut pair.ways[1]);
        prop_assert!(pair.nodes[1].table().expect("attached").is_empty());
    }
}

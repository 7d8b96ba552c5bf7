//! The coordinators of several nodes with each other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use lb_common::abi::Slot;

use super::message::{Claim, Message, ServiceEndpoint, Term};
use super::*;
use crate::transition::sweep::Exceptions;
use crate::transition::{Facts, Phase};
use crate::vrrp::protocol::Family;

const IDLE_MS: u64 = 20_000;
const PATIENCE_MS: u64 = 120_000;

const fn service() -> ServiceEndpoint {
    ServiceEndpoint {
        vip: IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 10)),
        port: 80,
        protocol: 6,
    }
}

fn group() -> GroupId {
    ("web".to_owned(), Family::Ipv4)
}

fn address(backend: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, backend as u8], 80))
}

/// The rings of a node: one. Its id of a backend is the backend's number and an offset of its own.
struct OneRing {
    transition: Option<RingTransition>,
    offset: u16,
    is_configured: bool,
    room: u16,
    suppressed_ms: Option<u64>,
    lag_ms: u64,
}

impl Rings for OneRing {
    fn services(&self) -> Vec<SharedService> {
        let service = SharedService {
            endpoint: service(),
            group: Some(group()),
        };
        self.is_configured.then_some(service).into_iter().collect()
    }

    fn transition(&mut self, _service: &ServiceEndpoint) -> Option<&mut RingTransition> {
        self.transition.as_mut()
    }

    fn transition_to_follow(&mut self, _service: &ServiceEndpoint) -> Option<&mut RingTransition> {
        let empty = || RingTransition::settled(&[]);
        Some(self.transition.get_or_insert_with(empty))
    }

    fn address_of(&self, _service: &ServiceEndpoint, backend_id: u16) -> Option<SocketAddr> {
        Some(address(backend_id - self.offset))
    }

    fn ids_of(
        &mut self,
        _service: &ServiceEndpoint,
        backends: &[SocketAddr],
    ) -> Result<Vec<u16>, String> {
        let number = |address: &SocketAddr| match address.ip() {
            IpAddr::V4(ip) => u16::from(ip.octets()[3]),
            IpAddr::V6(_) => 0,
        };
        if backends.iter().map(number).any(|number| number > self.room) {
            return Err("no room for that backend".to_owned());
        }
        let numbers = backends.iter().map(number);
        Ok(numbers.map(|number| number + self.offset).collect())
    }

    fn suppressed_ms(&self, _service: &ServiceEndpoint) -> Option<u64> {
        self.suppressed_ms
    }

    fn flow_lag_ms(&self) -> u64 {
        self.lag_ms
    }
}

struct Node {
    coordinator: Coordinator,
    rings: OneRing,
    down: BTreeSet<u16>,
}

/// Nodes lb1, lb2 …, whose messages arrive in the step after.
struct Bench {
    nodes: BTreeMap<String, Node>,
    /// Pairs that do not hear each other.
    cut: BTreeSet<(String, String)>,
    /// Nodes that take messages and do not get round to writing rings.
    slow: BTreeSet<String>,
    now_ms: u64,
    /// All messages so far, as bytes.
    said: Vec<Vec<u8>>,
}

fn name(number: usize) -> String {
    format!("lb{number}")
}

impl Bench {
    fn new(count: usize, ring: &[u16]) -> Self {
        let names: BTreeSet<String> = (1..=count).map(name).collect();
        let node = |number: usize| {
            let mut peers = names.clone();
            peers.remove(&name(number));
            let settings = Settings {
                node: name(number),
                peers,
                patience_ms: PATIENCE_MS,
            };
            let offset = 100 * number as u16;
            let ids: Vec<u16> = ring.iter().map(|backend| backend + offset).collect();
            let node = Node {
                coordinator: Coordinator::new(settings, Start::Fresh, 1_000_000),
                rings: OneRing {
                    transition: Some(RingTransition::settled(&ids)),
                    offset,
                    is_configured: true,
                    room: 99,
                    suppressed_ms: None,
                    lag_ms: 0,
                },
                down: BTreeSet::new(),
            };
            (name(number), node)
        };
        Self {
            nodes: (1..=count).map(node).collect(),
            cut: BTreeSet::new(),
            slow: BTreeSet::new(),
            now_ms: 1_000_000,
            said: Vec::new(),
        }
    }

    /// All connected, the first one Active.
    fn together(count: usize, ring: &[u16]) -> Self {
        let mut bench = Self::new(count, ring);
        bench.connect_all();
        bench.activate(1);
        bench.pass(1_000);
        bench
    }

    fn node(&mut self, number: usize) -> &mut Node {
        self.nodes.get_mut(&name(number)).unwrap()
    }

    fn connect_all(&mut self) {
        let names: Vec<String> = self.nodes.keys().cloned().collect();
        self.cut.clear();
        for (one, node) in &mut self.nodes {
            for other in names.iter().filter(|other| *other != one) {
                if node.coordinator.link_state(other) != Some(LinkState::Up) {
                    node.coordinator.link_up(other);
                }
            }
        }
        self.tell_active();
    }

    fn cut(&mut self, one: usize, other: usize) {
        for (one, other) in [(one, other), (other, one)] {
            self.cut.insert((name(one), name(other)));
            let now_ms = self.now_ms;
            self.node(one).coordinator.link_down(&name(other), now_ms);
        }
    }

    /// This node is Active, and no other; all that are connected know.
    fn activate(&mut self, number: usize) {
        for (one, node) in &mut self.nodes {
            let active = (*one == name(number)).then(group).into_iter().collect();
            node.coordinator.note_own_active(active);
        }
        self.tell_active();
    }

    fn tell_active(&mut self) {
        let active: Vec<_> = self
            .nodes
            .iter()
            .map(|(name, node)| (name.clone(), node.coordinator.view.active.clone()))
            .collect();
        for (other, active) in active {
            for (one, node) in &mut self.nodes {
                if !self.cut.contains(&(one.clone(), other.clone())) {
                    node.coordinator.note_peer_active(&other, active.clone());
                }
            }
        }
    }

    fn want(&mut self, number: usize, target: &[u16], urgent: &[u16]) {
        let node = self.node(number);
        let offset = node.rings.offset;
        let ids =
            |backends: &[u16]| -> Vec<u16> { backends.iter().map(|one| one + offset).collect() };
        let urgent = ids(urgent).into_iter().collect();
        let transition = node.rings.transition.as_mut().unwrap();
        transition.want(&ids(target), &urgent).unwrap();
    }

    /// One look of every node, and what follows.
    fn look(&mut self) {
        let mut said = Vec::new();
        for (name, node) in &mut self.nodes {
            let Node {
                coordinator,
                rings,
                down,
            } = node;
            coordinator.before_look(rings, self.now_ms);
            let suppressed_ms = rings
                .suppressed_ms
                .max(coordinator.suppressed_ms(&service()));
            if let Some(transition) = &mut rings.transition {
                let facts = Facts {
                    suppressed_ms,
                    idle_timeout_ms: IDLE_MS,
                    down,
                };
                transition.step(self.now_ms, &facts);
            }
            coordinator.after_look(rings);
            if !self.slow.contains(name) {
                coordinator.after_write(rings, self.now_ms);
            }
            let outputs = coordinator.take_outputs().into_iter();
            said.extend(outputs.map(|output| (name.clone(), output)));
        }
        for (from, Output { peer, message }) in said {
            let bytes = message.encode();
            let message = Message::decode(&bytes).unwrap();
            self.said.push(bytes);
            if !self.cut.contains(&(from.clone(), peer.clone())) {
                let node = self.nodes.get_mut(&peer).unwrap();
                node.coordinator.receive(&from, message, self.now_ms);
            }
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms.div_ceil(10) {
            self.look();
            self.now_ms += 10;
        }
    }

    /// Every node sweeps, and finds exceptions in as many slots as are said.
    fn sweep(&mut self, count: usize) {
        for node in self.nodes.values_mut() {
            let Some(transition) = &mut node.rings.transition else {
                continue;
            };
            let slots = 0..transition.slots().len();
            let exceptions = Exceptions {
                revision: transition.revision(),
                by_slot: slots.map(|slot| u32::from(slot < count)).collect(),
            };
            transition.swept(&exceptions, self.now_ms);
            node.coordinator
                .swept(&service(), &exceptions, self.now_ms, self.now_ms);
        }
        self.pass(2_500);
    }

    /// The slots of a node, by backend numbers.
    fn slots(&self, number: usize) -> Vec<(Phase, u16, u16)> {
        let node = &self.nodes[&name(number)];
        let offset = node.rings.offset;
        let number = |id: u16| id.saturating_sub(offset);
        let slots = node.rings.transition.iter().flat_map(|one| one.slots());
        slots
            .map(|slot: &Slot| {
                (
                    Phase::of(*slot),
                    number(slot.current()),
                    number(slot.previous()),
                )
            })
            .collect()
    }

    fn role(&self, number: usize) -> (Role, u64) {
        let status = self.nodes[&name(number)].coordinator.status();
        (status[0].role, status[0].term.number)
    }

    #[track_caller]
    fn check(&self, number: usize, slots: &[(Phase, u16, u16)]) {
        assert_eq!(self.slots(number), slots, "of lb{number}");
    }
}

const fn settled(current: u16) -> (Phase, u16, u16) {
    (Phase::Settled, current, 0)
}

const fn armed(current: u16) -> (Phase, u16, u16) {
    (Phase::Armed, current, current)
}

const fn moving(current: u16, previous: u16) -> (Phase, u16, u16) {
    (Phase::Moving, current, previous)
}

const fn quiet(current: u16) -> (Phase, u16, u16) {
    (Phase::Quiet, current, current)
}

#[test]
fn the_active_node_owns_the_ring_and_the_others_have_it() {
    let mut bench = Bench::together(3, &[1, 2]);
    assert_eq!(bench.role(1).0, Role::Owner);
    assert_eq!(
        (bench.role(2).0, bench.role(3).0),
        (Role::Follower, Role::Follower)
    );
    bench.want(1, &[3, 2], &[]);
    bench.pass(100);
    for number in 1..=3 {
        bench.check(number, &[armed(1), settled(2)]);
        assert_eq!(bench.node(number).coordinator.behind(), None);
    }
    bench.pass(1_600);
    for number in 1..=3 {
        bench.check(number, &[moving(3, 1), settled(2)]);
    }
}

#[test]
fn a_node_without_peers_leads_at_once() {
    let mut bench = Bench::new(1, &[1]);
    bench.look();
    assert_eq!(bench.role(1), (Role::Owner, 1));
    bench.want(1, &[2], &[1]);
    bench.pass(10);
    bench.check(1, &[moving(2, 1)]);
    assert_eq!(bench.node(1).coordinator.behind(), None);
}

#[test]
fn a_planned_change_waits_for_the_slowest_follower() {
    let mut bench = Bench::together(3, &[1]);
    bench.slow.insert(name(3));
    bench.want(1, &[2], &[]);
    bench.pass(5_000);
    bench.check(1, &[armed(1)]);
    bench.slow.clear();
    bench.pass(1_600);
    bench.check(1, &[moving(2, 1)]);
}

#[test]
fn a_death_is_armed_everywhere_first_and_waits_no_longer_than_300_ms() {
    let mut bench = Bench::together(2, &[1]);
    bench.want(1, &[2], &[1]);
    bench.look();
    bench.check(1, &[armed(1)]);
    bench.pass(60);
    bench.check(1, &[moving(2, 1)]);
    bench.slow.insert(name(2));
    bench.want(1, &[3], &[2]);
    bench.pass(20);
    bench.check(1, &[moving(3, 1)]);

    let mut bench = Bench::together(2, &[1]);
    bench.slow.insert(name(2));
    bench.want(1, &[2], &[1]);
    bench.pass(290);
    bench.check(1, &[armed(1)]);
    bench.pass(20);
    bench.check(1, &[moving(2, 1)]);
}

#[test]
fn a_ring_settles_when_both_have_found_nothing() {
    let mut bench = Bench::together(2, &[1, 1]);
    bench.want(1, &[2, 1], &[]);
    bench.pass(1_700 + IDLE_MS + 7_000);
    bench.check(1, &[quiet(2), settled(1)]);
    bench.check(2, &[quiet(2), settled(1)]);
    for _ in 0..4 {
        bench.sweep(1);
    }
    bench.check(1, &[quiet(2), settled(1)]);
    for _ in 0..4 {
        bench.sweep(0);
    }
    bench.check(1, &[settled(2), settled(1)]);
    bench.check(2, &[settled(2), settled(1)]);
}

#[test]
fn what_a_follower_could_not_record_delays_settling() {
    let mut bench = Bench::together(2, &[1]);
    bench.want(1, &[2], &[]);
    bench.pass(1_700 + IDLE_MS);
    bench.node(2).rings.suppressed_ms = Some(bench.now_ms);
    bench.pass(IDLE_MS);
    bench.check(1, &[moving(2, 1)]);
    bench.pass(7_000);
    bench.check(1, &[quiet(2)]);
}

#[test]
fn nothing_settles_while_flows_lag() {
    let mut bench = Bench::together(2, &[1]);
    bench.want(1, &[2], &[]);
    bench.node(2).rings.lag_ms = 1_500;
    bench.pass(1_700 + 2 * IDLE_MS);
    bench.check(1, &[moving(2, 1)]);
    bench.node(2).rings.lag_ms = 100;
    bench.pass(3_000);
    bench.check(1, &[quiet(2)]);
}

#[test]
fn a_successor_goes_on_where_the_dead_owner_was_and_consults_everything() {
    let mut bench = Bench::together(2, &[1, 2]);
    bench.want(1, &[3, 2], &[]);
    bench.pass(1_700);
    bench.cut(1, 2);
    bench.activate(2);
    bench.pass(20);
    assert_eq!(bench.role(2), (Role::Owner, 2));
    // In a cut, new flows go where unknown ones go.
    bench.check(2, &[armed(1), quiet(2)]);
    bench.want(2, &[3, 2], &[]);
    bench.pass(PATIENCE_MS + 2_000);
    bench.check(2, &[moving(3, 1), quiet(2)]);
    bench.sweep(0);
    bench.check(2, &[moving(3, 1), settled(2)]);
}

#[test]
fn a_backup_waits_a_second_for_an_owner_that_starts_anew() {
    let mut bench = Bench::together(2, &[1]);
    bench.cut(1, 2);
    bench.pass(900);
    assert_eq!(bench.role(2).0, Role::Follower);
    bench.pass(200);
    assert_eq!(bench.role(2).0, Role::Owner);
    bench.connect_all();
    bench.pass(500);
    assert_eq!(
        (bench.role(1).0, bench.role(2).0),
        (Role::Owner, Role::Follower)
    );
    assert_eq!(bench.role(1).1, bench.role(2).1);
}

#[test]
fn after_a_cut_the_owner_consults_what_the_other_has_moved_meanwhile() {
    let mut bench = Bench::together(2, &[1, 2]);
    bench.cut(1, 2);
    bench.pass(PATIENCE_MS + 2_000);
    for _ in 0..3 {
        bench.sweep(0);
    }
    bench.check(1, &[settled(1), settled(2)]);
    bench.check(2, &[settled(1), settled(2)]);
    bench.want(2, &[2, 2], &[1]);
    bench.pass(100);
    bench.check(2, &[moving(2, 1), settled(2)]);
    bench.connect_all();
    bench.pass(500);
    bench.check(1, &[quiet(1), settled(2)]);
    bench.check(2, &[quiet(1), settled(2)]);
}

#[test]
fn a_hand_over_keeps_the_ring_as_it_is() {
    let mut bench = Bench::together(2, &[1, 2]);
    bench.want(1, &[3, 2], &[]);
    bench.want(2, &[3, 2], &[]);
    bench.pass(1_700);
    bench.activate(2);
    bench.pass(200);
    assert_eq!(bench.role(2), (Role::Owner, 2));
    assert_eq!(bench.role(1), (Role::Follower, 2));
    // What the last owner may have done meanwhile is on record, and consulted.
    bench.check(2, &[moving(3, 1), quiet(2)]);
    bench.check(1, &[moving(3, 1), quiet(2)]);
}

#[test]
fn a_node_that_cannot_follow_is_named_and_not_waited_for() {
    let mut bench = Bench::together(2, &[1]);
    bench.node(2).rings.room = 5;
    bench.want(1, &[9], &[]);
    bench.pass(3_400);
    bench.check(1, &[moving(9, 1)]);
    let status = bench.node(1).coordinator.status();
    assert_eq!(status[0].refusals["lb2"], "no room for that backend");
    assert!(bench.node(2).coordinator.behind().is_some());
}

#[test]
fn a_service_that_a_peer_has_not_is_led_without_it_and_with_it_once_it_has() {
    let mut bench = Bench::new(2, &[1]);
    bench.node(2).rings.is_configured = false;
    bench.connect_all();
    bench.activate(1);
    bench.pass(500);
    bench.want(1, &[2], &[]);
    bench.pass(1_700);
    bench.check(1, &[moving(2, 1)]);
    bench.node(2).rings.is_configured = true;
    bench.pass(200);
    bench.check(2, &[moving(2, 1)]);
}

#[test]
fn a_follower_that_had_no_room_is_asked_again_when_there_may_be_some() {
    let mut bench = Bench::together(2, &[1]);
    bench.node(2).rings.room = 5;
    bench.want(1, &[9], &[]);
    bench.pass(3_400);
    assert_eq!(bench.node(1).coordinator.status()[0].refusals.len(), 1);
    bench.pass(40_000);
    assert_eq!(bench.node(1).coordinator.status()[0].refusals.len(), 1);
    bench.want(1, &[8], &[]);
    bench.pass(3_400);
    bench.check(1, &[moving(8, 9)]);
    bench.node(2).rings.room = 99;
    bench.pass(31_000);
    assert_eq!(bench.node(1).coordinator.status()[0].refusals.len(), 0);
    assert_eq!(bench.slots(2), bench.slots(1));
    assert_eq!(bench.node(2).coordinator.behind(), None);
}

/// The Active node's file may be the older one, or the service another node's alone.
#[test]
fn a_service_that_the_active_node_has_not_is_led_by_one_that_has() {
    let mut bench = Bench::new(3, &[1]);
    bench.node(1).rings.is_configured = false;
    bench.connect_all();
    bench.activate(1);
    bench.pass(1_500);
    assert_eq!(bench.role(2).0, Role::Owner);
    assert_eq!(bench.role(3).0, Role::Follower);
    assert_eq!(bench.node(3).coordinator.behind(), None);
    bench.want(2, &[3], &[1]);
    bench.pass(100);
    bench.check(2, &[moving(3, 1)]);
    bench.check(3, &[moving(3, 1)]);
    // Now it gets it, and leads.
    bench.node(1).rings.is_configured = true;
    bench.pass(500);
    assert_eq!(bench.role(1).0, Role::Owner);
    assert_eq!(bench.role(2).0, Role::Follower);
    bench.check(1, &[moving(3, 1)]);
    // And loses it again.
    bench.node(1).rings.is_configured = false;
    bench.pass(500);
    assert_eq!(bench.role(2).0, Role::Owner);
    bench.want(2, &[2], &[3]);
    bench.pass(500);
    bench.check(2, &[moving(2, 1)]);
    bench.check(3, &[moving(2, 1)]);
}

/// Each judges by itself whether the other is silent, and what comes from a silent one is not heard.
#[test]
fn what_was_said_to_a_node_that_did_not_listen_is_said_again() {
    for (deaf, speaker) in [(2, 1), (1, 2)] {
        let mut bench = Bench::together(2, &[1]);
        let now_ms = bench.now_ms;
        bench
            .node(deaf)
            .coordinator
            .link_down(&name(speaker), now_ms);
        bench.want(1, &[3], &[1]);
        bench.pass(500);
        bench.node(deaf).coordinator.link_up(&name(speaker));
        bench.tell_active();
        bench.pass(500);
        bench.check(1, &[moving(3, 1)]);
        bench.check(2, &[moving(3, 1)]);
        // Both notice, and hear each other again one after the other.
        let now_ms = bench.now_ms;
        for (one, other) in [(1, 2), (2, 1)] {
            bench.node(one).coordinator.link_down(&name(other), now_ms);
        }
        bench.pass(500);
        bench.node(speaker).coordinator.link_up(&name(deaf));
        bench.pass(50);
        bench.node(deaf).coordinator.link_up(&name(speaker));
        bench.tell_active();
        bench.pass(200);
        bench.want(1, &[4], &[3]);
        bench.pass(500);
        bench.check(1, &[moving(4, 1)]);
        bench.check(2, &[moving(4, 1)]);
    }
}

/// Within one look, so that nobody's company has changed.
#[test]
fn a_link_that_is_lost_and_back_at_once_leaves_nothing_unacknowledged() {
    let mut bench = Bench::together(2, &[1]);
    let now_ms = bench.now_ms;
    for (one, other) in [(1, 2), (2, 1)] {
        bench.node(one).coordinator.link_down(&name(other), now_ms);
        bench.node(one).coordinator.link_up(&name(other));
    }
    bench.tell_active();
    bench.pass(200);
    bench.want(1, &[3], &[1]);
    bench.pass(200);
    bench.check(1, &[moving(3, 1)]);
    bench.check(2, &[moving(3, 1)]);
}

#[test]
fn a_cold_node_follows_and_has_no_say() {
    let mut bench = Bench::together(2, &[1, 2]);
    bench.want(1, &[2, 2], &[1]);
    bench.pass(100);
    bench.cut(1, 2);
    bench.pass(PATIENCE_MS);
    let mut cold = Bench::new(2, &[1, 2]).nodes.remove("lb2").unwrap();
    let settings = Settings {
        node: name(2),
        peers: BTreeSet::from([name(1)]),
        patience_ms: PATIENCE_MS,
    };
    cold.coordinator = Coordinator::new(settings, Start::Fresh, bench.now_ms);
    assert!(cold.coordinator.behind().is_some());
    bench.nodes.insert(name(2), cold);
    bench.node(1).coordinator.link_up("lb2");
    bench.node(2).coordinator.link_up("lb1");
    bench.cut.clear();
    bench.activate(1);
    bench.look();
    assert!(bench.node(2).coordinator.behind().is_some());
    bench.pass(300);
    assert_eq!(bench.role(2).0, Role::Follower);
    assert_eq!(bench.slots(2), bench.slots(1));
    assert_eq!(bench.node(2).coordinator.behind(), None);
}

#[test]
fn what_is_said_in_an_older_term_or_by_others_changes_nothing() {
    let mut bench = Bench::together(3, &[1]);
    let (now_ms, before) = (bench.now_ms, bench.slots(2));
    let claim = |number: u64, owner: &str| {
        Message::Claim(vec![Claim {
            service: service(),
            term: Term {
                number,
                owner: owner.to_owned(),
            },
        }])
    };
    let status = bench.node(2).coordinator.status();
    let node = bench.node(2);
    node.coordinator.receive("lb3", claim(0, "lb3"), now_ms);
    node.coordinator.receive("lb3", claim(9, "lb1"), now_ms);
    node.coordinator.receive("lb9", claim(9, "lb9"), now_ms);
    assert_eq!(node.coordinator.status(), status);
    bench.pass(500);
    assert_eq!(bench.slots(2), before);
    assert_eq!(bench.role(1).0, Role::Owner);
}

#[test]
fn who_claims_without_being_active_is_overruled() {
    let mut bench = Bench::together(2, &[1]);
    let now_ms = bench.now_ms;
    let claim = Claim {
        service: service(),
        term: Term {
            number: 77,
            owner: "lb2".to_owned(),
        },
    };
    bench
        .node(1)
        .coordinator
        .receive("lb2", Message::Claim(vec![claim]), now_ms);
    bench.pass(50);
    assert_eq!(bench.role(1), (Role::Owner, 78));
    assert_eq!(bench.role(2), (Role::Follower, 78));
}

/// Nobody has been eligible since the service is there.
#[test]
fn a_ring_that_is_not_there_yet_is_waited_for_by_nobody() {
    let mut bench = Bench::new(2, &[]);
    for node in bench.nodes.values_mut() {
        node.rings.transition = None;
    }
    bench.connect_all();
    bench.activate(1);
    bench.pass(1_000);
    assert_eq!(bench.role(2).0, Role::Follower);
    assert_eq!(bench.node(2).coordinator.behind(), None);
    bench.cut(1, 2);
    bench.pass(100);
    bench.connect_all();
    bench.look();
    assert!(bench.node(2).coordinator.behind().is_some());
    bench.pass(1_000);
    assert_eq!(bench.node(2).coordinator.behind(), None);
    bench.node(1).rings.transition = Some(RingTransition::settled(&[101, 102]));
    bench.pass(1_000);
    bench.check(2, &[settled(1), settled(2)]);
    assert_eq!(bench.node(2).coordinator.behind(), None);
}

/// A megabyte of zeros in a kilobyte.
#[test]
fn what_would_grow_beyond_a_message_is_refused() {
    let mut bytes = vec![1];
    bytes.extend(miniz_oxide::deflate::compress_to_vec(&[0; 1 << 20], 1));
    assert!(bytes.len() < 10_000);
    assert!(Message::decode(&bytes).is_err());
    assert!(Message::decode(&[2, 0, 0]).is_err());
    assert!(Message::decode(&[]).is_err());
}

#[test]
fn damaged_messages_are_refused_and_harmless() {
    let mut bench = Bench::together(2, &[1, 2, 3]);
    bench.want(1, &[2, 2, 3], &[1]);
    bench.pass(2_000);
    let messages = bench.said.clone();
    assert!(messages.len() > 20);
    let mut random = 7_u64;
    for round in 0..20_000_u64 {
        random = lb_common::hash::mix(random ^ round);
        let mut bytes = messages[(random % messages.len() as u64) as usize].clone();
        for _ in 0..=random % 3 {
            random = lb_common::hash::mix(random);
            let at = (random >> 8) as usize % bytes.len();
            bytes[at] ^= 1 << (random % 8);
        }
        if random.is_multiple_of(5) {
            bytes.truncate(random as usize % bytes.len());
        }
        let now_ms = bench.now_ms;
        if let Ok(message) = Message::decode(&bytes) {
            bench
                .node(2)
                .coordinator
                .receive("lb1", message.clone(), now_ms);
            bench.node(1).coordinator.receive("lb2", message, now_ms);
        }
        if round % 200 == 0 {
            bench.look();
            bench.now_ms += 10;
        }
    }
    // What is still there agrees.
    bench.cut(1, 2);
    bench.pass(10);
    bench.connect_all();
    bench.activate(1);
    bench.pass(3_000);
    assert_eq!(bench.slots(1), bench.slots(2));
}

//! The coordinators of several nodes with each other.

mod messages;
mod owners;
mod steps;
mod troubles;

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
    group: Option<GroupId>,
    slot_count: usize,
    room: u16,
    suppressed_ms: Option<u64>,
    lag_ms: u64,
}

impl Rings for OneRing {
    fn services(&self) -> Vec<SharedService> {
        let service = SharedService {
            endpoint: service(),
            group: self.group.clone(),
            slot_count: self.slot_count,
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

impl Node {
    /// One look, and what it wants said.
    fn look(&mut self, now_ms: u64, gets_to_writing: bool) -> Vec<Output> {
        let Self {
            coordinator,
            rings,
            down,
        } = self;
        coordinator.before_look(rings, now_ms);
        let suppressed_ms = rings
            .suppressed_ms
            .max(coordinator.suppressed_ms(&service()));
        if let Some(transition) = &mut rings.transition {
            let facts = Facts {
                suppressed_ms,
                idle_timeout_ms: IDLE_MS,
                down,
            };
            transition.step(now_ms, &facts);
        }
        coordinator.after_look(rings);
        if gets_to_writing {
            coordinator.after_write(rings, now_ms);
        }
        coordinator.take_outputs()
    }
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
                    group: Some(group()),
                    slot_count: ring.len(),
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
            let outputs = node.look(self.now_ms, !self.slow.contains(name));
            said.extend(outputs.into_iter().map(|output| (name.clone(), output)));
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

    /// What a node is that follows this one.
    fn role_as_follower_of(&self, number: usize) -> (Role, u64) {
        (Role::Follower, self.role(number).1)
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

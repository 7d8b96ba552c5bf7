//! Two nodes that have not lost their minds, with a ring each, and their links.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lb_common::abi::Slot;
use lb_userspace::cluster::message::{Message, ServiceEndpoint};
use lb_userspace::cluster::{Coordinator, GroupId, Output, Rings, Settings, SharedService, Start};
use lb_userspace::transition::{Facts, RingTransition};
use lb_userspace::vrrp::protocol::Family;

use super::lies::Liar;
use crate::rng::Rng;

/// A peer that is silent for longer counts as gone. Unit: milliseconds.
pub(super) const PATIENCE_MS: u64 = 5_000;
/// Between two looks at the rings. Unit: milliseconds.
const LOOK_MS: u64 = 10;
/// Without a packet for so long a flow is over. Unit: milliseconds.
const IDLE_MS: u64 = 2_000;
/// Backends that the service has.
const BACKENDS: u16 = 6;
/// When the world begins. Unit: milliseconds.
const START_MS: u64 = 1_000_000;

/// The service whose ring they share.
pub(super) const SERVICE: ServiceEndpoint = ServiceEndpoint {
    vip: IpAddr::V4(Ipv4Addr::new(203, 0, 113, 10)),
    port: 80,
    protocol: 6,
};

/// A slot: what it leads to and what before, by backend.
pub(super) type Leads = (u16, u16);

fn group() -> GroupId {
    ("web".to_owned(), Family::Ipv4)
}

pub(super) fn name(number: usize) -> String {
    format!("lb{number}")
}

pub(super) fn address(backend: u16) -> SocketAddr {
    SocketAddr::from(([10, 0, 1, backend as u8], 80))
}

/// The ring of a node. Its id of a backend is the backend's number and an offset of its own.
pub(super) struct OneRing {
    transition: RingTransition,
    offset: u16,
}

impl Rings for OneRing {
    fn services(&self) -> Vec<SharedService> {
        vec![SharedService {
            endpoint: SERVICE,
            group: Some(group()),
            slot_count: self.transition.slots().len(),
        }]
    }

    fn transition(&mut self, _service: &ServiceEndpoint) -> Option<&mut RingTransition> {
        Some(&mut self.transition)
    }

    fn transition_to_follow(&mut self, _service: &ServiceEndpoint) -> Option<&mut RingTransition> {
        Some(&mut self.transition)
    }

    fn address_of(&self, _service: &ServiceEndpoint, backend_id: u16) -> Option<SocketAddr> {
        backend_id.checked_sub(self.offset).map(address)
    }

    fn ids_of(
        &mut self,
        _service: &ServiceEndpoint,
        backends: &[SocketAddr],
    ) -> Result<Vec<u16>, String> {
        let known: BTreeMap<SocketAddr, u16> =
            (1..=BACKENDS).map(|one| (address(one), one)).collect();
        let ids = backends.iter().map(|backend| {
            let number = known.get(backend)?;
            Some(number + self.offset)
        });
        let ids: Option<Vec<u16>> = ids.collect();
        ids.ok_or_else(|| "it has no room for the backends".to_owned())
    }

    fn suppressed_ms(&self, _service: &ServiceEndpoint) -> Option<u64> {
        None
    }

    fn flow_lag_ms(&self) -> u64 {
        0
    }
}

/// A node.
pub(super) struct Node {
    pub(super) coordinator: Coordinator,
    rings: OneRing,
    down: BTreeSet<u16>,
}

/// The honest two, and a third whose words come from elsewhere.
pub(super) struct Nodes {
    nodes: BTreeMap<usize, Node>,
    mad: usize,
    active: usize,
    other: usize,
    pub(super) now_ms: u64,
    /// What the Active node wants, by slot.
    wanted: Vec<u16>,
    /// What its slots may lead to: what they have led to so far, and what is wanted.
    may_lead: Vec<BTreeSet<u16>>,
    dead: Option<u16>,
}

impl Nodes {
    /// All connected, one of the honest two Active, and the ring in force on both.
    pub(super) fn new(rng: &mut Rng, mad: usize) -> Self {
        let mut honest: Vec<usize> = (1..=3).filter(|number| *number != mad).collect();
        if rng.below(2) == 0 {
            honest.reverse();
        }
        let slot_count = [1, 13, 13, 64, 251][rng.below(5)];
        let wanted: Vec<u16> = (0..slot_count)
            .map(|_| 1 + rng.below(usize::from(BACKENDS)) as u16)
            .collect();
        let nodes = honest
            .iter()
            .map(|number| (*number, node(*number, &wanted)));
        let mut nodes = Self {
            nodes: nodes.collect(),
            mad,
            active: honest[0],
            other: honest[1],
            now_ms: START_MS,
            may_lead: wanted.iter().map(|one| BTreeSet::from([*one])).collect(),
            wanted,
            dead: None,
        };
        for (number, node) in &mut nodes.nodes {
            for peer in (1..=3).filter(|peer| peer != number) {
                node.coordinator.link_up(&name(peer));
            }
            let active = BTreeSet::from([group()]);
            if *number == nodes.active {
                node.coordinator.note_own_active(active);
            } else {
                node.coordinator
                    .note_peer_active(&name(nodes.active), active);
            }
        }
        for _ in 0..20 {
            nodes.look_unheard();
        }
        nodes
    }

    /// The Active one first.
    pub(super) const fn honest(&self) -> [usize; 2] {
        [self.active, self.other]
    }

    pub(super) fn node(&self, number: usize) -> &Node {
        &self.nodes[&number]
    }

    pub(super) fn active(&self) -> &Node {
        self.node(self.active)
    }

    pub(super) fn mad_name(&self) -> String {
        name(self.mad)
    }

    /// The Active node wants something else: new backends for some slots, by plan or because one has died. Since when
    /// it is dead, if so.
    pub(super) fn change_mind(&mut self, rng: &mut Rng) -> Option<u64> {
        let dead = (rng.below(2) == 0).then(|| 1 + rng.below(usize::from(BACKENDS)) as u16);
        for slot in 0..self.wanted.len() {
            let is_hit = dead.map_or_else(|| rng.below(4) == 0, |dead| self.wanted[slot] == dead);
            while is_hit && (dead == Some(self.wanted[slot]) || rng.below(2) == 0) {
                self.wanted[slot] = 1 + rng.below(usize::from(BACKENDS)) as u16;
            }
            self.may_lead[slot].insert(self.wanted[slot]);
        }
        self.dead = dead;
        let node = self.nodes.get_mut(&self.active)?;
        let offset = node.rings.offset;
        let target: Vec<u16> = self.wanted.iter().map(|one| one + offset).collect();
        node.down = dead.into_iter().map(|dead| dead + offset).collect();
        let wanted = node.rings.transition.want(&target, &node.down);
        assert!(wanted.is_ok(), "the ring has another length");
        dead.map(|_| self.now_ms)
    }

    /// Takes a message of the mad one; how many come of it.
    pub(super) fn receive(&mut self, to: usize, message: Message) -> usize {
        let (mad, now_ms) = (self.mad_name(), self.now_ms);
        let Some(node) = self.nodes.get_mut(&to) else {
            return 0;
        };
        let mut before = node.coordinator.take_outputs();
        node.coordinator.receive(&mad, message, now_ms);
        let outputs = node.coordinator.take_outputs();
        let count = outputs.len();
        before.extend(outputs);
        self.carry(to, before, &mut |_| ());
        count
    }

    /// A look at the rings of both, and what follows; the mad one hears what is said to it. How many messages went
    /// between the two.
    pub(super) fn look(&mut self, liar: &mut Liar) -> usize {
        self.look_with(&mut |output| liar.hear(output))
    }

    fn look_unheard(&mut self) {
        self.look_with(&mut |_| ());
    }

    fn look_with(&mut self, to_mad: &mut dyn FnMut(&Message)) -> usize {
        let mut count = 0;
        for number in self.honest() {
            let said = self.look_of(number);
            count += self.carry(number, said, to_mad);
        }
        self.now_ms += LOOK_MS;
        count
    }

    /// As the engine does it.
    fn look_of(&mut self, number: usize) -> Vec<Output> {
        let now_ms = self.now_ms;
        let Some(Node {
            coordinator,
            rings,
            down,
        }) = self.nodes.get_mut(&number)
        else {
            return Vec::new();
        };
        coordinator.before_look(rings, now_ms);
        let facts = Facts {
            suppressed_ms: coordinator.suppressed_ms(&SERVICE),
            idle_timeout_ms: IDLE_MS,
            down,
        };
        rings.transition.step(now_ms, &facts);
        coordinator.after_look(rings);
        coordinator.after_write(rings, now_ms);
        coordinator.take_outputs()
    }

    /// What the honest ones say to each other arrives at once, in its order; what is said because of it, too.
    fn carry(&mut self, from: usize, said: Vec<Output>, to_mad: &mut dyn FnMut(&Message)) -> usize {
        let mut count = 0;
        for output in said {
            let to = self
                .nodes
                .keys()
                .find(|number| name(**number) == output.peer);
            let Some(to) = to.copied() else {
                to_mad(&output.message);
                continue;
            };
            count += 1;
            let (now_ms, bytes) = (self.now_ms, output.message.encode());
            let message = Message::decode(&bytes).expect("an honest message can be read");
            if let Some(node) = self.nodes.get_mut(&to) {
                node.coordinator.receive(&name(from), message, now_ms);
            }
        }
        count
    }

    /// Time passes; how many messages went between the two.
    pub(super) fn pass(&mut self, ms: u64, liar: &mut Liar) -> usize {
        (0..ms / LOOK_MS).map(|_| self.look(liar)).sum()
    }

    pub(super) fn lose_mad(&mut self) {
        let (mad, now_ms) = (self.mad_name(), self.now_ms);
        for node in self.nodes.values_mut() {
            node.coordinator.link_down(&mad, now_ms);
        }
    }

    /// What a node's slots lead to, by backend.
    pub(super) fn ring(&self, number: usize) -> Vec<Leads> {
        let rings = &self.node(number).rings;
        let backend = |id: u16| id.saturating_sub(rings.offset);
        let leads = |slot: &Slot| (backend(slot.current()), backend(slot.previous()));
        rings.transition.slots().iter().map(leads).collect()
    }

    /// Slots of the Active node that lead where nobody wanted them to, or are too many or too few.
    pub(super) fn strayed(&self) -> Vec<(usize, Leads)> {
        let ring = self.ring(self.active);
        if ring.len() != self.wanted.len() {
            return ring.into_iter().enumerate().collect();
        }
        let is_known = |slot: usize, backend: u16| self.may_lead[slot].contains(&backend);
        let slots = ring.into_iter().enumerate();
        slots
            .filter(|(slot, (current, previous))| {
                !is_known(*slot, *current) || *previous != 0 && !is_known(*slot, *previous)
            })
            .collect()
    }

    pub(super) fn leads_to_the_dead(&self) -> bool {
        let ring = self.ring(self.active);
        ring.iter().any(|(current, _)| Some(*current) == self.dead)
    }

    pub(super) fn is_as_wanted(&self) -> bool {
        let ring = self.ring(self.active);
        ring.iter().map(|(current, _)| current).eq(&self.wanted)
    }
}

fn node(number: usize, ring: &[u16]) -> Node {
    let settings = Settings {
        node: name(number),
        peers: (1..=3).filter(|peer| *peer != number).map(name).collect(),
        patience_ms: PATIENCE_MS,
    };
    let offset = 100 * number as u16;
    let ids: Vec<u16> = ring.iter().map(|backend| backend + offset).collect();
    Node {
        coordinator: Coordinator::new(settings, Start::Fresh, START_MS),
        rings: OneRing {
            transition: RingTransition::settled(&ids),
            offset,
        },
        down: BTreeSet::new(),
    }
}

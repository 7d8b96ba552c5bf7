//! The contents of the maps, in plain memory.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{
    Address, Backend, BackendSignals, BackendStats, EndpointKey, FLOW_SET_ENTRIES, FlowEntry,
    FlowRecord, FlowSet, FlowState, NatReply, Neighbour, NeighbourKey, NeighbourWanted, Route,
    RouteKey, Service, Slot, Vip,
};
use lb_common::drop_reason::DropReason;
use lb_common::limits::{HASH_KEY_WORDS, RING_BLOCK_SLOTS};

/// What the control plane writes, and the flow table.
#[derive(Clone, Debug, Default)]
pub struct Tables {
    /// The secret of the flow hash.
    pub hash_key: [u64; HASH_KEY_WORDS],
    /// `SERVICES`.
    pub services: BTreeMap<EndpointKey, Service>,
    /// `VIPS`.
    pub vips: BTreeMap<Address, Vip>,
    /// `RINGS`, block by block.
    pub ring_blocks: BTreeMap<u32, Vec<u32>>,
    /// `BACKENDS`.
    pub backends: BTreeMap<u16, Backend>,
    /// `NAT_REPLIES`.
    pub nat_replies: BTreeMap<EndpointKey, NatReply>,
    /// `ROUTES`.
    pub routes: BTreeMap<RouteKey, Route>,
    /// `NEIGHBOURS`.
    pub neighbours: BTreeMap<NeighbourKey, Neighbour>,
    /// `FLOWS`: entries to begin with, by fingerprint.
    pub flows: BTreeMap<u64, FlowRecord>,
}

/// Whether there are nodes beside this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peers {
    /// Some: they hear of changes of the flow table, and tell of theirs.
    Some,
    /// None.
    None,
}

/// Sets in the flow table of a fixture.
pub const FLOW_SETS: u32 = 512;

impl Tables {
    /// The flow table with its initial entries, each in its first set.
    pub fn flow_sets(&self, set_count: u32) -> Vec<FlowSet> {
        let empty = FlowSet {
            entries: [FlowEntry {
                fingerprint: 0,
                record: FlowRecord(0),
            }; FLOW_SET_ENTRIES],
        };
        let mut sets = vec![empty; set_count as usize];
        for (fingerprint, record) in &self.flows {
            let set = &mut sets[lb_common::hash::index(*fingerprint as u32, set_count) as usize];
            let free = set.entries.iter_mut().find(|entry| entry.fingerprint == 0);
            *free.expect("few initial flows") = FlowEntry {
                fingerprint: *fingerprint,
                record: *record,
            };
        }
        sets
    }

    /// Writes a ring into blocks from `block` on.
    pub fn put_ring(&mut self, block: u32, slots: &[u32]) {
        for (number, chunk) in (block..).zip(slots.chunks(RING_BLOCK_SLOTS)) {
            let mut chunk = chunk.to_vec();
            chunk.resize(RING_BLOCK_SLOTS, Slot::EMPTY.0);
            self.ring_blocks.insert(number, chunk);
        }
    }
}

/// What the datapath leaves behind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    /// `BACKEND_STATS`, entries that are not all zero.
    pub backends: BTreeMap<u16, BackendStats>,
    /// `BACKEND_SIGNALS`, likewise.
    pub signals: BTreeMap<u16, BackendSignals>,
    /// Drops by service id (0 = none) and reason.
    pub drops: BTreeMap<(u16, DropReason), u64>,
    /// Packets handed to the host.
    pub passed: u64,
    /// The flow table: backend and state of each flow, by fingerprint.
    pub flows: BTreeMap<u64, (u16, FlowState)>,
    /// `FLOW_CHANGES`: the sets that were noted.
    pub changed_sets: BTreeSet<u32>,
    /// Services for which something that should have been recorded was not.
    pub suppressed: BTreeSet<u16>,
    /// What the control plane was asked to resolve.
    pub wanted: Vec<NeighbourKey>,
}

impl Traces {
    /// Notes what a set of the flow table holds.
    pub fn push_flows(&mut self, set: &FlowSet) {
        for entry in set.entries.iter().filter(|entry| entry.fingerprint != 0) {
            let flow = (entry.record.backend_id(), entry.record.state());
            self.flows.insert(entry.fingerprint, flow);
        }
    }

    /// Notes an event.
    pub fn push_wanted(&mut self, event: &NeighbourWanted) {
        self.wanted.push(event.neighbour);
    }
}

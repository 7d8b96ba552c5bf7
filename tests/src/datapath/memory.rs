//! `Kernel` and `Packet` in plain memory.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;

use bytemuck::Pod;
use lb_common::abi::{
    Address, Backend, EndpointKey, FINGERPRINT_BUSY, FlowEntry, FlowOrigin, FlowRecord, FlowSet,
    LinkRewrite, NatReply, Neighbour, NeighbourKey, NeighbourWanted, Route, RouteKey, Service,
    Slot, Vip,
};
use lb_common::datapath::flow::FlowPlace;
use lb_common::datapath::pending::Pending;
use lb_common::drop_reason::DropReason;
use lb_common::kernel::{FlowSetHandle, Handshake, Kernel, Signal};
use lb_common::limits::{
    HASH_KEY_WORDS, PENDING_FLOWS, RECENT_SYNS, RING_BLOCK_SHIFT, RING_BLOCK_SLOTS,
};
use lb_common::packet::{OutOfBounds, Packet};

use super::tables::{FLOW_SETS, Peers, Tables, Traces};

/// A frame in memory.
#[derive(Clone, Debug)]
pub struct MemoryPacket {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// The interface that it came in on.
    pub ingress_ifindex: u32,
}

impl Packet for MemoryPacket {
    fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    fn ingress_ifindex(&self) -> u32 {
        self.ingress_ifindex
    }

    fn opaque(&self, value: usize) -> usize {
        value
    }

    fn truncate(&mut self, len_bytes: usize) -> Result<(), OutOfBounds> {
        if len_bytes > self.bytes.len() {
            return Err(OutOfBounds);
        }
        self.bytes.truncate(len_bytes);
        Ok(())
    }

    fn load<T: Pod>(&self, offset: usize) -> Result<T, OutOfBounds> {
        let bytes = self
            .bytes
            .get(offset..offset + size_of::<T>())
            .ok_or(OutOfBounds)?;
        Ok(bytemuck::pod_read_unaligned(bytes))
    }

    fn store<T: Pod>(&mut self, offset: usize, value: T) -> Result<(), OutOfBounds> {
        let bytes = self
            .bytes
            .get_mut(offset..offset + size_of::<T>())
            .ok_or(OutOfBounds)?;
        bytes.copy_from_slice(bytemuck::bytes_of(&value));
        Ok(())
    }
}

/// An entry of `BACKENDS` that was never written.
static FREE: Backend = Backend {
    link: LinkRewrite([0; 3]),
    ifindex: 0,
    address: Address::UNSPECIFIED,
    service_id: 0,
    generation: 0,
    port_be: 0,
    forward: 0,
    is_resolved: 0,
    delivery: 0,
    is_up: 0,
    pad: [0; 2],
    reserved: [0; 5],
};

type FlowTable = Rc<RefCell<Vec<FlowSet>>>;

/// The datapath's surroundings in memory. Single-threaded: what changes under the packets is in
/// cells.
#[derive(Debug)]
pub struct MemoryKernel {
    /// What the control plane wrote; `flows` here is the initial content only.
    pub tables: Tables,
    /// The clock. Unit: seconds.
    pub now_s: Cell<u32>,
    rounds: RefCell<std::collections::BTreeMap<u16, u64>>,
    flows: FlowTable,
    origins: RefCell<std::collections::BTreeMap<u32, FlowOrigin>>,
    recent_syns: RefCell<std::collections::BTreeMap<u32, u32>>,
    pending_flows: RefCell<std::collections::BTreeMap<u32, Pending>>,
    /// When something that should have been recorded was not, by service. Unit: seconds.
    suppressed_s: RefCell<std::collections::BTreeMap<u16, u32>>,
    peers: Peers,
    traces: RefCell<Traces>,
}

impl MemoryKernel {
    /// A kernel over these tables, its clock at `now_s`, of a node with peers.
    pub fn new(tables: Tables, now_s: u32) -> Self {
        Self::with_peers(tables, now_s, Peers::Some)
    }

    /// As [`MemoryKernel::new`], with or without peers.
    pub fn with_peers(tables: Tables, now_s: u32, peers: Peers) -> Self {
        let flows = Rc::new(RefCell::new(tables.flow_sets(FLOW_SETS)));
        let rounds = RefCell::default();
        Self {
            tables,
            now_s: Cell::new(now_s),
            rounds,
            flows,
            origins: RefCell::default(),
            recent_syns: RefCell::default(),
            pending_flows: RefCell::default(),
            suppressed_s: RefCell::default(),
            peers,
            traces: RefCell::default(),
        }
    }

    /// What the datapath has left behind so far.
    pub fn traces(&self) -> Traces {
        let mut traces = self.traces.borrow().clone();
        self.flows
            .borrow()
            .iter()
            .for_each(|set| traces.push_flows(set));
        traces
    }

    /// The sets of the flow table in which something was noted since the last call.
    pub fn take_changed_sets(&self) -> BTreeSet<u32> {
        std::mem::take(&mut self.traces.borrow_mut().changed_sets)
    }
}

/// A set of the flow table by its index.
pub struct MemoryFlowSet {
    table: FlowTable,
    index: usize,
}

impl MemoryFlowSet {
    fn with<T>(&self, entry: usize, act: impl FnOnce(&mut FlowEntry) -> T) -> T {
        act(&mut self.table.borrow_mut()[self.index].entries[entry])
    }
}

impl FlowSetHandle for MemoryFlowSet {
    fn fingerprint(&self, entry: usize) -> u64 {
        self.with(entry, |entry| entry.fingerprint)
    }

    fn record(&self, entry: usize) -> FlowRecord {
        self.with(entry, |entry| entry.record)
    }

    fn claim(&self, entry: usize, old: u64) -> bool {
        self.with(entry, |entry| {
            let is_ours = entry.fingerprint == old;
            if is_ours {
                entry.fingerprint = FINGERPRINT_BUSY;
            }
            is_ours
        })
    }

    fn fill(&self, entry: usize, fingerprint: u64, record: FlowRecord) {
        self.with(entry, |entry| {
            *entry = FlowEntry {
                fingerprint,
                record,
            }
        });
    }

    fn replace_record(&self, entry: usize, old: FlowRecord, new: FlowRecord) {
        self.with(entry, |entry| {
            if entry.record == old {
                entry.record = new;
            }
        });
    }
}

impl Kernel for MemoryKernel {
    type FlowSet = MemoryFlowSet;

    fn now_s(&self) -> u32 {
        self.now_s.get()
    }

    fn hash_key(&self) -> [u64; HASH_KEY_WORDS] {
        self.tables.hash_key
    }

    fn service(&self, key: &EndpointKey) -> Option<Service> {
        self.tables.services.get(key).copied()
    }

    fn vip(&self, address: &Address) -> Option<Vip> {
        self.tables.vips.get(address).copied()
    }

    fn ring_slot(&self, block: u32, slot: u32) -> Option<Slot> {
        let block = self
            .tables
            .ring_blocks
            .get(&(block + (slot >> RING_BLOCK_SHIFT)))?;
        Some(Slot(block[slot as usize % RING_BLOCK_SLOTS]))
    }

    fn backend(&self, id: u16) -> Option<&Backend> {
        Some(self.tables.backends.get(&id).unwrap_or(&FREE))
    }

    fn next_round(&self, service_id: u16) -> u64 {
        let mut rounds = self.rounds.borrow_mut();
        let round = rounds.entry(service_id).or_default();
        *round += 1;
        *round - 1
    }

    fn opaque(&self, value: u64) -> u64 {
        value
    }

    fn flow_set_count(&self) -> u32 {
        FLOW_SETS
    }

    fn flow_set(&self, index: u32) -> Option<MemoryFlowSet> {
        (index < FLOW_SETS).then(|| MemoryFlowSet {
            table: Rc::clone(&self.flows),
            index: index as usize,
        })
    }

    fn handshake(&self, place: FlowPlace) -> Option<Handshake> {
        let origin = *self.origins.borrow().get(&place.0)?;
        Some(Handshake {
            sequence: origin.sequence,
            displaced_id: origin.displaced_id,
            displaced_generation: origin.displaced_generation,
        })
    }

    fn put_flow_origin(&self, place: FlowPlace, origin: &FlowOrigin) {
        self.origins.borrow_mut().insert(place.0, *origin);
    }

    fn put_displaced(&self, place: FlowPlace, backend_id: u16, generation: u16) {
        if let Some(origin) = self.origins.borrow_mut().get_mut(&place.0) {
            origin.displaced_id = backend_id;
            origin.displaced_generation = generation;
        }
    }

    fn has_peers(&self) -> bool {
        self.peers == Peers::Some
    }

    fn note_change(&self, set: u32) {
        if self.has_peers() {
            self.traces.borrow_mut().changed_sets.insert(set);
        }
    }

    fn suppress(&self, service_id: u16, now_s: u32) {
        self.traces.borrow_mut().suppressed.insert(service_id);
        self.suppressed_s.borrow_mut().insert(service_id, now_s);
    }

    fn is_suppressed(&self, service_id: u16, since_s: u32) -> bool {
        let suppressed_s = self.suppressed_s.borrow();
        let stamp_s = suppressed_s.get(&service_id);
        stamp_s.is_some_and(|stamp_s| *stamp_s >= since_s)
    }

    fn nat_reply(&self, key: &EndpointKey) -> Option<&NatReply> {
        self.tables.nat_replies.get(key)
    }

    fn route(&self, destination: &Address) -> Option<&Route> {
        let matching = self
            .tables
            .routes
            .iter()
            .filter(|(key, _)| covers(key, destination));
        matching
            .max_by_key(|(key, _)| key.prefix_len)
            .map(|(_, route)| route)
    }

    fn neighbour(&self, key: &NeighbourKey) -> Option<&Neighbour> {
        self.tables.neighbours.get(key)
    }

    fn want_neighbour(&self, event: &NeighbourWanted) {
        self.traces.borrow_mut().push_wanted(event);
    }

    fn count_forwarded(&self, backend_id: u16, bytes: u64, is_new_flow: bool) {
        let mut traces = self.traces.borrow_mut();
        let stats = traces.backends.entry(backend_id).or_default();
        stats.packets += 1;
        stats.bytes += bytes;
        stats.new_flows += u64::from(is_new_flow);
    }

    fn count_reply(&self, backend_id: u16, bytes: u64) {
        let mut traces = self.traces.borrow_mut();
        let stats = traces.backends.entry(backend_id).or_default();
        stats.reply_packets += 1;
        stats.reply_bytes += bytes;
    }

    fn count_signal(&self, backend_id: u16, signal: Signal) {
        if signal == Signal::None {
            return;
        }
        let mut traces = self.traces.borrow_mut();
        let signals = traces.signals.entry(backend_id).or_default();
        match signal {
            Signal::None => {}
            Signal::RepeatedSyn => signals.repeated_syns += 1,
            Signal::ClientReset => signals.client_resets += 1,
            Signal::BackendReset => signals.backend_resets += 1,
        }
    }

    fn remember_syn(&self, place: u32, mark: u32) -> bool {
        let mut recent = self.recent_syns.borrow_mut();
        recent.insert(place % RECENT_SYNS, mark) == Some(mark)
    }

    fn may_be_told(&self, flow_hash: u64) -> bool {
        let now = Pending::new(flow_hash, self.now_s.get().wrapping_mul(1_000));
        let mut pending_flows = self.pending_flows.borrow_mut();
        let place = Pending::place(flow_hash, PENDING_FLOWS);
        let kept = pending_flows.entry(place).or_default();
        *kept = now.after(*kept);
        self.has_peers() && now.waits(*kept)
    }

    fn count_passed(&self) {
        self.traces.borrow_mut().passed += 1;
    }

    fn count_drop(&self, service_id: u16, reason: DropReason) {
        *self
            .traces
            .borrow_mut()
            .drops
            .entry((service_id, reason))
            .or_default() += 1;
    }
}

fn covers(key: &RouteKey, destination: &Address) -> bool {
    let (prefix, address) = (
        u128::from_be_bytes(key.octets),
        u128::from_be_bytes(destination.octets()),
    );
    key.prefix_len == 0 || (prefix ^ address) >> (128 - key.prefix_len) == 0
}

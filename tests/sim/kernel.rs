//! `Kernel` in plain memory, made for speed: millions of packets a second on one core.

use std::cell::Cell;
use std::rc::Rc;

use bytemuck::Zeroable as _;
use lb_common::abi::{
    Address, Backend, EndpointKey, FINGERPRINT_BUSY, FLOW_SET_ENTRIES, FlowEntry, FlowOrigin,
    FlowRecord, FlowState, ForwardMode, NatReply, Neighbour, NeighbourKey, NeighbourWanted, Route,
    Service, Slot, Vip,
};
use lb_common::datapath::flow::{self, FlowPlace};
use lb_common::drop_reason::DropReason;
use lb_common::kernel::{FlowSetHandle, Handshake, Kernel, Signal};
use lb_common::limits::HASH_KEY_WORDS;

use crate::packet::{PORT, VIP};
use crate::rules::{Rule, Rules};

type Entries = Rc<[Cell<FlowEntry>]>;

/// The datapath's surroundings on one node, with one service.
pub(crate) struct SimKernel {
    /// The clock. Unit: seconds.
    pub(crate) now_s: u32,
    pub(crate) service: Service,
    pub(crate) ring: Vec<Slot>,
    /// By id; 0 is none.
    pub(crate) backends: Vec<Backend>,
    /// The last second in which a flow was not recorded; 0 = never.
    pub(crate) suppressed_s: Rc<Cell<u32>>,
    /// The flow table. One entry more than it has, where what is not to be recorded ends up.
    pub(crate) entries: Entries,
    origins: Rc<[Cell<FlowOrigin>]>,
    /// By set: it has changed. `None`: nobody wants to know.
    changes: Option<Rc<[Cell<bool>]>>,
    hash_key: [u64; HASH_KEY_WORDS],
    rules: Rules,
    /// The sequence number of the packet that is being steered.
    pub(crate) sequence: Cell<u32>,
    /// Where it went.
    pub(crate) forwarded_to: Cell<u16>,
}

impl SimKernel {
    pub(crate) fn new(
        set_count: u32,
        backend_count: usize,
        service: Service,
        rules: Rules,
    ) -> Self {
        let entry_count = set_count as usize * FLOW_SET_ENTRIES;
        let key = |word: u64| lb_common::hash::mix(word);
        Self {
            now_s: 0,
            service,
            ring: vec![Slot::EMPTY; service.ring_len as usize],
            backends: vec![Backend::zeroed(); backend_count + 1],
            suppressed_s: Rc::default(),
            entries: (0..=entry_count).map(|_| Cell::new(FREE_ENTRY)).collect(),
            origins: vec![Cell::new(FlowOrigin::zeroed()); entry_count + 1].into(),
            changes: None,
            hash_key: [key(1), key(2), key(3), key(4)],
            rules,
            sequence: Cell::new(0),
            forwarded_to: Cell::new(0),
        }
    }

    /// The same with marks of the sets that packets change.
    pub(crate) fn marking_changes(mut self) -> Self {
        let set_count = self.flow_set_count() as usize;
        self.changes = Some(vec![Cell::new(false); set_count].into());
        self
    }

    /// The same flow table for somebody who is no packet: what changes in it so is not marked.
    pub(crate) fn beside_packets(&self) -> Self {
        Self {
            now_s: self.now_s,
            service: self.service,
            ring: Vec::new(),
            backends: self.backends.clone(),
            suppressed_s: Rc::clone(&self.suppressed_s),
            entries: Rc::clone(&self.entries),
            origins: Rc::clone(&self.origins),
            changes: None,
            hash_key: self.hash_key,
            rules: self.rules.clone(),
            sequence: Cell::new(0),
            forwarded_to: Cell::new(0),
        }
    }

    /// Whether a set's mark is there.
    pub(crate) fn is_marked(&self, set: u32) -> bool {
        let changes = self.changes.as_ref();
        changes.is_some_and(|changes| changes[set as usize].get())
    }

    /// The marks of the sets that packets have changed.
    pub(crate) fn changes(&self) -> Rc<[Cell<bool>]> {
        self.changes.clone().unwrap_or_default()
    }

    /// An entry of `BACKENDS` for the backend with this id.
    pub(crate) fn backend_entry(id: u16, generation: u16, is_up: bool) -> Backend {
        Backend {
            ifindex: 1,
            service_id: SERVICE_ID,
            generation,
            forward: ForwardMode::Dsr as u8,
            is_resolved: 1,
            is_up: u8::from(is_up),
            address: Address::from_ipv4_be(u32::from(id).to_be()),
            ..Backend::zeroed()
        }
    }

    /// Where the table keeps a flow, if it does.
    pub(crate) fn find(&self, fingerprint: u64) -> Option<(usize, FlowRecord)> {
        let (first, second) = flow::sets(fingerprint, self.flow_set_count());
        [first, second].into_iter().find_map(|set| {
            let base = set as usize * FLOW_SET_ENTRIES;
            let is_its = |place: &usize| self.entries[*place].get().fingerprint == fingerprint;
            let place = (base..base + FLOW_SET_ENTRIES).find(is_its)?;
            Some((place, self.entries[place].get().record))
        })
    }

    pub(crate) fn origin(&self, place: usize) -> FlowOrigin {
        self.origins[place].get()
    }

    pub(crate) fn entry_count(&self) -> usize {
        self.entries.len() - 1
    }

    /// Where a record goes that a rule which is switched off would have entered.
    fn scratch(&self) -> FlowPlace {
        FlowPlace(self.entry_count() as u32)
    }

    /// The classical eviction: whatever expires first has to go.
    fn record_at_any_price(&self, fingerprint: u64, record: FlowRecord) -> Option<FlowPlace> {
        let (first, second) = flow::sets(fingerprint, self.flow_set_count());
        let places = [first, second].into_iter().flat_map(|set| {
            let base = set as usize * FLOW_SET_ENTRIES;
            base..base + FLOW_SET_ENTRIES
        });
        let spared = |place: &usize| {
            let entry = self.entries[*place].get();
            let is_taken = entry.fingerprint != 0 && entry.fingerprint != fingerprint;
            (is_taken, entry.record.remaining_s(self.now_s))
        };
        let place = match self.find(fingerprint) {
            Some((place, _)) => place,
            None => places.min_by_key(spared)?,
        };
        self.entries[place].set(FlowEntry {
            fingerprint,
            record,
        });
        Some(FlowPlace(place as u32))
    }
}

/// The one service.
pub(crate) const SERVICE_ID: u16 = 1;

/// An entry without a flow.
pub(crate) const FREE_ENTRY: FlowEntry = FlowEntry {
    fingerprint: 0,
    record: FlowRecord(0),
};

/// A set of the flow table.
pub(crate) struct SimFlowSet {
    entries: Entries,
    base: usize,
}

impl SimFlowSet {
    fn at(&self, entry: usize) -> &Cell<FlowEntry> {
        &self.entries[self.base + entry]
    }
}

impl FlowSetHandle for SimFlowSet {
    fn fingerprint(&self, entry: usize) -> u64 {
        self.at(entry).get().fingerprint
    }

    fn record(&self, entry: usize) -> FlowRecord {
        self.at(entry).get().record
    }

    fn claim(&self, entry: usize, old: u64) -> bool {
        let found = self.at(entry).get();
        let is_ours = found.fingerprint == old;
        if is_ours {
            self.at(entry).set(FlowEntry {
                fingerprint: FINGERPRINT_BUSY,
                ..found
            });
        }
        is_ours
    }

    fn fill(&self, entry: usize, fingerprint: u64, record: FlowRecord) {
        self.at(entry).set(FlowEntry {
            fingerprint,
            record,
        });
    }

    fn replace_record(&self, entry: usize, old: FlowRecord, new: FlowRecord) {
        let found = self.at(entry).get();
        if found.record == old {
            self.at(entry).set(FlowEntry {
                record: new,
                ..found
            });
        }
    }
}

impl Kernel for SimKernel {
    type FlowSet = SimFlowSet;

    fn now_s(&self) -> u32 {
        self.now_s
    }

    fn hash_key(&self) -> [u64; HASH_KEY_WORDS] {
        self.hash_key
    }

    fn service(&self, key: &EndpointKey) -> Option<Service> {
        (key.port_be == PORT.to_be()).then_some(self.service)
    }

    fn vip(&self, address: &Address) -> Option<Vip> {
        (*address == Address::from_ipv4_be(VIP.to_be())).then_some(Vip(1))
    }

    fn ring_slot(&self, _block: u32, slot: u32) -> Option<Slot> {
        self.ring.get(slot as usize).copied()
    }

    fn backend(&self, id: u16) -> Option<&Backend> {
        self.backends.get(usize::from(id))
    }

    fn next_round(&self, _service_id: u16) -> u64 {
        0
    }

    fn opaque(&self, value: u64) -> u64 {
        value
    }

    fn flow_set_count(&self) -> u32 {
        (self.entry_count() / FLOW_SET_ENTRIES) as u32
    }

    fn flow_set(&self, index: u32) -> Option<SimFlowSet> {
        Some(SimFlowSet {
            entries: Rc::clone(&self.entries),
            base: index as usize * FLOW_SET_ENTRIES,
        })
    }

    fn handshake(&self, place: FlowPlace) -> Option<Handshake> {
        let origin = self.origin(place.0 as usize);
        let is_checked = self.rules.has(Rule::SequenceCheck);
        let is_restored = self.rules.has(Rule::Displaced);
        Some(Handshake {
            sequence: if is_checked {
                origin.sequence
            } else {
                self.sequence.get()
            },
            displaced_id: if is_restored { origin.displaced_id } else { 0 },
            displaced_generation: origin.displaced_generation,
        })
    }

    fn put_flow_origin(&self, place: FlowPlace, origin: &FlowOrigin) {
        self.origins[place.0 as usize].set(*origin);
    }

    fn put_displaced(&self, place: FlowPlace, backend_id: u16, generation: u16) {
        let origin = &self.origins[place.0 as usize];
        origin.set(FlowOrigin {
            displaced_id: backend_id,
            displaced_generation: generation,
            ..origin.get()
        });
    }

    /// It makes no difference to the services of the simulator.
    fn has_peers(&self) -> bool {
        false
    }

    fn note_change(&self, set: u32) {
        if let Some(changes) = &self.changes {
            changes[set as usize].set(true);
        }
    }

    fn suppress(&self, _service_id: u16, now_s: u32) {
        if self.rules.has(Rule::Suppressed) {
            self.suppressed_s.set(now_s);
        }
    }

    fn is_suppressed(&self, _service_id: u16, since_s: u32) -> bool {
        let stamp_s = self.suppressed_s.get();
        stamp_s != 0 && stamp_s >= since_s
    }

    /// No service of the simulator keeps every flow on record.
    fn may_be_told(&self, _flow_hash: u64) -> bool {
        false
    }

    fn record_flow(&self, fingerprint: u64, record: FlowRecord, now_s: u32) -> Option<FlowPlace> {
        let rule = if record.state().has(FlowState::LEARNED) {
            Rule::Learning
        } else {
            Rule::Recording
        };
        if !self.rules.has(rule) {
            return Some(self.scratch());
        }
        if !self.rules.has(Rule::Admission) {
            return self.record_at_any_price(fingerprint, record);
        }
        flow::record(self, fingerprint, record, now_s)
    }

    fn nat_reply(&self, _key: &EndpointKey) -> Option<&NatReply> {
        None
    }

    fn route(&self, _destination: &Address) -> Option<&Route> {
        None
    }

    fn neighbour(&self, _key: &NeighbourKey) -> Option<&Neighbour> {
        None
    }

    fn want_neighbour(&self, _event: &NeighbourWanted) {}

    fn count_forwarded(&self, backend_id: u16, _bytes: u64, _is_new_flow: bool) {
        self.forwarded_to.set(backend_id);
    }

    fn count_reply(&self, _backend_id: u16, _bytes: u64) {}

    fn count_signal(&self, _backend_id: u16, _signal: Signal) {}

    fn remember_syn(&self, _place: u32, _mark: u32) -> bool {
        false
    }

    fn count_passed(&self) {}

    fn count_drop(&self, _service_id: u16, _reason: DropReason) {}
}

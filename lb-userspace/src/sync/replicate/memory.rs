//! A flow table in plain memory, without a packet path: for tests and the bench.

use std::sync::Arc;

use lb_common::abi::{
    FINGERPRINT_MIN, FLOW_SET_ENTRIES, FlowEntry, FlowRecord, FlowSet, FlowState,
};
use lb_common::datapath::flow::{FlowPlace, sets};

use super::dictionary::Dictionary;
use super::table::{Merge, Merged, Table};
use crate::sync::flow::SharedFlow;

/// Seconds after which a peer is told of a longer life.
pub const REFRESH_S: u32 = 30;

/// A table whose fingerprints are the flow hashes, and which keeps the record that expires later; of two that
/// expire in the same second, the one of the higher backend id.
pub struct MemoryTable {
    sets: Vec<FlowSet>,
    services: Vec<[u16; FLOW_SET_ENTRIES]>,
    changed: Vec<bool>,
    changed_sets: Vec<u32>,
    dictionary: Arc<Dictionary>,
}

const FREE: FlowEntry = FlowEntry {
    fingerprint: 0,
    record: FlowRecord(0),
};

impl MemoryTable {
    /// An empty one.
    pub fn new(set_count: u32, dictionary: Dictionary) -> Self {
        let set = FlowSet {
            entries: [FREE; FLOW_SET_ENTRIES],
        };
        Self {
            sets: vec![set; set_count as usize],
            services: vec![[0; FLOW_SET_ENTRIES]; set_count as usize],
            changed: vec![false; set_count as usize],
            changed_sets: Vec::new(),
            dictionary: Arc::new(dictionary),
        }
    }

    /// Other words from now on.
    pub fn set_dictionary(&mut self, dictionary: Dictionary) {
        self.dictionary = Arc::new(dictionary);
    }

    /// Writes a flow as a packet would, and marks it as changed; false if there is no room.
    pub fn write(&mut self, fingerprint: u64, service_id: u16, record: FlowRecord) -> bool {
        let Some(place) = self.place(fingerprint) else {
            return false;
        };
        self.put(
            place,
            service_id,
            FlowEntry {
                fingerprint,
                record,
            },
        );
        let set = place.set();
        if !std::mem::replace(&mut self.changed[set as usize], true) {
            self.changed_sets.push(set);
        }
        true
    }

    /// The record of a flow.
    pub fn find(&self, fingerprint: u64) -> Option<FlowRecord> {
        let place = self.place(fingerprint)?;
        let entry = self.at(place);
        (entry.fingerprint == fingerprint).then_some(entry.record)
    }

    /// Flows on record.
    pub fn len(&self) -> usize {
        let entries = self.sets.iter().flat_map(|set| &set.entries);
        entries
            .filter(|entry| entry.fingerprint >= FINGERPRINT_MIN)
            .count()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn at(&self, place: FlowPlace) -> &FlowEntry {
        &self.sets[place.set() as usize].entries[place.entry()]
    }

    fn put(&mut self, place: FlowPlace, service_id: u16, entry: FlowEntry) {
        self.sets[place.set() as usize].entries[place.entry()] = entry;
        self.services[place.set() as usize][place.entry()] = service_id;
    }

    /// Where a flow is, or may be put.
    fn place(&self, fingerprint: u64) -> Option<FlowPlace> {
        let (first, second) = sets(fingerprint, self.sets.len() as u32);
        let places = [first, second].into_iter().flat_map(|set| {
            let start = set * FLOW_SET_ENTRIES as u32;
            (start..start + FLOW_SET_ENTRIES as u32).map(FlowPlace)
        });
        let has = |fingerprint| {
            let is_there = move |place: &FlowPlace| self.at(*place).fingerprint == fingerprint;
            places.clone().find(is_there)
        };
        has(fingerprint).or_else(|| has(0))
    }
}

impl Table for MemoryTable {
    fn set_count(&self) -> u32 {
        self.sets.len() as u32
    }

    fn take_changed(&mut self, sets: &mut Vec<u32>, count_max: usize) {
        let count = count_max.min(self.changed_sets.len());
        for set in self.changed_sets.drain(..count) {
            self.changed[set as usize] = false;
            sets.push(set);
        }
    }

    fn read_set(&self, set: u32) -> FlowSet {
        self.sets[set as usize]
    }

    fn share(&self, place: FlowPlace, entry: &FlowEntry, now_s: u32) -> Option<SharedFlow> {
        let record = entry.record;
        let remaining_s = record.remaining_s(now_s);
        (remaining_s >= 0).then(|| SharedFlow {
            flow_hash: entry.fingerprint,
            client: [0; 16],
            sequence: 0,
            remaining_s,
            client_port_be: 0,
            port_be: 0,
            service_id: self.services[place.set() as usize][place.entry()],
            backend_id: record.backend_id(),
            displaced_id: 0,
            state: record.state().0,
            reserved: 0,
            generation: record.backend_generation(),
            displaced_generation: 0,
        })
    }

    fn refresh_s(&self, _entry: &FlowEntry) -> u32 {
        REFRESH_S
    }

    fn dictionary(&self) -> Arc<Dictionary> {
        Arc::clone(&self.dictionary)
    }
}

impl Merge for MemoryTable {
    fn merge(&mut self, flow: &SharedFlow, now_s: u32) -> Merged {
        let fingerprint = flow.flow_hash;
        if fingerprint < FINGERPRINT_MIN || flow.remaining_s < 0 {
            return Merged::Refused;
        }
        let expires_s = now_s.wrapping_add_signed(flow.remaining_s);
        let state = FlowState(flow.state);
        let record = FlowRecord::new(flow.backend_id, flow.generation, expires_s, state);
        let Some(place) = self.place(fingerprint) else {
            return Merged::NoRoom;
        };
        let entry = *self.at(place);
        let rank = |record: FlowRecord| (record.remaining_s(now_s), record.backend_id());
        let is_later = entry.fingerprint == fingerprint && rank(entry.record) > rank(record);
        if is_later && entry.record.backend_id() != flow.backend_id {
            return Merged::Later { place };
        }
        if !is_later {
            let entry = FlowEntry {
                fingerprint,
                record,
            };
            self.put(place, flow.service_id, entry);
        }
        Merged::Agreed {
            place,
            entry: *self.at(place),
        }
    }
}

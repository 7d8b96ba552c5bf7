//! Flows of one node in the others' tables: a stand-in for the replication over the real link, by the same
//! rules. Level-triggered: of what is under way only the sets are remembered; what is lost is read and sent anew.

use std::collections::BTreeMap;

use lb_common::abi::{FLOW_SET_ENTRIES, FlowEntry, FlowOrigin};
use lb_userspace::maps::flow_rule::{Clocks, Lifetime, Sighting, compare};

use crate::kernel::SimKernel;
use lb_userspace::sync::flow::refresh_s;

/// A flow on its way to another node; ids are the same everywhere here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SharedFlow {
    pub(crate) entry: FlowEntry,
    pub(crate) remaining_s: i32,
    pub(crate) origin: FlowOrigin,
}

/// Flows in one datagram.
#[derive(Clone, Debug)]
pub(crate) struct Datagram {
    pub(crate) number: u64,
    /// By the sender's clock. Unit: milliseconds.
    pub(crate) sent_ms: u64,
    pub(crate) flows: Vec<SharedFlow>,
}

/// A set whose entries are under way: since when it differs, and what is told of it, by place.
type Told = (u32, u64, Vec<(usize, FlowEntry)>);

/// What one node tells one peer.
#[derive(Clone, Debug)]
pub(crate) struct Sender {
    /// What the peer is known to have, by place.
    shadow: Vec<FlowEntry>,
    /// Sets that may differ, and since when.
    dirty: BTreeMap<u32, u64>,
    /// By number: when it was sent, and of which sets, with since when those differ.
    in_flight: BTreeMap<u64, (u64, Vec<Told>)>,
    number: u64,
    /// All that was there when the link came up has been acknowledged.
    pub(crate) is_complete: bool,
}

/// After which an acknowledgement is not waited for any more. Unit: milliseconds.
const RETRY_MS: u64 = 60;
/// Sets in one datagram.
const SETS_MAX: usize = 8;

impl Sender {
    /// Everything is to be told.
    pub(crate) fn new(set_count: u32, now_ms: u64) -> Self {
        Self {
            shadow: vec![crate::kernel::FREE_ENTRY; set_count as usize * FLOW_SET_ENTRIES],
            dirty: (0..set_count).map(|set| (set, now_ms)).collect(),
            in_flight: BTreeMap::new(),
            number: 0,
            is_complete: false,
        }
    }

    pub(crate) fn mark(&mut self, set: u32, now_ms: u64) {
        self.dirty.entry(set).or_insert(now_ms);
    }

    /// The age of the oldest change that the peer has not acknowledged. Unit: milliseconds.
    pub(crate) fn lag_ms(&self, now_ms: u64) -> u64 {
        let waiting = self.in_flight.values().flat_map(|(_, sets)| sets);
        let since_ms = self
            .dirty
            .values()
            .copied()
            .chain(waiting.map(|(_, since_ms, _)| *since_ms));
        since_ms.min().map_or(0, |since_ms| now_ms - since_ms)
    }

    /// Whether the peer may not have what stands in this set.
    pub(crate) fn is_pending(&self, set: u32) -> bool {
        let waiting = self.in_flight.values().flat_map(|(_, sets)| sets);
        let mut waiting = waiting.map(|(one, ..)| *one);
        self.dirty.contains_key(&set) || waiting.any(|one| one == set)
    }

    /// What is to be sent now.
    pub(crate) fn send(&mut self, kernel: &SimKernel, now_ms: u64) -> Vec<Datagram> {
        let late = |(_, (sent_ms, _)): &(&u64, &(u64, _))| now_ms >= *sent_ms + RETRY_MS;
        let lost: Vec<u64> = self
            .in_flight
            .iter()
            .filter(late)
            .map(|(number, _)| *number)
            .collect();
        for number in lost {
            let (_, sets) = self.in_flight.remove(&number).unwrap_or_default();
            for (set, since_ms, _) in sets {
                let known = self.dirty.entry(set).or_insert(since_ms);
                *known = since_ms.min(*known);
            }
        }
        let mut datagrams = Vec::new();
        let mut flows = Vec::new();
        let mut sets = Vec::new();
        for (set, since_ms) in std::mem::take(&mut self.dirty) {
            let told = self.differing(set, kernel);
            if told.is_empty() {
                continue;
            }
            flows.extend(told.iter().map(|(place, entry)| SharedFlow {
                entry: *entry,
                remaining_s: entry.record.remaining_s(kernel.now_s),
                origin: kernel.origin(*place),
            }));
            sets.push((set, since_ms, told));
            if sets.len() == SETS_MAX {
                datagrams.push(self.datagram(&mut flows, &mut sets, now_ms));
            }
        }
        if !sets.is_empty() {
            datagrams.push(self.datagram(&mut flows, &mut sets, now_ms));
        }
        self.is_complete |= self.dirty.is_empty() && self.in_flight.is_empty();
        datagrams
    }

    fn datagram(
        &mut self,
        flows: &mut Vec<SharedFlow>,
        sets: &mut Vec<Told>,
        now_ms: u64,
    ) -> Datagram {
        self.number += 1;
        self.in_flight
            .insert(self.number, (now_ms, std::mem::take(sets)));
        Datagram {
            number: self.number,
            sent_ms: 0,
            flows: std::mem::take(flows),
        }
    }

    fn differing(&self, set: u32, kernel: &SimKernel) -> Vec<(usize, FlowEntry)> {
        let base = set as usize * FLOW_SET_ENTRIES;
        let lifetime = Lifetime {
            protocol: 6,
            idle_timeout_s: kernel.service.idle_timeout_s,
        };
        let refresh_s = refresh_s(kernel.service.idle_timeout_s) as i32;
        let entries = (base..base + FLOW_SET_ENTRIES).filter_map(|place| {
            let (entry, known) = (kernel.entries[place].get(), self.shadow[place]);
            if entry.fingerprint < lb_common::abi::FINGERPRINT_MIN {
                return None;
            }
            let is_other = entry.fingerprint != known.fingerprint
                || entry.record.backend_id() != known.record.backend_id()
                || entry.record.state() != known.record.state();
            let remaining_s = entry.record.remaining_s(kernel.now_s);
            let is_later = remaining_s - known.record.remaining_s(kernel.now_s) >= refresh_s;
            (lifetime.may_live(entry.record.state(), remaining_s) && (is_other || is_later))
                .then_some((place, entry))
        });
        entries.collect()
    }

    /// The peer has it.
    pub(crate) fn acknowledged(&mut self, number: u64) {
        let (_, sets) = self.in_flight.remove(&number).unwrap_or_default();
        for (place, entry) in sets.into_iter().flat_map(|(_, _, told)| told) {
            self.shadow[place] = entry;
        }
        self.is_complete |= self.dirty.is_empty() && self.in_flight.is_empty();
    }

    /// What came from the peer needs not be told back.
    pub(crate) fn note_agreed(&mut self, place: usize, entry: FlowEntry) {
        self.shadow[place] = entry;
    }
}

/// Takes a flow that a peer has told of; answers where it is now, if the table has what the peer has.
pub(crate) fn merge(kernel: &SimKernel, flow: &SharedFlow) -> Option<(usize, FlowEntry)> {
    let lifetime = Lifetime {
        protocol: 6,
        idle_timeout_s: kernel.service.idle_timeout_s,
    };
    let record = flow.entry.record;
    let expiry_s = kernel.now_s.wrapping_add_signed(flow.remaining_s);
    let record = record.updated(expiry_s, record.state());
    let sighting = |record: lb_common::abi::FlowRecord, origin: &FlowOrigin| Sighting {
        age_s: lifetime.age_s(record, kernel.now_s),
        state: record.state(),
        sequence: origin.sequence,
        backend: u64::from(record.backend_id()),
        displaced: u64::from(origin.displaced_id),
    };
    let entry = FlowEntry {
        fingerprint: flow.entry.fingerprint,
        record,
    };
    if let Some((place, known)) = kernel.find(entry.fingerprint) {
        let here = sighting(known, &kernel.origin(place));
        let there = sighting(record, &flow.origin);
        match compare(&there, &here, Clocks::Each) {
            std::cmp::Ordering::Less => return None,
            std::cmp::Ordering::Equal => {}
            std::cmp::Ordering::Greater => {
                kernel.entries[place].set(entry);
                kernel.put_origin(place, &flow.origin);
            }
        }
        return Some((place, kernel.entries[place].get()));
    }
    if !lifetime.may_live(record.state(), flow.remaining_s) {
        return None;
    }
    use lb_common::kernel::Kernel as _;
    match lb_common::datapath::flow::record(kernel, entry.fingerprint, record, kernel.now_s) {
        Some(place) => {
            let place = place.0 as usize;
            kernel.put_origin(place, &flow.origin);
            Some((place, kernel.entries[place].get()))
        }
        None => {
            kernel.suppress(kernel.service.id, kernel.now_s);
            None
        }
    }
}

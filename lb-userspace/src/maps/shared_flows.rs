//! The flow table as the replication of flows sees it: what it tells peers, and what it takes from them.

use std::sync::Arc;

use bytemuck::Zeroable;
use lb_common::abi::{
    Address, FLOW_SET_ENTRIES, FlowEntry, FlowOrigin, FlowRecord, FlowSet, FlowState,
};
use lb_common::datapath::flow::{self, FlowPlace};
use lb_common::datapath::life;
use lb_common::hash::{self, FlowTuple};
use lb_common::limits::{HASH_KEY_WORDS, IDLE_TIMEOUT_UDP_S};

use super::flow_merge::{self, Standing};
use super::flow_rule::{Clocks, Lifetime, Sighting, compare};
use super::meanings::{KnownService, Meanings, Snapshot};
use super::{Flow, FlowMemory};
use crate::sync::flow::{SharedFlow, refresh_s};
use crate::sync::replicate::dictionary::Dictionary;
use crate::sync::replicate::table::{Merge, Merged, Table};

/// The flow table of a datapath, for the thread that tells its flows to peers. It belongs to that thread alone;
/// packets and the engine go on using the table.
pub struct SharedFlows {
    flows: Arc<FlowMemory>,
    meanings: Meanings,
    /// Of `meanings`, when the snapshot was taken.
    version: u64,
    snapshot: Snapshot,
    hash_key: [u64; HASH_KEY_WORDS],
    /// Where the next search for marks begins: so each set has its turn, however many have changed.
    next_set: u32,
}

impl SharedFlows {
    pub(super) fn new(
        flows: Arc<FlowMemory>,
        meanings: Meanings,
        hash_key: [u64; HASH_KEY_WORDS],
    ) -> Self {
        let mut shared = Self {
            flows,
            meanings,
            version: 0,
            snapshot: Snapshot::default(),
            hash_key,
            next_set: 0,
        };
        shared.look_up_meanings();
        shared
    }

    /// The version is read first: what is written meanwhile is looked up the next time.
    fn look_up_meanings(&mut self) {
        let version = self.meanings.version();
        if version != self.version {
            self.snapshot = self.meanings.snapshot().after(&self.snapshot);
            self.version = version;
        }
    }

    /// Whether an origin is of the flow with this hash, and not yet that of the flow before it in its place.
    fn is_of(&self, origin: &FlowOrigin, service: &KnownService, flow_hash: u64) -> bool {
        let ports = u32::from(origin.client_port_be) << 16 | u32::from(origin.port_be);
        let tuple = FlowTuple {
            source: origin.client,
            destination: service.key.address,
            ports,
        };
        hash::flow(&tuple, &self.hash_key) == flow_hash
    }

    /// A record in terms that mean the same everywhere; `None` if its backend has gone.
    fn sighting(&self, flow: &Flow, lifetime: &Lifetime, now_s: u32) -> Option<Sighting> {
        let (backend, _) = self.snapshot.of_record(flow.record)?;
        let origin = &flow.origin;
        let displaced = self
            .snapshot
            .backend(origin.displaced_id, origin.displaced_generation);
        Some(Sighting {
            age_s: lifetime.age_s(flow.record, now_s),
            state: flow.record.state(),
            sequence: origin.sequence,
            backend: backend.identity,
            displaced: displaced.map_or(0, |displaced| displaced.identity),
        })
    }

    /// A peer's record as one of this table; `None` if it cannot be that.
    fn flow_of(&self, shared: &SharedFlow, now_s: u32) -> Option<(Flow, Lifetime)> {
        let service = self.snapshot.service(shared.service_id)?;
        let backend = self
            .snapshot
            .backend(shared.backend_id, shared.generation)?;
        let origin = FlowOrigin {
            client: Address(bytemuck::cast(shared.client)),
            client_port_be: shared.client_port_be,
            port_be: shared.port_be,
            sequence: shared.sequence,
            displaced_id: shared.displaced_id,
            displaced_generation: shared.displaced_generation,
        };
        let (lifetime, state) = (service.lifetime(), FlowState(shared.state));
        let is_whole = backend.service_id == service.service.id
            && lifetime.may_live(state, shared.remaining_s)
            && self.is_of(&origin, service, shared.flow_hash);
        if !is_whole {
            return None;
        }
        // No longer than this node would keep it.
        let linger_s = life::linger_s(state, lifetime.protocol, lifetime.idle_timeout_s);
        let remaining_s = shared.remaining_s.min(linger_s as i32);
        let expires_s = now_s.wrapping_add_signed(remaining_s);
        let record = FlowRecord::new(shared.backend_id, shared.generation, expires_s, state);
        let fingerprint = flow::fingerprint(&service.service, shared.flow_hash);
        let flow = Flow {
            fingerprint,
            record,
            origin,
        };
        Some((flow, lifetime))
    }
}

/// How a present record stands to a peer's. What differs by a second only tells the same: it would be told
/// to and fro.
fn standing(present: &Sighting, new: &Sighting) -> Standing {
    let is_alike = present.backend == new.backend
        && present.state == new.state
        && present.sequence == new.sequence
        && present.age_s.abs_diff(new.age_s) <= 1;
    if is_alike {
        return Standing::Same;
    }
    match compare(present, new, Clocks::Each) {
        std::cmp::Ordering::Less => Standing::Earlier,
        std::cmp::Ordering::Equal => Standing::Same,
        std::cmp::Ordering::Greater => Standing::Later,
    }
}

impl Table for SharedFlows {
    fn set_count(&self) -> u32 {
        self.flows.set_count()
    }

    fn take_changed(&mut self, sets: &mut Vec<u32>, count_max: usize) {
        self.next_set = self.flows.take_changed(self.next_set, sets, count_max);
        // After the marks: what these flows lead to was written before them.
        self.look_up_meanings();
    }

    fn read_set(&self, set: u32) -> FlowSet {
        let first = set as usize * FLOW_SET_ENTRIES;
        let entries = std::array::from_fn(|number| {
            let entry = self.flows.entry(first + number);
            entry.unwrap_or_else(FlowEntry::zeroed)
        });
        FlowSet { entries }
    }

    fn share(&self, place: FlowPlace, entry: &FlowEntry, now_s: u32) -> Option<SharedFlow> {
        let remaining_s = entry.record.remaining_s(now_s);
        let (backend, service) = self.snapshot.of_record(entry.record)?;
        if !service
            .lifetime()
            .may_live(entry.record.state(), remaining_s)
        {
            return None;
        }
        let found = self.flows.words(place.0 as usize).read()?;
        let flow_hash = flow::flow_hash(&service.service, entry.fingerprint);
        let is_its = (found.fingerprint, found.record) == (entry.fingerprint, entry.record)
            && self.is_of(&found.origin, service, flow_hash);
        is_its.then(|| SharedFlow {
            flow_hash,
            client: found.origin.client.octets(),
            sequence: found.origin.sequence,
            remaining_s,
            client_port_be: found.origin.client_port_be,
            port_be: found.origin.port_be,
            service_id: backend.service_id,
            backend_id: entry.record.backend_id(),
            displaced_id: found.origin.displaced_id,
            state: entry.record.state().0,
            reserved: 0,
            generation: entry.record.backend_generation(),
            displaced_generation: found.origin.displaced_generation,
        })
    }

    fn refresh_s(&self, entry: &FlowEntry) -> u32 {
        let service = self.snapshot.of_record(entry.record);
        let timeout_s = service.map_or(IDLE_TIMEOUT_UDP_S, |(_, service)| {
            service.service.idle_timeout_s
        });
        refresh_s(timeout_s)
    }

    fn dictionary(&self) -> Arc<Dictionary> {
        Arc::clone(&self.snapshot.dictionary)
    }
}

impl Merge for SharedFlows {
    fn merge(&mut self, shared: &SharedFlow, now_s: u32) -> Merged {
        self.look_up_meanings();
        let Some((new, lifetime)) = self.flow_of(shared, now_s) else {
            return Merged::Refused;
        };
        let Some(told) = self.sighting(&new, &lifetime, now_s) else {
            return Merged::Refused;
        };
        flow_merge::merge(&self.flows, &new, now_s, |present| {
            match self.sighting(present, &lifetime, now_s) {
                Some(present) => standing(&present, &told),
                None => Standing::Earlier,
            }
        })
    }
}

#[cfg(test)]
#[path = "shared_flows_tests.rs"]
mod tests;

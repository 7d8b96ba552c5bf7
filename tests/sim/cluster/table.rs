//! A node's flow table as the real replication of flows sees it: the memory that its packets use, the rule by which
//! production code judges two records, and the packet path's own admission.

use std::cell::Cell;
use std::cmp::Ordering;
use std::rc::Rc;
use std::sync::Arc;

use lb_common::abi::{
    Address, Backend, FINGERPRINT_MIN, FLOW_SET_ENTRIES, FlowEntry, FlowOrigin, FlowRecord,
    FlowSet, FlowState,
};
use lb_common::datapath::flow::{self, FlowPlace};
use lb_common::datapath::life;
use lb_common::hash::{self, FlowTuple};
use lb_common::kernel::Kernel as _;
use lb_common::wire::tcp::PROTOCOL_TCP;
use lb_userspace::maps::flow_rule::{Clocks, Lifetime, Sighting, compare};
use lb_userspace::sync::flow::{SharedFlow, refresh_s};
use lb_userspace::sync::replicate::dictionary::{BackendEndpoint, Dictionary};
use lb_userspace::sync::replicate::table::{Merge, Merged, Table};

use super::node::{SERVICE, address_of};
use crate::kernel::{FREE_ENTRY, SimKernel};
use crate::packet::VIP;

/// The table.
pub(super) struct SimTable {
    kernel: SimKernel,
    changes: Rc<[Cell<bool>]>,
    dictionary: Arc<Dictionary>,
}

/// A peer's record as one of this table.
struct Told {
    entry: FlowEntry,
    origin: FlowOrigin,
}

impl SimTable {
    /// The table of a node's packets.
    pub(super) fn of(kernel: &SimKernel) -> Self {
        let mut table = Self {
            kernel: kernel.beside_packets(),
            changes: kernel.changes(),
            dictionary: Arc::default(),
        };
        table.learn_backends(&kernel.backends);
        table
    }

    /// These are the node's backends now.
    pub(super) fn learn_backends(&mut self, backends: &[Backend]) {
        if !self.dictionary.services.is_empty() && self.kernel.backends == backends {
            return;
        }
        self.kernel.backends = backends.to_vec();
        let services = [(self.kernel.service.id, SERVICE)].into();
        let known = (0..).zip(backends);
        let backends = known.filter(|(_, backend)| backend.service_id != 0);
        let endpoint = |(id, backend): (u16, &Backend)| {
            let endpoint = BackendEndpoint {
                service_id: backend.service_id,
                generation: backend.generation,
                address: address_of(id),
            };
            (id, endpoint)
        };
        let dictionary = Dictionary {
            services,
            backends: backends.map(endpoint).collect(),
        };
        if *self.dictionary != dictionary {
            self.dictionary = Arc::new(dictionary);
        }
    }

    fn is_live(&self, record: FlowRecord) -> bool {
        let backend = self.kernel.backends.get(usize::from(record.backend_id()));
        backend.is_some_and(|backend| backend.is_live(record.backend_generation()))
    }

    fn lifetime(&self) -> Lifetime {
        Lifetime {
            protocol: PROTOCOL_TCP,
            idle_timeout_s: self.kernel.service.idle_timeout_s,
        }
    }

    /// A peer's record in this table's words; `None` if it cannot be that.
    fn told(&self, shared: &SharedFlow, now_s: u32) -> Option<Told> {
        let origin = FlowOrigin {
            client: Address(bytemuck::cast(shared.client)),
            client_port_be: shared.client_port_be,
            port_be: shared.port_be,
            sequence: shared.sequence,
            displaced_id: shared.displaced_id,
            displaced_generation: shared.displaced_generation,
        };
        let (state, lifetime) = (FlowState(shared.state), self.lifetime());
        let linger_s = life::linger_s(state, lifetime.protocol, lifetime.idle_timeout_s);
        let remaining_s = shared.remaining_s.min(linger_s as i32);
        let expires_s = now_s.wrapping_add_signed(remaining_s);
        let record = FlowRecord::new(shared.backend_id, shared.generation, expires_s, state);
        let is_whole = shared.service_id == self.kernel.service.id
            && lifetime.may_live(state, shared.remaining_s)
            && self.is_live(record)
            && self.is_of(&origin, shared.flow_hash);
        let entry = FlowEntry {
            fingerprint: flow::fingerprint(&self.kernel.service, shared.flow_hash),
            record,
        };
        is_whole.then_some(Told { entry, origin })
    }

    /// Whether an origin is of the flow with this hash.
    fn is_of(&self, origin: &FlowOrigin, flow_hash: u64) -> bool {
        let tuple = FlowTuple {
            source: origin.client,
            destination: Address::from_ipv4_be(VIP.to_be()),
            ports: u32::from(origin.client_port_be) << 16 | u32::from(origin.port_be),
        };
        hash::flow(&tuple, &self.kernel.hash_key()) == flow_hash
    }

    fn sighting(&self, record: FlowRecord, origin: &FlowOrigin, now_s: u32) -> Sighting {
        Sighting {
            age_s: self.lifetime().age_s(record, now_s),
            state: record.state(),
            sequence: origin.sequence,
            backend: u64::from(record.backend_id()),
            displaced: u64::from(origin.displaced_id),
        }
    }

    /// Over the record of the same flow, if what is told is later.
    fn over(&mut self, place: usize, told: &Told, now_s: u32) -> Merged {
        let present = self.kernel.entries[place].get();
        let here = self.sighting(present.record, &self.kernel.origin(place), now_s);
        let there = self.sighting(told.entry.record, &told.origin, now_s);
        let order = if self.is_live(present.record) {
            compare(&here, &there, Clocks::Each)
        } else {
            Ordering::Less
        };
        match order {
            Ordering::Less => self.put(place, told),
            Ordering::Equal => agreed(place, present),
            Ordering::Greater => Merged::Later {
                place: FlowPlace(place as u32),
            },
        }
    }

    fn put(&mut self, place: usize, told: &Told) -> Merged {
        self.kernel.entries[place].set(told.entry);
        self.kernel
            .put_flow_origin(FlowPlace(place as u32), &told.origin);
        agreed(place, told.entry)
    }
}

fn agreed(place: usize, entry: FlowEntry) -> Merged {
    Merged::Agreed {
        place: FlowPlace(place as u32),
        entry,
    }
}

impl Table for SimTable {
    fn set_count(&self) -> u32 {
        self.kernel.flow_set_count()
    }

    fn take_changed(&mut self, sets: &mut Vec<u32>, count_max: usize) {
        let marked = (0..)
            .zip(self.changes.iter())
            .filter(|(_, mark)| mark.get());
        for (set, mark) in marked.take(count_max) {
            mark.set(false);
            sets.push(set);
        }
    }

    fn read_set(&self, set: u32) -> FlowSet {
        let first = set as usize * FLOW_SET_ENTRIES;
        let entries = std::array::from_fn(|number| {
            let entry = self.kernel.entries[first + number].get();
            let is_flow = entry.fingerprint >= FINGERPRINT_MIN;
            if is_flow { entry } else { FREE_ENTRY }
        });
        FlowSet { entries }
    }

    fn share(&self, place: FlowPlace, entry: &FlowEntry, now_s: u32) -> Option<SharedFlow> {
        let remaining_s = entry.record.remaining_s(now_s);
        let origin = self.kernel.origin(place.0 as usize);
        let flow_hash = flow::flow_hash(&self.kernel.service, entry.fingerprint);
        let may_live = self.lifetime().may_live(entry.record.state(), remaining_s);
        let is_its = may_live
            && self.kernel.entries[place.0 as usize].get() == *entry
            && self.is_live(entry.record)
            && self.is_of(&origin, flow_hash);
        is_its.then(|| SharedFlow {
            flow_hash,
            client: origin.client.octets(),
            sequence: origin.sequence,
            remaining_s,
            client_port_be: origin.client_port_be,
            port_be: origin.port_be,
            service_id: self.kernel.service.id,
            backend_id: entry.record.backend_id(),
            displaced_id: origin.displaced_id,
            state: entry.record.state().0,
            reserved: 0,
            generation: entry.record.backend_generation(),
            displaced_generation: origin.displaced_generation,
        })
    }

    fn refresh_s(&self, _entry: &FlowEntry) -> u32 {
        refresh_s(self.kernel.service.idle_timeout_s)
    }

    fn dictionary(&self) -> Arc<Dictionary> {
        Arc::clone(&self.dictionary)
    }
}

impl Merge for SimTable {
    fn merge(&mut self, shared: &SharedFlow, now_s: u32) -> Merged {
        let Some(told) = self.told(shared, now_s) else {
            return Merged::Refused;
        };
        self.kernel.now_s = now_s;
        let entry = told.entry;
        if let Some((place, _)) = self.kernel.find(entry.fingerprint) {
            return self.over(place, &told, now_s);
        }
        match flow::record(&self.kernel, entry.fingerprint, entry.record, now_s) {
            Some(place) => self.put(place.0 as usize, &told),
            None => Merged::NoRoom,
        }
    }
}

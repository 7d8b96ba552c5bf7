//! The walk over the flow table, entry by entry: how many live flows each backend has, what is left to
//! remember of quiet slots, and which entries can go.
//!
//! A fingerprint is a bijection of the flow's hash and its service, so an entry tells its slot without
//! the client's address. In a quiet slot an entry that leads to the slot's own backend says nothing
//! new, and an expired one must not be found again when the slot moves next: both are purged. What is
//! left are the exceptions, and a slot without any settles. So the purge cannot be forgotten: only the
//! sweep that made it lets a slot settle.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::abi::{FINGERPRINT_MIN, FlowEntry, FlowRecord, FlowState, Service};
use lb_common::limits::{FIN_LINGER_S, RST_LINGER_S};
use lb_common::{datapath::flow, hash};

use super::RingTransition;
use crate::sync::flow::untold_s;

/// What becomes of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It stays.
    Keep,
    /// It is to be deleted, if it still is what was visited.
    Delete,
}

/// What happens to expired entries that no quiet slot wants purged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// They stay until a new flow takes their place: their flow may only have been silent. One that has ended is not.
    Keep,
    /// They go: the table is nearly full.
    Delete,
}

/// Whose packets the table knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Knowledge {
    /// All came here: a record that has expired is that of a silent flow.
    Own,
    /// Peers had some of them. One that has died had perhaps more than it told of ([`untold_s`]).
    Shared,
}

impl Knowledge {
    /// For how long a flow may have been less silent than its record says. Unit: seconds.
    fn untold_s(self, service: &Service) -> i32 {
        match self {
            Self::Own => 0,
            Self::Shared => untold_s(service.idle_timeout_s) as i32,
        }
    }
}

/// An expired record is spared for so long. Its expiry has 24 bits (`FlowRecord`): after 97 days it would be one of the
/// future. Unit: seconds.
const SPARED_MAX_S: i32 = 30 * 86_400;

/// Live entries, as a share of the table, above which a sweep deletes expired ones. Unit: percent.
pub const EXPIRED_KEPT_MAX_PERCENT: u64 = 80;

impl Expired {
    /// What the table's filling, as the last sweep found it, asks for.
    pub const fn by_filling(live_count: u64, entry_count: u64) -> Self {
        if live_count * 100 > entry_count * EXPIRED_KEPT_MAX_PERCENT {
            Self::Delete
        } else {
            Self::Keep
        }
    }
}

/// A service, as a sweep sees it.
#[derive(Clone, Copy, Debug)]
pub struct SweptService<'a> {
    /// Its entry in `SERVICES`.
    pub service: Service,
    /// Its ring, if that can be in transition.
    pub transition: Option<&'a RingTransition>,
}

/// What a sweep has to know besides the table.
pub trait Directory {
    /// The service of a backend with this id and generation, also of one that is leaving; `None` if
    /// there is none any more.
    fn service_of(&self, backend_id: u16, generation: u16) -> Option<SweptService<'_>>;
}

/// Live flows on record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Of which only SYNs were seen.
    pub half_open_count: u64,
    /// In use.
    pub established_count: u64,
    /// Of which a FIN or a RST was seen.
    pub closing_count: u64,
}

impl FlowCounts {
    /// All of them.
    pub const fn total(&self) -> u64 {
        self.half_open_count + self.established_count + self.closing_count
    }

    fn count(&mut self, state: FlowState) {
        let count = if state.is_half_open() {
            &mut self.half_open_count
        } else if state.is_closing() {
            &mut self.closing_count
        } else {
            &mut self.established_count
        };
        *count += 1;
    }
}

/// What a sweep found of one service's ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceptions {
    /// The revision in force when the sweep began.
    pub revision: u64,
    /// Exceptions by slot.
    pub by_slot: Vec<u32>,
}

/// A sweep under way. It may be made in several parts, as long as all of the table is visited between
/// its beginning and its end.
#[derive(Debug)]
pub struct Sweep {
    now_s: u32,
    expired: Expired,
    knowledge: Knowledge,
    /// By backend id.
    backends: Vec<FlowCounts>,
    /// Those that may have flows which seem to have expired, by id.
    doubtful: BTreeSet<u16>,
    /// By service id.
    services: BTreeMap<u16, Exceptions>,
    live_count: u64,
    expired_count: u64,
}

impl Sweep {
    /// Begins a sweep, with the rings that are in transition by service id.
    pub fn begin<'a>(
        now_s: u32,
        expired: Expired,
        knowledge: Knowledge,
        transitions: impl IntoIterator<Item = (u16, &'a RingTransition)>,
    ) -> Self {
        let services = transitions
            .into_iter()
            .filter(|(_, transition)| transition.is_in_force() && !transition.is_settled())
            .map(|(service_id, transition)| {
                let exceptions = Exceptions {
                    revision: transition.revision(),
                    by_slot: vec![0; transition.slots().len()],
                };
                (service_id, exceptions)
            });
        Self {
            now_s,
            expired,
            knowledge,
            backends: Vec::new(),
            doubtful: BTreeSet::new(),
            services: services.collect(),
            live_count: 0,
            expired_count: 0,
        }
    }

    /// The clock, if the parts of a sweep are made at different times.
    pub fn set_now_s(&mut self, now_s: u32) {
        self.now_s = now_s;
    }

    /// Visits one entry, and says what becomes of it. `displaced_id` reads the entry's origin: the
    /// backend of the flow whose place a half-open one took.
    pub fn visit(
        &mut self,
        entry: &FlowEntry,
        displaced_id: impl FnOnce() -> u16,
        directory: &impl Directory,
    ) -> Fate {
        if entry.fingerprint < FINGERPRINT_MIN {
            return Fate::Keep;
        }
        let record = entry.record;
        let (backend_id, generation) = (record.backend_id(), record.backend_generation());
        let Some(owner) = directory.service_of(backend_id, generation) else {
            return Fate::Delete;
        };
        let remaining_s = record.remaining_s(self.now_s);
        let is_live = remaining_s >= 0;
        let displaced_id = if record.state().is_half_open() {
            displaced_id()
        } else {
            0
        };
        self.count(record, is_live, displaced_id);
        if !is_live && remaining_s + self.knowledge.untold_s(&owner.service) >= 0 {
            self.doubtful.insert(backend_id);
        }
        let extra_s = forged_end_s(record.state(), &owner.service)
            .saturating_add(self.knowledge.untold_s(&owner.service));
        let is_silent = remaining_s.saturating_add(extra_s) < 0;
        let Some((slot, current)) = quiet_slot(&owner, entry.fingerprint) else {
            // Whoever has its ports now may have begun at another node, and has no record where its slot says enough.
            let is_over = is_silent && record.state().is_closing();
            let is_spared = is_live
                || self.expired == Expired::Keep && !is_over && remaining_s >= -SPARED_MAX_S;
            return if is_spared { Fate::Keep } else { Fate::Delete };
        };
        let is_redundant = backend_id == current && displaced_id == 0;
        let takes_care = owner.transition.is_some_and(|one| one.is_swept_with_care());
        if !is_redundant && (takes_care || !is_silent) {
            self.note_exception(owner.service.id, slot);
        }
        if is_silent || is_redundant && !takes_care {
            Fate::Delete
        } else {
            Fate::Keep
        }
    }

    fn note_exception(&mut self, service_id: u16, slot: usize) {
        if let Some(exceptions) = self.services.get_mut(&service_id)
            && let Some(count) = exceptions.by_slot.get_mut(slot)
        {
            *count += 1;
        }
    }

    fn count(&mut self, record: FlowRecord, is_live: bool, displaced_id: u16) {
        if !is_live {
            self.expired_count += 1;
            return;
        }
        self.live_count += 1;
        self.of_backend(record.backend_id()).count(record.state());
        if displaced_id != 0 {
            self.of_backend(displaced_id).count(FlowState::OPEN);
        }
    }

    fn of_backend(&mut self, backend_id: u16) -> &mut FlowCounts {
        let id = usize::from(backend_id);
        if self.backends.len() <= id {
            self.backends.resize(id + 1, FlowCounts::default());
        }
        &mut self.backends[id]
    }

    /// What the sweep found.
    pub fn end(self) -> Census {
        Census {
            backends: self.backends,
            doubtful: self.doubtful,
            services: self.services,
            live_count: self.live_count,
            expired_count: self.expired_count,
        }
    }
}

/// For how long a flow that seems to have ended is remembered beyond its expiry where there is room:
/// anybody can send a FIN or a RST, and the flow itself may be silent for as long as any. Unit:
/// seconds.
fn forged_end_s(state: FlowState, service: &Service) -> i32 {
    let linger_s = if state.has(FlowState::RST) {
        RST_LINGER_S
    } else if state.is_closing() {
        FIN_LINGER_S
    } else {
        return 0;
    };
    i32::try_from(service.idle_timeout_s.saturating_sub(linger_s)).unwrap_or(i32::MAX)
}

/// The slot of an entry and the slot's backend, if the slot is quiet.
fn quiet_slot(owner: &SweptService<'_>, fingerprint: u64) -> Option<(usize, u16)> {
    let transition = owner.transition?;
    let slot = slot_of(&owner.service, fingerprint, transition.slots().len() as u32);
    Some((slot, transition.sweepable(slot)?))
}

/// The slot of a flow in a ring of `ring_len` slots.
pub const fn slot_of(service: &Service, fingerprint: u64, ring_len: u32) -> usize {
    let flow_hash = flow::flow_hash(service, fingerprint);
    hash::index(hash::upper(flow_hash), ring_len) as usize
}

/// What a sweep found.
#[derive(Clone, Debug)]
pub struct Census {
    backends: Vec<FlowCounts>,
    doubtful: BTreeSet<u16>,
    /// The rings in transition, by service id: for [`RingTransition::swept`].
    pub services: BTreeMap<u16, Exceptions>,
    /// Live entries.
    pub live_count: u64,
    /// Entries that have expired and still stand.
    pub expired_count: u64,
}

impl Census {
    /// The live flows of a backend that are on record.
    pub fn of_backend(&self, backend_id: u16) -> FlowCounts {
        self.backends
            .get(usize::from(backend_id))
            .copied()
            .unwrap_or_default()
    }

    /// Whether a backend has a flow on record that lives, or that may live ([`Knowledge::Shared`]).
    pub fn has_flows(&self, backend_id: u16) -> bool {
        self.of_backend(backend_id).total() > 0 || self.doubtful.contains(&backend_id)
    }
}

#[cfg(test)]
#[path = "sweep_tests.rs"]
mod tests;

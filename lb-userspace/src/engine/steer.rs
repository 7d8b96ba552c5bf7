//! Rings on their way: what the keeper of the rings needs of the world, and what the world needs of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use lb_common::abi::Service as ServiceEntry;
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::agenda::Wanted;
use super::core::{Engine, blocking};
use super::handle::EngineError;
use super::leaving::address_name;
use super::peers::Audience;
use crate::desired::endpoint_key;
use crate::desired::ids::ServiceIdentity;
use crate::desired::ring::{RingContent, shares};
use crate::maps::{MapStore, monotonic_ms};
use crate::model::{AdminState, Backend, Change, Model, Service, Urgency};
use crate::reconcile::InstalledRing;
use crate::steering::Observed;
use crate::transition::sweep::{Census, Directory, Expired, Fate, Knowledge, Sweep, SweptService};

/// While a backend is leaving, its flows are counted this often.
const LEAVING_PERIOD: Duration = Duration::from_secs(2);

/// A backend that only a peer has keeps its entry for so long, for the peer's flows to arrive. Unit: milliseconds.
const HEARING_MS: u64 = 30_000;

/// A backend that the model has no more. Its entry stays until no slot and no flow refers to it.
#[derive(Clone, Debug)]
pub(super) struct Leaving {
    pub(super) backend: Backend,
    /// When it left. Unit: milliseconds of the packet path's clock.
    pub(super) since_ms: u64,
    /// Why it is not in the model.
    pub(super) why: Why,
}

/// Why a backend that has an entry is not in the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// It was removed.
    Removed,
    /// It is in a peer's only, whose ring this node follows.
    Elsewhere,
}

/// The backends that are leaving.
pub(super) type LeavingBackends = BTreeMap<(ServiceIdentity, IpAddr, u16), Leaving>;

/// What a sweep has found, and when it began.
#[derive(Debug)]
pub(super) struct Counted {
    pub(super) census: Census,
    pub(super) began_ms: u64,
}

impl Engine {
    /// Notes which backends leave with the change from `old` to the model, and which come back.
    pub(super) fn note_leaving(&mut self, old: &Model) {
        let now_ms = monotonic_ms();
        for service in old.services.values() {
            for backend in service.backends.values() {
                self.leave(service, backend, now_ms);
            }
        }
        self.forget_returned();
    }

    /// Notes the backends of a datapath that was adopted: those that the model does not have are
    /// leaving.
    pub(super) fn note_found(&mut self) {
        let now_ms = monotonic_ms();
        let services: Vec<Service> = self.model.services.values().cloned().collect();
        for service in services {
            let Some(entry) = self.entry_of(&service) else {
                continue;
            };
            self.adopt_ring(&service, &entry, now_ms);
            let entries = self.actual.maps.backends.values();
            let found: Vec<Backend> = entries
                .filter(|backend| backend.service_id == entry.id)
                .map(|backend| {
                    let port = match backend.port_be {
                        0 => service.port,
                        port_be => u16::from_be(port_be),
                    };
                    nameless(&service, backend.address.to_ip(), port)
                })
                .collect();
            for backend in found {
                self.leave(&service, &backend, now_ms);
            }
        }
        self.forget_returned();
        if !self.leaving.is_empty() {
            info!(
                "{} backends that are no longer configured stay until their flows have ended",
                self.leaving.len()
            );
        }
    }

    /// Takes over a ring as it was left.
    fn adopt_ring(&mut self, service: &Service, entry: &ServiceEntry, now_ms: u64) {
        if entry.ring_len == 0 {
            return;
        }
        let slots = match self.store.read_ring(entry) {
            Ok(slots) => slots,
            Err(error) => {
                let error = anyhow::Error::from(error);
                warn!(service = service.name, "its ring is built anew: {error:#}");
                return;
            }
        };
        self.keeper.recall(service, &slots);
        if !service.has_transitions() || entry.tracks_flows != 0 {
            return;
        }
        self.keeper.adopt(service, &slots, now_ms);
        let slots: Arc<[u32]> = slots.iter().map(|slot| slot.0).collect();
        let installed = InstalledRing {
            shares: shares(&slots),
            content: RingContent::Slots(slots),
        };
        self.actual.rings.insert(endpoint_key(service), installed);
    }

    fn leave(&mut self, service: &Service, backend: &Backend, now_ms: u64) {
        let identity = ServiceIdentity::of(service);
        let services = self.model.services.values();
        let is_there = services
            .filter(|one| ServiceIdentity::of(one) == identity)
            .flat_map(|one| one.backends.values())
            .any(|one| (one.address, one.port) == (backend.address, backend.port));
        if is_there {
            return;
        }
        let key = (identity, backend.address, backend.port);
        self.leaving.entry(key).or_insert_with(|| Leaving {
            backend: backend.clone(),
            since_ms: now_ms,
            why: Why::Removed,
        });
    }

    /// Who is in the model again is leaving no more; who has lost its service has nowhere to leave from.
    fn forget_returned(&mut self) {
        let mut live = BTreeSet::new();
        let mut services = BTreeSet::new();
        for service in self.model.services.values() {
            let identity = ServiceIdentity::of(service);
            for backend in service.backends.values() {
                live.insert((identity.clone(), backend.address, backend.port));
            }
            services.insert(identity);
        }
        self.leaving
            .retain(|key, _| services.contains(&key.0) && !live.contains(key));
        self.whole = self.with_leaving();
    }

    /// The model with those that are leaving: for the datapath they are backends in maintenance. Those that are
    /// only in a peer's model are backends like any other, but for this node's own rings.
    pub(super) fn with_leaving(&self) -> Model {
        let mut whole = self.model.clone();
        for service in whole.services.values_mut() {
            let identity = ServiceIdentity::of(service);
            for ((_, address, port), leaving) in self
                .leaving
                .iter()
                .filter(|((one, ..), _)| *one == identity)
            {
                let backend = Backend {
                    admin: match leaving.why {
                        Why::Removed => AdminState::Maint,
                        Why::Elsewhere => AdminState::Ready,
                    },
                    ..leaving.backend.clone()
                };
                // No name that the model allows holds a slash.
                let key = format!("leaving/{address}/{port}");
                service.backends.insert(key, backend);
            }
        }
        whole
    }

    /// Notes a change that the operator wants to take effect at once.
    pub(super) fn note_strictness(&mut self, change: &Change) {
        if let Change::SetBackendAdmin {
            service, backend, ..
        } = change
            && change.urgency() == Urgency::Immediate
            && let Some(service) = self.model.services.get(service)
            && let Some(backend) = service.backends.get(backend)
        {
            self.keeper.be_strict(service, backend);
        }
    }

    /// Asks the keeper which rings should be in force.
    pub(super) fn look(&mut self, audience: Audience) {
        let now_ms = monotonic_ms();
        if audience == Audience::Peers {
            self.hear_owners(now_ms);
        }
        self.look_at_rings(now_ms);
        if audience == Audience::Peers {
            self.tell_followers();
        }
    }

    fn look_at_rings(&mut self, now_ms: u64) {
        let in_force = self.current_in_force();
        let mut keeper = std::mem::take(&mut self.keeper);
        let elsewhere = self.suppressed_elsewhere();
        let suppressed_ms = |service_id| {
            let elsewhere_ms = elsewhere.get(&service_id).copied();
            self.own_suppressed_ms(service_id).max(elsewhere_ms)
        };
        let observed = Observed {
            ids: &self.ids,
            now_ms,
            suppressed_ms: &suppressed_ms,
            in_force: &in_force,
        };
        let (model, whole) = (&self.model, &self.whole);
        let (steering, outlook) = blocking(|| keeper.look(model, whole, &observed));
        self.keeper = keeper;
        self.steering = steering;
        let due_ms = [outlook.due_ms, self.peers_due_ms()];
        let due_ms = due_ms.into_iter().flatten().min();
        let due = due_ms.map(|due_ms| Duration::from_millis(due_ms.saturating_sub(now_ms)));
        let leaving = (!self.leaving.is_empty()).then_some(LEAVING_PERIOD);
        let wanted = Wanted {
            look_in: [due, leaving].into_iter().flatten().min(),
            sweep: outlook.sweep,
        };
        self.agenda.note_look(wanted, Instant::now());
    }

    /// When a flow of a service was last not recorded here that should have been. Unit: milliseconds.
    pub(super) fn own_suppressed_ms(&self, service_id: u16) -> Option<u64> {
        let stamp_s = self.store.flows().suppressed_s(service_id)?;
        // The stamp is the beginning of a second.
        Some(stamp_s * 1_000 + 999)
    }

    /// The same of the peers, by service id.
    fn suppressed_elsewhere(&self) -> BTreeMap<u16, u64> {
        let services = self.model.services.values();
        let elsewhere = services.filter_map(|service| {
            let suppressed_ms = self.suppressed_elsewhere_ms(service)?;
            Some((
                self.ids.service(&ServiceIdentity::of(service))?.id,
                suppressed_ms,
            ))
        });
        elsewhere.collect()
    }

    /// The backends that get new flows by the rings in force.
    fn current_in_force(&self) -> BTreeMap<ServiceIdentity, BTreeSet<u16>> {
        let services = self.model.services.values();
        let current = services.filter_map(|service| {
            let ring = self.actual.rings.get(&endpoint_key(service))?;
            let ids = ring.shares.keys().copied().filter(|id| *id != 0).collect();
            Some((ServiceIdentity::of(service), ids))
        });
        current.collect()
    }

    /// Tells the transitions that their rings are in force; returns whether any is new.
    pub(super) fn note_in_force(&mut self) -> bool {
        let now_ms = monotonic_ms();
        if let Some(is_any_new) = self.note_written_among_peers(now_ms) {
            return is_any_new;
        }
        let mut is_any_new = false;
        for service in self.model.services.values() {
            if let Some(transition) = self.keeper.transition_mut(service)
                && !transition.is_in_force()
            {
                let revision = transition.revision();
                transition.in_force(revision, now_ms);
                is_any_new = true;
            }
        }
        is_any_new
    }

    /// What is due for the rings' sake: a sweep of the flow table, the next step of a transition.
    pub(super) async fn tend(&mut self) {
        if self.agenda.begin(Instant::now()) || !self.leaving.is_empty() {
            self.sweep();
            self.release_leaving();
        }
        self.follow(crate::netlink::monitor::Changes::default())
            .await;
    }

    /// Walks over the flow table.
    pub(super) fn sweep(&mut self) {
        let began_ms = monotonic_ms();
        self.agenda.note_sweep(Instant::now());
        let counted = blocking(|| self.swept(began_ms));
        let services: Vec<Service> = self.model.services.values().cloned().collect();
        for service in &services {
            let service_id = self.actual.maps.services.get(&endpoint_key(service));
            let service_id = service_id.map_or(0, |entry| entry.id);
            if let Some(exceptions) = counted.census.services.get(&service_id)
                && let Some(transition) = self.keeper.transition_mut(service)
            {
                transition.swept(exceptions, began_ms);
                self.tell_swept(service, exceptions, began_ms);
            }
        }
        self.counted = Some(counted);
    }

    fn swept(&self, began_ms: u64) -> Counted {
        let directory = Owners::of(self);
        let flows = self.store.flows();
        let now_s = (began_ms / 1_000) as u32;
        let live_count = self
            .counted
            .as_ref()
            .map_or(0, |last| last.census.live_count);
        let expired = Expired::by_filling(live_count, flows.entry_count() as u64);
        let transitions = directory
            .services
            .values()
            .filter_map(|service| Some((service.service.id, service.transition?)));
        let knowledge = if self.peers.is_some() {
            Knowledge::Shared
        } else {
            Knowledge::Own
        };
        let mut sweep = Sweep::begin(now_s, expired, knowledge, transitions);
        let mut deleted = 0;
        for place in 0..flows.entry_count() {
            let Some(entry) = flows.entry(place) else {
                continue;
            };
            let displaced_id = || flows.origin(place).displaced_id;
            if sweep.visit(&entry, displaced_id, &directory) == Fate::Delete {
                deleted += u64::from(flows.delete(place, &entry));
            }
        }
        debug!(deleted, "flow table swept");
        Counted {
            census: sweep.end(),
            began_ms,
        }
    }

    /// Lets go of those that are leaving and that nothing refers to any more.
    fn release_leaving(&mut self) {
        let Some(counted) = &self.counted else {
            return;
        };
        let released: Vec<_> = self
            .leaving
            .iter()
            .filter(|(key, leaving)| self.is_forgotten(key, leaving, counted))
            .map(|(key, _)| key.clone())
            .collect();
        for key in released {
            if let Some(leaving) = self.leaving.remove(&key) {
                let (address, port) = (key.1, key.2);
                info!(
                    backend = leaving.backend.name,
                    %address, port, "gone: none of its flows is left"
                );
            }
        }
        self.whole = self.with_leaving();
    }

    fn is_forgotten(
        &self,
        (identity, address, port): &(ServiceIdentity, IpAddr, u16),
        leaving: &Leaving,
        counted: &Counted,
    ) -> bool {
        let mut services = self.model.services.values();
        let service = services.find(|one| ServiceIdentity::of(one) == *identity);
        let (Some(service), Some(id)) = (service, self.ids.backend(identity, *address, *port))
        else {
            return true;
        };
        let is_in_ring = match self.keeper.transition(service) {
            Some(transition) => transition.refers_to(id.id) || !transition.is_in_force(),
            None => {
                let ring = self.actual.rings.get(&endpoint_key(service));
                ring.is_some_and(|ring| ring.shares.contains_key(&id.id))
            }
        };
        // Of flows that are in no table and in no slot, only the time tells: UDP with `flow = "hash"`.
        let idle_timeout_ms = u64::from(service.idle_timeout_s) * 1_000;
        let is_stateless = !service.tracks_flows() && !service.has_transitions();
        let has_waited = !is_stateless || counted.began_ms >= leaving.since_ms + idle_timeout_ms;
        let was_counted_since = counted.began_ms >= leaving.since_ms;
        // What a peer has of it takes a moment to arrive.
        let has_heard =
            leaving.why == Why::Removed || counted.began_ms >= leaving.since_ms + HEARING_MS;
        let has_flows = counted.census.has_flows(id.id);
        !is_in_ring && has_waited && was_counted_since && has_heard && !has_flows
    }

    fn entry_of(&self, service: &Service) -> Option<ServiceEntry> {
        self.actual
            .maps
            .services
            .get(&endpoint_key(service))
            .copied()
    }

    /// # Errors
    /// [`EngineError::MapFull`]. Backends that are leaving count: their flows are not given up for newcomers.
    pub(super) fn assign_ids(&mut self) -> Result<(), EngineError> {
        let leaving = self.leaving.len();
        let assigned = self.ids.assign(&self.whole);
        assigned.map_err(|shortage| super::core::out_of_ids(shortage, &self.limits, leaving))
    }

    /// A change was refused: who was leaving before it is leaving, and nobody else. Those that a peer's ring
    /// has brought meanwhile have nothing to do with it.
    pub(super) fn restore_leaving(&mut self, leaving: LeavingBackends) {
        let now = std::mem::replace(&mut self.leaving, leaving);
        let is_elsewhere = |(_, one): &(_, Leaving)| one.why == Why::Elsewhere;
        for (key, one) in now.into_iter().filter(is_elsewhere) {
            self.leaving.entry(key).or_insert(one);
        }
        self.whole = self.with_leaving();
    }
}

/// A backend that was found in the maps, without its name.
pub(super) fn nameless(service: &Service, address: IpAddr, port: u16) -> Backend {
    Backend {
        admin: AdminState::Maint,
        ..Backend::new(address_name(service, address, port), address, port)
    }
}

/// Whose an entry of the flow table is.
struct Owners<'e> {
    services: BTreeMap<u16, SweptService<'e>>,
    /// By backend id: generation and service id.
    backends: Vec<(u16, u16)>,
}

impl<'e> Owners<'e> {
    fn of(engine: &'e Engine) -> Self {
        let services = engine.model.services.values().filter_map(|service| {
            let entry = engine.entry_of(service)?;
            let swept = SweptService {
                service: entry,
                transition: engine.keeper.transition(service),
            };
            Some((entry.id, swept))
        });
        let mut backends = Vec::new();
        for (id, entry) in &engine.actual.maps.backends {
            let id = usize::from(*id);
            if backends.len() <= id {
                backends.resize(id + 1, (0, 0));
            }
            backends[id] = (entry.generation, entry.service_id);
        }
        Self {
            services: services.collect(),
            backends,
        }
    }
}

impl Directory for Owners<'_> {
    fn service_of(&self, backend_id: u16, generation: u16) -> Option<SweptService<'_>> {
        let (live, service_id) = self.backends.get(usize::from(backend_id)).copied()?;
        if live != generation || service_id == 0 {
            return None;
        }
        self.services.get(&service_id).copied()
    }
}

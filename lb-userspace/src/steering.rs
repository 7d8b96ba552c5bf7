//! Where flows go: from the model and the time to the rings that should be in force.
//!
//! [`RingKeeper`] remembers what a model does not say: how far each ring is on its way
//! ([`crate::transition`]), who was eligible last, since when. No clock and no I/O: the engine passes
//! both in.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use lb_common::abi::{NewFlows, Slot};
use tracing::warn;

use crate::desired::ids::{Ids, ServiceIdentity};
use crate::desired::ring::{RingContent, RingSpec};
use crate::desired::{Steering, ring_spec};
use crate::model::eligible::members;
use crate::model::slow_start::Eligibility;
use crate::model::{AdminState, Backend, Health, Model, OnAllDown, OnRemove, Service};
use crate::transition::{Facts, Lead, RingTransition};

/// What a look at the rings needs besides the model.
pub struct Observed<'a> {
    /// The ids of everything in the model.
    pub ids: &'a Ids,
    /// Milliseconds of the clock that the packet path stamps with (`CLOCK_MONOTONIC`).
    pub now_ms: u64,
    /// When a flow of a service id was last not recorded that should have been, on the same clock.
    pub suppressed_ms: &'a (dyn Fn(u16) -> Option<u64> + Sync),
    /// The backends that get new flows by the rings in force.
    pub in_force: &'a BTreeMap<ServiceIdentity, BTreeSet<u16>>,
}

/// What has to be done next, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Another look is due then at the latest; `None` = when something changes.
    pub due_ms: Option<u64>,
    /// The flow table is to be swept.
    pub sweep: bool,
}

/// A service's ring on its way.
#[derive(Clone, Debug, Default)]
struct Ring {
    /// The ring that was wanted last while anybody was eligible.
    last_good: Option<RingSpec>,
    /// The backends of the ring that a former daemon has left, which may know no better one.
    found: BTreeSet<u16>,
    /// For services whose ring changes by transitions, once it has slots.
    transition: Option<RingTransition>,
    /// The transition's slots in the form that is written, and their revision.
    slots: Option<(u64, Arc<[u32]>)>,
    /// The ring that the transition was told to aim at, and its backends slot by slot.
    target: Option<(RingSpec, Vec<u16>)>,
    /// Who led the transition when it was told.
    aimed_as: Lead,
}

/// A backend from which slots are taken without preparation, once.
type StrictKey = (ServiceIdentity, IpAddr, u16);

/// A look at one service's ring.
struct Look<'m> {
    service: &'m Service,
    whole: &'m Service,
    identity: ServiceIdentity,
    ring: Ring,
    /// What has come of it.
    seen: Option<(Steering, Outlook)>,
}

/// Services that are worth a thread of their own.
const SERVICES_PER_THREAD: usize = 64;

/// Looks at all of them, on as many CPUs as are worth it: a ring that changes takes a millisecond, and the
/// death of a host changes as many as there are services.
fn side_by_side<'m>(looks: &mut [Look<'m>], look: impl Fn(&mut Look<'m>) + Sync) {
    let cpu_count = thread::available_parallelism().map_or(1, NonZero::get);
    let thread_count = (looks.len() / SERVICES_PER_THREAD).clamp(1, cpu_count);
    if thread_count == 1 {
        looks.iter_mut().for_each(look);
        return;
    }
    let each = looks.len().div_ceil(thread_count);
    thread::scope(|scope| {
        for part in looks.chunks_mut(each) {
            scope.spawn(|| part.iter_mut().for_each(&look));
        }
    });
}

/// The rings of all services.
#[derive(Clone, Debug, Default)]
pub struct RingKeeper {
    rings: BTreeMap<ServiceIdentity, Ring>,
    eligibility: Eligibility,
    strict: BTreeSet<StrictKey>,
}

impl RingKeeper {
    /// Remembers whose flows the ring is for that a former daemon has left in force: while nobody is
    /// eligible, it stays as it is.
    pub fn recall(&mut self, service: &Service, slots: &[Slot]) {
        let ring = self.rings.entry(ServiceIdentity::of(service)).or_default();
        let current = slots.iter().map(|slot| slot.current());
        ring.found = current.filter(|id| *id != 0).collect();
    }

    /// Takes over the ring that a former daemon has left in force.
    pub fn adopt(&mut self, service: &Service, slots: &[Slot], now_ms: u64) {
        if !service.has_transitions() || slots.is_empty() {
            return;
        }
        let ring = self.rings.entry(ServiceIdentity::of(service)).or_default();
        ring.transition = Some(RingTransition::adopted(slots, now_ms));
    }

    /// The operator prefers that a backend gets no new flow at once, to handshakes that complete.
    pub fn be_strict(&mut self, service: &Service, backend: &Backend) {
        let identity = ServiceIdentity::of(service);
        self.strict
            .insert((identity, backend.address, backend.port));
    }

    /// The transition of a service's ring, if it has one.
    pub fn transition(&self, service: &Service) -> Option<&RingTransition> {
        let ring = self.rings.get(&ServiceIdentity::of(service))?;
        ring.transition.as_ref()
    }

    /// The same, to be told what was swept.
    pub fn transition_mut(&mut self, service: &Service) -> Option<&mut RingTransition> {
        let ring = self.rings.get_mut(&ServiceIdentity::of(service))?;
        ring.transition.as_mut()
    }

    /// The transition of a service's ring, for a peer's ring to be put into: an empty one, if it has none yet.
    /// `None`: its ring does not go by transitions.
    pub fn transition_to_follow(&mut self, service: &Service) -> Option<&mut RingTransition> {
        if !service.has_transitions() {
            return None;
        }
        let ring = self.rings.entry(ServiceIdentity::of(service)).or_default();
        let empty = || RingTransition::settled(&[]);
        Some(ring.transition.get_or_insert_with(empty))
    }

    /// The rings that should be in force now, by the service's name, and when to ask again. `model` is the
    /// operator's; `whole` holds the backends that are leaving too.
    pub fn look(
        &mut self,
        model: &Model,
        whole: &Model,
        observed: &Observed<'_>,
    ) -> (BTreeMap<String, Steering>, Outlook) {
        self.eligibility.observe(model, observed.now_ms);
        self.forget_all_but(model);
        let mut rings = std::mem::take(&mut self.rings);
        let mut looks: Vec<Look<'_>> = model
            .services
            .values()
            .map(|service| {
                let identity = ServiceIdentity::of(service);
                Look {
                    service,
                    whole: whole.services.get(&service.name).unwrap_or(service),
                    ring: rings.remove(&identity).unwrap_or_default(),
                    identity,
                    seen: None,
                }
            })
            .collect();
        side_by_side(&mut looks, |look| {
            look.seen = Some(self.look_at(look, observed));
        });
        let mut outlook = Outlook::default();
        let mut steering = BTreeMap::new();
        for look in looks {
            if let Some((one, its_outlook)) = look.seen {
                outlook = outlook.and(its_outlook);
                steering.insert(look.service.name.clone(), one);
            }
            self.rings.insert(look.identity, look.ring);
        }
        if let Some(step_ms) = self.eligibility.next_step_ms(model, observed.now_ms) {
            outlook.due_at(observed.now_ms + step_ms);
        }
        (steering, outlook)
    }

    fn forget_all_but(&mut self, model: &Model) {
        let live: BTreeSet<ServiceIdentity> =
            model.services.values().map(ServiceIdentity::of).collect();
        self.rings.retain(|identity, _| live.contains(identity));
        let services = &model.services;
        self.strict.retain(|(identity, address, port)| {
            let mut named = services.values();
            named
                .find(|service| ServiceIdentity::of(service) == *identity)
                .is_some_and(|service| {
                    let mut backends = service.backends.values();
                    backends.any(|one| {
                        (one.address, one.port) == (*address, *port) && !service.is_eligible(one)
                    })
                })
        });
    }

    fn look_at(&self, look: &mut Look<'_>, observed: &Observed<'_>) -> (Steering, Outlook) {
        let (service, whole, identity) = (look.service, look.whole, &look.identity);
        let mut outlook = Outlook::default();
        let eligible = self.eligible(service, observed);
        let is_anybody_eligible = eligible.is_some();
        let urgent = self.urgent(whole, identity, observed.ids);
        let ring = &mut look.ring;
        let spec = ring.spec(service, eligible, observed.ids);
        let wanted: BTreeSet<u16> = spec.members.iter().map(|member| member.id).collect();
        let new_flows = new_flows(service, is_anybody_eligible);
        let content = if service.has_transitions() {
            ring.transit(service, whole, spec, &urgent, observed, &mut outlook)
        } else {
            RingContent::Built(spec)
        };
        let in_force = observed.in_force.get(identity);
        let mut held: BTreeSet<u16> = in_force.map_or_else(BTreeSet::new, |current| {
            current.difference(&wanted).copied().collect()
        });
        if !is_anybody_eligible {
            held.extend(last_good(service, &wanted, observed.ids));
        }
        let steering = Steering {
            ring: content,
            new_flows,
            held,
            leaving: leaving(service, whole, observed.ids),
        };
        (steering, outlook)
    }

    /// `None` = nobody.
    fn eligible(&self, service: &Service, observed: &Observed<'_>) -> Option<RingSpec> {
        let since = |backend: &Backend| {
            let (address, port) = (backend.address, backend.port);
            self.eligibility
                .eligible_for_ms(service, address, port, observed.now_ms)
        };
        let members = members(service, since)?;
        let members = members.iter().map(|one| (one.backend, one.weight));
        Some(ring_spec(service, observed.ids, members))
    }

    /// The backends whose slots do not wait for handshakes under way: they would not complete.
    fn urgent(&self, whole: &Service, identity: &ServiceIdentity, ids: &Ids) -> BTreeSet<u16> {
        let ends_flows = whole.policies.on_remove != OnRemove::Keep;
        let is_urgent = |backend: &&Backend| {
            let key = (identity.clone(), backend.address, backend.port);
            backend.health == Health::Down
                || backend.standing() == AdminState::Maint && ends_flows
                || self.strict.contains(&key)
        };
        let urgent = whole.backends.values().filter(is_urgent);
        urgent
            .filter_map(|backend| ids.backend(identity, backend.address, backend.port))
            .map(|id| id.id)
            .collect()
    }
}

impl Ring {
    /// The ring to aim at: that of the eligible backends; if there is none, the last one that had any, as
    /// far as its backends are still there.
    fn spec(&mut self, service: &Service, eligible: Option<RingSpec>, ids: &Ids) -> RingSpec {
        if let Some(spec) = eligible {
            self.last_good = Some(spec.clone());
            return spec;
        }
        let all = service
            .backends
            .values()
            .map(|one| (one, one.effective_weight()));
        let all = ring_spec(service, ids, all);
        let mut last = self.last_good.clone().unwrap_or_else(|| {
            let mut last = all.clone();
            last.members.retain(|one| self.found.contains(&one.id));
            last
        });
        let is_there = |id: u16| all.members.iter().any(|member| member.id == id);
        last.members.retain(|member| is_there(member.id));
        if last.members.is_empty() { all } else { last }
    }

    fn transit(
        &mut self,
        service: &Service,
        whole: &Service,
        spec: RingSpec,
        urgent: &BTreeSet<u16>,
        observed: &Observed<'_>,
        outlook: &mut Outlook,
    ) -> RingContent {
        if self.transition.is_none() && spec.members.is_empty() {
            return RingContent::empty(service.scheduler);
        }
        self.aim(service, spec, urgent);
        let Some(transition) = &mut self.transition else {
            return RingContent::empty(service.scheduler);
        };
        let identity = ServiceIdentity::of(service);
        let id = |backend: &Backend| {
            let id = observed
                .ids
                .backend(&identity, backend.address, backend.port)?;
            Some(id.id)
        };
        let down = whole.backends.values();
        let down = down.filter(|backend| backend.health == Health::Down);
        let down: BTreeSet<u16> = down.filter_map(id).collect();
        let service_id = observed.ids.service(&identity).map_or(0, |id| id.id);
        let facts = Facts {
            suppressed_ms: (observed.suppressed_ms)(service_id),
            idle_timeout_ms: u64::from(service.idle_timeout_s) * 1_000,
            down: &down,
        };
        let step = transition.step(observed.now_ms, &facts);
        outlook.sweep |= step.sweep;
        if let Some(due_ms) = step.deadline_ms {
            outlook.due_at(due_ms);
        }
        let revision = transition.revision();
        match &self.slots {
            Some((known, slots)) if *known == revision => RingContent::Slots(Arc::clone(slots)),
            _ => {
                let slots: Arc<[u32]> = transition.slots().iter().map(|slot| slot.0).collect();
                self.slots = Some((revision, Arc::clone(&slots)));
                RingContent::Slots(slots)
            }
        }
    }

    /// Says to the transition which ring is wanted, or begins one.
    fn aim(&mut self, service: &Service, spec: RingSpec, urgent: &BTreeSet<u16>) {
        let slot_count = self.transition.as_ref().map_or(0, |one| one.slots().len());
        let lead = self
            .transition
            .as_ref()
            .map_or(Lead::Own, RingTransition::lead);
        let is_new = self.target.as_ref().is_none_or(|(known, target)| {
            *known != spec || self.aimed_as != lead && target.len() != slot_count
        });
        let is_new_lead = self.aimed_as != lead;
        self.aimed_as = lead;
        if is_new {
            let slots = currents(&spec, slot_count);
            self.target = Some((spec, slots));
        }
        let Some((_, target)) = &self.target else {
            return;
        };
        let Some(transition) = &mut self.transition else {
            self.transition = Some(RingTransition::settled(target));
            return;
        };
        if !is_new && !is_new_lead && urgent.is_empty() {
            return;
        }
        if let Err(error) = transition.want(target, urgent) {
            warn!(service = service.name, "its connections break now: {error}");
            self.transition = Some(RingTransition::settled(target));
            self.slots = None;
        }
    }
}

/// The backends of a ring's slots; of one without members, as many times nobody as it has slots.
fn currents(spec: &RingSpec, slot_count: usize) -> Vec<u16> {
    if spec.members.is_empty() {
        return vec![0; slot_count];
    }
    let slots = spec.build();
    slots.into_iter().map(|slot| Slot(slot).current()).collect()
}

/// With nobody eligible and `on_all_down = "last_good"`, the backends of the last ring that are down and
/// nothing worse: what is said of all of them at once may well be wrong, and new flows go there.
fn last_good(service: &Service, wanted: &BTreeSet<u16>, ids: &Ids) -> BTreeSet<u16> {
    if service.policies.on_all_down != OnAllDown::LastGood {
        return BTreeSet::new();
    }
    let identity = ServiceIdentity::of(service);
    let backends = service.backends.values();
    let is_down =
        |one: &&Backend| one.health == Health::Down && one.standing() != AdminState::Maint;
    let down = backends.filter(is_down);
    down.filter_map(|one| ids.backend(&identity, one.address, one.port))
        .map(|id| id.id)
        .filter(|id| wanted.contains(id))
        .collect()
}

/// The backends of `whole` that are not `service`'s.
fn leaving(service: &Service, whole: &Service, ids: &Ids) -> BTreeSet<u16> {
    if whole.backends.len() == service.backends.len() {
        return BTreeSet::new();
    }
    let identity = ServiceIdentity::of(service);
    let endpoint = |one: &Backend| (one.address, one.port);
    let live: BTreeSet<_> = service.backends.values().map(endpoint).collect();
    let backends = whole.backends.values();
    let gone = backends.filter(|backend| !live.contains(&endpoint(backend)));
    gone.filter_map(|backend| ids.backend(&identity, backend.address, backend.port))
        .map(|id| id.id)
        .collect()
}

fn new_flows(service: &Service, is_anybody_eligible: bool) -> NewFlows {
    match service.policies.on_all_down {
        _ if is_anybody_eligible => NewFlows::Schedule,
        OnAllDown::Reset => NewFlows::Reset,
        OnAllDown::Drop => NewFlows::Drop,
        OnAllDown::LastGood if service.backends.is_empty() => NewFlows::Drop,
        OnAllDown::LastGood => NewFlows::Schedule,
    }
}

impl Outlook {
    /// What has to be done for either.
    fn and(mut self, other: Self) -> Self {
        self.sweep |= other.sweep;
        if let Some(due_ms) = other.due_ms {
            self.due_at(due_ms);
        }
        self
    }

    fn due_at(&mut self, due_ms: u64) {
        self.due_ms = Some(self.due_ms.map_or(due_ms, |earlier| earlier.min(due_ms)));
    }
}

#[cfg(test)]
mod tests;

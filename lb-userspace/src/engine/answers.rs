//! Answers about flows, rings and changes to come, from what is in force.

use std::collections::BTreeMap;

use lb_common::abi::{Service as ServiceEntry, Slot};
use nix::time::{ClockId, clock_gettime};

use super::core::Engine;
use super::handle::EngineError;
use super::leaving::departing;
use super::views::{
    self, DrainView, FlowOwner, FlowQuery, FlowsView, Holder, Holders, Owners, PlanQuery, PlanView,
    RingView, TableEntry,
};
use crate::desired::endpoint_key;
use crate::desired::ids::{Id, ServiceIdentity};
use crate::forecast::{Present, forecast};
use crate::maps::monotonic_ms;
use crate::model::diff::takes_restart;
use crate::model::{Backend, Model, ModelError, Problem, Service, Urgency};
use crate::suggest::closest;

/// Flows on record.
pub(super) fn flows(engine: &Engine, query: &FlowQuery) -> Result<FlowsView, EngineError> {
    let owners = owners(engine);
    check_names(engine, query, &owners)?;
    Ok(views::list(query, &owners, table(engine), now_s()))
}

/// A service's ring.
pub(super) fn ring(engine: &Engine, service: &str) -> Result<RingView, EngineError> {
    let service = engine.model.service(service)?;
    let slots = slots(engine, service);
    let oldest_ms = engine
        .keeper
        .transition(service)
        .and_then(|transition| transition.summary().oldest_ms);
    let since_s = oldest_ms.map(|oldest_ms| monotonic_ms().saturating_sub(oldest_ms) / 1_000);
    Ok(views::view(
        service,
        &slots,
        &holders(engine, service),
        since_s,
    ))
}

/// What flows a backend still has.
pub(super) fn drain(
    engine: &Engine,
    service: &str,
    backend: &str,
) -> Result<DrainView, EngineError> {
    let service = engine.model.service(service)?;
    let backend = service.backend(backend)?;
    let id = id_of(engine, service, backend).map_or(0, |id| id.id);
    let slots = slots(engine, service);
    let count = |is_its: fn(&Slot, u16) -> bool| {
        slots
            .iter()
            .filter(|slot| id != 0 && is_its(slot, id))
            .count() as u32
    };
    let current_count = count(|slot, id| slot.current() == id);
    let previous_count = count(|slot, id| slot.previous() == id);
    let tally = views::tally(&owners(engine), table(engine), now_s());
    // While a slot sends flows there, new ones or such as are not on record, there may be some.
    let is_certain = current_count + previous_count == 0;
    let certain_in_s = (!is_certain).then(|| certain_in_s(engine, service, id));
    Ok(DrainView {
        admin: backend.admin,
        health: backend.health,
        current_count,
        previous_count,
        flows: tally.by_backend.get(&id).copied().unwrap_or_default(),
        certain_in_s,
    })
}

/// How long it takes at most until all flows of a backend are on record, or have been silent for longer
/// than the idle time-out.
fn certain_in_s(engine: &Engine, service: &Service, id: u16) -> u64 {
    let idle_timeout_ms = u64::from(service.idle_timeout_s) * 1_000;
    let now_ms = monotonic_ms();
    let service_id = entry(engine, service).map_or(0, |entry| entry.id);
    let suppressed_s = engine.store.flows().suppressed_s(service_id);
    let suppressed_ms = suppressed_s.map_or(0, |stamp_s| (stamp_s + 1) * 1_000);
    let moved_ms = engine
        .keeper
        .transition(service)
        .and_then(|transition| transition.moved_from_ms(id));
    // A slot that still has to move, moves now at the earliest.
    let since_ms = moved_ms.unwrap_or(now_ms).max(suppressed_ms);
    (since_ms + idle_timeout_ms)
        .saturating_sub(now_ms)
        .div_ceil(1_000)
}

/// What a change would do.
pub(super) fn plan(engine: &Engine, query: PlanQuery) -> Result<PlanView, EngineError> {
    let (after, problems, urgency) = foreseen(&engine.model, query)?;
    let tally = views::tally(&owners(engine), table(engine), now_s());
    let present = |service: &Service| present(engine, service, &tally);
    Ok(PlanView {
        forecast: forecast(&engine.model, &after, urgency, present),
        warnings: problems.iter().map(Problem::to_string).collect(),
        restart: takes_restart(&engine.model, &after),
    })
}

/// The model that a change leads to.
fn foreseen(model: &Model, query: PlanQuery) -> Result<(Model, Vec<Problem>, Urgency), ModelError> {
    match query {
        PlanQuery::Change(change) => {
            let urgency = change.urgency();
            let (after, warnings) = model.apply(change)?;
            Ok((after, warnings, urgency))
        }
        PlanQuery::Replace(after) => {
            Ok((after.keeping_state_of(model), Vec::new(), Urgency::Planned))
        }
    }
}

fn present(engine: &Engine, service: &Service, tally: &views::SlotFlows) -> Present {
    let backends = service.backends.values();
    let known = backends.filter_map(|backend| {
        let id = id_of(engine, service, backend)?;
        Some(((backend.address, backend.port), id.id))
    });
    let flows_by_slot = entry(engine, service)
        .and_then(|entry| tally.by_slot.get(&entry.id))
        .cloned();
    let departing = departing(engine, service).into_iter();
    let leaving = departing.map(|one| ((one.address, one.port), one.id));
    let ids: BTreeMap<_, _> = known.chain(leaving).collect();
    let flows = |id: &u16| Some((*id, *tally.by_backend.get(id)?));
    Present {
        ring: slots(engine, service)
            .iter()
            .map(|slot| slot.current())
            .collect(),
        flows_by_slot: flows_by_slot.unwrap_or_default(),
        flows: ids.values().filter_map(flows).collect(),
        ids,
    }
}

/// Names in a query that nothing has.
fn check_names(engine: &Engine, query: &FlowQuery, owners: &Owners) -> Result<(), ModelError> {
    let service = match &query.service {
        Some(name) => Some(engine.model.service(name)?),
        None => None,
    };
    let Some(name) = &query.backend else {
        return Ok(());
    };
    let candidates = owners
        .values()
        .filter(|owner| service.is_none_or(|service| service.name == owner.service));
    let names: Vec<&str> = candidates.map(|owner| owner.backend.as_str()).collect();
    if names.contains(&name.as_str()) {
        return Ok(());
    }
    let known = closest(name, names).map(str::to_owned);
    let name = name.clone();
    Err(match &query.service {
        Some(service) => ModelError::NoBackend {
            service: service.clone(),
            name,
            known,
        },
        None => ModelError::NoBackendAnywhere { name, known },
    })
}

fn id_of(engine: &Engine, service: &Service, backend: &Backend) -> Option<Id> {
    let identity = ServiceIdentity::of(service);
    engine.ids.backend(&identity, backend.address, backend.port)
}

fn entry(engine: &Engine, service: &Service) -> Option<ServiceEntry> {
    engine
        .actual
        .maps
        .services
        .get(&endpoint_key(service))
        .copied()
}

/// The ring in force.
fn slots(engine: &Engine, service: &Service) -> Vec<Slot> {
    let ring = engine.actual.rings.get(&endpoint_key(service));
    let slots = ring.map(|ring| ring.content.build());
    let slots = slots.as_deref().unwrap_or_default();
    slots.iter().copied().map(Slot).collect()
}

/// The backends of a service by id, those that are leaving too.
fn holders(engine: &Engine, service: &Service) -> Holders {
    let leaving = departing(engine, service).into_iter().map(|one| {
        let holder = Holder {
            name: one.name,
            is_eligible: false,
            is_leaving: true,
        };
        (one.id, holder)
    });
    let group = service.active_group();
    let backends = service.backends.values();
    let present = backends.filter_map(|backend| {
        let holder = Holder {
            name: backend.name.clone(),
            is_eligible: backend.is_available() && group == Some(backend.backup),
            is_leaving: false,
        };
        Some((id_of(engine, service, backend)?.id, holder))
    });
    leaving.chain(present).collect()
}

/// Whose a record may be.
fn owners(engine: &Engine) -> Owners {
    let mut owners = Owners::new();
    for service in engine.model.services.values() {
        let Some(entry) = entry(engine, service) else {
            continue;
        };
        for (id, holder) in holders(engine, service) {
            let Some(backend) = engine.actual.maps.backends.get(&id) else {
                continue;
            };
            let owner = FlowOwner {
                service: service.name.clone(),
                backend: holder.name,
                entry,
            };
            owners.insert((id, backend.generation), owner);
        }
    }
    owners
}

/// The entries of the flow table.
fn table(engine: &Engine) -> impl Iterator<Item = TableEntry> + use<'_> {
    let flows = engine.store.flows();
    (0..flows.entry_count()).filter_map(|place| {
        let entry = flows.entry(place)?;
        let origin = flows.origin(place);
        Some((entry, origin))
    })
}

/// The clock of the flow table ([`lb_common::kernel::Kernel::now_s`]): `bpf_ktime_get_coarse_ns` is
/// `CLOCK_MONOTONIC_COARSE`. Unit: seconds.
fn now_s() -> u32 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC_COARSE);
    // Every Linux has this clock.
    now.map_or(0, |now| now.tv_sec() as u32)
}

//! Answers about backends' lives, flows, rings and plans.

use crate::control::proto::{
    Admin, BackendFlows, Breakage, Flow, FlowCounts, Flows, LeavingBackend, Plan, Ring, RingShare,
    ServicePlan, SlotMove,
};
use crate::engine::snapshot::{self, ServiceState};
use crate::engine::views::{self, DrainView, FlowStage, FlowView, FlowsView, PlanView, RingView};
use crate::forecast::ServiceForecast;
use crate::model::Keyword;

/// A backend's admin state and the flows that it still has.
pub(in crate::control) fn admin(view: &DrainView) -> Admin {
    Admin {
        state: view.admin.word().to_owned(),
        slots: view.current_count,
        previous_slots: view.previous_count,
        flows: counts(&view.flows),
        is_empty: view.is_empty(),
        certain_in_s: view.certain_in_s,
    }
}

/// Backends that are leaving a service.
pub(in crate::control) fn leaving(state: &ServiceState) -> Vec<LeavingBackend> {
    let backend = |backend: &snapshot::LeavingBackend| LeavingBackend {
        service: state.service.name.clone(),
        name: backend.name.clone(),
        address: backend.address.to_string(),
        port: backend.port,
        slots: backend.slots,
        counters: super::counters(&backend.stats),
    };
    state.leaving.iter().map(backend).collect()
}

/// Flows on record.
pub(in crate::control) fn flows(view: &FlowsView) -> Flows {
    let backend = |one: &views::BackendFlows| BackendFlows {
        service: one.service.clone(),
        backend: one.backend.clone(),
        flows: counts(&one.counts),
        is_complete: one.is_complete,
    };
    Flows {
        flows: view.flows.iter().map(flow).collect(),
        counts: view.counts.iter().map(backend).collect(),
    }
}

fn flow(view: &FlowView) -> Flow {
    let state = match view.stage {
        FlowStage::HalfOpen => "half_open",
        FlowStage::Established => "established",
        FlowStage::Closing => "closing",
    };
    Flow {
        service: view.service.clone(),
        backend: view.backend.clone(),
        client: view.client.to_string(),
        client_port: view.client_port,
        port: view.port,
        state: state.to_owned(),
        idle_s: view.idle_s,
        expires_s: view.expires_s,
    }
}

fn counts(counts: &views::FlowCounts) -> FlowCounts {
    FlowCounts {
        half_open: counts.half_open_count,
        established: counts.established_count,
        closing: counts.closing_count,
    }
}

/// A service's ring.
pub(in crate::control) fn ring(view: &RingView) -> Ring {
    let share = |share: &views::RingShare| RingShare {
        name: share.backend.clone(),
        slots: share.current_count,
        previous_slots: share.previous_count,
        is_eligible: share.is_eligible,
        is_leaving: share.is_leaving,
    };
    Ring {
        service: view.service.clone(),
        scheduler: view.scheduler.word().to_owned(),
        slots: view.slot_count,
        settled_slots: view.settled_count,
        armed_slots: view.armed_count,
        moving_slots: view.moving_count,
        quiet_slots: view.quiet_count,
        since_s: view.since_s,
        backends: view.shares.iter().map(share).collect(),
    }
}

/// What a change would do.
pub(in crate::control) fn plan(view: PlanView) -> Plan {
    Plan {
        changes: view.forecast.differences,
        restart: view.restart.into_iter().map(str::to_owned).collect(),
        warnings: view.warnings,
        services: view.forecast.services.into_iter().map(service).collect(),
    }
}

fn service(forecast: ServiceForecast) -> ServicePlan {
    let moves = forecast.moves.into_iter().map(|one| SlotMove {
        name: one.backend,
        slots_before: one.before_count,
        slots_after: one.after_count,
    });
    let breakages = forecast.breakages.into_iter().map(|one| Breakage {
        backend: one.backend,
        reason: one.reason,
        known_flows: one.known_count,
        is_complete: one.is_complete,
    });
    ServicePlan {
        service: forecast.service,
        slots: forecast.slot_count,
        moved_slots: forecast.moved_count,
        backends: moves.collect(),
        affected_flows: forecast.affected_count,
        breakages: breakages.collect(),
        notes: forecast.notes,
    }
}

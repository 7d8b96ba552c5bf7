//! What of a change breaks flows, and why.

use super::ring::{Endpoint, Present};
use crate::model::{
    AdminState, Backend, Fit, Health, Keyword, OnDown, OnRemove, Protocol, Scheduler, Service,
    UdpFlow,
};
use crate::transition::sweep::FlowCounts;

/// Flows that would break, for one reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breakage {
    /// Of this backend; `None` = of the service.
    pub backend: Option<String>,
    /// Why.
    pub reason: String,
    /// How many of them are on record.
    pub known_count: u64,
    /// Whether that is all of them.
    pub is_complete: bool,
}

/// What breaks of a service that changes, or goes. `moves` = slots get another backend.
pub(super) fn breakages(
    before: &Service,
    after: Option<&Service>,
    present: &Present,
    moves: bool,
) -> Vec<Breakage> {
    if let Some(reason) = reason_for_all(before, after, moves) {
        let flows = present.flows.values();
        return vec![Breakage {
            backend: None,
            reason,
            known_count: flows.map(FlowCounts::total).sum(),
            is_complete: before.tracks_flows(),
        }];
    }
    let Some(after) = after else {
        return Vec::new();
    };
    let backends = before.backends.values();
    let ended = backends.filter_map(|backend| {
        let reason = reason_for_one(before, after, backend)?;
        Some(of_backend(before, backend, present, reason))
    });
    ended.collect()
}

fn of_backend(service: &Service, backend: &Backend, present: &Present, reason: String) -> Breakage {
    let id = present.ids.get(&endpoint(backend));
    let flows = id.and_then(|id| present.flows.get(id));
    Breakage {
        backend: Some(backend.name.clone()),
        reason,
        known_count: flows.map_or(0, FlowCounts::total),
        is_complete: service.tracks_flows(),
    }
}

/// Why every flow of a service breaks, or any may.
fn reason_for_all(before: &Service, after: Option<&Service>, moves: bool) -> Option<String> {
    let Some(after) = after else {
        return Some("the service goes: nothing answers for its VIP any more".to_owned());
    };
    let endpoint = |one: &Service| (one.vip, one.port, one.protocol);
    if endpoint(before) != endpoint(after) {
        return Some("its VIP, port or protocol changes: the former endpoint goes".to_owned());
    }
    if before.forward != after.forward {
        let (from, to) = (before.forward.word(), after.forward.word());
        return Some(format!(
            "forward changes from {from} to {to}: backends get packets that fit none of their \
             connections"
        ));
    }
    if before.tracks_flows() != after.tracks_flows() {
        let key = match after.protocol {
            Protocol::Tcp => "scheduler",
            Protocol::Udp => "flow",
        };
        return Some(format!(
            "{key} changes: flows are found by other means than before"
        ));
    }
    let follows_hash = after.scheduler == Scheduler::Maglev && !after.tracks_flows();
    if follows_hash && before.ring_slots != after.ring_slots {
        return Some("ring_slots changes: nearly every flow has another slot then".to_owned());
    }
    let is_stateless = after.protocol == Protocol::Udp && after.policies.flow == UdpFlow::Hash;
    (is_stateless && moves).then(|| {
        "flow = \"hash\": flows in slots that move change their backend at once".to_owned()
    })
}

/// Why the flows of one backend end which do not end today.
fn reason_for_one(before: &Service, after: &Service, backend: &Backend) -> Option<String> {
    if ending(before, Some(backend)).is_some() {
        return None;
    }
    let mut remaining = after.backends.values();
    let remains = remaining.find(|one| endpoint(one) == endpoint(backend));
    ending(after, remains)
}

/// What ends the flows of a backend of a service; the backend is `None` when it was removed.
fn ending(service: &Service, backend: Option<&Backend>) -> Option<String> {
    let policies = &service.policies;
    let policy = policies.on_remove.word();
    match backend {
        None if policies.on_remove != OnRemove::Keep => {
            Some(format!("it is removed, and on_remove = \"{policy}\""))
        }
        Some(backend)
            if backend.standing() == AdminState::Maint && policies.on_remove != OnRemove::Keep =>
        {
            let reason = match backend.fit {
                Fit::Fit => "it is in maintenance",
                Fit::Unfit => "it has not the service's role",
            };
            Some(format!("{reason}, and on_remove = \"{policy}\""))
        }
        Some(Backend {
            health: Health::Down,
            ..
        }) if policies.on_down == OnDown::Reset => {
            Some("it is down, and on_down = \"reset\"".to_owned())
        }
        _ => None,
    }
}

fn endpoint(backend: &Backend) -> Endpoint {
    (backend.address, backend.port)
}

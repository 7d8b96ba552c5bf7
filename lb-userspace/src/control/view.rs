//! Snapshots of the engine → answers.

mod health;
mod lives;
mod pair;

use std::time::Duration;

use lb_common::abi;
use lb_common::drop_reason::DropReason;

use super::API_VERSION;
use super::proto::{
    Backend, BackendStats, Counters, Datapath, Drop, Interface, MapFill, NextHop, Service,
    ServiceStats, Stats, Status,
};
use crate::engine::snapshot::{self, BackendState, InterfaceState, ServiceState, Snapshot};
use crate::model::{Fit, Keyword, Protocol};

pub(super) use health::report as health;
pub(super) use lives::{admin, flows, leaving, plan, ring};
pub(super) use pair::{active_peer, peers, vips};

/// The state of the node.
pub(super) fn status(snapshot: &Snapshot) -> Status {
    let backends = snapshot.services.iter().map(|state| state.backends.len());
    Status {
        node: snapshot.node.clone(),
        version: env!("LB_VERSION").to_owned(),
        api_version: API_VERSION.to_owned(),
        uptime_s: snapshot.uptime.as_secs(),
        config_file: snapshot
            .config_file
            .as_ref()
            .map(|file| file.display().to_string()),
        datapath: Datapath {
            pinned: snapshot.datapath.pinned.display().to_string(),
            abi_version: snapshot.datapath.abi_version,
            origin: snapshot.datapath.origin.label().to_owned(),
            heartbeat_age_ms: millis(snapshot.datapath.heartbeat_age),
        },
        interfaces: snapshot.interfaces.iter().map(interface).collect(),
        service_count: snapshot.services.len(),
        backend_count: backends.sum(),
        maps: snapshot.maps.iter().map(map_fill).collect(),
        passed_packets: snapshot.passed_packets,
        drops: drops(&snapshot.drops),
    }
}

/// All counters.
pub(super) fn stats(snapshot: &Snapshot) -> Stats {
    let services = snapshot.services.iter().map(|state| ServiceStats {
        name: state.service.name.clone(),
        counters: sum(state),
        drops: drops(&state.drops),
        backends: backend_stats(state),
    });
    Stats {
        uptime_ms: millis(snapshot.uptime),
        passed_packets: snapshot.passed_packets,
        drops: drops(&snapshot.drops),
        services: services.collect(),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// A service with its backends.
pub(super) fn service(state: &ServiceState) -> Service {
    let service = &state.service;
    Service {
        name: service.name.clone(),
        vip: service.vip.to_string(),
        port: service.port,
        protocol: service.protocol.to_string(),
        scheduler: service.scheduler.word().to_owned(),
        forward: service.forward.word().to_owned(),
        idle_timeout_s: service.idle_timeout_s,
        ring_slots: service.ring_slots,
        flow: (service.protocol == Protocol::Udp).then(|| service.policies.flow.word().to_owned()),
        slow_start_s: service.policies.slow_start_s,
        on_down: service.policies.on_down.word().to_owned(),
        on_remove: service.policies.on_remove.word().to_owned(),
        on_all_down: service.policies.on_all_down.word().to_owned(),
        ring_len: state.ring_len,
        vip_interface: state.vip_interface.clone(),
        counters: sum(state),
        drops: drops(&state.drops),
        backends: backends(state),
        leaving: leaving(state),
    }
}

/// The backends of a service.
pub(super) fn backends(state: &ServiceState) -> Vec<Backend> {
    let active_group = state.service.active_group();
    let backends = state.backends.iter();
    backends
        .map(|one| backend(state, one, active_group))
        .collect()
}

fn backend(service: &ServiceState, state: &BackendState, active_group: Option<u8>) -> Backend {
    let backend = &state.backend;
    Backend {
        service: service.service.name.clone(),
        name: backend.name.clone(),
        address: backend.address.to_string(),
        port: backend.port,
        weight: backend.weight,
        backup: backend.backup,
        admin: backend.admin.word().to_owned(),
        health: backend.health.word().to_owned(),
        is_fit: backend.fit == Fit::Fit,
        agent: health::agent(backend.agent),
        is_eligible: backend.is_available() && active_group == Some(backend.backup),
        slots: state.slots,
        share: match service.ring_len {
            0 => 0.0,
            len => f64::from(state.slots) / f64::from(len),
        },
        next_hop: next_hop(&state.next_hop),
        counters: counters(&state.stats),
    }
}

fn next_hop(next_hop: &snapshot::NextHop) -> NextHop {
    let known = |state: &str, interface: &str, link_address: &[u8; 6]| NextHop {
        state: state.to_owned(),
        interface: Some(interface.to_owned()),
        link_address: Some(link_address_text(*link_address)),
        reason: None,
    };
    match next_hop {
        snapshot::NextHop::Resolved {
            interface,
            link_address,
        } => known("resolved", interface, link_address),
        snapshot::NextHop::LastKnown {
            interface,
            link_address,
        } => known("last_known", interface, link_address),
        snapshot::NextHop::Unresolved(reason) => NextHop {
            state: "unresolved".to_owned(),
            interface: None,
            link_address: None,
            reason: Some(reason.clone()),
        },
    }
}

fn link_address_text(octets: [u8; 6]) -> String {
    octets.map(|octet| format!("{octet:02x}")).join(":")
}

fn interface(state: &InterfaceState) -> Interface {
    Interface {
        name: state.interface.name.clone(),
        ifindex: state.ifindex,
        xdp: state.interface.xdp.to_string(),
        attached: state.attached.map(str::to_owned),
        reason: state.reason.clone(),
    }
}

fn map_fill(fill: &snapshot::MapFill) -> MapFill {
    MapFill {
        map: fill.map.to_owned(),
        used: fill.used,
        max: fill.max,
        setting: fill.setting.to_owned(),
    }
}

fn drops(drops: &[(DropReason, u64)]) -> Vec<Drop> {
    let drop = |(reason, packets): &(DropReason, u64)| Drop {
        reason: reason.label().to_owned(),
        packets: *packets,
        help: reason.help().to_owned(),
    };
    drops.iter().map(drop).collect()
}

/// Of those that are leaving too: their flows may be the most for a while.
fn backend_stats(state: &ServiceState) -> Vec<BackendStats> {
    let backends = state.backends.iter();
    let backends = backends.map(|one| (&one.backend.name, &one.stats));
    let leaving = state.leaving.iter().map(|one| (&one.name, &one.stats));
    let stats = |(name, stats): (&String, &abi::BackendStats)| BackendStats {
        name: name.clone(),
        counters: counters(stats),
    };
    backends.chain(leaving).map(stats).collect()
}

fn sum(state: &ServiceState) -> Counters {
    let mut total = abi::BackendStats::default();
    let backends = state.backends.iter().map(|one| &one.stats);
    let leaving = state.leaving.iter().map(|one| &one.stats);
    for stats in backends.chain(leaving) {
        total.add(stats);
    }
    counters(&total)
}

fn counters(stats: &abi::BackendStats) -> Counters {
    Counters {
        packets: stats.packets,
        bytes: stats.bytes,
        new_flows: stats.new_flows,
        reply_packets: stats.reply_packets,
        reply_bytes: stats.reply_bytes,
    }
}

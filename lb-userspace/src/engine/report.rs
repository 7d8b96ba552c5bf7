//! The snapshot: the model joined with what is in force and with the counters.

use std::time::Duration;

use bytemuck::Zeroable;
use lb_common::abi::{Backend as BackendEntry, BackendSignals, BackendStats, Instance, map_name};
use lb_common::drop_reason::{DropReason, PASSED_INDEX};
use lb_common::limits::{COUNTERS_PER_SERVICE, NEIGHBOURS_MAX, ROUTES_MAX};
use tracing::warn;

use super::core::Engine;
use super::leaving::departing;
use super::snapshot::{
    BackendState, DatapathState, LeavingBackend, MapFill, NextHop, ServiceState, Snapshot,
};
use crate::desired::ids::ServiceIdentity;
use crate::desired::ring::blocks_for;
use crate::desired::{endpoint_key, way_to};
use crate::maps::{MapStore, ServiceCounters};
use crate::model::{Backend, Service};
use crate::netlink::next_hop::{Freshness, ResolvedHop};
use crate::netlink::view::View;
use crate::pins::boottime_ns;
use crate::reconcile::InstalledRing;

/// In place of a config key for maps whose capacity is fixed.
const FIXED: &str = "(fixed)";

/// The state of everything, now.
pub(super) fn snapshot(engine: &Engine) -> Snapshot {
    let node_counters = service_counters(engine, 0);
    Snapshot {
        node: engine.model.node.clone(),
        uptime: engine.started.elapsed(),
        config_file: engine.config_file.clone(),
        datapath: datapath_state(engine),
        interfaces: engine.interfaces.states(&engine.model.interfaces),
        cluster: engine.model.cluster.clone(),
        vrrp: engine.model.vrrp.clone(),
        services: engine
            .model
            .services
            .values()
            .map(|service| service_state(engine, service))
            .collect(),
        maps: map_fills(engine),
        rings_written_count: engine.rings_written_count,
        passed_packets: node_counters[PASSED_INDEX as usize],
        drops: drops(&node_counters),
    }
}

fn datapath_state(engine: &Engine) -> DatapathState {
    let instance = engine.store.instance().unwrap_or_else(|error| {
        warn!("{:#}", anyhow::Error::from(error));
        Instance::zeroed()
    });
    let heartbeat_age_ns = boottime_ns().saturating_sub(instance.heartbeat_ns);
    DatapathState {
        pinned: engine.pins.directory().to_owned(),
        abi_version: instance.version,
        origin: engine.origin,
        heartbeat_age: Duration::from_nanos(heartbeat_age_ns),
    }
}

fn service_state(engine: &Engine, service: &Service) -> ServiceState {
    let identity = ServiceIdentity::of(service);
    let id = engine.ids.service(&identity).map_or(0, |id| id.id);
    let key = endpoint_key(service);
    let entry = engine.actual.maps.services.get(&key);
    let ring = engine.actual.rings.get(&key);
    let backends = service.backends.values();
    ServiceState {
        service: service.clone(),
        id,
        ring_len: entry.map_or(0, |entry| entry.ring_len),
        phases: engine.keeper.transition(service).map(|one| one.summary()),
        vip_interface: vip_interface(engine, service),
        backends: backends
            .map(|backend| backend_state(engine, service, &identity, backend, ring))
            .collect(),
        leaving: leaving(engine, service, ring),
        drops: drops(&service_counters(engine, id)),
    }
}

fn backend_state(
    engine: &Engine,
    service: &Service,
    identity: &ServiceIdentity,
    backend: &Backend,
    ring: Option<&InstalledRing>,
) -> BackendState {
    let id = engine.ids.backend(identity, backend.address, backend.port);
    let id = id.map_or(0, |id| id.id);
    let slots = ring.and_then(|ring| ring.shares.get(&id));
    BackendState {
        backend: backend.clone(),
        id,
        next_hop: next_hop(engine, service, backend, id),
        slots: slots.copied().unwrap_or(0),
        stats: backend_stats(engine, id),
        signals: backend_signals(engine, id),
    }
}

/// Backends that are in the model no more.
fn leaving(
    engine: &Engine,
    service: &Service,
    ring: Option<&InstalledRing>,
) -> Vec<LeavingBackend> {
    let slots = |id: u16| ring.and_then(|ring| ring.shares.get(&id)).copied();
    let departing = departing(engine, service).into_iter();
    departing
        .map(|one| LeavingBackend {
            name: one.name,
            address: one.address,
            port: one.port,
            id: one.id,
            slots: slots(one.id).unwrap_or(0),
            stats: backend_stats(engine, one.id),
        })
        .collect()
}

fn next_hop(engine: &Engine, service: &Service, backend: &Backend, id: u16) -> NextHop {
    let network = &engine.surroundings.network;
    let way = way_to(service.forward, network.hops.get(&backend.address));
    reported_hop(engine.actual.maps.backends.get(&id), way, &network.view)
}

/// The next hop in the datapath's `entry`, which may lag behind the `way` that is known.
fn reported_hop(
    entry: Option<&BackendEntry>,
    way: Result<&ResolvedHop, &str>,
    view: &View,
) -> NextHop {
    let Some(entry) = entry.filter(|entry| entry.is_resolved == 1) else {
        let reason = way.err().unwrap_or("found, and not yet in the datapath");
        return NextHop::Unresolved(reason.to_owned());
    };
    let is_current = way.is_ok_and(|hop| {
        let is_in_force = (hop.link, hop.ifindex) == (entry.link, entry.ifindex);
        is_in_force && hop.freshness == Freshness::Current
    });
    let interface = view.link_name(entry.ifindex);
    let link_address = entry.link.destination();
    if is_current {
        NextHop::Resolved {
            interface,
            link_address,
        }
    } else {
        NextHop::LastKnown {
            interface,
            link_address,
        }
    }
}

fn vip_interface(engine: &Engine, service: &Service) -> Option<String> {
    if !engine.model.manage_vips {
        return None;
    }
    let view = engine.surroundings.view();
    let own = engine.own_vips.holder(service.vip, view);
    let holder = own.or_else(|| view.holders(service.vip).next());
    holder.map(|ifindex| view.link_name(ifindex))
}

fn backend_stats(engine: &Engine, id: u16) -> BackendStats {
    engine.store.backend_stats(id).unwrap_or_else(|error| {
        warn!("{:#}", anyhow::Error::from(error));
        BackendStats::default()
    })
}

fn backend_signals(engine: &Engine, id: u16) -> BackendSignals {
    engine.store.backend_signals(id).unwrap_or_else(|error| {
        warn!("{:#}", anyhow::Error::from(error));
        BackendSignals::default()
    })
}

fn service_counters(engine: &Engine, id: u16) -> ServiceCounters {
    engine.store.service_counters(id).unwrap_or_else(|error| {
        warn!("{:#}", anyhow::Error::from(error));
        [0; COUNTERS_PER_SERVICE as usize]
    })
}

/// The reasons that have occurred.
fn drops(counters: &ServiceCounters) -> Vec<(DropReason, u64)> {
    DropReason::ALL
        .into_iter()
        .map(|reason| (reason, counters[reason as usize]))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn map_fills(engine: &Engine) -> Vec<MapFill> {
    let (maps, limits) = (&engine.actual.maps, &engine.limits);
    let services = maps.services.values();
    let blocks: u32 = services.map(|service| blocks_for(service.ring_len)).sum();
    let counted = [
        (
            map_name::SERVICES,
            maps.services.len(),
            limits.services,
            "limits.services",
        ),
        (
            map_name::VIPS,
            maps.vips.len(),
            limits.services,
            "limits.services",
        ),
        (
            map_name::BACKENDS,
            maps.backends.len(),
            limits.backends,
            "limits.backends",
        ),
        (
            map_name::NAT_REPLIES,
            maps.nat_replies.len(),
            limits.backends,
            "limits.backends",
        ),
        (
            map_name::RINGS,
            blocks as usize,
            limits.ring_blocks,
            "limits.ring_blocks",
        ),
        (map_name::ROUTES, maps.routes.len(), ROUTES_MAX, FIXED),
        (
            map_name::NEIGHBOURS,
            maps.neighbours.len(),
            NEIGHBOURS_MAX,
            FIXED,
        ),
    ];
    let fill = |(map, used, max, setting)| MapFill {
        map,
        used: Some(used as u32),
        max,
        setting,
    };
    let mut fills: Vec<MapFill> = counted.into_iter().map(fill).collect();
    fills.push(MapFill {
        map: map_name::FLOWS,
        used: None,
        max: limits.flows,
        setting: "limits.flows",
    });
    fills
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable;
    use lb_common::abi::LinkRewrite;

    use super::*;

    const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 9];

    fn hop(destination: [u8; 6]) -> ResolvedHop {
        ResolvedHop {
            ifindex: 4,
            interface: "eth0".to_owned(),
            link: LinkRewrite::new(destination, OURS),
            freshness: Freshness::Current,
        }
    }

    fn entry(is_resolved: u8) -> BackendEntry {
        BackendEntry {
            link: LinkRewrite::new(THEIRS, OURS),
            ifindex: 4,
            is_resolved,
            ..BackendEntry::zeroed()
        }
    }

    #[test]
    fn what_the_datapath_uses_is_reported_and_not_what_it_should() {
        let report = |entry, way| reported_hop(entry, way, &View::default());
        let (interface, link_address) = ("interface 4".to_owned(), THEIRS);
        let last_known = NextHop::LastKnown {
            interface: interface.clone(),
            link_address,
        };
        let resolved = NextHop::Resolved {
            interface,
            link_address,
        };
        let (written, unwritten) = (entry(1), entry(0));
        let (same, moved) = (hop(THEIRS), hop([2, 0, 0, 0, 0, 8]));
        assert_eq!(report(Some(&written), Ok(&same)), resolved);
        assert_eq!(report(Some(&written), Ok(&moved)), last_known);
        assert_eq!(report(Some(&written), Err("down")), last_known);
        let unresolved = |reason: &str| NextHop::Unresolved(reason.to_owned());
        assert_eq!(report(Some(&unwritten), Err("down")), unresolved("down"));
        let waiting = unresolved("found, and not yet in the datapath");
        assert_eq!(report(Some(&unwritten), Ok(&same)), waiting);
        assert_eq!(report(None, Ok(&same)), waiting);
    }
}

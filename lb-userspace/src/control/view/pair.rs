//! Groups and peers, as the API tells them.

use std::collections::BTreeSet;

use crate::control::herald::{family_word, word};
use crate::control::peers::PeersView;
use crate::control::proto::{GroupRole, LastFailover, Peers, Vips, VirtualRouter, VrrpProcess};
use crate::control::vrrp::{Failover, VrrpHandle};
use crate::engine::snapshot::Snapshot;
use crate::model::cluster::VrrpGroup;
use crate::vrrp::protocol::{Family, RouterCounters, RouterStatus, State, Status};

/// What a router's state is called that nobody has told.
const UNKNOWN: &str = "unknown";

/// A centisecond. Unit: milliseconds.
const CENTISECOND_MS: u32 = 10;

/// The configured groups, with what `lbd-vrrp` says of them.
pub(in crate::control) fn vips(
    snapshot: &Snapshot,
    status: Option<&Status>,
    peers: &PeersView,
) -> Vips {
    let mut routers = Vec::new();
    for group in snapshot.vrrp.values() {
        let families: BTreeSet<Family> = group.vips.iter().map(|vip| Family::of(*vip)).collect();
        for family in families {
            let told = status.and_then(|status| {
                let mut routers = status.routers.iter();
                routers.find(|one| one.group == group.name && one.family == family)
            });
            routers.push(router(group, family, told, peers));
        }
    }
    Vips {
        process: status.map(|status| VrrpProcess {
            version: status.version.clone(),
            pid: status.pid,
            uptime_ms: status.uptime_ms,
            is_realtime: status.is_realtime,
        }),
        routers,
    }
}

fn router(
    group: &VrrpGroup,
    family: Family,
    told: Option<&RouterStatus>,
    peers: &PeersView,
) -> VirtualRouter {
    let vips = group.vips.iter().filter(|vip| Family::of(**vip) == family);
    let unknown = || "lbd-vrrp has not said anything of it".to_owned();
    let is_own = told.is_some_and(|one| one.state == State::Active);
    VirtualRouter {
        group: group.name.clone(),
        family: family_word(family).to_owned(),
        interface: group.interface.clone(),
        vrid: group.vrid,
        vips: vips.map(ToString::to_string).collect(),
        state: told.map_or(UNKNOWN, |one| word(one.state)).to_owned(),
        since_unix_ms: told.map(|one| one.since_unix_ms),
        since_ms: told.map(|one| one.since_ms),
        reason: told.map_or_else(unknown, |one| one.reason.clone()),
        priority: told.map_or(group.priority, |one| one.priority),
        priority_configured: group.priority,
        troubles: told.map_or_else(Vec::new, |one| one.troubles.clone()),
        active: told.and_then(|one| Some(one.active?.to_string())),
        active_node: match is_own {
            true => None,
            false => active_peer(peers, &group.name, Some(family)).map(str::to_owned),
        },
        active_priority: told.and_then(|one| one.active_priority),
        held: told.and_then(|one| one.held.clone()),
        distrusted: told.and_then(|one| one.distrusted.clone()),
        interval_ms: u32::from(group.interval_cs) * CENTISECOND_MS,
        authenticate: group.authenticate,
        dispute: told.and_then(|one| one.dispute.clone()),
        counters: told.map_or_else(RouterCounters::default, |one| one.counters),
    }
}

/// The peer that says that it is Active in a group, in that family or any.
pub(in crate::control) fn active_peer<'v>(
    peers: &'v PeersView,
    group: &str,
    family: Option<Family>,
) -> Option<&'v str> {
    let mut peers = peers.peers.iter().filter(|peer| peer.is_up);
    let active = peers.find(|peer| {
        peer.routers.iter().any(|one| {
            one.group == group
                && one.state == State::Active
                && family.is_none_or(|family| family == one.family)
        })
    });
    active.map(|peer| peer.name.as_str())
}

/// This node among its peers; `None` without a cluster.
pub(in crate::control) fn peers(
    snapshot: &Snapshot,
    vrrp: &VrrpHandle,
    view: PeersView,
) -> Option<Peers> {
    let cluster = snapshot.cluster.as_ref()?;
    let status = vrrp.status();
    let routers = vips(snapshot, status.as_ref(), &view).routers.into_iter();
    let roles = routers.map(|router| GroupRole {
        group: router.group,
        family: router.family,
        state: router.state,
        since_unix_ms: router.since_unix_ms,
    });
    Some(Peers {
        node: snapshot.node.clone(),
        version: env!("LB_VERSION").to_owned(),
        vrrp_version: status.map(|status| status.version),
        listen: view.listen.unwrap_or(cluster.listen).to_string(),
        hash_key: view.hash_key,
        behind: view.behind,
        roles: roles.collect(),
        last_failover: vrrp.last_failover(None).map(last_failover),
        peers: view.peers,
        rings: view.rings,
        refused_changes: view.refused_changes,
    })
}

fn last_failover(failover: Failover) -> LastFailover {
    LastFailover {
        group: failover.group,
        family: family_word(failover.family).to_owned(),
        from: word(failover.from).to_owned(),
        to: word(failover.to).to_owned(),
        unix_ms: failover.unix_ms,
        reason: failover.reason,
    }
}

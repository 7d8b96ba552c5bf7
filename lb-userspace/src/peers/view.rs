//! The other nodes, as the API tells of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::cluster::message::ServiceEndpoint;
use crate::cluster::{Role, ServiceStatus};
use crate::control::peers::{PeerView, PeersView, SharedRing};
use crate::engine::{Agreement, endpoint};
use crate::model::Model;
use crate::peers::status::NodeStatus;
use crate::peers::task::PeerSeen;
use crate::sync::link::{LinkStatus, LinksStatus};

/// What services are called, by where they are.
#[derive(Debug, Default)]
pub(super) struct Names {
    /// Of which the names are.
    model: Option<Arc<Model>>,
    by_endpoint: HashMap<ServiceEndpoint, String>,
}

impl Names {
    /// Those of this model, from now on.
    pub(super) fn follow(&mut self, model: &Arc<Model>) {
        if self
            .model
            .as_ref()
            .is_some_and(|known| Arc::ptr_eq(known, model))
        {
            return;
        }
        let services = model.services.values();
        self.by_endpoint = services
            .map(|service| (endpoint(service), service.name.clone()))
            .collect();
        self.model = Some(Arc::clone(model));
    }

    /// What the operator calls a service.
    fn of(&self, endpoint: &ServiceEndpoint) -> String {
        match self.by_endpoint.get(endpoint) {
            Some(name) => name.clone(),
            None => format!("{} port {}", endpoint.vip, endpoint.port),
        }
    }
}

/// What this view is made of.
pub(super) struct Sight<'a> {
    pub(super) model: &'a Model,
    pub(super) names: &'a Names,
    pub(super) behind: Option<String>,
    /// The fingerprint of the flow hash key in force.
    pub(super) hash_key: u64,
    pub(super) links: &'a LinksStatus,
    pub(super) seen: &'a BTreeMap<String, PeerSeen>,
    pub(super) agreement: &'a Agreement,
    pub(super) now_unix_ms: u64,
}

/// The whole of it.
pub(super) fn view(sight: &Sight<'_>) -> PeersView {
    let nobody = PeerSeen::default();
    let peers = sight.links.peers.iter().map(|link| {
        let seen = sight.seen.get(&link.peer).unwrap_or(&nobody);
        peer(sight, link, seen)
    });
    let rings = &sight.agreement.services;
    PeersView {
        listen: sight.model.cluster.as_ref().map(|cluster| cluster.listen),
        behind: sight.behind.clone(),
        hash_key: format!("{:016x}", sight.hash_key),
        peers: peers.collect(),
        refused_changes: sight.agreement.refused_changes.clone(),
        rings: rings.iter().map(|one| ring(sight.names, one)).collect(),
    }
}

fn peer(sight: &Sight<'_>, link: &LinkStatus, seen: &PeerSeen) -> PeerView {
    let status = seen.status.clone().unwrap_or_default();
    let introduction = link.introduction.as_ref();
    let uptime_ms = introduction
        .filter(|_| link.is_up)
        .map(|one| sight.now_unix_ms.saturating_sub(one.started_unix_ms));
    let NodeStatus {
        version,
        vrrp_version,
        behind,
        routers,
        changes: _,
    } = status;
    let heartbeat_age_ms = seen.heard.map(|heard| heard.elapsed().as_millis() as u64);
    PeerView {
        name: link.peer.clone(),
        address: link.address.to_string(),
        is_up: link.is_up,
        since_unix_ms: link.since_unix_ms,
        reason: link.last_error.clone().filter(|_| !link.is_up),
        version: Some(version).filter(|version| !version.is_empty()),
        vrrp_version: Some(vrrp_version).filter(|version| !version.is_empty()),
        protocol: link
            .version
            .filter(|_| link.is_up)
            .map(|version| version.to_string()),
        uptime_ms,
        heartbeat_age_ms,
        rtt_us: link.rtt_us,
        lag_ms: if link.is_up {
            u64::from(link.flows.lag_ms)
        } else {
            // Nothing is told since then.
            let unheard_ms = sight.now_unix_ms.saturating_sub(link.since_unix_ms);
            heartbeat_age_ms.unwrap_or(unheard_ms)
        },
        unacked_flows: link.flows.waiting_sets + link.flows.under_way,
        sent_flows: link.flows.sent.flows,
        received_flows: link.flows.received.flows,
        behind,
        routers,
        drift: drift(sight, link),
        refused: refused(link),
    }
}

/// What keeps this node and a peer from giving the same answer.
fn drift(sight: &Sight<'_>, link: &LinkStatus) -> Vec<String> {
    let theirs = link.introduction.as_ref();
    let theirs = theirs.map_or(0, |introduction| introduction.hash_key_fingerprint);
    let other_key = (link.is_up && theirs != 0 && theirs != sight.hash_key).then(|| {
        format!(
            "it has another flow hash key ({theirs:016x}): connections do not survive a failover until one of the \
             two datapaths is made anew (lbd --detach on the node that is not Active, and start it again)"
        )
    });
    let refusals = sight.agreement.services.iter().filter_map(|service| {
        let reason = service.refusals.get(&link.peer)?;
        let name = sight.names.of(&service.service);
        Some(format!("service {name}: it does not follow: {reason}"))
    });
    let services = sight.agreement.services.iter();
    let left = services.filter(|service| service.is_alone && service.term.owner == link.peer);
    let left = left.map(|service| {
        let name = sight.names.of(&service.service);
        format!("service {name}: it decides the ring and is not heard; this node goes on alone")
    });
    let configs = sight.agreement.drift.get(&link.peer).into_iter().flatten();
    let others = refusals.chain(left).chain(configs.cloned());
    other_key.into_iter().chain(others).collect()
}

fn refused(link: &LinkStatus) -> BTreeMap<String, u64> {
    let counts = [
        ("forged", link.forged_datagrams),
        ("malformed", link.malformed),
        ("replayed", link.replayed_datagrams),
        ("session", link.refused_sessions),
    ];
    let refused = counts.into_iter().filter(|(_, count)| *count > 0);
    refused
        .map(|(reason, count)| (reason.to_owned(), count))
        .collect()
}

fn ring(names: &Names, status: &ServiceStatus) -> SharedRing {
    SharedRing {
        service: names.of(&status.service),
        owner: status.term.owner.clone(),
        term: status.term.number,
        revision: status.revision.unwrap_or(0),
        is_current: status.role == Role::Owner || status.revision.is_some(),
    }
}

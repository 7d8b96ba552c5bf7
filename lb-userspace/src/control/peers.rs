//! What the API knows of the other nodes. The task that looks after the sync link keeps it current.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

use crate::vrrp::protocol::PeerRouter;

/// The cluster as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeersView {
    /// Where peers connect to; null without a cluster.
    #[schema(value_type = Option<String>)]
    pub listen: Option<SocketAddr>,
    /// Why this node has not caught up with its peers; null if it has.
    pub behind: Option<String>,
    /// The fingerprint of the flow hash key in force, 16 hexadecimal digits: the same on all nodes. Empty without a
    /// cluster.
    pub hash_key: String,
    /// The peers by name.
    pub peers: Vec<PeerView>,
    /// What peers have changed at run time and cannot be in force here, each with the reason.
    pub refused_changes: Vec<String>,
    /// How each service's ring is shared, by service.
    pub rings: Vec<SharedRing>,
}

/// How a service's ring is shared.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SharedRing {
    /// The service's name, or its endpoint where it has none here.
    pub service: String,
    /// The node that decides.
    pub owner: String,
    /// Goes up with each change of owner.
    pub term: u64,
    /// Goes up with each change of the ring.
    pub revision: u64,
    /// Whether what the owner has decided is in force here.
    pub is_current: bool,
}

/// A peer as this node sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PeerView {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// Whether the sync link to it is up.
    pub is_up: bool,
    /// Since when. Unit: milliseconds since 1970, UTC.
    pub since_unix_ms: u64,
    /// Why the link is down; null while it is up.
    pub reason: Option<String>,
    /// The version of its `lbd`; null while nothing was heard.
    pub version: Option<String>,
    /// The version of its `lbd-vrrp`; null while nothing was heard, or without one.
    pub vrrp_version: Option<String>,
    /// The version of the sync link's protocol that both speak, such as `1.0`; null while it is not up.
    pub protocol: Option<String>,
    /// How long its `lbd` runs. Unit: milliseconds; null while nothing was heard.
    pub uptime_ms: Option<u64>,
    /// Since its last heartbeat. Unit: milliseconds; null while nothing was heard.
    pub heartbeat_age_ms: Option<u64>,
    /// From here to there and back. Unit: microseconds; null while nothing was measured.
    pub rtt_us: Option<u32>,
    /// Since when it lacks a change of the flow table that was made here; while its link is down, since when it was
    /// not heard. Unit: milliseconds; 0 = it has all.
    pub lag_ms: u64,
    /// Changes of the flow table on their way to it, that it has not acknowledged.
    pub unacked_flows: u64,
    /// Changes of the flow table sent to it, once more included.
    pub sent_flows: u64,
    /// Changes of the flow table received from it.
    pub received_flows: u64,
    /// Why it has not caught up, as it says; null if it has.
    pub behind: Option<String>,
    /// Its virtual routers, as it says.
    pub routers: Vec<PeerRouter>,
    /// How its configuration differs from this node's, a line each. The Active one's decides.
    pub drift: Vec<String>,
    /// Messages of it that were refused, by reason, such as `forged` or `replayed`.
    pub refused: BTreeMap<String, u64>,
}

/// The cluster, for whoever asks. Clones are the same.
#[derive(Clone, Debug)]
pub struct PeersHandle {
    view: watch::Sender<PeersView>,
}

impl Default for PeersHandle {
    fn default() -> Self {
        Self {
            view: watch::Sender::new(PeersView::default()),
        }
    }
}

impl PeersHandle {
    /// Replaces what is known. Who follows is woken only if that is something else.
    pub fn set(&self, view: PeersView) {
        self.view.send_if_modified(|known| {
            let is_new = *known != view;
            *known = view;
            is_new
        });
    }

    /// What is known.
    pub fn view(&self) -> PeersView {
        self.view.borrow().clone()
    }

    /// What is known, as it comes.
    pub fn subscribe(&self) -> watch::Receiver<PeersView> {
        self.view.subscribe()
    }
}

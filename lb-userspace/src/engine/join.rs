//! Making a node one of several: the links to its peers, and its part in the agreement.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context;
use tokio::sync::{mpsc, watch};

use super::peers::{Agreement, Peers};
use crate::cluster::{Coordinator, Settings, Start};
use crate::events::unix_ms;
use crate::loader::{Loaded, Sharing};
use crate::maps::monotonic_ms;
use crate::model::cluster::Cluster;
use crate::peers::hash_key::HashKey;
use crate::sync::link::{Introduction, LinkEvent, Links, LinksHandle};
use crate::sync::secret::{Secret, hash_key_fingerprint};

/// What makes a node one of several.
#[derive(Debug)]
pub struct Membership {
    /// The peers.
    pub config: Cluster,
    /// What all nodes share.
    pub secret: Secret,
    /// The flow hash key of a datapath that is made anew, if not the one that the secret gives.
    pub hash_key: Option<HashKey>,
}

impl Membership {
    /// How the datapath shares its flows: a new one with the key that all nodes derive from their secret.
    pub(super) fn sharing(&self) -> Sharing {
        Sharing::On {
            hash_key: self.hash_key.unwrap_or_else(|| self.secret.flow_hash_key()),
        }
    }
}

/// A node's ends of what it has in common with others.
pub struct Joined {
    /// The links to the peers.
    pub links: LinksHandle,
    /// What happens on them.
    pub link_events: mpsc::Receiver<LinkEvent>,
    /// The flow hash key in force.
    pub hash_key: HashKey,
    /// How the rings are shared.
    pub agreement: watch::Receiver<Agreement>,
    /// The age of the oldest change of the flow table that a peer has not acknowledged: to be kept current. Unit:
    /// milliseconds.
    pub flow_lag_ms: Arc<AtomicU64>,
}

/// The links, before there is an engine.
pub(super) struct Linked {
    pub(super) peers: Peers,
    pub(super) links: LinksHandle,
    pub(super) link_events: mpsc::Receiver<LinkEvent>,
    pub(super) hash_key: HashKey,
}

/// Listens for the peers and connects to them.
///
/// # Errors
/// If the configured address cannot be used.
pub(super) fn link(membership: &Membership, node: &str, loaded: &Loaded) -> anyhow::Result<Linked> {
    let Membership { config, secret, .. } = membership;
    let hash_key = loaded.store.hash_key()?;
    let introduction = Introduction {
        software: env!("LB_VERSION").to_owned(),
        started_unix_ms: unix_ms(),
        hash_key_fingerprint: hash_key_fingerprint(&hash_key),
    };
    let (links, link_events) = Links::start(config, node, secret, introduction)
        .with_context(|| format!("cannot listen at [cluster] listen = {}", config.listen))?;
    let settings = Settings {
        node: node.to_owned(),
        peers: config.peers.keys().cloned().collect(),
        patience_ms: u64::from(config.patience_s) * 1_000,
    };
    let start = match loaded.adopted {
        Some(_) => Start::Adopted,
        None => Start::Fresh,
    };
    let coordinator = Coordinator::new(settings, start, monotonic_ms());
    Ok(Linked {
        peers: Peers::new(coordinator, links.clone()),
        links,
        link_events,
        hash_key,
    })
}

//! The one task that owns the model and writes the maps.
//!
//! Everything is level-triggered: a request, a change of the network and a period all lead to the
//! same pass over model, network and maps, which does what is missing and nothing else.

mod agenda;
mod announcer;
mod answers;
mod core;
mod detach;
mod doubts;
mod fitness;
mod handle;
mod interfaces;
mod join;
mod leaving;
mod own_vips;
mod peers;
mod report;
mod resolver;
mod saved_services;
mod shared_changes;
pub mod snapshot;
mod state_file;
mod steer;
mod surroundings;
mod task;
mod traffic;
pub mod views;
mod vip_work;
mod vips;
mod warnings;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tracing::{error, warn};

use self::core::{Engine, Parts};
use self::join::Linked;
use self::own_vips::OwnVips;
use self::saved_services::{Company, SavedServices};
use self::surroundings::Surroundings;
use crate::loader::{self, Sharing};
use crate::model::{Model, OnStop};
use crate::pins::Pins;
use crate::ways::WaysReceiver;

pub use detach::{Detached, detach};
pub use doubts::InDoubt;
pub use fitness::Fitness;
pub use handle::{EngineError, EngineHandle, Models, Outcome, Progress, Request};
pub use join::{Joined, Membership};
pub(crate) use peers::endpoint;
pub use peers::{Agreement, PeerNews};
pub use state_file::{StateFile, StateFileError};

/// What an engine is started with.
#[derive(Debug)]
pub struct Options {
    /// The model to put in force first.
    pub model: Model,
    /// Where it came from, for the status.
    pub config_file: Option<PathBuf>,
    /// A file of this daemon's own, for what must survive it: which VIPs it has added.
    pub state_file: StateFile,
    /// Another one: its services with the changes made at run time.
    pub services_file: StateFile,
    /// Where all that outlives it is pinned.
    pub pins: Pins,
    /// What a stop does to the datapath, if not what the model says.
    pub on_stop: Option<OnStop>,
    /// What makes it one node of several, if it is.
    pub membership: Option<Membership>,
}

/// An engine at work.
pub struct Started {
    /// The way to it.
    pub handle: EngineHandle,
    /// The model in force.
    pub models: Models,
    /// The ways to its backends.
    pub ways: WaysReceiver,
    /// What there is to serve with.
    pub fitness: watch::Receiver<Fitness>,
    /// Backends that what passes by puts in doubt.
    pub doubts: mpsc::Receiver<InDoubt>,
    /// What it has in common with its peers.
    pub joined: Option<Joined>,
    /// Ends with the engine.
    pub task: JoinHandle<anyhow::Result<()>>,
}

/// Loads the datapath or adopts it, attaches it, fills the maps, adds the VIPs, and keeps all that in
/// line with the model until it is told to shut down. Returns when the model is in force for the first
/// time; the task ends when the datapath was taken off, or left to go on. Must be called within a tokio runtime, in the
/// network namespace that is to be served.
///
/// # Errors
/// Whatever stands in the way, named. What was done until then is taken back; a datapath that was found
/// stays.
pub async fn start(options: Options) -> anyhow::Result<Started> {
    let Options {
        model,
        config_file,
        state_file,
        services_file,
        pins,
        on_stop,
        membership,
    } = options;
    let company = match &membership {
        Some(_) => Company::Peers,
        None => Company::Nobody,
    };
    let (saved, model) = SavedServices::resume(services_file, model, company);
    let limits = model.limits;
    let own_vips = OwnVips::load(state_file)?;
    let surroundings = Surroundings::open()?;
    let sharing = membership
        .as_ref()
        .map_or(Sharing::Off, Membership::sharing);
    let loaded = loader::load(&limits, &pins, sharing)?;
    let is_adopted = loaded.adopted.is_some();
    let linked = match &membership {
        Some(membership) => Some(join::link(membership, &model.node, &loaded)?),
        None => None,
    };
    let (peers, ends) = match linked {
        Some(Linked {
            peers,
            links,
            link_events,
            hash_key,
        }) => (Some(peers), Some((links, link_events, hash_key))),
        None => (None, None),
    };
    let parts = Parts {
        datapath: loaded.datapath,
        store: loaded.store,
        events: loaded.events,
        own_vips,
        saved,
        surroundings,
        limits,
        config_file,
        pins,
        adopted: loaded.adopted,
        on_stop,
        peers,
    };
    let mut engine = Engine::new(parts, without_services(&model))?;
    match engine.begin(model).await {
        Ok(warnings) => {
            for warning in warnings {
                warn!("{warning}");
            }
        }
        Err(refusal) if is_adopted => {
            return Err(refusal)
                .context("lbd cannot start; the datapath that it found goes on forwarding");
        }
        Err(refusal) => {
            if let Err(error) = engine.detach().await {
                error!("not everything was taken back: {error:#}");
            }
            return Err(refusal).context("lbd cannot start");
        }
    }
    let (handle, requests) = EngineHandle::new();
    if let Some((links, ..)) = &ends {
        let table = engine.store.shared_flows()?;
        links.share_table(Some(Box::new(table))).await;
    }
    let joined = ends.map(|(links, link_events, hash_key)| Joined {
        links,
        link_events,
        hash_key,
        agreement: engine.agreement.subscribe(),
        flow_lag_ms: Arc::clone(&engine.flow_lag_ms),
    });
    Ok(Started {
        handle,
        models: engine.models(),
        ways: engine.surroundings.ways(),
        fitness: engine.fitness(),
        doubts: engine.doubts.listener(),
        joined,
        task: tokio::spawn(engine.run(requests)),
    })
}

/// What is in force before the first model: nothing.
fn without_services(model: &Model) -> Model {
    Model {
        interfaces: Vec::new(),
        services: BTreeMap::new(),
        ..model.clone()
    }
}

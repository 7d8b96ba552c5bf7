use std::sync::Arc;
use std::time::Instant;

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};

use super::peers::PeerNews;
use super::snapshot::Snapshot;
use super::views::{DrainView, FlowQuery, FlowsView, PlanQuery, PlanView, RingView};
use crate::model::{Change, Model, ModelError, Observation};

/// Why the engine refused or failed.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The change does not lead to a valid model; nothing was changed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A map has no room; nothing was changed.
    #[error(
        "map {map}: {used} of {max} entries used{}, need {needed} more; raise `{setting}`",
        of_leaving(*.leaving)
    )]
    MapFull {
        /// The map's name.
        map: &'static str,
        /// Entries in use.
        used: u32,
        /// Its capacity.
        max: u32,
        /// Entries that the change needs in addition.
        needed: u32,
        /// Those among the entries in use that stay for the flows of backends that were removed.
        leaving: u32,
        /// The config key that raises the capacity.
        setting: &'static str,
    },
    /// The kernel refused a write.
    #[error("{0:#}")]
    Failed(anyhow::Error),
    /// The engine has stopped.
    #[error("lbd is stopping")]
    Stopped,
}

fn of_leaving(count: u32) -> String {
    match count {
        0 => String::new(),
        count => format!(" ({count} by removed backends that may have flows yet)"),
    }
}

/// What was done, with what the operator should know about it.
pub type Outcome = Result<Vec<String>, EngineError>;

/// How much of what checks have found is in force.
#[derive(Clone, Debug)]
pub struct Progress {
    /// What is still to be put in force.
    pub left: Vec<Observation>,
    /// When the rest came in force.
    pub in_force_at: Instant,
}

/// A request to the engine.
#[derive(Debug)]
pub enum Request {
    /// Apply one change; answered with warnings.
    Change(Box<Change>, oneshot::Sender<Outcome>),
    /// Replace the whole model (a reload); answered with warnings.
    Replace(Box<Model>, oneshot::Sender<Outcome>),
    /// Note what checks have found, of at most this many services; answered with what is left.
    Observe(
        Vec<Observation>,
        usize,
        oneshot::Sender<Result<Progress, EngineError>>,
    ),
    /// Report everything.
    Snapshot(oneshot::Sender<Snapshot>),
    /// List and count flows on record.
    Flows(FlowQuery, oneshot::Sender<Result<FlowsView, EngineError>>),
    /// Show a service's ring.
    Ring(String, oneshot::Sender<Result<RingView, EngineError>>),
    /// Tell what flows a backend (service, name) still has.
    Drain(
        (String, String),
        oneshot::Sender<Result<DrainView, EngineError>>,
    ),
    /// Foresee a change.
    Plan(
        Box<PlanQuery>,
        oneshot::Sender<Result<PlanView, EngineError>>,
    ),
    /// Take what has happened among the peers.
    Peers(Vec<PeerNews>),
    /// End; what becomes of the datapath is the model's `on_stop`, unless the daemon was told otherwise.
    Shutdown,
    /// Take everything off in order (VIPs, program, maps) and end.
    Detach(oneshot::Sender<Result<(), EngineError>>),
}

/// The way to the engine, for the API, signals and tests.
#[derive(Clone, Debug)]
pub struct EngineHandle {
    requests: mpsc::Sender<Request>,
}

/// The model in force, for those who follow it.
pub type Models = watch::Receiver<Arc<Model>>;

impl EngineHandle {
    /// A handle and the engine's end of it.
    pub fn new() -> (Self, mpsc::Receiver<Request>) {
        let (requests, receiver) = mpsc::channel(64);
        (Self { requests }, receiver)
    }

    async fn ask<T>(
        &self,
        request: impl FnOnce(oneshot::Sender<T>) -> Request,
    ) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.requests
            .send(request(reply))
            .await
            .map_err(|_| EngineError::Stopped)?;
        answer.await.map_err(|_| EngineError::Stopped)
    }

    /// Applies one change; returns warnings.
    ///
    /// # Errors
    /// Any [`EngineError`]; nothing is half applied.
    pub async fn change(&self, change: Change) -> Outcome {
        self.ask(|reply| Request::Change(Box::new(change), reply))
            .await?
    }

    /// Replaces the model, as after a reload of the file; returns warnings.
    ///
    /// # Errors
    /// Any [`EngineError`]; the old model stays in force then.
    pub async fn replace(&self, model: Model) -> Outcome {
        self.ask(|reply| Request::Replace(Box::new(model), reply))
            .await?
    }

    /// Puts in force what checks have found of backends; of those that are gone meanwhile, nothing. At most
    /// this many services are seen to at once, those with most traffic first; what is left is to be told
    /// again.
    ///
    /// # Errors
    /// Any [`EngineError`]; what could not be put in force is tried again by the engine itself.
    pub async fn observe(
        &self,
        observations: Vec<Observation>,
        services_max: usize,
    ) -> Result<Progress, EngineError> {
        self.ask(|reply| Request::Observe(observations, services_max, reply))
            .await?
    }

    /// Tells what has happened among the peers, unless too much waits for the engine: then it stays in `news`.
    ///
    /// # Errors
    /// [`EngineError::Stopped`].
    pub fn try_tell(&self, news: &mut Vec<PeerNews>) -> Result<(), EngineError> {
        match self.requests.try_reserve() {
            Ok(place) => {
                place.send(Request::Peers(std::mem::take(news)));
                Ok(())
            }
            Err(TrySendError::Full(())) => Ok(()),
            Err(TrySendError::Closed(())) => Err(EngineError::Stopped),
        }
    }

    /// Takes everything off (VIPs first, then program and maps); the engine ends then.
    ///
    /// # Errors
    /// [`EngineError::Failed`]: what is left, and why.
    pub async fn detach(&self) -> Result<(), EngineError> {
        self.ask(Request::Detach).await?
    }

    /// Asks the engine to end. The task's `JoinHandle` tells when it has. An engine that has already stopped is fine.
    pub async fn shutdown(&self) {
        let _already_stopped = self.requests.send(Request::Shutdown).await;
    }

    /// Flows on record.
    ///
    /// # Errors
    /// Any [`EngineError`]: a name that is not there, or a table that cannot be read.
    pub async fn flows(&self, query: FlowQuery) -> Result<FlowsView, EngineError> {
        self.ask(|reply| Request::Flows(query, reply)).await?
    }

    /// A service's ring.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn ring(&self, service: String) -> Result<RingView, EngineError> {
        self.ask(|reply| Request::Ring(service, reply)).await?
    }

    /// What flows a backend still has.
    ///
    /// # Errors
    /// Any [`EngineError`].
    pub async fn drain(&self, service: String, backend: String) -> Result<DrainView, EngineError> {
        self.ask(|reply| Request::Drain((service, backend), reply))
            .await?
    }

    /// What a change would do; nothing is changed.
    ///
    /// # Errors
    /// The [`EngineError`] that the change would be refused with.
    pub async fn plan(&self, query: PlanQuery) -> Result<PlanView, EngineError> {
        self.ask(|reply| Request::Plan(Box::new(query), reply))
            .await?
    }

    /// The state of everything.
    ///
    /// # Errors
    /// [`EngineError::Stopped`].
    pub async fn snapshot(&self) -> Result<Snapshot, EngineError> {
        self.ask(Request::Snapshot).await
    }
}

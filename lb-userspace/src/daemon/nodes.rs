//! The daemon among its peers: the VRRP process, and the task that knows of the other nodes.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::warn;

use super::args::{Args, LogFormat};
use crate::control::Monitor;
use crate::control::herald::Herald;
use crate::control::vrrp::{FailoverError, FailoverRequest};
use crate::engine::{EngineHandle, Membership, StateFile};
use crate::model::Model;
use crate::peers::hash_key::{HashKey, from_bytes, to_bytes};
use crate::peers::task::{Ends, Task, Wires};
use crate::sync::link::{LinksHandle, STATUS_AGE_MAX};
use crate::sync::secret::Secret;
use crate::vrrp::protocol::{Facts, Status};
use crate::vrrp::supervisor::{FailoverError as Refusal, Options, Supervisor};

/// What makes this node one of several, by the model.
///
/// # Errors
/// If the secret cannot be read.
pub(super) fn membership(model: &Model, socket: &Path) -> anyhow::Result<Option<Membership>> {
    let Some(config) = model.cluster.clone() else {
        return Ok(None);
    };
    let secret = Secret::read(&config.secret_file).context("this node cannot join its peers")?;
    let taken_over = StateFile::of_hash_key(socket).read()?;
    Ok(Some(Membership {
        config,
        secret,
        hash_key: taken_over.and_then(|bytes| from_bytes(&bytes)),
    }))
}

/// Takes the datapath off, for one with another flow hash key to be made. Changes made at run time outlive it.
///
/// # Errors
/// If it cannot be taken off.
pub(super) async fn make_way(engine: &EngineHandle, socket: &Path, way: Way) -> anyhow::Result<()> {
    engine.detach().await?;
    if let Some(changes) = way.changes
        && let Err(error) = StateFile::of_services(socket).write(&changes)
    {
        warn!("what was changed at run time is not here after this, unless peers tell: {error}");
    }
    Ok(())
}

/// What has to be kept before the datapath is taken off for another key, and is.
pub(super) struct Way {
    changes: Option<Vec<u8>>,
}

impl Way {
    /// Keeps the key for the next start.
    ///
    /// # Errors
    /// If a file cannot be written or read: nothing has changed then.
    pub(super) fn prepare(socket: &Path, hash_key: &HashKey) -> anyhow::Result<Self> {
        let changes = StateFile::of_services(socket).read()?;
        StateFile::of_hash_key(socket).write(&to_bytes(hash_key))?;
        Ok(Self { changes })
    }
}

/// This node's part among its peers, at work.
pub(super) struct Nodes {
    /// The VRRP process.
    supervisor: Arc<Supervisor>,
    links: Option<LinksHandle>,
    tasks: [JoinHandle<()>; 3],
    herald: Herald,
}

/// How long after `lbd` its VRRP process may be told to end, for it to be the same stop.
const SIGNALS_APART_MAX: Duration = Duration::from_millis(250);
/// How long the last flows may take to be told.
const LAST_FLOWS_MAX: Duration = Duration::from_millis(500);
/// Requests for a failover that wait at a time.
const FAILOVERS_MAX: usize = 16;

impl Nodes {
    /// Starts it.
    pub(super) fn start(args: &Args, ends: Ends, monitor: &Monitor) -> Self {
        let (configuration, configured) = watch::channel(None);
        let (facts, known) = watch::channel(Facts::default());
        let options = Options {
            socket: args.socket.clone(),
            program: None,
            log: args.log.clone(),
            log_format: match args.log_format {
                LogFormat::Text => "text".to_owned(),
                LogFormat::Json => "json".to_owned(),
            },
        };
        let supervisor = Supervisor::start(options, configured, known);
        let wires = Wires {
            configuration,
            facts,
            status: supervisor.status(),
        };
        let (requests, asked) = mpsc::channel(FAILOVERS_MAX);
        monitor.vrrp.attach(supervisor.status(), requests);
        let (stops, stopped) = mpsc::channel(1);
        monitor.vrrp.attach_stop(stops);
        let links = ends.joined.as_ref().map(|joined| joined.links.clone());
        let task = Task::new(ends, wires, monitor.peers.clone());
        let supervisor = Arc::new(supervisor);
        Self {
            tasks: [
                tokio::spawn(task.run()),
                tokio::spawn(hand_over_on_request(asked, Arc::clone(&supervisor))),
                tokio::spawn(stop_on_request(
                    stopped,
                    Arc::clone(&supervisor),
                    links.clone(),
                )),
            ],
            supervisor,
            links,
            herald: Herald::start(monitor),
        }
    }

    /// Has the VRRP process hand its VIPs over and end.
    pub(super) async fn hand_over(&self) {
        stop_vrrp(&self.supervisor, self.links.as_ref()).await;
    }

    /// Where a machine is shut down, all its processes are told to end at once. Until the VIPs have moved, flows begin
    /// here of which the peers have to know, so this one waits until the VRRP process has handed them over. One that goes
    /// on is not waited for.
    pub(super) async fn outlast_vrrp(&self) {
        let mut status = self.supervisor.status();
        if status.borrow().is_none() {
            return;
        }
        let is_stopping =
            |status: &Option<Status>| status.as_ref().is_some_and(|one| one.is_stopping);
        let stops = timeout(SIGNALS_APART_MAX, status.wait_for(is_stopping)).await;
        if stops.is_ok_and(|seen| seen.is_ok()) {
            self.hand_over().await;
        }
    }

    /// Says goodbye to the peers. What the VRRP process does, it goes on doing.
    pub(super) async fn leave(self) {
        self.tasks.iter().for_each(JoinHandle::abort);
        drop(self.herald);
        if let Some(links) = self.links {
            links.shutdown().await;
        }
    }
}

/// Has the VRRP process hand its VIPs over and end, and the peers know of the last flows that have begun here.
async fn stop_vrrp(supervisor: &Supervisor, links: Option<&LinksHandle>) {
    supervisor.stop().await;
    let Some(links) = links else { return };
    let until = Instant::now() + LAST_FLOWS_MAX;
    loop {
        // Twice: a change is seen a few milliseconds after it was made.
        sleep(2 * STATUS_AGE_MAX).await;
        let status = links.status();
        let mut peers = status.peers.iter().filter(|peer| peer.is_up);
        if peers.all(|peer| peer.flows.lag_ms == 0) || Instant::now() >= until {
            return;
        }
    }
}

/// Passes on what the API asks for, one at a time.
async fn hand_over_on_request(
    mut asked: mpsc::Receiver<FailoverRequest>,
    supervisor: Arc<Supervisor>,
) {
    while let Some(request) = asked.recv().await {
        let outcome = supervisor.failover(&request.group).await;
        // Whoever asked may have gone.
        let outcome = outcome.map_err(|error| {
            let text = error.to_string();
            match error {
                Refusal::Refused(_) => FailoverError::Failed(text),
                Refusal::Absent(_) => FailoverError::Absent(text),
                Refusal::Unanswered(_) => FailoverError::Unanswered(text),
            }
        });
        let _unheard = request.reply.send(outcome);
    }
}

/// The same for whoever takes the datapath off.
async fn stop_on_request(
    mut asked: mpsc::Receiver<oneshot::Sender<()>>,
    supervisor: Arc<Supervisor>,
    links: Option<LinksHandle>,
) {
    while let Some(done) = asked.recv().await {
        stop_vrrp(&supervisor, links.as_ref()).await;
        // Whoever asked may have gone.
        let _unheard = done.send(());
    }
}

/// The directory of pins, in words for another process.
pub(super) fn in_words(path: &Path) -> String {
    path.display().to_string()
}

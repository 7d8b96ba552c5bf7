//! The daemon among its peers: the VRRP process, and the task that knows of the other nodes.

use std::path::Path;

use anyhow::Context;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::args::{Args, LogFormat};
use crate::engine::Membership;
use crate::model::Model;
use crate::peers::task::{Ends, Seen, Task, Wires};
use crate::sync::link::LinksHandle;
use crate::sync::secret::Secret;
use crate::vrrp::protocol::Facts;
use crate::vrrp::supervisor::{Options, Supervisor};

/// What makes this node one of several, by the model.
///
/// # Errors
/// If the secret cannot be read.
pub(super) fn membership(model: &Model) -> anyhow::Result<Option<Membership>> {
    let Some(config) = model.cluster.clone() else {
        return Ok(None);
    };
    let secret = Secret::read(&config.secret_file).context("this node cannot join its peers")?;
    Ok(Some(Membership { config, secret }))
}

/// This node's part among its peers, at work.
pub(super) struct Nodes {
    /// The VRRP process.
    supervisor: Option<Supervisor>,
    links: Option<LinksHandle>,
    task: JoinHandle<()>,
}

impl Nodes {
    /// Starts it.
    pub(super) fn start(args: &Args, ends: Ends) -> Self {
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
        let links = ends.joined.as_ref().map(|joined| joined.links.clone());
        let seen = watch::Sender::new(Seen::default());
        let task = tokio::spawn(Task::new(ends, wires, seen).run());
        Self {
            supervisor: Some(supervisor),
            links,
            task,
        }
    }

    /// Has the VRRP process hand its VIPs over and end, before the datapath is taken off.
    pub(super) async fn hand_over(mut self) -> Self {
        if let Some(supervisor) = self.supervisor.take() {
            supervisor.stop().await;
        }
        self
    }

    /// Says goodbye to the peers. What the VRRP process does, it goes on doing.
    pub(super) async fn leave(self) {
        self.task.abort();
        if let Some(links) = self.links {
            links.shutdown().await;
        }
    }
}

/// The directory of pins, in words for another process.
pub(super) fn in_words(path: &Path) -> String {
    path.display().to_string()
}

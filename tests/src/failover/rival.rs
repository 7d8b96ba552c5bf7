//! keepalived with HAProxy, twice: what we compare with.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Pid;

use super::ground::Ground;
use super::pair::{Pair, Part};
use super::run::Make;
use crate::disruption::lane::{HTTP_PORTS, RECORD_PORTS};
use crate::disruption::traffic::HasDatagrams;
use crate::haproxy::{Haproxy, HaproxyService};
use crate::keepalived::{Keepalived, KeepalivedPlan};
use crate::program::family;
use crate::scratch::ScratchDir;
use crate::topology::NodeId;

/// Priorities of lb1 and lb2.
const PRIORITIES: [u8; 2] = [200, 100];
const VRID: u8 = 51;
/// The file in which keepalived finds HAProxy.
const PID_FILE: &str = "haproxy.pid";

#[derive(Debug, Default)]
struct Node {
    keepalived: Option<Keepalived>,
    haproxy: Option<Haproxy>,
}

/// Two nodes with keepalived and HAProxy.
#[derive(Debug)]
pub struct Rival {
    nodes: [Node; 2],
    interval: Duration,
    scratch: ScratchDir,
}

impl Rival {
    /// Starts both nodes, with this interval between two advertisements.
    pub fn start(ground: &Ground, interval: Duration) -> Result<Self> {
        let mut rival = Self {
            nodes: Default::default(),
            interval,
            scratch: ScratchDir::new("rival")?,
        };
        for node in NodeId::ALL {
            Pair::start(&mut rival, ground, node)?;
        }
        Ok(rival)
    }

    fn node(&mut self, node: NodeId) -> &mut Node {
        &mut self.nodes[node as usize]
    }

    fn pid_file(&self, node: NodeId) -> PathBuf {
        self.scratch.path().join(format!("{node}-{PID_FILE}"))
    }
}

/// Every TCP service of the lanes, with the backends of both families in one.
fn services(ground: &Ground) -> Vec<HaproxyService> {
    let services = [RECORD_PORTS, HTTP_PORTS].concat().into_iter();
    let backends = |port| {
        let addresses = ground.net.backends.iter();
        addresses
            .map(|backend| SocketAddr::new(backend.v4.into(), port))
            .collect()
    };
    services
        .map(|port| HaproxyService {
            port,
            balance: "roundrobin",
            backends: backends(port),
        })
        .collect()
}

impl Pair for Rival {
    fn word(&self) -> &'static str {
        Make::Rival.word()
    }

    fn has_datagrams(&self) -> HasDatagrams {
        HasDatagrams::No
    }

    fn kill_all(&mut self, ground: &Ground, node: NodeId) -> Result<()> {
        self.kill_vrrp(ground, node)?;
        self.kill_daemon(ground, node)
    }

    fn start(&mut self, ground: &Ground, node: NodeId) -> Result<()> {
        self.start_daemon(ground, node)?;
        self.start_vrrp(ground, node)
    }

    fn kill_daemon(&mut self, _ground: &Ground, node: NodeId) -> Result<()> {
        let mut haproxy = self
            .node(node)
            .haproxy
            .take()
            .context("there is no HAProxy")?;
        haproxy.process().kill9().map(drop)
    }

    fn start_daemon(&mut self, ground: &Ground, node: NodeId) -> Result<()> {
        let netns = ground.net.node(node);
        let mut haproxy = Haproxy::start(&node.to_string(), netns, &services(ground))?;
        let pid_file = self.pid_file(node);
        std::fs::write(&pid_file, haproxy.process().pid().to_string())
            .with_context(|| format!("cannot write {}", pid_file.display()))?;
        self.node(node).haproxy = Some(haproxy);
        Ok(())
    }

    fn without_daemon(&self) -> NodeId {
        NodeId::Lb2
    }

    fn kill_vrrp(&mut self, _ground: &Ground, node: NodeId) -> Result<()> {
        let keepalived = self.node(node).keepalived.take();
        let mut keepalived = keepalived.context("there is no keepalived")?;
        keepalived.process().kill9_all().map(drop)
    }

    fn start_vrrp(&mut self, ground: &Ground, node: NodeId) -> Result<()> {
        let plan = KeepalivedPlan {
            interface: "eth0".to_owned(),
            vrid: VRID,
            vips: ground.vips(),
            priority: PRIORITIES[node as usize],
            interval: self.interval,
            tracked_pid_file: Some(self.pid_file(node).display().to_string()),
        };
        let keepalived = Keepalived::start(&node.to_string(), ground.net.node(node), &plan)?;
        self.node(node).keepalived = Some(keepalived);
        Ok(())
    }

    fn without_vrrp(&self) -> NodeId {
        NodeId::Lb2
    }

    fn stop(&mut self, _ground: &Ground, node: NodeId) -> Result<()> {
        let stopped = self.node(node);
        let mut keepalived = stopped
            .keepalived
            .take()
            .context("there is no keepalived")?;
        keepalived.process().terminate()?;
        let mut haproxy = stopped.haproxy.take().context("there is no HAProxy")?;
        haproxy.process().terminate().map(drop)
    }

    fn wait_ready(&mut self, _ground: &Ground) -> Result<()> {
        Ok(())
    }

    fn pids(&mut self, _ground: &Ground, node: NodeId, part: Part) -> Result<Vec<Pid>> {
        let node = self.node(node);
        let pid = match part {
            Part::Daemon => node.haproxy.as_mut().map(|haproxy| haproxy.process().pid()),
            Part::Vrrp => node
                .keepalived
                .as_mut()
                .map(|keepalived| keepalived.process().pid()),
        };
        let pid = Pid::from_raw(pid.context("it does not run")?.cast_signed());
        family(pid)
    }

    fn logs(&self) -> String {
        let logs = NodeId::ALL
            .into_iter()
            .zip(&self.nodes)
            .map(|(name, node)| {
                let log = node
                    .keepalived
                    .as_ref()
                    .map(|keepalived| keepalived.log_tail());
                format!("keepalived of {name}:\n{}", log.unwrap_or_default())
            });
        logs.collect::<Vec<_>>().join("\n")
    }
}

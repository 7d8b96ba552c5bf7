//! A node with keepalived and HAProxy: what we compare with, and what stands beside one of ours.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::unistd::Pid;

use super::ground::Ground;
use super::node::{Maker, Node, Part, PeerIs};
use crate::cluster::{PRIORITIES, VRID};
use crate::disruption::lane::{HTTP_PORTS, RECORD_PORTS};
use crate::disruption::traffic::HasDatagrams;
use crate::haproxy::{Haproxy, HaproxyService};
use crate::keepalived::{Keepalived, KeepalivedPlan};
use crate::program::family;
use crate::scratch::ScratchDir;
use crate::topology::NodeId;

/// The file in which keepalived finds HAProxy.
const PID_FILE: &str = "haproxy.pid";

/// A node with keepalived and HAProxy.
#[derive(Debug)]
pub struct RivalNode {
    name: NodeId,
    interval: Duration,
    keepalived: Option<Keepalived>,
    haproxy: Option<Haproxy>,
    scratch: ScratchDir,
}

impl RivalNode {
    /// Starts it, with this interval between two advertisements.
    pub fn start(ground: &Ground, name: NodeId, interval: Duration) -> Result<Self> {
        let mut node = Self {
            name,
            interval,
            keepalived: None,
            haproxy: None,
            scratch: ScratchDir::new(&format!("rival-{name}"))?,
        };
        Node::start(&mut node, ground)?;
        Ok(node)
    }

    fn pid_file(&self) -> PathBuf {
        self.scratch.path().join(PID_FILE)
    }

    fn take_keepalived(&mut self) -> Result<Keepalived> {
        self.keepalived.take().context("there is no keepalived")
    }

    fn take_haproxy(&mut self) -> Result<Haproxy> {
        self.haproxy.take().context("there is no HAProxy")
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

impl Node for RivalNode {
    fn maker(&self) -> Maker {
        Maker::Rival
    }

    fn has_datagrams(&self) -> HasDatagrams {
        HasDatagrams::No
    }

    fn kill_all(&mut self, ground: &Ground) -> Result<()> {
        self.kill_vrrp(ground)?;
        self.kill_daemon(ground)
    }

    fn start(&mut self, ground: &Ground) -> Result<()> {
        self.start_daemon(ground)?;
        self.start_vrrp(ground)
    }

    fn kill_daemon(&mut self, _ground: &Ground) -> Result<()> {
        self.take_haproxy()?.process().kill9().map(drop)
    }

    fn start_daemon(&mut self, ground: &Ground) -> Result<()> {
        let netns = ground.net.node(self.name);
        let mut haproxy = Haproxy::start(&self.name.to_string(), netns, &services(ground))?;
        let pid_file = self.pid_file();
        std::fs::write(&pid_file, haproxy.process().pid().to_string())
            .with_context(|| format!("cannot write {}", pid_file.display()))?;
        self.haproxy = Some(haproxy);
        Ok(())
    }

    fn kill_vrrp(&mut self, _ground: &Ground) -> Result<()> {
        self.take_keepalived()?.process().kill9_all().map(drop)
    }

    fn start_vrrp(&mut self, ground: &Ground) -> Result<()> {
        let plan = KeepalivedPlan {
            interface: "eth0".to_owned(),
            vrid: VRID,
            vips: ground.vips(),
            priority: PRIORITIES[self.name as usize],
            interval: self.interval,
            tracked_pid_file: Some(self.pid_file().display().to_string()),
        };
        let netns = ground.net.node(self.name);
        self.keepalived = Some(Keepalived::start(&self.name.to_string(), netns, &plan)?);
        Ok(())
    }

    fn outlives(&self, _part: Part) -> bool {
        false
    }

    fn stop(&mut self, _ground: &Ground) -> Result<()> {
        self.take_keepalived()?.process().terminate()?;
        self.take_haproxy()?.process().terminate().map(drop)
    }

    fn is_off(&mut self) -> bool {
        self.keepalived.is_none()
    }

    fn wait_ready(&mut self, _peer: PeerIs) -> Result<()> {
        Ok(())
    }

    fn pids(&mut self, _ground: &Ground, part: Part) -> Result<Vec<Pid>> {
        let process = match part {
            Part::Daemon => self.haproxy.as_mut().map(Haproxy::process),
            Part::Vrrp => self.keepalived.as_mut().map(Keepalived::process),
        };
        let pid = process.context("it does not run")?.pid();
        family(Pid::from_raw(pid.cast_signed()))
    }

    fn log(&self) -> String {
        let log = self.keepalived.as_ref().map(Keepalived::log_tail);
        format!("keepalived of {}:\n{}", self.name, log.unwrap_or_default())
    }
}

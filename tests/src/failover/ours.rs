//! Two nodes of ours: `lbd` with its VRRP process, twice.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::ground::{BACKEND_COUNT, Ground};
use super::pair::{Admin, Pair, Part};
use super::run::Make;
use crate::clock::Clock;
use crate::cluster::{ClusterText, GROUP, write_secret};
use crate::disruption::lane::Service;
use crate::disruption::traffic::HasDatagrams;
use crate::lbd::{Launch, Lbd};
use crate::scratch::ScratchDir;
use crate::topology::NodeId;
use crate::wait::wait_until;

const BACKEND_WEIGHT: u32 = 100;
/// How a VRRP process is called (proc_pid_comm(5)).
const VRRP_COMM: &str = "lbd-vrrp";

/// How long a node may take to know what the other one knows.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long processes may take to end, or to be there.
const PROCESS_TIMEOUT: Duration = Duration::from_secs(10);

/// How the nodes are set up.
#[derive(Clone, Debug)]
pub struct OursPlan {
    /// Between two advertisements.
    pub interval: Duration,
    /// Between two heartbeats on the link between the nodes.
    pub heartbeat: Duration,
    /// The services' idle time-out.
    pub idle_timeout: Duration,
    /// The directory of another build, for upgrades.
    pub other_build: Option<PathBuf>,
    /// Whose wall clock the nodes have.
    pub clocks: Clocks,
}

/// Whose wall clock nodes have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// The machine's.
    Shared,
    /// Each one of its own, that can be stepped.
    Own,
}

/// A node, as long as it is switched on.
#[derive(Debug)]
struct Node {
    lbd: Lbd,
    clock: Option<Clock>,
}

/// Two nodes of ours.
#[derive(Debug)]
pub struct Ours {
    nodes: [Option<Node>; 2],
    plan: OursPlan,
    secret: PathBuf,
    scratch: ScratchDir,
}

impl Ours {
    /// Starts both nodes.
    pub fn start(ground: &Ground, plan: OursPlan) -> Result<Self> {
        let scratch = ScratchDir::new("pair")?;
        let secret = write_secret(&scratch)?;
        let mut ours = Self {
            nodes: [None, None],
            plan,
            secret,
            scratch,
        };
        for node in NodeId::ALL {
            Pair::start(&mut ours, ground, node)?;
        }
        Ok(ours)
    }

    /// The daemon of a node that is switched on.
    pub fn lbd(&self, node: NodeId) -> Result<&Lbd> {
        let found = self.nodes[node as usize].as_ref();
        Ok(&found.with_context(|| format!("{node} is off"))?.lbd)
    }

    fn lbd_mut(&mut self, node: NodeId) -> Result<&mut Lbd> {
        let found = self.nodes[node as usize].as_mut();
        Ok(&mut found.with_context(|| format!("{node} is off"))?.lbd)
    }

    fn vrrp_pids(&self, ground: &Ground, node: NodeId) -> Result<Vec<Pid>> {
        let pids = ground.net.node(node).pids()?.into_iter();
        let is_vrrp = |pid: &Pid| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
            comm.is_ok_and(|comm| comm.trim_end() == VRRP_COMM)
        };
        Ok(pids.filter(is_vrrp).collect())
    }

    /// What a node says of its peers and VIPs, for an error.
    fn status(&self, node: NodeId) -> String {
        let say = |words: &[&str]| match self.lbd(node).and_then(|lbd| lbd.ctl(words)) {
            Ok(output) => output.stdout + &output.stderr,
            Err(error) => format!("{error:#}"),
        };
        say(&["-o", "json", "peer", "status"]) + &say(&["-o", "json", "vip", "list"])
    }

    /// Whether a node knows what it can know.
    fn is_ready(&self, node: NodeId, peer: PeerIs) -> Result<Option<()>> {
        let routers = self.lbd(node)?.ctl_json(&["vip", "list"])?;
        if peer == PeerIs::Away {
            return Ok(speaks_vrrp(&routers).then_some(()));
        }
        let peers = self.lbd(node)?.ctl_json(&["peer", "status"])?;
        Ok((is_caught_up(&peers) && speaks_vrrp(&routers)).then_some(()))
    }
}

/// Where a node's peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerIs {
    /// At the other end of a link that works.
    There,
    /// It is off, or the link does not work.
    Away,
}

/// Whether `lbctl peer status` says that this node knows what its peers know.
fn is_caught_up(peers: &Value) -> bool {
    let list = peers["peers"].as_array();
    let all_up = list.is_some_and(|list| {
        !list.is_empty()
            && list
                .iter()
                .all(|peer| peer["is_up"] == true && peer["behind"].is_null())
    });
    all_up && peers["behind"].is_null()
}

/// Whether `lbctl vip list` knows of routers that are in a state, or in fault.
fn speaks_vrrp(routers: &Value) -> bool {
    let is_so = |router: &Value| match router["state"].as_str() {
        Some("active" | "backup") => true,
        Some("initialize") => router["troubles"]
            .as_array()
            .is_some_and(|list| !list.is_empty()),
        _ => false,
    };
    let list = routers["routers"].as_array();
    list.is_some_and(|list| !list.is_empty() && list.iter().all(is_so))
}

/// The configuration of a node.
fn config(ground: &Ground, plan: &OursPlan, secret: &Path, node: NodeId) -> String {
    let cluster = ClusterText {
        vips: ground.vips(),
        interval: plan.interval,
        heartbeat: plan.heartbeat,
        secret: secret.to_path_buf(),
    };
    let head = cluster.of_node(&ground.net, node);
    let names: Vec<String> = (1..=BACKEND_COUNT)
        .map(|number| format!("web{number}"))
        .collect();
    let weights: Vec<(&str, u32)> = names.iter().map(|name| (&**name, BACKEND_WEIGHT)).collect();
    let services = Service::all().map(|service| {
        let text = service.text(&ground.net, &weights);
        text.idle_timeout(plan.idle_timeout).to_string()
    });
    services.fold(head, |text, service| text + &service)
}

impl Pair for Ours {
    fn word(&self) -> &'static str {
        Make::Ours.word()
    }

    fn has_datagrams(&self) -> HasDatagrams {
        HasDatagrams::Yes
    }

    fn kill_all(&mut self, ground: &Ground, node: NodeId) -> Result<()> {
        ground.net.node(node).kill_all()
    }

    fn start(&mut self, ground: &Ground, node: NodeId) -> Result<()> {
        // What it has left goes before its successor comes.
        self.nodes[node as usize] = None;
        let clock = match self.plan.clocks {
            Clocks::Shared => None,
            Clocks::Own => Some(Clock::new(&self.scratch, node)?),
        };
        let launch = Launch {
            environment: environment(clock.as_ref()),
            ..Launch::keeping()
        };
        let scratch = ScratchDir::new(&format!("lbd-{node}"))?;
        let config = config(ground, &self.plan, &self.secret, node);
        let lbd = Lbd::launch_in(launch, scratch, ground.net.node(node), &config)?;
        self.nodes[node as usize] = Some(Node { lbd, clock });
        Ok(())
    }

    fn kill_daemon(&mut self, _ground: &Ground, node: NodeId) -> Result<()> {
        self.lbd_mut(node)?.kill9().map(drop)
    }

    fn start_daemon(&mut self, ground: &Ground, node: NodeId) -> Result<()> {
        self.lbd_mut(node)?.restart(ground.net.node(node))
    }

    fn without_daemon(&self) -> NodeId {
        NodeId::Lb1
    }

    fn kill_vrrp(&mut self, ground: &Ground, node: NodeId) -> Result<()> {
        let pids = self.vrrp_pids(ground, node)?;
        ensure!(!pids.is_empty(), "{node} has no VRRP process");
        pids.iter()
            .try_for_each(|pid| Ok(kill(*pid, Signal::SIGKILL)?))
    }

    fn start_vrrp(&mut self, _ground: &Ground, _node: NodeId) -> Result<()> {
        // Its daemon has.
        Ok(())
    }

    fn without_vrrp(&self) -> NodeId {
        NodeId::Lb1
    }

    /// As a machine does it that is shut down: every process gets SIGTERM.
    fn stop(&mut self, ground: &Ground, node: NodeId) -> Result<()> {
        self.lbd_mut(node)?.terminate()?;
        for pid in self.vrrp_pids(ground, node)? {
            kill(pid, Signal::SIGTERM)?;
        }
        wait_until("the end of its VRRP process", PROCESS_TIMEOUT, || {
            Ok(self.vrrp_pids(ground, node)?.is_empty().then_some(()))
        })
    }

    fn wait_ready(&mut self, ground: &Ground) -> Result<()> {
        let nodes = self.nodes.iter_mut();
        let is_off: Vec<bool> = nodes
            .map(|node| node.as_mut().is_none_or(Node::is_off))
            .collect();
        let peer = if is_off.contains(&true) || !ground.sync_works() {
            PeerIs::Away
        } else {
            PeerIs::There
        };
        for node in NodeId::ALL
            .into_iter()
            .filter(|node| !is_off[*node as usize])
        {
            wait_until(&format!("{node} to have caught up"), READY_TIMEOUT, || {
                self.is_ready(node, peer)
            })
            .with_context(|| self.status(node))
            .with_context(|| self.logs())?;
        }
        Ok(())
    }

    fn pids(&mut self, ground: &Ground, node: NodeId, part: Part) -> Result<Vec<Pid>> {
        match part {
            Part::Daemon => Ok(vec![Pid::from_raw(self.lbd(node)?.pid().cast_signed())]),
            Part::Vrrp => self.vrrp_pids(ground, node),
        }
    }

    fn hand_over(&mut self, _ground: &Ground, from: NodeId) -> Result<()> {
        self.lbd(from)?
            .ctl_ok(&["vip", "failover", GROUP])
            .map(drop)
    }

    fn change_backends(&mut self, _ground: &Ground, node: NodeId, to: Admin) -> Result<()> {
        let word = match to {
            Admin::Ready => "ready",
            Admin::Drain => "drain",
        };
        let last = format!("web{BACKEND_COUNT}");
        for service in Service::all() {
            self.lbd(node)?
                .ctl_ok(&["backend", word, &service.name(), &last])?;
        }
        Ok(())
    }

    fn upgrade(&mut self, ground: &Ground, node: NodeId) -> Result<()> {
        let directory = self.plan.other_build.clone();
        let entry = self.nodes[node as usize].as_mut();
        let entry = entry.with_context(|| format!("{node} is off"))?;
        entry.lbd.terminate()?;
        let launch = Launch {
            directory,
            environment: environment(entry.clock.as_ref()),
            ..Launch::keeping()
        };
        entry.lbd.restart_as(launch, ground.net.node(node))
    }

    fn step_clock(&mut self, node: NodeId, by_s: i64) -> Result<()> {
        let entry = self.nodes[node as usize].as_ref();
        let clock = entry.and_then(|entry| entry.clock.as_ref());
        clock
            .with_context(|| format!("{node} has no clock of its own"))?
            .step(by_s)
    }

    fn logs(&self) -> String {
        let logs = NodeId::ALL
            .into_iter()
            .zip(&self.nodes)
            .map(|(name, node)| {
                let log = node.as_ref().map(|node| node.lbd.log_tail());
                format!("lbd of {name}:\n{}", log.unwrap_or_default())
            });
        logs.collect::<Vec<_>>().join("\n")
    }
}

fn environment(clock: Option<&Clock>) -> Vec<(String, String)> {
    clock.map(Clock::environment).unwrap_or_default()
}

impl Node {
    /// Whether its daemon has ended.
    fn is_off(&mut self) -> bool {
        !matches!(self.lbd.process().exit_status(), Ok(None))
    }
}

//! A node of ours: `lbd` with its VRRP process.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::ground::{BACKEND_COUNT, Ground};
use super::node::{Admin, Build, Maker, Node, Part, PeerIs};
use crate::clock::Clock;
use crate::cluster::{ClusterText, GROUP, of_lone_node, write_secret};
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

/// How nodes are set up.
#[derive(Clone, Debug)]
pub struct OursPlan {
    /// Between two advertisements.
    pub interval: Duration,
    /// Between two heartbeats on the link between the nodes.
    pub heartbeat: Duration,
    /// The services' idle time-out.
    pub idle_timeout: Duration,
    /// The directory of another build, for upgrades; `None`: that is the same one.
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

/// Who stands beside a node of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// Another one of ours, at the end of a link between the two.
    Linked,
    /// Somebody who speaks VRRP, and nothing else.
    Stranger,
}

/// A node of ours.
#[derive(Debug)]
pub struct OurNode {
    name: NodeId,
    plan: OursPlan,
    peer: Peer,
    running: Option<Running>,
    scratch: ScratchDir,
}

/// What there is of a node while it is switched on.
#[derive(Debug)]
struct Running {
    lbd: Lbd,
    clock: Option<Clock>,
}

impl OurNode {
    /// Starts it.
    pub fn start(ground: &Ground, name: NodeId, plan: OursPlan, peer: Peer) -> Result<Self> {
        let mut node = Self {
            name,
            plan,
            peer,
            running: None,
            scratch: ScratchDir::new(&format!("ours-{name}"))?,
        };
        Node::start(&mut node, ground)?;
        Ok(node)
    }

    fn running(&self) -> Result<&Running> {
        let running = self.running.as_ref();
        running.with_context(|| format!("{} is off", self.name))
    }

    fn lbd(&self) -> Result<&Lbd> {
        Ok(&self.running()?.lbd)
    }

    fn lbd_mut(&mut self) -> Result<&mut Lbd> {
        let running = self.running.as_mut();
        Ok(&mut running
            .with_context(|| format!("{} is off", self.name))?
            .lbd)
    }

    fn vrrp_pids(&self, ground: &Ground) -> Result<Vec<Pid>> {
        let pids = ground.net.node(self.name).pids()?.into_iter();
        let is_vrrp = |pid: &Pid| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm"));
            comm.is_ok_and(|comm| comm.trim_end() == VRRP_COMM)
        };
        Ok(pids.filter(is_vrrp).collect())
    }

    /// What it says of its peers and VIPs, for an error.
    fn status(&self) -> String {
        let say = |words: &[&str]| match self.lbd().and_then(|lbd| lbd.ctl(words)) {
            Ok(output) => output.stdout + &output.stderr,
            Err(error) => format!("{error:#}"),
        };
        say(&["-o", "json", "peer", "status"]) + &say(&["-o", "json", "vip", "list"])
    }

    /// Whether it knows what it can know.
    fn is_ready(&self, peer: PeerIs) -> Result<Option<()>> {
        let routers = self.lbd()?.ctl_json(&["vip", "list"])?;
        if peer == PeerIs::Away {
            return Ok(speaks_vrrp(&routers).then_some(()));
        }
        let peers = self.lbd()?.ctl_json(&["peer", "status"])?;
        Ok((is_caught_up(&peers) && speaks_vrrp(&routers)).then_some(()))
    }

    fn config(&self, ground: &Ground) -> Result<String> {
        let (vips, interval) = (ground.vips(), self.plan.interval);
        let head = match self.peer {
            Peer::Stranger => of_lone_node(&ground.net, self.name, &vips, interval),
            Peer::Linked => {
                let cluster = ClusterText {
                    vips,
                    interval,
                    heartbeat: self.plan.heartbeat,
                    secret: write_secret(&self.scratch)?,
                };
                cluster.of_node(&ground.net, self.name)
            }
        };
        let names: Vec<String> = (1..=BACKEND_COUNT)
            .map(|number| format!("web{number}"))
            .collect();
        let weights: Vec<(&str, u32)> =
            names.iter().map(|name| (&**name, BACKEND_WEIGHT)).collect();
        let services = Service::all().map(|service| {
            let text = service.text(&ground.net, &weights);
            text.idle_timeout(self.plan.idle_timeout).to_string()
        });
        Ok(services.fold(head, |text, service| text + &service))
    }
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

impl Node for OurNode {
    fn maker(&self) -> Maker {
        Maker::Ours
    }

    fn has_datagrams(&self) -> HasDatagrams {
        HasDatagrams::Yes
    }

    fn kill_all(&mut self, ground: &Ground) -> Result<()> {
        ground.net.node(self.name).kill_all()
    }

    fn start(&mut self, ground: &Ground) -> Result<()> {
        // What it has left goes before its successor comes.
        self.running = None;
        let clock = match self.plan.clocks {
            Clocks::Shared => None,
            Clocks::Own => Some(Clock::new(&self.scratch, self.name)?),
        };
        let launch = Launch {
            environment: environment(clock.as_ref()),
            ..Launch::keeping()
        };
        let scratch = ScratchDir::new(&format!("lbd-{}", self.name))?;
        let config = self.config(ground)?;
        let lbd = Lbd::launch_in(launch, scratch, ground.net.node(self.name), &config)?;
        self.running = Some(Running { lbd, clock });
        Ok(())
    }

    fn kill_daemon(&mut self, _ground: &Ground) -> Result<()> {
        self.lbd_mut()?.kill9().map(drop)
    }

    fn start_daemon(&mut self, ground: &Ground) -> Result<()> {
        let netns = ground.net.node(self.name);
        self.lbd_mut()?.restart(netns)
    }

    fn kill_vrrp(&mut self, ground: &Ground) -> Result<()> {
        let pids = self.vrrp_pids(ground)?;
        ensure!(!pids.is_empty(), "{} has no VRRP process", self.name);
        pids.iter()
            .try_for_each(|pid| Ok(kill(*pid, Signal::SIGKILL)?))
    }

    fn start_vrrp(&mut self, _ground: &Ground) -> Result<()> {
        // Its daemon has.
        Ok(())
    }

    fn outlives(&self, _part: Part) -> bool {
        true
    }

    /// As a machine does it that is shut down: every process gets SIGTERM, at once.
    fn stop(&mut self, ground: &Ground) -> Result<()> {
        let vrrp_pids = self.vrrp_pids(ground)?;
        let lbd = self.lbd_mut()?.process();
        lbd.signal(Signal::SIGTERM)?;
        for pid in vrrp_pids {
            kill(pid, Signal::SIGTERM)?;
        }
        lbd.wait(PROCESS_TIMEOUT)?;
        wait_until("the end of its VRRP process", PROCESS_TIMEOUT, || {
            Ok(self.vrrp_pids(ground)?.is_empty().then_some(()))
        })
    }

    fn is_off(&mut self) -> bool {
        let running = self.running.as_mut();
        running.is_none_or(|node| !matches!(node.lbd.process().exit_status(), Ok(None)))
    }

    fn wait_ready(&mut self, peer: PeerIs) -> Result<()> {
        let what = format!("{} to have caught up", self.name);
        wait_until(&what, READY_TIMEOUT, || self.is_ready(peer))
    }

    fn pids(&mut self, ground: &Ground, part: Part) -> Result<Vec<Pid>> {
        match part {
            Part::Daemon => Ok(vec![Pid::from_raw(self.lbd()?.pid().cast_signed())]),
            Part::Vrrp => self.vrrp_pids(ground),
        }
    }

    fn hand_over(&mut self) -> Result<()> {
        self.lbd()?.ctl_ok(&["vip", "failover", GROUP]).map(drop)
    }

    fn change_backends(&mut self, to: Admin) -> Result<()> {
        let word = match to {
            Admin::Ready => "ready",
            Admin::Drain => "drain",
        };
        let last = format!("web{BACKEND_COUNT}");
        for service in Service::all() {
            self.lbd()?
                .ctl_ok(&["backend", word, &service.name(), &last])?;
        }
        Ok(())
    }

    fn replace(&mut self, ground: &Ground, by: Build) -> Result<()> {
        let directory = match by {
            Build::Own => None,
            Build::Other => self.plan.other_build.clone(),
        };
        let launch = Launch {
            directory,
            environment: environment(self.running()?.clock.as_ref()),
            ..Launch::keeping()
        };
        let netns = ground.net.node(self.name);
        let lbd = self.lbd_mut()?;
        lbd.terminate()?;
        lbd.restart_as(launch, netns)
    }

    fn step_clock(&mut self, by_s: i64) -> Result<()> {
        let clock = self.running()?.clock.as_ref();
        clock
            .with_context(|| format!("{} has no clock of its own", self.name))?
            .step(by_s)
    }

    fn log(&self) -> String {
        let log = self.running.as_ref().map(|running| running.lbd.log_tail());
        let (log, status) = (log.unwrap_or_default(), self.status());
        format!("lbd of {}:\n{log}\n{status}", self.name)
    }
}

fn environment(clock: Option<&Clock>) -> Vec<(String, String)> {
    clock.map(Clock::environment).unwrap_or_default()
}

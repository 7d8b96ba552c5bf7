//! Where the proof takes place: a network, two servers on each backend, and lbd in front of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::lane::{HTTP_PORTS, RECORD_PORTS, Service};
use super::server::{self, ServerArgs};
use crate::lbd::{Launch, Lbd};
use crate::netns::Netns;
use crate::nginx::Nginx;
use crate::process::Process;
use crate::scratch::ScratchDir;
use crate::service;
use crate::topology::{Backend, Forward, Interfaces, Plan, Topology, VIPS_V4, VIPS_V6};
use crate::wait::wait_until;

/// Backends that serve at the beginning: web1 … web3.
pub const SERVING_COUNT: u8 = 3;
/// Backends that stand by: web4 … web6, as many, so that all can be replaced.
pub const SPARE_COUNT: u8 = 3;
/// How long rings may take to settle beside the idle time-outs that they wait for.
const SETTLE_TIMEOUT_BASE: Duration = Duration::from_secs(20);

/// Weight of a backend unless an event says otherwise.
pub const WEIGHT: u32 = 100;

/// How a stage is set up.
#[derive(Clone, Debug)]
pub struct StagePlan {
    /// How packets come back.
    pub forward: Forward,
    /// The services' idle time-out; a transition takes about twice as long.
    pub idle_timeout: Duration,
    /// The program that serves (`lb-disruption`).
    pub server: PathBuf,
    /// How lbd is started.
    pub launch: Launch,
}

/// The backends that serve, with their weights.
pub type Fleet = BTreeMap<String, u32>;

/// The fleet at the beginning.
pub fn first_fleet() -> Fleet {
    (1..=SERVING_COUNT)
        .map(|number| (name(number), WEIGHT))
        .collect()
}

/// web1 …
pub fn name(number: u8) -> String {
    format!("web{number}")
}

/// A stage. Dropping it ends lbd first, then the servers, then the network.
#[derive(Debug)]
pub struct Stage {
    /// The daemon.
    pub lbd: Lbd,
    /// web1 … in their order.
    machines: Vec<Machine>,
    /// The network.
    pub net: Topology,
    plan: StagePlan,
}

impl Stage {
    /// Builds the network and starts everything.
    pub fn start(plan: StagePlan) -> Result<Self> {
        let backend_count = SERVING_COUNT + SPARE_COUNT;
        let net = Topology::build(Plan::new(plan.forward, Interfaces::One, backend_count))?;
        let machines = net.backends.iter();
        let machines = machines
            .map(|backend| Machine::start(backend, plan.forward, &plan.server))
            .collect::<Result<_>>()?;
        let config = config(&net, plan.idle_timeout, &first_fleet());
        let scratch = ScratchDir::new("lbd")?;
        let lbd = Lbd::launch_in(plan.launch.clone(), scratch, &net.lb, &config)?;
        Ok(Self {
            lbd,
            machines,
            net,
            plan,
        })
    }

    /// Kills the servers of web`number`: the kernel resets their connections.
    pub fn kill_servers(&mut self, number: u8) -> Result<()> {
        self.machine(number)?.kill()
    }

    /// Starts the servers of web`number` again.
    pub fn revive_servers(&mut self, number: u8) -> Result<()> {
        let backend = &self.net.backends[usize::from(number) - 1];
        let machine = self.machines.get_mut(usize::from(number) - 1);
        machine.with_context(|| no_backend(number))?.revive(backend)
    }

    fn machine(&mut self, number: u8) -> Result<&mut Machine> {
        let machine = self.machines.get_mut(usize::from(number).wrapping_sub(1));
        machine.with_context(|| no_backend(number))
    }

    /// Waits until no slot of any service is on its way to another backend.
    pub fn wait_settled(&self) -> Result<()> {
        let timeout = SETTLE_TIMEOUT_BASE + 4 * self.plan.idle_timeout;
        wait_until("all rings to settle", timeout, || {
            for service in Service::all() {
                if !self.is_settled(service)? {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
    }

    /// Quiet slots have settled as far as packets are concerned: flows that live on keep them so.
    fn is_settled(&self, service: Service) -> Result<bool> {
        let ring = self
            .lbd
            .ctl(&["-o", "json", "ring", "show", &service.name()])?;
        if ring.code == 2 {
            return Ok(true);
        }
        let ring: serde_json::Value = serde_json::from_str(&ring.stdout)?;
        Ok(ring["armed_slots"] == 0 && ring["moving_slots"] == 0)
    }

    /// How lbd is started.
    pub fn launch(&self) -> &Launch {
        &self.plan.launch
    }

    /// Starts lbd after its end, as at the beginning.
    pub fn start_lbd_again(&mut self) -> Result<()> {
        self.lbd.restart_as(self.plan.launch.clone(), &self.net.lb)
    }

    /// Segments that the client and the backends have sent once more.
    pub fn retransmitted(&self) -> Result<u64> {
        let backends = self.net.backends.iter().map(|backend| &backend.netns);
        let mut hosts = backends.chain([self.net.client.netns()]);
        hosts.try_fold(0, |sum, netns| Ok(sum + retransmitted(netns)?))
    }

    /// lbd's configuration with this fleet in every service.
    pub fn config(&self, fleet: &Fleet) -> String {
        config(&self.net, self.plan.idle_timeout, fleet)
    }

    /// Whether a service has web`backend`.
    pub fn has_backend(&self, service: Service, backend: u8) -> Result<bool> {
        let shown = self.lbd.ctl_json(&["service", "show", &service.name()])?;
        let backends = shown["backends"].as_array();
        let mut backends = backends.context("a service without `backends`")?.iter();
        Ok(backends.any(|one| one["name"] == name(backend)))
    }

    /// Runs `lbctl` once for each service, with its name in the place of `SERVICE`, and the name and
    /// the address of web`backend` in the place of `BACKEND` and `ADDRESS`.
    pub fn ctl_all(&self, words: &[&str], backend: u8) -> Result<()> {
        for service in Service::all() {
            self.ctl(service, words, backend)?;
        }
        Ok(())
    }

    /// As [`Stage::ctl_all`], for one service.
    pub fn ctl(&self, service: Service, words: &[&str], backend: u8) -> Result<()> {
        let known = self.net.backends.get(usize::from(backend).wrapping_sub(1));
        let known = known.with_context(|| no_backend(backend))?;
        let address = known.address_like(service.lane.vip()).to_string();
        let service = service.name();
        let words: Vec<&str> = words
            .iter()
            .map(|word| match *word {
                "SERVICE" => &service,
                "ADDRESS" => &address,
                "BACKEND" => &known.name,
                other => other,
            })
            .collect();
        self.lbd.ctl_ok(&words)?;
        Ok(())
    }
}

fn no_backend(number: u8) -> String {
    format!("the network has no web{number}")
}

/// `RetransSegs` of a namespace (RFC 2012, tcpRetransSegs): a line of names, and a line of values.
fn retransmitted(netns: &Netns) -> Result<u64> {
    // `/proc/net` is the namespace of the process, not of the thread.
    let text = netns.run(|| std::fs::read_to_string("/proc/thread-self/net/snmp"))??;
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Tcp: "));
    let (names, values) = (lines.next().unwrap_or(""), lines.next().unwrap_or(""));
    let mut pairs = names.split(' ').zip(values.split(' '));
    let value = pairs.find(|(name, _)| *name == "RetransSegs");
    let (_, value) = value.context("no RetransSegs in /proc/thread-self/net/snmp")?;
    Ok(value.parse()?)
}

fn config(net: &Topology, idle_timeout: Duration, fleet: &Fleet) -> String {
    let weights: Vec<(&str, u32)> = fleet
        .iter()
        .map(|(name, weight)| (&**name, *weight))
        .collect();
    let services: Vec<_> = Service::all()
        .map(|service| service.text(net, &weights).idle_timeout(idle_timeout))
        .collect();
    service::config(net, &services)
}

/// A backend with its servers.
#[derive(Debug)]
pub(crate) struct Machine {
    name: String,
    args: ServerArgs,
    program: PathBuf,
    records: Process,
    nginx: Nginx,
    scratch: ScratchDir,
}

impl Machine {
    /// Starts both servers on a backend.
    pub(crate) fn start(backend: &Backend, forward: Forward, program: &Path) -> Result<Self> {
        let number = backend.name.trim_start_matches("web").parse()?;
        let args = ServerArgs {
            number,
            tcp: RECORD_PORTS.to_vec(),
            udp: datagram_addresses(backend, forward),
        };
        let scratch = ScratchDir::new(&format!("records-{}", backend.name))?;
        let log = scratch.path().join("log");
        Ok(Self {
            name: backend.name.clone(),
            records: server::start(program, &backend.netns, &args, &log)?,
            args,
            program: program.to_path_buf(),
            nginx: Nginx::start(&backend.name, &backend.netns, &HTTP_PORTS)?,
            scratch,
        })
    }

    fn kill(&mut self) -> Result<()> {
        self.nginx.process().kill9_all()?;
        self.records.kill9()?;
        Ok(())
    }

    fn revive(&mut self, backend: &Backend) -> Result<()> {
        let log = self.scratch.path().join("log");
        self.records = server::start(&self.program, &backend.netns, &self.args, &log)?;
        self.nginx = Nginx::start(&self.name, &backend.netns, &HTTP_PORTS)?;
        Ok(())
    }
}

/// Answers come from the address that was asked: with DSR the VIP, with NAT the backend's own.
fn datagram_addresses(backend: &Backend, forward: Forward) -> Vec<SocketAddr> {
    let ips = match forward {
        Forward::Dsr => [VIPS_V4[0].into(), VIPS_V6[0].into()],
        Forward::Nat => [backend.v4.into(), backend.v6.into()],
    };
    let on_every_port = |ip| RECORD_PORTS.map(|port| SocketAddr::new(ip, port));
    ips.into_iter().flat_map(on_every_port).collect()
}

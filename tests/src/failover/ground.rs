//! Where two balancers stand: the network with its servers, who has the VIPs, and the probes from the client.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};

use super::darkness::Darkness;
use super::event::Other;
use super::probe::Probe;
use super::watch::{self, Held, Watch};
use crate::disruption::lane::{Carries, Lane};
use crate::disruption::record::now_ns;
use crate::disruption::stage::Machine;
use crate::netns::Netns;
use crate::process::run;
use crate::topology::{
    Balancers, Forward, GATEWAY_HOST, NodeId, Plan, SYNC_INTERFACE, Subnet, Topology, VIP_V4,
    VIP_V6, spread_routes,
};
use crate::wait::wait_until;

/// Backends: web1 … web3 serve.
pub const BACKEND_COUNT: u8 = 3;

/// The laboratory of two balancers, without the balancers. Dropping it ends the probes first, the network last.
#[derive(Debug)]
pub struct Ground {
    probes: Vec<Probe>,
    watches: Vec<(NodeId, Watch)>,
    vips: BTreeSet<IpAddr>,
    /// Whether the link between the two is well.
    sync: Link,
    _machines: Vec<Machine>,
    /// The network.
    pub net: Topology,
}

/// What was seen of a phase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// How long nobody answered the client.
    pub darkness: Darkness,
    /// How long both had the same VIP.
    pub both: Duration,
    /// Whether each got a VIP that it did not have: lb1, lb2.
    pub took: [bool; 2],
}

impl Ground {
    /// Builds the network and starts the servers of the program `server` on its backends.
    pub fn build(forward: Forward, balancers: Balancers, server: &Path) -> Result<Self> {
        let net = Topology::build(Plan::pair(forward, balancers, BACKEND_COUNT))?;
        let machines = net.backends.iter();
        let machines = machines
            .map(|backend| Machine::start(backend, forward, server))
            .collect::<Result<_>>()?;
        let vips = vips(forward, balancers);
        let mut ground = Self {
            probes: Vec::new(),
            watches: Vec::new(),
            vips,
            sync: Link::Up,
            _machines: machines,
            net,
        };
        for node in NodeId::ALL {
            ground.watch(node)?;
        }
        Ok(ground)
    }

    /// The VIPs that move, the backends' gateway among them where they have one.
    pub fn vips(&self) -> Vec<IpAddr> {
        self.vips.iter().copied().collect()
    }

    fn watch(&mut self, node: NodeId) -> Result<()> {
        let watch = Watch::start(self.net.node(node), &self.vips)?;
        self.watches.push((node, watch));
        Ok(())
    }

    fn watch_of(&self, node: NodeId) -> Option<&Watch> {
        let mut watches = self.watches.iter();
        watches.find(|(of, _)| *of == node).map(|(_, watch)| watch)
    }

    /// Starts the probes, one for each family.
    pub fn start_probes(&mut self) -> Result<()> {
        let netns = self.net.client.netns();
        let probes = targets().into_iter();
        self.probes = probes
            .map(|target| Probe::start(netns, target))
            .collect::<Result<_>>()?;
        Ok(())
    }

    /// Waits until `node` has every VIP, and the other one, if it is there, what it may have.
    pub fn wait_holder(&self, node: NodeId, other: Other, timeout: Duration) -> Result<()> {
        let held = |node| self.watch_of(node).map_or(0, Watch::held);
        wait_until(&format!("{node} to have the VIPs"), timeout, || {
            let of_other = held(node.other());
            let other_is_so = match other {
                Other::HasNone => of_other == 0,
                Other::MayHaveThem => true,
                Other::HasThem => of_other == self.vips.len(),
            };
            let is_so = held(node) == self.vips.len() && other_is_so;
            Ok(is_so.then_some(()))
        })
        .with_context(|| {
            let held = NodeId::ALL.map(|node| format!("{node}: {}", held(node)));
            format!("VIPs at {}", held.join(", "))
        })
    }

    /// Waits until the probes were all answered for as long as `light`.
    pub fn wait_light(&self, light: Duration, timeout: Duration) -> Result<()> {
        let mut probes = self.probes.iter();
        probes.try_for_each(|probe| probe.wait_light(light, timeout))
    }

    /// What is seen from now on belongs to a phase of its own.
    pub fn begin(&self) {
        self.probes.iter().for_each(Probe::begin);
        self.watches.iter().for_each(|(_, watch)| watch.begin());
    }

    /// What was seen since [`Ground::begin`].
    pub fn seen(&self) -> Seen {
        let darkness = self.probes.iter().map(Probe::darkness);
        let logs = NodeId::ALL.map(|node| self.watch_of(node).map(Watch::log).unwrap_or_default());
        let took = |log: &[Held]| {
            log.windows(2)
                .any(|pair| !pair[1].vips.is_subset(&pair[0].vips))
        };
        Seen {
            darkness: darkness.fold(Darkness::default(), Darkness::or_worse),
            both: watch::both(&logs[0], &logs[1], now_ns()),
            took: [took(&logs[0]), took(&logs[1])],
        }
    }

    /// Takes both links of a node down at once.
    pub fn cut_off(&mut self, node: NodeId) -> Result<()> {
        self.net.cut_links(node)?;
        // What it has is nobody's concern from now on.
        self.watches.retain(|(of, _)| *of != node);
        Ok(())
    }

    /// Puts a machine that knows nothing in the place of one that was cut off.
    pub fn replace(&mut self, node: NodeId) -> Result<()> {
        self.watches.retain(|(of, _)| *of != node);
        self.net.replace_node(node)?;
        self.watch(node)
    }

    /// Takes a node's link to everybody down, or up.
    pub fn set_lan(&self, node: NodeId, state: Link) -> Result<()> {
        self.set_port(&node.lan_port(), state)
    }

    /// Takes the link between the two down, or up.
    pub fn set_sync(&mut self, state: Link) -> Result<()> {
        self.sync = state;
        self.set_port(&NodeId::Lb1.sync_port(), state)
    }

    /// Whether the link between the two is neither cut nor disturbed.
    pub fn sync_works(&self) -> bool {
        self.sync == Link::Up
    }

    fn set_port(&self, port: &str, state: Link) -> Result<()> {
        let switch = self.net.switch();
        switch.ip(&format!("link set dev {port} {}", state.word()))
    }

    /// Has the advertisements of `node` get lost on their way to the other one, or arrive again. Everything
    /// else arrives.
    pub fn set_adverts(&self, node: NodeId, state: Link) -> Result<()> {
        let hearer = self.net.node(node.other());
        let fresh = "add table inet deaf; delete table inet deaf";
        let rules = match state {
            Link::Up => fresh.to_owned(),
            Link::Down => format!(
                "{fresh}; add table inet deaf; \
                 add chain inet deaf input {{ type filter hook input priority 0; }}; \
                 add rule inet deaf input meta l4proto 112 drop"
            ),
        };
        run(hearer.command("nft").arg(rules)).map(drop)
    }

    /// Spreads what is for the VIPs over both balancers by these weights. Needs a router.
    pub fn spread(&self, weights: [u8; 2]) -> Result<()> {
        let router = self.net.router().context("the network has no router")?;
        router.ip(&spread_routes(weights))
    }

    /// Has so many of a hundred packets on the link between the two get lost, each way; none: the link is
    /// well again.
    pub fn lose_on_sync(&mut self, percent: u8) -> Result<()> {
        self.sync = if percent == 0 { Link::Up } else { Link::Down };
        for node in NodeId::ALL {
            let netns = self.net.node(node);
            lose(netns, SYNC_INTERFACE, percent)
                .with_context(|| format!("cannot disturb {SYNC_INTERFACE} of {node}"))?;
        }
        Ok(())
    }
}

/// Whether a link works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It does.
    Up,
    /// It does not.
    Down,
}

impl Link {
    fn word(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Down => "down",
        }
    }
}

/// There is no netem here: a rule of nftables drops what comes in.
fn lose(netns: &Netns, interface: &str, percent: u8) -> Result<()> {
    let fresh = "add table inet loss; delete table inet loss";
    let rules = match percent {
        0 => fresh.to_owned(),
        _ => format!(
            "{fresh}; add table inet loss; \
             add chain inet loss input {{ type filter hook input priority 0; }}; \
             add rule inet loss input iifname {interface} numgen random mod 100 < {percent} drop"
        ),
    };
    run(netns.command("nft").arg(rules)).map(drop)
}

/// What the probes ask for: nginx of the Maglev services, in both families.
fn targets() -> [SocketAddr; 2] {
    [Lane::ALL[0], Lane::ALL[1]].map(|lane| lane.address(Carries::Http))
}

fn vips(forward: Forward, balancers: Balancers) -> BTreeSet<IpAddr> {
    let mut vips = BTreeSet::from([VIP_V4, VIP_V6]);
    if forward == Forward::Nat && balancers != Balancers::One {
        vips.insert(Subnet::Backends.v4(GATEWAY_HOST).into());
        vips.insert(Subnet::Backends.v6(GATEWAY_HOST).into());
    }
    vips
}

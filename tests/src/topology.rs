//! A whole network in namespaces: a client, a load balancer, backends, and a switch between them.
//!
//! Every machine hangs on a bridge in the switch's namespace. Two subnets exist: the backends' and
//! the clients'.
//!
//! ```text
//!                 One, Dsr           One, Nat             Two, Dsr              Two, Nat
//! client  eth0    10.0.0.100         10.1.0.100           10.1.0.100            10.1.0.100
//!         eth1                                            10.0.0.100 (replies)
//! lb      eth0    10.0.0.1           10.0.0.1, 10.1.0.1   10.1.0.1              10.1.0.1
//!         eth1                                            10.0.0.1              10.0.0.1
//! web<n>  eth0    10.0.0.(10+n)      the same; default    the same; clients     the same; default
//!                                    route to lb          through the client    route to lb
//! ```
//!
//! A pair of balancers ([`Balancers::Pair`]) has one interface for both sides each, and a link of its own
//! between them ([`SYNC_INTERFACE`]); the backends' default route is an address that moves with the VIPs
//! ([`GATEWAY_HOST`]). Behind a router ([`Balancers::PairBehindRouter`]) the client's packets are spread over
//! both of them.
//!
//! In IPv6 the subnets are `fd00:10::/64` and `fd00:11::/64`, with the same last numbers written in
//! hexadecimal digits (`10.0.0.11` and `fd00:10::11`).
//!
//! VIPs lie in 203.0.113.0/24 and 2001:db8:113::/64, which the client believes on its link: so the
//! balancer attracts them by answering ARP and neighbour solicitations. With DSR each backend has
//! them on its loopback interface and keeps quiet about it.
//!
//! What XDP needs of veth pairs (each line was learnt the hard way): the switch's port facing the
//! balancer has a native XDP program of its own, else frames sent with `XDP_TX` vanish; and its
//! checksum offload is off, else the balancer is handed half a checksum and passes it on.

mod build;
mod pair;
mod subnet;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

#[cfg(feature = "e2e")]
pub(crate) use self::pair::spread_routes;
pub use self::pair::{Balancers, GATEWAY_HOST, NodeId, ROUTER_HOST, SYNC_INTERFACE};
pub use self::subnet::Subnet;
use crate::client::Client;
use crate::netns::Netns;

/// The VIPs that DSR backends accept, first to last. All lie on the client's link.
pub const VIPS_V4: [Ipv4Addr; 4] = [
    Ipv4Addr::new(203, 0, 113, 10),
    Ipv4Addr::new(203, 0, 113, 11),
    Ipv4Addr::new(203, 0, 113, 12),
    Ipv4Addr::new(203, 0, 113, 13),
];
/// As [`VIPS_V4`].
pub const VIPS_V6: [Ipv6Addr; 4] = [
    Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x10),
    Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x11),
    Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x12),
    Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, 0x13),
];
/// The first IPv4 VIP: what a test with one service uses.
pub const VIP_V4: IpAddr = IpAddr::V4(VIPS_V4[0]);
/// The first IPv6 VIP.
pub const VIP_V6: IpAddr = IpAddr::V6(VIPS_V6[0]);

/// web1 … web9: the last digit is the backend's number, in both families.
pub const BACKEND_COUNT_MAX: u8 = 9;

/// How the network lets packets come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "e2e", derive(clap::ValueEnum))]
pub enum Forward {
    /// Backends answer the client directly.
    Dsr,
    /// Backends answer through the balancer.
    Nat,
}

/// How many interfaces the balancer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interfaces {
    /// eth0 for both sides.
    One,
    /// eth0 towards the clients, eth1 towards the backends.
    Two,
}

/// What to build.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How packets come back.
    pub forward: Forward,
    /// The balancer's interfaces.
    pub interfaces: Interfaces,
    /// Backends web1 … webN on the network, at most [`BACKEND_COUNT_MAX`]; which of them the
    /// balancer uses is the configuration's matter.
    pub backend_count: u8,
    /// How many balancers there are.
    pub balancers: Balancers,
    /// The namespaces' names are `PREFIX-client`, `PREFIX-lb` … Without one they are this process's
    /// own.
    pub prefix: Option<String>,
}

impl Plan {
    /// A network with namespaces of its own.
    pub fn new(forward: Forward, interfaces: Interfaces, backend_count: u8) -> Self {
        Self {
            forward,
            interfaces,
            backend_count,
            balancers: Balancers::One,
            prefix: None,
        }
    }

    /// A network with two balancers, `lb1` and `lb2`, each with one interface for both sides.
    pub fn pair(forward: Forward, balancers: Balancers, backend_count: u8) -> Self {
        Self {
            balancers,
            ..Self::new(forward, Interfaces::One, backend_count)
        }
    }

    fn netns(&self, role: &str) -> Result<Netns> {
        match &self.prefix {
            Some(prefix) => Netns::create_named(&format!("{prefix}-{role}")),
            None => Netns::create(role),
        }
    }
}

/// A machine with a web server on it.
#[derive(Debug)]
pub struct Backend {
    /// `web1` …
    pub name: String,
    /// Its namespace.
    pub netns: Netns,
    /// Its IPv4 address.
    pub v4: Ipv4Addr,
    /// Its IPv6 address.
    pub v6: Ipv6Addr,
}

impl Backend {
    /// Its address of the same family as `vip`.
    pub fn address_like(&self, vip: IpAddr) -> IpAddr {
        match vip {
            IpAddr::V4(_) => IpAddr::V4(self.v4),
            IpAddr::V6(_) => IpAddr::V6(self.v6),
        }
    }
}

/// A network that stands. Dropping it ends what runs in it and removes it.
#[derive(Debug)]
pub struct Topology {
    /// Where requests come from.
    pub client: Client,
    /// Where lbd runs; of a pair, the first one.
    pub lb: Netns,
    /// The second one of a pair.
    pub(crate) lb2: Option<Netns>,
    /// Between the client and a pair that needs one.
    pub(crate) router: Option<Netns>,
    /// web1 … webN.
    pub backends: Vec<Backend>,
    switch: Netns,
    plan: Plan,
}

impl Topology {
    /// Builds the network.
    pub fn build(plan: Plan) -> Result<Self> {
        let in_range = (1..=BACKEND_COUNT_MAX).contains(&plan.backend_count);
        anyhow::ensure!(in_range, "{} backends; 1 to 9 fit", plan.backend_count);
        let switch = build::switch(&plan).context("cannot build the switch")?;
        let lb = build::lb(&plan, &switch).context("cannot build the balancer's namespace")?;
        let (lb2, router) = pair::build_others(&plan, &switch)?;
        let client =
            build::client(&plan, &switch).context("cannot build the client's namespace")?;
        let backends = (1..=plan.backend_count)
            .map(|number| build::backend(&plan, &switch, number))
            .collect::<Result<_>>()?;
        Ok(Self {
            client: Client::new(client),
            lb,
            lb2,
            router,
            backends,
            switch,
            plan,
        })
    }

    /// The switch's namespace. Its port `lb` faces the balancer's eth0, `lb1` its eth1, `client`
    /// and `web<n>` the others.
    pub fn switch(&self) -> &Netns {
        &self.switch
    }

    /// The balancer's interfaces, the clients' first.
    pub fn lb_interfaces(&self) -> &'static [&'static str] {
        match self.plan.interfaces {
            Interfaces::One => &["eth0"],
            Interfaces::Two => &["eth0", "eth1"],
        }
    }

    /// The subnet that the client is in.
    pub fn client_subnet(&self) -> Subnet {
        build::client_subnet(&self.plan)
    }

    /// The balancer's own address in the client's subnet, of the same family as `vip`.
    pub fn lb_address_like(&self, vip: IpAddr) -> IpAddr {
        match vip {
            IpAddr::V4(_) => IpAddr::V4(self.client_subnet().v4(build::LB_HOST)),
            IpAddr::V6(_) => IpAddr::V6(self.client_subnet().v6(build::LB_HOST)),
        }
    }

    /// How packets come back.
    pub fn forward(&self) -> Forward {
        self.plan.forward
    }

    /// The word that a service's `forward` takes in this network.
    pub fn forward_word(&self) -> &'static str {
        match self.plan.forward {
            Forward::Dsr => "dsr",
            Forward::Nat => "nat",
        }
    }

    /// The start of lbd's configuration: the node and its interfaces, in native mode.
    pub fn node_config(&self) -> String {
        self.node_config_of(NodeId::Lb1)
    }

    /// As [`Topology::node_config`], for one of a pair.
    pub fn node_config_of(&self, node: NodeId) -> String {
        let interfaces: String = self
            .lb_interfaces()
            .iter()
            .map(|name| format!("[[interface]]\nname = \"{name}\"\nxdp = \"native\"\n"))
            .collect();
        format!("[node]\nname = \"{node}\"\n{interfaces}")
    }

    /// A TCP service of lbd's configuration with the named backends, each of weight 100.
    pub fn service_config(
        &self,
        name: &str,
        vip: IpAddr,
        scheduler: &str,
        backends: &[&str],
    ) -> String {
        let head = format!(
            "[[service]]\nname = \"{name}\"\nvip = \"{vip}\"\nport = 80\nprotocol = \"tcp\"\n\
             scheduler = \"{scheduler}\"\nforward = \"{}\"\n",
            self.forward_word()
        );
        let entries = self
            .backends
            .iter()
            .filter(|b| backends.contains(&b.name.as_str()));
        entries.fold(head, |text, backend| {
            let (name, address) = (&backend.name, backend.address_like(vip));
            text + &format!(
                "[[service.backend]]\nname = \"{name}\"\naddress = \"{address}\"\nport = 80\nweight = 100\n"
            )
        })
    }

    /// Leaves the network standing.
    pub fn keep(&mut self) {
        self.client.netns_mut().keep();
        self.lb.keep();
        let others = self.lb2.iter_mut().chain(&mut self.router);
        others.for_each(Netns::keep);
        self.switch.keep();
        for backend in &mut self.backends {
            backend.netns.keep();
        }
    }
}

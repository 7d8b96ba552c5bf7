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

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

use crate::client::Client;
use crate::link::{self, Offload, Switch};
use crate::netns::Netns;
use crate::xdp_pass;

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

/// The bridge that the backends are on, and in the networks with one interface everyone.
const BACKEND_BRIDGE: &str = "br0";
/// The bridge of the clients in the networks with two interfaces.
const CLIENT_BRIDGE: &str = "br1";

/// Last number of the balancer's addresses.
const LB_HOST: u8 = 1;
/// Last number of the client's addresses.
const CLIENT_HOST: u8 = 100;
/// Last number of the address of backend 0, were there one: web1 is 11.
const BACKEND_HOST_BASE: u8 = 10;
/// web1 … web9: the last digit is the backend's number, in both families.
pub const BACKEND_COUNT_MAX: u8 = 9;

/// How the network lets packets come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
            prefix: None,
        }
    }

    fn netns(&self, role: &str) -> Result<Netns> {
        match &self.prefix {
            Some(prefix) => Netns::create_named(&format!("{prefix}-{role}")),
            None => Netns::create(role),
        }
    }
}

/// One of the two subnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subnet {
    /// 10.0.0.0/24 and fd00:10::/64.
    Backends,
    /// 10.1.0.0/24 and fd00:11::/64.
    Clients,
}

impl Subnet {
    /// The IPv4 address with the last number `host`.
    pub const fn v4(self, host: u8) -> Ipv4Addr {
        match self {
            Self::Backends => Ipv4Addr::new(10, 0, 0, host),
            Self::Clients => Ipv4Addr::new(10, 1, 0, host),
        }
    }

    /// The IPv6 address whose last group reads like `host` in decimal digits.
    pub const fn v6(self, host: u8) -> Ipv6Addr {
        let digits = (host / 100) as u16 * 0x100 + (host / 10 % 10) as u16 * 0x10;
        let last = digits + (host % 10) as u16;
        match self {
            Self::Backends => Ipv6Addr::new(0xfd00, 0x10, 0, 0, 0, 0, 0, last),
            Self::Clients => Ipv6Addr::new(0xfd00, 0x11, 0, 0, 0, 0, 0, last),
        }
    }

    /// `ip` commands that give `interface` its addresses.
    fn add_addresses(self, interface: &str, host: u8) -> String {
        let (v4, v6) = (self.v4(host), self.v6(host));
        format!("addr add {v4}/24 dev {interface}\naddr add {v6}/64 dev {interface} nodad\n")
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
    /// Where lbd runs.
    pub lb: Netns,
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
        let switch = build_switch(&plan).context("cannot build the switch")?;
        let lb = build_lb(&plan, &switch).context("cannot build the balancer's namespace")?;
        let client = build_client(&plan, &switch).context("cannot build the client's namespace")?;
        let backends = (1..=plan.backend_count)
            .map(|number| build_backend(&plan, &switch, number))
            .collect::<Result<_>>()?;
        Ok(Self {
            client: Client::new(client),
            lb,
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
        client_subnet(&self.plan)
    }

    /// The balancer's own address in the client's subnet, of the same family as `vip`.
    pub fn lb_address_like(&self, vip: IpAddr) -> IpAddr {
        match vip {
            IpAddr::V4(_) => IpAddr::V4(self.client_subnet().v4(LB_HOST)),
            IpAddr::V6(_) => IpAddr::V6(self.client_subnet().v6(LB_HOST)),
        }
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
        let interfaces: String = self
            .lb_interfaces()
            .iter()
            .map(|name| format!("[[interface]]\nname = \"{name}\"\nxdp = \"native\"\n"))
            .collect();
        format!("[node]\nname = \"lb1\"\n{interfaces}")
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
        self.switch.keep();
        for backend in &mut self.backends {
            backend.netns.keep();
        }
    }
}

fn client_subnet(plan: &Plan) -> Subnet {
    match (plan.interfaces, plan.forward) {
        (Interfaces::One, Forward::Dsr) => Subnet::Backends,
        // With NAT on one interface a client of the backends' subnet would be answered past the
        // balancer.
        _ => Subnet::Clients,
    }
}

fn client_bridge(plan: &Plan) -> &'static str {
    match plan.interfaces {
        Interfaces::One => BACKEND_BRIDGE,
        Interfaces::Two => CLIENT_BRIDGE,
    }
}

fn build_switch(plan: &Plan) -> Result<Netns> {
    let switch = plan.netns("switch")?;
    // The switch has no addresses of its own, and nobody is to see any.
    switch.sysctl(&[("net/ipv6/conf/default/disable_ipv6", "1")])?;
    link::bridge(&switch, BACKEND_BRIDGE)?;
    if plan.interfaces == Interfaces::Two {
        link::bridge(&switch, CLIENT_BRIDGE)?;
    }
    Ok(switch)
}

/// Joins `interface` of a machine to a bridge through the switch's port `port`.
fn plug(machine: &Netns, interface: &str, switch: &Netns, bridge: &str, port: &str) -> Result<()> {
    link::veth_pair((machine, interface), (switch, port))?;
    link::add_port(switch, bridge, port)
}

/// As [`plug`], for the balancer: what is sent to it carries whole checksums, and what it sends
/// arrives.
fn plug_lb(lb: &Netns, interface: &str, switch: &Netns, bridge: &str, port: &str) -> Result<()> {
    plug(lb, interface, switch, bridge, port)?;
    link::set_offload(switch, port, Offload::TxChecksum, Switch::Off)?;
    xdp_pass::attach(switch, port)
}

fn build_lb(plan: &Plan, switch: &Netns) -> Result<Netns> {
    let lb = plan.netns("lb")?;
    loosen_reverse_path(&lb)?;
    plug_lb(&lb, "eth0", switch, client_bridge(plan), "lb")?;
    lb.ip(&client_subnet(plan).add_addresses("eth0", LB_HOST))?;
    match (plan.interfaces, plan.forward) {
        (Interfaces::One, Forward::Dsr) => {}
        (Interfaces::One, Forward::Nat) => {
            lb.ip(&Subnet::Backends.add_addresses("eth0", LB_HOST))?;
        }
        (Interfaces::Two, _) => {
            plug_lb(&lb, "eth1", switch, BACKEND_BRIDGE, "lb1")?;
            lb.ip(&Subnet::Backends.add_addresses("eth1", LB_HOST))?;
        }
    }
    Ok(lb)
}

fn build_client(plan: &Plan, switch: &Netns) -> Result<Netns> {
    let client = plan.netns("client")?;
    loosen_reverse_path(&client)?;
    plug(&client, "eth0", switch, client_bridge(plan), "client")?;
    client.ip(&client_subnet(plan).add_addresses("eth0", CLIENT_HOST))?;
    client.ip("route add 203.0.113.0/24 dev eth0\nroute add 2001:db8:113::/64 dev eth0")?;
    if (plan.interfaces, plan.forward) == (Interfaces::Two, Forward::Dsr) {
        plug(&client, "eth1", switch, BACKEND_BRIDGE, "client1")?;
        client.ip(&Subnet::Backends.add_addresses("eth1", CLIENT_HOST))?;
    }
    Ok(client)
}

fn build_backend(plan: &Plan, switch: &Netns, number: u8) -> Result<Backend> {
    let name = format!("web{number}");
    let netns = plan.netns(&name)?;
    let host = BACKEND_HOST_BASE + number;
    loosen_reverse_path(&netns)?;
    plug(&netns, "eth0", switch, BACKEND_BRIDGE, &name)?;
    netns.ip(&Subnet::Backends.add_addresses("eth0", host))?;
    if plan.forward == Forward::Dsr {
        accept_vips_quietly(&netns)?;
    }
    netns.ip(&backend_routes(plan))?;
    Ok(Backend {
        name,
        netns,
        v4: Subnet::Backends.v4(host),
        v6: Subnet::Backends.v6(host),
    })
}

/// The way back to the client.
fn backend_routes(plan: &Plan) -> String {
    let through = |host| (Subnet::Backends.v4(host), Subnet::Backends.v6(host));
    match (plan.interfaces, plan.forward) {
        (Interfaces::One, Forward::Dsr) => String::new(),
        (Interfaces::Two, Forward::Dsr) => {
            let (v4, v6) = through(CLIENT_HOST);
            format!("route add 10.1.0.0/24 via {v4}\nroute add fd00:11::/64 via {v6}")
        }
        (_, Forward::Nat) => {
            let (v4, v6) = through(LB_HOST);
            format!("route add default via {v4}\nroute add ::/0 via {v6}")
        }
    }
}

/// The VIPs are the backend's own, but it neither answers ARP for them nor names them as its source
/// in ARP. In IPv6 Linux answers for addresses of the asked interface only, which the loopback's
/// are not.
fn accept_vips_quietly(netns: &Netns) -> Result<()> {
    netns.sysctl(&[
        ("net/ipv4/conf/all/arp_ignore", "1"),
        ("net/ipv4/conf/all/arp_announce", "2"),
    ])?;
    let v4: String = VIPS_V4
        .iter()
        .map(|vip| format!("addr add {vip}/32 dev lo\n"))
        .collect();
    let v6: String = VIPS_V6
        .iter()
        .map(|vip| format!("addr add {vip}/128 dev lo nodad\n"))
        .collect();
    netns.ip(&(v4 + &v6))
}

/// Packets may come in where answers to them would not go out.
fn loosen_reverse_path(netns: &Netns) -> Result<()> {
    netns.sysctl(&[
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_both_families_read_alike() {
        assert_eq!(Subnet::Backends.v4(11).to_string(), "10.0.0.11");
        assert_eq!(Subnet::Backends.v6(11).to_string(), "fd00:10::11");
        assert_eq!(Subnet::Clients.v6(100).to_string(), "fd00:11::100");
        assert_eq!(Subnet::Clients.v6(1).to_string(), "fd00:11::1");
    }

    #[test]
    fn backends_answer_past_the_balancer_with_dsr_only() {
        let routes = |forward, interfaces| backend_routes(&Plan::new(forward, interfaces, 1));
        assert!(routes(Forward::Nat, Interfaces::One).contains("default via 10.0.0.1\n"));
        assert!(routes(Forward::Dsr, Interfaces::Two).contains("10.1.0.0/24 via 10.0.0.100\n"));
        assert_eq!(routes(Forward::Dsr, Interfaces::One), "");
    }
}

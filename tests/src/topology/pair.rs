//! Two balancers side by side, each with an interface to everybody and a link between them.

use std::fmt;
use std::net::IpAddr;

use anyhow::{Context, Result};

use super::build::{
    BACKEND_BRIDGE, CLIENT_BRIDGE, client_subnet, loosen_reverse_path, plug, plug_lb,
};
use super::{Forward, Plan, Subnet, Topology, VIPS_V4, VIPS_V6};
use crate::netns::{self, Netns};
use crate::process::run;

/// The link between the two, on each of them.
pub const SYNC_INTERFACE: &str = "sync0";
/// Last number of the address that a pair's backends send through: it moves with the VIPs.
pub const GATEWAY_HOST: u8 = 99;
/// Last number of the router's addresses, in both subnets.
pub const ROUTER_HOST: u8 = 98;

/// The bridge that the link between the two goes over.
pub(super) const SYNC_BRIDGE: &str = "br2";

/// How many balancers a network has, and how packets come to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balancers {
    /// One.
    One,
    /// Two: one of them has a VIP.
    Pair,
    /// Two, behind a router that spreads what is for the VIPs over both of them.
    PairBehindRouter,
}

/// One of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeId {
    /// `lb1`.
    Lb1,
    /// `lb2`.
    Lb2,
}

impl NodeId {
    /// Both of them.
    pub const ALL: [Self; 2] = [Self::Lb1, Self::Lb2];

    /// The other one.
    pub fn other(self) -> Self {
        match self {
            Self::Lb1 => Self::Lb2,
            Self::Lb2 => Self::Lb1,
        }
    }

    /// Last number of its addresses: 1 or 2.
    pub fn host(self) -> u8 {
        self as u8 + 1
    }

    /// The switch's port that faces its eth0.
    pub fn lan_port(self) -> String {
        format!("node{}", self.host())
    }

    /// The switch's port that faces its end of the link between the two.
    pub fn sync_port(self) -> String {
        format!("sync{}", self.host())
    }

    /// Its address on the link between the two.
    pub fn sync_address(self) -> IpAddr {
        IpAddr::from([10, 0, 9, self.host()])
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "lb{}", self.host())
    }
}

impl Plan {
    pub(super) fn has_router(&self) -> bool {
        self.balancers == Balancers::PairBehindRouter
    }
}

impl Topology {
    /// The namespace of one of a pair.
    ///
    /// # Panics
    /// Where the network has one balancer only and the second one is asked for.
    pub fn node(&self, node: NodeId) -> &Netns {
        match (node, &self.lb2) {
            (NodeId::Lb1, _) => &self.lb,
            (NodeId::Lb2, Some(lb2)) => lb2,
            (NodeId::Lb2, None) => panic!("the network has one balancer"),
        }
    }

    /// The router before a pair, if there is one.
    pub fn router(&self) -> Option<&Netns> {
        self.router.as_ref()
    }

    /// Takes both links of a node down at once.
    pub fn cut_links(&self, node: NodeId) -> Result<()> {
        let (lan, sync) = (node.lan_port(), node.sync_port());
        let links = format!("link set dev {lan} down\nlink set dev {sync} down");
        self.switch.ip(&links)
    }

    /// Puts a machine that has just been bought in the place of one of a pair: of what was there before,
    /// nothing is left but the addresses, the Ethernet address among them.
    pub fn replace_node(&mut self, node: NodeId) -> Result<()> {
        let old = match (node, &mut self.lb2) {
            (NodeId::Lb2, Some(lb2)) => lb2,
            _ => &mut self.lb,
        };
        // The switch's ports have its names; with them go the links, long before the namespace does.
        for port in [node.lan_port(), node.sync_port()] {
            self.switch.ip(&format!("link delete dev {port}"))?;
        }
        // The fresh one may have its name.
        netns::remove(old.name())?;
        old.keep();
        let fresh = self::node(&self.plan, &self.switch, node)?;
        match node {
            NodeId::Lb1 => self.lb = fresh,
            NodeId::Lb2 => self.lb2 = Some(fresh),
        }
        Ok(())
    }
}

/// The second balancer and the router, where the plan has them.
pub(super) fn build_others(plan: &Plan, switch: &Netns) -> Result<(Option<Netns>, Option<Netns>)> {
    let lb2 = (plan.balancers != Balancers::One)
        .then(|| node(plan, switch, NodeId::Lb2).context("cannot build the second balancer"))
        .transpose()?;
    let router = plan
        .has_router()
        .then(|| router(plan, switch).context("cannot build the router"))
        .transpose()?;
    Ok((lb2, router))
}

/// One of the two. Its Ethernet addresses are fixed, as those of a machine are that is switched off and on.
pub(super) fn node(plan: &Plan, switch: &Netns, node: NodeId) -> Result<Netns> {
    let lb = plan.netns(&node.to_string())?;
    loosen_reverse_path(&lb)?;
    let host = node.host();
    plug_lb(&lb, "eth0", switch, BACKEND_BRIDGE, &node.lan_port())?;
    plug(&lb, SYNC_INTERFACE, switch, SYNC_BRIDGE, &node.sync_port())?;
    let mac = format!("02:00:00:00:00:0{host}");
    // A network card takes no frames that are for another one; a veth takes all that a switch sends. So the
    // switch is told where the address is, and floods nothing when that port is down.
    let port = node.lan_port();
    run(switch
        .command("bridge")
        .args(["fdb", "replace", &mac, "dev", &port, "master", "static"]))?;
    lb.ip(&format!(
        "link set dev eth0 address {mac}\n\
         link set dev {SYNC_INTERFACE} address 02:00:00:00:09:0{host}\n\
         addr add {}/24 dev {SYNC_INTERFACE}",
        node.sync_address()
    ))?;
    lb.ip(&Subnet::Backends.add_addresses("eth0", host))?;
    if plan.forward == Forward::Nat && !plan.has_router() {
        lb.ip(&Subnet::Clients.add_addresses("eth0", host))?;
    }
    if plan.has_router() {
        let (v4, v6) = (
            Subnet::Backends.v4(ROUTER_HOST),
            Subnet::Backends.v6(ROUTER_HOST),
        );
        lb.ip(&format!(
            "route replace 10.1.0.0/24 via {v4}\nroute replace fd00:11::/64 via {v6}"
        ))?;
    }
    Ok(lb)
}

/// Between the clients and everybody else; what is for a VIP goes to either balancer, by flow.
fn router(plan: &Plan, switch: &Netns) -> Result<Netns> {
    let router = plan.netns("router")?;
    loosen_reverse_path(&router)?;
    router.sysctl(&[
        ("net/ipv4/ip_forward", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
        // By addresses and ports (ip-sysctl, fib_multipath_hash_policy).
        ("net/ipv4/fib_multipath_hash_policy", "1"),
        ("net/ipv6/fib_multipath_hash_policy", "1"),
    ])?;
    plug(&router, "eth0", switch, CLIENT_BRIDGE, "router0")?;
    plug(&router, "eth1", switch, BACKEND_BRIDGE, "router1")?;
    router.ip(&client_subnet(plan).add_addresses("eth0", ROUTER_HOST))?;
    router.ip(&Subnet::Backends.add_addresses("eth1", ROUTER_HOST))?;
    router.ip(&spread_routes([1, 1]))?;
    Ok(router)
}

/// `ip` commands that spread what is for the VIPs over both balancers by these weights; 0 leaves one out.
pub(crate) fn spread_routes(weights: [u8; 2]) -> String {
    let hops = |address: fn(u8) -> String| -> String {
        let pairs = NodeId::ALL.into_iter().zip(weights);
        pairs
            .filter(|(_, weight)| *weight > 0)
            .map(|(node, weight)| format!(" nexthop via {} weight {weight}", address(node.host())))
            .collect()
    };
    let v4 = hops(|host| Subnet::Backends.v4(host).to_string());
    let v6 = hops(|host| Subnet::Backends.v6(host).to_string());
    let v4 = VIPS_V4.map(|vip| format!("route replace {vip}/32{v4}\n"));
    let v6 = VIPS_V6.map(|vip| format!("route replace {vip}/128{v6}\n"));
    v4.concat() + &v6.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balancer_of_no_weight_gets_nothing() {
        let both = spread_routes([1, 3]);
        assert!(both.contains("nexthop via 10.0.0.1 weight 1 nexthop via 10.0.0.2 weight 3\n"));
        let one = spread_routes([0, 1]);
        assert!(!one.contains("10.0.0.1 ") && one.contains("via fd00:10::2 weight 1\n"));
    }
}

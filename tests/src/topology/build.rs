//! Building the machines of a laboratory network and plugging them into the switch.

use anyhow::Result;

use super::pair::{self, Balancers, GATEWAY_HOST, NodeId, ROUTER_HOST};
use super::{Backend, Forward, Interfaces, Plan, Subnet, VIPS_V4, VIPS_V6};
use crate::link::{self, Offload, Switch};
use crate::netns::Netns;
use crate::xdp_pass;

/// The bridge that the backends are on, and in the networks with one interface everyone.
pub(super) const BACKEND_BRIDGE: &str = "br0";
/// The bridge of the clients in the networks with two interfaces.
pub(super) const CLIENT_BRIDGE: &str = "br1";

/// Last number of the balancer's addresses.
pub(super) const LB_HOST: u8 = 1;
/// Last number of the client's addresses.
const CLIENT_HOST: u8 = 100;
/// Last number of the address of backend 0, were there one: web1 is 11.
const BACKEND_HOST_BASE: u8 = 10;
pub(super) fn client_subnet(plan: &Plan) -> Subnet {
    match (plan.interfaces, plan.forward) {
        (Interfaces::One, Forward::Dsr) if !plan.has_router() => Subnet::Backends,
        // With NAT on one interface a client of the backends' subnet would be answered past the
        // balancer.
        _ => Subnet::Clients,
    }
}

fn client_bridge(plan: &Plan) -> &'static str {
    match plan.interfaces {
        Interfaces::One if !plan.has_router() => BACKEND_BRIDGE,
        _ => CLIENT_BRIDGE,
    }
}

pub(super) fn switch(plan: &Plan) -> Result<Netns> {
    let switch = plan.netns("switch")?;
    // The switch has no addresses of its own, and nobody is to see any.
    switch.sysctl(&[("net/ipv6/conf/default/disable_ipv6", "1")])?;
    link::bridge(&switch, BACKEND_BRIDGE)?;
    if client_bridge(plan) == CLIENT_BRIDGE {
        link::bridge(&switch, CLIENT_BRIDGE)?;
    }
    if plan.balancers != Balancers::One {
        link::bridge(&switch, pair::SYNC_BRIDGE)?;
    }
    Ok(switch)
}

/// Joins `interface` of a machine to a bridge through the switch's port `port`.
pub(super) fn plug(
    machine: &Netns,
    interface: &str,
    switch: &Netns,
    bridge: &str,
    port: &str,
) -> Result<()> {
    link::veth_pair((machine, interface), (switch, port))?;
    link::add_port(switch, bridge, port)
}

/// As [`plug`], for the balancer: what is sent to it carries whole checksums, and what it sends
/// arrives.
pub(super) fn plug_lb(
    lb: &Netns,
    interface: &str,
    switch: &Netns,
    bridge: &str,
    port: &str,
) -> Result<()> {
    plug(lb, interface, switch, bridge, port)?;
    link::queue(switch, port)?;
    link::set_offload(switch, port, Offload::TxChecksum, Switch::Off)?;
    xdp_pass::attach(switch, port)
}

pub(super) fn lb(plan: &Plan, switch: &Netns) -> Result<Netns> {
    if plan.balancers != Balancers::One {
        return pair::node(plan, switch, NodeId::Lb1);
    }
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

pub(super) fn client(plan: &Plan, switch: &Netns) -> Result<Netns> {
    let client = plan.netns("client")?;
    loosen_reverse_path(&client)?;
    link::keep_flows_on_a_cpu(&client)?;
    plug(&client, "eth0", switch, client_bridge(plan), "client")?;
    client.ip(&client_subnet(plan).add_addresses("eth0", CLIENT_HOST))?;
    client.ip(&client_routes(plan))?;
    if (plan.interfaces, plan.forward) == (Interfaces::Two, Forward::Dsr) {
        plug(&client, "eth1", switch, BACKEND_BRIDGE, "client1")?;
        client.ip(&Subnet::Backends.add_addresses("eth1", CLIENT_HOST))?;
    }
    Ok(client)
}

/// The VIPs are believed on the client's link, or behind the router.
fn client_routes(plan: &Plan) -> String {
    let by = if plan.has_router() {
        let subnet = client_subnet(plan);
        [
            subnet.v4(ROUTER_HOST).to_string(),
            subnet.v6(ROUTER_HOST).to_string(),
        ]
        .map(|router| format!("via {router}"))
    } else {
        ["", ""].map(|_| "dev eth0".to_owned())
    };
    format!(
        "route add 203.0.113.0/24 {}\nroute add 2001:db8:113::/64 {}",
        by[0], by[1]
    )
}

pub(super) fn backend(plan: &Plan, switch: &Netns, number: u8) -> Result<Backend> {
    let name = format!("web{number}");
    let netns = plan.netns(&name)?;
    let host = BACKEND_HOST_BASE + number;
    loosen_reverse_path(&netns)?;
    link::keep_flows_on_a_cpu(&netns)?;
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
    let to_clients =
        |(v4, v6)| format!("route add 10.1.0.0/24 via {v4}\nroute add fd00:11::/64 via {v6}");
    match (plan.interfaces, plan.forward) {
        (Interfaces::One, Forward::Dsr) if plan.has_router() => to_clients(through(ROUTER_HOST)),
        (Interfaces::One, Forward::Dsr) => String::new(),
        (Interfaces::Two, Forward::Dsr) => to_clients(through(CLIENT_HOST)),
        (_, Forward::Nat) => {
            let (v4, v6) = through(match plan.balancers {
                Balancers::One => LB_HOST,
                _ => GATEWAY_HOST,
            });
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
pub(super) fn loosen_reverse_path(netns: &Netns) -> Result<()> {
    netns.sysctl(&[
        ("net/ipv4/conf/all/rp_filter", "0"),
        ("net/ipv4/conf/default/rp_filter", "0"),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_answer_past_the_balancer_with_dsr_only() {
        let routes = |forward, interfaces| backend_routes(&Plan::new(forward, interfaces, 1));
        assert!(routes(Forward::Nat, Interfaces::One).contains("default via 10.0.0.1\n"));
        assert!(routes(Forward::Dsr, Interfaces::Two).contains("10.1.0.0/24 via 10.0.0.100\n"));
        assert_eq!(routes(Forward::Dsr, Interfaces::One), "");
    }
}

//! Next hops: from routes and neighbours to the Ethernet addresses that frames are sent with. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::abi::LinkRewrite;

use super::view::{LinkAddress, LinkHost, RouteTarget, View};

/// The answer of the kernel's routing for one address, or why there is none.
pub type RouteAnswer = Result<RouteTarget, String>;

/// Whether the neighbour answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The kernel knows it now.
    Current,
    /// The kernel has lost it; this is what it was.
    LastKnown,
}

/// A next hop with everything that a frame needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResolvedHop {
    /// Egress interface.
    pub ifindex: u32,
    /// Its name.
    pub interface: String,
    /// Both Ethernet addresses.
    pub link: LinkRewrite,
    /// Whether the neighbour answers.
    pub freshness: Freshness,
}

/// The way to an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hop {
    /// Whether a router stands between.
    pub through_gateway: bool,
    /// The next hop, or why it is not known.
    pub resolved: Result<ResolvedHop, String>,
}

/// Ethernet addresses that were seen of the hosts that matter. A host that stops answering the
/// kernel keeps its last one: a false alarm must not cut traffic.
#[derive(Clone, Debug, Default)]
pub struct Memory(BTreeMap<LinkHost, LinkAddress>);

impl Memory {
    /// Notes what is known of `hosts` now, and forgets all others.
    pub fn refresh(&mut self, view: &View, hosts: &BTreeSet<LinkHost>) {
        self.0.retain(|host, _| hosts.contains(host));
        for host in hosts {
            let known = view.neighbours.get(host).and_then(|entry| entry.address);
            self.0.extend(known.map(|address| (*host, address)));
        }
    }

    /// Notes an address that was known before, unless a later one is.
    pub fn recall(&mut self, host: LinkHost, address: LinkAddress) {
        self.0.entry(host).or_insert(address);
    }

    fn address(&self, view: &View, host: &LinkHost) -> Option<(LinkAddress, Freshness)> {
        let current = view.neighbours.get(host).and_then(|entry| entry.address);
        let last = || self.0.get(host).map(|last| (*last, Freshness::LastKnown));
        current
            .map(|address| (address, Freshness::Current))
            .or_else(last)
    }
}

/// The host whose Ethernet address is needed on the way to `address`.
pub fn link_host(address: IpAddr, target: &RouteTarget) -> Option<LinkHost> {
    match *target {
        RouteTarget::OnLink { ifindex } => Some((ifindex, address)),
        RouteTarget::Gateway { ifindex, gateway } => Some((ifindex, gateway)),
        RouteTarget::Nowhere => None,
    }
}

/// The way to `address`, given the kernel's routing answer for it.
pub fn hop(address: IpAddr, answer: &RouteAnswer, view: &View, memory: &Memory) -> Hop {
    let through_gateway = matches!(answer, Ok(RouteTarget::Gateway { .. }));
    let resolved = match answer {
        Ok(target) => resolve(address, target, view, memory),
        Err(reason) => Err(reason.clone()),
    };
    Hop {
        through_gateway,
        resolved,
    }
}

/// The next hop on the way to `address`.
///
/// # Errors
/// Why it is not known, for people.
pub fn resolve(
    address: IpAddr,
    target: &RouteTarget,
    view: &View,
    memory: &Memory,
) -> Result<ResolvedHop, String> {
    let host = link_host(address, target).ok_or_else(|| format!("no route to {address}"))?;
    let (ifindex, neighbour) = host;
    let link = view
        .links
        .get(&ifindex)
        .ok_or_else(|| format!("interface {ifindex} has gone"))?;
    if !link.is_up {
        return Err(format!("interface {} is down", link.name));
    }
    let source = link
        .address
        .ok_or_else(|| format!("interface {} is not Ethernet", link.name))?;
    let (destination, freshness) = memory
        .address(view, &host)
        .ok_or_else(|| format!("{neighbour} does not answer on {}", link.name))?;
    Ok(ResolvedHop {
        ifindex,
        interface: link.name.clone(),
        link: LinkRewrite::new(destination, source),
        freshness,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::view::{Link, NeighbourEntry, NeighbourState};

    const OURS: LinkAddress = [2, 0, 0, 0, 0, 1];
    const THEIRS: LinkAddress = [2, 0, 0, 0, 0, 9];

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn view(host: &str, address: Option<LinkAddress>) -> View {
        let link = Link {
            name: "eth0".to_owned(),
            address: Some(OURS),
            is_up: true,
            has_carrier: true,
        };
        let state = match address {
            Some(_) => NeighbourState::Confirmed,
            None => NeighbourState::Unknown,
        };
        View {
            links: BTreeMap::from([(4, link)]),
            neighbours: BTreeMap::from([((4, ip(host)), NeighbourEntry { address, state })]),
            ..View::default()
        }
    }

    fn on_link() -> RouteAnswer {
        Ok(RouteTarget::OnLink { ifindex: 4 })
    }

    #[test]
    fn an_on_link_host_is_its_own_next_hop() {
        let view = view("10.0.0.9", Some(THEIRS));
        let hop = hop(ip("10.0.0.9"), &on_link(), &view, &Memory::default());
        let resolved = hop.resolved.unwrap();
        assert!(!hop.through_gateway);
        assert_eq!(resolved.link, LinkRewrite::new(THEIRS, OURS));
        assert_eq!(resolved.freshness, Freshness::Current);
        assert_eq!((resolved.ifindex, resolved.interface.as_str()), (4, "eth0"));
    }

    #[test]
    fn behind_a_gateway_the_gateway_is_the_next_hop() {
        let view = view("10.0.0.254", Some(THEIRS));
        let answer = Ok(RouteTarget::Gateway {
            ifindex: 4,
            gateway: ip("10.0.0.254"),
        });
        let hop = hop(ip("192.0.2.1"), &answer, &view, &Memory::default());
        assert!(hop.through_gateway);
        assert_eq!(hop.resolved.unwrap().link.destination(), THEIRS);
    }

    #[test]
    fn a_host_that_falls_silent_keeps_its_last_address() {
        let hosts = BTreeSet::from([(4, ip("10.0.0.9"))]);
        let mut memory = Memory::default();
        memory.refresh(&view("10.0.0.9", Some(THEIRS)), &hosts);
        let silent = view("10.0.0.9", None);
        memory.refresh(&silent, &hosts);
        let resolved = resolve(ip("10.0.0.9"), &on_link().unwrap(), &silent, &memory).unwrap();
        assert_eq!(resolved.freshness, Freshness::LastKnown);
        assert_eq!(resolved.link.destination(), THEIRS);
    }

    #[test]
    fn a_host_that_no_longer_matters_is_forgotten() {
        let mut memory = Memory::default();
        let known = view("10.0.0.9", Some(THEIRS));
        memory.refresh(&known, &BTreeSet::from([(4, ip("10.0.0.9"))]));
        memory.refresh(&known, &BTreeSet::new());
        let silent = view("10.0.0.9", None);
        let target = on_link().unwrap();
        let reason = resolve(ip("10.0.0.9"), &target, &silent, &memory).unwrap_err();
        assert_eq!(reason, "10.0.0.9 does not answer on eth0");
    }

    #[test]
    fn reasons_name_the_thing() {
        let memory = Memory::default();
        let mut down = view("10.0.0.9", Some(THEIRS));
        down.links.get_mut(&4).unwrap().is_up = false;
        let mut tunnel = view("10.0.0.9", Some(THEIRS));
        tunnel.links.get_mut(&4).unwrap().address = None;
        let cases = [
            (down, on_link(), "interface eth0 is down"),
            (tunnel, on_link(), "interface eth0 is not Ethernet"),
            (View::default(), on_link(), "interface 4 has gone"),
            (
                View::default(),
                Ok(RouteTarget::Nowhere),
                "no route to 10.0.0.9",
            ),
            (View::default(), Err("nope".to_owned()), "nope"),
        ];
        for (view, answer, reason) in cases {
            let hop = hop(ip("10.0.0.9"), &answer, &view, &memory);
            assert_eq!(hop.resolved.unwrap_err(), reason);
        }
    }
}

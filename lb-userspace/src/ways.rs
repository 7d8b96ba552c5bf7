//! The ways to backends over the node's own links, for frames that are sent to a VIP there. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use lb_common::abi::LinkRewrite;
use tokio::sync::watch;

use crate::desired::{Network, way_to};
use crate::model::ForwardMode;
use crate::netlink::view::{LocalAddress, View, is_in_subnet};

/// The ways as they are now, for those who follow them.
pub type WaysReceiver = watch::Receiver<Arc<Ways>>;

/// The way to a backend on one of the node's links: what the datapath sends with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Way {
    /// The interface.
    pub ifindex: u32,
    /// Its name.
    pub interface: String,
    /// Both Ethernet addresses.
    pub link: LinkRewrite,
    /// The node's addresses there that a backend can answer to, in the kernel's order: primary ones first.
    pub addresses: Arc<[LocalAddress]>,
}

/// The ways to all backends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ways {
    /// By the backend's address: the way, or why there is none.
    by_backend: BTreeMap<IpAddr, Result<Way, String>>,
    /// Every address of this node.
    own: BTreeSet<IpAddr>,
}

impl Ways {
    /// The ways that L2 DSR takes.
    pub fn of(network: &Network) -> Self {
        let view = &network.view;
        let mut addresses = BTreeMap::new();
        let ways = network.hops.iter().map(|(backend, hop)| {
            let way = way_to(ForwardMode::Dsr, Some(hop)).map(|hop| Way {
                ifindex: hop.ifindex,
                interface: hop.interface.clone(),
                link: hop.link,
                addresses: Arc::clone(
                    addresses
                        .entry(hop.ifindex)
                        .or_insert_with(|| addresses_on(view, hop.ifindex)),
                ),
            });
            (*backend, way.map_err(str::to_owned))
        });
        Self {
            by_backend: ways.collect(),
            own: view.addresses.iter().map(|local| local.address).collect(),
        }
    }

    /// Ways put together by hand.
    pub fn from_parts(
        by_backend: BTreeMap<IpAddr, Result<Way, String>>,
        own: BTreeSet<IpAddr>,
    ) -> Self {
        Self { by_backend, own }
    }

    /// The way to a backend.
    ///
    /// # Errors
    /// Why there is none, for people.
    pub fn to(&self, backend: IpAddr) -> Result<&Way, &str> {
        match self.by_backend.get(&backend) {
            Some(way) => way.as_ref().map_err(String::as_str),
            None => Err("not looked up yet"),
        }
    }

    /// Whether the node has this address.
    pub fn is_own(&self, address: IpAddr) -> bool {
        self.own.contains(&address)
    }
}

impl Way {
    /// Where to ask from: the node's first address in the backend's subnet, else its first one of the
    /// family. Never `vip`: what is sent from the address that it is sent to is taken for an attack.
    pub fn source(&self, backend: IpAddr, vip: IpAddr) -> Option<IpAddr> {
        let fit = |local: &&LocalAddress| {
            local.address.is_ipv4() == backend.is_ipv4() && local.address != vip
        };
        let is_near =
            |local: &&LocalAddress| is_in_subnet(backend, local.address, local.prefix_len);
        let near = self.addresses.iter().filter(fit).find(is_near);
        let any = || self.addresses.iter().find(fit);
        near.or_else(any).map(|local| local.address)
    }
}

/// Without single addresses, which are VIPs mostly, and without those of the link alone.
fn addresses_on(view: &View, ifindex: u32) -> Arc<[LocalAddress]> {
    let is_fit = |local: &&LocalAddress| {
        let is_link_local = match local.address {
            IpAddr::V4(address) => address.is_link_local(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        local.ifindex == ifindex && !local.is_single() && !is_link_local
    };
    view.addresses.iter().filter(is_fit).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::next_hop::{Freshness, Hop, ResolvedHop};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn hop(through_gateway: bool) -> Hop {
        Hop {
            through_gateway,
            resolved: Ok(ResolvedHop {
                ifindex: 2,
                interface: "eth0".to_owned(),
                link: LinkRewrite::new([2; 6], [4; 6]),
                freshness: Freshness::Current,
            }),
        }
    }

    fn ways(hops: &[(&str, Hop)]) -> Ways {
        let addresses = [
            (2, "fe80::1", 64),
            (2, "203.0.113.10", 32),
            (2, "192.0.2.1", 24),
            (2, "10.0.0.1", 24),
            (2, "10.0.0.2", 24),
            (3, "10.1.0.1", 24),
            (2, "fd00:10::1", 64),
        ];
        let addresses = addresses.map(|(ifindex, address, prefix_len)| LocalAddress {
            ifindex,
            address: ip(address),
            prefix_len,
        });
        let hops = hops.iter().map(|(backend, hop)| (ip(backend), hop.clone()));
        Ways::of(&Network {
            view: View {
                addresses: addresses.into(),
                ..View::default()
            },
            hops: hops.collect(),
            ..Network::default()
        })
    }

    #[test]
    fn a_backend_is_asked_from_the_address_in_its_subnet() {
        let ways = ways(&[("10.0.0.11", hop(false)), ("fd00:10::11", hop(false))]);
        let source = |backend, vip| {
            let way = ways.to(ip(backend)).unwrap();
            way.source(ip(backend), ip(vip)).map(|ip| ip.to_string())
        };
        let v4 = "203.0.113.10";
        assert_eq!(source("10.0.0.11", v4).as_deref(), Some("10.0.0.1"));
        assert_eq!(source("10.0.0.11", "10.0.0.1").as_deref(), Some("10.0.0.2"));
        assert_eq!(
            source("fd00:10::11", "2001:db8::10").as_deref(),
            Some("fd00:10::1")
        );
        assert_eq!(source("fd00:10::11", "fd00:10::1"), None);
        assert!(ways.is_own(ip("10.1.0.1")) && !ways.is_own(ip("10.0.0.11")));
    }

    #[test]
    fn where_there_is_no_way_the_reason_is_told() {
        let unresolved = Hop {
            through_gateway: false,
            resolved: Err("10.0.0.12 does not answer on eth0".to_owned()),
        };
        let ways = ways(&[("10.0.0.11", hop(true)), ("10.0.0.12", unresolved)]);
        for (backend, reason) in [
            ("10.0.0.11", "not on link"),
            ("10.0.0.12", "10.0.0.12 does not answer on eth0"),
            ("10.0.0.13", "not looked up yet"),
        ] {
            let told = ways.to(ip(backend)).unwrap_err();
            assert!(told.starts_with(reason), "{told}");
        }
    }
}

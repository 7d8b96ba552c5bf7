//! What the kernel knows of the network, as plain data.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// An Ethernet address.
pub type LinkAddress = [u8; 6];

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its name.
    pub name: String,
    /// Its Ethernet address; `None` for what is not Ethernet.
    pub address: Option<LinkAddress>,
    /// Whether it is administratively up (`IFF_UP`).
    pub is_up: bool,
    /// Whether there is something at its other end (`IFF_LOWER_UP`).
    pub has_carrier: bool,
}

/// An address of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalAddress {
    /// The interface.
    pub ifindex: u32,
    /// The address.
    pub address: IpAddr,
    /// Bits of its subnet.
    pub prefix_len: u8,
}

impl LocalAddress {
    /// Whether it is an address without a subnet.
    pub fn is_single(&self) -> bool {
        self.prefix_len == host_prefix_len(self.address)
    }
}

/// Where a route leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RouteTarget {
    /// The destination itself, on this interface's link.
    OnLink {
        /// The interface.
        ifindex: u32,
    },
    /// A router on this interface's link.
    Gateway {
        /// The interface.
        ifindex: u32,
        /// The router.
        gateway: IpAddr,
    },
    /// Nowhere (blackhole, unreachable, prohibit).
    Nowhere,
}

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteEntry {
    /// The destination; the unspecified address for a default route.
    pub destination: IpAddr,
    /// Bits of the destination that count.
    pub prefix_len: u8,
    /// The metric: the lowest of several routes to one destination wins.
    pub priority: u32,
    /// Where it leads.
    pub target: RouteTarget,
}

/// How well the kernel knows a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Confirmed a moment ago, or configured by hand.
    Confirmed,
    /// Known, not confirmed lately.
    Stale,
    /// Not known: being asked for, or did not answer.
    Unknown,
}

/// A neighbour entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourEntry {
    /// Its Ethernet address, while it is known.
    pub address: Option<LinkAddress>,
    /// How well it is known.
    pub state: NeighbourState,
}

/// An interface's index with an address on its link.
pub type LinkHost = (u32, IpAddr);

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct View {
    /// Interfaces by index.
    pub links: BTreeMap<u32, Link>,
    /// The node's addresses.
    pub addresses: Vec<LocalAddress>,
    /// The main table.
    pub routes: Vec<RouteEntry>,
    /// The neighbour tables.
    pub neighbours: BTreeMap<LinkHost, NeighbourEntry>,
}

impl View {
    /// The index of the interface with this name.
    pub fn ifindex(&self, name: &str) -> Option<u32> {
        self.links
            .iter()
            .find(|(_, link)| link.name == name)
            .map(|(ifindex, _)| *ifindex)
    }

    /// The name of an interface, or its number if it has gone.
    pub fn link_name(&self, ifindex: u32) -> String {
        self.links
            .get(&ifindex)
            .map_or_else(|| format!("interface {ifindex}"), |link| link.name.clone())
    }

    /// Notes that a single address was added to an interface.
    pub fn add_host_address(&mut self, ifindex: u32, address: IpAddr) {
        self.addresses.push(LocalAddress {
            ifindex,
            address,
            prefix_len: host_prefix_len(address),
        });
    }

    /// Notes that a single address was removed from an interface.
    pub fn remove_address(&mut self, ifindex: u32, address: IpAddr) {
        self.addresses
            .retain(|local| (local.ifindex, local.address) != (ifindex, address));
    }

    /// The interfaces that hold this address.
    pub fn holders(&self, address: IpAddr) -> impl Iterator<Item = u32> {
        self.addresses
            .iter()
            .filter(move |local| local.address == address)
            .map(|local| local.ifindex)
    }
}

/// Whether `address` is in the subnet `network`/`prefix_len`. Never across families.
pub fn is_in_subnet(address: IpAddr, network: IpAddr, prefix_len: u8) -> bool {
    fn common_bits(differing: u128, width: u32) -> u32 {
        differing.leading_zeros().saturating_sub(128 - width)
    }
    let common = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => common_bits(u128::from(a.to_bits() ^ b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => common_bits(a.to_bits() ^ b.to_bits(), 128),
        _ => return false,
    };
    common >= u32::from(prefix_len)
}

/// The prefix length of a single address.
pub const fn host_prefix_len(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_hold_their_hosts_only() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(is_in_subnet(ip("10.0.0.9"), ip("10.0.0.1"), 24));
        assert!(!is_in_subnet(ip("10.0.1.9"), ip("10.0.0.1"), 24));
        assert!(is_in_subnet(ip("10.0.1.9"), ip("0.0.0.0"), 0));
        assert!(is_in_subnet(ip("10.0.0.1"), ip("10.0.0.1"), 32));
        assert!(!is_in_subnet(ip("10.0.0.0"), ip("10.0.0.1"), 32));
        assert!(is_in_subnet(ip("2001:db8::5"), ip("2001:db8::"), 64));
        assert!(!is_in_subnet(ip("2001:db8:0:1::5"), ip("2001:db8::"), 64));
        assert!(!is_in_subnet(ip("10.0.0.9"), ip("::"), 0));
    }
}

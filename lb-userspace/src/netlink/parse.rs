//! From rtnetlink messages to plain data. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourMessage, NeighbourState as KernelState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteNextHopFlags,
    RouteType, RouteVia,
};

use super::next_hop::RouteAnswer;
use super::view::{
    Link, LinkAddress, LinkHost, LocalAddress, NeighbourEntry, NeighbourState, RouteEntry,
    RouteTarget,
};

/// An interface and its index.
pub(super) fn link(message: &LinkMessage) -> Option<(u32, Link)> {
    let name = message.attributes.iter().find_map(|one| match one {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    })?;
    let address = message.attributes.iter().find_map(|one| match one {
        LinkAttribute::Address(bytes) => LinkAddress::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    let is_ethernet = message.header.link_layer_type == LinkLayerType::Ether;
    let link = Link {
        name,
        address: address.filter(|_| is_ethernet),
        is_up: message.header.flags.contains(LinkFlags::Up),
        has_carrier: message.header.flags.contains(LinkFlags::LowerUp),
    };
    Some((message.header.index, link))
}

/// One of the node's addresses. On a point-to-point link `IFA_ADDRESS` is the peer's and
/// `IFA_LOCAL` is ours; IPv6 has the former only.
pub(super) fn address(message: &AddressMessage) -> Option<LocalAddress> {
    let attributes = &message.attributes;
    let local = attributes.iter().find_map(|one| match one {
        AddressAttribute::Local(ip) => Some(*ip),
        _ => None,
    });
    let address = attributes.iter().find_map(|one| match one {
        AddressAttribute::Address(ip) => Some(*ip),
        _ => None,
    });
    Some(LocalAddress {
        ifindex: message.header.index,
        address: local.or(address)?,
        prefix_len: message.header.prefix_len,
    })
}

/// A neighbour.
pub(super) fn neighbour(message: &NeighbourMessage) -> Option<(LinkHost, NeighbourEntry)> {
    let host = message.attributes.iter().find_map(|one| match one {
        NeighbourAttribute::Destination(NeighbourAddress::Inet(ip)) => Some(IpAddr::V4(*ip)),
        NeighbourAttribute::Destination(NeighbourAddress::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })?;
    let address = message.attributes.iter().find_map(|one| match one {
        NeighbourAttribute::LinkLayerAddress(bytes) => LinkAddress::try_from(bytes.as_slice()).ok(),
        _ => None,
    });
    let state = match message.header.state {
        KernelState::Reachable | KernelState::Permanent | KernelState::Noarp => {
            NeighbourState::Confirmed
        }
        KernelState::Stale | KernelState::Delay | KernelState::Probe => NeighbourState::Stale,
        _ => NeighbourState::Unknown,
    };
    let entry = NeighbourEntry {
        address: address.filter(|_| state != NeighbourState::Unknown),
        state,
    };
    Some(((message.header.ifindex, host), entry))
}

/// A route of the main table that is in force and means something to a packet.
pub(super) fn route(message: &RouteMessage) -> Option<RouteEntry> {
    let unusable = RouteFlags::Dead | RouteFlags::Linkdown;
    if table(message) != u32::from(RouteHeader::RT_TABLE_MAIN)
        || message.header.flags.intersects(unusable)
    {
        return None;
    }
    let destination = message.attributes.iter().find_map(|one| match one {
        RouteAttribute::Destination(address) => ip(address),
        _ => None,
    });
    let priority = message.attributes.iter().find_map(|one| match one {
        RouteAttribute::Priority(priority) => Some(*priority),
        _ => None,
    });
    Some(RouteEntry {
        destination: destination.or_else(|| unspecified(message.header.address_family))?,
        prefix_len: message.header.destination_prefix_length,
        priority: priority.unwrap_or(0),
        target: target(message)?,
    })
}

/// The kernel's answer to "how is `destination` reached".
pub(super) fn answer(destination: IpAddr, message: &RouteMessage) -> RouteAnswer {
    if message.header.kind == RouteType::Local {
        return Err(format!("{destination} is an address of this node"));
    }
    match target(message) {
        Some(RouteTarget::Nowhere) | None => Err(format!("no route to {destination}")),
        Some(target) => Ok(target),
    }
}

fn target(message: &RouteMessage) -> Option<RouteTarget> {
    match message.header.kind {
        RouteType::Unicast => hop(&message.attributes).or_else(|| first_usable(message)),
        RouteType::BlackHole | RouteType::Unreachable | RouteType::Prohibit => {
            Some(RouteTarget::Nowhere)
        }
        _ => None,
    }
}

/// Of several next hops the first whose link is there and up.
fn first_usable(message: &RouteMessage) -> Option<RouteTarget> {
    let hops = message.attributes.iter().find_map(|one| match one {
        RouteAttribute::MultiPath(hops) => Some(hops),
        _ => None,
    })?;
    let unusable = RouteNextHopFlags::Dead | RouteNextHopFlags::Linkdown;
    let first = hops.iter().find(|hop| !hop.flags.intersects(unusable))?;
    Some(toward(first.interface_index, gateway(&first.attributes)))
}

fn hop(attributes: &[RouteAttribute]) -> Option<RouteTarget> {
    let ifindex = attributes.iter().find_map(|one| match one {
        RouteAttribute::Oif(ifindex) => Some(*ifindex),
        _ => None,
    })?;
    Some(toward(ifindex, gateway(attributes)))
}

const fn toward(ifindex: u32, gateway: Option<IpAddr>) -> RouteTarget {
    match gateway {
        Some(gateway) => RouteTarget::Gateway { ifindex, gateway },
        None => RouteTarget::OnLink { ifindex },
    }
}

/// The router; of the other family too (RFC 5549, `via inet6`).
fn gateway(attributes: &[RouteAttribute]) -> Option<IpAddr> {
    attributes.iter().find_map(|one| match one {
        RouteAttribute::Gateway(address) => ip(address),
        RouteAttribute::Via(RouteVia::Inet(ip)) => Some(IpAddr::V4(*ip)),
        RouteAttribute::Via(RouteVia::Inet6(ip)) => Some(IpAddr::V6(*ip)),
        _ => None,
    })
}

/// The number of the table; `RTA_TABLE` where it exceeds the header's byte.
fn table(message: &RouteMessage) -> u32 {
    let attribute = message.attributes.iter().find_map(|one| match one {
        RouteAttribute::Table(table) => Some(*table),
        _ => None,
    });
    attribute.unwrap_or(u32::from(message.header.table))
}

const fn ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        _ => None,
    }
}

const fn unspecified(family: AddressFamily) -> Option<IpAddr> {
    match family {
        AddressFamily::Inet => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
        AddressFamily::Inet6 => Some(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_route::route::{RouteNextHop, RouteScope};

    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn message(kind: RouteType, attributes: Vec<RouteAttribute>) -> RouteMessage {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.scope = RouteScope::Universe;
        message.header.kind = kind;
        message.attributes = attributes;
        message
    }

    fn via(gateway: &str) -> Vec<RouteAttribute> {
        vec![
            RouteAttribute::Oif(4),
            RouteAttribute::Gateway(ip(gateway).into()),
        ]
    }

    #[test]
    fn a_default_route_has_no_destination_attribute() {
        let entry = route(&message(RouteType::Unicast, via("10.0.0.254"))).unwrap();
        assert_eq!((entry.destination, entry.prefix_len), (ip("0.0.0.0"), 0));
        let gateway = ip("10.0.0.254");
        assert_eq!(
            entry.target,
            RouteTarget::Gateway {
                ifindex: 4,
                gateway
            }
        );
    }

    #[test]
    fn an_ipv4_route_may_have_an_ipv6_gateway() {
        let attributes = vec![
            RouteAttribute::Oif(4),
            RouteAttribute::Via(RouteVia::Inet6("fe80::1".parse().unwrap())),
        ];
        let answer = answer(ip("192.0.2.1"), &message(RouteType::Unicast, attributes));
        let gateway = ip("fe80::1");
        assert_eq!(
            answer,
            Ok(RouteTarget::Gateway {
                ifindex: 4,
                gateway
            })
        );
    }

    /// Next hops over interfaces 7 and 8.
    fn two_hops(flags: [RouteNextHopFlags; 2]) -> RouteMessage {
        let hop = |interface_index: u32, flags| {
            let mut hop = RouteNextHop::default();
            hop.interface_index = interface_index;
            hop.flags = flags;
            hop.attributes = vec![RouteAttribute::Gateway(ip("10.0.0.1").into())];
            hop
        };
        let hops = vec![hop(7, flags[0]), hop(8, flags[1])];
        message(RouteType::Unicast, vec![RouteAttribute::MultiPath(hops)])
    }

    #[test]
    fn of_several_next_hops_the_first_that_is_up_is_taken() {
        let up = RouteNextHopFlags::empty();
        let (dead, down) = (RouteNextHopFlags::Dead, RouteNextHopFlags::Linkdown);
        let gateway = ip("10.0.0.1");
        for (flags, ifindex) in [([up, up], 7), ([dead, up], 8), ([down | dead, up], 8)] {
            let entry = route(&two_hops(flags)).unwrap();
            assert_eq!(entry.target, RouteTarget::Gateway { ifindex, gateway });
        }
        assert_eq!(route(&two_hops([dead, down])), None);
    }

    #[test]
    fn other_tables_and_dead_routes_are_not_seen() {
        let mut local = message(RouteType::Local, vec![RouteAttribute::Oif(4)]);
        local.header.table = 255;
        assert_eq!(route(&local), None);
        let mut dead = message(RouteType::Unicast, via("10.0.0.254"));
        dead.header.flags = RouteFlags::Dead;
        assert_eq!(route(&dead), None);
        let mut big = message(RouteType::Unicast, via("10.0.0.254"));
        big.attributes.push(RouteAttribute::Table(1000));
        assert_eq!(route(&big), None);
    }

    #[test]
    fn answers_that_lead_nowhere_say_so() {
        let host = ip("10.0.0.9");
        let local = answer(host, &message(RouteType::Local, vec![]));
        assert_eq!(local.unwrap_err(), "10.0.0.9 is an address of this node");
        let blackhole = answer(host, &message(RouteType::BlackHole, vec![]));
        assert_eq!(blackhole.unwrap_err(), "no route to 10.0.0.9");
    }

    #[test]
    fn a_neighbour_without_an_answer_has_no_address() {
        let mut message = NeighbourMessage::default();
        message.header.ifindex = 4;
        message.header.state = KernelState::Failed;
        message.attributes = vec![
            NeighbourAttribute::Destination(NeighbourAddress::Inet([10, 0, 0, 9].into())),
            NeighbourAttribute::LinkLayerAddress(vec![2, 0, 0, 0, 0, 9]),
        ];
        let (host, entry) = neighbour(&message).unwrap();
        assert_eq!(host, (4, ip("10.0.0.9")));
        assert_eq!(entry.address, None);
        message.header.state = KernelState::Stale;
        let (_, entry) = neighbour(&message).unwrap();
        assert_eq!(entry.address, Some([2, 0, 0, 0, 0, 9]));
    }
}

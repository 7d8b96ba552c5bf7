//! The node's routes and neighbours, for the replies of NAT backends.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use lb_common::abi::{Address, Neighbour, NeighbourKey, Route, RouteKey, RouteKind};
use lb_common::limits::{NEIGHBOURS_MAX, ROUTES_MAX};

use super::NO_LINK;
use crate::netlink::next_hop::{Memory, resolve};
use crate::netlink::view::{
    LocalAddress, RouteEntry, RouteTarget, View, host_prefix_len, is_in_subnet,
};

/// Routes that are mirrored. One less than the map holds: kernels before 6.13 refuse to replace an
/// entry of a full trie.
const ROUTES_MIRRORED_MAX: usize = ROUTES_MAX as usize - 1;

/// The IPv4 default route in the table's mapped form.
const IPV4_DEFAULT: RouteKey =
    route_key_of_octets(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped().octets(), 96);

/// The node's own addresses, and the main table: one route for each destination, the one with the
/// lowest metric. With how many there is no room for: first come the default routes and the
/// addresses that the node speaks from, then the shorter prefixes, and last the single addresses, VIPs
/// mostly.
pub(super) fn routes(view: &View, memory: &Memory) -> (BTreeMap<RouteKey, Route>, usize) {
    let mut mirror = Mirror::default();
    let (defaults, others): (Vec<_>, Vec<_>) =
        best_routes(view).partition(|(_, entry)| entry.prefix_len == 0);
    let (singles, own): (Vec<_>, Vec<_>) =
        view.addresses.iter().partition(|local| local.is_single());
    for (key, entry) in defaults {
        mirror.add(key, route(entry, view, memory));
    }
    if !mirror.routes.contains_key(&IPV4_DEFAULT) && has_route_over_mapped(view) {
        mirror.add(IPV4_DEFAULT, NOWHERE);
    }
    for address in own {
        mirror.own(address);
    }
    for (key, entry) in others {
        mirror.add(key, route(entry, view, memory));
    }
    for address in singles {
        mirror.own(address);
    }
    (mirror.routes, mirror.left_out)
}

/// Routes up to what the map holds.
#[derive(Default)]
struct Mirror {
    routes: BTreeMap<RouteKey, Route>,
    left_out: usize,
}

impl Mirror {
    /// Adds a route, unless there is one already.
    fn add(&mut self, key: RouteKey, route: Route) {
        if self.routes.contains_key(&key) {
            return;
        }
        if self.routes.len() == ROUTES_MIRRORED_MAX {
            self.left_out += 1;
            return;
        }
        self.routes.insert(key, route);
    }

    /// Adds an address of the node, which wins over any route.
    fn own(&mut self, address: &LocalAddress) {
        let (key, route) = local(address);
        match self.routes.get_mut(&key) {
            Some(other) => *other = route,
            None => self.add(key, route),
        }
    }
}

/// The neighbours that replies can be sent to, on every interface that is up; and how many there
/// is no room for.
pub(super) fn neighbours(view: &View) -> (BTreeMap<NeighbourKey, Neighbour>, usize) {
    let known = view.neighbours.keys().filter_map(|(ifindex, address)| {
        let target = RouteTarget::OnLink { ifindex: *ifindex };
        let hop = resolve(*address, &target, view, &Memory::default()).ok()?;
        let key = NeighbourKey {
            address: Address::from(*address),
            ifindex: *ifindex,
        };
        Some((key, Neighbour { link: hop.link }))
    });
    let mut known: Vec<_> = known.collect();
    let left_out = known.len().saturating_sub(NEIGHBOURS_MAX as usize);
    known.truncate(NEIGHBOURS_MAX as usize);
    (known.into_iter().collect(), left_out)
}

/// The mirrored routes by prefix length, without those that a lower metric beats.
fn best_routes(view: &View) -> impl Iterator<Item = (RouteKey, &RouteEntry)> {
    let mut best: BTreeMap<(u8, RouteKey), &RouteEntry> = BTreeMap::new();
    for entry in view.routes.iter().filter(|entry| is_mirrored(entry)) {
        let key = (
            entry.prefix_len,
            route_key(entry.destination, entry.prefix_len),
        );
        let is_better = best
            .get(&key)
            .is_none_or(|other| entry.priority < other.priority);
        if is_better {
            best.insert(key, entry);
        }
    }
    best.into_iter().map(|((_, key), entry)| (key, entry))
}

/// Not mirrored: prefixes that stand on every interface alike (link-local and multicast).
fn is_mirrored(entry: &RouteEntry) -> bool {
    match entry.destination {
        IpAddr::V4(ip) => !ip.is_link_local() && !ip.is_multicast(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local() && !ip.is_multicast(),
    }
}

/// Whether an IPv6 route (the default route, in practice) covers the mapped form of IPv4, so that
/// it would catch replies to IPv4 clients.
fn has_route_over_mapped(view: &View) -> bool {
    let mapped = IpAddr::V6(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped());
    view.routes
        .iter()
        .any(|entry| is_in_subnet(mapped, entry.destination, entry.prefix_len))
}

fn route_key(destination: IpAddr, prefix_len: u8) -> RouteKey {
    let family_bits = 128 - host_prefix_len(destination);
    route_key_of_octets(
        Address::from(destination).octets(),
        family_bits + prefix_len,
    )
}

const fn route_key_of_octets(octets: [u8; 16], prefix_len: u8) -> RouteKey {
    RouteKey {
        prefix_len: prefix_len as u32,
        octets,
    }
}

/// A route that leads nowhere, or not yet anywhere.
const NOWHERE: Route = Route {
    link: NO_LINK,
    ifindex: 0,
    gateway: Address::UNSPECIFIED,
    kind: RouteKind::Gateway as u8,
    is_resolved: 0,
    pad: [0; 2],
};

fn local(local: &LocalAddress) -> (RouteKey, Route) {
    let key = route_key(local.address, host_prefix_len(local.address));
    let route = Route {
        ifindex: local.ifindex,
        kind: RouteKind::Local as u8,
        ..NOWHERE
    };
    (key, route)
}

fn route(entry: &RouteEntry, view: &View, memory: &Memory) -> Route {
    match entry.target {
        RouteTarget::Nowhere => NOWHERE,
        RouteTarget::OnLink { ifindex } => Route {
            ifindex,
            kind: RouteKind::OnLink as u8,
            ..NOWHERE
        },
        RouteTarget::Gateway { ifindex, gateway } => {
            let hop = resolve(gateway, &entry.target, view, memory).ok();
            Route {
                link: hop.as_ref().map_or(NO_LINK, |hop| hop.link),
                ifindex,
                gateway: Address::from(gateway),
                is_resolved: hop.is_some().into(),
                ..NOWHERE
            }
        }
    }
}

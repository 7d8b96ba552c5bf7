//! The interfaces that the groups are on: what the kernel says of them, and a socket for each family.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd};

use tracing::{debug, warn};

use super::advert_socket::AdvertSocket;
use super::condition::LinkState;
use super::neighbour_probe::NeighbourProbe;
use crate::netlink::blocking::{BlockingNetlink, Port, PortAddress};
use crate::vrrp::protocol::{Family, Group};

/// An interface that a group is on.
pub(super) struct GroupPort {
    /// What the kernel says of it.
    pub(super) port: Port,
    /// Its addresses, in the kernel's order.
    pub(super) addresses: Vec<PortAddress>,
    voices: BTreeMap<Family, Voice>,
}

/// What is heard and said on an interface in one family.
pub(super) struct Voice {
    pub(super) adverts: AdvertSocket,
    /// Opened when it is needed first: closing such a socket takes the kernel 10 ms and more, which the successor of
    /// a killed process would have to wait for.
    pub(super) probe: Option<NeighbourProbe>,
}

/// All interfaces that matter, by name.
#[derive(Default)]
pub(super) struct Ports {
    ports: BTreeMap<String, GroupPort>,
    /// How they are, those that are only tracked included.
    pub(super) links: BTreeMap<String, LinkState>,
    /// What went wrong last, so that it is logged once.
    troubles: BTreeMap<String, String>,
}

/// What is wanted: interfaces of groups with their families, and those that are only looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Of groups.
    pub(super) families: BTreeMap<String, BTreeSet<Family>>,
    /// To be looked at.
    pub(super) tracked: BTreeSet<String>,
}

impl Ports {
    /// The interface of this name, if it is there.
    pub(super) fn get(&self, name: &str) -> Option<&GroupPort> {
        self.ports.get(name)
    }

    /// The sockets on an interface, if they could be had.
    pub(super) fn voice(&self, interface: &str, family: Family) -> Option<&Voice> {
        self.ports.get(interface)?.voices.get(&family)
    }

    /// The socket that asks for neighbours on an interface, with what it is to know of the interface.
    ///
    /// # Errors
    /// If the kernel gives none.
    pub(super) fn probe(
        &mut self,
        interface: &str,
        family: Family,
    ) -> io::Result<Option<(&NeighbourProbe, &Port)>> {
        let Some(GroupPort { port, voices, .. }) = self.ports.get_mut(interface) else {
            return Ok(None);
        };
        let Some(voice) = voices.get_mut(&family) else {
            return Ok(None);
        };
        let probe = match voice.probe.take() {
            Some(probe) => probe,
            None => NeighbourProbe::open(family, port.ifindex)?,
        };
        Ok(Some((voice.probe.insert(probe), port)))
    }

    /// All sockets, with where they are.
    pub(super) fn voices(&self) -> impl Iterator<Item = (&str, Family, &Voice)> {
        self.ports.iter().flat_map(|(name, port)| {
            let voices = port.voices.iter();
            voices.map(move |(family, voice)| (name.as_str(), *family, voice))
        })
    }

    /// What to wait for.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.voices().flat_map(|(_, _, voice)| {
            let probe = voice.probe.as_ref().map(AsFd::as_fd);
            std::iter::once(voice.adverts.as_fd()).chain(probe)
        })
    }

    /// Asks the kernel for everything anew. Returns the interfaces that have come up since the last time.
    pub(super) fn refresh(
        &mut self,
        netlink: &mut BlockingNetlink,
        wanted: &Wanted,
    ) -> BTreeSet<String> {
        let before = std::mem::take(&mut self.links);
        self.ports
            .retain(|name, _| wanted.families.contains_key(name));
        let names: BTreeSet<&String> = wanted.families.keys().chain(&wanted.tracked).collect();
        for name in names {
            let port = match netlink.port(name) {
                Ok(port) => port,
                Err(error) => {
                    // What was known holds: a kernel that is short of memory is no link that is down.
                    self.complain(name, &format!("cannot look at {name}: {error}"));
                    let known = before.get(name).copied().unwrap_or(LinkState::Missing);
                    self.links.insert(name.clone(), known);
                    continue;
                }
            };
            self.links.insert(name.clone(), link_state(port.as_ref()));
            let families = wanted.families.get(name);
            if let Some(families) = families {
                self.take_port(netlink, name, port, families);
            }
        }
        let is_up = |links: &BTreeMap<String, LinkState>, name: &String| {
            links.get(name) == Some(&LinkState::Up)
        };
        let names = self.links.keys();
        names
            .filter(|name| is_up(&self.links, name) && !is_up(&before, name))
            .cloned()
            .collect()
    }

    fn take_port(
        &mut self,
        netlink: &mut BlockingNetlink,
        name: &str,
        port: Option<Port>,
        families: &BTreeSet<Family>,
    ) {
        let Some(port) = port else {
            self.ports.remove(name);
            return;
        };
        let addresses = netlink.addresses(port.ifindex);
        let known = self.ports.remove(name);
        let (known_addresses, mut voices) = match known {
            // Another interface of the same name: what was bound to the former one is deaf.
            Some(known) if known.port.ifindex != port.ifindex => Default::default(),
            Some(known) => (known.addresses, known.voices),
            None => Default::default(),
        };
        voices.retain(|family, _| families.contains(family));
        let addresses = addresses.unwrap_or_else(|error| {
            self.complain(
                name,
                &format!("cannot read the addresses of {name}: {error}"),
            );
            known_addresses
        });
        for family in families {
            if voices.contains_key(family) {
                continue;
            }
            match open(*family, name, port.ifindex) {
                Ok(voice) => {
                    debug!(interface = name, "{family:?}: listening");
                    self.troubles.remove(name);
                    voices.insert(*family, voice);
                }
                Err(error) => {
                    self.complain(
                        name,
                        &format!("cannot listen on {name} ({family:?}): {error}"),
                    );
                }
            }
        }
        let port = GroupPort {
            port,
            addresses,
            voices,
        };
        self.ports.insert(name.to_owned(), port);
    }

    fn complain(&mut self, name: &str, trouble: &str) {
        if self.troubles.get(name).map(String::as_str) != Some(trouble) {
            warn!("{trouble}");
            self.troubles.insert(name.to_owned(), trouble.to_owned());
        }
    }
}

fn open(family: Family, name: &str, ifindex: u32) -> io::Result<Voice> {
    Ok(Voice {
        adverts: AdvertSocket::open(family, name, ifindex)?,
        probe: None,
    })
}

/// How an interface is.
pub(super) fn link_state(port: Option<&Port>) -> LinkState {
    match port.map(|port| &port.link) {
        None => LinkState::Missing,
        Some(link) if !link.is_up => LinkState::Down,
        Some(link) if !link.has_carrier => LinkState::NoCarrier,
        Some(_) => LinkState::Up,
    }
}

/// What a router sends from: the configured address, or one of the interface's that is no VIP, the `present` one as
/// long as that is so: the peers may expect it. For IPv6 that is a link-local one (RFC 9568 section 5.1.2.1), unless its
/// peers are not. One with a subnet comes before one without, which may be a VIP that somebody else sees to; then the one
/// that has been there for longest, which the kernel lists first for IPv4, and last for IPv6.
///
/// # Errors
/// In words, why there is none.
pub(super) fn source(
    group: &Group,
    family: Family,
    addresses: &[PortAddress],
    vips: &BTreeSet<IpAddr>,
    present: Option<IpAddr>,
) -> Result<IpAddr, String> {
    let interface = &group.interface;
    let is_of_family = |address: &&IpAddr| Family::of(**address) == family;
    if let Some(source) = group.sources.iter().find(is_of_family) {
        let found = addresses.iter().find(|one| one.local.address == *source);
        return match found.map(|address| address.is_usable) {
            None => Err(format!(
                "{interface} does not have the source address {source}"
            )),
            Some(false) => Err(format!(
                "{interface} may not use its address {source} (yet)"
            )),
            Some(true) => Ok(*source),
        };
    }
    let is_far = |peer: &IpAddr| matches!(peer, IpAddr::V6(peer) if !peer.is_unicast_link_local());
    let wants_link_local = family == Family::Ipv6 && !group.peers.iter().any(is_far);
    let fitting = addresses.iter().filter(|one| {
        let address = one.local.address;
        let is_usable = one.is_usable && !vips.contains(&address);
        let is_of_kind = family == Family::Ipv4 || one.is_link_local == wants_link_local;
        Family::of(address) == family && is_usable && is_of_kind
    });
    let mut fitting: Vec<&PortAddress> = fitting.collect();
    if family == Family::Ipv6 {
        fitting.reverse();
    }
    let is_other = |one: &&PortAddress| Some(one.local.address) != present;
    fitting.sort_by_key(|one| (is_other(one), one.local.is_single()));
    fitting
        .first()
        .map(|one| one.local.address)
        .ok_or_else(|| match family {
            Family::Ipv4 => format!("{interface} has no IPv4 address of its own"),
            Family::Ipv6 if wants_link_local => {
                format!("{interface} has no link-local IPv6 address that may be used (yet)")
            }
            Family::Ipv6 => {
                format!("{interface} has no IPv6 address of its own that may be used (yet)")
            }
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::view::{LocalAddress, host_prefix_len};
    use crate::vrrp::protocol::tests::group;

    fn address(text: &str, is_usable: bool) -> PortAddress {
        let address: IpAddr = text.parse().unwrap();
        let is_link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        PortAddress {
            local: LocalAddress {
                ifindex: 2,
                address,
                prefix_len: host_prefix_len(address),
            },
            is_link_local,
            is_usable,
        }
    }

    #[test]
    fn a_source_is_no_vip_and_usable() {
        let mut group = group("web", 51, &["203.0.113.10", "2001:db8::10"]);
        let vips: BTreeSet<IpAddr> = group.vips.iter().copied().collect();
        let addresses = [
            address("203.0.113.10", true),
            address("10.0.0.1", true),
            address("2001:db8::1", true),
            address("fe80::1", false),
            address("fe80::2", true),
        ];
        let ip = |text: &str| Ok(text.parse().unwrap());
        let source = |group: &Group, family| source(group, family, &addresses, &vips, None);
        assert_eq!(source(&group, Family::Ipv4), ip("10.0.0.1"));
        assert_eq!(source(&group, Family::Ipv6), ip("fe80::2"));
        group.peers = vec!["2001:db8::2".parse().unwrap()];
        assert_eq!(source(&group, Family::Ipv6), ip("2001:db8::1"));
        group.sources = vec!["fe80::1".parse().unwrap(), "10.0.0.7".parse().unwrap()];
        let error = source(&group, Family::Ipv6).unwrap_err();
        assert!(error.contains("may not use its address fe80::1"), "{error}");
        let error = source(&group, Family::Ipv4).unwrap_err();
        assert!(
            error.contains("does not have the source address 10.0.0.7"),
            "{error}"
        );
    }

    #[test]
    fn a_source_stays_and_is_none_that_somebody_else_may_have_put_there() {
        let mut group = group("web", 51, &["203.0.113.10", "2001:db8::10"]);
        group.peers = vec!["2001:db8::2".parse().unwrap()];
        let of_subnet = |text: &str, prefix_len| {
            let mut address = address(text, true);
            address.local.prefix_len = prefix_len;
            address
        };
        // The first is another service's VIP; the kernel lists later ones behind earlier ones for IPv4, and before
        // them for IPv6.
        let addresses = [
            address("198.51.100.1", true),
            of_subnet("10.0.0.1", 24),
            of_subnet("10.0.0.9", 24),
            of_subnet("2001:db8::9", 64),
            of_subnet("2001:db8::1", 64),
        ];
        let [own, later] = [[1, 4], [2, 3]]
            .map(|places| places.map(|place: usize| addresses[place].local.address));
        for (family, place) in [(Family::Ipv4, 0), (Family::Ipv6, 1)] {
            let from = |present| source(&group, family, &addresses, &BTreeSet::new(), present);
            let (own, later): (IpAddr, IpAddr) = (own[place], later[place]);
            assert_eq!(from(None), Ok(own));
            assert_eq!(from(Some(own)), Ok(own));
            assert_eq!(from(Some(later)), Ok(later), "it stays");
            let gone = Some("192.0.2.1".parse().unwrap());
            assert_eq!(from(gone), Ok(own));
        }
    }
}

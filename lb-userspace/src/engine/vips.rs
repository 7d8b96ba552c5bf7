//! VIPs on interfaces: which ones to add and remove. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::own_vips::{OwnVips, Place};
use crate::netlink::view::{View, host_prefix_len, is_in_subnet};

/// One of ours that is not to stay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Removal {
    /// It is not there any more: the kernel has removed it together with its link.
    WentWithLink(IpAddr),
    /// It is not there any more, and its link is up: somebody else has removed it.
    Forget(IpAddr),
    /// It moves between nodes from now on: it stays where it is and on our list, until the VRRP process has it on its
    /// own.
    HandOver(IpAddr),
    /// It is no longer wanted here.
    Remove {
        /// The VIP.
        vip: IpAddr,
        /// Where it is.
        ifindex: u32,
    },
}

/// A VIP that is wanted and nowhere on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Addition {
    /// The VIP.
    pub(super) vip: IpAddr,
    /// Where it goes.
    pub(super) place: Place,
}

/// What is to be removed or forgotten, so that only `wanted` is left of ours, on attached
/// interfaces. Those of `moving` are the VRRP process's.
pub(super) fn removals(
    own: &OwnVips,
    wanted: &BTreeSet<IpAddr>,
    moving: &BTreeSet<IpAddr>,
    attached: &[(String, u32)],
    view: &View,
) -> Vec<Removal> {
    let mut removals = Vec::new();
    for (vip, place) in own.iter() {
        match own.holder(vip, view) {
            Some(_) if moving.contains(&vip) => removals.push(Removal::HandOver(vip)),
            None if is_up(place.ifindex, view) => removals.push(Removal::Forget(vip)),
            None => removals.push(Removal::WentWithLink(vip)),
            Some(ifindex) if wanted.contains(&vip) && is_among(ifindex, attached) => {}
            Some(ifindex) => removals.push(Removal::Remove { vip, ifindex }),
        }
    }
    removals
}

fn is_up(ifindex: u32, view: &View) -> bool {
    view.links.get(&ifindex).is_some_and(|link| link.is_up)
}

fn is_among(ifindex: u32, attached: &[(String, u32)]) -> bool {
    attached.iter().any(|(_, index)| *index == ifindex)
}

/// Those of `moving` that we have added, and where they are: the VRRP process is to take them over.
pub(super) fn given(
    own: &OwnVips,
    moving: &BTreeSet<IpAddr>,
    view: &View,
) -> BTreeMap<IpAddr, Place> {
    let ours = own.iter().filter(|(vip, _)| moving.contains(vip));
    let places = ours.filter_map(|(vip, _)| {
        let ifindex = own.holder(vip, view)?;
        let interface = view.link_name(ifindex);
        Some((vip, Place { interface, ifindex }))
    });
    places.collect()
}

/// What is to be added, so that each of `wanted` is somewhere on this node.
pub(super) fn additions(
    wanted: &BTreeSet<IpAddr>,
    attached: &[(String, u32)],
    view: &View,
) -> Vec<Addition> {
    wanted
        .iter()
        .filter(|vip| view.holders(**vip).next().is_none())
        .filter_map(|vip| {
            let (interface, ifindex) = place(*vip, attached, view)?;
            let place = Place { interface, ifindex };
            Some(Addition { vip: *vip, place })
        })
        .collect()
}

/// The attached interface with the narrowest subnet that holds the VIP, else the first one.
fn place(vip: IpAddr, attached: &[(String, u32)], view: &View) -> Option<(String, u32)> {
    let connected = attached.iter().filter_map(|(name, ifindex)| {
        let prefix_len = view
            .addresses
            .iter()
            .filter(|local| local.ifindex == *ifindex && local.address != vip)
            .filter(|local| local.prefix_len < host_prefix_len(local.address))
            .filter(|local| is_in_subnet(vip, local.address, local.prefix_len))
            .map(|local| local.prefix_len)
            .max()?;
        Some((prefix_len, (name.clone(), *ifindex)))
    });
    // Of equals the first: `max_by_key` would take the last.
    let narrowest = connected.reduce(|best, next| if next.0 > best.0 { next } else { best });
    narrowest
        .map(|(_, place)| place)
        .or_else(|| attached.first().cloned())
}

#[cfg(test)]
mod tests {
    use super::super::own_vips::tests::{ip, own, place, view};
    use super::*;

    const NONE: BTreeSet<IpAddr> = BTreeSet::new();

    fn both() -> Vec<(String, u32)> {
        vec![("eth0".to_owned(), 2), ("eth1".to_owned(), 3)]
    }

    fn wanted(vips: &[&str]) -> BTreeSet<IpAddr> {
        vips.iter().map(|vip| ip(vip)).collect()
    }

    fn added_to(vip: &str, view: &View) -> Vec<u32> {
        additions(&wanted(&[vip]), &both(), view)
            .into_iter()
            .map(|addition| addition.place.ifindex)
            .collect()
    }

    #[test]
    fn a_vip_goes_where_its_subnet_is() {
        let view = view(&[
            (2, "10.0.0.1", 24),
            (3, "203.0.113.1", 24),
            (2, "203.0.0.1", 16),
        ]);
        assert_eq!(added_to("203.0.113.10", &view), [3]);
        assert_eq!(added_to("10.0.0.10", &view), [2]);
        assert_eq!(added_to("198.51.100.1", &view), [2], "else the first");
    }

    #[test]
    fn an_address_that_is_there_is_left_alone() {
        let view = view(&[(3, "203.0.113.10", 24)]);
        assert_eq!(added_to("203.0.113.10", &view), [] as [u32; 0]);
        assert_eq!(removals(&own(&[]), &wanted(&[]), &NONE, &both(), &view), []);
        let own = own(&[("203.0.113.10", "eth0", 2)]);
        let vip = ip("203.0.113.10");
        assert_eq!(
            removals(&own, &wanted(&[]), &NONE, &both(), &view),
            [Removal::Forget(vip)],
            "the one on eth1 is not ours"
        );
    }

    #[test]
    fn ours_are_removed_when_nobody_wants_them_and_forgotten_when_gone() {
        let view = view(&[(2, "203.0.113.10", 32)]);
        let own = own(&[("203.0.113.10", "eth0", 2), ("203.0.113.11", "eth0", 2)]);
        let vip = ip("203.0.113.10");
        let expected = [
            Removal::Remove { vip, ifindex: 2 },
            Removal::Forget(ip("203.0.113.11")),
        ];
        assert_eq!(
            removals(&own, &wanted(&[]), &NONE, &both(), &view),
            expected
        );
        let stays = wanted(&["203.0.113.10"]);
        assert_eq!(removals(&own, &stays, &NONE, &both(), &view), expected[1..]);
    }

    #[test]
    fn what_moves_between_nodes_from_now_on_stays_where_it_is() {
        let view = view(&[(2, "203.0.113.10", 32)]);
        let own = own(&[("203.0.113.10", "eth0", 2)]);
        let moving = wanted(&["203.0.113.10"]);
        let vip = ip("203.0.113.10");
        assert_eq!(
            removals(&own, &wanted(&[]), &moving, &both(), &view),
            [Removal::HandOver(vip)]
        );
    }

    #[test]
    fn what_moves_from_now_on_is_given_away_with_its_place() {
        let view = view(&[(2, "203.0.113.10", 32), (2, "203.0.113.12", 32)]);
        // Ours on an interface that was renamed, gone, and somebody else's.
        let own = own(&[("203.0.113.10", "lan0", 2), ("203.0.113.11", "eth0", 2)]);
        let moving = wanted(&["203.0.113.10", "203.0.113.11", "203.0.113.12"]);
        let place = place("eth0", 2);
        let given = given(&own, &moving, &view);
        assert_eq!(given, [(ip("203.0.113.10"), place)].into());
    }

    #[test]
    fn nobody_is_blamed_for_what_went_with_its_link() {
        let own = own(&[("2001:db8::10", "eth0", 2), ("203.0.113.10", "gone", 7)]);
        let mut view = view(&[]);
        view.links.get_mut(&2).unwrap().is_up = false;
        let expected = [
            Removal::WentWithLink(ip("203.0.113.10")),
            Removal::WentWithLink(ip("2001:db8::10")),
        ];
        assert_eq!(
            removals(&own, &wanted(&[]), &NONE, &both(), &view),
            expected
        );
    }

    #[test]
    fn ours_stay_where_they_are_when_the_interface_is_renamed() {
        let mut view = view(&[(2, "203.0.113.10", 32)]);
        view.links.get_mut(&2).unwrap().name = "wan0".to_owned();
        let own = own(&[("203.0.113.10", "eth0", 2)]);
        let wanted = wanted(&["203.0.113.10"]);
        assert_eq!(removals(&own, &wanted, &NONE, &both(), &view), []);
    }

    #[test]
    fn ours_leave_an_interface_that_is_no_longer_attached() {
        let view = view(&[(2, "203.0.113.10", 32)]);
        let own = own(&[("203.0.113.10", "eth0", 2)]);
        let only_eth1 = [("eth1".to_owned(), 3)];
        let steps = removals(&own, &wanted(&["203.0.113.10"]), &NONE, &only_eth1, &view);
        let vip = ip("203.0.113.10");
        assert_eq!(steps, [Removal::Remove { vip, ifindex: 2 }]);
    }
}

//! Rules between groups, and between groups and the rest: names, VIPs, virtual router ids.

use std::collections::HashMap;
use std::net::IpAddr;

use super::group_subject;
use crate::model::Section;
use crate::model::cluster::{VRRP_GROUP_BYTES_MAX, VRRP_GROUP_EXTRA_BYTES};
use crate::model::draft::Draft;
use crate::model::problem::{Kind, Problem};
use crate::model::rules::{Findings, address, backend_subject, service_subject};

pub(super) fn check(draft: &Draft, findings: &mut Findings) {
    check_names(draft, findings);
    let owners = check_vips(draft, findings);
    check_vrids(draft, findings);
    check_services(draft, &owners, findings);
    check_backends(draft, &owners, findings);
    check_sync_link(draft, &owners, findings);
    check_heartbeat(draft, findings);
}

/// A heartbeat tells the peers of every group.
fn check_heartbeat(draft: &Draft, findings: &mut Findings) {
    if draft.cluster.is_none() {
        return;
    }
    let mut bytes = 0;
    for (index, group) in draft.vrrp.iter().enumerate() {
        let name_len = group.name.given().map_or(0, String::len);
        let families = [IpAddr::is_ipv4, IpAddr::is_ipv6].into_iter();
        let count = families
            .filter(|is_of| group.vips().iter().any(is_of))
            .count();
        bytes += count * (name_len + VRRP_GROUP_EXTRA_BYTES);
        if bytes > VRRP_GROUP_BYTES_MAX {
            let place = Section::Vrrp(index).key("name");
            let message = format!(
                "the names of the groups up to this one take {bytes} bytes of a heartbeat, and there are {VRRP_GROUP_BYTES_MAX} \
                 (each name, and {VRRP_GROUP_EXTRA_BYTES} bytes, for IPv4 and for IPv6)"
            );
            let subject = group_subject(index, group);
            let problem = Problem::new(Kind::Invalid, place, subject, message);
            findings.push(
                problem.help("give the groups shorter names, or put more VIPs into one group"),
            );
            return;
        }
    }
}

/// The first group with each VIP.
type Owners = HashMap<IpAddr, usize>;

fn check_names(draft: &Draft, findings: &mut Findings) {
    let mut first_with = HashMap::new();
    for (index, group) in draft.vrrp.iter().enumerate() {
        let Some(name) = group.name.given() else {
            continue;
        };
        let first = *first_with.entry(name).or_insert(index);
        if first != index {
            let place = Section::Vrrp(index).key("name");
            let subject = group_subject(index, group);
            let message = "there is one of this name already";
            let problem = Problem::new(Kind::Conflict, place, subject, message);
            findings.push(problem.against(Section::Vrrp(first).key("name")));
        }
    }
}

fn check_vips(draft: &Draft, findings: &mut Findings) -> Owners {
    let mut owners = Owners::new();
    for (index, group) in draft.vrrp.iter().enumerate() {
        for vip in group.vips() {
            let first = *owners.entry(*vip).or_insert(index);
            if first != index {
                let owner = group_subject(first, &draft.vrrp[first]);
                let message = format!("VIP {vip} belongs to {owner} already");
                let place = Section::Vrrp(index).key("vips");
                let subject = group_subject(index, group);
                findings.push(
                    Problem::new(Kind::Conflict, place, subject, message)
                        .against(Section::Vrrp(first).key("vips"))
                        .help("a VIP is in one group: it can be Active in one place only"),
                );
            }
        }
    }
    owners
}

/// A virtual router is known by its id, on an interface and in a family (RFC 9568 section 1.7).
fn check_vrids(draft: &Draft, findings: &mut Findings) {
    let mut first_with = HashMap::new();
    for (index, group) in draft.vrrp.iter().enumerate() {
        let (Some(interface), Some(vrid)) = (group.interface.given(), group.vrid.given()) else {
            continue;
        };
        let mut families: Vec<_> = group
            .vips()
            .iter()
            .map(|vip| address::family(*vip))
            .collect();
        families.sort_unstable();
        families.dedup();
        let mut taken = families.into_iter().filter_map(|family| {
            let first = *first_with.entry((interface, vrid, family)).or_insert(index);
            (first != index).then_some((first, family))
        });
        // One family's word is enough.
        if let Some((first, family)) = taken.next() {
            let owner = group_subject(first, &draft.vrrp[first]);
            let message =
                format!("vrid {vrid} on {interface} belongs to {owner} already, for {family}");
            let place = Section::Vrrp(index).key("vrid");
            let subject = group_subject(index, group);
            findings.push(
                Problem::new(Kind::Conflict, place, subject, message)
                    .against(Section::Vrrp(first).key("vrid"))
                    .help("give each group an id of its own, the same on all nodes"),
            );
        }
    }
}

/// VIPs without a service, and services whose VIP every node would have at once.
fn check_services(draft: &Draft, owners: &Owners, findings: &mut Findings) {
    let served = |vip: &IpAddr| {
        draft
            .services
            .iter()
            .any(|one| one.vip.given() == Some(vip))
    };
    for (index, group) in draft.vrrp.iter().enumerate() {
        for vip in group.vips().iter().filter(|vip| !served(vip)) {
            // IPv6 groups have a link-local VIP for hosts that use the router as their gateway.
            if address::unfit(*vip).is_some() {
                continue;
            }
            let message =
                format!("VIP {vip} is no service's: it moves, and nothing is balanced there");
            let place = Section::Vrrp(index).key("vips");
            let subject = group_subject(index, group);
            findings.push(Problem::new(Kind::Warning, place, subject, message));
        }
    }
    let is_managed = draft.manage_vips.given() != Some(&false);
    let is_one_of_several = draft.cluster.is_some() || !draft.vrrp.is_empty();
    if !is_managed || !is_one_of_several {
        return;
    }
    for (index, service) in draft.services.iter().enumerate() {
        let Some(vip) = service.vip.given().filter(|vip| !owners.contains_key(vip)) else {
            continue;
        };
        let message =
            format!("VIP {vip} is in no [[vrrp]] group: every node that has this service has it");
        let place = Section::Service(index).key("vip");
        let subject = service_subject(index, service);
        findings.push(Problem::new(Kind::Warning, place, subject, message).help(
            "add it to the vips of a group, unless a router spreads packets over the nodes (ECMP)",
        ));
    }
}

/// A backend at a VIP of a group would be this node, or its peer.
fn check_backends(draft: &Draft, owners: &Owners, findings: &mut Findings) {
    for (index, service) in draft.services.iter().enumerate() {
        for (position, backend) in service.backends.iter().enumerate() {
            let owner = backend.address.given().and_then(|one| owners.get(one));
            let Some(owner) = owner else { continue };
            let group = group_subject(*owner, &draft.vrrp[*owner]);
            let message = format!("its address is a VIP of {group}");
            let place = Section::Backend(index, position).key("address");
            let subject = backend_subject((index, service), (position, backend));
            findings.push(
                Problem::new(Kind::Conflict, place, subject, message)
                    .against(Section::Vrrp(*owner).key("vips"))
                    .help("use the backend's own address"),
            );
        }
    }
}

/// The nodes talk to each other at addresses that do not move.
fn check_sync_link(draft: &Draft, owners: &Owners, findings: &mut Findings) {
    let Some(cluster) = &draft.cluster else {
        return;
    };
    let listen = cluster.listen.given();
    let own = listen.map(|address| (Section::Cluster.key("listen"), *address));
    let peers = cluster
        .peers
        .iter()
        .enumerate()
        .filter_map(|(index, peer)| {
            let address = peer.address.given()?;
            Some((Section::Peer(index).key("address"), *address))
        });
    for (place, address) in own.into_iter().chain(peers) {
        if let Some(owner) = owners.get(&address.ip()) {
            let group = group_subject(*owner, &draft.vrrp[*owner]);
            let message = format!("{} is a VIP of {group}", address.ip());
            findings.push(
                Problem::new(Kind::Conflict, place, "cluster", message)
                    .against(Section::Vrrp(*owner).key("vips"))
                    .help("the sync link needs addresses that stay where they are"),
            );
        }
    }
}

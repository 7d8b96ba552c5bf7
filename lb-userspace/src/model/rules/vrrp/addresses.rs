//! A group's addresses: VIPs, unicast peers and sources.

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::Subject;
use crate::model::cluster::{VRRP_PEERS_MAX, VRRP_VIPS_MAX};
use crate::model::problem::Kind;
use crate::model::rules::{Findings, address};

pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings) {
    let group = subject.group;
    check_each(subject, "vips", "VIP", group.vips(), findings);
    check_each(subject, "peers", "peer", group.peers(), findings);
    check_each(subject, "source", "source", group.sources(), findings);
    if group.vips.given().is_some_and(Vec::is_empty) {
        let message = "vips is empty: a group is there for its VIPs".to_owned();
        subject.push(findings, Kind::Invalid, "vips", message);
    }
    check_counts(subject, findings);
    check_families(subject, findings);
    check_strangers(subject, findings);
}

/// Each address by itself, and that none is written twice.
fn check_each(
    subject: &Subject<'_>,
    key: &'static str,
    noun: &str,
    addresses: &[IpAddr],
    findings: &mut Findings,
) {
    let mut seen = BTreeSet::new();
    for address in addresses {
        if let Some(reason) = address::unfit_on_link(*address) {
            let message = format!("{noun} {address} {reason}");
            subject.push(findings, Kind::Invalid, key, message);
        }
        if !seen.insert(address) {
            let message = format!("{noun} {address} is written twice");
            subject.push(findings, Kind::Conflict, key, message);
        }
    }
}

fn check_counts(subject: &Subject<'_>, findings: &mut Findings) {
    let vips = subject.group.vips();
    for family in families(vips) {
        let count = of_family(vips, family).count();
        if count > VRRP_VIPS_MAX {
            let message = format!(
                "{count} VIPs of {family}, and an advertisement holds {VRRP_VIPS_MAX} of ours"
            );
            let problem = subject.problem(Kind::Invalid, "vips", message);
            findings.push(problem.help("make another group of some, with another vrid"));
        }
    }
    let count = subject.group.peers().len();
    if count > VRRP_PEERS_MAX {
        let message = format!("{count} unicast peers, and a group has at most {VRRP_PEERS_MAX}");
        subject.push(findings, Kind::Invalid, "peers", message);
    }
    let sources = subject.group.sources();
    for family in families(sources) {
        if of_family(sources, family).count() > 1 {
            let message = format!("more than one source of {family}");
            subject.push(findings, Kind::Conflict, "source", message);
        }
    }
}

/// A virtual router of a family speaks over that family.
fn check_families(subject: &Subject<'_>, findings: &mut Findings) {
    let group = subject.group;
    if group.vips().is_empty() {
        return;
    }
    let spoken = families(group.vips());
    for (key, addresses) in [("peers", group.peers()), ("source", group.sources())] {
        for family in families(addresses).difference(&spoken) {
            let message = format!("{key}: there is an address of {family}, and no VIP of it");
            let problem = subject.problem(Kind::Conflict, key, message);
            findings.push(problem.against(subject.section.key("vips")));
        }
    }
    let heard = families(group.peers());
    if heard.is_empty() {
        return;
    }
    for family in spoken.difference(&heard) {
        let message = format!("there are VIPs of {family}, and no unicast peer of it to tell");
        let problem = subject.problem(Kind::Conflict, "peers", message);
        findings.push(
            problem
                .against(subject.section.key("vips"))
                .help("name the peer's address of that family, or leave peers out: multicast"),
        );
    }
}

/// Peers and sources are addresses that do not move.
fn check_strangers(subject: &Subject<'_>, findings: &mut Findings) {
    let group = subject.group;
    for (key, noun, addresses) in [
        ("peers", "peer", group.peers()),
        ("source", "source", group.sources()),
    ] {
        for address in addresses.iter().filter(|one| group.vips().contains(one)) {
            let message = format!("{noun} {address} is a VIP of the group");
            let problem = subject.problem(Kind::Conflict, key, message);
            findings.push(problem.against(subject.section.key("vips")));
        }
    }
    let is_both = |one: &&IpAddr| group.sources().contains(one);
    for address in group.peers().iter().filter(is_both) {
        let message = format!("peer {address} is this node's own source");
        let problem = subject.problem(Kind::Conflict, "peers", message);
        findings.push(problem.against(subject.section.key("source")));
    }
}

fn families(addresses: &[IpAddr]) -> BTreeSet<&'static str> {
    let families = addresses.iter().map(|one| address::family(*one));
    families.collect()
}

fn of_family<'a>(
    addresses: &'a [IpAddr],
    family: &'static str,
) -> impl Iterator<Item = &'a IpAddr> {
    let mut addresses = addresses.iter();
    std::iter::from_fn(move || addresses.find(|one| address::family(**one) == family))
}

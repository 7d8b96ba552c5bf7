//! How well a group is: from what is known of links, of the datapath and of services. Pure.

use std::collections::BTreeMap;

use crate::vrrp::priority::{Condition, Unwell};
use crate::vrrp::protocol::{Facts, Group, Tracked};

/// An interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LinkState {
    /// There is none of this name.
    Missing,
    /// It is down.
    Down,
    /// It is up, and nothing is at its other end.
    NoCarrier,
    /// It is up, and so is its other end.
    Up,
}

/// What is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known<'a> {
    /// Interfaces by name.
    pub(super) links: &'a BTreeMap<String, LinkState>,
    /// What `lbd` has said last, if it ever has.
    pub(super) facts: Option<&'a Facts>,
    /// Interfaces that cannot serve and why, as long as `lbd` says so.
    pub(super) unwell: Option<&'a BTreeMap<String, String>>,
    /// Why the datapath cannot serve, if so.
    pub(super) datapath_trouble: Option<&'a str>,
    /// Why the router cannot even be heard, if so: it has no address to send from, or no socket.
    pub(super) voice_trouble: Option<&'a str>,
}

/// How well a group is. Its interface and the datapath are tracked always.
pub(super) fn of_group(group: &Group, known: Known<'_>) -> Condition {
    let fault = |what: String| Unwell { what, weight: None };
    let mut unwell: Vec<Unwell> = Vec::new();
    match trouble_of_link(&group.interface, known.links) {
        Some(trouble) => unwell.push(fault(trouble)),
        // Without a link there is no voice either, which then needs no saying.
        None => unwell.extend(known.voice_trouble.map(|trouble| fault(trouble.to_owned()))),
    }
    let datapath_trouble = known.datapath_trouble.map(str::to_owned);
    let datapath_trouble = datapath_trouble.or_else(|| {
        let reason = known.unwell?.get(&group.interface)?;
        Some(format!("{} cannot serve: {reason}", group.interface))
    });
    unwell.extend(datapath_trouble.map(fault));
    for track in &group.tracks {
        let trouble = match &track.what {
            Tracked::Interface(name) => trouble_of_link(name, known.links),
            Tracked::Service {
                name,
                live_backends_min,
            } => trouble_of_service(name, *live_backends_min, known.facts),
        };
        unwell.extend(trouble.map(|what| Unwell {
            what,
            weight: track.weight,
        }));
    }
    Condition::of(group.priority, unwell)
}

fn trouble_of_link(name: &str, links: &BTreeMap<String, LinkState>) -> Option<String> {
    match links.get(name).copied().unwrap_or(LinkState::Missing) {
        LinkState::Missing => Some(format!("there is no interface {name}")),
        LinkState::Down => Some(format!("{name} is down")),
        LinkState::NoCarrier => Some(format!("{name} has no carrier")),
        LinkState::Up => None,
    }
}

/// Before `lbd` has said anything, a service is not unwell: it may be well.
fn trouble_of_service(name: &str, min: u32, facts: Option<&Facts>) -> Option<String> {
    let live = facts?.live_backends.get(name).copied().unwrap_or(0);
    (live < min).then(|| format!("service {name} has {live} live backends, fewer than {min}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::protocol::{self, Track};

    fn group(tracks: Vec<Track>) -> Group {
        Group {
            priority: 200,
            tracks,
            ..protocol::tests::group("web", 51, &["203.0.113.10"])
        }
    }

    fn links(states: &[(&str, LinkState)]) -> BTreeMap<String, LinkState> {
        let named = states
            .iter()
            .map(|(name, state)| ((*name).to_owned(), *state));
        named.collect()
    }

    fn known(links: &BTreeMap<String, LinkState>) -> Known<'_> {
        Known {
            links,
            facts: None,
            unwell: None,
            datapath_trouble: None,
            voice_trouble: None,
        }
    }

    #[test]
    fn the_own_interface_and_the_datapath_are_faults() {
        for (state, text) in [
            (LinkState::Missing, "there is no interface eth0"),
            (LinkState::Down, "eth0 is down"),
            (LinkState::NoCarrier, "eth0 has no carrier"),
        ] {
            let links = links(&[("eth0", state)]);
            let mut known = known(&links);
            known.voice_trouble = Some("eth0 has no IPv4 address");
            assert_eq!(of_group(&group(Vec::new()), known).faults, [text]);
        }
        let links = links(&[("eth0", LinkState::Up)]);
        assert_eq!(
            of_group(&group(Vec::new()), known(&links)),
            Condition::well(200)
        );
        let mut known = known(&links);
        known.voice_trouble = Some("no voice");
        known.datapath_trouble = Some("no datapath");
        let faults = of_group(&group(Vec::new()), known).faults;
        assert_eq!(faults, ["no voice", "no datapath"]);
    }

    #[test]
    fn an_interface_that_cannot_serve_is_a_fault_of_its_own_groups_alone() {
        let links = links(&[("eth0", LinkState::Up)]);
        let mut facts = Facts::default();
        facts
            .unwell
            .insert("eth1".to_owned(), "it is down".to_owned());
        let of = |facts: &Facts| {
            let mut known = known(&links);
            known.unwell = Some(&facts.unwell);
            of_group(&group(Vec::new()), known).faults
        };
        assert!(of(&facts).is_empty());
        let reason = "another XDP program is attached";
        facts.unwell.insert("eth0".to_owned(), reason.to_owned());
        assert_eq!(of(&facts), [format!("eth0 cannot serve: {reason}")]);
    }

    #[test]
    fn what_is_tracked_lowers_the_priority_by_its_weight() {
        let interface = Track {
            what: Tracked::Interface("eth1".to_owned()),
            weight: Some(50),
        };
        let service = Track {
            what: Tracked::Service {
                name: "web".to_owned(),
                live_backends_min: 2,
            },
            weight: Some(30),
        };
        let group = group(vec![interface, service]);
        let links = links(&[("eth0", LinkState::Up), ("eth1", LinkState::NoCarrier)]);
        // Nothing is known of services yet.
        assert_eq!(of_group(&group, known(&links)).priority, 150);
        let mut facts = Facts::default();
        facts.live_backends.insert("web".to_owned(), 1);
        let mut known = known(&links);
        known.facts = Some(&facts);
        let condition = of_group(&group, known);
        assert_eq!(condition.priority, 120);
        assert!(condition.troubles[1].contains("service web has 1 live backends, fewer than 2"));
        facts.live_backends.insert("web".to_owned(), 2);
        let mut known = self::known(&links);
        known.facts = Some(&facts);
        assert_eq!(of_group(&group, known).priority, 150);
    }
}

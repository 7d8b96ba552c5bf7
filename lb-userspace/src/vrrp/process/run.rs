//! One virtual router with its surroundings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::control::ClientId;
use super::missing::Missing;
use crate::vrrp::auth::Key;
use crate::vrrp::machine::Router;
use crate::vrrp::priority::Condition;
use crate::vrrp::protocol::{Configuration, Family, Group};
use crate::vrrp::router::RouterConfig;

/// Refused packets are logged so often at most. Unit: microseconds.
const REFUSALS_EVERY_US: u64 = 10_000_000;

/// A virtual router that runs.
pub(super) struct Run {
    /// What it belongs to.
    pub(super) group: Group,
    /// Its family.
    pub(super) family: Family,
    /// What decides.
    pub(super) machine: Router,
    /// What the machine was told last.
    pub(super) condition: Option<Condition>,
    /// Its device, where the VIPs have the virtual router's Ethernet address.
    pub(super) device: Option<Device>,
    /// It is to end: it is no longer in the configuration, or the process stops.
    pub(super) is_leaving: bool,
    /// It has ended.
    pub(super) is_stopped: bool,
    /// A former process has left its VIPs on the interface: they stay until another node is heard to have them.
    pub(super) has_leftovers: bool,
    /// VIPs that should be on an interface, and are not.
    pub(super) missing: Missing,
    /// Who has asked for the hand-over that is under way.
    pub(super) asked_by: Option<(ClientId, u64)>,
    /// What went wrong last when something was sent, so that it is logged once.
    pub(super) send_trouble: Option<String>,
    /// Packets refused since the last line about them.
    pub(super) refusals: Refusals,
}

/// The device that carries a virtual router's Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    /// Its name.
    pub(super) name: String,
    /// Its index.
    pub(super) ifindex: u32,
}

impl Run {
    /// Of a machine that takes no part yet.
    pub(super) fn new(group: Group, family: Family, machine: Router) -> Self {
        Self {
            group,
            family,
            machine,
            condition: None,
            device: None,
            is_leaving: false,
            is_stopped: false,
            has_leftovers: false,
            missing: Missing::default(),
            asked_by: None,
            send_trouble: None,
            refusals: Refusals::default(),
        }
    }

    /// Whether it is this virtual router, on this interface.
    pub(super) fn is_for(&self, group: &Group, family: Family) -> bool {
        !self.is_leaving
            && self.family == family
            && self.group.name == group.name
            && self.group.interface == group.interface
            && self.group.vrid == group.vrid
            && self.group.virtual_mac == group.virtual_mac
    }

    /// For the log: `web/ipv4`.
    pub(super) fn name(&self) -> String {
        let family = match self.family {
            Family::Ipv4 => "ipv4",
            Family::Ipv6 => "ipv6",
        };
        format!("{}/{family}", self.group.name)
    }
}

/// The families that a group has VIPs of: a virtual router for each.
pub(super) fn families(group: &Group) -> impl Iterator<Item = Family> {
    let has = |family: &Family| group.vips.iter().any(|vip| Family::of(*vip) == *family);
    [Family::Ipv4, Family::Ipv6].into_iter().filter(has)
}

/// What the machine is to know. Without a source it is in fault, and sends nothing.
pub(super) fn router_config(
    configuration: &Configuration,
    group: &Group,
    family: Family,
    source: Option<IpAddr>,
) -> RouterConfig {
    let nowhere = match family {
        Family::Ipv4 => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        Family::Ipv6 => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let key = configuration.key.as_deref().filter(|_| group.authenticate);
    RouterConfig {
        node: configuration.node.clone(),
        group: group.name.clone(),
        family,
        vrid: group.vrid,
        vips: group.vips.clone(),
        priority: group.priority,
        interval_cs: group.interval_cs,
        preempt: group.preempt,
        preempt_delay_ms: group.preempt_delay_ms,
        peers: group.peers.clone(),
        source: source.unwrap_or(nowhere),
        key: key.and_then(Key::from_hex),
    }
}

/// Counts refused packets, so that a flood of them is a line now and then.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    count: u64,
    quiet_until_us: u64,
}

impl Refusals {
    /// One more; how many there were since the last line, if it is time for one.
    pub(super) fn note(&mut self, now_us: u64) -> Option<u64> {
        self.count += 1;
        if now_us < self.quiet_until_us {
            return None;
        }
        self.quiet_until_us = now_us + REFUSALS_EVERY_US;
        Some(std::mem::take(&mut self.count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::protocol::tests::group;

    #[test]
    fn a_router_for_each_family() {
        let families = |vips: &[&str]| families(&group("web", 1, vips)).collect::<Vec<_>>();
        assert_eq!(families(&["10.0.0.1", "10.0.0.2"]), [Family::Ipv4]);
        assert_eq!(
            families(&["2001:db8::1", "10.0.0.2"]),
            [Family::Ipv4, Family::Ipv6]
        );
    }

    #[test]
    fn a_flood_of_refusals_is_a_line_now_and_then() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.note(1), Some(1));
        for now_us in 2..1000 {
            assert_eq!(refusals.note(now_us), None);
        }
        assert_eq!(refusals.note(REFUSALS_EVERY_US + 1), Some(999));
    }

    #[test]
    fn only_a_group_that_authenticates_gets_the_key() {
        let mut group = group("web", 1, &["10.0.0.1"]);
        let configuration = Configuration {
            key: Some("ab".repeat(32)),
            ..Configuration::default()
        };
        let config = |group: &Group| router_config(&configuration, group, Family::Ipv4, None);
        assert!(config(&group).key.is_none());
        group.authenticate = true;
        assert!(config(&group).key.is_some());
        assert!(config(&group).source.is_unspecified());
    }
}

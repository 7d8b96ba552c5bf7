//! Telling the machines who else claims their VIPs.

use std::collections::BTreeSet;

use tracing::warn;

use super::claims::Wanted;
use super::driver::Driver;
use super::virtual_mac;
use crate::netlink::view::LinkAddress;
use crate::vrrp::protocol::{Family, State};
use crate::vrrp::router::Input;

impl Driver {
    /// Tells the machines what was heard on the link.
    pub(super) fn take_claims(&mut self, now_us: u64) {
        let heard = self.ears.take(self.packets.as_ref(), now_us);
        if heard.is_empty() {
            return;
        }
        let own = self.own_link_addresses();
        for (ifindex, claim) in heard {
            if own.contains(&claim.by) {
                continue;
            }
            let index = self.runs.iter().position(|run| {
                let port = self.ports.get(&run.group.interface);
                port.is_some_and(|port| port.port.ifindex == ifindex)
                    && run.family == Family::of(claim.vip)
                    && run.group.vips.contains(&claim.vip)
            });
            if let Some(index) = index {
                self.feed(index, now_us, Input::Disputed(claim));
            }
        }
    }

    /// What this node speaks from: a frame of its own may come back.
    fn own_link_addresses(&self) -> BTreeSet<LinkAddress> {
        let groups = self.runs.iter().map(|run| &run.group);
        let ports = groups.filter_map(|group| self.ports.get(&group.interface)?.port.link.address);
        let with_virtual = self.runs.iter().filter(|run| run.group.virtual_mac);
        let of_routers = with_virtual.map(|run| virtual_mac::address(run.family, run.group.vrid));
        ports.chain(of_routers).collect()
    }

    /// Listens for claims to the VIPs that are Active here, and to no others.
    pub(super) fn tune_ears(&mut self) {
        self.are_ears_stale = false;
        let active = self
            .runs
            .iter()
            .filter(|run| run.machine.state() == State::Active);
        let wanted: Wanted = active
            .filter_map(|run| Some((run, self.ports.get(&run.group.interface)?.port.ifindex)))
            .flat_map(|(run, ifindex)| {
                let vips = run.machine.config().listed_vips();
                vips.into_iter().map(move |vip| (ifindex, vip))
            })
            .collect();
        if let Err(error) = self.ears.tune(self.packets.as_ref(), wanted) {
            warn!("claims of others to VIPs may not be noticed: {error}");
        }
    }
}

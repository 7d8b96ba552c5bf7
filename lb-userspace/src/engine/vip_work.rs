//! Moving VIPs: the steps of [`super::vips`], carried out. What fails holds up nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Context;
use tracing::{info, warn};

use super::announcer::Announcer;
use super::core::Engine;
use super::own_vips::{OwnVips, Place};
use super::surroundings::Surroundings;
use super::vips::{Addition, Removal, additions, given, removals};
use crate::netlink::Netlink;
use crate::netlink::view::View;

/// The addresses of the node's interfaces.
trait Addresses {
    /// Adds a VIP.
    fn add(&mut self, ifindex: u32, vip: IpAddr)
    -> impl Future<Output = anyhow::Result<()>> + Send;

    /// Removes one.
    fn remove(
        &mut self,
        ifindex: u32,
        vip: IpAddr,
    ) -> impl Future<Output = anyhow::Result<()>> + Send;
}

/// Those of this node. The view is kept true at once: the kernel's notification comes later.
struct Kernel<'a> {
    netlink: &'a Netlink,
    view: &'a mut View,
}

impl Addresses for Kernel<'_> {
    async fn add(&mut self, ifindex: u32, vip: IpAddr) -> anyhow::Result<()> {
        self.netlink.add_vip(ifindex, vip).await?;
        self.view.add_host_address(ifindex, vip);
        Ok(())
    }

    async fn remove(&mut self, ifindex: u32, vip: IpAddr) -> anyhow::Result<()> {
        self.netlink.remove_vip(ifindex, vip).await?;
        self.view.remove_address(ifindex, vip);
        Ok(())
    }
}

impl Engine {
    /// Removes what is no longer wanted.
    pub(super) async fn remove_vips(&mut self) -> anyhow::Result<()> {
        let (wanted, attached) = (self.wanted_vips(), self.staying_interfaces());
        let view = self.surroundings.view();
        let steps = removals(
            &self.own_vips,
            &wanted,
            &self.moving_vips(),
            &attached,
            view,
        );
        let Surroundings {
            netlink, network, ..
        } = &mut self.surroundings;
        let (own, announcer) = (&mut self.own_vips, &mut self.announcer);
        let mut addresses = Kernel {
            netlink,
            view: &mut network.view,
        };
        remove_each(steps, own, announcer, &mut addresses).await
    }

    /// Adds what is missing.
    pub(super) async fn add_vips(&mut self) -> anyhow::Result<()> {
        let (wanted, attached) = (self.wanted_vips(), self.staying_interfaces());
        let steps = additions(&wanted, &attached, self.surroundings.view());
        let Surroundings {
            netlink, network, ..
        } = &mut self.surroundings;
        let (own, announcer) = (&mut self.own_vips, &mut self.announcer);
        let mut addresses = Kernel {
            netlink,
            view: &mut network.view,
        };
        let added = add_each(steps, own, announcer, &mut addresses).await;
        let ifindexes: BTreeSet<u32> = attached.iter().map(|(_, ifindex)| *ifindex).collect();
        let view = self.surroundings.view();
        self.announcer
            .follow_links(&ifindexes, view, &self.own_vips);
        self.announcer.speak(view);
        added
    }

    fn wanted_vips(&self) -> BTreeSet<IpAddr> {
        let services = self.model.services.values();
        services
            .filter(|_| self.model.manage_vips)
            .map(|service| service.vip)
            .filter(|vip| !self.is_moving(*vip))
            .collect()
    }

    /// VIPs that were this engine's and move between nodes now, and where they are: the VRRP process is to know that
    /// they are its own to remove.
    pub(super) fn given_vips(&self) -> BTreeMap<IpAddr, Place> {
        given(
            &self.own_vips,
            &self.moving_vips(),
            self.surroundings.view(),
        )
    }

    /// The VRRP process has them on its list.
    pub(super) fn forget_given_vips(&mut self, taken: &BTreeSet<IpAddr>) {
        let given = self.given_vips();
        for vip in given.keys().filter(|vip| taken.contains(vip)) {
            info!(%vip, "the VIP moves between nodes from now on");
            self.own_vips.forget(*vip);
        }
        if let Err(error) = save(&mut self.own_vips) {
            // The next pass tries again.
            warn!("{error:#}");
        }
    }

    /// The VIPs that move between nodes: they are the VRRP process's.
    fn moving_vips(&self) -> BTreeSet<IpAddr> {
        let groups = self.model.vrrp.values();
        groups.flat_map(|group| &group.vips).copied().collect()
    }

    fn is_moving(&self, vip: IpAddr) -> bool {
        let mut groups = self.model.vrrp.values();
        groups.any(|group| group.vips.contains(&vip))
    }

    /// Attached interfaces that the model still has, by name and index.
    fn staying_interfaces(&self) -> Vec<(String, u32)> {
        self.interfaces.in_order(&self.model.interfaces)
    }
}

/// Takes every step, and then saves the list; returns the first failure.
async fn remove_each(
    steps: Vec<Removal>,
    own: &mut OwnVips,
    announcer: &mut Announcer,
    addresses: &mut impl Addresses,
) -> anyhow::Result<()> {
    let mut outcome = Ok(());
    for step in steps {
        let vip = match step {
            Removal::WentWithLink(vip) => {
                warn!(%vip, "the kernel has removed the VIP together with its link");
                vip
            }
            Removal::Forget(vip) => {
                warn!(%vip, "the VIP was removed by somebody else");
                vip
            }
            Removal::HandOver(vip) => {
                announcer.stop(vip);
                continue;
            }
            Removal::Remove { vip, ifindex } => {
                let removed = addresses.remove(ifindex, vip).await;
                let is_removed = removed.is_ok();
                outcome = outcome.and(removed);
                if !is_removed {
                    continue;
                }
                info!(%vip, "VIP removed");
                vip
            }
        };
        announcer.stop(vip);
        own.forget(vip);
    }
    outcome.and(save(own))
}

/// Saves the list of what is to be ours, and then takes every step; returns the first failure.
async fn add_each(
    steps: Vec<Addition>,
    own: &mut OwnVips,
    announcer: &mut Announcer,
    addresses: &mut impl Addresses,
) -> anyhow::Result<()> {
    for Addition { vip, place } in &steps {
        own.note(*vip, place.clone());
    }
    if let Err(error) = save(own) {
        // Without a trace on disk, a kill would leave them for ever.
        steps.iter().for_each(|step| own.forget(step.vip));
        return Err(error);
    }
    let mut outcome = Ok(());
    for Addition { vip, place } in steps {
        match addresses.add(place.ifindex, vip).await {
            Ok(()) => {
                info!(%vip, interface = place.interface, "VIP added");
                announcer.start(vip, place.ifindex);
            }
            Err(error) => {
                own.forget(vip);
                outcome = outcome.and(Err(error));
            }
        }
    }
    outcome
}

fn save(own: &mut OwnVips) -> anyhow::Result<()> {
    own.save().context("cannot save the list of VIPs")
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::super::own_vips::tests::{ip, own, place};
    use super::*;

    /// A node that refuses all that has to do with 203.0.113.10.
    #[derive(Default)]
    struct OneIsBusy {
        tried: Vec<IpAddr>,
    }

    impl Addresses for OneIsBusy {
        async fn add(&mut self, ifindex: u32, vip: IpAddr) -> anyhow::Result<()> {
            self.remove(ifindex, vip).await
        }

        async fn remove(&mut self, _ifindex: u32, vip: IpAddr) -> anyhow::Result<()> {
            self.tried.push(vip);
            if vip == ip("203.0.113.10") {
                bail!("busy");
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_vip_that_cannot_be_removed_does_not_keep_the_others() {
        let mut own = own(&[("203.0.113.10", "eth0", 2), ("203.0.113.11", "eth0", 2)]);
        let steps = ["203.0.113.10", "203.0.113.11"].map(|vip| Removal::Remove {
            vip: ip(vip),
            ifindex: 2,
        });
        let mut node = OneIsBusy::default();
        let outcome = remove_each(steps.into(), &mut own, &mut Announcer::open(), &mut node).await;
        assert_eq!(node.tried, [ip("203.0.113.10"), ip("203.0.113.11")]);
        assert_eq!(
            outcome.unwrap_err().to_string(),
            "busy",
            "the first failure: that the list cannot be saved came later"
        );
        let left: Vec<IpAddr> = own.iter().map(|(vip, _)| vip).collect();
        assert_eq!(left, [ip("203.0.113.10")]);
    }

    #[tokio::test]
    async fn nothing_is_added_that_a_kill_would_leave_behind() {
        let mut own = own(&[]);
        let steps = vec![Addition {
            vip: ip("203.0.113.10"),
            place: place("eth0", 2),
        }];
        let mut node = OneIsBusy::default();
        let outcome = add_each(steps, &mut own, &mut Announcer::open(), &mut node).await;
        assert!(node.tried.is_empty());
        let error = outcome.unwrap_err().to_string();
        assert_eq!(error, "cannot save the list of VIPs");
        assert!(own.is_empty());
    }
}

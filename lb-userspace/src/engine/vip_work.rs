//! Moving VIPs: the steps of [`super::vips`], carried out. What fails holds up nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Context;
use tracing::{info, warn};

use super::announcer::Announcer;
use super::core::Engine;
use super::handle::EngineError;
use super::own_vips::{OwnVips, Place};
use super::surroundings::Surroundings;
use super::vips::{Addition, Removal, additions, given, removals};
use crate::netlink::Netlink;
use crate::netlink::view::View;

/// VIPs that could not be added or removed, and why.
#[derive(Debug, Default)]
pub(super) struct Strays {
    /// The first comes first.
    failures: Vec<(BTreeSet<IpAddr>, anyhow::Error)>,
}

impl Strays {
    fn note(&mut self, vips: impl IntoIterator<Item = IpAddr>, error: anyhow::Error) {
        self.failures.push((vips.into_iter().collect(), error));
    }

    /// These, and those of a later step.
    pub(super) fn and(mut self, later: Self) -> Self {
        self.failures.extend(later.failures);
        self
    }

    /// All of them.
    pub(super) fn vips(&self) -> BTreeSet<IpAddr> {
        let vips = self.failures.iter().flat_map(|(vips, _)| vips);
        vips.copied().collect()
    }

    /// The first failure.
    pub(super) fn outcome(self) -> Result<(), EngineError> {
        let first = self.failures.into_iter().next();
        first.map_or(Ok(()), |(_, error)| Err(EngineError::Failed(error)))
    }

    /// The first failure that has to do with others than these.
    pub(super) fn outcome_besides(mut self, known: &BTreeSet<IpAddr>) -> Result<(), EngineError> {
        self.failures.retain(|(vips, _)| !vips.is_subset(known));
        self.outcome()
    }
}

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
    pub(super) async fn remove_vips(&mut self) -> Strays {
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
    pub(super) async fn add_vips(&mut self) -> Strays {
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

/// Takes every step, and then saves the list; returns what has failed.
async fn remove_each(
    steps: Vec<Removal>,
    own: &mut OwnVips,
    announcer: &mut Announcer,
    addresses: &mut impl Addresses,
) -> Strays {
    let mut strays = Strays::default();
    let mut gone = Vec::new();
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
                if let Err(error) = addresses.remove(ifindex, vip).await {
                    strays.note([vip], error);
                    continue;
                }
                info!(%vip, "VIP removed");
                vip
            }
        };
        announcer.stop(vip);
        own.forget(vip);
        gone.push(vip);
    }
    if let Err(error) = save(own) {
        strays.note(gone, error);
    }
    strays
}

/// Saves the list of what is to be ours, and then takes every step; returns what has failed.
async fn add_each(
    steps: Vec<Addition>,
    own: &mut OwnVips,
    announcer: &mut Announcer,
    addresses: &mut impl Addresses,
) -> Strays {
    let mut strays = Strays::default();
    for Addition { vip, place } in &steps {
        own.note(*vip, place.clone());
    }
    if let Err(error) = save(own) {
        // Without a trace on disk, a kill would leave them for ever.
        steps.iter().for_each(|step| own.forget(step.vip));
        strays.note(steps.iter().map(|step| step.vip), error);
        return strays;
    }
    for Addition { vip, place } in steps {
        match addresses.add(place.ifindex, vip).await {
            Ok(()) => {
                info!(%vip, interface = place.interface, "VIP added");
                announcer.start(vip, place.ifindex);
            }
            Err(error) => {
                own.forget(vip);
                strays.note([vip], error);
            }
        }
    }
    strays
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
        let strays = remove_each(steps.into(), &mut own, &mut Announcer::open(), &mut node).await;
        assert_eq!(node.tried, [ip("203.0.113.10"), ip("203.0.113.11")]);
        assert_eq!(
            strays.outcome().unwrap_err().to_string(),
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
        let strays = add_each(steps, &mut own, &mut Announcer::open(), &mut node).await;
        assert!(node.tried.is_empty());
        assert_eq!(strays.vips(), BTreeSet::from([ip("203.0.113.10")]));
        let error = strays.outcome().unwrap_err().to_string();
        assert!(error.starts_with("cannot save the list of VIPs"), "{error}");
        assert!(own.is_empty());
    }
}

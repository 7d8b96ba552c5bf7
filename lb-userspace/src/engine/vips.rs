//! VIPs on interfaces: which ones to add and remove, and whose they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::state_file::StateFile;
use crate::netlink::view::{View, host_prefix_len, is_in_subnet};

/// The addresses that we have added, with the interface of each. Kept in a file, so that after a
/// `kill -9` the next start knows what to adopt or remove; an address that was there before is not
/// in it, and is left alone.
#[derive(Debug)]
pub(super) struct OwnVips {
    file: StateFile,
    interfaces: BTreeMap<IpAddr, String>,
}

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    vips: BTreeMap<IpAddr, String>,
}

impl OwnVips {
    /// Reads the list that an earlier run has left.
    ///
    /// # Errors
    /// If the file is there and cannot be read, or is not ours.
    pub(super) fn load(file: StateFile) -> anyhow::Result<Self> {
        let record = match file.read()? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged: remove it", file.path().display()))?,
            None => Record::default(),
        };
        Ok(Self {
            file,
            interfaces: record.vips,
        })
    }

    /// Notes that `vip` on `interface` is ours. To be called before it is added: better to know
    /// of one that is not there than the other way round.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn note(&mut self, vip: IpAddr, interface: &str) -> anyhow::Result<()> {
        self.interfaces.insert(vip, interface.to_owned());
        self.save()
    }

    /// Notes that `vip` is no longer there, or no longer ours.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn forget(&mut self, vip: IpAddr) -> anyhow::Result<()> {
        self.interfaces.remove(&vip);
        self.save()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.interfaces.is_empty()
    }

    /// The interface of one of ours.
    pub(super) fn interface(&self, vip: IpAddr) -> Option<&String> {
        self.interfaces.get(&vip)
    }

    fn save(&self) -> anyhow::Result<()> {
        let record = Record {
            vips: self.interfaces.clone(),
        };
        Ok(self.file.write(&serde_json::to_vec_pretty(&record)?)?)
    }
}

/// One thing to do about a VIP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum VipStep {
    /// It is ours and not there any more.
    Forget(IpAddr),
    /// It is ours and no longer wanted here.
    Remove {
        /// The VIP.
        vip: IpAddr,
        /// Where it is.
        ifindex: u32,
    },
    /// It is wanted and nowhere on this node.
    Add {
        /// The VIP.
        vip: IpAddr,
        /// Where it goes.
        interface: String,
        /// That interface's index.
        ifindex: u32,
    },
}

/// What is to be removed or forgotten, so that only `wanted` is left of ours, on attached
/// interfaces.
pub(super) fn removals(
    own: &OwnVips,
    wanted: &BTreeSet<IpAddr>,
    attached: &[(String, u32)],
    view: &View,
) -> Vec<VipStep> {
    let mut steps = Vec::new();
    for (vip, interface) in &own.interfaces {
        let place = view
            .ifindex(interface)
            .filter(|ifindex| view.holders(*vip).any(|holder| holder == *ifindex));
        let is_attached = attached.iter().any(|(name, _)| name == interface);
        match place {
            None => steps.push(VipStep::Forget(*vip)),
            Some(_) if wanted.contains(vip) && is_attached => {}
            Some(ifindex) => steps.push(VipStep::Remove { vip: *vip, ifindex }),
        }
    }
    steps
}

/// What is to be added, so that each of `wanted` is somewhere on this node.
pub(super) fn additions(
    wanted: &BTreeSet<IpAddr>,
    attached: &[(String, u32)],
    view: &View,
) -> Vec<VipStep> {
    wanted
        .iter()
        .filter(|vip| view.holders(**vip).next().is_none())
        .filter_map(|vip| {
            let (interface, ifindex) = place(*vip, attached, view)?;
            Some(VipStep::Add {
                vip: *vip,
                interface,
                ifindex,
            })
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
    use std::path::Path;

    use super::*;
    use crate::netlink::view::{Link, LocalAddress};

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn view(addresses: &[(u32, &str, u8)]) -> View {
        let link = |name: &str| Link {
            name: name.to_owned(),
            address: Some([2; 6]),
            is_up: true,
        };
        View {
            links: BTreeMap::from([(2, link("eth0")), (3, link("eth1"))]),
            addresses: addresses
                .iter()
                .map(|(ifindex, address, prefix_len)| LocalAddress {
                    ifindex: *ifindex,
                    address: ip(address),
                    prefix_len: *prefix_len,
                })
                .collect(),
            ..View::default()
        }
    }

    fn both() -> Vec<(String, u32)> {
        vec![("eth0".to_owned(), 2), ("eth1".to_owned(), 3)]
    }

    fn own(vips: &[(&str, &str)]) -> OwnVips {
        OwnVips {
            file: StateFile::beside(Path::new("")),
            interfaces: vips
                .iter()
                .map(|(vip, interface)| (ip(vip), (*interface).to_owned()))
                .collect(),
        }
    }

    fn wanted(vips: &[&str]) -> BTreeSet<IpAddr> {
        vips.iter().map(|vip| ip(vip)).collect()
    }

    fn added_to(vip: &str, view: &View) -> Vec<u32> {
        additions(&wanted(&[vip]), &both(), view)
            .into_iter()
            .map(|step| match step {
                VipStep::Add { ifindex, .. } => ifindex,
                other => panic!("{other:?}"),
            })
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
        let own = own(&[]);
        assert_eq!(removals(&own, &wanted(&[]), &both(), &view), []);
    }

    #[test]
    fn ours_are_removed_when_nobody_wants_them_and_forgotten_when_gone() {
        let view = view(&[(2, "203.0.113.10", 32)]);
        let own = own(&[("203.0.113.10", "eth0"), ("203.0.113.11", "eth0")]);
        let steps = removals(&own, &wanted(&[]), &both(), &view);
        let vip = ip("203.0.113.10");
        let expected = [
            VipStep::Remove { vip, ifindex: 2 },
            VipStep::Forget(ip("203.0.113.11")),
        ];
        assert_eq!(steps, expected);
        assert_eq!(
            removals(&own, &wanted(&["203.0.113.10"]), &both(), &view).len(),
            1
        );
    }

    #[test]
    fn ours_leave_an_interface_that_is_no_longer_attached() {
        let view = view(&[(2, "203.0.113.10", 32)]);
        let own = own(&[("203.0.113.10", "eth0")]);
        let only_eth1 = [("eth1".to_owned(), 3)];
        let steps = removals(&own, &wanted(&["203.0.113.10"]), &only_eth1, &view);
        let vip = ip("203.0.113.10");
        assert_eq!(steps, [VipStep::Remove { vip, ifindex: 2 }]);
    }

    #[test]
    fn the_list_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::beside(&directory.path().join("lbd.sock"));
        let mut own = OwnVips::load(file.clone()).unwrap();
        own.note(ip("203.0.113.10"), "eth0").unwrap();
        own.note(ip("2001:db8::10"), "eth1").unwrap();
        own.forget(ip("203.0.113.10")).unwrap();
        let again = OwnVips::load(file.clone()).unwrap();
        assert_eq!(again.interface(ip("203.0.113.10")), None);
        assert_eq!(
            again.interface(ip("2001:db8::10")),
            Some(&"eth1".to_owned())
        );
    }

    #[test]
    fn a_damaged_list_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::beside(&directory.path().join("lbd.sock"));
        file.write(b"{").unwrap();
        let error = OwnVips::load(file).unwrap_err();
        assert!(
            error.to_string().contains("vips.json is damaged"),
            "{error}"
        );
    }
}

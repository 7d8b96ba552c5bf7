//! Which addresses on the node's interfaces are ours.

use std::collections::BTreeMap;
use std::net::IpAddr;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::state_file::StateFile;
use crate::netlink::view::View;
pub(super) use crate::vrrp::protocol::Place;

/// The addresses that we have added. Kept in a file, so that after a `kill -9` the next start knows
/// what to adopt or remove; an address that was there before is not in it, and is left alone.
///
/// Changes are collected and written by [`OwnVips::save`]: before addresses are added, and after
/// they were removed. Better to know of one that is not there than the other way round.
#[derive(Debug)]
pub(super) struct OwnVips {
    file: StateFile,
    places: BTreeMap<IpAddr, Place>,
    is_saved: bool,
}

/// The file's content.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    vips: BTreeMap<IpAddr, Place>,
}

impl OwnVips {
    /// Reads the list that an earlier run has left.
    ///
    /// # Errors
    /// If the file is there and cannot be read, or is not ours.
    pub(super) fn load(file: StateFile) -> anyhow::Result<Self> {
        let record: Record = match file.read()? {
            Some(bytes) => serde_json::from_slice(&bytes)
                .with_context(|| format!("{} is damaged: remove it", file.path().display()))?,
            None => Record::default(),
        };
        Ok(Self {
            file,
            places: record.vips,
            is_saved: true,
        })
    }

    /// Notes that `vip` is ours.
    pub(super) fn note(&mut self, vip: IpAddr, place: Place) {
        self.places.insert(vip, place);
        self.is_saved = false;
    }

    /// Notes that `vip` is no longer there, or no longer ours.
    pub(super) fn forget(&mut self, vip: IpAddr) {
        self.places.remove(&vip);
        self.is_saved = false;
    }

    /// Writes the list, if it has changed.
    ///
    /// # Errors
    /// If the file cannot be written: the next call tries again.
    pub(super) fn save(&mut self) -> anyhow::Result<()> {
        if self.is_saved {
            return Ok(());
        }
        let record = Record {
            vips: self.places.clone(),
        };
        self.file.write(&serde_json::to_vec_pretty(&record)?)?;
        self.is_saved = true;
        Ok(())
    }

    /// Removes the file, if nothing is left of what it lists: the next start has nothing to clean up.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(super) fn remove_file(&self) -> anyhow::Result<()> {
        if !self.is_empty() {
            return Ok(());
        }
        Ok(self.file.remove()?)
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// All of them, with their places.
    pub(super) fn iter(&self) -> impl Iterator<Item = (IpAddr, &Place)> {
        self.places.iter().map(|(vip, place)| (*vip, place))
    }

    /// The index of the interface that holds one of ours; `None` if it is not ours, or is not there
    /// any more. The same address on another interface is somebody else's.
    pub(super) fn holder(&self, vip: IpAddr, view: &View) -> Option<u32> {
        let place = self.places.get(&vip)?;
        let holds = |ifindex: &u32| view.holders(vip).any(|holder| holder == *ifindex);
        let by_index = Some(place.ifindex).filter(holds);
        by_index.or_else(|| view.ifindex(&place.interface).filter(holds))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::path::Path;

    use super::*;
    use crate::netlink::view::{Link, LocalAddress};

    pub(in super::super) fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    /// `eth0` with index 2 and `eth1` with index 3, with these addresses.
    pub(in super::super) fn view(addresses: &[(u32, &str, u8)]) -> View {
        let link = |name: &str| Link {
            name: name.to_owned(),
            address: Some([2; 6]),
            is_up: true,
            has_carrier: true,
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

    /// A list that cannot be saved.
    pub(in super::super) fn own(vips: &[(&str, &str, u32)]) -> OwnVips {
        OwnVips {
            file: StateFile::beside(Path::new("/nowhere/lbd.sock")),
            places: vips
                .iter()
                .map(|(vip, interface, ifindex)| (ip(vip), place(interface, *ifindex)))
                .collect(),
            is_saved: true,
        }
    }

    pub(in super::super) fn place(interface: &str, ifindex: u32) -> Place {
        Place {
            interface: interface.to_owned(),
            ifindex,
        }
    }

    #[test]
    fn the_list_survives_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::beside(&directory.path().join("lbd.sock"));
        let mut own = OwnVips::load(file.clone()).unwrap();
        own.note(ip("203.0.113.10"), place("eth0", 2));
        own.note(ip("2001:db8::10"), place("eth1", 3));
        own.forget(ip("203.0.113.10"));
        own.save().unwrap();
        let again = OwnVips::load(file.clone()).unwrap();
        let places: Vec<_> = again.iter().collect();
        assert_eq!(places, [(ip("2001:db8::10"), &place("eth1", 3))]);
    }

    #[test]
    fn what_is_saved_is_not_written_again() {
        let mut own = own(&[("203.0.113.10", "eth0", 2)]);
        own.save().unwrap();
        own.forget(ip("203.0.113.10"));
        own.save().unwrap_err();
        own.save().unwrap_err();
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

    #[test]
    fn ours_are_found_after_a_change_of_name_or_index() {
        let own = own(&[("203.0.113.10", "lan0", 2), ("203.0.113.11", "eth1", 9)]);
        let view = view(&[(2, "203.0.113.10", 32), (3, "203.0.113.11", 32)]);
        assert_eq!(own.holder(ip("203.0.113.10"), &view), Some(2), "renamed");
        assert_eq!(own.holder(ip("203.0.113.11"), &view), Some(3), "made anew");
        assert_eq!(own.holder(ip("203.0.113.12"), &view), None, "not ours");
    }
}

//! The addresses that are on interfaces because of us. What was there before is somebody else's, and is left alone.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::net::IpAddr;

use tracing::{info, warn};

use super::memory::Record;
use crate::netlink::blocking::BlockingNetlink;
use crate::vrrp::protocol::{Configuration, Place};

/// What became of VIPs that were to be added.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    /// Those that were not there before.
    pub(super) added: Vec<IpAddr>,
    /// Why the first of those that are not there was refused.
    pub(super) trouble: Option<String>,
}

/// Adds VIPs to an interface. `record` names them as ours before the first is added: better to know of one that
/// is not there than the other way round; `save` writes it.
pub(super) fn add(
    netlink: &mut BlockingNetlink,
    record: &mut Record,
    place: &Place,
    vips: &[IpAddr],
    save: impl FnOnce(&Record),
) -> Outcome {
    let is_there = |record: &Record, vip: &IpAddr| record.vips.get(vip) == Some(place);
    let missing: Vec<IpAddr> = vips
        .iter()
        .filter(|vip| !is_there(record, vip))
        .copied()
        .collect();
    // Ours on another interface: the group has moved.
    for vip in &missing {
        remove(netlink, record, &[*vip]);
    }
    for vip in &missing {
        record.vips.insert(*vip, place.clone());
    }
    if !missing.is_empty() {
        save(record);
    }
    // Those that are on record are added, too: somebody may have taken one off.
    let mut outcome = Outcome::default();
    for vip in vips {
        match netlink.add_vip(place.ifindex, *vip) {
            Ok(()) => outcome.added.push(*vip),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                if missing.contains(vip) {
                    info!(
                        "VIP {vip} is on {} already: it will stay there",
                        place.interface
                    );
                    record.vips.remove(vip);
                }
            }
            Err(error) => {
                let trouble = format!("cannot add VIP {vip} to {}: {error}", place.interface);
                outcome.trouble.get_or_insert(trouble);
                record.vips.remove(vip);
            }
        }
    }
    outcome
}

/// Takes over what `lbd` has added itself, before a group had it. Returns what is new on `record`.
pub(super) fn adopt(record: &mut Record, configuration: &Configuration) -> BTreeSet<IpAddr> {
    let mut adopted = BTreeSet::new();
    for (vip, place) in &configuration.given_vips {
        let mut groups = configuration.groups.iter();
        let is_ours = groups.any(|group| group.vips.contains(vip));
        if is_ours && !record.vips.contains_key(vip) {
            record.vips.insert(*vip, place.clone());
            adopted.insert(*vip);
        }
    }
    adopted
}

/// Removes those of the VIPs that are ours.
pub(super) fn remove(netlink: &mut BlockingNetlink, record: &mut Record, vips: &[IpAddr]) {
    for vip in vips {
        let Some(place) = record.vips.get(vip) else {
            continue;
        };
        match netlink.remove_vip(place.ifindex, *vip) {
            Ok(()) => drop(record.vips.remove(vip)),
            // It stays on record: the next time it is tried again.
            Err(error) => warn!("cannot remove VIP {vip} from {}: {error}", place.interface),
        }
    }
}

/// Removes all of ours that are not among `kept`.
pub(super) fn remove_others(
    netlink: &mut BlockingNetlink,
    record: &mut Record,
    kept: &BTreeSet<IpAddr>,
) {
    let others: Vec<IpAddr> = record
        .vips
        .keys()
        .filter(|vip| !kept.contains(vip))
        .copied()
        .collect();
    remove(netlink, record, &others);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::protocol::tests::group;

    fn place(ifindex: u32) -> Place {
        Place {
            interface: format!("eth{ifindex}"),
            ifindex,
        }
    }

    #[test]
    fn what_lbd_has_added_is_taken_over_once_and_only_for_a_group() {
        let [web, db, api]: [IpAddr; 3] = [10, 11, 12].map(|last| [203, 0, 113, last].into());
        let configuration = Configuration {
            groups: vec![group("web", 51, &["203.0.113.10", "203.0.113.11"])],
            given_vips: [web, db, api].map(|vip| (vip, place(2))).into(),
            ..Configuration::default()
        };
        let mut record = Record {
            // It was added here before.
            vips: [(db, place(3))].into(),
            ..Record::default()
        };
        assert_eq!(adopt(&mut record, &configuration), [web].into());
        assert_eq!(record.vips, [(web, place(2)), (db, place(3))].into());
        assert_eq!(adopt(&mut record, &configuration), [].into());
    }
}

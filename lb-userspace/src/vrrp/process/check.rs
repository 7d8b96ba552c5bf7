//! Whether a configuration makes sense: one that does not is refused as a whole. `lbd` has checked it already; this
//! is for what did not come from there. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::vrrp::auth::Key;
use crate::vrrp::protocol::{Configuration, Family, Group};

/// Groups of a node: a virtual router's id has a byte. Unit: groups.
const GROUPS_MAX: usize = 255;
/// VIPs of a group in one family: the advertisement counts them in a byte (RFC 9568 section 5.2.5).
const VIPS_MAX: usize = 255;
/// Unicast peers of a group: each gets every advertisement.
const PEERS_MAX: usize = 32;
/// What a group watches.
const TRACKS_MAX: usize = 64;
/// `IFNAMSIZ` without the zero at its end. Unit: bytes.
const INTERFACE_BYTES_MAX: usize = 15;
const NAME_BYTES_MAX: usize = 64;
/// RFC 9568 section 5.2.7: twelve bits.
const INTERVAL_CS_MAX: u16 = 4095;

/// Why a configuration makes no sense.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Nonsense {
    /// Too many of something.
    #[error("{what}: {found}, and {max} is the most")]
    TooMany {
        /// Of what.
        what: String,
        /// So many.
        found: usize,
        /// So many at most.
        max: usize,
    },
    /// A key of another form.
    #[error("the key is not 64 hexadecimal digits")]
    Key,
    /// Something about a group.
    #[error("group {group}: {what}")]
    Group {
        /// Which.
        group: String,
        /// What.
        what: String,
    },
}

/// Whether the configuration makes sense.
///
/// # Errors
/// [`Nonsense`]: the first thing that makes none.
pub(super) fn check(configuration: &Configuration) -> Result<(), Nonsense> {
    at_most("groups", configuration.groups.len(), GROUPS_MAX)?;
    let key = configuration.key.as_deref();
    if key.is_some_and(|key| Key::from_hex(key).is_none()) {
        return Err(Nonsense::Key);
    }
    let mut taken = Taken::default();
    for group in &configuration.groups {
        check_group(group, key.is_some(), &mut taken)?;
    }
    Ok(())
}

/// What no two groups may share.
#[derive(Default)]
struct Taken<'a> {
    names: BTreeSet<&'a str>,
    routers: BTreeSet<(&'a str, u8, Family)>,
    vips: BTreeSet<IpAddr>,
}

fn check_group<'a>(group: &'a Group, has_key: bool, taken: &mut Taken<'a>) -> Result<(), Nonsense> {
    let wrong = |what: String| {
        Err(Nonsense::Group {
            group: group.name.clone(),
            what,
        })
    };
    if group.name.is_empty() || group.name.len() > NAME_BYTES_MAX {
        return wrong(format!("a name has 1 to {NAME_BYTES_MAX} bytes"));
    }
    if !taken.names.insert(&group.name) {
        return wrong("there are two of this name".to_owned());
    }
    if !is_interface_name(&group.interface) {
        return wrong(format!("{:?} is no name of an interface", group.interface));
    }
    if group.vrid == 0 || group.priority == 0 {
        return wrong("vrid and priority are 1 to 255".to_owned());
    }
    if !(1..=INTERVAL_CS_MAX).contains(&group.interval_cs) {
        return wrong(format!(
            "the interval is 1 to {INTERVAL_CS_MAX} centiseconds"
        ));
    }
    if group.authenticate && !has_key {
        return wrong("advertisements are to be authenticated, and there is no key".to_owned());
    }
    at_most(
        &format!("peers of {}", group.name),
        group.peers.len(),
        PEERS_MAX,
    )?;
    at_most(
        &format!("tracks of {}", group.name),
        group.tracks.len(),
        TRACKS_MAX,
    )?;
    if group.vips.is_empty() {
        return wrong("it has no VIP".to_owned());
    }
    if let Some(vip) = group.vips.iter().find(|vip| !is_unicast(**vip)) {
        return wrong(format!("{vip} can be no VIP"));
    }
    if let Some(vip) = group.vips.iter().find(|vip| !taken.vips.insert(**vip)) {
        return wrong(format!("VIP {vip} is there twice"));
    }
    for family in [Family::Ipv4, Family::Ipv6] {
        let of_family = |address: &&IpAddr| Family::of(**address) == family;
        let vip_count = group.vips.iter().filter(of_family).count();
        at_most(&format!("VIPs of {}", group.name), vip_count, VIPS_MAX)?;
        if group.sources.iter().filter(of_family).count() > 1 {
            return wrong("it has two source addresses of one family".to_owned());
        }
        let router = (group.interface.as_str(), group.vrid, family);
        if vip_count > 0 && !taken.routers.insert(router) {
            return wrong(format!(
                "vrid {} is taken on {}",
                group.vrid, group.interface
            ));
        }
    }
    Ok(())
}

fn at_most(what: &str, found: usize, max: usize) -> Result<(), Nonsense> {
    if found <= max {
        return Ok(());
    }
    Err(Nonsense::TooMany {
        what: what.to_owned(),
        found,
        max,
    })
}

fn is_unicast(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(is_broadcast || address.is_multicast() || address.is_unspecified() || address.is_loopback())
}

/// As the kernel has it (`dev_valid_name`): it also becomes part of a path below `/proc/sys`.
pub(super) fn is_interface_name(name: &str) -> bool {
    let is_plain =
        |byte: u8| !byte.is_ascii_whitespace() && byte != b'/' && byte != b':' && byte != 0;
    (1..=INTERFACE_BYTES_MAX).contains(&name.len())
        && name != "."
        && name != ".."
        && name.bytes().all(is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::protocol::tests::group;

    fn configuration(groups: Vec<Group>) -> Configuration {
        Configuration {
            node: "lb1".to_owned(),
            groups,
            ..Configuration::default()
        }
    }

    #[test]
    fn what_makes_sense_is_taken() {
        let web = group("web", 51, &["203.0.113.10", "2001:db8::10"]);
        let db = group("db", 52, &["203.0.113.11"]);
        let mut other_family = group("v6", 52, &["2001:db8::11"]);
        other_family.authenticate = true;
        let mut configuration = configuration(vec![web, db, other_family]);
        configuration.key = Some("0f".repeat(32));
        assert_eq!(check(&configuration), Ok(()));
    }

    /// What is done to a configuration that makes sense.
    type Spoil = fn(&mut Configuration);

    #[test]
    fn each_nonsense_is_named() {
        let cases: [(Spoil, &str); 14] = [
            (|c| c.key = Some("short".to_owned()), "the key is not"),
            (|c| c.groups[1].name = "web".to_owned(), "two of this name"),
            (|c| c.groups[1].name.clear(), "1 to 64 bytes"),
            (|c| c.groups[1].vrid = 51, "vrid 51 is taken on eth0"),
            (|c| c.groups[1].vrid = 0, "1 to 255"),
            (|c| c.groups[0].interval_cs = 0, "1 to 4095"),
            (|c| c.groups[0].interval_cs = 4096, "1 to 4095"),
            (|c| c.groups[0].authenticate = true, "there is no key"),
            (|c| c.groups[0].vips.clear(), "it has no VIP"),
            (|c| c.groups[0].vips = some(1, 0xe000_0012), "can be no VIP"),
            (
                |c| c.groups[0].vips = some(1, 0xcb00_710b),
                "is there twice",
            ),
            (
                |c| c.groups[0].interface = "../x".to_owned(),
                "no name of an interface",
            ),
            (
                |c| c.groups[0].sources = some(2, 0x0a00_0001),
                "two source addresses",
            ),
            (
                |c| c.groups[0].vips = some(256, 0x0a00_0001),
                "256, and 255 is the most",
            ),
        ];
        for (spoil, text) in cases {
            let web = group("web", 51, &["203.0.113.10", "2001:db8::10"]);
            let mut configuration = configuration(vec![web, group("db", 52, &["203.0.113.11"])]);
            assert_eq!(check(&configuration), Ok(()));
            spoil(&mut configuration);
            let error = check(&configuration).unwrap_err().to_string();
            assert!(error.contains(text), "{error} / {text}");
        }
    }

    /// So many IPv4 addresses from this one on.
    fn some(count: u32, first: u32) -> Vec<IpAddr> {
        let all = (first..).map(|bits| IpAddr::V4(bits.into()));
        all.take(count as usize).collect()
    }
}

//! The virtual router's own Ethernet address (RFC 9568 section 7.3): a macvlan device on the group's interface, made
//! beforehand and down while another node is Active, so that no frame leaves with an address that is not ours now.

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use crate::netlink::view::LinkAddress;
use crate::vrrp::packet::{HOP_LIMIT, IP_PROTOCOL};
use crate::vrrp::protocol::Family;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const IPV4_HEADER_BYTES: usize = 20;
/// Internetwork control, as [`super::advert_socket`] has it.
const TRAFFIC_CLASS: u8 = 0xc0;

/// `00-00-5E-00-01-{VRID}` and `00-00-5E-00-02-{VRID}` (RFC 9568 section 7.3).
pub(super) const fn address(family: Family, vrid: u8) -> LinkAddress {
    let of_family = match family {
        Family::Ipv4 => 1,
        Family::Ipv6 => 2,
    };
    [0, 0, 0x5e, 0, of_family, vrid]
}

/// The device's name: unique on the node, and short enough for one on any interface.
pub(super) fn device(family: Family, vrid: u8, lower: u32) -> String {
    let of_family = match family {
        Family::Ipv4 => 4,
        Family::Ipv6 => 6,
    };
    format!("vrrp{of_family}.{vrid}.{lower}")
}

/// A setting of the kernel: its path below `/proc/sys`, and its value.
pub(super) type Setting = (String, &'static str);

/// What the device needs: no addresses and no packets of its own making, and to take packets in whose way back
/// leads over the interface below.
pub(super) fn device_settings(device: &str) -> Vec<Setting> {
    vec![
        (format!("net/ipv6/conf/{device}/addr_gen_mode"), "1"),
        (format!("net/ipv6/conf/{device}/accept_ra"), "0"),
        (format!("net/ipv6/conf/{device}/dad_transmits"), "0"),
        (format!("net/ipv4/conf/{device}/rp_filter"), "0"),
        (format!("net/ipv4/conf/{device}/arp_ignore"), "1"),
    ]
}

/// What the interface below needs: not to answer, with its own Ethernet address, for addresses of the device, and
/// not to ask in their name.
pub(super) fn lower_settings(interface: &str) -> Vec<Setting> {
    vec![
        (format!("net/ipv4/conf/{interface}/arp_ignore"), "1"),
        (format!("net/ipv4/conf/{interface}/arp_announce"), "2"),
    ]
}

/// Reads a setting.
///
/// # Errors
/// What the file system says.
pub(super) fn read(setting: &str) -> io::Result<String> {
    let value = fs::read_to_string(Path::new("/proc/sys").join(setting))?;
    Ok(value.trim().to_owned())
}

/// Changes a setting.
///
/// # Errors
/// What the file system says.
pub(super) fn write(setting: &str, value: &str) -> io::Result<()> {
    fs::write(Path::new("/proc/sys").join(setting), value)
}

/// A multicast VRRP packet as a whole frame: sent from the virtual address, so that switches learn where it is
/// (RFC 9568 section 7.3). `None` if the addresses are of two families, or the packet is too long.
pub(super) fn frame(
    link: LinkAddress,
    source: IpAddr,
    destination: IpAddr,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let mut frame = Vec::with_capacity(64 + payload.len());
    match (source, destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let [_, b, c, d] = destination.octets();
            // RFC 1112 section 6.4.
            frame.extend([1, 0, 0x5e, b & 0x7f, c, d]);
            frame.extend(link);
            frame.extend(ETHERTYPE_IPV4.to_be_bytes());
            let total = u16::try_from(IPV4_HEADER_BYTES + payload.len()).ok()?;
            let [high, low] = total.to_be_bytes();
            let mut header = vec![
                0x45,
                TRAFFIC_CLASS,
                high,
                low,
                0,
                0,
                0,
                0,
                HOP_LIMIT,
                IP_PROTOCOL,
            ];
            header.extend([0, 0]);
            header.extend(source.octets());
            header.extend(destination.octets());
            let checksum = lb_common::checksum::of_bytes(&header);
            header[10..12].copy_from_slice(&checksum.to_ne_bytes());
            frame.extend(header);
        }
        (IpAddr::V6(source), IpAddr::V6(destination)) => {
            let [.., a, b, c, d] = destination.octets();
            // RFC 2464 section 7.
            frame.extend([0x33, 0x33, a, b, c, d]);
            frame.extend(link);
            frame.extend(ETHERTYPE_IPV6.to_be_bytes());
            let [high, low] = u16::try_from(payload.len()).ok()?.to_be_bytes();
            frame.extend([0x60 | TRAFFIC_CLASS >> 4, TRAFFIC_CLASS << 4, 0, 0]);
            frame.extend([high, low, IP_PROTOCOL, HOP_LIMIT]);
            frame.extend(source.octets());
            frame.extend(destination.octets());
        }
        _ => return None,
    }
    frame.extend(payload);
    Some(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_are_those_of_the_router() {
        assert_eq!(address(Family::Ipv4, 51), [0, 0, 0x5e, 0, 1, 51]);
        assert_eq!(address(Family::Ipv6, 255), [0, 0, 0x5e, 0, 2, 255]);
        // A device on an interface with a large index still has a name.
        assert_eq!(device(Family::Ipv6, 255, 99_999), "vrrp6.255.99999");
        assert!(device(Family::Ipv6, 255, 99_999).len() <= 15);
    }

    #[test]
    fn a_frame_has_both_headers() {
        let link = address(Family::Ipv4, 51);
        let (source, group) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([224, 0, 0, 18]));
        let frame4 = frame(link, source, group, b"vrrp").unwrap();
        assert_eq!(
            frame4[..14],
            [1, 0, 0x5e, 0, 0, 18, 0, 0, 0x5e, 0, 1, 51, 8, 0]
        );
        assert_eq!(frame4[14..18], [0x45, 0xc0, 0, 24]);
        assert_eq!((frame4[22], frame4[23]), (255, 112));
        let sum: u32 = frame4[14..34]
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(frame4[34..], *b"vrrp");

        let source: IpAddr = "fe80::1".parse().unwrap();
        let group: IpAddr = "ff02::12".parse().unwrap();
        let frame6 = frame(address(Family::Ipv6, 51), source, group, b"vrrp").unwrap();
        assert_eq!(frame6[..6], [0x33, 0x33, 0, 0, 0, 0x12]);
        assert_eq!(frame6[14..22], [0x6c, 0, 0, 0, 0, 4, 112, 255]);
        assert_eq!(frame6.len(), 14 + 40 + 4);
        assert_eq!(
            frame(link, source, IpAddr::from([224, 0, 0, 18]), b""),
            None
        );
    }
}

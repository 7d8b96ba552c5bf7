//! Telling the link that a VIP is here: gratuitous ARP (RFC 5227 section 3, RFC 826) and unsolicited
//! neighbour advertisements (RFC 4861 section 7.2.6).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use anyhow::Context;
use lb_common::checksum;

use super::view::LinkAddress;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const BROADCAST: LinkAddress = [0xff; 6];
/// The Ethernet address of `ff02::1` (RFC 2464 section 7).
const ALL_NODES_LINK: LinkAddress = [0x33, 0x33, 0, 0, 0, 1];
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
const ARP_REQUEST: u16 = 1;
const ARP_REPLY: u16 = 2;
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// Override: replace what is cached (RFC 4861 section 4.4). Not solicited; not a router.
const OVERRIDE_FLAG: u8 = 0x20;
const TARGET_LINK_ADDRESS: u8 = 2;
const HOP_LIMIT_MAX: u8 = 255;
const ICMPV6_BYTES: usize = 32;

/// A socket that sends whole frames on any interface, in the network namespace of the thread that
/// opened it. One for all: closing such a socket waits until every CPU has let go of it, ~10 ms.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens one.
    ///
    /// # Errors
    /// If the kernel gives none.
    pub fn open() -> anyhow::Result<Self> {
        let socket = open().context("cannot open a packet socket: is CAP_NET_RAW there?")?;
        Ok(Self(socket))
    }

    /// Sends a whole frame on `ifindex`. Does not wait.
    ///
    /// # Errors
    /// If it cannot be sent at once.
    pub fn send(&self, ifindex: u32, frame: &[u8]) -> io::Result<()> {
        send(&self.0, ifindex, frame)
    }

    /// Sends the announcements of `vip` on `ifindex`, whose Ethernet address is `source`. Does not
    /// wait.
    ///
    /// # Errors
    /// If a frame cannot be sent at once.
    pub fn announce(&self, ifindex: u32, source: LinkAddress, vip: IpAddr) -> anyhow::Result<()> {
        for frame in frames(source, vip) {
            send(&self.0, ifindex, &frame)
                .with_context(|| format!("cannot announce {vip} on interface {ifindex}"))?;
        }
        Ok(())
    }
}

impl PacketSocket {
    /// Sets which frames are received; `filter` is a program in classic BPF.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn set_filter(&self, filter: &[libc::sock_filter]) -> io::Result<()> {
        let program = libc::sock_fprog {
            len: u16::try_from(filter.len()).map_err(io::Error::other)?,
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: the program points to `filter`, of that length; both live during the call, which does not
        // write to them.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of::<libc::sock_fprog>() as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }

    /// Receives frames of this type, on any interface, from now on. To be called once.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn hear(&self, ethertype: u16) -> io::Result<()> {
        // SAFETY: a structure of integers, for which zero is a value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = ethertype.to_be();
        // SAFETY: the pointer is to an address of the given length that lives during the call.
        let result = unsafe {
            libc::bind(
                self.0.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// The frames that announce `vip`. Some hosts learn from gratuitous requests only, some from
/// replies only: both are sent.
fn frames(source: LinkAddress, vip: IpAddr) -> Vec<Vec<u8>> {
    match vip {
        IpAddr::V4(vip) => vec![arp(source, vip, ARP_REQUEST), arp(source, vip, ARP_REPLY)],
        IpAddr::V6(vip) => vec![advertisement(source, vip)],
    }
}

fn ethernet(destination: LinkAddress, source: LinkAddress, ethertype: u16) -> Vec<u8> {
    [&destination[..], &source, &ethertype.to_be_bytes()].concat()
}

fn arp(source: LinkAddress, vip: Ipv4Addr, operation: u16) -> Vec<u8> {
    // Unknown in a request; in a gratuitous reply everybody is meant.
    let target = match operation {
        ARP_REQUEST => [0; 6],
        _ => BROADCAST,
    };
    let mut frame = ethernet(BROADCAST, source, ETHERTYPE_ARP);
    // Ethernet (1), IPv4 (0x0800), address lengths 6 and 4.
    frame.extend([0, 1, 0x08, 0, 6, 4]);
    frame.extend(operation.to_be_bytes());
    frame.extend(source);
    frame.extend(vip.octets());
    frame.extend(target);
    frame.extend(vip.octets());
    frame
}

fn advertisement(source: LinkAddress, vip: Ipv6Addr) -> Vec<u8> {
    let mut icmp = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, OVERRIDE_FLAG, 0, 0, 0];
    icmp.extend(vip.octets());
    // The option's length is in units of 8 bytes.
    icmp.extend([TARGET_LINK_ADDRESS, 1]);
    icmp.extend(source);
    let checksum = checksum::of_bytes(&[pseudo_header(vip).as_slice(), &icmp].concat());
    icmp[2..4].copy_from_slice(&checksum.to_ne_bytes());

    let mut frame = ethernet(ALL_NODES_LINK, source, ETHERTYPE_IPV6);
    frame.extend([0x60, 0, 0, 0, 0, ICMPV6_BYTES as u8, ICMPV6, HOP_LIMIT_MAX]);
    frame.extend(vip.octets());
    frame.extend(ALL_NODES.octets());
    frame.extend(icmp);
    frame
}

/// RFC 8200 section 8.1.
fn pseudo_header(source: Ipv6Addr) -> Vec<u8> {
    let mut header = [source.octets(), ALL_NODES.octets()].concat();
    header.extend((ICMPV6_BYTES as u32).to_be_bytes());
    header.extend([0, 0, 0, ICMPV6]);
    header
}

fn open() -> io::Result<OwnedFd> {
    // Protocol 0: nothing is received.
    // SAFETY: the system call takes no pointers.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn send(socket: &OwnedFd, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: a structure of integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = ifindex as i32;
    // SAFETY: both pointers are to memory of the given lengths that lives during the call.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOURCE: LinkAddress = [2, 0, 0, 0, 0, 1];

    #[test]
    fn a_gratuitous_arp_names_the_vip_twice() {
        let frames = frames(SOURCE, "203.0.113.10".parse().unwrap());
        assert_eq!(frames.len(), 2);
        for (frame, operation, target) in [(&frames[0], 1, 0x00), (&frames[1], 2, 0xff)] {
            assert_eq!(frame.len(), 42);
            assert_eq!(frame[..6], BROADCAST);
            assert_eq!(frame[12..14], [0x08, 0x06]);
            assert_eq!(frame[20..22], [0, operation]);
            assert_eq!(frame[22..28], SOURCE);
            assert_eq!(frame[28..32], [203, 0, 113, 10]);
            assert_eq!(frame[32..38], [target; 6]);
            assert_eq!(frame[38..], [203, 0, 113, 10]);
        }
    }

    #[test]
    fn an_advertisement_has_a_valid_checksum() {
        let vip: Ipv6Addr = "2001:db8::10".parse().unwrap();
        let frames = frames(SOURCE, IpAddr::V6(vip));
        let [frame] = frames.as_slice() else {
            panic!("one frame is enough for IPv6");
        };
        assert_eq!(frame.len(), 14 + 40 + ICMPV6_BYTES);
        assert_eq!(frame[..6], ALL_NODES_LINK);
        assert_eq!(frame[21], HOP_LIMIT_MAX);
        let icmp = &frame[54..];
        assert_eq!((icmp[0], icmp[4]), (136, 0x20));
        assert_eq!(icmp[8..24], vip.octets());
        assert_eq!(icmp[26..], SOURCE);
        let whole = [pseudo_header(vip).as_slice(), icmp].concat();
        assert_eq!(checksum::of_bytes(&whole), 0);
    }
}

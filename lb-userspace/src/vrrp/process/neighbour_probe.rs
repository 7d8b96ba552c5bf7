//! Asking a host on the link whether its kernel is alive: an ARP request (RFC 826), or a neighbour solicitation
//! (RFC 4861 section 4.3). Its kernel answers even while its processes do not.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use lb_common::checksum;
use nix::errno::Errno;

use crate::netlink::view::LinkAddress;
use crate::vrrp::protocol::Family;

const ETHERTYPE_ARP: u16 = 0x0806;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERNET_BYTES: usize = 14;
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;
const ICMPV6: u8 = 58;
const NEIGHBOUR_SOLICITATION: u8 = 135;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_ADDRESS: u8 = 1;
const HOP_LIMIT_MAX: u8 = 255;
/// An ICMPv6 solicitation with one option. Unit: bytes.
const SOLICITATION_BYTES: usize = 32;
/// More than an answer has. Unit: bytes.
const FRAME_BYTES: usize = 256;

/// Asks on one interface, for addresses of one family, and hears the answers.
#[derive(Debug)]
pub(super) struct NeighbourProbe {
    socket: OwnedFd,
    family: Family,
    ifindex: u32,
}

impl NeighbourProbe {
    /// Opens the socket. The kernel hands over answers only, so it costs nothing while nobody asks.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn open(family: Family, ifindex: u32) -> io::Result<Self> {
        // Protocol 0: it hears nothing until the filter is there and it is bound.
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: the system call takes no pointers.
        let fd = Errno::result(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the kernel has just made this descriptor for us.
        let socket = unsafe { OwnedFd::from_raw_fd(fd) };
        let ethertype = match family {
            Family::Ipv4 => ETHERTYPE_ARP,
            Family::Ipv6 => ETHERTYPE_IPV6,
        };
        set_filter(&socket, family)?;
        bind(&socket, ifindex, ethertype)?;
        Ok(Self {
            socket,
            family,
            ifindex,
        })
    }

    /// Asks for `target`; `source` is an address of the interface, and `link` its Ethernet address. Does not wait.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn ask(&self, link: LinkAddress, source: IpAddr, target: IpAddr) -> io::Result<()> {
        let frame = match (source, target) {
            (IpAddr::V4(source), IpAddr::V4(target)) => arp_request(link, source, target),
            (IpAddr::V6(source), IpAddr::V6(target)) => solicitation(link, source, target),
            _ => {
                let text = format!("{source} and {target} are of two families");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        };
        send(&self.socket, self.ifindex, &frame)
    }

    /// The next host that has answered; `None` if no answer waits.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn answer(&self) -> io::Result<Option<IpAddr>> {
        let mut frame = [0; FRAME_BYTES];
        loop {
            // SAFETY: the pointer is to memory of the given length that lives during the call.
            let received = unsafe {
                libc::recv(
                    self.socket.as_raw_fd(),
                    frame.as_mut_ptr().cast(),
                    frame.len(),
                    libc::MSG_DONTWAIT,
                )
            };
            let length_bytes = match Errno::result(received) {
                Ok(length_bytes) => length_bytes as usize,
                Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
            if let Some(address) = parse(self.family, frame.get(..length_bytes).unwrap_or_default())
            {
                return Ok(Some(address));
            }
        }
    }
}

impl AsFd for NeighbourProbe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Who has answered; `None` for what is no answer.
fn parse(family: Family, frame: &[u8]) -> Option<IpAddr> {
    let packet = frame.get(ETHERNET_BYTES..)?;
    match family {
        Family::Ipv4 => {
            let arp: &[u8; 28] = packet.first_chunk()?;
            let is_answer = arp[..6] == [0, 1, 8, 0, 6, 4] && arp[6..8] == [0, ARP_REPLY];
            is_answer.then(|| Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]).into())
        }
        Family::Ipv6 => {
            let ip: &[u8; 64] = packet.first_chunk()?;
            let is_answer =
                (ip[6], ip[7], ip[40]) == (ICMPV6, HOP_LIMIT_MAX, NEIGHBOUR_ADVERTISEMENT);
            let target: [u8; 16] = ip[48..].try_into().ok()?;
            is_answer.then(|| Ipv6Addr::from(target).into())
        }
    }
}

fn arp_request(link: LinkAddress, source: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut frame = [[0xff; 6].as_slice(), &link, &ETHERTYPE_ARP.to_be_bytes()].concat();
    frame.extend([0, 1, 0x08, 0, 6, 4, 0, ARP_REQUEST]);
    frame.extend(link);
    frame.extend(source.octets());
    frame.extend([0; 6]);
    frame.extend(target.octets());
    frame
}

fn solicitation(link: LinkAddress, source: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., a, b, c] = target.octets();
    // RFC 4291 section 2.7.1, and RFC 2464 section 7 for its Ethernet address.
    let group = Ipv6Addr::from([0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, a, b, c]);
    let mut icmp = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    icmp.extend(target.octets());
    icmp.extend([SOURCE_LINK_ADDRESS, 1]);
    icmp.extend(link);
    let mut summed = [source.octets(), group.octets()].concat();
    summed.extend((SOLICITATION_BYTES as u32).to_be_bytes());
    summed.extend([0, 0, 0, ICMPV6]);
    summed.extend(&icmp);
    icmp[2..4].copy_from_slice(&checksum::of_bytes(&summed).to_ne_bytes());

    let mut frame = vec![0x33, 0x33, 0xff, a, b, c];
    frame.extend(link);
    frame.extend(ETHERTYPE_IPV6.to_be_bytes());
    frame.extend([
        0x60,
        0,
        0,
        0,
        0,
        SOLICITATION_BYTES as u8,
        ICMPV6,
        HOP_LIMIT_MAX,
    ]);
    frame.extend(source.octets());
    frame.extend(group.octets());
    frame.extend(icmp);
    frame
}

/// An instruction of a classic BPF program.
const fn step(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    }
}

/// Passes ARP replies, or neighbour advertisements, and nothing else: the link's other traffic does not wake us up.
fn set_filter(socket: &OwnedFd, family: Family) -> io::Result<()> {
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET};
    let load_byte = BPF_LD | BPF_B | BPF_ABS;
    let load_half = BPF_LD | BPF_H | BPF_ABS;
    let is = BPF_JMP | BPF_JEQ | BPF_K;
    let answer = BPF_RET | BPF_K;
    let arp = [
        step(load_half, 0, 0, 20),
        step(is, 0, 1, u32::from(ARP_REPLY)),
        step(answer, 0, 0, FRAME_BYTES as u32),
        step(answer, 0, 0, 0),
    ];
    let neighbour = [
        step(load_byte, 0, 0, 20),
        step(is, 0, 3, u32::from(ICMPV6)),
        step(load_byte, 0, 0, 54),
        step(is, 0, 1, u32::from(NEIGHBOUR_ADVERTISEMENT)),
        step(answer, 0, 0, FRAME_BYTES as u32),
        step(answer, 0, 0, 0),
    ];
    let mut steps: Vec<libc::sock_filter> = match family {
        Family::Ipv4 => arp.to_vec(),
        Family::Ipv6 => neighbour.to_vec(),
    };
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: the program points to `steps`, of that length; both live during the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

fn link_address(ifindex: u32, ethertype: u16) -> libc::sockaddr_ll {
    // SAFETY: a structure of integers, for which zero is a value.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_ifindex = ifindex.cast_signed();
    address.sll_protocol = ethertype.to_be();
    address
}

fn bind(socket: &OwnedFd, ifindex: u32, ethertype: u16) -> io::Result<()> {
    let address = link_address(ifindex, ethertype);
    // SAFETY: the pointer is to an address of the given length that lives during the call.
    let result = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

fn send(socket: &OwnedFd, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let address = link_address(ifindex, 0);
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
    Errno::result(sent)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: LinkAddress = [2, 0, 0, 0, 0, 1];

    #[test]
    fn the_answer_to_an_arp_request_names_its_sender() {
        let (own, peer) = (Ipv4Addr::new(10, 0, 0, 2), Ipv4Addr::new(10, 0, 0, 1));
        let mut frame = arp_request(LINK, own, peer);
        assert_eq!(frame.len(), 42);
        assert_eq!(parse(Family::Ipv4, &frame), None, "a request is no answer");
        // The peer's answer: sender and target change places.
        frame[21] = ARP_REPLY;
        frame[28..32].copy_from_slice(&peer.octets());
        frame[38..42].copy_from_slice(&own.octets());
        assert_eq!(parse(Family::Ipv4, &frame), Some(IpAddr::V4(peer)));
        for end in 0..42 {
            assert_eq!(parse(Family::Ipv4, &frame[..end]), None, "{end} bytes");
        }
    }

    #[test]
    fn the_answer_to_a_solicitation_names_its_target() {
        let own: Ipv6Addr = "fe80::2".parse().unwrap();
        let peer: Ipv6Addr = "fe80::1:2:3".parse().unwrap();
        let mut frame = solicitation(LINK, own, peer);
        assert_eq!(frame.len(), 14 + 40 + SOLICITATION_BYTES);
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 2, 0, 3]);
        assert_eq!(parse(Family::Ipv6, &frame), None, "a question is no answer");
        frame[54] = NEIGHBOUR_ADVERTISEMENT;
        assert_eq!(parse(Family::Ipv6, &frame), Some(IpAddr::V6(peer)));
        for end in 0..78 {
            assert_eq!(parse(Family::Ipv6, &frame[..end]), None, "{end} bytes");
        }
    }

    #[test]
    fn a_solicitation_has_a_valid_checksum() {
        let own: Ipv6Addr = "fe80::2".parse().unwrap();
        let frame = solicitation(LINK, own, "fe80::1".parse().unwrap());
        let mut summed = frame[22..54].to_vec();
        summed.extend([0, 0, 0, 32, 0, 0, 0, 58]);
        summed.extend(&frame[54..]);
        let sum: u32 = summed
            .chunks(2)
            .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
            .sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }
}

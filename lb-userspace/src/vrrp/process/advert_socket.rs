//! Sockets for VRRP packets: IP protocol 112, on one interface.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage,
    recvmsg, sendmsg,
};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use crate::vrrp::protocol::Family;

/// The IP protocol number (RFC 9568 section 5.1.1.4).
const VRRP: i32 = 112;
/// RFC 9568 section 5.1.1.2.
pub(super) const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// RFC 9568 section 5.1.2.2.
pub(super) const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// TTL and hop limit (RFC 9568 sections 5.1.1.3 and 5.1.2.3): what has passed a router is refused.
const HOP_LIMIT: u32 = 255;
/// CS6, internetwork control (RFC 4594 section 3.1): queues that are full of payload let it through.
const TRAFFIC_CLASS: u32 = 0xc0;
/// `TC_PRIO_CONTROL` (`linux/pkt_sched.h`), for this node's own queues.
const QUEUE_PRIORITY: libc::c_int = 7;
/// Room for what waits while this process is stopped. Unit: bytes.
const RECEIVE_BUFFER_BYTES: usize = 1 << 20;
/// Larger than any VRRP packet with 255 IPv6 addresses and our trailer, and an IPv4 header. Unit: bytes.
pub(super) const PACKET_BYTES_MAX: usize = 4608;
/// An IPv4 header without options. Unit: bytes.
const IPV4_HEADER_BYTES: usize = 20;

/// A packet, as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Received<'a> {
    /// Its IP source.
    pub(super) source: IpAddr,
    /// Its IP destination.
    pub(super) destination: IpAddr,
    /// Its TTL, or hop limit.
    pub(super) hop_limit: u8,
    /// What follows the IP header.
    pub(super) payload: &'a [u8],
}

/// A raw socket that hears and sends VRRP packets of one family on one interface, multicast and unicast.
#[derive(Debug)]
pub(super) struct AdvertSocket {
    socket: Socket,
    family: Family,
    ifindex: u32,
}

impl AdvertSocket {
    /// Opens one, and joins VRRP's multicast group.
    ///
    /// # Errors
    /// What the kernel says: without CAP_NET_RAW it gives none.
    pub(super) fn open(family: Family, interface: &str, ifindex: u32) -> io::Result<Self> {
        let domain = match family {
            Family::Ipv4 => Domain::IPV4,
            Family::Ipv6 => Domain::IPV6,
        };
        let socket = Socket::new(domain, Type::RAW, Some(Protocol::from(VRRP)))?;
        socket.bind_device(Some(interface.as_bytes()))?;
        socket.set_nonblocking(true)?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        set_queue_priority(&socket)?;
        match family {
            Family::Ipv4 => prepare_v4(&socket, ifindex)?,
            Family::Ipv6 => prepare_v6(&socket, ifindex)?,
        }
        Ok(Self {
            socket,
            family,
            ifindex,
        })
    }

    /// Takes one packet in; `None` if none waits. One that no sense can be made of is an empty payload of an
    /// unspecified source.
    ///
    /// # Errors
    /// What the kernel says, such as `ENETDOWN` once after the interface went down.
    pub(super) fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<Received<'a>>> {
        let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
        let mut parts = [IoSliceMut::new(buffer)];
        let received = recvmsg::<SockaddrStorage>(
            self.socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        );
        let message = match received {
            Ok(message) => message,
            Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
            Err(errno) => return Err(errno.into()),
        };
        let length_bytes = message.bytes;
        let source = message.address.and_then(|address| {
            let v6 = address.as_sockaddr_in6().map(SockaddrIn6::ip);
            v6.map(IpAddr::V6)
        });
        let mut destination = Ipv6Addr::UNSPECIFIED;
        let mut hop_limit = 0;
        for part in message.cmsgs()? {
            match part {
                ControlMessageOwned::Ipv6PacketInfo(info) => {
                    destination = info.ipi6_addr.s6_addr.into();
                }
                ControlMessageOwned::Ipv6HopLimit(limit) => {
                    hop_limit = u8::try_from(limit).unwrap_or(0);
                }
                _ => {}
            }
        }
        let bytes = buffer.get(..length_bytes).unwrap_or_default();
        Ok(Some(match self.family {
            Family::Ipv4 => parse_v4(bytes).unwrap_or(UNREADABLE),
            Family::Ipv6 => Received {
                source: source.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
                destination: destination.into(),
                hop_limit,
                payload: bytes,
            },
        }))
    }

    /// Sends a VRRP packet from one of the interface's addresses. Does not wait.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn send(
        &self,
        source: IpAddr,
        destination: IpAddr,
        payload: &[u8],
    ) -> io::Result<()> {
        let fd = self.socket.as_raw_fd();
        let parts = [IoSlice::new(payload)];
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                let info = libc::in_pktinfo {
                    ipi_ifindex: self.ifindex.cast_signed(),
                    ipi_spec_dst: in_addr(source),
                    ipi_addr: in_addr(Ipv4Addr::UNSPECIFIED),
                };
                let to = SockaddrIn::from(SocketAddrV4::new(destination, 0));
                let info = [ControlMessage::Ipv4PacketInfo(&info)];
                sendmsg(fd, &parts, &info, flags, Some(&to))?;
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                let info = libc::in6_pktinfo {
                    ipi6_addr: libc::in6_addr {
                        s6_addr: source.octets(),
                    },
                    ipi6_ifindex: self.ifindex,
                };
                let scope = match destination.is_unicast_link_local() || destination.is_multicast()
                {
                    true => self.ifindex,
                    false => 0,
                };
                let to = SockaddrIn6::from(SocketAddrV6::new(destination, 0, 0, scope));
                let info = [ControlMessage::Ipv6PacketInfo(&info)];
                sendmsg(fd, &parts, &info, flags, Some(&to))?;
            }
            _ => {
                let text = format!("{source} and {destination} are of two families");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
        Ok(())
    }
}

impl AsFd for AdvertSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

const UNREADABLE: Received<'static> = Received {
    source: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    destination: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
    hop_limit: 0,
    payload: &[],
};

/// A raw IPv4 socket hands the header over, too (raw(7)); the kernel has checked its lengths and its checksum.
fn parse_v4(packet: &[u8]) -> Option<Received<'_>> {
    let header: &[u8; IPV4_HEADER_BYTES] = packet.first_chunk()?;
    let header_bytes = usize::from(header[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header_bytes < IPV4_HEADER_BYTES {
        return None;
    }
    let address =
        |at: usize| Ipv4Addr::new(header[at], header[at + 1], header[at + 2], header[at + 3]);
    Some(Received {
        source: address(12).into(),
        destination: address(16).into(),
        hop_limit: header[8],
        payload: packet.get(header_bytes..total_bytes)?,
    })
}

fn in_addr(address: Ipv4Addr) -> libc::in_addr {
    libc::in_addr {
        s_addr: u32::from(address).to_be(),
    }
}

fn prepare_v4(socket: &Socket, ifindex: u32) -> io::Result<()> {
    socket.join_multicast_v4_n(&GROUP_V4, &InterfaceIndexOrAddress::Index(ifindex))?;
    socket.set_multicast_all_v4(false)?;
    socket.set_multicast_loop_v4(false)?;
    socket.set_multicast_ttl_v4(HOP_LIMIT)?;
    socket.set_ttl_v4(HOP_LIMIT)?;
    socket.set_tos_v4(TRAFFIC_CLASS)
}

fn prepare_v6(socket: &Socket, ifindex: u32) -> io::Result<()> {
    socket.join_multicast_v6(&GROUP_V6, ifindex)?;
    socket.set_multicast_if_v6(ifindex)?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_multicast_hops_v6(HOP_LIMIT)?;
    socket.set_unicast_hops_v6(HOP_LIMIT)?;
    socket.set_tclass_v6(TRAFFIC_CLASS)?;
    socket.set_recv_hoplimit_v6(true)?;
    nix::sys::socket::setsockopt(socket, nix::sys::socket::sockopt::Ipv6RecvPacketInfo, &true)?;
    Ok(())
}

fn set_queue_priority(socket: &Socket) -> io::Result<()> {
    let priority = QUEUE_PRIORITY;
    // SAFETY: the value is an int that lives during the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PRIORITY,
            (&raw const priority).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(header_words: u8, total: u16, extra: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0x40 | header_words, 0xc0];
        bytes.extend(total.to_be_bytes());
        bytes.extend([0, 0, 0, 0, 255, 112, 0, 0, 10, 0, 0, 1, 224, 0, 0, 18]);
        bytes.extend(extra);
        bytes
    }

    #[test]
    fn the_header_is_taken_off() {
        let bytes = packet(5, 24, b"abcdef");
        let received = parse_v4(&bytes).unwrap();
        assert_eq!(received.source, IpAddr::from([10, 0, 0, 1]));
        assert_eq!(received.destination, IpAddr::V4(GROUP_V4));
        assert_eq!((received.hop_limit, received.payload), (255, &b"abcd"[..]));
        let bytes = packet(6, 28, b"optsabcd");
        assert_eq!(parse_v4(&bytes).unwrap().payload, b"abcd");
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        for bytes in [
            packet(5, 30, b"abcd"),
            packet(4, 24, b"abcd"),
            packet(15, 24, b"abcd"),
            packet(5, 10, b"abcd"),
            packet(5, 24, b"")[..19].to_vec(),
            Vec::new(),
        ] {
            assert_eq!(parse_v4(&bytes), None, "{bytes:?}");
        }
    }
}

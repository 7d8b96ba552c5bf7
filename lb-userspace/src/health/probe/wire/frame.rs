//! Frames of the wire: from bytes that anybody may have sent to what they are for, and back. Pure.

use std::net::{IpAddr, SocketAddr};

use lb_common::abi::LinkRewrite;
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    Icmpv4Message, Icmpv4Packet, Icmpv6Message, Icmpv6Packet, IpProtocol, IpRepr, Ipv4Packet,
    Ipv6Packet, TcpPacket, UdpPacket, UdpRepr,
};

/// An Ethernet header. Unit: bytes.
pub(super) const LINK_BYTES: usize = 14;

const ETHER_TYPE_IPV4: u16 = 0x0800;
const ETHER_TYPE_IPV6: u16 = 0x86dd;

/// Both of them. Unit: bytes.
pub(super) const UDP_BYTES: usize = 8;
const IPV6_BYTES: usize = 40;

/// Hops that a question may take. A backend that has the VIP, or whose own container has it behind one more
/// hop, is reached with two. One that has not, and forwards packets, sends it back to the balancer: there
/// the datapath must not steer it to another backend, whose answer would pass for this one's; with one hop
/// left it drops it.
pub(super) const HOP_LIMIT: u8 = 2;

/// The address family of a wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    pub(super) const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    pub(super) const fn ether_type(self) -> u16 {
        match self {
            Self::V4 => ETHER_TYPE_IPV4,
            Self::V6 => ETHER_TYPE_IPV6,
        }
    }

    /// The header that is sent. Unit: bytes.
    pub(super) const fn ip_bytes(self) -> usize {
        match self {
            Self::V4 => 20,
            Self::V6 => IPV6_BYTES,
        }
    }
}

/// What is spoken over IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::health::probe) enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP's or ICMPv6's echo.
    Echo,
}

/// Who talks with whom: what an answer is told by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Conversation {
    /// What is spoken.
    pub(super) transport: Transport,
    /// Our address and port; for an echo, its id.
    pub(super) local: SocketAddr,
    /// The VIP and its port; for an echo, 0.
    pub(super) remote: SocketAddr,
}

/// Whether the checksum of a transport header is to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Checksum {
    /// It came over a wire.
    Verify,
    /// The kernel has done so, or it never left this machine and is to be filled in by hardware that it
    /// does not meet.
    Trusted,
}

/// Something for one of our conversations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arrival<'a> {
    pub(super) conversation: Conversation,
    pub(super) what: What<'a>,
}

/// What has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What<'a> {
    /// A packet of the conversation.
    Packet {
        /// With its IP header, without padding.
        packet: &'a [u8],
        /// UDP's data, or the whole ICMP message.
        payload: &'a [u8],
    },
    /// Somebody could not deliver ours.
    Undelivered(Undelivered),
}

/// Why a packet was not delivered, as ICMP says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Undelivered {
    /// Nobody listens at the port.
    Port,
    /// A filter forbids it.
    Prohibited,
    /// No way to the address.
    Address,
    /// It was passed on too often: see [`HOP_LIMIT`].
    HopLimit,
}

/// What a frame of this family is for; `None` if it is for none of us, or not sound.
pub(super) fn parse(family: Family, frame: &[u8], checksum: Checksum) -> Option<Arrival<'_>> {
    let (header, packet) = frame.split_at_checked(LINK_BYTES)?;
    if header[12..] != family.ether_type().to_be_bytes() {
        return None;
    }
    match family {
        Family::V4 => parse_v4(packet, checksum),
        Family::V6 => parse_v6(packet, checksum),
    }
}

fn parse_v4(bytes: &[u8], checksum: Checksum) -> Option<Arrival<'_>> {
    let ip = Ipv4Packet::new_checked(bytes).ok()?;
    let is_fragment = ip.more_frags() || ip.frag_offset() != 0;
    if ip.version() != 4 || is_fragment || !ip.verify_checksum() {
        return None;
    }
    let packet = bytes.get(..usize::from(ip.total_len()))?;
    let payload = packet.get(usize::from(ip.header_len())..)?;
    let (from, to) = (IpAddr::V4(ip.src_addr()), IpAddr::V4(ip.dst_addr()));
    match ip.next_header() {
        IpProtocol::Icmp => of_icmp(from, to, packet, payload, checksum),
        protocol => of_ports(protocol, from, to, packet, payload, checksum),
    }
}

/// Extension headers are not looked behind: nobody answers with any.
fn parse_v6(bytes: &[u8], checksum: Checksum) -> Option<Arrival<'_>> {
    let ip = Ipv6Packet::new_checked(bytes).ok()?;
    if ip.version() != 6 {
        return None;
    }
    let packet = bytes.get(..ip.total_len())?;
    let payload = packet.get(IPV6_BYTES..)?;
    let (from, to) = (IpAddr::V6(ip.src_addr()), IpAddr::V6(ip.dst_addr()));
    match ip.next_header() {
        IpProtocol::Icmpv6 => of_icmpv6(ip, packet, payload, checksum),
        protocol => of_ports(protocol, from, to, packet, payload, checksum),
    }
}

fn of_ports<'a>(
    protocol: IpProtocol,
    from: IpAddr,
    to: IpAddr,
    packet: &'a [u8],
    payload: &'a [u8],
    checksum: Checksum,
) -> Option<Arrival<'a>> {
    let is_trusted = checksum == Checksum::Trusted;
    let (transport, source, destination, payload) = match protocol {
        IpProtocol::Tcp => {
            let tcp = TcpPacket::new_checked(payload).ok()?;
            if !is_trusted && !tcp.verify_checksum(&from.into(), &to.into()) {
                return None;
            }
            (Transport::Tcp, tcp.src_port(), tcp.dst_port(), payload)
        }
        IpProtocol::Udp => {
            let udp = UdpPacket::new_checked(payload).ok()?;
            if !is_trusted && !udp.verify_checksum(&from.into(), &to.into()) {
                return None;
            }
            let data = payload.get(UDP_BYTES..usize::from(udp.len()))?;
            (Transport::Udp, udp.src_port(), udp.dst_port(), data)
        }
        _ => return None,
    };
    Some(Arrival {
        conversation: Conversation {
            transport,
            local: SocketAddr::new(to, destination),
            remote: SocketAddr::new(from, source),
        },
        what: What::Packet { packet, payload },
    })
}

fn of_icmp<'a>(
    from: IpAddr,
    to: IpAddr,
    packet: &'a [u8],
    payload: &'a [u8],
    checksum: Checksum,
) -> Option<Arrival<'a>> {
    let icmp = Icmpv4Packet::new_checked(payload).ok()?;
    if checksum == Checksum::Verify && !icmp.verify_checksum() {
        return None;
    }
    let why = match (icmp.msg_type(), icmp.msg_code()) {
        (Icmpv4Message::EchoReply, 0) => {
            return Some(echo_reply(from, to, icmp.echo_ident(), packet, payload));
        }
        (Icmpv4Message::DstUnreachable, 3) => Undelivered::Port,
        // RFC 1812 section 5.2.7.1: administratively prohibited.
        (Icmpv4Message::DstUnreachable, 9 | 10 | 13) => Undelivered::Prohibited,
        (Icmpv4Message::DstUnreachable, code) if code != 4 => Undelivered::Address,
        (Icmpv4Message::TimeExceeded, 0) => Undelivered::HopLimit,
        _ => return None,
    };
    undelivered(quoted_v4(payload.get(8..)?)?, why)
}

fn of_icmpv6<'a>(
    ip: Ipv6Packet<&[u8]>,
    packet: &'a [u8],
    payload: &'a [u8],
    checksum: Checksum,
) -> Option<Arrival<'a>> {
    let (from, to) = (ip.src_addr(), ip.dst_addr());
    let icmp = Icmpv6Packet::new_checked(payload).ok()?;
    if checksum == Checksum::Verify && !icmp.verify_checksum(&from, &to) {
        return None;
    }
    let why = match (icmp.msg_type(), icmp.msg_code()) {
        (Icmpv6Message::EchoReply, 0) => {
            let (from, to) = (IpAddr::V6(from), IpAddr::V6(to));
            return Some(echo_reply(from, to, icmp.echo_ident(), packet, payload));
        }
        (Icmpv6Message::DstUnreachable, 4) => Undelivered::Port,
        // RFC 4443 section 3.1: administratively prohibited, source policy, reject route.
        (Icmpv6Message::DstUnreachable, 1 | 5 | 6) => Undelivered::Prohibited,
        (Icmpv6Message::DstUnreachable, _) => Undelivered::Address,
        (Icmpv6Message::TimeExceeded, 0) => Undelivered::HopLimit,
        _ => return None,
    };
    undelivered(quoted_v6(payload.get(8..)?)?, why)
}

fn echo_reply<'a>(
    from: IpAddr,
    to: IpAddr,
    id: u16,
    packet: &'a [u8],
    payload: &'a [u8],
) -> Arrival<'a> {
    Arrival {
        conversation: Conversation {
            transport: Transport::Echo,
            local: SocketAddr::new(to, id),
            remote: SocketAddr::new(from, 0),
        },
        what: What::Packet { packet, payload },
    }
}

fn undelivered(conversation: Conversation, why: Undelivered) -> Option<Arrival<'static>> {
    Some(Arrival {
        conversation,
        what: What::Undelivered(why),
    })
}

/// The conversation of a packet of ours that an error quotes: its header and eight bytes more, by RFC 792
/// (so its length may be said to be more than is there).
fn quoted_v4(quote: &[u8]) -> Option<Conversation> {
    let ip = Ipv4Packet::new_unchecked(quote.get(..20)?);
    let l4 = quote.get(usize::from(ip.header_len()).max(20)..)?;
    let (from, to) = (IpAddr::V4(ip.src_addr()), IpAddr::V4(ip.dst_addr()));
    quoted(ip.version(), 4, ip.next_header(), from, to, l4)
}

fn quoted_v6(quote: &[u8]) -> Option<Conversation> {
    let ip = Ipv6Packet::new_unchecked(quote.get(..IPV6_BYTES)?);
    let l4 = quote.get(IPV6_BYTES..)?;
    let (from, to) = (IpAddr::V6(ip.src_addr()), IpAddr::V6(ip.dst_addr()));
    quoted(ip.version(), 6, ip.next_header(), from, to, l4)
}

fn quoted(
    version: u8,
    expected_version: u8,
    protocol: IpProtocol,
    from: IpAddr,
    to: IpAddr,
    l4: &[u8],
) -> Option<Conversation> {
    let word = |at: usize| Some(u16::from_be_bytes([*l4.get(at)?, *l4.get(at + 1)?]));
    let (transport, local, remote) = match protocol {
        IpProtocol::Tcp => (Transport::Tcp, word(0)?, word(2)?),
        IpProtocol::Udp => (Transport::Udp, word(0)?, word(2)?),
        IpProtocol::Icmp | IpProtocol::Icmpv6 => (Transport::Echo, word(4)?, 0),
        _ => return None,
    };
    (version == expected_version).then_some(Conversation {
        transport,
        local: SocketAddr::new(from, local),
        remote: SocketAddr::new(to, remote),
    })
}

/// Writes the Ethernet header at the begin of a frame.
pub(super) fn write_link(frame: &mut [u8], link: &LinkRewrite, family: Family) {
    frame[..6].copy_from_slice(&link.destination());
    frame[6..12].copy_from_slice(&link.source());
    frame[12..LINK_BYTES].copy_from_slice(&family.ether_type().to_be_bytes());
}

/// A datagram as a frame.
pub(super) fn udp(conversation: &Conversation, link: &LinkRewrite, payload: &[u8]) -> Vec<u8> {
    let header = UdpRepr {
        src_port: conversation.local.port(),
        dst_port: conversation.remote.port(),
    };
    let length = UDP_BYTES + payload.len();
    packet(conversation, link, IpProtocol::Udp, length, |l4, ip| {
        header.emit(
            &mut UdpPacket::new_unchecked(l4),
            &ip.src_addr(),
            &ip.dst_addr(),
            payload.len(),
            |data| data.copy_from_slice(payload),
            &ChecksumCapabilities::default(),
        );
    })
}

/// An echo request as a frame; `message` is the whole of it, at least its 8 bytes of header, but for id and
/// checksum.
pub(super) fn echo(conversation: &Conversation, link: &LinkRewrite, message: &[u8]) -> Vec<u8> {
    let id = conversation.local.port();
    let protocol = match Family::of(conversation.local.ip()) {
        Family::V4 => IpProtocol::Icmp,
        Family::V6 => IpProtocol::Icmpv6,
    };
    packet(conversation, link, protocol, message.len(), |l4, ip| {
        l4.copy_from_slice(message);
        match ip {
            IpRepr::Ipv4(_) => {
                let mut icmp = Icmpv4Packet::new_unchecked(l4);
                icmp.set_echo_ident(id);
                icmp.fill_checksum();
            }
            IpRepr::Ipv6(ip) => {
                let mut icmp = Icmpv6Packet::new_unchecked(l4);
                icmp.set_echo_ident(id);
                icmp.fill_checksum(&ip.src_addr, &ip.dst_addr);
            }
        }
    })
}

fn packet(
    conversation: &Conversation,
    link: &LinkRewrite,
    protocol: IpProtocol,
    l4_bytes: usize,
    fill: impl FnOnce(&mut [u8], &IpRepr),
) -> Vec<u8> {
    let (from, to) = (conversation.local.ip(), conversation.remote.ip());
    let family = Family::of(from);
    let l4_offset = LINK_BYTES + family.ip_bytes();
    let mut frame = vec![0; l4_offset + l4_bytes];
    write_link(&mut frame, link, family);
    let (head, l4) = frame.split_at_mut(l4_offset);
    let ip = IpRepr::new(from.into(), to.into(), protocol, l4_bytes, HOP_LIMIT);
    ip.emit(&mut head[LINK_BYTES..], &ChecksumCapabilities::default());
    fill(l4, &ip);
    frame
}

#[cfg(test)]
#[path = "samples.rs"]
pub(super) mod samples;

#[cfg(test)]
#[path = "frame_tests.rs"]
mod tests;

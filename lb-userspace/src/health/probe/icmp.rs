//! Echo requests (RFC 792, RFC 4443).
//!
//! Each probe has a socket of its own, connected to its target: the kernel then gives it what that address
//! sends, and nothing else; there is no task between probes, and a probe that is dropped leaves nothing. A
//! ping socket is preferred, since the kernel finds it by its id; where `net.ipv4.ping_group_range` allows
//! none, a raw one does. Those are in a list, through which the kernel looks for each ICMP packet, and where a
//! reply may be lost while another socket leaves it (measured, at 7,000 probes a second: 28 in 100,000). So a
//! request without a reply is repeated.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};
use ring::rand::{SecureRandom, SystemRandom};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

use super::{Target, connect, wire};
use crate::health::outcome::{Failure, FailureKind, Observed};

/// ICMP: type, code, checksum, id, sequence number.
const HEADER_BYTES: usize = 8;

/// What an answer has to bring back. Unit: bytes.
const COOKIE_BYTES: usize = 16;

/// An IPv4 header with options, and the largest answer that is of interest. Unit: bytes.
const PACKET_MAX_BYTES: usize = 60 + HEADER_BYTES + COOKIE_BYTES;

/// After so long without a reply, the request is sent again, for as long as the probe may take.
const REPEAT: Duration = Duration::from_millis(250);

/// Types of message.
struct Types {
    request: u8,
    reply: u8,
}

const V4: Types = Types {
    request: 8,
    reply: 0,
};
const V6: Types = Types {
    request: 128,
    reply: 129,
};

impl Types {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => V4,
            IpAddr::V6(_) => V6,
        }
    }
}

/// Sends echo requests until there is a reply.
pub(super) async fn icmp(target: Target, observed: &mut Observed) -> Result<(), Failure> {
    let socket = Echoes::open(target, observed).await?;
    let types = Types::of(target.address.ip());
    let cookie = cookie()?;
    let request = request(types.request, &cookie);
    loop {
        socket.send(&request).await?;
        let replied = replied(&socket, types.reply, &cookie);
        if let Ok(result) = tokio::time::timeout(REPEAT, replied).await {
            return result;
        }
    }
}

/// Waits for the reply to this cookie, whichever request it is to.
async fn replied(socket: &Echoes, reply: u8, cookie: &Cookie) -> Result<(), Failure> {
    let mut packet = [0; PACKET_MAX_BYTES];
    loop {
        let length = socket.receive(&mut packet).await?;
        if is_reply(&packet[..length], reply, cookie) {
            return Ok(());
        }
    }
}

/// Messages to and from one target.
enum Echoes {
    /// By the kernel.
    Kernel(UdpSocket),
    /// To its VIP.
    Wire(wire::Packets),
}

impl Echoes {
    /// Notes what a time-out means.
    async fn open(target: Target, observed: &mut Observed) -> Result<Self, Failure> {
        match target.vip {
            None => {
                observed.doing = "no echo reply".into();
                Ok(Self::Kernel(open(target)?))
            }
            Some(vip) => {
                observed.doing = wire::silence(target, vip).into();
                Ok(Self::Wire(wire::echo(target, vip).await?))
            }
        }
    }

    async fn send(&self, request: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Kernel(socket) => {
                let sent = socket.send(request).await;
                sent.map(drop).map_err(|error| failed(&error))
            }
            Self::Wire(packets) => packets.send_or_fail(request),
        }
    }

    async fn receive(&self, packet: &mut [u8]) -> Result<usize, Failure> {
        match self {
            Self::Kernel(socket) => socket.recv(packet).await.map_err(|error| failed(&error)),
            Self::Wire(packets) => packets.receive_or_fail(packet).await,
        }
    }
}

/// Tokio's type for datagrams: to the kernel, a connected socket of ICMP is one as well.
fn open(target: Target) -> Result<UdpSocket, Failure> {
    let address = target.address.ip();
    let cannot = |what: &str, error: io::Error| {
        Failure::new(FailureKind::Local, format_args!("cannot {what}: {error}"))
    };
    let socket = socket(address).map_err(|error| {
        let what = "open a socket for ICMP (needs CAP_NET_RAW, or net.ipv4.ping_group_range)";
        cannot(what, error)
    })?;
    if let Some(source) = target.source {
        socket
            .bind(&SocketAddr::new(source, 0).into())
            .map_err(|error| cannot(&format!("ask from {source}"), error))?;
    }
    let mut to = target.address;
    to.set_port(0);
    socket.connect(&to.into()).map_err(|error| failed(&error))?;
    UdpSocket::from_std(socket.into()).map_err(|error| cannot("wait for a socket", error))
}

/// A ping socket, or else a raw one; in both, errors that routers report are errors of the socket.
fn socket(address: IpAddr) -> io::Result<Socket> {
    let (domain, protocol) = match address {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::DGRAM, Some(protocol))
        .or_else(|_| Socket::new(domain, Type::RAW, Some(protocol)))?;
    socket.set_nonblocking(true)?;
    match address {
        IpAddr::V4(_) => setsockopt(&socket, sockopt::Ipv4RecvErr, &true)?,
        IpAddr::V6(_) => setsockopt(&socket, sockopt::Ipv6RecvErr, &true)?,
    }
    Ok(socket)
}

/// Id, sequence number and what follows them: all random, so that no reply to another probe fits.
struct Cookie {
    id: [u8; 2],
    sequence: [u8; 2],
    data: [u8; COOKIE_BYTES],
}

fn cookie() -> Result<Cookie, Failure> {
    let mut cookie = Cookie {
        id: [0; 2],
        sequence: [0; 2],
        data: [0; COOKIE_BYTES],
    };
    let random = SystemRandom::new();
    [&mut cookie.id[..], &mut cookie.sequence, &mut cookie.data]
        .into_iter()
        .try_for_each(|part| random.fill(part))
        .map_err(|_| Failure::new(FailureKind::Local, "the system gave no random bytes"))?;
    Ok(cookie)
}

/// The kernel writes ICMPv6's checksum, and a ping socket's id and checksum; a raw one's are ours.
fn request(message_type: u8, cookie: &Cookie) -> Vec<u8> {
    let mut request = vec![message_type, 0, 0, 0];
    request.extend(cookie.id);
    request.extend(cookie.sequence);
    request.extend(cookie.data);
    let checksum = checksum(&request).to_be_bytes();
    request[2..4].copy_from_slice(&checksum);
    request
}

/// RFC 1071, over an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes
        .chunks_exact(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Whether this is the reply. A raw IPv4 socket gives the IP header too. The id is not compared: in a
/// ping socket it is the kernel's choice, and compared by the kernel; sequence number and data are ours.
fn is_reply(packet: &[u8], reply: u8, cookie: &Cookie) -> bool {
    let icmp = match packet.first() {
        Some(first) if reply == V4.reply && first >> 4 == 4 => {
            let header_bytes = usize::from(first & 0x0f) * 4;
            packet.get(header_bytes..).unwrap_or_default()
        }
        _ => packet,
    };
    let Some((header, data)) = icmp.split_at_checked(HEADER_BYTES) else {
        return false;
    };
    header[0] == reply && header[1] == 0 && header[6..8] == cookie.sequence && data == cookie.data
}

fn failed(error: &io::Error) -> Failure {
    let (kind, words) = match error.kind() {
        io::ErrorKind::HostUnreachable => (FailureKind::Unreachable, "host unreachable"),
        io::ErrorKind::NetworkUnreachable => (FailureKind::Unreachable, "network unreachable"),
        io::ErrorKind::ConnectionRefused => (FailureKind::Unreachable, "protocol unreachable"),
        io::ErrorKind::PermissionDenied => (FailureKind::Unreachable, connect::FORBIDDEN),
        _ => return Failure::new(FailureKind::Local, format_args!("ICMP: {error}")),
    };
    Failure::new(kind, words)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use crate::health::probe::hostile::{self, ask};
    use crate::model::check::CheckKind;

    fn a_cookie() -> Cookie {
        Cookie {
            id: [1, 2],
            sequence: [3, 4],
            data: *b"0123456789abcdef",
        }
    }

    fn reply_of(types: &Types) -> Vec<u8> {
        let mut reply = request(types.request, &a_cookie());
        reply[0] = types.reply;
        reply
    }

    #[test]
    fn a_request_sums_up_to_its_checksum() {
        let request = request(V4.request, &a_cookie());
        assert_eq!(request.len(), HEADER_BYTES + COOKIE_BYTES);
        assert_eq!(checksum(&request), 0, "with the checksum in it");
        assert_eq!(checksum(&[0xff, 0xff, 0xff, 0xff, 0, 1]), 0xfffe);
    }

    #[test]
    fn a_reply_is_known_with_and_without_an_ip_header() {
        let reply = reply_of(&V4);
        assert!(is_reply(&reply, V4.reply, &a_cookie()));
        for (first, header_bytes) in [(0x45, 20), (0x4f, 60)] {
            let mut header = vec![0; header_bytes];
            header[0] = first;
            assert!(is_reply(
                &[header, reply.clone()].concat(),
                V4.reply,
                &a_cookie()
            ));
        }
        assert!(is_reply(&reply_of(&V6), V6.reply, &a_cookie()));
    }

    #[test]
    fn what_is_not_the_reply_is_not_taken_for_it() {
        let reply = reply_of(&V4);
        assert!(!is_reply(
            &request(V4.request, &a_cookie()),
            V4.reply,
            &a_cookie()
        ));
        for place in [0, 1, 6, 7, HEADER_BYTES, reply.len() - 1] {
            let mut other = reply.clone();
            other[place] ^= 1;
            assert!(!is_reply(&other, V4.reply, &a_cookie()), "byte {place}");
        }
        for length in 0..reply.len() {
            assert!(
                !is_reply(&reply[..length], V4.reply, &a_cookie()),
                "{length} bytes"
            );
        }
        for packet in [&[0x4f_u8][..], &[0x45; 20], &[0x40; 8]] {
            assert!(!is_reply(packet, V4.reply, &a_cookie()), "{packet:?}");
        }
    }

    /// Whether the kernel lets this user have such a socket; a user without privileges may have none.
    fn is_permitted(address: IpAddr) -> bool {
        match socket(address) {
            Ok(_) => true,
            Err(error) => {
                eprintln!("no ICMP for this user, nothing is asked: {error}");
                false
            }
        }
    }

    #[tokio::test]
    async fn loopback_answers() {
        for address in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ] {
            if is_permitted(address) {
                let target = hostile::target(SocketAddr::new(address, 80));
                assert_eq!(ask(&CheckKind::Icmp, target).await.0, Ok(()), "{address}");
            }
        }
    }

    #[tokio::test]
    async fn a_source_that_is_not_here_is_told() {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        if is_permitted(address) {
            let mut target = hostile::target(SocketAddr::new(address, 80));
            target.source = Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)));
            let (kind, reason) = hostile::failure(&CheckKind::Icmp, target).await;
            assert_eq!(kind, FailureKind::Local);
            assert!(reason.contains("192.0.2.1"), "{reason}");
        }
    }
}

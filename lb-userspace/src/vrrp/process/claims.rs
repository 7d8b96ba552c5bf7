//! Who else says on the link that a VIP is there: ARP requests and replies by their sender (RFC 5227 section 2.4),
//! and neighbour advertisements (RFC 4861 section 4.4). What goes to another host alone is not heard.
//!
//! No packet socket is opened for it. At the end of a process the kernel takes 15 ms to close one, and a successor
//! has to wait for that: with two more, it would come too late at short intervals. ARP is heard by the socket that
//! announces; neighbour advertisements by a raw socket, which the kernel closes at once.

use std::collections::BTreeSet;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, LinkAddr, MsgFlags, SockaddrStorage, recvmsg};
use socket2::{Domain, Protocol, Socket, Type};

use crate::netlink::announce::PacketSocket;
use crate::vrrp::router::Claim;

const ETHERNET_BYTES: usize = 14;
const ETHERTYPE_ARP: u16 = 0x0806;
/// Ethernet (1) and IPv4 (0x0800): the first word of an ARP packet.
const ARP_KINDS: u32 = 0x0001_0800;
/// Lengths of their addresses: the half word behind it.
const ARP_LENGTHS: u32 = 0x0604;
/// Where the sender's IPv4 address is in the frame.
const ARP_SENDER_AT: u32 = 28;
/// Longer than an ARP packet, and than a neighbour advertisement with a few options. Unit: bytes.
const PACKET_BYTES: usize = 256;
/// VIPs that the filter compares with: older kernels have room for 20 KB of it (`net.core.optmem_max`). With more
/// VIPs than that, it passes every sender, and they are compared here.
const FILTER_VIPS_MAX: usize = 256;

const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
/// An advertisement without options. Unit: bytes.
const ADVERTISEMENT_BYTES: usize = 24;
const TARGET_LINK_ADDRESS: u8 = 2;
/// RFC 4861 section 7.1.2: it has passed no router.
const HOP_LIMIT: i32 = 255;
/// `ICMP6_FILTER` (`linux/icmpv6.h`).
const ICMP6_FILTER: libc::c_int = 1;

/// Claims taken from one socket in one round.
const CLAIMS_PER_ROUND_MAX: usize = 64;
/// More than the sockets' buffers have room for. Unit: rounds.
const FORGET_ROUNDS_MAX: usize = 64;
/// The pause after some were heard: whoever sends them must not decide how much of the CPU this process, with its
/// real-time priority, takes. Unit: microseconds.
const PAUSE_US: u64 = 10_000;

/// A claim, and the interface that it was heard on.
pub(super) type Heard = (u32, Claim);

/// VIPs to listen for, each on an interface.
pub(super) type Wanted = BTreeSet<(u32, IpAddr)>;

/// Listens, while there is something to listen for.
#[derive(Debug, Default)]
pub(super) struct Ears {
    wanted: Wanted,
    is_bound: bool,
    neighbours: Option<Socket>,
    deaf_until_us: u64,
}

impl Ears {
    /// Listens for claims to these VIPs from now on, and to nothing else. The kernel hands over nothing while there
    /// are none.
    ///
    /// # Errors
    /// What the kernel says. Then less is heard than is wanted.
    pub(super) fn tune(
        &mut self,
        packets: Option<&PacketSocket>,
        wanted: Wanted,
    ) -> io::Result<()> {
        if wanted == self.wanted {
            return Ok(());
        }
        let of_v4 = |wanted: &Wanted| -> BTreeSet<Ipv4Addr> { addresses(wanted).0 };
        let of_v6 = |wanted: &Wanted| -> BTreeSet<Ipv6Addr> { addresses(wanted).1 };
        let former = std::mem::replace(&mut self.wanted, wanted);
        let (v4, v6) = (of_v4(&self.wanted), of_v6(&self.wanted));
        let mut tuned = Ok(());
        if let (Some(packets), true) = (packets, v4 != of_v4(&former)) {
            tuned = self.tune_arp(packets, &v4);
        }
        if v6.is_empty() != of_v6(&former).is_empty() {
            tuned = tuned.and(self.tune_neighbours(v6.is_empty()));
        }
        if former.is_empty() {
            self.forget(packets);
        }
        tuned
    }

    /// What has waited since these VIPs were Active here last is of that time.
    fn forget(&mut self, packets: Option<&PacketSocket>) {
        for _ in 0..FORGET_ROUNDS_MAX {
            self.deaf_until_us = 0;
            let _of_the_past = self.take(packets, 0);
            if self.deaf_until_us == 0 {
                return;
            }
        }
    }

    fn tune_arp(&mut self, packets: &PacketSocket, vips: &BTreeSet<Ipv4Addr>) -> io::Result<()> {
        packets.set_filter(&arp_filter(vips))?;
        if !self.is_bound {
            // The filter is there: nothing else is heard first.
            packets.hear(ETHERTYPE_ARP)?;
            self.is_bound = true;
        }
        Ok(())
    }

    fn tune_neighbours(&mut self, is_deaf: bool) -> io::Result<()> {
        let socket = match self.neighbours.take() {
            Some(socket) => socket,
            None => open_neighbours()?,
        };
        let tuned = set_icmp_filter(&socket, is_deaf);
        self.neighbours = Some(socket);
        tuned
    }

    /// What to wait for, and until when not to.
    pub(super) fn descriptors<'a>(
        &'a self,
        packets: Option<&'a PacketSocket>,
        now_us: u64,
    ) -> impl Iterator<Item = BorrowedFd<'a>> {
        let is_open = !self.wanted.is_empty() && now_us >= self.deaf_until_us;
        let arp = packets.filter(|_| self.is_bound).map(AsFd::as_fd);
        let neighbours = self.neighbours.as_ref().map(AsFd::as_fd);
        arp.into_iter().chain(neighbours).filter(move |_| is_open)
    }

    /// When the pause is over, if there is one.
    pub(super) fn deadline_us(&self, now_us: u64) -> Option<u64> {
        (!self.wanted.is_empty() && now_us < self.deaf_until_us).then_some(self.deaf_until_us)
    }

    /// What was heard since the last time.
    pub(super) fn take(&mut self, packets: Option<&PacketSocket>, now_us: u64) -> Vec<Heard> {
        let mut heard = Vec::new();
        if self.wanted.is_empty() || now_us < self.deaf_until_us {
            return heard;
        }
        let mut taken = 0;
        if let Some(packets) = packets.filter(|_| self.is_bound) {
            taken += take_each(&mut heard, || hear_arp(packets));
        }
        if let Some(socket) = &self.neighbours {
            taken += take_each(&mut heard, || hear_advertisement(socket));
        }
        if taken > 0 {
            self.deaf_until_us = now_us + PAUSE_US;
        }
        heard.retain(|(ifindex, claim)| self.wanted.contains(&(*ifindex, claim.vip)));
        heard
    }
}

/// What one packet is: `None` if none waits, then the claim that it makes, if it does.
type Packet = io::Result<Option<Option<Heard>>>;

/// Takes what waits; returns how many packets that were.
fn take_each(heard: &mut Vec<Heard>, mut next: impl FnMut() -> Packet) -> usize {
    for taken in 0..CLAIMS_PER_ROUND_MAX {
        match next() {
            Ok(None) => return taken,
            Ok(Some(claim)) => heard.extend(claim),
            // An error of the past, such as that a link went down: told once.
            Err(_) => {}
        }
    }
    CLAIMS_PER_ROUND_MAX
}

fn addresses(wanted: &Wanted) -> (BTreeSet<Ipv4Addr>, BTreeSet<Ipv6Addr>) {
    let (mut v4, mut v6) = (BTreeSet::new(), BTreeSet::new());
    for (_, vip) in wanted {
        match vip {
            IpAddr::V4(vip) => drop(v4.insert(*vip)),
            IpAddr::V6(vip) => drop(v6.insert(*vip)),
        }
    }
    (v4, v6)
}

fn hear_arp(packets: &PacketSocket) -> Packet {
    let mut frame = [0; PACKET_BYTES];
    let mut parts = [IoSliceMut::new(&mut frame)];
    let fd = packets.as_fd().as_raw_fd();
    let received = recvmsg::<LinkAddr>(fd, &mut parts, None, MsgFlags::MSG_DONTWAIT);
    let (length_bytes, from) = match received {
        Ok(message) => (message.bytes, message.address),
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let Some(from) = from else {
        return Ok(Some(None));
    };
    let claim = parse_arp(frame.get(..length_bytes).unwrap_or_default());
    Ok(Some(claim.map(|claim| (from.ifindex() as u32, claim))))
}

/// What an ARP packet says of its sender; `None` for what is none, and for a probe, which claims nothing.
fn parse_arp(frame: &[u8]) -> Option<Claim> {
    let arp: &[u8; 28] = frame.get(ETHERNET_BYTES..)?.first_chunk()?;
    let is_ours = arp[..6] == [0, 1, 8, 0, 6, 4];
    let vip = Ipv4Addr::new(arp[14], arp[15], arp[16], arp[17]);
    (is_ours && !vip.is_unspecified()).then(|| Claim {
        vip: vip.into(),
        by: [arp[8], arp[9], arp[10], arp[11], arp[12], arp[13]],
    })
}

fn hear_advertisement(socket: &Socket) -> Packet {
    let mut bytes = [0; PACKET_BYTES];
    let mut control = nix::cmsg_space!(libc::in6_pktinfo, libc::c_int);
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_DONTWAIT;
    let received =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags);
    let message = match received {
        Ok(message) => message,
        Err(Errno::EAGAIN | Errno::EINTR) => return Ok(None),
        Err(errno) => return Err(errno.into()),
    };
    let length_bytes = message.bytes;
    let (mut ifindex, mut hop_limit) = (0, 0);
    for part in message.cmsgs()? {
        match part {
            ControlMessageOwned::Ipv6PacketInfo(info) => ifindex = info.ipi6_ifindex,
            ControlMessageOwned::Ipv6HopLimit(limit) => hop_limit = limit,
            _ => {}
        }
    }
    let claim = (hop_limit == HOP_LIMIT)
        .then(|| parse_advertisement(bytes.get(..length_bytes).unwrap_or_default()));
    Ok(Some(claim.flatten().map(|claim| (ifindex, claim))))
}

/// What a neighbour advertisement says of its target. Without the target's link-layer address it changes nobody's
/// mind (RFC 4861 section 7.2.5).
fn parse_advertisement(message: &[u8]) -> Option<Claim> {
    let (fixed, mut options) = message.split_at_checked(ADVERTISEMENT_BYTES)?;
    if fixed.get(..2)? != [NEIGHBOUR_ADVERTISEMENT, 0] {
        return None;
    }
    let target: [u8; 16] = fixed.get(8..)?.try_into().ok()?;
    loop {
        // Lengths are in units of 8 bytes, and 0 is none (RFC 4861 section 4.6).
        let (kind, units) = (*options.first()?, usize::from(*options.get(1)?));
        let (option, rest) = options.split_at_checked(8 * units.max(1))?;
        if kind == TARGET_LINK_ADDRESS && units == 1 {
            return Some(Claim {
                vip: Ipv6Addr::from(target).into(),
                by: option.get(2..)?.try_into().ok()?,
            });
        }
        options = rest;
    }
}

fn open_neighbours() -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
    set_icmp_filter(&socket, true)?;
    socket.set_nonblocking(true)?;
    socket.set_recv_hoplimit_v6(true)?;
    nix::sys::socket::setsockopt(
        &socket,
        nix::sys::socket::sockopt::Ipv6RecvPacketInfo,
        &true,
    )?;
    Ok(socket)
}

/// Passes neighbour advertisements, or nothing.
fn set_icmp_filter(socket: &Socket, is_deaf: bool) -> io::Result<()> {
    // A bit for each type, set for those that are blocked (RFC 3542 section 3.2).
    let mut blocked = [u32::MAX; 8];
    if !is_deaf {
        let kind = usize::from(NEIGHBOUR_ADVERTISEMENT);
        blocked[kind / 32] &= !(1 << (kind % 32));
    }
    // SAFETY: the value lives during the call, and its size is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_ICMPV6,
            ICMP6_FILTER,
            (&raw const blocked).cast(),
            size_of_val(&blocked) as libc::socklen_t,
        )
    };
    Errno::result(result)?;
    Ok(())
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

/// Passes ARP packets for this host or for all whose sender has one of these addresses; nothing without addresses.
fn arp_filter(vips: &BTreeSet<Ipv4Addr>) -> Vec<libc::sock_filter> {
    use libc::{BPF_ABS, BPF_B, BPF_H, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
    let load = |width: u32, at: u32| step(BPF_LD | width | BPF_ABS, 0, 0, at);
    let skip_if = |value: u32| step(BPF_JMP | BPF_JEQ | BPF_K, 1, 0, value);
    let skip_unless = |value: u32| step(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, value);
    let (pass, refuse) = (
        step(BPF_RET | BPF_K, 0, 0, PACKET_BYTES as u32),
        step(BPF_RET | BPF_K, 0, 0, 0),
    );
    if vips.is_empty() {
        return vec![refuse];
    }
    let packet_type = (libc::SKF_AD_OFF + libc::SKF_AD_PKTTYPE).cast_unsigned();
    let mut steps = vec![
        // On its way to another host: a VLAN that is none of ours, too.
        load(BPF_B, packet_type),
        skip_unless(libc::PACKET_OTHERHOST.into()),
        refuse,
        load(BPF_W, ETHERNET_BYTES as u32),
        skip_if(ARP_KINDS),
        refuse,
        load(BPF_H, ETHERNET_BYTES as u32 + 4),
        skip_if(ARP_LENGTHS),
        refuse,
    ];
    if vips.len() > FILTER_VIPS_MAX {
        steps.push(pass);
        return steps;
    }
    steps.push(load(BPF_W, ARP_SENDER_AT));
    for vip in vips {
        steps.extend([skip_unless(vip.to_bits()), pass]);
    }
    steps.push(refuse);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::view::LinkAddress;

    const STRANGER: LinkAddress = [2, 0, 0, 0, 0, 0x66];

    fn arp(operation: u8, sender: [u8; 4]) -> Vec<u8> {
        let mut frame = [[0xff; 6], STRANGER].concat();
        frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, operation]);
        frame.extend(STRANGER);
        frame.extend(sender);
        frame.extend([0; 6]);
        frame.extend([203, 0, 113, 10]);
        frame
    }

    #[test]
    fn requests_and_replies_claim_their_senders_address_and_probes_none() {
        let claim = Some(Claim {
            vip: [203, 0, 113, 10].into(),
            by: STRANGER,
        });
        for operation in [1, 2] {
            let frame = arp(operation, [203, 0, 113, 10]);
            assert_eq!(parse_arp(&frame), claim);
            for end in 0..frame.len() {
                assert_eq!(parse_arp(&frame[..end]), None, "{end} bytes");
            }
        }
        assert_eq!(parse_arp(&arp(1, [0; 4])), None);
        let mut other = arp(1, [203, 0, 113, 10]);
        other[15] = 6;
        assert_eq!(parse_arp(&other), None);
    }

    fn advertisement(options: &[&[u8]]) -> Vec<u8> {
        let target: Ipv6Addr = "2001:db8::10".parse().unwrap();
        let mut message = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, 0x20, 0, 0, 0];
        message.extend(target.octets());
        message.extend(options.concat());
        message
    }

    #[test]
    fn an_advertisement_claims_its_target_for_the_address_in_its_option() {
        let option = [&[TARGET_LINK_ADDRESS, 1], &STRANGER[..]].concat();
        let nonce = [14, 1, 9, 9, 9, 9, 9, 9];
        let claim = Some(Claim {
            vip: "2001:db8::10".parse().unwrap(),
            by: STRANGER,
        });
        let message = advertisement(&[&nonce, &option]);
        assert_eq!(parse_advertisement(&message), claim);
        for end in 0..message.len() {
            assert_eq!(parse_advertisement(&message[..end]), None, "{end} bytes");
        }
        for options in [&[][..], &[&nonce[..]], &[&[0; 8]], &[&[2, 0, 0, 0]]] {
            assert_eq!(parse_advertisement(&advertisement(options)), None);
        }
        let mut solicitation = message;
        solicitation[0] = 135;
        assert_eq!(parse_advertisement(&solicitation), None);
    }

    /// What the filter says of a frame to all. Conditions jump by one at most.
    fn passes(filter: &[libc::sock_filter], frame: &[u8], packet_type: u8) -> bool {
        let word = |at: usize, width: usize| {
            let bytes = frame[at..at + width].iter();
            bytes.fold(0_u32, |word, byte| word << 8 | u32::from(*byte))
        };
        let (mut at, mut loaded) = (0, 0);
        loop {
            let step = filter[at];
            at += 1;
            match u32::from(step.code) & 0x07 {
                libc::BPF_LD if step.k.cast_signed() < 0 => loaded = packet_type.into(),
                libc::BPF_LD => {
                    let width = match u32::from(step.code) & 0x18 {
                        libc::BPF_W => 4,
                        libc::BPF_H => 2,
                        _ => 1,
                    };
                    loaded = word(step.k as usize, width);
                }
                libc::BPF_JMP if loaded == step.k => at += usize::from(step.jt),
                libc::BPF_JMP => at += usize::from(step.jf),
                _ => return step.k != 0,
            }
        }
    }

    #[test]
    fn the_filter_passes_those_senders_and_nothing_else() {
        let vips = |count: u8| (10..10 + count).map(|last| Ipv4Addr::new(203, 0, 113, last));
        let filter = arp_filter(&vips(3).collect());
        let all = libc::PACKET_BROADCAST;
        for (last, is_vip) in [(9, false), (10, true), (11, true), (12, true), (13, false)] {
            let frame = arp(2, [203, 0, 113, last]);
            assert_eq!(passes(&filter, &frame, all), is_vip, "{last}");
        }
        let frame = arp(1, [203, 0, 113, 10]);
        assert!(!passes(&filter, &frame, libc::PACKET_OTHERHOST));
        let mut other = frame.clone();
        other[15] = 6;
        assert!(!passes(&filter, &other, all));
        let mut other = frame.clone();
        other[18] = 8;
        assert!(!passes(&filter, &other, all));
        assert!(!passes(&arp_filter(&BTreeSet::new()), &frame, all));
        let many: BTreeSet<Ipv4Addr> = (0..=FILTER_VIPS_MAX as u32).map(Ipv4Addr::from).collect();
        assert!(passes(&arp_filter(&many), &frame, all));
        assert!(arp_filter(&many).len() < 4096);
    }
}

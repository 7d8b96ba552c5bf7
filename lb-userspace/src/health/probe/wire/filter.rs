//! What the kernel hands to a wire's socket: the daemon is not woken for anybody else's packets.
//!
//! A classic BPF program for each family. It lets through what is sent to this node, untagged and whole, and
//! is TCP or UDP to a port of [`ports`](super::ports), an echo reply to an id of that range, or an ICMP
//! error. Packets that XDP steers are never seen here.

use libc::{
    BPF_ABS, BPF_B, BPF_H, BPF_IND, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_LDX,
    BPF_MSH, BPF_RET, SKF_AD_OFF, SKF_AD_PKTTYPE, SKF_AD_VLAN_TAG_PRESENT,
};
use socket2::SockFilter;

use super::frame::{Family, LINK_BYTES};
use super::ports::PORT_MIN;

const TCP: u32 = 6;
const UDP: u32 = 17;
const ICMP: u32 = 1;
const ICMPV6: u32 = 58;

/// The whole packet is taken: longer than any.
const TAKE: SockFilter = statement(BPF_RET | BPF_K, 0x4_0000);
const LEAVE: SockFilter = statement(BPF_RET | BPF_K, 0);

const fn statement(code: u32, k: u32) -> SockFilter {
    SockFilter::new(code as u16, 0, 0, k)
}

/// A jump over so many instructions if the comparison holds, else over so many others.
const fn jump(compare: u32, k: u32, yes: u8, no: u8) -> SockFilter {
    SockFilter::new((BPF_JMP | compare | BPF_K) as u16, yes, no, k)
}

const fn ancillary(what: i32) -> u32 {
    SKF_AD_OFF.wrapping_add(what) as u32
}

const fn byte_at(offset: u32) -> SockFilter {
    statement(BPF_LD | BPF_B | BPF_ABS, offset)
}

const fn half_at(offset: u32) -> SockFilter {
    statement(BPF_LD | BPF_H | BPF_ABS, offset)
}

/// Relative to the index register, which holds the IPv4 header's length.
const fn byte_behind(offset: u32) -> SockFilter {
    statement(BPF_LD | BPF_B | BPF_IND, offset)
}

const fn half_behind(offset: u32) -> SockFilter {
    statement(BPF_LD | BPF_H | BPF_IND, offset)
}

/// The program for one family.
pub(super) fn program(family: Family) -> Vec<SockFilter> {
    match family {
        Family::V4 => v4().into(),
        Family::V6 => v6().into(),
    }
}

const L3: u32 = LINK_BYTES as u32;
const LOWEST: u32 = PORT_MIN as u32;
/// `PACKET_HOST`: to this node's Ethernet address.
const TO_US: u32 = libc::PACKET_HOST as u32;

/// The jumps count instructions: 19 is [`TAKE`], 20 is [`LEAVE`].
const fn v4() -> [SockFilter; 21] {
    [
        byte_at(ancillary(SKF_AD_PKTTYPE)),
        jump(BPF_JEQ, TO_US, 0, 18),
        byte_at(ancillary(SKF_AD_VLAN_TAG_PRESENT)),
        jump(BPF_JEQ, 0, 0, 16),
        // "More fragments", or an offset.
        half_at(L3 + 6),
        jump(BPF_JSET, 0x3fff, 14, 0),
        statement(BPF_LDX | BPF_B | BPF_MSH, L3),
        byte_at(L3 + 9),
        jump(BPF_JEQ, TCP, 2, 0),
        jump(BPF_JEQ, UDP, 1, 0),
        jump(BPF_JEQ, ICMP, 2, 9),
        // TCP, UDP: the destination port.
        half_behind(L3 + 2),
        jump(BPF_JGE, LOWEST, 6, 7),
        // ICMP: unreachable (3), time exceeded (11); an echo reply (0) with an id of ours.
        byte_behind(L3),
        jump(BPF_JEQ, 3, 4, 0),
        jump(BPF_JEQ, 11, 3, 0),
        jump(BPF_JEQ, 0, 0, 3),
        half_behind(L3 + 4),
        jump(BPF_JGE, LOWEST, 0, 1),
        TAKE,
        LEAVE,
    ]
}

/// The jumps count instructions: 16 is [`TAKE`], 17 is [`LEAVE`].
const fn v6() -> [SockFilter; 18] {
    [
        byte_at(ancillary(SKF_AD_PKTTYPE)),
        jump(BPF_JEQ, TO_US, 0, 15),
        byte_at(ancillary(SKF_AD_VLAN_TAG_PRESENT)),
        jump(BPF_JEQ, 0, 0, 13),
        byte_at(L3 + 6),
        jump(BPF_JEQ, TCP, 2, 0),
        jump(BPF_JEQ, UDP, 1, 0),
        jump(BPF_JEQ, ICMPV6, 2, 9),
        // TCP, UDP: the destination port.
        half_at(L3 + 42),
        jump(BPF_JGE, LOWEST, 6, 7),
        // ICMPv6: unreachable (1), time exceeded (3); an echo reply (129) with an id of ours.
        byte_at(L3 + 40),
        jump(BPF_JEQ, 1, 4, 0),
        jump(BPF_JEQ, 3, 3, 0),
        jump(BPF_JEQ, 129, 0, 3),
        half_at(L3 + 44),
        jump(BPF_JGE, LOWEST, 0, 1),
        TAKE,
        LEAVE,
    ]
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;
    use crate::health::probe::wire::frame::samples;

    /// Whether the kernel lets a frame through to a socket with this filter: one of another family does as
    /// well, since to the filter all packets are bytes.
    fn passes(family: Family, frame: &[u8]) -> bool {
        let (from, to) = UnixDatagram::pair().unwrap();
        let filter = program(family);
        socket2::SockRef::from(&to).attach_filter(&filter).unwrap();
        to.set_nonblocking(true).unwrap();
        from.send(frame).unwrap();
        to.recv(&mut [0; 4096]).is_ok()
    }

    #[test]
    fn answers_to_our_ports_pass_and_nothing_else_does() {
        for sample in samples::all() {
            let passed = passes(sample.family, &sample.frame);
            assert_eq!(passed, sample.is_ours, "{}", sample.name);
        }
    }

    #[test]
    fn what_is_cut_off_does_not_pass() {
        for sample in samples::all() {
            for length in 0..LINK_BYTES + 20 {
                let passed = passes(sample.family, &sample.frame[..length]);
                assert!(!passed, "{length} bytes of {}", sample.name);
            }
        }
    }
}

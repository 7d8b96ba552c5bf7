//! Ethernet II with up to two VLAN tags (IEEE 802.1Q, 802.1ad).

use bytemuck::{Pod, Zeroable};
use network_types::eth::EtherType;

use super::ParseError;
use crate::limits::VLAN_DEPTH_MAX;
use crate::packet::{OutOfBounds, Packet};

/// Bytes in the header.
pub const ETH_LEN: usize = size_of::<EthHdr>();
/// Bytes in a VLAN tag, counted from the end of the Ethernet header.
pub const VLAN_LEN: usize = size_of::<VlanHdr>();

/// IPv4, network byte order.
pub const ETHER_TYPE_IPV4_BE: u16 = EtherType::Ipv4 as u16;
/// IPv6, network byte order.
pub const ETHER_TYPE_IPV6_BE: u16 = EtherType::Ipv6 as u16;
/// 802.1Q customer tag, network byte order.
pub const ETHER_TYPE_VLAN_BE: u16 = EtherType::Ieee8021q as u16;
/// 802.1ad service tag, network byte order.
pub const ETHER_TYPE_QINQ_BE: u16 = EtherType::Ieee8021ad as u16;

/// The Ethernet header.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct EthHdr {
    /// Destination and source address, in 16-bit words.
    pub addresses: [u16; 6],
    /// Type of the payload.
    pub ether_type_be: u16,
}

/// A VLAN tag without its leading type, which is the previous header's.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct VlanHdr {
    /// Priority, drop eligibility, VLAN id.
    pub tci_be: u16,
    /// Type of the payload.
    pub ether_type_be: u16,
}

/// What follows the link layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkView {
    /// Type of the payload, network byte order.
    pub ether_type_be: u16,
    /// Where it starts.
    pub l3_offset: usize,
    /// VLAN tags in the frame.
    pub tag_count: usize,
}

/// Whether the frame goes to a group: broadcast or multicast (IEEE 802.3 section 3.2.3, the first bit on
/// the wire). A unicast packet in such a frame is for many hosts or for none.
#[inline(always)]
const fn is_to_group(eth: &EthHdr) -> bool {
    eth.addresses[0].to_ne_bytes()[0] & 1 != 0
}

/// Sends the frame back: destination and source change places.
///
/// # Errors
/// [`OutOfBounds`].
#[inline(always)]
pub fn swap_addresses<P: Packet>(packet: &mut P) -> Result<(), OutOfBounds> {
    let (destination_head, destination_tail): (u32, u16) = (packet.load(0)?, packet.load(4)?);
    let (source_head, source_tail): (u32, u16) = (packet.load(6)?, packet.load(10)?);
    packet.store(0, source_head)?;
    packet.store(4, source_tail)?;
    packet.store(6, destination_head)?;
    packet.store(10, destination_tail)
}

/// Parses the Ethernet header and skips up to [`VLAN_DEPTH_MAX`] tags. With more tags than that,
/// the type is still a tag's, and the frame is none of ours.
///
/// # Errors
/// [`ParseError::Truncated`]; [`ParseError::Malformed`] for a frame to a group of hosts, which no
/// steered packet comes in.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P) -> Result<LinkView, ParseError> {
    let eth: EthHdr = packet.load(0)?;
    if is_to_group(&eth) {
        return Err(ParseError::Malformed);
    }
    let mut ether_type_be = eth.ether_type_be;
    let mut l3_offset = ETH_LEN;
    let mut tag_count = 0;
    if !is_tag(ether_type_be) {
        return Ok(LinkView {
            ether_type_be,
            l3_offset,
            tag_count: 0,
        });
    }
    for _ in 0..VLAN_DEPTH_MAX {
        if is_tag(ether_type_be) {
            let tag: VlanHdr = packet.load(l3_offset)?;
            ether_type_be = tag.ether_type_be;
            l3_offset += VLAN_LEN;
            tag_count += 1;
        }
    }
    let l3_offset = packet.opaque(l3_offset) & L3_OFFSET_MASK;
    Ok(LinkView {
        ether_type_be,
        l3_offset,
        tag_count,
    })
}

/// Covers every `l3_offset`: the verifier's bound on it.
const L3_OFFSET_MASK: usize = 31;
const _: () = assert!(ETH_LEN + VLAN_DEPTH_MAX * VLAN_LEN <= L3_OFFSET_MASK);

#[inline(always)]
const fn is_tag(ether_type_be: u16) -> bool {
    ether_type_be == ETHER_TYPE_VLAN_BE || ether_type_be == ETHER_TYPE_QINQ_BE
}

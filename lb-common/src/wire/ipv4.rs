//! IPv4 (RFC 791), with options.

use bytemuck::{Pod, Zeroable};

use super::ParseError;
use super::l3::{End, Fragment, L3View, Transport};
use crate::abi::Address;
use crate::checksum::Difference;
use crate::packet::{OutOfBounds, Packet};

/// Bytes in a header without options.
pub const IPV4_LEN: usize = size_of::<Ipv4Hdr>();
/// More fragments follow, network byte order.
pub const MORE_FRAGMENTS_BE: u16 = 0x2000_u16.to_be();
/// The fragment offset's bits, network byte order.
pub const FRAGMENT_OFFSET_BE: u16 = 0x1fff_u16.to_be();

/// The header without options.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Ipv4Hdr {
    /// Version (4) and header length in 32-bit words.
    pub version_ihl: u8,
    /// DSCP and ECN.
    pub tos: u8,
    /// Bytes in the packet, header included.
    pub total_len_be: u16,
    /// Identification, common to a packet's fragments.
    pub id_be: u16,
    /// Flags and fragment offset.
    pub fragment_be: u16,
    /// Time to live.
    pub ttl: u8,
    /// IP protocol number.
    pub protocol: u8,
    /// Header checksum.
    pub checksum: u16,
    /// Source address.
    pub source_be: u32,
    /// Destination address.
    pub destination_be: u32,
}

/// Parses the header at `offset`.
///
/// # Errors
/// [`ParseError`] where not even the addresses could be read; everything else is in
/// [`L3View::transport`].
#[inline(always)]
pub fn parse<P: Packet>(packet: &P, offset: usize) -> Result<L3View, ParseError> {
    let header: Ipv4Hdr = packet.load(offset)?;
    if header.version_ihl >> 4 != 4 {
        return Err(ParseError::Malformed);
    }
    Ok(L3View {
        source: Address::from_ipv4_be(header.source_be),
        destination: Address::from_ipv4_be(header.destination_be),
        ttl: header.ttl,
        transport: transport(packet, &header, offset),
    })
}

#[inline(always)]
fn transport<P: Packet>(
    packet: &P,
    header: &Ipv4Hdr,
    offset: usize,
) -> Result<Transport, ParseError> {
    let header_len = usize::from(header.version_ihl & 0x0f) * 4;
    let total_len = usize::from(u16::from_be(header.total_len_be));
    if header_len < IPV4_LEN || total_len < header_len {
        return Err(ParseError::Malformed);
    }
    let end_offset = offset + total_len;
    if end_offset > packet.len_bytes() {
        return Err(ParseError::Truncated);
    }
    let fragment = if header.fragment_be & FRAGMENT_OFFSET_BE != 0 {
        Fragment::Later
    } else if header.fragment_be & MORE_FRAGMENTS_BE != 0 {
        Fragment::First
    } else {
        Fragment::Whole
    };
    Ok(Transport {
        protocol: header.protocol,
        fragment,
        l4_offset: offset + header_len,
        end_offset,
    })
}

/// The second half of the header's third word, which changes with every hop.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct TtlWords {
    ttl_protocol: [u8; 2],
    checksum: u16,
}

const TTL_OFFSET: usize = 8;
const CHECKSUM_OFFSET: usize = 10;
const SOURCE_OFFSET: usize = 12;
const DESTINATION_OFFSET: usize = 16;

/// Decrements the time to live of the header at `offset`, which must not be 0.
///
/// # Errors
/// [`OutOfBounds`]; nothing is written then.
#[inline(always)]
pub fn decrement_ttl<P: Packet>(packet: &mut P, offset: usize) -> Result<(), OutOfBounds> {
    let mut words: TtlWords = packet.load(offset + TTL_OFFSET)?;
    let old = u16::from_ne_bytes(words.ttl_protocol);
    words.ttl_protocol[0] = words.ttl_protocol[0].wrapping_sub(1);
    let new = u16::from_ne_bytes(words.ttl_protocol);
    words.checksum = Difference::NONE.word(old, new).apply(words.checksum);
    packet.store(offset + TTL_OFFSET, words)
}

/// Replaces one address of the header at `offset` and keeps the header's checksum right. Both
/// addresses must be IPv4.
///
/// # Errors
/// [`OutOfBounds`]; nothing is written then.
#[inline(always)]
pub fn replace_address<P: Packet>(
    packet: &mut P,
    offset: usize,
    end: End,
    old: &Address,
    new: &Address,
) -> Result<(), OutOfBounds> {
    let checksum: u16 = packet.load(offset + CHECKSUM_OFFSET)?;
    let address_offset = match end {
        End::Source => SOURCE_OFFSET,
        End::Destination => DESTINATION_OFFSET,
    };
    packet.store(offset + address_offset, new.0[3])?;
    let checksum = Difference::NONE.long(old.0[3], new.0[3]).apply(checksum);
    packet.store(offset + CHECKSUM_OFFSET, checksum)
}

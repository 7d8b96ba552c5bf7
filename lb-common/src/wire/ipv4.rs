//! IPv4 (RFC 791), with options.

use bytemuck::{Pod, Zeroable};

use super::ParseError;
use super::l3::{End, Family, Fragment, L3View, TTL_DEFAULT, Transport};
use super::tcp::PROTOCOL_TCP;
use crate::abi::Address;
use crate::checksum::{Difference, fold};
use crate::packet::{OutOfBounds, Packet};

/// Bytes in a header without options.
pub const IPV4_LEN: usize = size_of::<Ipv4Hdr>();
/// More fragments follow, network byte order.
pub const MORE_FRAGMENTS_BE: u16 = 0x2000_u16.to_be();
/// The packet must not be fragmented.
const DONT_FRAGMENT: u16 = 0x4000;
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

/// The family.
pub struct Ipv4;

impl Family for Ipv4 {
    type Header = Ipv4Hdr;

    const HEADER_LEN: usize = IPV4_LEN;

    #[inline(always)]
    fn load<P: Packet>(packet: &P, offset: usize) -> Result<Ipv4Hdr, ParseError> {
        let header: Ipv4Hdr = packet.load(offset)?;
        if header.version_ihl >> 4 == 4 {
            Ok(header)
        } else {
            Err(ParseError::Malformed)
        }
    }

    #[inline(always)]
    fn view(header: &Ipv4Hdr) -> L3View {
        L3View {
            source: Address::from_ipv4_be(header.source_be),
            destination: Address::from_ipv4_be(header.destination_be),
            ttl: header.ttl,
        }
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
        let fragment = fragment_of(header.fragment_be);
        let l4_offset = offset + header_len;
        Ok(Transport {
            protocol: header.protocol,
            fragment,
            l4_offset,
            end_offset,
        })
    }

    #[inline(always)]
    fn is_neighbour_discovery<P: Packet>(_packet: &P, _transport: &Transport) -> bool {
        false
    }

    #[inline(always)]
    fn decrement_ttl<P: Packet>(packet: &mut P, offset: usize) -> Result<(), OutOfBounds> {
        let mut words: TtlWords = packet.load(offset + TTL_OFFSET)?;
        let old = u16::from_ne_bytes(words.ttl_protocol);
        words.ttl_protocol[0] = words.ttl_protocol[0].wrapping_sub(1);
        let new = u16::from_ne_bytes(words.ttl_protocol);
        words.checksum = Difference::NONE.word(old, new).apply(words.checksum);
        packet.store(offset + TTL_OFFSET, words)
    }

    #[inline(always)]
    fn write_reply<P: Packet>(
        packet: &mut P,
        offset: usize,
        request: &L3View,
        l4_len_bytes: u16,
    ) -> Result<(), OutOfBounds> {
        // As words: a struct would take room on the program's stack.
        let total_len = IPV4_LEN as u32 + u32::from(l4_len_bytes);
        let first = (0x4500_0000 | total_len).to_be();
        let second = u32::from(DONT_FRAGMENT).to_be();
        let third = u32::from(TTL_DEFAULT) << 24 | u32::from(PROTOCOL_TCP) << 16;
        let (source, destination) = (request.destination.0[3], request.source.0[3]);
        let sum = u64::from(first)
            + u64::from(second)
            + u64::from(third.to_be())
            + u64::from(source)
            + u64::from(destination);
        let checksum = u32::from(u16::from_be(!fold(sum)));
        packet.store(offset, first)?;
        packet.store(offset + 4, second)?;
        packet.store(offset + 8, (third | checksum).to_be())?;
        packet.store(offset + SOURCE_OFFSET, source)?;
        packet.store(offset + DESTINATION_OFFSET, destination)
    }

    #[inline(always)]
    fn replace_address<P: Packet>(
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
}

#[inline(always)]
const fn fragment_of(fragment_be: u16) -> Fragment {
    if fragment_be & FRAGMENT_OFFSET_BE != 0 {
        Fragment::Later
    } else if fragment_be & MORE_FRAGMENTS_BE != 0 {
        Fragment::First
    } else {
        Fragment::Whole
    }
}

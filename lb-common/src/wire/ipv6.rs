//! IPv6 (RFC 8200), with a bounded walk over extension headers.

use bytemuck::{Pod, Zeroable};

use super::ParseError;
use super::l3::{End, Fragment, L3View, Transport};
use crate::abi::Address;
use crate::limits::{IPV6_EXTENSIONS_BYTES_MAX, IPV6_EXTENSIONS_MAX};
use crate::packet::{OutOfBounds, Packet};

/// Bytes in the fixed header.
pub const IPV6_LEN: usize = size_of::<Ipv6Hdr>();

const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const DESTINATION_OPTIONS: u8 = 60;

/// The fixed header.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct Ipv6Hdr {
    /// Version (6), traffic class, flow label.
    pub version_class_label_be: u32,
    /// Bytes after this header.
    pub payload_len_be: u16,
    /// Type of the next header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
}

/// The first 4 bytes of every extension header that is walked.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ExtensionHdr {
    next_header: u8,
    /// Units of 8 bytes beyond the first 8; reserved in a fragment header.
    len: u8,
    /// Offset and flags in a fragment header.
    fragment_be: u16,
}

/// Parses the header at `offset`.
///
/// # Errors
/// [`ParseError`] where not even the addresses could be read; everything else is in
/// [`L3View::transport`].
#[inline(always)]
pub fn parse<P: Packet>(packet: &P, offset: usize) -> Result<L3View, ParseError> {
    let header: Ipv6Hdr = packet.load(offset)?;
    if u32::from_be(header.version_class_label_be) >> 28 != 6 {
        return Err(ParseError::Malformed);
    }
    Ok(L3View {
        source: header.source,
        destination: header.destination,
        ttl: header.hop_limit,
        transport: transport(packet, &header, offset),
    })
}

#[inline(always)]
fn transport<P: Packet>(
    packet: &P,
    header: &Ipv6Hdr,
    offset: usize,
) -> Result<Transport, ParseError> {
    let start = offset + IPV6_LEN;
    let end_offset = start + usize::from(u16::from_be(header.payload_len_be));
    if end_offset > packet.len_bytes() {
        return Err(ParseError::Truncated);
    }
    let mut walked = 0;
    let mut protocol = header.next_header;
    let mut fragment = Fragment::Whole;
    for _ in 0..=IPV6_EXTENSIONS_MAX {
        if !is_extension(protocol) {
            return Ok(Transport {
                protocol,
                fragment,
                l4_offset: start + walked,
                end_offset,
            });
        }
        if walked > IPV6_EXTENSIONS_BYTES_MAX {
            return Err(ParseError::ExtensionHeaders);
        }
        let extension: ExtensionHdr = packet.load(start + walked)?;
        if protocol == FRAGMENT {
            fragment = fragment_of(extension.fragment_be);
            walked += 8;
            if fragment == Fragment::Later {
                let protocol = extension.next_header;
                return Ok(Transport {
                    protocol,
                    fragment,
                    l4_offset: start + walked,
                    end_offset,
                });
            }
        } else {
            walked += 8 + usize::from(extension.len) * 8;
        }
        protocol = extension.next_header;
    }
    Err(ParseError::ExtensionHeaders)
}

#[inline(always)]
const fn is_extension(protocol: u8) -> bool {
    matches!(
        protocol,
        HOP_BY_HOP | ROUTING | FRAGMENT | DESTINATION_OPTIONS
    )
}

/// Offset 0 without more fragments is an "atomic" fragment, a whole packet (RFC 6946).
#[inline(always)]
const fn fragment_of(fragment_be: u16) -> Fragment {
    let word = u16::from_be(fragment_be);
    if word >> 3 != 0 {
        Fragment::Later
    } else if word & 1 != 0 {
        Fragment::First
    } else {
        Fragment::Whole
    }
}

const HOP_LIMIT_OFFSET: usize = 7;
const SOURCE_OFFSET: usize = 8;
const DESTINATION_OFFSET: usize = 24;

/// Decrements the hop limit of the header at `offset`, which must not be 0.
///
/// # Errors
/// [`OutOfBounds`]; nothing is written then.
#[inline(always)]
pub fn decrement_hop_limit<P: Packet>(packet: &mut P, offset: usize) -> Result<(), OutOfBounds> {
    let hop_limit: u8 = packet.load(offset + HOP_LIMIT_OFFSET)?;
    packet.store(offset + HOP_LIMIT_OFFSET, hop_limit.wrapping_sub(1))
}

/// Replaces one address of the header at `offset`. IPv6 has no header checksum.
///
/// # Errors
/// [`OutOfBounds`]; nothing is written then.
#[inline(always)]
pub fn replace_address<P: Packet>(
    packet: &mut P,
    offset: usize,
    end: End,
    new: &Address,
) -> Result<(), OutOfBounds> {
    let address_offset = match end {
        End::Source => SOURCE_OFFSET,
        End::Destination => DESTINATION_OFFSET,
    };
    packet.store(offset + address_offset, *new)
}

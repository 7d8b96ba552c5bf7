//! IPv6 (RFC 8200), with a bounded walk over extension headers.

use bytemuck::{Pod, Zeroable};

use super::ParseError;
use super::l3::{End, Family, Fragment, L3View, TTL_DEFAULT, Transport};
use super::tcp::PROTOCOL_TCP;
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
    /// Source address, in two words: of 16 bytes as a whole the BPF backend makes a call to a copy
    /// loop.
    pub source: [u64; 2],
    /// Destination address.
    pub destination: [u64; 2],
}

/// The first 4 bytes of every extension header that is walked.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct ExtensionHdr {
    next_header: u8,
    /// Units of 8 bytes beyond the first 8; reserved in a fragment header.
    len: u8,
    /// Offset and flags in a fragment header; type and segments left in a routing header.
    fragment_be: u16,
}

impl ExtensionHdr {
    /// Of a routing header.
    #[inline(always)]
    const fn segments_left(&self) -> u8 {
        self.fragment_be.to_ne_bytes()[1]
    }
}

/// ICMPv6 (RFC 4443).
const PROTOCOL_ICMPV6: u8 = 58;
/// The ICMPv6 types of neighbour discovery, from router solicitation to redirect (RFC 4861 section 4).
const NEIGHBOUR_DISCOVERY: core::ops::RangeInclusive<u8> = 133..=137;

const HOP_LIMIT_OFFSET: usize = 7;
const SOURCE_OFFSET: usize = 8;
const DESTINATION_OFFSET: usize = 24;

/// The family.
pub struct Ipv6;

impl Family for Ipv6 {
    type Header = Ipv6Hdr;

    const HEADER_LEN: usize = IPV6_LEN;

    #[inline(always)]
    fn load<P: Packet>(packet: &P, offset: usize) -> Result<Ipv6Hdr, ParseError> {
        let header: Ipv6Hdr = packet.load(offset)?;
        let version = u32::from_be(header.version_class_label_be) >> 28;
        // Mapped addresses are our form of IPv4 and do not belong on the wire (RFC 4291 section
        // 2.5.5.2); a packet with one would be taken for IPv4.
        let is_mapped = address(header.source).is_ipv4() || address(header.destination).is_ipv4();
        if version == 6 && !is_mapped {
            Ok(header)
        } else {
            Err(ParseError::Malformed)
        }
    }

    #[inline(always)]
    fn view(header: &Ipv6Hdr) -> L3View {
        L3View {
            source: address(header.source),
            destination: address(header.destination),
            ttl: header.hop_limit,
        }
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
        let protocol = header.next_header;
        if !is_extension(protocol) {
            let fragment = Fragment::Whole;
            return Ok(Transport {
                protocol,
                fragment,
                l4_offset: start,
                end_offset,
            });
        }
        let (walked, protocol, fragment) = walk_extensions(packet, start, protocol)?;
        let l4_offset = start + (packet.opaque(walked) & EXTENSIONS_MASK);
        Ok(Transport {
            protocol,
            fragment,
            l4_offset,
            end_offset,
        })
    }

    /// A fragment is none (RFC 6980 section 5).
    #[inline(always)]
    fn is_neighbour_discovery<P: Packet>(packet: &P, transport: &Transport) -> bool {
        if transport.protocol != PROTOCOL_ICMPV6 || transport.fragment != Fragment::Whole {
            return false;
        }
        // Type and code together: of a single byte, the comparison with the packet's end is one that the verifier
        // draws nothing from.
        let kind_code: Result<u16, OutOfBounds> = packet.load(transport.l4_offset);
        kind_code.is_ok_and(|words| NEIGHBOUR_DISCOVERY.contains(&words.to_ne_bytes()[0]))
    }

    #[inline(always)]
    fn decrement_ttl<P: Packet>(packet: &mut P, offset: usize) -> Result<(), OutOfBounds> {
        let hop_limit: u8 = packet.load(offset + HOP_LIMIT_OFFSET)?;
        packet.store(offset + HOP_LIMIT_OFFSET, hop_limit.wrapping_sub(1))
    }

    #[inline(always)]
    fn write_reply<P: Packet>(
        packet: &mut P,
        offset: usize,
        request: &L3View,
        l4_len_bytes: u16,
    ) -> Result<(), OutOfBounds> {
        let version_class_label: u32 = 6 << 28;
        packet.store(offset, version_class_label.to_be())?;
        let lengths = [l4_len_bytes.to_be_bytes(), [PROTOCOL_TCP, TTL_DEFAULT]];
        packet.store(offset + 4, bytemuck::cast::<_, u32>(lengths))?;
        packet.store(offset + SOURCE_OFFSET, request.destination)?;
        packet.store(offset + DESTINATION_OFFSET, request.source)
    }

    #[inline(always)]
    fn replace_address<P: Packet>(
        packet: &mut P,
        offset: usize,
        end: End,
        _old: &Address,
        new: &Address,
    ) -> Result<(), OutOfBounds> {
        let address_offset = match end {
            End::Source => SOURCE_OFFSET,
            End::Destination => DESTINATION_OFFSET,
        };
        packet.store(offset + address_offset, *new)
    }
}

#[inline(always)]
fn address(words: [u64; 2]) -> Address {
    let (first, second): ([u32; 2], [u32; 2]) =
        (bytemuck::cast(words[0]), bytemuck::cast(words[1]));
    Address([first[0], first[1], second[0], second[1]])
}

/// Bytes of extension headers from `start` on, what follows them, and whether the packet is a fragment.
#[inline(always)]
fn walk_extensions<P: Packet>(
    packet: &P,
    start: usize,
    first: u8,
) -> Result<(usize, u8, Fragment), ParseError> {
    let mut walked = 0;
    let mut protocol = first;
    let mut fragment = Fragment::Whole;
    for _ in 0..IPV6_EXTENSIONS_MAX {
        let extension: ExtensionHdr = packet.load(start + walked)?;
        if protocol == FRAGMENT {
            fragment = fragment_of(extension.fragment_be);
            walked += 8;
        } else {
            if protocol == ROUTING && extension.segments_left() != 0 {
                // On its way to somewhere else yet (RFC 8200 section 4.4).
                return Err(ParseError::Malformed);
            }
            walked += 8 + usize::from(extension.len) * 8;
        }
        protocol = extension.next_header;
        if fragment == Fragment::Later || !is_extension(protocol) {
            return if walked <= IPV6_EXTENSIONS_BYTES_MAX {
                Ok((walked, protocol, fragment))
            } else {
                Err(ParseError::ExtensionHeaders)
            };
        }
        walked = packet.opaque(walked) & EXTENSIONS_MASK;
    }
    Err(ParseError::ExtensionHeaders)
}

/// Covers every length of extension headers that the walk can meet: four of at most 2048 bytes.
const EXTENSIONS_MASK: usize = 0x1fff;
const _: () = assert!(IPV6_EXTENSIONS_MAX * 2048 <= EXTENSIONS_MASK + 1);

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

//! UDP (RFC 768).

use bytemuck::{Pod, Zeroable};

use super::ParseError;
use crate::packet::Packet;

/// IP protocol number.
pub const PROTOCOL_UDP: u8 = 17;
/// Bytes in the header.
pub const UDP_LEN: usize = size_of::<UdpHdr>();

/// The header.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct UdpHdr {
    /// Source port.
    pub source_be: u16,
    /// Destination port.
    pub destination_be: u16,
    /// Bytes in header and payload.
    pub len_be: u16,
    /// Checksum; 0 = none, legal over IPv4.
    pub checksum: u16,
}

/// Parses the header at `offset` in a packet that ends at `end_offset`.
///
/// # Errors
/// [`ParseError::Truncated`], or [`ParseError::Malformed`] for a length shorter than the header.
#[inline(always)]
pub fn parse<P: Packet>(
    packet: &P,
    offset: usize,
    end_offset: usize,
) -> Result<UdpHdr, ParseError> {
    if offset + UDP_LEN > end_offset {
        return Err(ParseError::Truncated);
    }
    let header: UdpHdr = packet.load(offset)?;
    let len = usize::from(u16::from_be(header.len_be));
    if len < UDP_LEN {
        return Err(ParseError::Malformed);
    }
    if offset + len > end_offset {
        return Err(ParseError::Truncated);
    }
    Ok(header)
}

//! TCP (RFC 9293).

use bytemuck::{Pod, Zeroable};

use super::ParseError;
use crate::packet::Packet;

/// IP protocol number.
pub const PROTOCOL_TCP: u8 = 6;
/// Bytes in a header without options.
pub const TCP_LEN: usize = size_of::<TcpHdr>();

/// The header without options.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
pub struct TcpHdr {
    /// Source port.
    pub source_be: u16,
    /// Destination port.
    pub destination_be: u16,
    /// Sequence number.
    pub sequence_be: u32,
    /// Acknowledgement number.
    pub acknowledgement_be: u32,
    /// Header length in 32-bit words, in the upper half.
    pub data_offset: u8,
    /// Control bits.
    pub flags: u8,
    /// Receive window.
    pub window_be: u16,
    /// Checksum.
    pub checksum: u16,
    /// Urgent pointer.
    pub urgent_be: u16,
}

/// TCP's control bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    const FIN: u8 = 0x01;
    const SYN: u8 = 0x02;
    const RST: u8 = 0x04;
    const ACK: u8 = 0x10;

    /// Opens a connection: SYN without ACK and without FIN or RST.
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::FIN | Self::RST) == Self::SYN
    }

    /// The sender has no more to send.
    #[inline(always)]
    pub const fn has_fin(self) -> bool {
        self.0 & Self::FIN != 0
    }

    /// The connection is broken off.
    #[inline(always)]
    pub const fn has_rst(self) -> bool {
        self.0 & Self::RST != 0
    }
}

/// Parses the header at `offset` in a packet that ends at `end_offset`.
///
/// # Errors
/// [`ParseError::Truncated`], or [`ParseError::Malformed`] for an impossible data offset.
#[inline(always)]
pub fn parse<P: Packet>(
    packet: &P,
    offset: usize,
    end_offset: usize,
) -> Result<TcpHdr, ParseError> {
    if offset + TCP_LEN > end_offset {
        return Err(ParseError::Truncated);
    }
    let header: TcpHdr = packet.load(offset)?;
    let header_len = usize::from(header.data_offset >> 4) * 4;
    if header_len < TCP_LEN {
        return Err(ParseError::Malformed);
    }
    if offset + header_len > end_offset {
        return Err(ParseError::Truncated);
    }
    Ok(header)
}

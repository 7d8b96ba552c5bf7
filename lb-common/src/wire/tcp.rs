//! TCP (RFC 9293).

use bytemuck::{Pod, Zeroable};

use super::ParseError;
use super::l3::L3View;
use crate::abi::Address;
use crate::checksum::fold;
use crate::packet::{OutOfBounds, Packet};

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
    /// The connection is broken off.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number means something.
    pub const ACK: u8 = 0x10;

    /// Opens a connection: SYN without ACK and without FIN or RST.
    #[inline(always)]
    pub const fn opens(self) -> bool {
        self.0 & (Self::SYN | Self::ACK | Self::FIN | Self::RST) == Self::SYN
    }

    /// The first segment of its direction.
    #[inline(always)]
    pub const fn has_syn(self) -> bool {
        self.0 & Self::SYN != 0
    }

    /// The acknowledgement number means something.
    #[inline(always)]
    pub const fn has_ack(self) -> bool {
        self.0 & Self::ACK != 0
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

    /// Answers a segment that is none of the sender's connection: RST without ACK (RFC 9293, section 3.10.7.1 and
    /// 3.10.7.3). Who breaks its own connection off acknowledges what it has received.
    #[inline(always)]
    pub const fn is_bare_rst(self) -> bool {
        self.0 & (Self::RST | Self::ACK) == Self::RST
    }
}

/// A segment that breaks off a connection, as the words of its header. (As words: what is an array or a
/// struct to the compiler takes room on the program's stack, of which there is little.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset {
    ports: u32,
    sequence_be: u32,
    acknowledgement_be: u32,
    flags: u8,
}

impl Reset {
    /// The answer to a segment that is `segment_len` bytes long, header and data (RFC 9293, section
    /// 3.10.7.1): its sequence number is the one that the peer expects next.
    #[inline(always)]
    pub fn answering(request: &TcpHdr, segment_len: usize) -> Self {
        let flags = TcpFlags(request.flags);
        let ports = u32::from(request.destination_be) | u32::from(request.source_be) << 16;
        if flags.has_ack() {
            return Self {
                ports,
                sequence_be: request.acknowledgement_be,
                acknowledgement_be: 0,
                flags: TcpFlags::RST,
            };
        }
        let data_len = segment_len - usize::from(request.data_offset >> 4) * 4;
        let occupied = data_len as u32 + u32::from(flags.has_syn()) + u32::from(flags.has_fin());
        let acknowledged = u32::from_be(request.sequence_be).wrapping_add(occupied);
        Self {
            ports,
            sequence_be: 0,
            acknowledgement_be: acknowledged.to_be(),
            flags: TcpFlags::RST | TcpFlags::ACK,
        }
    }

    /// Writes it at `offset`, as the answer to a packet with these addresses.
    ///
    /// # Errors
    /// [`OutOfBounds`].
    #[inline(always)]
    pub fn write<P: Packet>(
        &self,
        packet: &mut P,
        offset: usize,
        request: &L3View,
    ) -> Result<(), OutOfBounds> {
        let header_words = TCP_LEN as u32 / 4;
        // Data offset and flags; the window is 0.
        let control = (header_words << 28 | u32::from(self.flags) << 16).to_be();
        let pseudo_header = u64::from((TCP_LEN as u16).to_be())
            + u64::from(u16::from(PROTOCOL_TCP).to_be())
            + sum(&request.source)
            + sum(&request.destination);
        let header = u64::from(self.ports)
            + u64::from(self.sequence_be)
            + u64::from(self.acknowledgement_be)
            + u64::from(control);
        packet.store(offset, self.ports)?;
        packet.store(offset + 4, self.sequence_be)?;
        packet.store(offset + 8, self.acknowledgement_be)?;
        packet.store(offset + 12, control)?;
        // The urgent pointer, which is 0, follows the checksum.
        packet.store(offset + 16, u32::from(!fold(pseudo_header + header)))
    }
}

/// The sum of an address's words. The constant words of a mapped IPv4 address add up to nothing in one's
/// complement.
#[inline(always)]
const fn sum(address: &Address) -> u64 {
    let words = &address.0;
    words[0] as u64 + words[1] as u64 + words[2] as u64 + words[3] as u64
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

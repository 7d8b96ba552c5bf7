//! What the datapath needs of a transport header, TCP or UDP.

use super::ParseError;
use super::l3::{End, Transport};
use super::tcp::{self, PROTOCOL_TCP, TcpFlags};
use super::udp::{self, PROTOCOL_UDP};
use crate::checksum::Difference;
use crate::packet::{OutOfBounds, Packet};

/// A transport header, parsed.
#[derive(Clone, Copy, Debug)]
pub struct L4View {
    /// IP protocol number: 6 or 17.
    pub protocol: u8,
    /// Source port.
    pub source_be: u16,
    /// Destination port.
    pub destination_be: u16,
    /// TCP's control bits; all 0 for UDP.
    pub flags: TcpFlags,
}

const TCP_SEQUENCE_OFFSET: usize = 4;
const SOURCE_OFFSET: usize = 0;
const DESTINATION_OFFSET: usize = 2;
const TCP_CHECKSUM_OFFSET: usize = 16;
const UDP_CHECKSUM_OFFSET: usize = 6;

/// Whether flows of this protocol can be steered.
#[inline(always)]
pub const fn has_ports(protocol: u8) -> bool {
    protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP
}

/// Parses the TCP or UDP header of a whole packet.
///
/// # Errors
/// [`ParseError`] of the protocol.
#[inline(always)]
pub fn parse<P: Packet>(packet: &P, transport: &Transport) -> Result<L4View, ParseError> {
    let Transport {
        protocol,
        l4_offset,
        end_offset,
        ..
    } = *transport;
    if protocol == PROTOCOL_TCP {
        let header = tcp::parse(packet, l4_offset, end_offset)?;
        let flags = TcpFlags(header.flags);
        Ok(L4View {
            protocol,
            source_be: header.source_be,
            destination_be: header.destination_be,
            flags,
        })
    } else {
        let header = udp::parse(packet, l4_offset, end_offset)?;
        let flags = TcpFlags(0);
        Ok(L4View {
            protocol,
            source_be: header.source_be,
            destination_be: header.destination_be,
            flags,
        })
    }
}

/// The sequence number of the TCP header at `offset`, host byte order.
///
/// # Errors
/// [`OutOfBounds`].
#[inline(always)]
pub fn tcp_sequence<P: Packet>(packet: &P, offset: usize) -> Result<u32, OutOfBounds> {
    let sequence_be: u32 = packet.load(offset + TCP_SEQUENCE_OFFSET)?;
    Ok(u32::from_be(sequence_be))
}

/// Replaces one port of the header at `offset` and brings the checksum up to date, for the port
/// and for what else has changed under it (`difference`: the pseudo-header's address).
///
/// # Errors
/// [`OutOfBounds`].
#[inline(always)]
pub fn replace_port<P: Packet>(
    packet: &mut P,
    offset: usize,
    l4: &L4View,
    end: End,
    new_be: u16,
    difference: Difference,
) -> Result<(), OutOfBounds> {
    let (port_offset, old_be) = match end {
        End::Source => (SOURCE_OFFSET, l4.source_be),
        End::Destination => (DESTINATION_OFFSET, l4.destination_be),
    };
    let difference = difference.word(old_be, new_be);
    packet.store(offset + port_offset, new_be)?;
    if l4.protocol == PROTOCOL_TCP {
        let checksum: u16 = packet.load(offset + TCP_CHECKSUM_OFFSET)?;
        packet.store(offset + TCP_CHECKSUM_OFFSET, difference.apply(checksum))
    } else {
        let checksum: u16 = packet.load(offset + UDP_CHECKSUM_OFFSET)?;
        packet.store(offset + UDP_CHECKSUM_OFFSET, difference.apply_udp(checksum))
    }
}

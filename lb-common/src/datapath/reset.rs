//! The answer to a client whose flow has no backend any more: an exact RST, so that it fails fast.

use crate::packet::Packet;
use crate::wire::l3::Family;
use crate::wire::tcp::{self, PROTOCOL_TCP, Reset, TCP_LEN, TcpFlags};
use crate::wire::{ParseError, eth};

/// The shortest Ethernet frame without its check sequence (IEEE 802.3, 4.2.3.3). Unit: bytes.
const FRAME_LEN_MIN: usize = 60;

/// Turns a segment into its answer, to be sent back where it came from.
///
/// # Errors
/// [`ParseError`] for what has no answer: a RST, a datagram, a packet with options or extension headers,
/// which a reply must not repeat. The packet is as before then.
#[inline(always)]
pub(super) fn answer<F: Family, P: Packet>(
    packet: &mut P,
    l3_offset: usize,
) -> Result<(), ParseError> {
    let header = F::load(packet, l3_offset)?;
    let l3 = F::view(&header);
    let transport = F::transport(packet, &header, l3_offset)?;
    let l4_offset = l3_offset + F::HEADER_LEN;
    if transport.l4_offset != l4_offset || transport.protocol != PROTOCOL_TCP {
        return Err(ParseError::Malformed);
    }
    let request = tcp::parse(packet, l4_offset, transport.end_offset)?;
    if TcpFlags(request.flags).has_rst() {
        return Err(ParseError::Malformed);
    }
    let reset = Reset::answering(&request, transport.end_offset - l4_offset);
    eth::swap_addresses(packet)?;
    F::write_reply(packet, l3_offset, &l3, TCP_LEN as u16)?;
    reset.write(packet, l4_offset, &l3)?;
    let len_bytes = l4_offset + TCP_LEN;
    if len_bytes >= FRAME_LEN_MIN {
        packet.truncate(len_bytes)?;
    } else if packet.len_bytes() > FRAME_LEN_MIN {
        packet.truncate(FRAME_LEN_MIN)?;
    }
    Ok(())
}

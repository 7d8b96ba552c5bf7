//! Gateway NAT: one endpoint of the packet is replaced, checksums follow incrementally.

use super::Headers;
use crate::abi::{Address, Backend, NatReply};
use crate::checksum::Difference;
use crate::packet::{OutOfBounds, Packet};
use crate::wire::l3::{End, Family};
use crate::wire::l4;

/// The destination becomes the backend.
#[inline(always)]
pub(super) fn to_backend<F: Family, P: Packet>(
    packet: &mut P,
    headers: &Headers<F>,
    backend: &Backend,
) -> Result<(), OutOfBounds> {
    let port_be = if backend.port_be == 0 {
        headers.l4.destination_be
    } else {
        backend.port_be
    };
    let old = headers.l3.destination;
    replace_endpoint(
        packet,
        headers,
        End::Destination,
        &old,
        &backend.address,
        port_be,
    )
}

/// The source becomes the VIP.
#[inline(always)]
pub(super) fn to_client<F: Family, P: Packet>(
    packet: &mut P,
    headers: &Headers<F>,
    reply: &NatReply,
) -> Result<(), OutOfBounds> {
    let port_be = if reply.port_be == 0 {
        headers.l4.source_be
    } else {
        reply.port_be
    };
    let old = headers.l3.source;
    replace_endpoint(packet, headers, End::Source, &old, &reply.vip, port_be)
}

#[inline(always)]
fn replace_endpoint<F: Family, P: Packet>(
    packet: &mut P,
    headers: &Headers<F>,
    end: End,
    old: &Address,
    new: &Address,
    port_be: u16,
) -> Result<(), OutOfBounds> {
    let l3_offset = headers.link.l3_offset;
    F::replace_address(packet, l3_offset, end, old, new)?;
    let difference = Difference::NONE.address(old, new);
    let l4_offset = headers.transport.l4_offset;
    l4::replace_port(packet, l4_offset, &headers.l4, end, port_be, difference)
}

//! Replies of NAT backends, rewritten back without any state: who the sender is says which service
//! it answers for.

use super::{Headers, Stop, Verdict, forward, leave_to_host, nat, signal, truncated};
use crate::abi::{
    Address, EndpointKey, LinkRewrite, NatReply, NeighbourKey, NeighbourWanted, RouteKind,
};
use crate::drop_reason::DropReason;
use crate::kernel::Kernel;
use crate::packet::Packet;
use crate::wire::l3::Family;

/// Finds the service that the packet's source answers for. A SYN is no answer: the backend opens a
/// connection of its own.
#[inline(always)]
pub(super) fn find<'k, F, K: Kernel>(kernel: &'k K, headers: &Headers<F>) -> Option<&'k NatReply> {
    if headers.l4.flags.opens() {
        return None;
    }
    by_source(
        kernel,
        headers.l3.source,
        headers.l4.source_be,
        headers.l4.protocol,
    )
}

/// Finds the service that an endpoint answers for: the exact port first, then port 0.
#[inline(always)]
pub(super) fn by_source<K: Kernel>(
    kernel: &K,
    address: Address,
    port_be: u16,
    protocol: u8,
) -> Option<&NatReply> {
    let mut key = EndpointKey::new(address, port_be, protocol);
    if let Some(reply) = kernel.nat_reply(&key) {
        return Some(reply);
    }
    key.port_be = 0;
    kernel.nat_reply(&key)
}

/// Forwards a reply to the client.
#[inline(always)]
pub(super) fn to_client<F: Family, P: Packet, K: Kernel>(
    packet: &mut P,
    kernel: &K,
    headers: &Headers<F>,
    reply: &NatReply,
) -> Result<Verdict, Stop> {
    // One copy, and proof that it is this backend's: the kernel may hand the entry to another key
    // while the packet is on its way.
    let reply = *reply;
    let service_id = reply.service_id;
    let is_its = kernel.backend(reply.backend_id).is_some_and(|backend| {
        backend.service_id == service_id && backend.address == headers.l3.source
    });
    if !is_its {
        return Err(Stop::Drop(service_id, DropReason::BackendMissing));
    }
    let (ifindex, link) = next_hop(kernel, headers, service_id)?;
    let verdict = forward::egress(packet, headers, ifindex, service_id)?;
    let bytes = packet.len_bytes() as u64;
    forward::decrement_ttl(packet, headers, service_id)?;
    nat::to_client(packet, headers, &reply).map_err(truncated(service_id))?;
    forward::rewrite_link(packet, &link).map_err(truncated(service_id))?;
    kernel.count_reply(reply.backend_id, bytes);
    kernel.count_signal(reply.backend_id, signal::of_reply(headers));
    Ok(verdict)
}

/// The next hop towards the client: a gateway, or the client itself where it is on the link. A
/// packet to this node is no reply to a client, but the host's.
#[inline(always)]
fn next_hop<F: Family, K: Kernel>(
    kernel: &K,
    headers: &Headers<F>,
    service_id: u16,
) -> Result<(u32, LinkRewrite), Stop> {
    let client = headers.l3.destination;
    let route = kernel
        .route(&client)
        .ok_or(Stop::Drop(service_id, DropReason::NoRoute))?;
    if route.kind == RouteKind::Local as u8 {
        return Err(leave_to_host(kernel, &headers.l3));
    }
    if route.is_resolved != 0 {
        return Ok((route.ifindex, route.link));
    }
    let ifindex = route.ifindex;
    let address = if route.kind == RouteKind::OnLink as u8 {
        client
    } else {
        route.gateway
    };
    if let Some(neighbour) = kernel.neighbour(&NeighbourKey { address, ifindex }) {
        return Ok((ifindex, neighbour.link));
    }
    kernel.want_neighbour(&NeighbourWanted::new(address, ifindex));
    Err(Stop::Drop(service_id, DropReason::ClientUnresolved))
}

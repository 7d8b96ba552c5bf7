//! The last steps: rewrite, count, and out.

use super::select::Chosen;
use super::{Headers, Stop, Verdict, nat, truncated};
use crate::abi::{Delivery, ForwardMode, LinkRewrite};
use crate::drop_reason::DropReason;
use crate::kernel::{Kernel, Signal};
use crate::packet::{OutOfBounds, Packet};
use crate::wire::l3::Family;

/// Forwards a packet to its backend.
#[inline(always)]
pub(super) fn to_backend<F: Family, P: Packet, K: Kernel>(
    packet: &mut P,
    kernel: &K,
    headers: &Headers<F>,
    service_id: u16,
    chosen: &Chosen,
    signal: Signal,
) -> Result<Verdict, Stop> {
    let Some(backend) = kernel.backend(chosen.backend_id) else {
        return Err(Stop::Drop(service_id, DropReason::BackendMissing));
    };
    if backend.service_id != service_id {
        return Err(Stop::Drop(service_id, DropReason::BackendMissing));
    }
    if backend.delivery != Delivery::Forward as u8 {
        return Err(undelivered(backend.delivery, service_id));
    }
    if backend.is_resolved == 0 {
        return Err(Stop::Drop(service_id, DropReason::BackendUnresolved));
    }
    // At once: there is no room on the stack to keep it.
    kernel.count_signal(chosen.backend_id, signal);
    let verdict = egress(packet, headers, backend.ifindex, service_id)?;
    let bytes = packet.len_bytes() as u64;
    decrement_ttl(packet, headers, service_id)?;
    if backend.forward == ForwardMode::Nat as u8 {
        nat::to_backend(packet, headers, backend).map_err(truncated(service_id))?;
    }
    rewrite_link(packet, &backend.link).map_err(truncated(service_id))?;
    kernel.count_forwarded(chosen.backend_id, bytes, chosen.is_new_flow);
    Ok(verdict)
}

#[inline(always)]
const fn undelivered(delivery: u8, service_id: u16) -> Stop {
    if delivery == Delivery::Reset as u8 {
        Stop::Reset(service_id)
    } else {
        Stop::Drop(service_id, DropReason::BackendRemoved)
    }
}

/// How the packet leaves. A VLAN tag is right on the interface that it came in on, and nowhere
/// else.
#[inline(always)]
pub(super) fn egress<F: Family, P: Packet>(
    packet: &P,
    headers: &Headers<F>,
    ifindex: u32,
    service_id: u16,
) -> Result<Verdict, Stop> {
    if ifindex == packet.ingress_ifindex() {
        Ok(Verdict::Transmit)
    } else if headers.link.tag_count != 0 {
        Err(Stop::Drop(service_id, DropReason::VlanEgress))
    } else {
        Ok(Verdict::Redirect(ifindex))
    }
}

/// One hop less to live, with every forwarding mode: a packet that two balancers send to each
/// other must not do so for ever.
#[inline(always)]
pub(super) fn decrement_ttl<F: Family, P: Packet>(
    packet: &mut P,
    headers: &Headers<F>,
    service_id: u16,
) -> Result<(), Stop> {
    if headers.l3.ttl <= 1 {
        return Err(Stop::Drop(service_id, DropReason::TtlExceeded));
    }
    F::decrement_ttl(packet, headers.link.l3_offset).map_err(truncated(service_id))
}

/// Writes the next hop's Ethernet addresses.
#[inline(always)]
pub(super) fn rewrite_link<P: Packet>(
    packet: &mut P,
    link: &LinkRewrite,
) -> Result<(), OutOfBounds> {
    // Two words: of 12 bytes as a whole the BPF backend makes a call to a copy loop.
    let [first, second, last] = link.0;
    let head: u64 = bytemuck::cast([first, second]);
    packet.store(0, head)?;
    packet.store(8, last)
}

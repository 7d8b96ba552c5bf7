//! Which backend gets the packet.
//!
//! A settled slot of a hash-scheduled service answers without any state, and that is nearly every
//! packet. The rest asks the flow table: [`super::consult`].

use super::consult::Consultation;
use super::{Headers, Stop, signal, truncated};
use crate::abi::{FlowOrigin, NewFlows, Service, Slot};
use crate::drop_reason::DropReason;
use crate::hash::{self, FlowTuple};
use crate::kernel::{Kernel, Signal};
use crate::packet::Packet;
use crate::wire::l4;
use crate::wire::tcp::PROTOCOL_TCP;

/// The backend chosen for a packet. Its id only: a reference beside an error code would share a
/// register with it, and the verifier allows no arithmetic on pointers.
pub(super) struct Chosen {
    pub(super) backend_id: u16,
    /// The packet is its flow's first.
    pub(super) is_new_flow: bool,
}

impl Chosen {
    /// The backend of a flow that was seen before.
    #[inline(always)]
    pub(super) const fn known(backend_id: u16) -> Self {
        Self {
            backend_id,
            is_new_flow: false,
        }
    }

    /// The backend of a flow that begins.
    #[inline(always)]
    pub(super) const fn new_flow(backend_id: u16) -> Self {
        Self {
            backend_id,
            is_new_flow: true,
        }
    }
}

/// Why a flow gets no backend.
pub(super) enum Refusal {
    /// No backend is up, and the service answers with RST.
    Reset,
    /// No backend is up, and the service drops.
    Drop,
    /// A peer may be about to tell of the flow.
    Wait,
}

const PACKED_NEW_FLOW: u64 = 1 << 16;
const PACKED_RESET: u64 = 1 << 17;
const PACKED_DROP: u64 = 1 << 18;
const PACKED_WAIT: u64 = 1 << 19;

impl Refusal {
    /// From [`Service::new_flows`], which is not [`NewFlows::Schedule`].
    #[inline(always)]
    pub(super) const fn of_new_flow(new_flows: u8) -> Self {
        if new_flows == NewFlows::Reset as u8 {
            Self::Reset
        } else {
            Self::Drop
        }
    }

    /// A function of the program returns one number.
    #[inline(always)]
    pub(super) fn pack(chosen: Result<Chosen, Self>) -> u64 {
        match chosen {
            Ok(chosen) => {
                u64::from(chosen.backend_id) + PACKED_NEW_FLOW * u64::from(chosen.is_new_flow)
            }
            Err(Self::Reset) => PACKED_RESET,
            Err(Self::Drop) => PACKED_DROP,
            Err(Self::Wait) => PACKED_WAIT,
        }
    }

    #[inline(always)]
    fn unpack(packed: u64) -> Result<Chosen, Self> {
        if packed & PACKED_RESET != 0 {
            Err(Self::Reset)
        } else if packed & PACKED_DROP != 0 {
            Err(Self::Drop)
        } else if packed & PACKED_WAIT != 0 {
            Err(Self::Wait)
        } else {
            Ok(Chosen {
                backend_id: packed as u16,
                is_new_flow: packed & PACKED_NEW_FLOW != 0,
            })
        }
    }

    #[inline(always)]
    fn stop(self, service_id: u16) -> Stop {
        match self {
            Self::Reset => Stop::Reset(service_id),
            Self::Drop => Stop::Drop(service_id, DropReason::AllDown),
            Self::Wait => Stop::Drop(service_id, DropReason::FlowUnknown),
        }
    }
}

/// Chooses the backend; says what the packet tells of it, too.
#[inline(always)]
pub(super) fn backend<F, P: Packet, K: Kernel>(
    packet: &P,
    kernel: &K,
    service: &Service,
    headers: &Headers<F>,
) -> Result<(Chosen, Signal), Stop> {
    if service.ring_len == 0 {
        return Err(without_backends(service));
    }
    let flow_hash = flow_hash(kernel, headers);
    let slot = hashed_slot(service, flow_hash);
    let Some(slot) = kernel.ring_slot(service.ring_block, slot) else {
        return Err(Stop::Drop(service.id, DropReason::BackendMissing));
    };
    let signal = signal::of_request(packet, kernel, headers, flow_hash);
    if service.tracks_flows == 0 && slot.is_settled() {
        return Ok((settled(service, headers, slot)?, signal));
    }
    let consultation = consultation(packet, service, headers, flow_hash, slot, signal)
        .map_err(truncated(service.id))?;
    let packed = kernel.consult(consultation);
    match Refusal::unpack(packed) {
        Ok(chosen) => Ok((chosen, Signal::unpack(packed))),
        Err(refusal) => Err(refusal.stop(service.id)),
    }
}

#[inline(always)]
fn settled<F>(service: &Service, headers: &Headers<F>, slot: Slot) -> Result<Chosen, Stop> {
    let opens = headers.l4.flags.opens();
    let may_open = opens || headers.l4.protocol != PROTOCOL_TCP;
    if service.new_flows != NewFlows::Schedule as u8 && may_open {
        return Err(Refusal::of_new_flow(service.new_flows).stop(service.id));
    }
    Ok(Chosen {
        backend_id: slot.current(),
        is_new_flow: opens,
    })
}

#[inline(always)]
fn without_backends(service: &Service) -> Stop {
    if service.new_flows == NewFlows::Reset as u8 {
        Stop::Reset(service.id)
    } else {
        Stop::Drop(service.id, DropReason::NoBackend)
    }
}

#[inline(always)]
fn consultation<F, P: Packet>(
    packet: &P,
    service: &Service,
    headers: &Headers<F>,
    flow_hash: u64,
    slot: Slot,
    signal: Signal,
) -> Result<Consultation, crate::packet::OutOfBounds> {
    let l4 = &headers.l4;
    let sequence = if l4.protocol == PROTOCOL_TCP {
        l4::tcp_sequence(packet, headers.transport.l4_offset)?
    } else {
        0
    };
    Ok(Consultation {
        service: *service,
        flow_hash,
        slot,
        origin: FlowOrigin {
            client: headers.l3.source,
            client_port_be: l4.source_be,
            port_be: l4.destination_be,
            sequence,
            displaced_id: 0,
            displaced_generation: 0,
        },
        flags: l4.flags,
        protocol: l4.protocol,
        signal,
    })
}

#[inline(always)]
fn flow_hash<F, K: Kernel>(kernel: &K, headers: &Headers<F>) -> u64 {
    let tuple = FlowTuple {
        source: headers.l3.source,
        destination: headers.l3.destination,
        ports: u32::from(headers.l4.source_be) << 16 | u32::from(headers.l4.destination_be),
    };
    hash::flow(&tuple, &kernel.hash_key())
}

/// The number of the slot that a flow's hash names.
#[inline(always)]
pub(super) fn hashed_slot(service: &Service, flow_hash: u64) -> u32 {
    hash::index(hash::upper(flow_hash), service.ring_len)
}

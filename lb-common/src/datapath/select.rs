//! Which backend gets the packet.
//!
//! A settled slot of a hash-scheduled TCP service answers without any state. Round robin and
//! UDP services keep their flows in the flow table: a flow's first packet is scheduled and
//! recorded, the others follow the record.

use super::{Headers, Stop, flow};
use crate::abi::{FlowRecord, Scheduler, Service};
use crate::drop_reason::DropReason;
use crate::hash::{self, FlowTuple};
use crate::kernel::Kernel;
use crate::wire::tcp::PROTOCOL_TCP;

/// The backend chosen for a packet. Its id only: a reference beside an error code would share a
/// register with it, and the verifier allows no arithmetic on pointers.
pub(super) struct Chosen {
    pub(super) backend_id: u16,
    /// The packet is its flow's first.
    pub(super) is_new_flow: bool,
}

/// Chooses the backend.
#[inline(always)]
pub(super) fn backend<F, K: Kernel>(
    kernel: &K,
    service: &Service,
    headers: &Headers<F>,
) -> Result<Chosen, Stop> {
    if service.ring_len == 0 {
        return Err(Stop::Drop(service.id, DropReason::NoBackend));
    }
    if service.tracks_flows == 0 {
        let is_new_flow = headers.l4.flags.opens();
        let slot = hashed_slot(service, flow_hash(kernel, headers));
        return by_slot(kernel, service, slot, is_new_flow);
    }
    let flow_hash = flow_hash(kernel, headers);
    let fingerprint = flow::fingerprint(service, flow_hash);
    let now_s = kernel.now_s();
    if let Some(chosen) = recorded(kernel, service, headers, fingerprint, now_s) {
        return Ok(chosen);
    }
    scheduled(kernel, service, headers, flow_hash, fingerprint, now_s)
}

/// The backend on record for the flow, if the record still stands: its backend is there, it has
/// not been silent for the idle time-out, and the packet does not reopen a closing connection.
#[inline(always)]
fn recorded<F, K: Kernel>(
    kernel: &K,
    service: &Service,
    headers: &Headers<F>,
    fingerprint: u64,
    now_s: u32,
) -> Option<Chosen> {
    let (place, record) = flow::find(kernel, fingerprint)?;
    let age_s = record.age_s(now_s);
    let flags = headers.l4.flags;
    if flags.opens() && record.is_closing() || age_s > service.idle_timeout_s {
        return None;
    }
    let backend_id = record.backend_id();
    let backend = kernel.backend(backend_id)?;
    if !backend.is_live(record.backend_generation()) || backend.service_id != service.id {
        return None;
    }
    let closes = flags.closes() && !record.is_closing();
    // The line is written once a second at the most, so that CPUs do not fight over it.
    if closes || age_s != 0 {
        let record = record.seen(now_s);
        flow::update(kernel, place, if closes { record.closed() } else { record });
    }
    Some(Chosen {
        backend_id,
        is_new_flow: false,
    })
}

/// Schedules a flow that is not on record, and records it. A TCP packet that is no SYN belongs to
/// a connection that was forgotten or never was: it goes where its hash says, unrecorded, and the
/// backend's reset tells the client quickly.
#[inline(always)]
fn scheduled<F, K: Kernel>(
    kernel: &K,
    service: &Service,
    headers: &Headers<F>,
    flow_hash: u64,
    fingerprint: u64,
    now_s: u32,
) -> Result<Chosen, Stop> {
    let opens_flow = headers.l4.protocol != PROTOCOL_TCP || headers.l4.flags.opens();
    if !opens_flow {
        return by_slot(kernel, service, hashed_slot(service, flow_hash), false);
    }
    let slot = match Scheduler::from_byte(service.scheduler) {
        Scheduler::Maglev => hashed_slot(service, flow_hash),
        Scheduler::RoundRobin => {
            (kernel.next_round(service.id) % u64::from(service.ring_len)) as u32
        }
    };
    let chosen = by_slot(kernel, service, slot, true)?;
    let generation = kernel
        .backend(chosen.backend_id)
        .map_or(0, |backend| backend.generation);
    let record = FlowRecord::new(chosen.backend_id, generation, now_s);
    flow::record(kernel, fingerprint, record, now_s, service.idle_timeout_s);
    Ok(chosen)
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

#[inline(always)]
fn hashed_slot(service: &Service, flow_hash: u64) -> u32 {
    hash::index(hash::upper(flow_hash), service.ring_len)
}

#[inline(always)]
fn by_slot<K: Kernel>(
    kernel: &K,
    service: &Service,
    slot: u32,
    is_new_flow: bool,
) -> Result<Chosen, Stop> {
    match kernel.ring_slot(service.ring_block, slot) {
        Some(slot) => Ok(Chosen {
            backend_id: slot.current(),
            is_new_flow,
        }),
        None => Err(Stop::Drop(service.id, DropReason::BackendMissing)),
    }
}

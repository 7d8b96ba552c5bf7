//! Which backend gets the packet.
//!
//! A settled slot of a hash-scheduled TCP service answers without any state. Round robin and
//! UDP services keep their flows in the flow table: a flow's first packet is scheduled and
//! recorded, the others follow the record.

use super::{Headers, Stop};
use crate::abi::{FlowEntry, FlowKey, FlowState, Scheduler, Service};
use crate::drop_reason::DropReason;
use crate::hash::{self, FlowTuple};
use crate::kernel::{FlowHandle, Kernel};
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
pub(super) fn backend<K: Kernel>(
    kernel: &K,
    service: &Service,
    headers: &Headers,
) -> Result<Chosen, Stop> {
    if service.ring_len == 0 {
        return Err(Stop::Drop(service.id, DropReason::NoBackend));
    }
    if service.tracks_flows == 0 {
        let is_new_flow = headers.l4.flags.opens();
        return by_slot(
            kernel,
            service,
            hashed_slot(kernel, service, headers),
            is_new_flow,
        );
    }
    let key = FlowKey {
        client: headers.l3.source,
        client_port_be: headers.l4.source_be,
        service_port_be: headers.l4.destination_be,
        service_id: service.id,
        service_generation: service.generation,
    };
    if let Some(chosen) = recorded(kernel, service, headers, &key) {
        return Ok(chosen);
    }
    scheduled(kernel, service, headers, &key)
}

/// The backend on record for the flow, if the record still stands: its backend is there, it has
/// not been silent for the idle time-out, and the packet does not reopen a closing connection.
#[inline(always)]
fn recorded<K: Kernel>(
    kernel: &K,
    service: &Service,
    headers: &Headers,
    key: &FlowKey,
) -> Option<Chosen> {
    let flow = kernel.flow(key)?;
    let mut entry = flow.load();
    let now_s = kernel.now_s();
    let flags = headers.l4.flags;
    if flags.opens() && entry.state == FlowState::Closing as u8 {
        return None;
    }
    if now_s.wrapping_sub(entry.last_seen_s) > service.idle_timeout_s {
        return None;
    }
    let backend_id = entry.backend_id;
    let backend = kernel.backend(backend_id)?;
    if !backend.is_live(entry.backend_generation) || backend.service_id != service.id {
        return None;
    }
    let closes = flags.closes() && entry.state != FlowState::Closing as u8;
    // The line is written once a second at the most, so that CPUs do not fight over it.
    if closes || entry.last_seen_s != now_s {
        entry.last_seen_s = now_s;
        if closes {
            entry.state = FlowState::Closing as u8;
        }
        flow.store(entry);
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
fn scheduled<K: Kernel>(
    kernel: &K,
    service: &Service,
    headers: &Headers,
    key: &FlowKey,
) -> Result<Chosen, Stop> {
    let opens_flow = headers.l4.protocol != PROTOCOL_TCP || headers.l4.flags.opens();
    if !opens_flow {
        return by_slot(
            kernel,
            service,
            hashed_slot(kernel, service, headers),
            false,
        );
    }
    let slot = match Scheduler::from_byte(service.scheduler) {
        Scheduler::Maglev => hashed_slot(kernel, service, headers),
        Scheduler::RoundRobin => {
            (kernel.next_round(service.id) % u64::from(service.ring_len)) as u32
        }
    };
    let chosen = by_slot(kernel, service, slot, true)?;
    let generation = kernel
        .backend(chosen.backend_id)
        .map_or(0, |backend| backend.generation);
    let entry = FlowEntry {
        last_seen_s: kernel.now_s(),
        backend_id: chosen.backend_id,
        backend_generation: generation,
        state: FlowState::Open as u8,
        pad: [0; 3],
    };
    kernel.record_flow(key, &entry);
    Ok(chosen)
}

#[inline(always)]
fn hashed_slot<K: Kernel>(kernel: &K, service: &Service, headers: &Headers) -> u32 {
    let tuple = FlowTuple {
        source: headers.l3.source,
        destination: headers.l3.destination,
        ports: u32::from(headers.l4.source_be) << 16 | u32::from(headers.l4.destination_be),
    };
    hash::index(hash::flow(&tuple, &kernel.hash_key()), service.ring_len)
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

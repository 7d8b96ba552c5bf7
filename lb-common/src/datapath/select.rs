//! Which backend gets the packet.
//!
//! A settled slot of a hash-scheduled TCP service answers without any state. Round robin and
//! UDP services keep their flows in the flow table: a flow's first packet is scheduled and
//! recorded, the others follow the record.

use super::{Headers, Stop, flow};
use crate::abi::{FlowRecord, FlowState, Scheduler, Service};
use crate::drop_reason::DropReason;
use crate::hash::{self, FlowTuple};
use crate::kernel::Kernel;
use crate::limits::HALF_OPEN_TIMEOUT_S;
use crate::wire::tcp::PROTOCOL_TCP;

/// The backend chosen for a packet. Its id only: a reference beside an error code would share a
/// register with it, and the verifier allows no arithmetic on pointers.
pub(super) struct Chosen {
    pub(super) backend_id: u16,
    /// The packet is its flow's first.
    pub(super) is_new_flow: bool,
}

impl Chosen {
    /// The same, whatever way it was found: the verifier then walks what follows once, not once for
    /// each entry that a flow can be found in and each state that it can be in.
    #[inline(always)]
    fn opaque<K: Kernel>(self, kernel: &K) -> Self {
        let packed = kernel.opaque(u64::from(self.backend_id) | u64::from(self.is_new_flow) << 16);
        Self {
            backend_id: packed as u16,
            is_new_flow: packed >> 16 != 0,
        }
    }
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
    let chosen = match recorded(kernel, service, headers, fingerprint, now_s) {
        Some(chosen) => chosen,
        None => scheduled(kernel, service, headers, flow_hash, fingerprint, now_s)?,
    };
    Ok(chosen.opaque(kernel))
}

/// The backend on record for the flow, if the record still stands: its backend is there, and the
/// packet does not begin a flow on a closing or expired record. A TCP segment follows an expired
/// record too, as long as nothing else has taken its entry: the connection may just have been
/// silent.
#[inline(always)]
fn recorded<F, K: Kernel>(
    kernel: &K,
    service: &Service,
    headers: &Headers<F>,
    fingerprint: u64,
    now_s: u32,
) -> Option<Chosen> {
    let (place, record) = flow::find(kernel, fingerprint)?;
    let is_expired = record.remaining_s(now_s) < 0;
    let flags = headers.l4.flags;
    if flags.opens() && record.state().is_closing() || may_begin(headers) && is_expired {
        return None;
    }
    let backend_id = record.backend_id();
    let backend = kernel.backend(backend_id)?;
    if !backend.is_live(record.backend_generation()) || backend.service_id != service.id {
        return None;
    }
    let state = next_state(record.state(), headers);
    let updated = record.updated(expiry(service, state, now_s), state);
    // Written at a change of state and once a second, so that CPUs do not fight over the line.
    if updated != record {
        flow::update(kernel, place, record, updated);
    }
    Some(Chosen {
        backend_id,
        is_new_flow: false,
    })
}

/// Whether the packet can be a flow's first: a SYN, or any of UDP.
#[inline(always)]
fn may_begin<F>(headers: &Headers<F>) -> bool {
    headers.l4.protocol != PROTOCOL_TCP || headers.l4.flags.opens()
}

/// What a packet makes of its flow. Any segment but a SYN ends the half-open state, and shows that a
/// RST before it was not the client's.
#[inline(always)]
fn next_state<F>(state: FlowState, headers: &Headers<F>) -> FlowState {
    let flags = headers.l4.flags;
    if headers.l4.protocol != PROTOCOL_TCP || flags.opens() {
        return state;
    }
    let state = state.without(FlowState::HALF_OPEN).without(FlowState::RST);
    let state = if flags.has_fin() {
        state.with(FlowState::FIN)
    } else {
        state
    };
    if flags.has_rst() {
        state.with(FlowState::RST)
    } else {
        state
    }
}

#[inline(always)]
fn expiry(service: &Service, state: FlowState, now_s: u32) -> u32 {
    let timeout_s = service.idle_timeout_s;
    let is_short = state.is_half_open() && timeout_s > HALF_OPEN_TIMEOUT_S;
    now_s.wrapping_add(if is_short {
        HALF_OPEN_TIMEOUT_S
    } else {
        timeout_s
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
    if !may_begin(headers) {
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
    let is_tcp = headers.l4.protocol == PROTOCOL_TCP;
    let state = if is_tcp {
        FlowState::HALF_OPEN
    } else {
        FlowState::OPEN
    };
    let expires_s = expiry(service, state, now_s);
    let record = FlowRecord::new(chosen.backend_id, generation, expires_s, state);
    kernel.record_flow(fingerprint, record, now_s);
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

//! What passing packets tell of a backend's health: SYNs that are sent once more, and RSTs.
//!
//! It is found out before the flow table is asked: what would have to be kept beyond that is one word, and
//! not the headers.

use super::Headers;
use crate::hash;
use crate::kernel::{Kernel, Signal};
use crate::packet::Packet;
use crate::wire::l4;
use crate::wire::tcp::PROTOCOL_TCP;

/// What a packet on its way to a backend tells.
#[inline(always)]
pub(super) fn of_request<F, P: Packet, K: Kernel>(
    packet: &P,
    kernel: &K,
    headers: &Headers<F>,
    flow_hash: u64,
) -> Signal {
    // UDP has no flags.
    if headers.l4.flags.has_rst() {
        Signal::ClientReset
    } else if headers.l4.flags.opens() && is_repeated(packet, kernel, headers, flow_hash) {
        Signal::RepeatedSyn
    } else {
        Signal::None
    }
}

/// What a packet that comes from a backend tells.
#[inline(always)]
pub(super) fn of_reply<F>(headers: &Headers<F>) -> Signal {
    if headers.l4.protocol == PROTOCOL_TCP && headers.l4.flags.has_rst() {
        Signal::BackendReset
    } else {
        Signal::None
    }
}

/// Whether the same SYN, by flow and sequence number, has come before.
#[inline(always)]
fn is_repeated<F, P: Packet, K: Kernel>(
    packet: &P,
    kernel: &K,
    headers: &Headers<F>,
    flow_hash: u64,
) -> bool {
    let Ok(sequence) = l4::tcp_sequence(packet, headers.transport.l4_offset) else {
        return false;
    };
    let mark = hash::mix(flow_hash ^ u64::from(sequence));
    // 0 is a place that was never used.
    kernel.remember_syn(mark as u32, hash::upper(mark) | 1)
}

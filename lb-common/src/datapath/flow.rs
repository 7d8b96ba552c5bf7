//! The flow table: sets of entries, two for each flow, in an array.
//!
//! A flow's fingerprint names two sets. It is looked for in the first and then in the second;
//! a new one takes a free entry of the first, then of the second, then the entry in both that can
//! best be spared: an expired one, a closing one, the one that has been silent longest. So a
//! look-up costs one cache miss for nearly all flows, where the kernel's LRU hash costs three and
//! more. At half load one in some thousand new flows finds both sets full; at a quarter, none.

use crate::abi::{FLOW_SET_ENTRIES, FlowRecord, Service};
use crate::hash;
use crate::kernel::{FlowSetHandle as _, Kernel};

/// Where a record stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    set: u32,
    entry: usize,
}

/// The fingerprint of a flow to a service: the flow's keyed hash, bound to the service's id and
/// generation, so that flows of an earlier service with the same id never match. Never 0.
#[inline(always)]
pub fn fingerprint(service: &Service, flow_hash: u64) -> u64 {
    let owner = u64::from(service.id) << 16 | u64::from(service.generation);
    hash::mix(flow_hash ^ owner) | 1 << 63
}

/// The sets that may hold a flow: the likelier first.
#[inline(always)]
fn sets<K: Kernel>(kernel: &K, fingerprint: u64) -> (u32, u32) {
    let set_count = kernel.flow_set_count();
    let first = hash::index(fingerprint as u32, set_count);
    (first, hash::index((fingerprint >> 32) as u32, set_count))
}

/// Finds a flow's record.
#[inline(always)]
pub(super) fn find<K: Kernel>(kernel: &K, fingerprint: u64) -> Option<(Place, FlowRecord)> {
    let (first, second) = sets(kernel, fingerprint);
    if let Some(found) = find_in(kernel, fingerprint, first) {
        return Some(found);
    }
    find_in(kernel, fingerprint, second)
}

#[inline(always)]
fn find_in<K: Kernel>(kernel: &K, fingerprint: u64, set: u32) -> Option<(Place, FlowRecord)> {
    let entries = kernel.flow_set(set)?;
    for entry in 0..FLOW_SET_ENTRIES {
        if entries.fingerprint(entry) == fingerprint {
            return Some((Place { set, entry }, entries.record(entry)));
        }
    }
    None
}

/// Overwrites a record where it was found.
#[inline(always)]
pub(super) fn update<K: Kernel>(kernel: &K, place: Place, record: FlowRecord) {
    if let Some(entries) = kernel.flow_set(place.set) {
        entries.put_record(place.entry, record);
    }
}

/// Enters a flow, over its old record if there is one. If another CPU takes the same entry at the
/// same moment, the flow stays unrecorded, and its next packet tries again.
///
/// A function of its own in the program too: it takes no packet, and its stack is its own.
#[inline(never)]
pub(super) fn record<K: Kernel>(
    kernel: &K,
    fingerprint: u64,
    record: FlowRecord,
    now_s: u32,
    idle_timeout_s: u32,
) {
    if let Some((place, _)) = find(kernel, fingerprint) {
        update(kernel, place, record);
        return;
    }
    let (first, second) = sets(kernel, fingerprint);
    let in_first = most_dispensable(kernel, first, now_s, idle_timeout_s);
    if in_first.is_free() {
        replace(kernel, first, in_first.entry(), fingerprint, record);
        return;
    }
    let in_second = most_dispensable(kernel, second, now_s, idle_timeout_s);
    if in_first.0 >= in_second.0 {
        replace(kernel, first, in_first.entry(), fingerprint, record);
    } else {
        replace(kernel, second, in_second.entry(), fingerprint, record);
    }
}

#[inline(always)]
fn replace<K: Kernel>(kernel: &K, set: u32, entry: usize, fingerprint: u64, record: FlowRecord) {
    let Some(entries) = kernel.flow_set(set) else {
        return;
    };
    let old = entries.fingerprint(entry);
    // Free while the record changes: whoever finds the fingerprint finds its record.
    if entries.claim(entry, old) {
        entries.put_record(entry, record);
        entries.put_fingerprint(entry, fingerprint);
    }
}

/// How well an entry can be spared, and which it is: `{ entry: 3 bits, rank }`. The higher the
/// better.
#[derive(Clone, Copy)]
struct Candidate(u64);

const ENTRY_BITS: u32 = FLOW_SET_ENTRIES.trailing_zeros();
const RANK_CLOSING: u64 = 1 << 32;
const RANK_EXPIRED: u64 = 1 << 33;
const RANK_FREE: u64 = 1 << 34;

impl Candidate {
    #[inline(always)]
    fn is_free(self) -> bool {
        self.0 >> ENTRY_BITS >= RANK_FREE
    }

    #[inline(always)]
    fn entry(self) -> usize {
        self.0 as usize & (FLOW_SET_ENTRIES - 1)
    }

    #[inline(always)]
    fn better(self, other: Self) -> Self {
        if self.0 >= other.0 { self } else { other }
    }
}

/// A function of its own in the program too: unrolled, it needs half of what stack there is.
#[inline(never)]
fn most_dispensable<K: Kernel>(kernel: &K, set: u32, now_s: u32, idle_timeout_s: u32) -> Candidate {
    let mut best = Candidate(0);
    let Some(entries) = kernel.flow_set(set) else {
        return best;
    };
    for entry in 0..FLOW_SET_ENTRIES {
        let record = entries.record(entry);
        let age_s = record.age_s(now_s);
        let rank = u64::from(age_s)
            + RANK_FREE * u64::from(entries.fingerprint(entry) == 0)
            + RANK_EXPIRED * u64::from(age_s > idle_timeout_s)
            + RANK_CLOSING * u64::from(record.is_closing());
        best = best.better(Candidate(rank << ENTRY_BITS | entry as u64));
        best = Candidate(kernel.opaque(best.0));
    }
    best
}

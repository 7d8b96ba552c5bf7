//! The flow table: sets of entries, two for each flow, in an array.
//!
//! A flow's fingerprint names two sets. It is looked for in the first and then in the second;
//! a new one takes a free entry of the first, then of the second, then the entry in both that can
//! best be spared: an expired one, a closing one, a half-open one, the one that would expire
//! first. So a look-up costs one cache miss for nearly all flows, where the kernel's LRU hash costs
//! three and more. With the table half full of live flows, one new flow in 800 finds both sets
//! full; a quarter full, hardly any.

use crate::abi::{FINGERPRINT_BUSY, FINGERPRINT_MIN, FLOW_SET_ENTRIES, FlowRecord, Service};
use crate::hash;
use crate::kernel::{FlowSetHandle as _, Kernel};

/// Where a record stands.
#[derive(Clone, Copy)]
pub(super) struct Place {
    set: u32,
    entry: usize,
}

/// The fingerprint of a flow to a service: the flow's keyed hash, bound to the service's id and
/// generation, so that flows of an earlier service with the same id never match. At least
/// [`FINGERPRINT_MIN`].
#[inline(always)]
pub fn fingerprint(service: &Service, flow_hash: u64) -> u64 {
    let owner = u64::from(service.id) << 16 | u64::from(service.generation);
    let fingerprint = hash::mix(flow_hash ^ owner);
    if fingerprint < FINGERPRINT_MIN {
        FINGERPRINT_MIN
    } else {
        fingerprint
    }
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
            let record = entries.record(entry);
            // Another flow may have taken the entry in between: then the record is its.
            let is_ours = entries.fingerprint(entry) == fingerprint;
            // Known to the verifier, the number of the entry would be one more way through all that
            // follows.
            let entry = kernel.opaque(entry as u64) as usize;
            return is_ours.then_some((Place { set, entry }, record));
        }
    }
    None
}

/// Replaces a record where it was found, unless somebody else just did.
#[inline(always)]
pub(super) fn update<K: Kernel>(kernel: &K, place: Place, old: FlowRecord, new: FlowRecord) {
    if let Some(entries) = kernel.flow_set(place.set) {
        entries.replace_record(place.entry, old, new);
    }
}

/// Enters a flow, over its old record if there is one. If other CPUs take the same entries at the
/// same moments, twice, the flow stays unrecorded. To be called by way of [`Kernel::record_flow`].
#[inline(always)]
pub fn record<K: Kernel>(kernel: &K, fingerprint: u64, record: FlowRecord, now_s: u32) {
    if let Some((place, old)) = find(kernel, fingerprint) {
        update(kernel, place, old, record);
        return;
    }
    let is_entered = enter(kernel, fingerprint, record, now_s);
    if kernel.opaque(u64::from(is_entered)) == 0 {
        enter(kernel, fingerprint, record, now_s);
    }
}

#[inline(always)]
fn enter<K: Kernel>(kernel: &K, fingerprint: u64, record: FlowRecord, now_s: u32) -> bool {
    let (first, second) = sets(kernel, fingerprint);
    let in_first = most_dispensable(kernel, first, now_s);
    if in_first.is_free() {
        return replace(kernel, first, in_first, fingerprint, record);
    }
    let in_second = most_dispensable(kernel, second, now_s);
    if in_first.0 >= in_second.0 {
        replace(kernel, first, in_first, fingerprint, record)
    } else {
        replace(kernel, second, in_second, fingerprint, record)
    }
}

#[inline(always)]
fn replace<K: Kernel>(
    kernel: &K,
    set: u32,
    candidate: Candidate,
    fingerprint: u64,
    record: FlowRecord,
) -> bool {
    let Some(entries) = kernel.flow_set(set) else {
        return false;
    };
    let entry = candidate.entry();
    let old = entries.fingerprint(entry);
    let is_ours = old != FINGERPRINT_BUSY && entries.claim(entry, old);
    if is_ours {
        entries.fill(entry, fingerprint, record);
    }
    is_ours
}

/// How well an entry can be spared, and which it is: `{ entry: 3 bits, rank }`. The higher the
/// better.
#[derive(Clone, Copy)]
struct Candidate(u64);

const ENTRY_BITS: u32 = FLOW_SET_ENTRIES.trailing_zeros();
/// More than any remaining time. Unit: seconds.
const REMAINING_MAX: u64 = 1 << 24;
const RANK_HALF_OPEN: u64 = 1 << 32;
const RANK_CLOSING: u64 = 1 << 33;
const RANK_EXPIRED: u64 = 1 << 34;
const RANK_FREE: u64 = 1 << 35;

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
fn most_dispensable<K: Kernel>(kernel: &K, set: u32, now_s: u32) -> Candidate {
    let mut best = Candidate(0);
    let Some(entries) = kernel.flow_set(set) else {
        return best;
    };
    for entry in 0..FLOW_SET_ENTRIES {
        let rank = rank(entries.fingerprint(entry), entries.record(entry), now_s);
        best = best.better(Candidate(rank << ENTRY_BITS | entry as u64));
        best = Candidate(kernel.opaque(best.0));
    }
    best
}

#[inline(always)]
fn rank(fingerprint: u64, record: FlowRecord, now_s: u32) -> u64 {
    if fingerprint == FINGERPRINT_BUSY {
        return 0;
    }
    let remaining_s = record.remaining_s(now_s);
    let state = record.state();
    REMAINING_MAX.wrapping_sub(i64::from(remaining_s) as u64)
        + RANK_FREE * u64::from(fingerprint == 0)
        + RANK_EXPIRED * u64::from(remaining_s < 0)
        + RANK_CLOSING * u64::from(state.is_closing())
        + RANK_HALF_OPEN * u64::from(state.is_half_open())
}

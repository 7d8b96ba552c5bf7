//! The flow table: sets of entries, two for each flow, in an array.
//!
//! A flow's fingerprint names two sets. It is looked for in the first and then in the second. So a
//! look-up costs one cache miss for nearly all flows, where the kernel's LRU hash costs three and
//! more. With the table half full of live flows, one new flow in 800 finds both sets full; a quarter
//! full, hardly any.
//!
//! Who gets in is decided set by set, without any shared count:
//!
//! - A flow in **probation** takes a free or expired entry as long as probation holds fewer than
//!   [`PROBATION_PER_SET`] entries of the set. Else it takes the place of the oldest half-open flow that
//!   is older than [`HALF_OPEN_PROTECTED_S`]. It takes the place of nothing else: a SYN flood competes
//!   with half-open flows only.
//! - An **exposed** flow, one that would go to a dead backend if it were not recorded, may also take the
//!   place of the oldest exposed half-open flow, however young: whoever has no record is lost among them,
//!   so that under a flood a handshake of some milliseconds completes where waiting for room would be in vain.
//! - A **learned** flow takes a free or expired entry of a set with fewer than [`LEARNING_FILL_MAX`] live
//!   and fewer than [`LEARNED_PER_SET`] unconfirmed learned ones.
//! - What does not get in is not recorded, and its caller knows.

use crate::abi::{
    FINGERPRINT_BUSY, FINGERPRINT_MIN, FLOW_SET_ENTRIES, FlowRecord, FlowState, Service,
};
use crate::hash;
use crate::kernel::{FlowSetHandle as _, Kernel};
use crate::limits::{
    HALF_OPEN_PROTECTED_S, HALF_OPEN_TIMEOUT_S, LEARNED_PER_SET, LEARNING_FILL_MAX,
    PROBATION_PER_SET,
};

/// Where a record stands: `set · FLOW_SET_ENTRIES + entry`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowPlace(pub u32);

impl FlowPlace {
    #[inline(always)]
    const fn new(set: u32, entry: usize) -> Self {
        Self(set * FLOW_SET_ENTRIES as u32 + entry as u32)
    }

    /// The number of the set.
    #[inline(always)]
    pub const fn set(self) -> u32 {
        self.0 / FLOW_SET_ENTRIES as u32
    }

    /// The number of the entry in its set.
    #[inline(always)]
    pub const fn entry(self) -> usize {
        self.0 as usize % FLOW_SET_ENTRIES
    }
}

/// The service's part of a fingerprint.
#[inline(always)]
const fn owner(service: &Service) -> u64 {
    (service.id as u64) << 16 | service.generation as u64
}

/// The fingerprint of a flow to a service: the flow's keyed hash, bound to the service's id and
/// generation, so that flows of an earlier service with the same id never match. At least
/// [`FINGERPRINT_MIN`].
#[inline(always)]
pub const fn fingerprint(service: &Service, flow_hash: u64) -> u64 {
    let fingerprint = hash::mix(flow_hash ^ owner(service));
    if fingerprint < FINGERPRINT_MIN {
        FINGERPRINT_MIN
    } else {
        fingerprint
    }
}

/// The flow's keyed hash from its fingerprint, and with it the slot of its service's ring: who walks
/// the table needs no client addresses.
#[inline(always)]
pub const fn flow_hash(service: &Service, fingerprint: u64) -> u64 {
    hash::unmix(fingerprint) ^ owner(service)
}

/// The sets that may hold a flow in a table of `set_count` sets: the likelier first.
#[inline(always)]
pub const fn sets(fingerprint: u64, set_count: u32) -> (u32, u32) {
    let first = hash::index(fingerprint as u32, set_count);
    (first, hash::index((fingerprint >> 32) as u32, set_count))
}

/// Finds a flow's record.
#[inline(always)]
pub(super) fn find<K: Kernel>(kernel: &K, fingerprint: u64) -> Option<(FlowPlace, FlowRecord)> {
    let (first, second) = sets(fingerprint, kernel.flow_set_count());
    if let Some(found) = find_in(kernel, fingerprint, first) {
        return Some(found);
    }
    find_in(kernel, fingerprint, second)
}

#[inline(always)]
fn find_in<K: Kernel>(kernel: &K, fingerprint: u64, set: u32) -> Option<(FlowPlace, FlowRecord)> {
    let entries = kernel.flow_set(set)?;
    for entry in 0..FLOW_SET_ENTRIES {
        if entries.fingerprint(entry) == fingerprint {
            let record = entries.record(entry);
            // Another flow may have taken the entry in between: then the record is its.
            let is_ours = entries.fingerprint(entry) == fingerprint;
            // Known to the verifier, the number of the entry would be one more way through all that
            // follows.
            let entry = kernel.opaque(entry as u64) as usize;
            return is_ours.then_some((FlowPlace::new(set, entry), record));
        }
    }
    None
}

/// Replaces a record where it was found, unless somebody else just did.
#[inline(always)]
pub(super) fn update<K: Kernel>(kernel: &K, place: FlowPlace, old: FlowRecord, new: FlowRecord) {
    if let Some(entries) = kernel.flow_set(place.set()) {
        entries.replace_record(place.entry(), old, new);
    }
}

/// Enters a flow, over its old record if there is one; `None` if there is no room for it, or if another
/// CPU takes the same entry at the same moment. To be called by way of [`Kernel::record_flow`].
#[inline(always)]
pub fn record<K: Kernel>(
    kernel: &K,
    fingerprint: u64,
    record: FlowRecord,
    now_s: u32,
) -> Option<FlowPlace> {
    if let Some((place, old)) = find(kernel, fingerprint) {
        update(kernel, place, old, record);
        return Some(place);
    }
    let (first, second) = sets(fingerprint, kernel.flow_set_count());
    let newcomer = u32::from(record.state().0);
    let in_first = candidate(kernel, first, now_s, newcomer);
    if in_first.is_free() {
        return replace(kernel, first, in_first, fingerprint, record);
    }
    let in_second = candidate(kernel, second, now_s, newcomer);
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
) -> Option<FlowPlace> {
    if !candidate.is_admitted() {
        return None;
    }
    let entries = kernel.flow_set(set)?;
    let entry = candidate.entry();
    let old = entries.fingerprint(entry);
    let is_ours = old != FINGERPRINT_BUSY && entries.claim(entry, old);
    if is_ours {
        entries.fill(entry, fingerprint, record);
    }
    is_ours.then_some(FlowPlace::new(set, entry))
}

/// An entry that may be taken, and how well it can be spared: `{ entry: 3 bits, rank }`. The higher
/// the better; rank 0 may not be taken.
#[derive(Clone, Copy)]
struct Candidate(u64);

const ENTRY_BITS: u32 = FLOW_SET_ENTRIES.trailing_zeros();
const RANK_HALF_OPEN: u64 = 1 << 32;
const RANK_EXPIRED: u64 = 1 << 33;
const RANK_FREE: u64 = 1 << 34;
/// A half-open flow with less than this is left in peace no longer. Unit: seconds.
const UNPROTECTED_S: i32 = (HALF_OPEN_TIMEOUT_S - HALF_OPEN_PROTECTED_S) as i32;

impl Candidate {
    #[inline(always)]
    fn is_free(self) -> bool {
        self.0 >> ENTRY_BITS >= RANK_FREE
    }

    #[inline(always)]
    fn is_admitted(self) -> bool {
        self.0 >> ENTRY_BITS != 0
    }

    #[inline(always)]
    fn entry(self) -> usize {
        self.0 as usize & (FLOW_SET_ENTRIES - 1)
    }
}

/// The entry of a set that a new flow of this state may take. A function of its own in the program too:
/// unrolled, it needs half of what stack there is.
#[inline(never)]
fn candidate<K: Kernel>(kernel: &K, set: u32, now_s: u32, newcomer: u32) -> Candidate {
    let Some(entries) = kernel.flow_set(set) else {
        return Candidate(0);
    };
    let mut vacant = 0;
    let mut half_open = 0;
    let mut counts = Counts(0);
    for entry in 0..FLOW_SET_ENTRIES {
        let (fingerprint, record) = (entries.fingerprint(entry), entries.record(entry));
        let remaining_s = record.remaining_s(now_s);
        let number = entry as u64;
        vacant = later(
            vacant,
            vacancy(fingerprint, remaining_s) << ENTRY_BITS | number,
        );
        half_open = later(
            half_open,
            oldness(fingerprint, record, remaining_s, newcomer) << ENTRY_BITS | number,
        );
        counts = counts.with(fingerprint, record, remaining_s);
        // So that the verifier does not tell apart which entry it was.
        vacant = kernel.opaque(vacant);
        half_open = kernel.opaque(half_open);
        counts = Counts(kernel.opaque(counts.0));
    }
    if FlowState(newcomer as u8).has(FlowState::LEARNED) {
        return Candidate(vacant * u64::from(counts.admits_learned()));
    }
    let vacant = vacant * u64::from(counts.admits_half_open());
    Candidate(later(vacant, half_open))
}

#[inline(always)]
const fn later(one: u64, other: u64) -> u64 {
    if one >= other { one } else { other }
}

/// Free before expired, and of those the one that expired first. 0: neither.
#[inline(always)]
fn vacancy(fingerprint: u64, remaining_s: i32) -> u64 {
    let is_expired = remaining_s < 0 && fingerprint >= FINGERPRINT_MIN;
    let expired_s = i64::from(-remaining_s) as u64;
    RANK_FREE * u64::from(fingerprint == 0)
        + RANK_EXPIRED.wrapping_add(expired_s) * u64::from(is_expired)
}

/// The oldest half-open flow that is not protected from the newcomer. 0: none.
#[inline(always)]
fn oldness(fingerprint: u64, record: FlowRecord, remaining_s: i32, newcomer: u32) -> u64 {
    let are_exposed = newcomer as u8 & record.state().0 & FlowState::EXPOSED.0 != 0;
    let is_unprotected = remaining_s <= UNPROTECTED_S || are_exposed;
    let is_old = record.state().is_in_probation() && is_unprotected;
    let is_taken = fingerprint >= FINGERPRINT_MIN && remaining_s >= 0;
    let age_s = i64::from(HALF_OPEN_TIMEOUT_S as i32 - remaining_s) as u64;
    RANK_HALF_OPEN.wrapping_add(age_s) * u64::from(is_old && is_taken)
}

/// Live entries of a set, all of them, the half-open and the learned ones: 8 bits each.
#[derive(Clone, Copy)]
struct Counts(u64);

impl Counts {
    #[inline(always)]
    fn with(self, fingerprint: u64, record: FlowRecord, remaining_s: i32) -> Self {
        let state = record.state();
        let is_live = fingerprint != 0 && remaining_s >= 0;
        let kinds = 1
            | u64::from(state.is_half_open()) << 8
            | u64::from(state.has(FlowState::LEARNED)) << 16;
        Self(self.0 + kinds * u64::from(is_live))
    }

    #[inline(always)]
    const fn admits_half_open(self) -> bool {
        (self.0 >> 8 & 0xff) < PROBATION_PER_SET as u64
    }

    #[inline(always)]
    const fn admits_learned(self) -> bool {
        (self.0 & 0xff) < LEARNING_FILL_MAX as u64 && (self.0 >> 16 & 0xff) < LEARNED_PER_SET as u64
    }
}

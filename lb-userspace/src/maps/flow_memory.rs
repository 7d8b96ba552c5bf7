//! The flow table, mapped into the daemon: what `lbctl` lists, and what a sweep deletes.
//!
//! Packets read and write the same words at the same time. Each word is read whole; what belongs
//! together is read twice and compared.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU64, Ordering};

use lb_common::abi::{
    FINGERPRINT_BUSY, FINGERPRINT_MIN, FLOW_SET_ENTRIES, FlowEntry, FlowOrigin, FlowOriginSet,
    FlowRecord, FlowSet,
};

use super::mapping::Mapping;

/// The maps of one datapath's flow table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FlowMaps<'a> {
    /// `FLOWS`.
    pub(crate) flows: BorrowedFd<'a>,
    /// `FLOW_ORIGINS`.
    pub(crate) origins: BorrowedFd<'a>,
    /// `SUPPRESSED`.
    pub(crate) suppressed: BorrowedFd<'a>,
    /// Elements of the first two.
    pub(crate) set_count: u32,
    /// Elements of the last.
    pub(crate) service_count: u32,
}

/// The flow table as memory.
pub struct FlowMemory {
    flows: Mapping,
    origins: Mapping,
    suppressed: Mapping,
    set_count: usize,
    service_count: usize,
}

/// An entry's two words, in place.
struct Words<'a> {
    fingerprint: &'a AtomicU64,
    record: &'a AtomicU64,
}

impl FlowMemory {
    /// Maps the three maps.
    pub(crate) fn map(maps: &FlowMaps<'_>) -> io::Result<Self> {
        let (set_count, service_count) = (maps.set_count as usize, maps.service_count as usize);
        Ok(Self {
            flows: Mapping::new(maps.flows, set_count * size_of::<FlowSet>())?,
            origins: Mapping::new(maps.origins, set_count * size_of::<FlowOriginSet>())?,
            suppressed: Mapping::new(maps.suppressed, service_count * size_of::<u64>())?,
            set_count,
            service_count,
        })
    }

    /// Entries of the table.
    pub fn entry_count(&self) -> usize {
        self.set_count * FLOW_SET_ENTRIES
    }

    fn words(&self, place: usize) -> Words<'_> {
        assert!(place < self.entry_count());
        let entries = self.flows.address().cast::<[AtomicU64; 2]>();
        // SAFETY: the place is within the mapped entries, which are two aligned words each and live as
        // long as `self`; all access to them is atomic, here and in the packet path.
        let [fingerprint, record] = unsafe { entries.add(place).as_ref() };
        Words {
            fingerprint,
            record,
        }
    }

    /// The entry at a place, by its number in the table; `None` if it is free or just changing.
    pub fn entry(&self, place: usize) -> Option<FlowEntry> {
        let words = self.words(place);
        let fingerprint = words.fingerprint.load(Ordering::Acquire);
        if fingerprint < FINGERPRINT_MIN {
            return None;
        }
        let record = FlowRecord(words.record.load(Ordering::Acquire));
        let is_steady = words.fingerprint.load(Ordering::Acquire) == fingerprint;
        is_steady.then_some(FlowEntry {
            fingerprint,
            record,
        })
    }

    /// The origin of the flow at a place. It may be changing: for people, and for what does no harm.
    pub fn origin(&self, place: usize) -> FlowOrigin {
        assert!(place < self.entry_count());
        let origins = self.origins.address().cast::<FlowOrigin>();
        // SAFETY: the place is within the mapped origins, which are plain old data; read as volatile,
        // since packets write them.
        unsafe { origins.add(place).read_volatile() }
    }

    /// Deletes an entry, if it still is what was read.
    pub fn delete(&self, place: usize, entry: &FlowEntry) -> bool {
        let words = self.words(place);
        let claimed = words.fingerprint.compare_exchange(
            entry.fingerprint,
            FINGERPRINT_BUSY,
            Ordering::SeqCst,
            Ordering::SeqCst,
        );
        if claimed.is_err() {
            return false;
        }
        let is_same = words.record.load(Ordering::SeqCst) == entry.record.0;
        let fingerprint = if is_same { 0 } else { entry.fingerprint };
        words.fingerprint.store(fingerprint, Ordering::SeqCst);
        is_same
    }

    /// The last second in which a flow of the service was not recorded that should have been, on the
    /// packet path's clock; `None` = never.
    pub fn suppressed_s(&self, service_id: u16) -> Option<u64> {
        let service_id = usize::from(service_id);
        if service_id >= self.service_count {
            return None;
        }
        let stamps = self.suppressed.address().cast::<AtomicU64>();
        // SAFETY: within the mapped stamps, aligned words.
        let stamp = unsafe { stamps.add(service_id).as_ref() }.load(Ordering::Relaxed);
        (stamp != 0).then_some(stamp)
    }
}

/// Milliseconds of the packet path's clock (`CLOCK_MONOTONIC`).
pub(crate) fn monotonic_ms() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: a valid place for the answer; this clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000 + time.tv_nsec as u64 / 1_000_000
}

const _: () = assert!(size_of::<FlowOriginSet>() == FLOW_SET_ENTRIES * size_of::<FlowOrigin>());
const _: () = assert!(size_of::<FlowSet>() == FLOW_SET_ENTRIES * 2 * size_of::<AtomicU64>());

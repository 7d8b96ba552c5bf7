//! The flow table, mapped into the daemon: what `lbctl` lists, and what a sweep deletes.
//!
//! Packets read and write the same words at the same time. Each word is read whole; what belongs
//! together is read twice and compared.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use lb_common::abi::{
    FLOW_CHANGES_SETS, FLOW_SET_ENTRIES, FlowChanges, FlowEntry, FlowOrigin, FlowOriginSet,
    FlowSet, flow_changes_len,
};

use super::flow_words::{FlowWords, ORIGIN_WORDS, Written};
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
    /// `FLOW_CHANGES`, with an element for each [`FLOW_CHANGES_SETS`] sets.
    pub(crate) changes: BorrowedFd<'a>,
    /// Elements of the first two.
    pub(crate) set_count: u32,
    /// Elements of the third.
    pub(crate) service_count: u32,
}

/// The flow table as memory.
pub struct FlowMemory {
    flows: Mapping,
    origins: Mapping,
    suppressed: Mapping,
    changes: Mapping,
    set_count: usize,
    service_count: usize,
}

/// Sets whose marks are looked at at once.
const WORD_SETS: usize = size_of::<u64>();

impl FlowMemory {
    /// Maps the maps.
    pub(crate) fn map(maps: &FlowMaps<'_>) -> io::Result<Self> {
        let (set_count, service_count) = (maps.set_count as usize, maps.service_count as usize);
        Ok(Self {
            flows: Mapping::new(maps.flows, set_count * size_of::<FlowSet>())?,
            origins: Mapping::new(maps.origins, set_count * size_of::<FlowOriginSet>())?,
            suppressed: Mapping::new(maps.suppressed, service_count * size_of::<u64>())?,
            changes: Mapping::new(
                maps.changes,
                flow_changes_len(maps.set_count) as usize * size_of::<FlowChanges>(),
            )?,
            set_count,
            service_count,
        })
    }

    /// Entries of the table.
    pub fn entry_count(&self) -> usize {
        self.set_count * FLOW_SET_ENTRIES
    }

    /// Sets of the table.
    pub(crate) fn set_count(&self) -> u32 {
        self.set_count as u32
    }

    /// The entry at a place, by its number in the table.
    pub(crate) fn words(&self, place: usize) -> FlowWords<'_> {
        assert!(place < self.entry_count());
        let entries = self.flows.address().cast::<[AtomicU64; 2]>();
        let origins = self.origins.address().cast::<[AtomicU32; ORIGIN_WORDS]>();
        // SAFETY: the place is within the mapped entries and origins, which are aligned words that live as
        // long as `self`; they are written by packets and by atomic stores alone.
        let ([fingerprint, record], origin) =
            unsafe { (entries.add(place).as_ref(), origins.add(place).as_ref()) };
        FlowWords {
            fingerprint,
            record,
            origin,
        }
    }

    /// Takes the marks of sets that have changed, from the set `from` on and round the table, and appends the sets'
    /// numbers. At most `count_max`: what is over stays marked. Each mark is cleared before this returns, so what
    /// changes after the caller has read a set marks it anew. Returns where to begin next.
    pub(crate) fn take_changed(&self, from: u32, sets: &mut Vec<u32>, count_max: usize) -> u32 {
        let word_count = self.set_count.div_ceil(WORD_SETS);
        let first = from as usize / WORD_SETS;
        for word in (first..word_count).chain(0..first.min(word_count)) {
            if sets.len() >= count_max {
                return (word * WORD_SETS) as u32;
            }
            self.take_word(word, sets);
        }
        from
    }

    /// A word's marks are taken whole: `count_max` may be exceeded by as many.
    fn take_word(&self, word: usize, sets: &mut Vec<u32>) {
        let words: NonNull<AtomicU64> = self.changes.address().cast();
        // SAFETY: below the number of sets, rounded up to an element; words are aligned there. All access is
        // atomic.
        let marks = unsafe { words.add(word).as_ref() };
        if marks.load(Ordering::Relaxed) == 0 {
            return;
        }
        let marks: NonNull<AtomicU8> = self.changes.address().cast();
        let first = word * WORD_SETS;
        for set in first..(first + WORD_SETS).min(self.set_count) {
            // SAFETY: as above. Byte by byte: the packet path stores bytes.
            let mark = unsafe { marks.add(set).as_ref() };
            if mark.load(Ordering::Relaxed) != 0 && mark.swap(0, Ordering::SeqCst) != 0 {
                sets.push(set as u32);
            }
        }
    }

    /// The entry at a place, by its number in the table; `None` if it is free or just changing.
    pub fn entry(&self, place: usize) -> Option<FlowEntry> {
        self.words(place).entry()
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
        self.words(place).delete(entry) == Written::Yes
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
const _: () = assert!(FLOW_CHANGES_SETS.is_multiple_of(WORD_SETS));

//! An entry of the flow table in place, word by word: the packet path reads and writes it at the same time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use lb_common::abi::{FINGERPRINT_BUSY, FINGERPRINT_MIN, FlowEntry, FlowOrigin, FlowRecord};

/// Words of a [`FlowOrigin`].
pub(crate) const ORIGIN_WORDS: usize = size_of::<FlowOrigin>() / size_of::<u32>();

/// An entry, and the origin at its place.
#[derive(Clone, Copy)]
pub(crate) struct FlowWords<'t> {
    /// [`FlowEntry::fingerprint`].
    pub(crate) fingerprint: &'t AtomicU64,
    /// [`FlowEntry::record`].
    pub(crate) record: &'t AtomicU64,
    /// [`FlowOrigin`].
    pub(crate) origin: &'t [AtomicU32; ORIGIN_WORDS],
}

/// A flow on record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Flow {
    /// The flow.
    pub(crate) fingerprint: u64,
    /// What is known about it.
    pub(crate) record: FlowRecord,
    /// Where it comes from.
    pub(crate) origin: FlowOrigin,
}

/// Whether a write was done, or somebody else was faster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It was done.
    Yes,
    /// The entry is not any more what it was.
    No,
}

impl FlowWords<'_> {
    /// The entry, without its origin; `None` if it is free or just changing.
    pub(crate) fn entry(&self) -> Option<FlowEntry> {
        let fingerprint = self.fingerprint.load(Ordering::Acquire);
        if fingerprint < FINGERPRINT_MIN {
            return None;
        }
        let record = FlowRecord(self.record.load(Ordering::Acquire));
        let is_steady = self.fingerprint.load(Ordering::Acquire) == fingerprint;
        is_steady.then_some(FlowEntry {
            fingerprint,
            record,
        })
    }

    /// The flow here; `None` if there is none, or if it is just changing. The origin of a flow that begins
    /// at this moment may still be that of the one before it.
    pub(crate) fn read(&self) -> Option<Flow> {
        let entry = self.entry()?;
        let origin = self.origin();
        fence(Ordering::Acquire);
        let is_steady = self.entry() == Some(entry);
        is_steady.then_some(Flow {
            fingerprint: entry.fingerprint,
            record: entry.record,
            origin,
        })
    }

    fn origin(&self) -> FlowOrigin {
        let words = self
            .origin
            .each_ref()
            .map(|word| word.load(Ordering::Relaxed));
        bytemuck::cast(words)
    }

    fn put_origin(&self, origin: &FlowOrigin) {
        let words: [u32; ORIGIN_WORDS] = bytemuck::cast(*origin);
        for (target, word) in self.origin.iter().zip(words) {
            target.store(word, Ordering::Relaxed);
        }
        fence(Ordering::Release);
    }

    /// Enters a flow in the place of the fingerprint `old` (0 = a free entry), which is another's: claimed first,
    /// the fingerprint last, as the packet path does it.
    pub(crate) fn take(&self, old: u64, flow: &Flow) -> Written {
        if self.claim(old) == Written::No {
            return Written::No;
        }
        self.put_origin(&flow.origin);
        self.record.store(flow.record.0, Ordering::Relaxed);
        self.fingerprint.store(flow.fingerprint, Ordering::Release);
        Written::Yes
    }

    /// Replaces what is known of the same flow, unless a packet has just changed it. The entry is the flow's at
    /// every moment: claimed, and this thread suspended, its packets would not find it. Until the record
    /// follows, the new origin stands beside the old record, which does not need it unless it is half open.
    pub(crate) fn replace(&self, old: &Flow, new: &Flow) -> Written {
        self.put_origin(&new.origin);
        let written = self.replace_record(old.record, new.record);
        // A packet may have begun a handshake in the entry meanwhile, with an origin of its own.
        if written == Written::No && self.origin() == new.origin {
            self.put_origin(&old.origin);
        }
        written
    }

    /// Replaces the record alone.
    pub(crate) fn replace_record(&self, old: FlowRecord, new: FlowRecord) -> Written {
        let replaced =
            self.record
                .compare_exchange(old.0, new.0, Ordering::SeqCst, Ordering::Relaxed);
        if replaced.is_ok() {
            Written::Yes
        } else {
            Written::No
        }
    }

    /// Frees the entry, if it still is what was read.
    pub(crate) fn delete(&self, entry: &FlowEntry) -> Written {
        if self.claim(entry.fingerprint) == Written::No {
            return Written::No;
        }
        let is_same = self.record.load(Ordering::SeqCst) == entry.record.0;
        let next = if is_same { 0 } else { entry.fingerprint };
        self.fingerprint.store(next, Ordering::SeqCst);
        if is_same { Written::Yes } else { Written::No }
    }

    fn claim(&self, old: u64) -> Written {
        // What somebody else is writing is not to be claimed a second time.
        if old == FINGERPRINT_BUSY {
            return Written::No;
        }
        let claimed = self.fingerprint.compare_exchange(
            old,
            FINGERPRINT_BUSY,
            Ordering::SeqCst,
            Ordering::Relaxed,
        );
        if claimed.is_ok() {
            Written::Yes
        } else {
            Written::No
        }
    }
}

#[cfg(test)]
mod tests {
    use bytemuck::Zeroable as _;
    use lb_common::abi::FlowState;

    use super::*;

    #[derive(Default)]
    struct Memory {
        fingerprint: AtomicU64,
        record: AtomicU64,
        origin: [AtomicU32; ORIGIN_WORDS],
    }

    impl Memory {
        fn words(&self) -> FlowWords<'_> {
            FlowWords {
                fingerprint: &self.fingerprint,
                record: &self.record,
                origin: &self.origin,
            }
        }
    }

    fn flow(fingerprint: u64, backend_id: u16, sequence: u32) -> Flow {
        Flow {
            fingerprint,
            record: FlowRecord::new(backend_id, 1, 60, FlowState::OPEN),
            origin: FlowOrigin {
                sequence,
                ..FlowOrigin::zeroed()
            },
        }
    }

    #[test]
    fn a_flow_is_entered_replaced_and_deleted() {
        let memory = Memory::default();
        let words = memory.words();
        let (first, second) = (flow(7, 1, 100), flow(7, 2, 900));
        assert_eq!(words.read(), None);
        assert_eq!(words.take(0, &first), Written::Yes);
        assert_eq!(words.read(), Some(first));
        assert_eq!(words.take(0, &second), Written::No, "it is not free");
        assert_eq!(words.replace(&first, &second), Written::Yes);
        assert_eq!(words.read(), Some(second));
        let entry = words.entry().unwrap();
        assert_eq!(words.delete(&entry), Written::Yes);
        assert_eq!(words.read(), None);
    }

    #[test]
    fn what_a_packet_has_changed_meanwhile_stays() {
        let memory = Memory::default();
        let words = memory.words();
        let (found, changed) = (flow(7, 1, 100), flow(7, 3, 100));
        words.take(0, &found);
        let entry = words.entry().unwrap();
        words.replace_record(found.record, changed.record);
        assert_eq!(words.replace(&found, &flow(7, 2, 900)), Written::No);
        assert_eq!(words.delete(&entry), Written::No);
        assert_eq!(words.read(), Some(changed));
    }

    #[test]
    fn an_entry_that_is_being_written_is_left_alone() {
        let memory = Memory::default();
        let words = memory.words();
        memory
            .fingerprint
            .store(FINGERPRINT_BUSY, Ordering::Relaxed);
        assert_eq!(words.read(), None);
        assert_eq!(words.take(FINGERPRINT_BUSY, &flow(7, 1, 1)), Written::No);
        assert_eq!(words.take(0, &flow(7, 1, 1)), Written::No);
    }
}

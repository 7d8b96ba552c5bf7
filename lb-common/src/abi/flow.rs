use bytemuck::{Pod, Zeroable};

/// Entries in a [`FlowSet`].
pub const FLOW_SET_ENTRIES: usize = 8;

/// Where a flow is in its life.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FlowState {
    /// Packets follow the record.
    Open = 0,
    /// A FIN or RST was seen: packets follow the record, a new SYN is scheduled anew.
    Closing = 1,
}

/// What is known about a flow, in one 64-bit word that is read and written whole:
/// `{ backend id: 16, its generation: 16, last seen: 24, state: 8 }` from the least significant
/// bit up.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FlowRecord(pub u64);

const GENERATION_SHIFT: u32 = 16;
const LAST_SEEN_SHIFT: u32 = 32;
const LAST_SEEN_MASK: u32 = 0x00ff_ffff;
const STATE_SHIFT: u32 = 56;

impl FlowRecord {
    /// An open flow, seen at `now_s`.
    #[inline(always)]
    pub const fn new(backend_id: u16, backend_generation: u16, now_s: u32) -> Self {
        Self(
            backend_id as u64
                | (backend_generation as u64) << GENERATION_SHIFT
                | ((now_s & LAST_SEEN_MASK) as u64) << LAST_SEEN_SHIFT,
        )
    }

    /// The flow's backend.
    #[inline(always)]
    pub const fn backend_id(self) -> u16 {
        self.0 as u16
    }

    /// That id's generation when the flow was recorded.
    #[inline(always)]
    pub const fn backend_generation(self) -> u16 {
        (self.0 >> GENERATION_SHIFT) as u16
    }

    /// Seconds since the flow's last packet; wraps after 194 days.
    #[inline(always)]
    pub const fn age_s(self, now_s: u32) -> u32 {
        let last_seen = (self.0 >> LAST_SEEN_SHIFT) as u32;
        now_s.wrapping_sub(last_seen) & LAST_SEEN_MASK
    }

    /// Whether a FIN or RST was seen.
    #[inline(always)]
    pub const fn is_closing(self) -> bool {
        self.0 >> STATE_SHIFT == FlowState::Closing as u64
    }

    /// The same record, seen at `now_s`.
    #[inline(always)]
    pub const fn seen(self, now_s: u32) -> Self {
        let cleared = self.0 & !((LAST_SEEN_MASK as u64) << LAST_SEEN_SHIFT);
        Self(cleared | ((now_s & LAST_SEEN_MASK) as u64) << LAST_SEEN_SHIFT)
    }

    /// The same record, closing.
    #[inline(always)]
    pub const fn closed(self) -> Self {
        Self(self.0 | (FlowState::Closing as u64) << STATE_SHIFT)
    }
}

/// An entry of the flow table. A flow is known by its keyed 64-bit fingerprint; two of a million
/// live flows share one with a probability of 3 · 10⁻⁸, and nobody without the key can aim for it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowEntry {
    /// The flow; 0 = the entry is free.
    pub fingerprint: u64,
    /// What is known about it.
    pub record: FlowRecord,
}

/// An element of `FLOWS`: two adjacent cache lines, which the memory fetches as one.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowSet {
    /// The entries, in no order.
    pub entries: [FlowEntry; FLOW_SET_ENTRIES],
}

const _: () = assert!(size_of::<FlowEntry>() == 16);
const _: () = assert!(size_of::<FlowSet>() == 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        let record = FlowRecord::new(u16::MAX, 0, u32::MAX).closed();
        assert_eq!(
            (record.backend_id(), record.backend_generation()),
            (u16::MAX, 0)
        );
        assert!(record.is_closing());
        let record = FlowRecord::new(0, u16::MAX, 0);
        assert_eq!(
            (record.backend_id(), record.backend_generation()),
            (0, u16::MAX)
        );
        assert!(!record.is_closing());
    }

    #[test]
    fn age_survives_the_wrap_of_the_clock() {
        let record = FlowRecord::new(1, 1, 0x01ff_fffe);
        assert_eq!(record.age_s(0x0200_0003), 5);
        assert_eq!(record.seen(0x0200_0003).age_s(0x0200_0003), 0);
        assert!(record.closed().seen(7).is_closing());
    }
}

use bytemuck::{Pod, Zeroable};

use super::Address;

/// Entries in a [`FlowSet`].
pub const FLOW_SET_ENTRIES: usize = 8;

/// Where a flow is in its life: bits, any of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowState(pub u8);

impl FlowState {
    /// Established: the flow's second packet was seen.
    pub const OPEN: Self = Self(0);
    /// In probation: TCP of which only SYNs were seen, or UDP of which one packet was. A SYN flood
    /// competes with these and no others.
    pub const HALF_OPEN: Self = Self(1);
    /// The client has sent a FIN. Packets follow the record; a new SYN is scheduled anew.
    pub const FIN: Self = Self(2);
    /// The client, or somebody in its name, has sent a RST. As with FIN, until the client's next
    /// segment shows that the connection lives.
    pub const RST: Self = Self(4);
    /// Recorded in the middle of its life, because its slot was moving; one packet was seen since.
    pub const LEARNED: Self = Self(8);
    /// After the FIN, one more segment was seen: an orderly end has that many.
    pub const FIN_ACKED: Self = Self(16);
    /// After the FIN, more segments were seen than an orderly end has: the client still receives, or
    /// the FIN was not the client's. As long-lived as an open flow.
    pub const HALF_CLOSED: Self = Self(32);
    /// With [`Self::HALF_OPEN`]: the place was another flow's, which may be alive. Nobody takes it.
    pub const DISPLACING: Self = Self(64);
    /// With [`Self::HALF_OPEN`]: without its record the flow would go to a backend that is down. Another
    /// such flow may take the place.
    pub const EXPOSED: Self = Self(128);

    /// Both.
    #[inline(always)]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This without `other`.
    #[inline(always)]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether all of `other`'s bits are set.
    #[inline(always)]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether a new SYN is scheduled anew.
    #[inline(always)]
    pub const fn is_closing(self) -> bool {
        self.has(Self::RST) || self.has(Self::FIN) && !self.has(Self::HALF_CLOSED)
    }

    /// Whether only SYNs were seen, and the place was nobody else's: it is for who comes next.
    #[inline(always)]
    pub const fn is_in_probation(self) -> bool {
        self.0 & (Self::HALF_OPEN.0 | Self::DISPLACING.0) == Self::HALF_OPEN.0
    }

    /// Whether only SYNs were seen.
    #[inline(always)]
    pub const fn is_half_open(self) -> bool {
        self.0 & Self::HALF_OPEN.0 != 0
    }
}

/// What is known about a flow, in one 64-bit word that is read and written whole:
/// `{ backend id: 16, its generation: 16, expiry: 24, state: 8 }` from the least significant bit
/// up. The expiry is in seconds of [`crate::kernel::Kernel::now_s`], of which 24 bits are kept: times
/// within ± 97 days compare rightly, and the longest idle time-out is 7 days.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct FlowRecord(pub u64);

const GENERATION_SHIFT: u32 = 16;
const EXPIRY_SHIFT: u32 = 32;
const EXPIRY_BITS: u32 = 24;
const EXPIRY_MASK: u64 = (1 << EXPIRY_BITS) - 1;
const STATE_SHIFT: u32 = 56;

impl FlowRecord {
    /// A flow of this backend.
    #[inline(always)]
    pub const fn new(
        backend_id: u16,
        backend_generation: u16,
        expires_s: u32,
        state: FlowState,
    ) -> Self {
        Self(backend_id as u64 | (backend_generation as u64) << GENERATION_SHIFT)
            .updated(expires_s, state)
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

    /// Seconds until the record expires; negative when it has.
    #[inline(always)]
    pub const fn remaining_s(self, now_s: u32) -> i32 {
        let difference = ((self.0 >> EXPIRY_SHIFT) as u32).wrapping_sub(now_s);
        let unused_bits = u32::BITS - EXPIRY_BITS;
        (difference << unused_bits) as i32 >> unused_bits
    }

    /// Where the flow is in its life.
    #[inline(always)]
    pub const fn state(self) -> FlowState {
        FlowState((self.0 >> STATE_SHIFT) as u8)
    }

    /// The same backend with another expiry and state.
    #[inline(always)]
    pub const fn updated(self, expires_s: u32, state: FlowState) -> Self {
        let backend = self.0 & ((1 << EXPIRY_SHIFT) - 1);
        Self(
            backend
                | (expires_s as u64 & EXPIRY_MASK) << EXPIRY_SHIFT
                | (state.0 as u64) << STATE_SHIFT,
        )
    }
}

/// The fingerprint of an entry that is being written.
pub const FINGERPRINT_BUSY: u64 = 1;
/// The least fingerprint of a flow; 0 marks a free entry.
pub const FINGERPRINT_MIN: u64 = 2;

/// An entry of the flow table. A flow is known by its keyed 64-bit fingerprint: among a million live
/// flows, two share one with a probability of 3 · 10⁻⁸.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowEntry {
    /// The flow; 0 = the entry is free, [`FINGERPRINT_BUSY`] = it is being written.
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

/// Sets whose changes are noted in one element of `FLOW_CHANGES`. Unit: sets.
pub const FLOW_CHANGES_SETS: usize = 64;

/// An element of `FLOW_CHANGES`: a byte for each of [`FLOW_CHANGES_SETS`] sets, 1 where a flow was put on
/// record, has changed its state or its backend, has spoken again after a silence, or has lost its place since the byte was
/// last cleared. Written after what it tells of; whoever clears it reads the set afterwards.
pub type FlowChanges = [u8; FLOW_CHANGES_SETS];

/// Elements of `FLOW_CHANGES` for a flow table of so many sets.
pub const fn flow_changes_len(set_count: u32) -> u32 {
    set_count.div_ceil(FLOW_CHANGES_SETS as u32)
}

/// What is known of a flow beyond its entry, written when it is recorded and read while it is half
/// open; and what an operator's list of flows shows. At the entry's place in `FLOW_ORIGINS`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowOrigin {
    /// The client's address.
    pub client: Address,
    /// The client's port, network byte order.
    pub client_port_be: u16,
    /// The destination's port, network byte order (a service may have every port).
    pub port_be: u16,
    /// The sequence number of the SYN; of a flow recorded later, that of the packet. Host byte
    /// order; 0 for UDP.
    pub sequence: u32,
    /// The backend of the flow that the SYN found in its place; 0 = none. If a packet shows that that
    /// flow lives, it gets its place back.
    pub displaced_id: u16,
    /// That backend's generation.
    pub displaced_generation: u16,
}

/// An element of `FLOW_ORIGINS`, by the number of the flow set.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct FlowOriginSet {
    /// By the number of the entry.
    pub origins: [FlowOrigin; FLOW_SET_ENTRIES],
}

const _: () = assert!(size_of::<FlowEntry>() == 16);
const _: () = assert!(size_of::<FlowOrigin>() == 28);
const _: () = assert!(size_of::<FlowOriginSet>() == 224);
const _: () = assert!(size_of::<FlowSet>() == 128);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        let all = FlowState(u8::MAX);
        let record = FlowRecord::new(u16::MAX, 0, 0, FlowState::OPEN);
        assert_eq!(
            (record.backend_id(), record.backend_generation()),
            (u16::MAX, 0)
        );
        let record = FlowRecord::new(0, u16::MAX, u32::MAX, FlowState::OPEN);
        assert_eq!(
            (record.backend_id(), record.backend_generation()),
            (0, u16::MAX)
        );
        assert_eq!(record.state(), FlowState::OPEN);
        let record = FlowRecord::new(7, 9, 0, all);
        assert_eq!((record.state(), record.remaining_s(0)), (all, 0));
        let record = record.updated(5, FlowState::FIN);
        assert_eq!((record.backend_id(), record.backend_generation()), (7, 9));
        assert_eq!((record.state(), record.remaining_s(0)), (FlowState::FIN, 5));
    }

    #[test]
    fn expiry_survives_the_wrap_of_the_clock_and_a_clock_that_is_behind() {
        let record = FlowRecord::new(1, 1, 0x0200_0003, FlowState::OPEN);
        assert_eq!(record.remaining_s(0x01ff_fffe), 5);
        assert_eq!(record.remaining_s(0x0200_0004), -1);
        let fresh = FlowRecord::new(1, 1, 1_060, FlowState::OPEN);
        assert_eq!(fresh.remaining_s(999), 61, "another CPU is a second behind");
    }
}

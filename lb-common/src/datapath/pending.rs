//! Flows that are not on record although their service keeps every flow there.
//!
//! On a node with peers such a record may be on its way: a peer made it a moment ago, and the flow's next packet
//! was faster than what the peer tells of it. Forwarded on a guess, that packet would be answered with RST by a
//! backend that knows nothing of it. So a flow's packets wait, which is to say that they are dropped, for
//! [`RECORD_PATIENCE_MS`] from the first one on: TCP sends them again (RFC 6298), and by then the record is there.
//! If it is not, the flow is nobody's, and its packets go where they always went.

use crate::hash;
use crate::limits::{PENDING_MEMORY_MS, RECORD_PATIENCE_MS};

/// When a flow that is not on record was first seen: `{ mark of the flow: 32 bits, ms: 32 bits }`. 0: none.
///
/// A place is overwritten by the next flow that falls on it, and then waits anew: a flood of segments of
/// unknown flows delays the RSTs of others, and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pending(pub u64);

impl Pending {
    /// Of a flow by its keyed hash, at a time of a clock that never goes back, modulo 2³². Unit: milliseconds.
    #[inline(always)]
    pub const fn new(flow_hash: u64, now_ms: u32) -> Self {
        // Never 0, which is a place that was never used.
        Self::marked((hash::upper(flow_hash) | 1) as u64, now_ms)
    }

    /// Where it is kept for a flow, in a power of two of places.
    #[inline(always)]
    pub const fn place(flow_hash: u64, place_count: u32) -> u32 {
        flow_hash as u32 & (place_count - 1)
    }

    /// What is to be kept when a flow's packet is seen now, with `known` in its place. A flow that has waited in vain
    /// and goes on does not wait again.
    #[inline(always)]
    pub const fn after(self, known: Self) -> Self {
        let since_ms = self.since_ms(known);
        if !self.is_of_same(known) || since_ms >= PENDING_MEMORY_MS {
            self
        } else if since_ms < PENDING_MEMORY_MS / 2 {
            known
        } else {
            Self::marked(
                self.0 >> 32,
                (self.0 as u32).wrapping_sub(RECORD_PATIENCE_MS),
            )
        }
    }

    #[inline(always)]
    const fn marked(mark: u64, now_ms: u32) -> Self {
        Self(mark << 32 | now_ms as u64)
    }

    /// Whether a packet seen now waits, with `kept` from [`Pending::after`].
    #[inline(always)]
    pub const fn waits(self, kept: Self) -> bool {
        self.since_ms(kept) < RECORD_PATIENCE_MS
    }

    #[inline(always)]
    const fn is_of_same(self, other: Self) -> bool {
        (self.0 ^ other.0) >> 32 == 0
    }

    #[inline(always)]
    const fn since_ms(self, earlier: Self) -> u32 {
        (self.0 as u32).wrapping_sub(earlier.0 as u32)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;

    use super::*;

    /// Shows packets of a flow at these times, from a place that holds `kept`; returns which waited.
    fn show(kept: &mut Pending, flow_hash: u64, times_ms: &[u32]) -> Vec<bool> {
        let see = |time_ms: &u32| {
            let now = Pending::new(flow_hash, *time_ms);
            *kept = now.after(*kept);
            now.waits(*kept)
        };
        times_ms.iter().map(see).collect()
    }

    const FLOW: u64 = 0x1234_5678_9abc_def0;
    const OTHER: u64 = !FLOW;

    #[test]
    fn a_flow_waits_from_its_first_packet_on_and_no_longer() {
        // Over the end of the clock, too.
        for began_ms in [0, 5_000, u32::MAX - 100] {
            let mut kept = Pending::default();
            let times = [0, 1, RECORD_PATIENCE_MS - 1, RECORD_PATIENCE_MS, 3_000]
                .map(|after_ms| began_ms.wrapping_add(after_ms));
            let waited = show(&mut kept, FLOW, &times);
            assert_eq!(waited, [true, true, true, false, false], "{began_ms}");
        }
    }

    #[test]
    fn a_later_flow_of_the_same_ports_waits_anew() {
        let mut kept = Pending::default();
        let times = [0, PENDING_MEMORY_MS, PENDING_MEMORY_MS + 1];
        assert_eq!(show(&mut kept, FLOW, &times), [true, true, true]);
    }

    #[test]
    fn a_flow_that_goes_on_waits_once() {
        let mut kept = Pending::default();
        assert_eq!(show(&mut kept, FLOW, &[0]), [true]);
        let later: Vec<u32> = (1..100).map(|n| n * (PENDING_MEMORY_MS / 3)).collect();
        assert!(!show(&mut kept, FLOW, &later).contains(&true));
        let last = later[later.len() - 1];
        assert_eq!(show(&mut kept, FLOW, &[last + PENDING_MEMORY_MS]), [true]);
    }

    #[test]
    fn flows_on_one_place_make_each_other_wait() {
        let mut kept = Pending::default();
        assert_eq!(show(&mut kept, FLOW, &[0]), [true]);
        assert_eq!(show(&mut kept, OTHER, &[RECORD_PATIENCE_MS]), [true]);
        assert_eq!(show(&mut kept, FLOW, &[RECORD_PATIENCE_MS + 1]), [true]);
    }

    #[test]
    fn a_place_that_was_never_used_is_no_flows() {
        let mut kept = Pending::default();
        assert_eq!(show(&mut kept, 0, &[0, 1]), [true, true]);
    }
}

//! When something was said: a hybrid logical clock (Kulkarni and others, "Logical Physical Clocks", 2014). It
//! goes with the wall clock, and never back: what is said after something was heard has the later stamp, even if
//! this node's wall clock is slow.

use serde::{Deserialize, Serialize};

/// A stamp further ahead of this node's wall clock is refused: a peer whose clock is wrong by more cannot pull
/// everybody's along. One that is wrong by less does, and nothing is lost by that. Unit: milliseconds.
pub const AHEAD_MAX_MS: u64 = 24 * 3_600 * 1_000;

/// When something was said, and by whom. The order of stamps is the order of words.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stamp {
    /// The wall clock then, or the latest stamp heard. Unit: milliseconds since 1970, UTC.
    pub wall_ms: u64,
    /// Counts what was said within that millisecond.
    pub count: u32,
    /// The node's name.
    pub node: String,
}

/// A node's clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct HybridClock {
    wall_ms: u64,
    count: u32,
}

impl HybridClock {
    /// The next stamp: later than every one that was given or heard.
    pub(super) fn next(&mut self, node: &str, now_unix_ms: u64) -> Stamp {
        if now_unix_ms > self.wall_ms {
            (self.wall_ms, self.count) = (now_unix_ms, 0);
        } else if let Some(count) = self.count.checked_add(1) {
            self.count = count;
        } else {
            (self.wall_ms, self.count) = (self.wall_ms.saturating_add(1), 0);
        }
        Stamp {
            wall_ms: self.wall_ms,
            count: self.count,
            node: node.to_owned(),
        }
    }

    /// Notes a stamp that was heard.
    pub(super) fn hear(&mut self, stamp: &Stamp) {
        let heard = (stamp.wall_ms, stamp.count);
        if heard > (self.wall_ms, self.count) {
            (self.wall_ms, self.count) = heard;
        }
    }

    /// Whether the clock is so far ahead of the wall clock that peers would refuse its stamps: the wall clock has been
    /// set back by more than a day.
    pub(super) fn is_ahead(&self, now_unix_ms: u64) -> bool {
        is_ahead(self.wall_ms, now_unix_ms)
    }

    /// Begins anew.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

/// Whether that is too far ahead of the wall clock.
pub(super) fn is_ahead(wall_ms: u64, now_unix_ms: u64) -> bool {
    wall_ms > now_unix_ms.saturating_add(AHEAD_MAX_MS)
}

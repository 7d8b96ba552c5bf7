//! How long a datagram was under way, beyond what the fastest ones take: it may have waited in the buffer of a socket
//! whose reader was stopped, and what it says of a flow's age is older by so much.
//!
//! The clocks of two nodes have nothing in common but their pace, and that only nearly: so the fastest datagram of the
//! last minute or two is the measure.

use super::table::Now;

/// After so long, what was fast before counts no more. Unit: milliseconds.
const WINDOW_MS: u64 = 60_000;

/// The transits of one session's datagrams.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Transits {
    /// The difference of the clocks as the first datagram shows it.
    first: Option<u32>,
    /// The least transit beyond that in this window and in the one before it. Unit: milliseconds.
    least: i32,
    least_before: i32,
    /// When this window began. Unit: milliseconds.
    since_ms: u64,
}

impl Transits {
    /// A datagram that was sent at `sent_ms` by its sender's clock has arrived: for how much longer than the fastest
    /// it was under way. Unit: milliseconds.
    pub(super) fn note(&mut self, sent_ms: u32, now: Now) -> u32 {
        let now_ms = now.us / 1_000;
        let difference = (now_ms as u32).wrapping_sub(sent_ms);
        let first = *self.first.get_or_insert_with(|| {
            self.since_ms = now_ms;
            difference
        });
        let transit = difference.wrapping_sub(first).cast_signed();
        if now_ms >= self.since_ms + WINDOW_MS {
            self.least_before = self.least;
            self.least = transit;
            self.since_ms = now_ms;
        }
        self.least = self.least.min(transit);
        let least = self.least.min(self.least_before);
        transit.saturating_sub(least).max(0).cast_unsigned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Now {
        Now { us: ms * 1_000 }
    }

    #[test]
    fn what_has_waited_is_as_much_older() {
        let mut transits = Transits::default();
        assert_eq!(transits.note(7_000, at(100_000)), 0);
        assert_eq!(transits.note(7_100, at(100_101)), 1);
        assert_eq!(transits.note(8_000, at(106_000)), 5_000, "it was stopped");
        assert_eq!(transits.note(12_900, at(106_000)), 100);
        assert_eq!(transits.note(13_000, at(106_001)), 1);
    }

    #[test]
    fn the_fastest_is_the_measure_whenever_it_comes() {
        let mut transits = Transits::default();
        assert_eq!(transits.note(0, at(50_000)), 0);
        assert_eq!(transits.note(1_000, at(50_200)), 0, "the first had waited");
        assert_eq!(transits.note(2_000, at(52_000)), 800);
    }

    #[test]
    fn a_clock_that_is_slow_or_wraps_delays_nothing() {
        let mut transits = Transits::default();
        // 100 parts in a million: 0.36 s in an hour.
        for second in 0..7_200_u64 {
            let sent_ms = (u64::from(u32::MAX) - 1_000 + second * 1_000 - second / 10) as u32;
            let late_ms = transits.note(sent_ms, at(second * 1_000));
            assert!(late_ms <= 13, "{late_ms} ms after {second} s");
        }
    }
}

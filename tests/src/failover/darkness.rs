//! How long nobody answered: pure counting.

use std::time::Duration;

/// A probe that is answered later than this is as good as lost to its sender.
pub const ANSWER_MAX: Duration = Duration::from_millis(100);

/// A probe: when it was sent, and when its answer came. Unit: nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shot {
    /// When it was sent.
    pub sent_ns: u64,
    /// When its answer came; `None`: not yet.
    pub answered_ns: Option<u64>,
}

impl Shot {
    /// Whether its answer has come in time.
    pub fn is_answered(self) -> bool {
        let waited_ns = self.answered_ns.map(|at| at.saturating_sub(self.sent_ns));
        waited_ns.is_some_and(|waited_ns| waited_ns <= ANSWER_MAX.as_nanos() as u64)
    }
}

/// What a series of probes has met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Darkness {
    /// The longest time without an answer.
    pub longest: Duration,
    /// All such times together.
    pub total: Duration,
    /// The longest time between two probes: so long, the machine did not run the prober, and what was measured
    /// meanwhile is the machine's.
    pub stall: Duration,
}

impl Darkness {
    /// Of each run of unanswered probes, the time from its first one to the next one that was answered. A
    /// prober that was itself late to send makes nothing dark by that.
    pub fn of(shots: &[Shot]) -> Self {
        let mut darkness = Self::default();
        let mut since_ns = None;
        for pair in shots.windows(2) {
            let pause_ns = pair[1].sent_ns.saturating_sub(pair[0].sent_ns);
            darkness.stall = darkness.stall.max(Duration::from_nanos(pause_ns));
        }
        for shot in shots {
            match (shot.is_answered(), since_ns) {
                (false, None) => since_ns = Some(shot.sent_ns),
                (true, Some(since)) => {
                    darkness.add(shot.sent_ns - since);
                    since_ns = None;
                }
                _ => {}
            }
        }
        if let (Some(since), Some(last)) = (since_ns, shots.last()) {
            darkness.add(last.sent_ns - since);
        }
        darkness
    }

    fn add(&mut self, dark_ns: u64) {
        let dark = Duration::from_nanos(dark_ns);
        self.longest = self.longest.max(dark);
        self.total += dark;
    }

    /// The worse of two.
    #[must_use]
    pub fn or_worse(self, other: Self) -> Self {
        Self {
            longest: self.longest.max(other.longest),
            total: self.total.max(other.total),
            stall: self.stall.max(other.stall),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn shots(answers: &[(u64, Option<u64>)]) -> Vec<Shot> {
        let shot = |(sent, waited): &(u64, Option<u64>)| Shot {
            sent_ns: sent * MS,
            answered_ns: waited.map(|waited| (sent + waited) * MS),
        };
        answers.iter().map(shot).collect()
    }

    #[test]
    fn darkness_lasts_from_the_first_lost_probe_to_the_next_answered_one() {
        let some = Some(1);
        let of = |answers: &[(u64, Option<u64>)]| Darkness::of(&shots(answers));
        let met = of(&[
            (0, some),
            (1, None),
            (2, None),
            (7, some),
            (8, None),
            (9, some),
        ]);
        assert_eq!(met.longest, Duration::from_millis(6));
        assert_eq!(met.total, Duration::from_millis(7));
        // The prober was late, and everything was answered.
        let stalled = Darkness {
            stall: Duration::from_millis(500),
            ..Darkness::default()
        };
        assert_eq!(of(&[(0, some), (500, some)]), stalled);
        // Answered too late.
        let late = of(&[(0, some), (1, Some(101)), (4, some)]);
        assert_eq!(late.longest, Duration::from_millis(3));
        // It goes on.
        let open = of(&[(0, some), (1, None), (30, None)]);
        assert_eq!(open.longest, Duration::from_millis(29));
        assert_eq!(of(&[]), Darkness::default());
    }
}

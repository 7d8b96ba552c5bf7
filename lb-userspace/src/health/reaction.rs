//! How soon the ring follows what checks find.

/// The upper bounds of the buckets. Unit: milliseconds.
pub const BOUNDS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000];

/// The times from the answer that decided to the ring in force, in buckets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reactions {
    /// How many took no longer than the bound of the same position, and longer than the one before.
    counts: [u64; BOUNDS_MS.len()],
    /// How many there were, those beyond the last bound included.
    total_count: u64,
    sum_ms: u64,
}

impl Reactions {
    /// Counts one.
    pub fn note(&mut self, took_ms: u64) {
        let bucket = BOUNDS_MS.iter().position(|bound_ms| took_ms <= *bound_ms);
        if let Some(bucket) = bucket {
            self.counts[bucket] += 1;
        }
        self.total_count += 1;
        self.sum_ms += took_ms;
    }

    /// For each bound, how many took no longer.
    pub fn cumulative(&self) -> impl Iterator<Item = (u64, u64)> {
        let mut count = 0;
        BOUNDS_MS
            .iter()
            .zip(self.counts)
            .map(move |(bound_ms, one)| {
                count += one;
                (*bound_ms, count)
            })
    }

    /// How many there were.
    pub fn total_count(&self) -> u64 {
        self.total_count
    }

    /// What they took together. Unit: milliseconds.
    pub fn sum_ms(&self) -> u64 {
        self.sum_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_bound_counts_all_that_took_no_longer() {
        let mut reactions = Reactions::default();
        for took_ms in [0, 1, 2, 3, 5_000, 5_001] {
            reactions.note(took_ms);
        }
        let counts: Vec<(u64, u64)> = reactions.cumulative().collect();
        assert_eq!(counts[..3], [(1, 2), (2, 3), (5, 4)]);
        assert_eq!(counts[11], (5_000, 5));
        assert_eq!((reactions.total_count(), reactions.sum_ms()), (6, 10_007));
    }
}

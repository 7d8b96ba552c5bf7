//! What the daemon counts of itself, for [`crate::metrics`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counted {
    /// A hook ended with exit code 0.
    HookSucceeded,
    /// A hook ended otherwise, or could not be run.
    HookFailed,
    /// A hook took longer than it may.
    HookTimedOut,
    /// Events that no hook was told of, since too many came at once.
    HookMissed,
    /// The config file was read again and is in force.
    ReloadSucceeded,
    /// The config file was read again and refused.
    ReloadFailed,
}

/// Kinds of [`Counted`].
const KINDS: usize = Counted::ReloadFailed as usize + 1;

#[derive(Debug, Default)]
struct Numbers {
    counts: [AtomicU64; KINDS],
    loaded_unix_ms: AtomicU64,
    has_refused: AtomicU64,
}

/// The counts. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Tally(Arc<Numbers>);

impl Tally {
    /// Adds to a count.
    pub fn add(&self, counted: Counted, count: u64) {
        self.0.counts[counted as usize].fetch_add(count, Ordering::Relaxed);
    }

    /// A count.
    pub fn get(&self, counted: Counted) -> u64 {
        self.0.counts[counted as usize].load(Ordering::Relaxed)
    }

    /// Notes that the configuration in force was read at this time. Unit: milliseconds since 1970, UTC.
    pub fn note_loaded(&self, unix_ms: u64) {
        self.0.loaded_unix_ms.store(unix_ms, Ordering::Relaxed);
        self.0.has_refused.store(0, Ordering::Relaxed);
    }

    /// Notes that the file as it is now was refused.
    pub fn note_refused(&self) {
        self.0.has_refused.store(1, Ordering::Relaxed);
    }

    /// When the configuration in force was read; 0 = it was not. Unit: milliseconds since 1970, UTC.
    pub fn loaded_unix_ms(&self) -> u64 {
        self.0.loaded_unix_ms.load(Ordering::Relaxed)
    }

    /// Whether what was read last is in force.
    pub fn is_last_load_in_force(&self) -> bool {
        self.0.has_refused.load(Ordering::Relaxed) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_count_together_and_each_kind_for_itself() {
        let tally = Tally::default();
        tally.clone().add(Counted::HookMissed, 3);
        tally.add(Counted::HookMissed, 4);
        tally.add(Counted::ReloadFailed, 1);
        assert_eq!(tally.get(Counted::HookMissed), 7);
        assert_eq!(tally.get(Counted::ReloadFailed), 1);
        assert_eq!(tally.get(Counted::HookSucceeded), 0);
    }

    #[test]
    fn a_refusal_leaves_the_time_of_what_is_in_force() {
        let tally = Tally::default();
        tally.note_loaded(5);
        tally.note_refused();
        assert_eq!(
            (tally.loaded_unix_ms(), tally.is_last_load_in_force()),
            (5, false)
        );
        tally.note_loaded(9);
        assert_eq!(
            (tally.loaded_unix_ms(), tally.is_last_load_in_force()),
            (9, true)
        );
    }
}

//! A death in the middle of an apply, or of a start, for tests of what the next daemon makes of it.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::warn;

/// Number of writes after which the process ends as if killed: writes to the maps, and steps of their
/// adoption and exchange. Counted from the moment at which the new program has passed its self-test.
const VARIABLE: &str = "LBD_ABORT_AFTER_WRITES";

/// How many are left; 0: no end of them.
static WRITES_LEFT: AtomicU64 = AtomicU64::new(0);

/// Begins to count, if the environment says so.
pub(crate) fn arm() {
    let text = std::env::var(VARIABLE).ok();
    if let Some(count) = text.and_then(|text| text.parse().ok()) {
        warn!("{VARIABLE}: lbd ends itself after {count} writes");
        WRITES_LEFT.store(count, Ordering::Relaxed);
    }
}

/// To be called after each write.
pub(crate) fn count_write() {
    if WRITES_LEFT.load(Ordering::Relaxed) == 0 {
        return;
    }
    if WRITES_LEFT.fetch_sub(1, Ordering::Relaxed) == 1 {
        // No destructor, no handler, nothing is put in order: as with SIGKILL.
        warn!("{VARIABLE}: the end");
        std::process::abort();
    }
}

//! A death in the middle of an apply, for tests of what the next daemon makes of it.

use tracing::warn;

/// Number of writes to the maps after which the process ends as if killed. Counted from the daemon's
/// start.
const VARIABLE: &str = "LBD_ABORT_AFTER_WRITES";

/// How many writes are left; `None`: no end of them.
#[derive(Debug)]
pub(super) struct Fault {
    writes_left: Option<u64>,
}

impl Fault {
    /// As the environment says.
    pub(super) fn from_environment() -> Self {
        let text = std::env::var(VARIABLE).ok();
        let writes_left = text.and_then(|text| text.parse().ok());
        if let Some(count) = writes_left {
            warn!("{VARIABLE}: lbd ends itself after {count} writes to the maps");
        }
        Self { writes_left }
    }

    /// To be called after each write.
    pub(super) fn count_write(&mut self) {
        let Some(left) = &mut self.writes_left else {
            return;
        };
        *left = left.saturating_sub(1);
        if *left == 0 {
            // No destructor, no handler, nothing is put in order: as with SIGKILL.
            warn!("{VARIABLE}: the end");
            std::process::abort();
        }
    }
}

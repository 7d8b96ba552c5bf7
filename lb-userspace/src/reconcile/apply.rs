//! Carrying a plan out.

use std::time::Instant;

use super::{Actual, Plan};
use crate::maps::{Entry, Key, MapStore, StoreError, Write};

/// Carries `plan` out, write by write, and keeps `actual` true at every step. After a failure
/// `actual` says what was done: planning and applying anew continues from there. Returns when the last
/// service's entry was written, from where on new packets see its ring; `None` = none was.
///
/// # Errors
/// The first write that failed. No further one is tried.
pub fn apply(
    plan: &Plan,
    actual: &mut Actual,
    store: &mut impl MapStore,
) -> Result<Option<Instant>, StoreError> {
    let mut in_force_at = None;
    for write in &plan.writes {
        if let Err(error) = store.write(write) {
            // The next plan may reuse at once whatever went out of use before the failure.
            let waited = store.write(&Write::WaitForReaders);
            return Err(waited.err().unwrap_or(error));
        }
        actual.maps.apply(write);
        note_ring(plan, actual, write);
        if matches!(write, Write::Put(Entry::Service(..))) {
            in_force_at = Some(Instant::now());
        }
    }
    Ok(in_force_at)
}

fn note_ring(plan: &Plan, actual: &mut Actual, write: &Write) {
    match write {
        Write::Put(Entry::Service(key, _)) => {
            if let Some(ring) = plan.rings.get(key) {
                actual.rings.insert(*key, ring.clone());
            }
        }
        Write::Delete(Key::Service(key)) => drop(actual.rings.remove(key)),
        _ => {}
    }
}

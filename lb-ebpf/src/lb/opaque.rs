//! Numbers of unknown origin.

use super::maps::SCRATCH;

/// Returns `value` by way of a map: what is read from a map is any number to the verifier.
#[inline(always)]
pub(super) fn opaque(value: u64) -> u64 {
    let Some(scratch) = SCRATCH.get_ptr_mut(0) else {
        return 0;
    };
    // SAFETY: this CPU's own word.
    unsafe {
        scratch.write_volatile(value);
        scratch.read_volatile()
    }
}

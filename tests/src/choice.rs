//! Options of the proofs that choose among what there is.

use clap::ValueEnum;

/// What was chosen; where nothing was, everything that there is.
pub fn or_all<T: ValueEnum>(chosen: &[T]) -> Vec<T> {
    if chosen.is_empty() {
        T::value_variants().to_vec()
    } else {
        chosen.to_vec()
    }
}

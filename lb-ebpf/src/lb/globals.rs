//! Constants that the loader writes into `.rodata` before the program is verified.

use aya_ebpf::Global;
use lb_common::limits::HASH_KEY_WORDS;

/// The cluster's secret for the flow hash.
#[unsafe(no_mangle)]
pub(super) static HASH_KEY: Global<[u64; HASH_KEY_WORDS]> = Global::new([0; HASH_KEY_WORDS]);

/// Capacity of the flow table, in sets.
#[unsafe(no_mangle)]
pub(super) static FLOW_SETS: Global<u32> = Global::new(1);

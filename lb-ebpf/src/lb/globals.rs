//! Constants that the loader writes into `.rodata` before the program is verified.

use aya_ebpf::Global;
use lb_common::limits::HASH_KEY_WORDS;

/// The cluster's secret for the flow hash.
#[unsafe(no_mangle)]
pub(super) static HASH_KEY: Global<[u64; HASH_KEY_WORDS]> = Global::new([0; HASH_KEY_WORDS]);

/// Capacity of the flow table, in sets.
#[unsafe(no_mangle)]
pub(super) static FLOW_SETS: Global<u32> = Global::new(1);

/// Whether there are peers: 1, and changes of the flow table are noted for them, and flows that they may be about
/// to tell of wait. A constant to the verifier, so that
/// a node of its own has no code for it.
#[unsafe(no_mangle)]
pub(super) static NOTES_CHANGES: Global<u32> = Global::new(0);

/// Bytes kept for [`BUILD_LABEL`].
const LABEL_BYTES: usize = 32;

/// Tells two builds of the same sources apart, for tests of upgrades: the environment variable
/// `LB_BUILD_LABEL` when this was compiled, cut off at [`LABEL_BYTES`]. Nothing reads it.
#[used]
#[unsafe(no_mangle)]
static BUILD_LABEL: [u8; LABEL_BYTES] = label(option_env!("LB_BUILD_LABEL"));

const fn label(text: Option<&str>) -> [u8; LABEL_BYTES] {
    let mut label = [0; LABEL_BYTES];
    if let Some(text) = text {
        let mut at = 0;
        while at < text.len() && at < LABEL_BYTES {
            label[at] = text.as_bytes()[at];
            at += 1;
        }
    }
    label
}

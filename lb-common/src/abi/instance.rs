use bytemuck::{Pod, Zeroable};

use crate::limits::HASH_KEY_WORDS;

/// The one element of `INSTANCE`: what a daemon must know of the datapath that it finds. The packet
/// path does not read it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Instance {
    /// [`super::VERSION`] of the maps' layouts. Stands first in every version, so that a daemon of any
    /// version can read it.
    pub version: u32,
    /// Process id of the daemon that wrote the heartbeat last.
    pub daemon_pid: u32,
    /// When the daemon last found the datapath as it should be, on the clock that also counts while
    /// the machine sleeps (`CLOCK_BOOTTIME`). Unit: nanoseconds.
    pub heartbeat_ns: u64,
    /// The secret of the flow hash: flows stay where they are as long as it stays.
    pub hash_key: [u64; HASH_KEY_WORDS],
    /// Always 0: room for later versions.
    pub reserved: [u64; 10],
}

const _: () = assert!(size_of::<Instance>() == 128);

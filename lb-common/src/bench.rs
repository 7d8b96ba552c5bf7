//! What the benchmark's programs and its driver agree on.

use bytemuck::{Pod, Zeroable};

/// 64-bit words in a frame of the benchmark: 96 bytes, room for every header of either family.
pub const FRAME_WORDS: usize = 12;

/// How frames are made.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct Settings {
    /// The frame of flow 0.
    pub template: [u64; FRAME_WORDS],
    /// Flows, a power of two.
    pub flow_count: u32,
    /// Where `generate_and_send` sends to.
    pub ifindex: u32,
    /// 1: the template is IPv6.
    pub is_ipv6: u32,
    /// 1: flows one after the other, each once; 0: at random.
    pub is_sequential: u32,
}

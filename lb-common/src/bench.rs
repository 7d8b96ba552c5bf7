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

/// What `generate_and_send` notes about the frames that it sent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Pod, Zeroable)]
pub struct SendLog {
    /// Frames sent.
    pub frame_count: u64,
    /// When the first one was sent (`CLOCK_MONOTONIC`); 0: not yet. Unit: nanoseconds.
    pub first_ns: u64,
    /// When the last one whose number is a multiple of [`SEND_STAMP_INTERVAL`] was sent. Unit:
    /// nanoseconds.
    pub last_ns: u64,
}

/// Every how many frames `generate_and_send` looks at the clock, which costs as much as writing the
/// frame does. Unit: frames.
pub const SEND_STAMP_INTERVAL: u64 = 1024;

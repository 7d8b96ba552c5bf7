use bytemuck::{Pod, Zeroable};

use super::{EndpointKey, Service};

/// Elements of `SERVICE_LINES`, a power of two: 256 KiB, of which live services touch one cache line
/// each. Unit: lines.
pub const SERVICE_LINES: usize = 4_096;

/// An element of `SERVICE_LINES`: a copy of an entry of `SERVICES` where one array access finds
/// it, a fifth of the cost of a look-up in the kernel's hash table. Only a copy: a service whose line
/// is taken by another, or is being written, is found in `SERVICES` all the same.
///
/// The control plane writes lines through a memory mapping, under `sequence`: odd while a line is
/// being written, another number after it. A reader that sees an odd number, or another one after
/// reading than before, turns to `SERVICES`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct ServiceLine {
    /// The key; zero = the line is free.
    pub key: EndpointKey,
    /// The value.
    pub service: Service,
    /// Number of writes begun and ended.
    pub sequence: u32,
    /// Always 0; fills the cache line.
    pub reserved: [u32; 5],
}

impl ServiceLine {
    /// The line that a key's service is copied to.
    #[inline(always)]
    pub const fn index(key: &EndpointKey) -> u32 {
        let [w0, w1, w2, w3] = key.address.0;
        let port_and_protocol = (key.port_be as u64) << 8 | key.protocol as u64;
        let low = (w3 as u64 | port_and_protocol << 32).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let high = (w0 as u64) << 32 | (w1 ^ w2.rotate_left(16)) as u64;
        let sum = low.wrapping_add(high.wrapping_mul(0xd6e8_feb8_6659_fd93));
        (sum >> (u64::BITS - SERVICE_LINES.trailing_zeros())) as u32
    }
}

const _: () = assert!(size_of::<ServiceLine>() == 64);
const _: () = assert!(SERVICE_LINES.is_power_of_two());

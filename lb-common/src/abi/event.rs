use bytemuck::{Pod, Zeroable};

use super::{Address, NeighbourKey};

/// Event: a packet had to be dropped because the link-layer address of an on-link host is not
/// known. XDP cannot ask for it, so it asks the control plane to.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct NeighbourWanted {
    /// Whom to resolve, and where.
    pub neighbour: NeighbourKey,
    /// Always 0.
    pub pad: u32,
}

impl NeighbourWanted {
    /// An event for `address` on `ifindex`.
    #[inline(always)]
    pub const fn new(address: Address, ifindex: u32) -> Self {
        Self {
            neighbour: NeighbourKey { address, ifindex },
            pad: 0,
        }
    }
}

const _: () = assert!(size_of::<NeighbourWanted>() == 24);

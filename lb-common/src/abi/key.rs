use bytemuck::{Pod, Zeroable};

use super::Address;

/// An L4 endpoint: the key of `SERVICES` (VIP side) and of `NAT_REPLIES` (backend side).
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct EndpointKey {
    /// VIP or backend address.
    pub address: Address,
    /// Port in network byte order; 0 stands for every port.
    pub port_be: u16,
    /// IP protocol number (6 TCP, 17 UDP).
    pub protocol: u8,
    /// Always 0: the kernel compares keys byte by byte.
    pub pad: u8,
}

impl EndpointKey {
    /// A key from parts as they stand in a packet.
    #[inline(always)]
    pub const fn new(address: Address, port_be: u16, protocol: u8) -> Self {
        Self {
            address,
            port_be,
            protocol,
            pad: 0,
        }
    }
}

/// The key of `ROUTES`, in the layout of the kernel's `struct bpf_lpm_trie_key`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct RouteKey {
    /// Bits that count, 0–128, host byte order; an IPv4 prefix of n bits is 96 + n.
    pub prefix_len: u32,
    /// The address in network byte order.
    pub octets: [u8; 16],
}

/// The key of `NEIGHBOURS`: an on-link host.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Pod, Zeroable)]
pub struct NeighbourKey {
    /// The host's address.
    pub address: Address,
    /// The interface that it is reached over.
    pub ifindex: u32,
}

const _: () = assert!(size_of::<EndpointKey>() == 20);
const _: () = assert!(size_of::<RouteKey>() == 20);
const _: () = assert!(size_of::<NeighbourKey>() == 20);

//! A flow as nodes tell it each other.

use bytemuck::{Pod, Zeroable};

/// A flow that lives on is told to peers again when a part of its idle time-out has passed: one part of so many.
const REFRESHES_PER_TIMEOUT: u32 = 4;
/// Walking through the table to find such flows takes so long. Unit: seconds.
pub const REFRESH_WALK_S: u32 = 4;
/// Ages are told in whole seconds, and rounded twice. Unit: seconds.
const ROUNDING_S: u32 = 2;

/// A peer is told of a flow that only lives on when it lives so much longer than the peer knows. Unit: seconds.
pub const fn refresh_s(idle_timeout_s: u32) -> u32 {
    let refresh_s = idle_timeout_s / REFRESHES_PER_TIMEOUT;
    if refresh_s == 0 { 1 } else { refresh_s }
}

/// A flow's last packet may have come so much later than a record says that a peer has told: the peer has died before
/// it told again. So for that long after its expiry such a record is kept, and told to others. Unit: seconds.
pub const fn untold_s(idle_timeout_s: u32) -> u32 {
    refresh_s(idle_timeout_s) + REFRESH_WALK_S + ROUNDING_S
}

/// A flow of the sender's flow table. Ids are the sender's own: its dictionary tells what they mean. Little endian
/// but for what is named `_be`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
pub struct SharedFlow {
    /// The flow's keyed hash: the cluster's nodes have the same key.
    pub flow_hash: u64,
    /// The client's address; IPv4 as `lb_common::abi::Address` has it.
    pub client: [u8; 16],
    /// The sequence number of the SYN, or of the packet that the flow was learned from.
    pub sequence: u32,
    /// Until the record expires; less than 0: it has, but its flow may live ([`untold_s`]). Unit: seconds.
    pub remaining_s: i32,
    /// The client's port, network byte order.
    pub client_port_be: u16,
    /// The destination's port, network byte order.
    pub port_be: u16,
    /// The service's id at the sender.
    pub service_id: u16,
    /// The backend's id at the sender.
    pub backend_id: u16,
    /// The id of the backend whose flow the SYN displaced; 0 = none.
    pub displaced_id: u16,
    /// `lb_common::abi::FlowState`.
    pub state: u8,
    /// 0.
    pub reserved: u8,
    /// The backend's generation at the sender.
    pub generation: u16,
    /// The displaced backend's generation.
    pub displaced_generation: u16,
}

const _: () = assert!(size_of::<SharedFlow>() == 48);

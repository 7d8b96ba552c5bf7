//! A flow as nodes tell it each other.

use bytemuck::{Pod, Zeroable};
pub use lb_common::datapath::life::{REFRESH_WALK_S, refresh_s, untold_s};

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

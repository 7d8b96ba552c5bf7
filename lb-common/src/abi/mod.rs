//! The binary interface of the maps: what the control plane writes and the XDP program reads.
//!
//! Every type is `repr(C)`, plain old data without padding, and its size is asserted. Change one
//! and [`VERSION`] goes up.

mod address;
mod event;
mod flow;
mod instance;
mod key;
mod line;
mod slot;
mod stats;
mod value;

pub use address::Address;
pub use event::NeighbourWanted;
pub use flow::{
    FINGERPRINT_BUSY, FINGERPRINT_MIN, FLOW_CHANGES_SETS, FLOW_SET_ENTRIES, FlowChanges, FlowEntry,
    FlowOrigin, FlowOriginSet, FlowRecord, FlowSet, FlowState, flow_changes_len,
};
pub use instance::Instance;
pub use key::{EndpointKey, NeighbourKey, RouteKey};
pub use line::{SERVICE_LINES, ServiceLine};
pub use slot::Slot;
pub use stats::{BackendSignals, BackendStats};
pub use value::{
    Backend, Delivery, ForwardMode, LinkRewrite, NatReply, Neighbour, NewFlows, Route, RouteKind,
    Scheduler, Service, Vip,
};

/// Version of the layouts in this module. Maps of another version are never opened as these.
pub const VERSION: u32 = 2;

/// One block of ring storage: an element of `RINGS`.
pub type RingBlock = [u32; crate::limits::RING_BLOCK_SLOTS];

/// Names of the maps in the object file.
pub mod map_name {
    /// Hash: [`super::EndpointKey`] → [`super::Service`].
    pub const SERVICES: &str = "SERVICES";
    /// Array of [`super::ServiceLine`], memory-mapped by the control plane.
    pub const SERVICE_LINES: &str = "SERVICE_LINES";
    /// Hash: [`super::Address`] → [`super::Vip`].
    pub const VIPS: &str = "VIPS";
    /// Array: block number → [`super::RingBlock`], memory-mapped by the control plane.
    pub const RINGS: &str = "RINGS";
    /// Array: backend id → [`super::Backend`].
    pub const BACKENDS: &str = "BACKENDS";
    /// Per-CPU array: backend id → [`super::BackendStats`].
    pub const BACKEND_STATS: &str = "BACKEND_STATS";
    /// Per-CPU array: backend id → [`super::BackendSignals`]. New with each program.
    pub const BACKEND_SIGNALS: &str = "BACKEND_SIGNALS";
    /// Array of [`crate::limits::RECENT_SYNS`] marks (u32) of SYNs, for the program alone. New with each.
    pub const RECENT_SYNS: &str = "RECENT_SYNS";
    /// Array of [`crate::limits::PENDING_FLOWS`] [`crate::datapath::pending::Pending`]s, for the program alone. New with each.
    pub const PENDING_FLOWS: &str = "PENDING_FLOWS";
    /// Per-CPU array: service id · [`crate::limits::COUNTERS_PER_SERVICE`] + drop reason → u64.
    pub const COUNTERS: &str = "COUNTERS";
    /// Array: service id → u64, flows scheduled by round robin so far.
    pub const ROUNDS: &str = "ROUNDS";
    /// Array of [`super::FlowSet`], memory-mapped by the control plane.
    pub const FLOWS: &str = "FLOWS";
    /// Array of [`super::FlowOriginSet`], as many as `FLOWS` has sets, memory-mapped by the control
    /// plane.
    pub const FLOW_ORIGINS: &str = "FLOW_ORIGINS";
    /// Array of [`super::FlowChanges`], [`super::flow_changes_len`] of them, memory-mapped by the control
    /// plane: which sets have changed. New with each program.
    pub const FLOW_CHANGES: &str = "FLOW_CHANGES";
    /// Array: service id → u64, the last second ([`crate::kernel::Kernel::now_s`]) in which a flow that
    /// should have been recorded was not; memory-mapped by the control plane.
    pub const SUPPRESSED: &str = "SUPPRESSED";
    /// Array of one [`super::Instance`].
    pub const INSTANCE: &str = "INSTANCE";
    /// Hash: [`super::EndpointKey`] of a backend → [`super::NatReply`].
    pub const NAT_REPLIES: &str = "NAT_REPLIES";
    /// LPM trie: [`super::RouteKey`] → [`super::Route`].
    pub const ROUTES: &str = "ROUTES";
    /// Hash: [`super::NeighbourKey`] → [`super::Neighbour`].
    pub const NEIGHBOURS: &str = "NEIGHBOURS";
    /// Ring buffer of [`super::NeighbourWanted`].
    pub const EVENTS: &str = "EVENTS";
}
/// Name of the XDP program in the object file.
pub const PROGRAM_NAME: &str = "lb_xdp";
/// Name of the global that holds the flow hash key, `[u64; HASH_KEY_WORDS]`.
pub const HASH_KEY_GLOBAL: &str = "HASH_KEY";
/// Name of the global that says whether changes of the flow table are noted in `FLOW_CHANGES`, `u32`: 1 or 0.
pub const NOTES_CHANGES_GLOBAL: &str = "NOTES_CHANGES";
/// Name of the global that holds the capacity of `FLOWS` in sets, `u32`.
pub const FLOW_SETS_GLOBAL: &str = "FLOW_SETS";

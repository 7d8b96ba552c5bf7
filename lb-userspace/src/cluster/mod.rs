//! One ring on several nodes: who decides it, who follows, and when a change may go on.
//!
//! [`Coordinator`] is a machine without clock and without I/O, one for each node. It holds no ring itself: the
//! rings are [`crate::transition::RingTransition`]s behind the trait [`Rings`], and the coordinator tells each of
//! them whether this node leads or follows, in whose company, and what the peers have acknowledged. What it wants
//! said to the peers comes out of [`Coordinator::take_outputs`].
//!
//! # How it is driven
//!
//! | when | call |
//! |---|---|
//! | a link comes up, or is lost | [`Coordinator::link_up`], [`Coordinator::link_down`] |
//! | a heartbeat, or this node's VRRP states, say who is Active | [`Coordinator::note_peer_active`], [`Coordinator::note_own_active`] |
//! | a message comes in | [`Coordinator::receive`] |
//! | before each look at the rings (`RingTransition::step`) | [`Coordinator::before_look`] |
//! | after it, before the rings are written | [`Coordinator::after_look`] |
//! | when the rings are written and no packet reads older ones | [`Coordinator::after_write`], in place of `RingTransition::in_force` |
//! | when a sweep of the flow table has ended | [`Coordinator::swept`], besides `RingTransition::swept` |
//! | each of these, and at [`Coordinator::deadline_ms`] | send [`Coordinator::take_outputs`], then look at the rings |
//!
//! # Who decides
//!
//! The Active node of the group that has the service's VIP. While none is, or for a VIP in no group: whoever did last,
//! while it answers; else, and of several Active ones, the node whose name comes first. A node that becomes the owner begins
//! a new [`message::Term`]: what is said in an older one is ignored. ARCHITECTURE.md, "The agreement", has the
//! argument.

mod coordinator;
pub mod message;
mod own;
mod receive;
pub mod ring;
mod share;
#[cfg(test)]
mod tests;
mod view;

pub use coordinator::{Coordinator, Output, Settings, Start};
pub use share::{Role, ServiceStatus};
pub use view::{GroupId, LinkState};

use std::net::SocketAddr;

use crate::transition::RingTransition;
use message::ServiceEndpoint;

/// A service whose ring the nodes share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedService {
    /// The service.
    pub endpoint: ServiceEndpoint,
    /// The group that has its VIP; `None`: the VIP does not move.
    pub group: Option<GroupId>,
    /// Slots of its ring, as this node's configuration has it.
    pub slot_count: usize,
}

/// The rings of this node.
pub trait Rings {
    /// The services whose rings go by transitions.
    fn services(&self) -> Vec<SharedService>;

    /// A service's transition; `None` while it has none, because nobody has been eligible yet.
    fn transition(&mut self, service: &ServiceEndpoint) -> Option<&mut RingTransition>;

    /// The same; if it has none, an empty one is made for a peer's ring. `None`: there is no such service.
    fn transition_to_follow(&mut self, service: &ServiceEndpoint) -> Option<&mut RingTransition>;

    /// Where the service's backend with this id is.
    fn address_of(&self, service: &ServiceEndpoint, backend_id: u16) -> Option<SocketAddr>;

    /// The ids of a service's backends on this node, in the same order; for those that the configuration does
    /// not have, entries are made that last as long as the ring names them.
    ///
    /// # Errors
    /// Why there cannot be any, in words.
    fn ids_of(
        &mut self,
        service: &ServiceEndpoint,
        backends: &[SocketAddr],
    ) -> Result<Vec<u16>, String>;

    /// When a flow of the service was last not recorded on this node that should have been; `None` = never. Unit:
    /// milliseconds, on the clock of `now_ms`.
    fn suppressed_ms(&self, service: &ServiceEndpoint) -> Option<u64>;

    /// The age of the oldest change of this node's flow table that a connected peer has not acknowledged; 0 =
    /// there is none. Unit: milliseconds.
    fn flow_lag_ms(&self) -> u64;
}

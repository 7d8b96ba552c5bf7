//! The link between the nodes of a cluster: what they tell each other, and how.
//!
//! [`secret`] → keys; [`hello`], [`session`]: an authenticated and encrypted stream over TCP; [`datagram`]: the
//! same for datagrams; [`link`] keeps them up; [`replicate`] tells the peers of flows.

pub mod datagram;
pub mod flow;
pub mod hello;
pub mod kind;
pub mod link;
pub mod replicate;
pub mod secret;
pub mod session;

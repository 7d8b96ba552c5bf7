//! The kernel's view of the network: read over rtnetlink, kept current by its multicast groups, and
//! changed where the balancer has to (VIPs, neighbour resolution).

pub mod announce;
pub mod blocking;
pub mod monitor;
pub mod next_hop;
mod parse;
mod socket;
pub mod view;

pub use socket::Netlink;

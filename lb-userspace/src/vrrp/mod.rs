//! VIPs that move between nodes: the Virtual Router Redundancy Protocol (RFC 9568), in a process of its own, so
//! that what happens to `lbd` does not move them.

pub mod auth;
pub mod machine;
pub mod packet;
pub mod priority;
pub mod process;
pub mod protocol;
pub mod router;
pub mod supervisor;

#[cfg(test)]
mod auth_tests;
#[cfg(test)]
mod packet_tests;

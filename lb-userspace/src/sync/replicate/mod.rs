//! Flows of one node in the flow tables of the others: what is sent, acknowledged, sent again, and merged.
//!
//! It is level-triggered. The datapath marks a *set* of the flow table in which something has changed; the sender
//! reads the set as it is by then, compares it with its *shadow* of what the peer knows, and sends what differs.
//! Of a datagram under way only the places are remembered: if it is lost, they are read and compared again. So
//! nothing overflows, however much changes and however much is lost, and nothing is told out of date.

pub mod dictionary;
pub mod memory;
pub mod message;
pub mod queue;
pub mod receiver;
pub mod replicator;
pub mod sender;
pub mod shadow;
pub mod table;
mod transit;
pub mod window;

#[cfg(test)]
#[path = "replicate_tests.rs"]
mod tests;

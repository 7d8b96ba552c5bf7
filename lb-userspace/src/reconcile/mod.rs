//! From what the maps should hold to what they do hold: a pure plan, and its execution.
//!
//! Invariants, each checked by the tests' store after every single write:
//! - a ring that a packet can find refers only to backends that are written;
//! - a ring is written only into blocks that no packet reads;
//! - the capacity of each map is known to suffice before the first write.

mod apply;
mod blocks;
mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use lb_common::abi::EndpointKey;

use crate::desired::ring::RingContent;
use crate::maps::MapState;

pub use apply::apply;
pub use plan::{Plan, plan};

/// What is in force.
#[derive(Clone, Debug, Default)]
pub struct Actual {
    /// The maps.
    pub maps: MapState,
    /// What is known of the rings. One that is missing here is written anew.
    pub rings: BTreeMap<EndpointKey, InstalledRing>,
}

/// A ring in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstalledRing {
    /// What it was made of.
    pub content: RingContent,
    /// Slots by the backend id that new flows go to.
    pub shares: BTreeMap<u16, u32>,
}

/// How many entries each map can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacities {
    /// `SERVICES` and `VIPS`.
    pub services: u32,
    /// `BACKENDS` and `NAT_REPLIES`.
    pub backends: u32,
    /// `RINGS`, in blocks.
    pub ring_blocks: u32,
}

/// A map would overflow. `used + needed > max`, or, for `RINGS`, no gap is long enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("map {map}: {used} of {max} entries used, need {needed} more; raise `{setting}`")]
pub struct MapFull {
    /// The map's name.
    pub map: &'static str,
    /// Entries in use.
    pub used: u32,
    /// Its capacity.
    pub max: u32,
    /// Entries that are needed in addition, for a moment at least: what is new is written before
    /// what is old is deleted.
    pub needed: u32,
    /// The config key that raises the capacity.
    pub setting: &'static str,
}

//! What every balancer in the simulation can do, ours and the classical one.

use crate::config::Config;
use crate::packet::{Kind, Source};

/// A segment on its way to a balancer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) source: Source,
    pub(crate) kind: Kind,
    pub(crate) sequence: u32,
}

/// An established flow, as the clients and the backends know it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LiveFlow {
    pub(crate) source: Source,
    /// The next segment's sequence number.
    pub(crate) sequence: u32,
    /// The position of the backend that has it.
    pub(crate) backend: usize,
}

/// A balancer.
pub(crate) trait Balancer {
    /// Steers a segment: the position of the backend that gets it.
    fn steer(&mut self, segment: &Segment) -> Option<usize>;
    /// Time passes. Unit: milliseconds.
    fn tick(&mut self, now_ms: u64);
    /// The model has changed.
    fn configure(&mut self, config: &Config);
    /// What contradicts the invariants, in words, given all live flows.
    fn audit(&mut self, flows: &mut dyn Iterator<Item = LiveFlow>) -> Vec<String>;
    /// What the balancer knows of a flow, for who follows one.
    fn explain(&self, source: Source) -> String;
    /// Bare facts for the report.
    fn vitals(&self) -> Vitals;
}

/// The state that a balancer has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Vitals {
    /// Entries in the flow table.
    pub(crate) entry_count: usize,
    /// Slots that are not settled.
    pub(crate) unsettled_count: usize,
    /// Quiet slots.
    pub(crate) quiet_count: usize,
    /// Rings written.
    pub(crate) write_count: usize,
    /// The ring's backends, slot by slot.
    pub(crate) ring: Vec<u16>,
}

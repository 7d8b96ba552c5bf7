//! What the engine is asked for beside the snapshot, and what it answers: flows, rings, and what a change
//! would do. Pure: the engine's facts go in.

mod flows;
mod ring;

use crate::forecast::Forecast;
use crate::model::{AdminState, Change, Health, Model};

pub use crate::transition::sweep::FlowCounts;
pub use flows::{
    BackendFlows, FlowOwner, FlowQuery, FlowStage, FlowView, FlowsView, Owners, SlotFlows,
    TableEntry, list, tally,
};
pub use ring::{Holder, Holders, RingShare, RingView, view};

/// What is known about the flows that a backend still has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DrainView {
    /// What the operator has decided.
    pub admin: AdminState,
    /// Whether it answers.
    pub health: Health,
    /// Slots that send new flows there.
    pub current_count: u32,
    /// Slots in transition that send flows which are not on record there.
    pub previous_count: u32,
    /// Live flows on record.
    pub flows: FlowCounts,
    /// How long it takes at most until all flows that it has are on record, if nothing else changes: until
    /// then there may be some that are not. `None` = they are. Unit: seconds.
    pub certain_in_s: Option<u64>,
}

impl DrainView {
    /// Whether it has no flow left, for certain.
    pub const fn is_empty(&self) -> bool {
        self.flows.total() == 0 && self.certain_in_s.is_none()
    }
}

/// What is to be foreseen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PlanQuery {
    /// One change.
    Change(Change),
    /// Another model, as after a reload.
    Replace(Model),
}

/// What a change would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanView {
    /// What would be different, service by service.
    pub forecast: Forecast,
    /// What is worth knowing about the model that it leads to.
    pub warnings: Vec<String>,
    /// Keys of the config that take a restart of lbd; with any, a reload is refused.
    pub restart: Vec<&'static str>,
}

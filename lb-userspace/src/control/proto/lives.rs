//! Admin state and health of backends, flows on record, rings.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Counters;

/// What to make of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AdminChange {
    /// `ready`; `drain`: no new flows, those that it has are kept; `maint`: no new flows, those that it
    /// has are ended as `on_remove` says.
    #[schema(example = "drain")]
    pub state: String,
    /// True: new flows stop at once, at the price of handshakes under way.
    #[serde(default)]
    pub strict: bool,
}

/// What is known about a backend's answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthChange {
    /// `up`, `down`, or `unknown`, which counts as up.
    #[schema(example = "down")]
    pub state: String,
}

/// Live flows on record.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FlowCounts {
    /// Only SYNs were seen, or one datagram.
    pub half_open: u64,
    /// In use.
    pub established: u64,
    /// A FIN or a RST was seen.
    pub closing: u64,
}

/// A backend's admin state, and the flows that it still has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Admin {
    /// `ready`, `drain` or `maint`.
    pub state: String,
    /// Slots of the ring that send new flows there.
    pub slots: u32,
    /// Slots in transition that send flows there which are not on record.
    pub previous_slots: u32,
    /// Live flows on record.
    pub flows: FlowCounts,
    /// Whether it has no flow left, for certain.
    pub is_empty: bool,
    /// Seconds until all the flows that it has are on record, if nothing else changes: until then there
    /// may be some that are not. Null: they are.
    pub certain_in_s: Option<u64>,
}

/// A backend's health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `up`, `down` or `unknown`.
    pub state: String,
}

/// A backend that was removed, and stays until its flows have ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LeavingBackend {
    /// The service that it belonged to.
    pub service: String,
    /// Its name, or its address where the name is not known any more.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its port.
    pub port: u16,
    /// Slots of the ring that it still holds.
    pub slots: u32,
    /// Its counters since it was added.
    pub counters: Counters,
}

/// Flows on record. A settled slot of a maglev TCP service keeps no record of its flows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flows {
    /// At most as many as were asked for, in the order of services, backends and clients.
    pub flows: Vec<Flow>,
    /// All of them, counted by service and backend.
    pub counts: Vec<BackendFlows>,
}

/// A live flow on record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Flow {
    /// The service.
    pub service: String,
    /// The backend that has it.
    pub backend: String,
    /// The client's address.
    pub client: String,
    /// The client's port.
    pub client_port: u16,
    /// The port of the VIP.
    pub port: u16,
    /// `half_open`, `established` or `closing`.
    pub state: String,
    /// Seconds since its last packet; null unless it is established.
    pub idle_s: Option<u32>,
    /// Seconds until it is forgotten if it stays silent.
    pub expires_s: u32,
}

/// The flows on record of one backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackendFlows {
    /// The service.
    pub service: String,
    /// The backend.
    pub backend: String,
    /// How many.
    pub flows: FlowCounts,
    /// Whether these are all of its flows. False: there may be others, in slots that keep no record.
    pub is_complete: bool,
}

/// A service's ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Ring {
    /// The service.
    pub service: String,
    /// `maglev` or `round-robin`.
    pub scheduler: String,
    /// Slots; 0 without a backend.
    pub slots: u32,
    /// Slots in which nothing changes: no record is read or written.
    pub settled_slots: u32,
    /// Slots in preparation of a change.
    pub armed_slots: u32,
    /// Slots that have changed: flows that are not on record go where they went before.
    pub moving_slots: u32,
    /// Slots where flows of other backends are still on record.
    pub quiet_slots: u32,
    /// Seconds since the oldest slot in transition got into its phase; null if there is none.
    pub since_s: Option<u64>,
    /// The backends by name.
    pub backends: Vec<RingShare>,
}

/// A backend's part of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RingShare {
    /// Its name.
    pub name: String,
    /// Slots that send new flows there.
    pub slots: u32,
    /// Slots in transition that send flows there which are not on record.
    pub previous_slots: u32,
    /// Whether it may get new flows: ready, not down, of the active backup group.
    pub is_eligible: bool,
    /// Whether it was removed, and stays until its flows have ended.
    pub is_leaving: bool,
}

//! Changes to come.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{NewBackend, NewService};

/// A change that is to be foreseen, and not made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "change", rename_all = "snake_case", deny_unknown_fields)]
pub enum PlanRequest {
    /// A service is added.
    AddService {
        /// The new service.
        service: NewService,
    },
    /// A service is removed.
    RemoveService {
        /// Its name.
        service: String,
    },
    /// A backend is added.
    AddBackend {
        /// The service's name.
        service: String,
        /// The new backend.
        backend: NewBackend,
    },
    /// A backend is removed.
    RemoveBackend {
        /// The service's name.
        service: String,
        /// Its name.
        backend: String,
    },
    /// A backend gets another weight.
    SetWeight {
        /// The service's name.
        service: String,
        /// Its name.
        backend: String,
        /// The new weight, 1 to 1000.
        weight: i64,
    },
    /// A backend gets another admin state.
    SetAdmin {
        /// The service's name.
        service: String,
        /// Its name.
        backend: String,
        /// `ready`, `drain` or `maint`.
        state: String,
        /// Whether handshakes under way are not waited for.
        #[serde(default)]
        strict: bool,
    },
    /// A backend gets another health.
    SetHealth {
        /// The service's name.
        service: String,
        /// Its name.
        backend: String,
        /// `up`, `down` or `unknown`.
        state: String,
    },
}

/// A config file to be compared with what is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigFile {
    /// Its name, for messages.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// What a change would do. Nothing was changed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// What of the config would be different, in words.
    pub changes: Vec<String>,
    /// Keys of the config that take a restart of `lbd`; with any, a reload is refused.
    pub restart: Vec<String>,
    /// What is worth knowing about the config that it leads to.
    pub warnings: Vec<String>,
    /// The services that would change.
    pub services: Vec<ServicePlan>,
}

/// What a change would do to one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServicePlan {
    /// Its name.
    pub service: String,
    /// Slots of its ring afterwards; 0 without a backend.
    pub slots: u32,
    /// Slots that get another backend; null where flows do not follow slots (round robin), or the
    /// service comes or goes.
    pub moved_slots: Option<u32>,
    /// Slots by backend.
    pub backends: Vec<SlotMove>,
    /// Flows on record in slots that move: they stay where they are.
    pub affected_flows: u64,
    /// Flows that would break, by reason; empty = none.
    pub breakages: Vec<Breakage>,
    /// How it would go.
    pub notes: Vec<String>,
}

/// A backend's slots before and after a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SlotMove {
    /// Its name.
    pub name: String,
    /// Slots that it has.
    pub slots_before: u32,
    /// Slots that it would have.
    pub slots_after: u32,
}

/// Flows that would break.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Breakage {
    /// Those of this backend; null = of the service.
    pub backend: Option<String>,
    /// Why.
    pub reason: String,
    /// How many of them are on record.
    pub known_flows: u64,
    /// Whether these are all. False: there may be others, in slots that keep no record.
    pub is_complete: bool,
}

//! What checks have found, and what has happened.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::events::Event;

/// What is known of the backends that are checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct HealthReport {
    /// The backends, by service and name. Those without checks are not here.
    pub backends: Vec<BackendHealth>,
    /// What somebody has to look after.
    pub alarms: Vec<Alarm>,
}

/// What somebody has to look after.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Alarm {
    /// The service.
    pub service: String,
    /// What is the matter.
    pub reason: String,
}

/// What is known of a backend that is checked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BackendHealth {
    /// The service.
    pub service: String,
    /// The backend.
    pub backend: String,
    /// `up`, `down` or `unknown`.
    pub health: String,
    /// Whether it has the role that its service is for; true where that has none.
    pub is_fit: bool,
    /// What its agent has said of it, such as `drain` or `50 %`; empty without an agent.
    pub agent: String,
    /// Seconds since its health is what it is, or since `lbd` knows of it.
    pub since_s: u64,
    /// Its checks.
    pub checks: Vec<CheckHealth>,
    /// Its last changes, at most 20, the oldest first.
    pub history: Vec<HealthChanged>,
}

/// What is known by one check.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CheckHealth {
    /// What is asked, in words, such as `http GET /healthz`.
    pub check: String,
    /// Whom.
    pub target: String,
    /// `up`, `down` or `unknown`.
    pub health: String,
    /// Why the last answer was not as it has to be; null if it was, or if there is none yet.
    pub failure: Option<CheckFailure>,
    /// How long the last answer took. Unit: milliseconds; null without one.
    pub duration_ms: Option<f64>,
    /// Seconds since the last answer; null without one.
    pub age_s: Option<f64>,
    /// Answers in a row that contradict `health`.
    pub contradictions: u8,
    /// Good ones that it takes to come up.
    pub rise: u8,
    /// Bad ones that it takes to go down.
    pub fall: u8,
    /// Seconds for which it stays down however well it answers, because it has come and gone too often;
    /// null if it is not held.
    pub held_s: Option<f64>,
    /// How often it has gone down in the last ten minutes.
    pub flaps: usize,
    /// Good answers since `lbd` began.
    pub success_count: u64,
    /// Bad ones.
    pub failure_count: u64,
    /// Worth knowing, such as a certificate that expires soon; null if nothing is.
    pub warning: Option<String>,
}

/// Why an answer was not as it has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckFailure {
    /// `timeout`, `refused`, `closed`, `unreachable`, `protocol`, `unexpected`, `tls`, `access` or `local`.
    pub kind: String,
    /// In words.
    pub reason: String,
}

/// A change of what is known of a backend.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthChanged {
    /// When. Unit: milliseconds since 1970, UTC.
    pub unix_ms: u64,
    /// What was so.
    pub from: String,
    /// What is so since.
    pub to: String,
    /// Why.
    pub reason: String,
    /// How much later new flows followed it. Unit: milliseconds; null = not yet.
    pub in_force_after_ms: Option<u64>,
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Events {
    /// The oldest first.
    pub events: Vec<Event>,
}

//! The values of words: what `lbctl` can say of an object, and no more. Checks are not among it: what a node runs and
//! asks is for its own file to say, so no peer can have it run a program.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::model::check::Role;
use crate::model::{Backend, Fit, Keyword, Policies, Service};

/// Why a value is none.
#[derive(Debug, thiserror::Error)]
pub(super) enum ValueError {
    #[error("it is not understood: {0}")]
    Json(#[from] serde_json::Error),
    #[error("{0}")]
    Word(#[from] crate::model::UnknownWord),
}

/// A service without its backends. Keys are only added.
#[derive(Serialize, Deserialize)]
struct ServiceValue {
    vip: IpAddr,
    port: u16,
    protocol: String,
    scheduler: String,
    forward: String,
    idle_timeout_s: u32,
    ring_slots: u32,
    flow: String,
    slow_start_s: u32,
    on_down: String,
    on_remove: String,
    on_all_down: String,
    /// Whether it has the checks of the node's own file.
    #[serde(default)]
    has_checks: bool,
}

/// A backend. Keys are only added.
#[derive(Serialize, Deserialize)]
struct BackendValue {
    address: IpAddr,
    port: u16,
    weight: u32,
    backup: u8,
    /// Whether it has the own checks of the node's own file.
    #[serde(default)]
    has_own_checks: bool,
}

/// A service's value.
pub(super) fn of_service(service: &Service) -> String {
    let policies = service.policies;
    to_json(&ServiceValue {
        vip: service.vip,
        port: service.port,
        protocol: service.protocol.word().to_owned(),
        scheduler: service.scheduler.word().to_owned(),
        forward: service.forward.word().to_owned(),
        idle_timeout_s: service.idle_timeout_s,
        ring_slots: service.ring_slots,
        flow: policies.flow.word().to_owned(),
        slow_start_s: policies.slow_start_s,
        on_down: policies.on_down.word().to_owned(),
        on_remove: policies.on_remove.word().to_owned(),
        on_all_down: policies.on_all_down.word().to_owned(),
        has_checks: !service.checks.is_empty(),
    })
}

/// A service by its value, without backends. What a value does not say comes from `file`, the service as
/// this node's file has it.
pub(super) fn service(
    name: &str,
    json: &str,
    file: Option<&Service>,
) -> Result<Service, ValueError> {
    let value: ServiceValue = serde_json::from_str(json)?;
    let base = match file.filter(|_| value.has_checks) {
        Some(file) => Service {
            backends: std::collections::BTreeMap::new(),
            ..file.clone()
        },
        None => Service::new(name, value.vip, value.port),
    };
    Ok(Service {
        vip: value.vip,
        port: value.port,
        protocol: Keyword::from_word(&value.protocol)?,
        scheduler: Keyword::from_word(&value.scheduler)?,
        forward: Keyword::from_word(&value.forward)?,
        idle_timeout_s: value.idle_timeout_s,
        ring_slots: value.ring_slots,
        policies: Policies {
            flow: Keyword::from_word(&value.flow)?,
            slow_start_s: value.slow_start_s,
            on_down: Keyword::from_word(&value.on_down)?,
            on_remove: Keyword::from_word(&value.on_remove)?,
            on_all_down: Keyword::from_word(&value.on_all_down)?,
        },
        ..base
    })
}

/// A backend's value.
pub(super) fn of_backend(backend: &Backend) -> String {
    to_json(&BackendValue {
        address: backend.address,
        port: backend.port,
        weight: backend.weight,
        backup: backend.backup,
        has_own_checks: backend.checks.is_some(),
    })
}

/// A backend of `service` by its value. Its own checks are those that this node's file has.
pub(super) fn backend(
    service: &Service,
    name: &str,
    json: &str,
    file: Option<&Backend>,
) -> Result<Backend, ValueError> {
    let value: BackendValue = serde_json::from_str(json)?;
    let mut backend = Backend::new(name, value.address, value.port);
    backend.weight = value.weight;
    backend.backup = value.backup;
    let file = file.filter(|_| value.has_own_checks);
    backend.checks = file.and_then(|file| file.checks.clone());
    // Who accepts writes has to be found out first.
    backend.fit = match service.role {
        Role::Writer => Fit::Unfit,
        Role::None | Role::Reader => Fit::Fit,
    };
    Ok(backend)
}

/// An admin state's or a health's value.
pub(super) fn of_keyword<K: Keyword>(keyword: K) -> String {
    keyword.word().to_owned()
}

/// An admin state or a health by its value.
pub(super) fn keyword<K: Keyword>(word: &str) -> Result<K, ValueError> {
    Ok(K::from_word(word)?)
}

/// Numbers, addresses and words have a JSON form always.
fn to_json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

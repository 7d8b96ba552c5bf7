//! What of the model must survive the daemon: the services with every change made at run time, admin
//! state and health, beside what the config file said then. As JSON, for a state file.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::check::{Check, CheckMode, Role};
use super::diff::{differences, dropped};
use super::doubt::Doubt;
use super::rules::{self, Checked};
use super::shared::{Entry, Overlay};
use super::{
    AdminState, AgentState, Backend, Fit, ForwardMode, HOLD_DOWN_DEFAULT_S, Health, Model,
    OnAllDown, OnDown, OnRemove, Policies, Protocol, Scheduler, Service, UdpFlow,
};
use crate::model::draft::Draft;

mod authorities;

/// Goes up when an older daemon could not read it any more. Keys are added without that.
const FORMAT: u32 = 1;

/// Why saved state cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// It is no state of this kind.
    #[error("it is damaged, or was written by another program: {0}")]
    Damaged(#[from] serde_json::Error),
    /// It is of a later version.
    #[error("it has format {found}, and this lbd reads up to {FORMAT}: a later lbd wrote it")]
    Later {
        /// Its format.
        found: u32,
    },
}

/// Saved state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Saved {
    format: u32,
    /// As the config file said.
    file: Vec<SavedService>,
    /// As it was in force.
    current: Vec<SavedService>,
    /// What was changed at run time, here or on another node of the cluster.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    shared: Vec<Entry>,
}

/// What a start makes of saved state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resumed {
    /// The model to put in force.
    pub model: Model,
    /// Changes made at run time that are in force again, in words.
    pub restored: Vec<String>,
    /// Changes made at run time that are not, in words, with the reason.
    pub dropped: Vec<String>,
}

impl Saved {
    /// The state to save: what the file said when it was last read, and what is in force.
    pub fn of(file: &Model, current: &Model) -> Self {
        let saved = |model: &Model| model.services.values().map(SavedService::from).collect();
        Self {
            format: FORMAT,
            file: saved(file),
            current: saved(current),
            shared: Vec::new(),
        }
    }

    /// With what was changed at run time on any node of the cluster.
    #[must_use]
    pub fn with_shared(mut self, overlay: &Overlay) -> Self {
        self.shared = overlay.entries();
        self
    }

    /// What was changed at run time on any node of the cluster. If the config file has changed meanwhile, which
    /// `loaded` shows, that is a reload: see [`Overlay::note_reload`].
    pub fn shared(&self, loaded: &Model, now_unix_ms: u64) -> Overlay {
        let mut overlay = Overlay::restored(&loaded.node, self.shared.clone());
        if restored(&self.file, loaded).services != loaded.services {
            overlay.note_reload(now_unix_ms);
        }
        overlay
    }

    /// As JSON.
    ///
    /// # Errors
    /// [`SavedError::Damaged`] if it has no JSON form, which would be a mistake of the program's.
    pub fn to_json(&self) -> Result<Vec<u8>, SavedError> {
        Ok(serde_json::to_vec_pretty(self)?)
    }

    /// From JSON.
    ///
    /// # Errors
    /// [`SavedError`].
    pub fn from_json(json: &[u8]) -> Result<Self, SavedError> {
        /// What every format has.
        #[derive(Deserialize)]
        struct Header {
            format: u32,
        }
        let Header { format } = serde_json::from_slice(json)?;
        if format > FORMAT {
            return Err(SavedError::Later { found: format });
        }
        Ok(serde_json::from_slice(json)?)
    }

    /// The model to start with, where the config file says `loaded`. If its services are those of then,
    /// what was in force is so again. If they have changed, the file wins, as in a reload. Admin state
    /// and health are kept in both cases.
    pub fn resume(&self, loaded: Model) -> Resumed {
        let file = restored(&self.file, &loaded);
        let current = restored(&self.current, &loaded);
        if file.services != loaded.services {
            return overruled(&file, &current, loaded, "the config file has changed");
        }
        let Checked { model, errors, .. } = rules::check(&Draft::from(&current));
        match model {
            Some(model) => Resumed {
                restored: words(&differences(&file.services, &model.services)),
                dropped: Vec::new(),
                model,
            },
            None => {
                let reason = errors.first().map_or_else(String::new, ToString::to_string);
                overruled(&file, &current, loaded, &reason)
            }
        }
    }
}

fn words(differences: &[super::diff::Difference]) -> Vec<String> {
    differences.iter().map(ToString::to_string).collect()
}

fn overruled(file: &Model, current: &Model, loaded: Model, reason: &str) -> Resumed {
    let lost = dropped(&file.services, &current.services, &loaded.services);
    Resumed {
        model: loaded.keeping_state_of(current),
        restored: Vec::new(),
        dropped: lost
            .iter()
            .map(|change| format!("{change} ({reason})"))
            .collect(),
    }
}

/// The services of then on the node of now.
fn restored(services: &[SavedService], node: &Model) -> Model {
    let services = services.iter().cloned().map(Service::from);
    let mut model = Model {
        services: services
            .map(|service| (service.name.clone(), service))
            .collect(),
        ..node.clone()
    };
    authorities::restore(&mut model, node);
    model
}

/// A service with all its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedService {
    name: String,
    vip: IpAddr,
    port: u16,
    #[serde(with = "word")]
    protocol: Protocol,
    #[serde(with = "word")]
    scheduler: Scheduler,
    #[serde(with = "word")]
    forward: ForwardMode,
    idle_timeout_s: u32,
    ring_slots: u32,
    #[serde(with = "word")]
    flow: UdpFlow,
    slow_start_s: u32,
    #[serde(with = "word")]
    on_down: OnDown,
    #[serde(with = "word")]
    on_remove: OnRemove,
    #[serde(with = "word")]
    on_all_down: OnAllDown,
    #[serde(default)]
    checks: Vec<Check>,
    #[serde(default, with = "word")]
    check_mode: CheckMode,
    #[serde(default = "hold_down_default_s")]
    hold_down_s: u32,
    #[serde(default)]
    doubt: Doubt,
    #[serde(default, with = "word")]
    role: Role,
    #[serde(default)]
    max_lag_s: Option<u32>,
    #[serde(default)]
    primary_as_last_resort: bool,
    backends: Vec<SavedBackend>,
}

/// A backend with all its settings and its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedBackend {
    name: String,
    address: IpAddr,
    port: u16,
    weight: u32,
    backup: u8,
    #[serde(with = "word")]
    admin: AdminState,
    /// `None` = the service's.
    #[serde(default)]
    checks: Option<Vec<Check>>,
    #[serde(with = "word")]
    health: Health,
    #[serde(default, with = "word")]
    fit: Fit,
    #[serde(default)]
    agent: SavedAgent,
}

/// What a backend has said of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct SavedAgent {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    admin: Option<SavedAdmin>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    weight_percent: Option<u16>,
}

/// An admin state where there may be none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedAdmin(#[serde(with = "word")] AdminState);

/// Of those that were saved before there was a choice.
fn hold_down_default_s() -> u32 {
    HOLD_DOWN_DEFAULT_S
}

/// A [`Keyword`] as its word.
mod word {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::model::Keyword;

    pub(super) fn serialize<K: Keyword, S: Serializer>(
        value: &K,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(value.word())
    }

    pub(super) fn deserialize<'de, K: Keyword, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<K, D::Error> {
        let word = String::deserialize(deserializer)?;
        K::from_word(&word).map_err(D::Error::custom)
    }
}

impl From<&Service> for SavedService {
    fn from(service: &Service) -> Self {
        let policies = service.policies;
        Self {
            name: service.name.clone(),
            vip: service.vip,
            port: service.port,
            protocol: service.protocol,
            scheduler: service.scheduler,
            forward: service.forward,
            idle_timeout_s: service.idle_timeout_s,
            ring_slots: service.ring_slots,
            flow: policies.flow,
            slow_start_s: policies.slow_start_s,
            on_down: policies.on_down,
            on_remove: policies.on_remove,
            on_all_down: policies.on_all_down,
            checks: service.checks.clone(),
            check_mode: service.check_mode,
            hold_down_s: service.hold_down_s,
            doubt: service.doubt,
            role: service.role,
            max_lag_s: service.max_lag_s,
            primary_as_last_resort: service.primary_as_last_resort,
            backends: service.backends.values().map(SavedBackend::from).collect(),
        }
    }
}

impl From<SavedService> for Service {
    fn from(saved: SavedService) -> Self {
        let backends = saved.backends.into_iter().map(Backend::from);
        let backends: BTreeMap<String, Backend> = backends
            .map(|backend| (backend.name.clone(), backend))
            .collect();
        Self {
            name: saved.name,
            vip: saved.vip,
            port: saved.port,
            protocol: saved.protocol,
            scheduler: saved.scheduler,
            forward: saved.forward,
            idle_timeout_s: saved.idle_timeout_s,
            ring_slots: saved.ring_slots,
            policies: Policies {
                flow: saved.flow,
                slow_start_s: saved.slow_start_s,
                on_down: saved.on_down,
                on_remove: saved.on_remove,
                on_all_down: saved.on_all_down,
            },
            checks: saved.checks,
            check_mode: saved.check_mode,
            hold_down_s: saved.hold_down_s,
            doubt: saved.doubt,
            role: saved.role,
            max_lag_s: saved.max_lag_s,
            primary_as_last_resort: saved.primary_as_last_resort,
            backends,
        }
    }
}

impl From<&Backend> for SavedBackend {
    fn from(backend: &Backend) -> Self {
        Self {
            name: backend.name.clone(),
            address: backend.address,
            port: backend.port,
            weight: backend.weight,
            backup: backend.backup,
            admin: backend.admin,
            checks: backend.checks.clone(),
            health: backend.health,
            fit: backend.fit,
            agent: SavedAgent {
                admin: backend.agent.admin.map(SavedAdmin),
                weight_percent: backend.agent.weight_percent,
            },
        }
    }
}

impl From<SavedBackend> for Backend {
    fn from(saved: SavedBackend) -> Self {
        Self {
            name: saved.name,
            address: saved.address,
            port: saved.port,
            weight: saved.weight,
            backup: saved.backup,
            admin: saved.admin,
            checks: saved.checks,
            health: saved.health,
            fit: saved.fit,
            agent: AgentState {
                admin: saved.agent.admin.map(|admin| admin.0),
                weight_percent: saved.agent.weight_percent,
            },
        }
    }
}

#[cfg(test)]
#[path = "saved_tests.rs"]
mod tests;

//! A file's model with the words laid over it.

use std::collections::{BTreeMap, BTreeSet};

use lb_common::limits::RING_BLOCK_SLOTS;

use super::entry::{Key, Word};
use super::overlay::Overlay;
use super::value::{self, ValueError};
use crate::model::draft::Draft;
use crate::model::rules;
use crate::model::{Keyword, Model, Scheduler, Service};

/// What this node can put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Laid {
    /// The model.
    pub model: Model,
    /// Changes that are not in it, each with the reason: to be shown as drift.
    pub refused: Vec<String>,
}

impl Overlay {
    /// The model to put in force: `file`, this node's own, with all words laid over it. What checks have found, and
    /// what was said of a backend before there was a cluster, comes from `current`, the model in force.
    pub fn model(&self, file: &Model, current: &Model) -> Laid {
        let mut laid = self.lay(file);
        laid.model = laid.model.keeping_state_of(current);
        self.forget_others(&mut laid.model, current);
        self.lay_states(&mut laid.model);
        laid
    }

    /// A model with the states of those of its backends that words are about, and nothing else changed.
    pub fn with_states(&self, current: &Model) -> Model {
        let mut model = current.clone();
        self.lay_states(&mut model);
        model
    }

    /// A backend that was added at run time is a new one, even where another had its address.
    fn forget_others(&self, model: &mut Model, current: &Model) {
        for (key, word) in self.said() {
            let (Key::Backend(service, name), Word::Is(_)) = (key, word) else {
                continue;
            };
            let known = current.services.get(service);
            if known.is_some_and(|known| known.backends.contains_key(name)) {
                continue;
            }
            let found = model.services.get_mut(service);
            if let Some(backend) = found.and_then(|found| found.backends.get_mut(name)) {
                backend.admin = Default::default();
                backend.health = Default::default();
                backend.agent = Default::default();
            }
        }
    }

    fn lay(&self, file: &Model) -> Laid {
        let said = self.said().filter(|(key, _)| is_setting(key));
        let touched: BTreeSet<&str> = said.map(|(key, _)| key.service()).collect();
        let mut refused = Vec::new();
        let mut laid: BTreeMap<&str, Option<Service>> = BTreeMap::new();
        for service in touched {
            match self.service(service, file, &mut refused) {
                Ok(one) => drop(laid.insert(service, one)),
                Err(error) => {
                    refused.push(format!("{}: {error}", Key::Service(service.to_owned())));
                }
            }
        }
        let mut model = file.clone();
        for (name, service) in &laid {
            put(&mut model, name, service.clone());
        }
        if is_sound(&model).is_ok() {
            return Laid { model, refused };
        }
        // Somewhere a rule is broken: one service after the other shows where.
        let mut model = file.clone();
        for (name, service) in laid {
            let mut next = model.clone();
            put(&mut next, name, service);
            match is_sound(&next) {
                Ok(()) => model = next,
                Err(reason) => {
                    refused.push(format!("{}: {reason}", Key::Service(name.to_owned())));
                }
            }
        }
        Laid { model, refused }
    }

    /// A service with the words about it and its backends; `None` = it is not there.
    fn service(
        &self,
        name: &str,
        file: &Model,
        refused: &mut Vec<String>,
    ) -> Result<Option<Service>, ValueError> {
        let own = file.services.get(name);
        let mut service = match self.word(&Key::Service(name.to_owned())) {
            Some(Word::Removed) => return Ok(None),
            // Each of its backends has a word of its own.
            Some(Word::Is(json)) => value::service(name, json, own)?,
            Some(Word::FromFile) | None => match own {
                Some(own) => own.clone(),
                None => {
                    // It was taken back, or this node's file has never had it.
                    refused.push(format!(
                        "service `{name}`: its backends were changed, and the file here does not have it"
                    ));
                    return Ok(None);
                }
            },
        };
        for (backend, word) in self.backends(name) {
            match word {
                Word::Removed => drop(service.backends.remove(backend)),
                Word::Is(json) => {
                    let own = own.and_then(|own| own.backends.get(backend));
                    let laid = value::backend(&service, backend, json, own)?;
                    service.backends.insert(backend.to_owned(), laid);
                }
                Word::FromFile => {}
            }
        }
        Ok(Some(service))
    }

    /// Admin states, and the health of those that nobody checks. They break no rule.
    fn lay_states(&self, model: &mut Model) {
        for (key, word) in self.all() {
            let (Key::Admin(service, name) | Key::Health(service, name)) = key else {
                continue;
            };
            let Some(service) = model.services.get_mut(service) else {
                continue;
            };
            let is_checked = match service.backends.get(name) {
                Some(backend) => !service.checks_of(backend).is_empty(),
                None => continue,
            };
            let Some(backend) = service.backends.get_mut(name) else {
                continue;
            };
            match key {
                Key::Admin(..) => backend.admin = state(word, backend.admin),
                _ if is_checked => {}
                _ => backend.health = state(word, backend.health),
            }
        }
    }
}

/// What a word makes of a state. One that only a later version knows changes nothing.
fn state<K: Keyword + Default>(word: &Word, now: K) -> K {
    match word {
        Word::Is(value) => value::keyword(value).unwrap_or(now),
        // Said of a backend that goes, for whoever gets its name.
        Word::FromFile | Word::Removed => K::default(),
    }
}

fn is_setting(key: &Key) -> bool {
    matches!(key, Key::Service(_) | Key::Backend(..))
}

fn put(model: &mut Model, name: &str, service: Option<Service>) {
    match service {
        Some(service) => drop(model.services.insert(name.to_owned(), service)),
        None => drop(model.services.remove(name)),
    }
}

/// Why a model breaks a rule, or has no room for its rings: a peer's limits may be others.
fn is_sound(model: &Model) -> Result<(), String> {
    let rings = model
        .services
        .values()
        .filter(|service| service.scheduler == Scheduler::Maglev && !service.backends.is_empty());
    let needed: u32 = rings
        .map(|service| service.ring_slots.div_ceil(RING_BLOCK_SLOTS as u32))
        .sum();
    if needed > model.limits.ring_blocks {
        let room = model.limits.ring_blocks;
        return Err(format!(
            "the rings need {needed} blocks, and there is room for {room}: raise `limits.ring_blocks`"
        ));
    }
    let checked = rules::check(&Draft::from(model));
    match checked.errors.first() {
        None => Ok(()),
        Some(error) => Err(error.to_string()),
    }
}

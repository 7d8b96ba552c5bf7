//! What this node has changed → words.

use std::collections::BTreeSet;

use super::entry::{Key, Word};
use super::overlay::Overlay;
use super::value;
use crate::model::{Backend, Model, Service};

impl Overlay {
    /// Notes a change at run time by what it has changed: `before` and `after` are the models in force. What is
    /// equal in both, and what checks have found, is no change. Returns how many objects were touched.
    pub fn note_change(&mut self, before: &Model, after: &Model, now_unix_ms: u64) -> usize {
        let names: BTreeSet<&String> = before
            .services
            .keys()
            .chain(after.services.keys())
            .collect();
        let mut words = Vec::new();
        for name in names {
            match (before.services.get(name), after.services.get(name)) {
                (Some(before), Some(after)) if before == after => {}
                (Some(before), Some(after)) => {
                    self.forget_states(Some(before), after, &mut words);
                    note_service(Some(before), after, &mut words);
                }
                (None, Some(after)) => {
                    // Backends that another node has given to a former service of the name.
                    let others = self.backends(name).map(|(backend, _)| backend);
                    for backend in others.filter(|one| !after.backends.contains_key(*one)) {
                        note_backend_removal(name, backend, &mut words);
                    }
                    self.forget_states(None, after, &mut words);
                    note_service(None, after, &mut words);
                }
                (Some(before), None) => note_removal(before, &mut words),
                (None, None) => {}
            }
        }
        let count = words.len();
        for (key, word) in words {
            self.say(key, word, now_unix_ms);
        }
        count
    }

    /// Notes that this node's config file was read again, or was another one at the start: what was changed at run
    /// time of services and backends is taken back, on all nodes. What the operator has said of a backend's admin
    /// state or health stays, as in a reload of a node on its own. Returns how many words were taken back.
    pub fn note_reload(&mut self, now_unix_ms: u64) -> usize {
        let taken_back = self.said().filter_map(|(key, _)| match key {
            Key::Service(_) | Key::Backend(..) => Some(key.clone()),
            Key::Admin(..) | Key::Health(..) => None,
        });
        let taken_back: Vec<Key> = taken_back.collect();
        let count = taken_back.len();
        for key in taken_back {
            self.say(key, Word::FromFile, now_unix_ms);
        }
        count
    }
}

type Words = Vec<(Key, Word)>;

impl Overlay {
    /// A backend that is added is a new one: what another node has said of a former one of its name is taken back.
    fn forget_states(&self, before: Option<&Service>, after: &Service, words: &mut Words) {
        let is_new =
            |name: &String| before.is_none_or(|before| !before.backends.contains_key(name));
        for name in after.backends.keys().filter(|name| is_new(name)) {
            let names = || (after.name.clone(), name.clone());
            let (service, backend) = names();
            let admin = Key::Admin(service, backend);
            let (service, backend) = names();
            for key in [admin, Key::Health(service, backend)] {
                if matches!(self.word(&key), Some(Word::Is(_))) {
                    words.push((key, Word::FromFile));
                }
            }
        }
    }
}

fn note_service(before: Option<&Service>, after: &Service, words: &mut Words) {
    let name = &after.name;
    let settings = |service: &Service| value::of_service(service);
    let is_new = match before {
        None => true,
        Some(before) => settings(before) != settings(after),
    };
    let old = before.map(|before| &before.backends);
    if is_new {
        let word = Word::Is(settings(after));
        words.push((Key::Service(name.clone()), word));
    }
    // With a service that has a word goes a word for each of its backends: the file's do not count then.
    let has_word =
        |backend: &&Backend| is_new || old.is_none_or(|old| !old.contains_key(&backend.name));
    for backend in after.backends.values().filter(has_word) {
        let key = Key::Backend(name.clone(), backend.name.clone());
        words.push((key, Word::Is(value::of_backend(backend))));
    }
    let known = old.into_iter().flat_map(|backends| backends.keys());
    let names: BTreeSet<&String> = known.chain(after.backends.keys()).collect();
    for backend in names {
        let was = old.and_then(|backends| backends.get(backend));
        match after.backends.get(backend) {
            Some(is) => note_backend((before, was), (after, is), words),
            None => note_backend_removal(name, backend, words),
        }
    }
}

fn note_backend(
    (before, was): (Option<&Service>, Option<&Backend>),
    (service, is): (&Service, &Backend),
    words: &mut Words,
) {
    let names = || (service.name.clone(), is.name.clone());
    let settings = value::of_backend(is);
    if was.is_some_and(|was| value::of_backend(was) != settings) {
        let (service, backend) = names();
        words.push((Key::Backend(service, backend), Word::Is(settings)));
    }
    let default_admin = Default::default();
    if was.map_or(default_admin, |was| was.admin) != is.admin {
        let (service, backend) = names();
        let word = Word::Is(value::of_keyword(is.admin));
        words.push((Key::Admin(service, backend), word));
    }
    // Of those that are checked, health is what this node has found.
    let was_checked = match (before, was) {
        (Some(before), Some(was)) => !before.checks_of(was).is_empty(),
        (None, _) | (_, None) => false,
    };
    let is_told = !was_checked && service.checks_of(is).is_empty();
    let default_health = Default::default();
    if is_told && was.map_or(default_health, |was| was.health) != is.health {
        let (service, backend) = names();
        let word = Word::Is(value::of_keyword(is.health));
        words.push((Key::Health(service, backend), word));
    }
}

/// With its backends: otherwise those that it had would be back with a service that gets its name.
fn note_removal(service: &Service, words: &mut Words) {
    words.push((Key::Service(service.name.clone()), Word::Removed));
    for backend in service.backends.keys() {
        note_backend_removal(&service.name, backend, words);
    }
}

/// A backend that gets its name later is ready, and nobody has said anything of it.
fn note_backend_removal(service: &str, backend: &str, words: &mut Words) {
    let names = || (service.to_owned(), backend.to_owned());
    let (service_name, name) = names();
    words.push((Key::Backend(service_name, name), Word::Removed));
    let (service_name, name) = names();
    words.push((Key::Admin(service_name, name), Word::FromFile));
    let (service_name, name) = names();
    words.push((Key::Health(service_name, name), Word::FromFile));
}

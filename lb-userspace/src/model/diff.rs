//! What differs between two sets of services, in words: for the log of a reload.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::{Backend, Service};

/// Services by name, as in [`super::Model`].
type Services = BTreeMap<String, Service>;

/// A service, or one of its backends.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    service: String,
    backend: Option<String>,
}

/// What is at a key: a service without its backends, or a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    Service(Box<Service>),
    Backend(Backend),
}

/// One difference between two sets of services, in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    key: Key,
    before: Option<Item>,
    after: Option<Item>,
}

/// What is different in `after`; a service that comes or goes takes its backends with it.
pub fn differences(before: &Services, after: &Services) -> Vec<Difference> {
    let (before, after) = (items(before), items(after));
    let keys: BTreeSet<&Key> = before.keys().chain(after.keys()).collect();
    let changed = keys
        .into_iter()
        .filter(|key| before.get(key) != after.get(key));
    changed
        .map(|key| Difference {
            key: key.clone(),
            before: before.get(key).cloned(),
            after: after.get(key).cloned(),
        })
        .collect()
}

/// Of the changes from `file` to `current`, those that `new` does not hold.
pub fn dropped(file: &Services, current: &Services, new: &Services) -> Vec<Difference> {
    let new = items(new);
    let mut changes = differences(file, current);
    changes.retain(|change| new.get(&change.key) != change.after.as_ref());
    changes
}

fn items(services: &Services) -> BTreeMap<Key, Item> {
    let mut items = BTreeMap::new();
    for service in services.values() {
        let bare = Service {
            backends: BTreeMap::new(),
            ..service.clone()
        };
        let key = |backend: Option<&Backend>| Key {
            service: service.name.clone(),
            backend: backend.map(|backend| backend.name.clone()),
        };
        items.insert(key(None), Item::Service(Box::new(bare)));
        for backend in service.backends.values() {
            items.insert(key(Some(backend)), Item::Backend(backend.clone()));
        }
    }
    items
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let service = &self.key.service;
        match &self.key.backend {
            None => write!(f, "service `{service}` ")?,
            Some(backend) => write!(f, "service `{service}`, backend `{backend}` ")?,
        }
        match (&self.before, &self.after) {
            (None, _) => f.write_str("added"),
            (Some(_), None) => f.write_str("removed"),
            (Some(Item::Backend(before)), Some(Item::Backend(after)))
                if before.weight != after.weight =>
            {
                write!(f, "weight {} -> {}", before.weight, after.weight)
            }
            (Some(_), Some(_)) => f.write_str("changed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Overrides, parse};

    fn services(text: &str) -> Services {
        let overrides = Overrides {
            interfaces: vec![],
            node: "lb1".to_owned(),
        };
        parse("lbd.toml", text, &overrides).unwrap().model.services
    }

    fn web(vip: &str, backends: &[(&str, u32)]) -> String {
        let backend = |(name, weight): &(&str, u32)| {
            let host = name.trim_start_matches("web");
            format!(
                "[[service.backend]]\nname = \"{name}\"\naddress = \"10.0.0.{host}\"\nweight = {weight}\n"
            )
        };
        let backends: String = backends.iter().map(backend).collect();
        format!("[[service]]\nname = \"web\"\nvip = \"{vip}\"\nport = 80\n{backends}")
    }

    fn texts(differences: &[Difference]) -> Vec<String> {
        differences.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_kind_of_difference_has_its_words() {
        let before = services(&web("203.0.113.10", &[("web1", 100), ("web2", 100)]));
        let after = services(&web("203.0.113.11", &[("web2", 3), ("web3", 100)]));
        assert_eq!(
            texts(&differences(&before, &after)),
            [
                "service `web` changed",
                "service `web`, backend `web1` removed",
                "service `web`, backend `web2` weight 100 -> 3",
                "service `web`, backend `web3` added",
            ]
        );
        assert_eq!(differences(&before, &before), []);
        let removed = texts(&differences(&before, &Services::new()));
        assert_eq!(removed[0], "service `web` removed");
        assert_eq!(removed.len(), 3);
    }

    #[test]
    fn a_change_that_the_new_file_holds_as_well_is_not_dropped() {
        let file = services(&web("203.0.113.10", &[("web1", 100)]));
        let current = services(&web("203.0.113.10", &[("web1", 7), ("web2", 100)]));
        let new = services(&web("203.0.113.10", &[("web1", 100), ("web2", 100)]));
        assert_eq!(
            texts(&dropped(&file, &current, &new)),
            ["service `web`, backend `web1` weight 100 -> 7"]
        );
        assert_eq!(dropped(&file, &current, &current), []);
        assert_eq!(dropped(&file, &file, &new), []);
    }
}

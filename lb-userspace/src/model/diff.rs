//! What differs between two sets of services, in words: for the log of a reload. What is not in a file
//! (admin state, health) is no difference.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

mod groups;

use super::check::Check;
use super::{AdminState, AgentState, Backend, Fit, Health, Keyword, Model, Service};
use crate::model::text::write_duration;

pub use groups::group_differences;

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

/// The keys of what is different and cannot be changed while the datapath is attached.
pub fn takes_restart(before: &Model, after: &Model) -> Vec<&'static str> {
    let keys = [
        ("[[interface]]", before.interfaces != after.interfaces),
        ("[limits]", before.limits != after.limits),
        ("[metrics]", before.metrics != after.metrics),
        ("node.manage_vips", before.manage_vips != after.manage_vips),
        // Peers know a node by its name.
        (
            "node.name",
            after.cluster.is_some() && before.node != after.node,
        ),
        ("[cluster]", before.cluster != after.cluster),
    ];
    let different = keys.into_iter().filter(|(_, is_different)| *is_different);
    different.map(|(key, _)| key).collect()
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
            items.insert(key(Some(backend)), Item::Backend(as_written(backend)));
        }
    }
    items
}

/// A backend as the file would have it.
fn as_written(backend: &Backend) -> Backend {
    Backend {
        admin: AdminState::default(),
        health: Health::default(),
        fit: Fit::default(),
        agent: AgentState::default(),
        ..backend.clone()
    }
}

/// A key of the config file with its value before and after.
type Setting = (&'static str, String, String);

fn settings_of_service(before: &Service, after: &Service) -> Vec<Setting> {
    let word = |key, pick: fn(&Service) -> String| (key, pick(before), pick(after));
    let lag = |service: &Service| service.max_lag_s.map_or_else(any, write_duration);
    vec![
        word("vip", |one| one.vip.to_string()),
        word("port", |one| one.port.to_string()),
        word("protocol", |one| one.protocol.word().to_owned()),
        word("scheduler", |one| one.scheduler.word().to_owned()),
        word("forward", |one| one.forward.word().to_owned()),
        word("idle_timeout", |one| write_duration(one.idle_timeout_s)),
        word("ring_slots", |one| one.ring_slots.to_string()),
        word("flow", |one| one.policies.flow.word().to_owned()),
        word("slow_start", |one| {
            write_duration(one.policies.slow_start_s)
        }),
        word("on_down", |one| one.policies.on_down.word().to_owned()),
        word("on_remove", |one| one.policies.on_remove.word().to_owned()),
        word("on_all_down", |one| {
            one.policies.on_all_down.word().to_owned()
        }),
        checks(&before.checks, &after.checks),
        word("check_mode", |one| one.check_mode.word().to_owned()),
        word("hold_down", |one| write_duration(one.hold_down_s)),
        word("doubt_repeated_syns", |one| {
            percent(one.doubt.repeated_syns_percent)
        }),
        word("doubt_resets", |one| percent(one.doubt.resets_percent)),
        word("role", |one| one.role.word().to_owned()),
        ("max_lag", lag(before), lag(after)),
        word("primary_as_last_resort", |one| {
            one.primary_as_last_resort.to_string()
        }),
    ]
}

fn percent(share: Option<u8>) -> String {
    share.map_or_else(|| "off".to_owned(), |share| format!("{share} %"))
}

fn settings_of_backend(before: &Backend, after: &Backend) -> Vec<Setting> {
    let word = |key, pick: fn(&Backend) -> String| (key, pick(before), pick(after));
    vec![
        word("address", |one| one.address.to_string()),
        word("port", |one| one.port.to_string()),
        word("weight", |one| one.weight.to_string()),
        word("backup", |one| one.backup.to_string()),
        match (&before.checks, &after.checks) {
            (Some(before), Some(after)) => checks(before, after),
            (before, after) => ("check", own_checks(before), own_checks(after)),
        },
    ]
}

fn any() -> String {
    "any".to_owned()
}

fn own_checks(checks: &Option<Vec<Check>>) -> String {
    checks
        .as_ref()
        .map_or_else(|| "the service's".to_owned(), |own| list(own))
}

/// What is different about a check may be a secret, and no word here tells it.
fn checks(before: &[Check], after: &[Check]) -> Setting {
    let (old, mut new) = (list(before), list(after));
    if old == new && before != after {
        new.push_str(" with other settings");
    }
    ("check", old, new)
}

fn list(checks: &[Check]) -> String {
    let words: Vec<String> = checks.iter().map(|one| format!("`{one}`")).collect();
    match words.is_empty() {
        true => "none".to_owned(),
        false => words.join(" and "),
    }
}

/// `weight 100 -> 7, backup 0 -> 1`.
fn changed(settings: Vec<Setting>) -> String {
    let different = settings
        .into_iter()
        .filter(|(_, before, after)| before != after);
    let words = different.map(|(key, before, after)| format!("{key} {before} -> {after}"));
    words.collect::<Vec<_>>().join(", ")
}

impl Difference {
    /// The service that it is in.
    pub fn service(&self) -> &str {
        &self.key.service
    }
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
            (Some(Item::Service(before)), Some(Item::Service(after))) => {
                f.write_str(&changed(settings_of_service(before, after)))
            }
            (Some(Item::Backend(before)), Some(Item::Backend(after))) => {
                f.write_str(&changed(settings_of_backend(before, after)))
            }
            // A service and a backend have keys of their own.
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
                "service `web` vip 203.0.113.10 -> 203.0.113.11",
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
    fn every_key_of_a_file_has_its_words_and_what_is_in_no_file_has_none() {
        let before = services(&web("203.0.113.10", &[("web1", 100)]));
        let mut after = before.clone();
        let service = after.get_mut("web").unwrap();
        service.idle_timeout_s = 30;
        service.policies.on_remove = crate::model::OnRemove::Reset;
        service.backends.get_mut("web1").unwrap().backup = 1;
        assert_eq!(
            texts(&differences(&before, &after)),
            [
                "service `web` idle_timeout 15m -> 30s, on_remove keep -> reset",
                "service `web`, backend `web1` backup 0 -> 1",
            ]
        );
        let mut drained = before.clone();
        let web1 = drained.get_mut("web").unwrap().backends.get_mut("web1");
        web1.unwrap().admin = AdminState::Drain;
        assert_eq!(differences(&before, &drained), []);
        assert_eq!(dropped(&before, &drained, &before), []);
    }

    #[test]
    fn changes_of_checks_are_told_without_a_secret() {
        let with =
            |lines: &str| services(&format!("{}{lines}", web("203.0.113.10", &[("web1", 100)])));
        let own = |lines: &str| with(&format!("[[service.backend.check]]\n{lines}\n"));
        let differences = |before: &Services, after: &Services| texts(&differences(before, after));
        let plain = with("");
        let http = own("type = \"http\"\npath = \"/a\"");
        assert_eq!(
            differences(&plain, &http),
            ["service `web`, backend `web1` check the service's -> `http GET /a`"]
        );
        let secret = own("type = \"http\"\npath = \"/a\"\nheaders = { X-Token = \"hunter2\" }");
        assert_eq!(
            differences(&http, &secret),
            [
                "service `web`, backend `web1` check `http GET /a` -> `http GET /a` with other settings"
            ]
        );
        assert_eq!(
            differences(&secret, &with("checks = \"none\"\n")),
            ["service `web`, backend `web1` check `http GET /a` -> none"]
        );
        let mut database = plain.clone();
        let service = database.get_mut("web").unwrap();
        service.role = crate::model::check::Role::Reader;
        service.max_lag_s = Some(10);
        service.hold_down_s = 0;
        assert_eq!(
            differences(&plain, &database),
            ["service `web` hold_down 1m -> 0s, role none -> reader, max_lag any -> 10s"]
        );
        let mut unfit = plain.clone();
        let web1 = unfit.get_mut("web").unwrap().backends.get_mut("web1");
        web1.unwrap().fit = Fit::Unfit;
        assert_eq!(differences(&plain, &unfit), [""; 0]);
    }

    #[test]
    fn what_the_datapath_was_loaded_with_takes_a_restart() {
        let overrides = Overrides {
            interfaces: vec!["eth0".to_owned()],
            node: "lb1".to_owned(),
        };
        let model = |text: &str| parse("lbd.toml", text, &overrides).unwrap().model;
        let keys = |text| takes_restart(&model(""), &model(text));
        assert_eq!(
            keys("[node]\nname = \"lb2\"\non_stop = \"detach\"\n"),
            [""; 0]
        );
        assert_eq!(
            keys(
                "[node]\nmanage_vips = false\n[[interface]]\nname = \"eth1\"\n[limits]\nflows = 2048\n"
            ),
            ["[[interface]]", "[limits]", "node.manage_vips"]
        );
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

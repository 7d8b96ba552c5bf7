//! How the configurations of two nodes differ.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::value;
use crate::model::Model;

/// Differences that are told in words; of more it is told how many there are.
const LINES_MAX: usize = 50;

/// A configuration, as far as two nodes are to have the same: what a node tells its peers when digests differ.
/// Keys are only added at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outline {
    /// Services, and backends as `SERVICE/BACKEND`, with their settings as JSON.
    objects: BTreeMap<String, String>,
    /// Groups: their settings as JSON; what is a node's own (priority, interface) is not among it.
    groups: BTreeMap<String, String>,
    /// Capacities that have to be equal, by config key.
    limits: BTreeMap<String, String>,
}

impl Outline {
    /// That of the model in force.
    pub fn of(model: &Model) -> Self {
        let mut objects = BTreeMap::new();
        for service in model.services.values() {
            let checks: Vec<String> = service.checks.iter().map(ToString::to_string).collect();
            let settings = with(&value::of_service(service), "check", checks);
            objects.insert(service.name.clone(), settings);
            for backend in service.backends.values() {
                let key = format!("{}/{}", service.name, backend.name);
                objects.insert(key, value::of_backend(backend));
            }
        }
        let groups = model.vrrp.values().map(|group| {
            let vips: Vec<String> = group.vips.iter().map(ToString::to_string).collect();
            let settings = serde_json::json!({
                "vrid": group.vrid,
                "vips": vips,
                "interval_ms": u32::from(group.interval_cs) * 10,
                "virtual_mac": group.virtual_mac,
                "accept": group.accept,
                "authenticate": group.authenticate,
            });
            (group.name.clone(), settings.to_string())
        });
        let limits = [("limits.flows".to_owned(), model.limits.flows.to_string())];
        Self {
            objects,
            groups: groups.collect(),
            limits: limits.into(),
        }
    }

    /// The same for equal outlines.
    pub fn digest(&self) -> u64 {
        // Maps of strings have a form always.
        let bytes = postcard::to_stdvec(self).unwrap_or_default();
        let digest = ring::digest::digest(&ring::digest::SHA256, &bytes);
        let first = digest.as_ref().first_chunk::<8>();
        first.map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    /// What is different there, a line each: `here -> there`. Empty = nothing.
    pub fn drift(&self, theirs: &Self) -> Vec<String> {
        let mut lines = compare("vrrp group", &self.groups, &theirs.groups);
        lines.extend(compare("service", &self.objects, &theirs.objects));
        let limits = self.limits.iter().filter_map(|(key, here)| {
            let there = theirs.limits.get(key)?;
            (here != there).then(|| format!("{key} {here} -> {there}"))
        });
        lines.extend(limits);
        if lines.len() > LINES_MAX {
            let more = lines.len() - LINES_MAX;
            lines.truncate(LINES_MAX);
            lines.push(format!("and {more} more"));
        }
        lines
    }
}

/// Settings with a list of texts among them.
fn with(settings: &str, key: &str, texts: Vec<String>) -> String {
    let mut settings = fields(settings);
    settings.insert(key.to_owned(), texts.into());
    serde_json::Value::Object(settings).to_string()
}

fn fields(json: &str) -> serde_json::Map<String, serde_json::Value> {
    serde_json::from_str(json).unwrap_or_default()
}

fn compare(
    noun: &str,
    here: &BTreeMap<String, String>,
    there: &BTreeMap<String, String>,
) -> Vec<String> {
    let names: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
    let mut lines = Vec::new();
    for name in names {
        // What a whole service lacks, its backends lack.
        let owner = name.split_once('/').map(|(owner, _)| owner);
        let is_shared =
            |map: &BTreeMap<String, String>| owner.is_none_or(|owner| map.contains_key(owner));
        if !is_shared(here) || !is_shared(there) {
            continue;
        }
        let subject = match name.split_once('/') {
            Some((service, backend)) => format!("service `{service}`, backend `{backend}`"),
            None => format!("{noun} `{name}`"),
        };
        match (here.get(name), there.get(name)) {
            (Some(_), None) => lines.push(format!("{subject} is here alone")),
            (None, Some(_)) => lines.push(format!("{subject} is there alone")),
            (Some(one), Some(other)) if one != other => {
                lines.push(format!("{subject} {}", changed(one, other)));
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    lines
}

/// `weight 100 -> 7, backup 0 -> 1`.
fn changed(here: &str, there: &str) -> String {
    let (here, there) = (fields(here), fields(there));
    let keys: BTreeSet<&String> = here.keys().chain(there.keys()).collect();
    let text = |value: Option<&serde_json::Value>| match value {
        Some(serde_json::Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "none".to_owned(),
    };
    let different = keys
        .into_iter()
        .filter(|key| here.get(*key) != there.get(*key));
    let words = different.map(|key| {
        let (here, there) = (text(here.get(key)), text(there.get(key)));
        format!("{key} {here} -> {there}")
    });
    words.collect::<Vec<_>>().join(", ")
}

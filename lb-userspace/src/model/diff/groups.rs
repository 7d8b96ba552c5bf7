//! What differs between two sets of VRRP groups, in words.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use super::Setting;
use crate::model::cluster::{Track, Tracked, VrrpGroup};
use crate::model::text::write_duration_ms;

/// Groups by name, as in [`crate::model::Model`].
type Groups = BTreeMap<String, VrrpGroup>;

/// What is different in `after`, a line for each group.
pub fn group_differences(before: &Groups, after: &Groups) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let lines = names.into_iter().filter_map(|name| {
        let words = match (before.get(name), after.get(name)) {
            (None, Some(_)) => "added".to_owned(),
            (Some(_), None) => "removed".to_owned(),
            (Some(before), Some(after)) if before != after => {
                super::changed(settings(before, after))
            }
            (Some(_), Some(_)) | (None, None) => return None,
        };
        Some(format!("vrrp group `{name}` {words}"))
    });
    lines.collect()
}

fn settings(before: &VrrpGroup, after: &VrrpGroup) -> Vec<Setting> {
    let word = |key, pick: fn(&VrrpGroup) -> String| (key, pick(before), pick(after));
    vec![
        word("interface", |one| one.interface.clone()),
        word("vrid", |one| one.vrid.to_string()),
        word("vips", |one| list(&one.vips)),
        word("priority", |one| one.priority.to_string()),
        word("interval", |one| {
            write_duration_ms(u32::from(one.interval_cs) * 10)
        }),
        word("preempt", |one| one.preempt.to_string()),
        word("preempt_delay", |one| {
            write_duration_ms(one.preempt_delay_ms)
        }),
        word("peers", |one| list(&one.peers)),
        word("source", |one| list(&one.sources)),
        word("accept", |one| one.accept.to_string()),
        word("virtual_mac", |one| one.virtual_mac.to_string()),
        word("authenticate", |one| one.authenticate.to_string()),
        word("track", |one| list(one.tracks.iter().map(track))),
    ]
}

fn list(things: impl IntoIterator<Item = impl Display>) -> String {
    let words: Vec<String> = things.into_iter().map(|one| one.to_string()).collect();
    match words.is_empty() {
        true => "none".to_owned(),
        false => words.join(" and "),
    }
}

fn track(track: &Track) -> String {
    let what = match &track.what {
        Tracked::Interface(name) => format!("interface {name}"),
        Tracked::Service {
            name,
            live_backends_min,
        } => format!("service {name} ({live_backends_min} live)"),
    };
    match track.weight {
        Some(weight) => format!("{what} weight {weight}"),
        None => what,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::model;

    fn groups(more: &str) -> Groups {
        let text = format!(
            "[[vrrp]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\nvips = \"203.0.113.10\"\n{more}"
        );
        model(&text).vrrp
    }

    #[test]
    fn a_group_that_changes_is_told_by_its_keys() {
        let before = groups("");
        assert_eq!(group_differences(&before, &before), [""; 0]);
        let after = groups(
            "priority = 200\ninterval = \"100ms\"\n[[vrrp.track]]\ninterface = \"eth1\"\nweight = 5\n",
        );
        assert_eq!(
            group_differences(&before, &after),
            [
                "vrrp group `web` priority 100 -> 200, interval 1s -> 100ms, track none -> interface eth1 weight 5"
            ]
        );
        assert_eq!(
            group_differences(&before, &Groups::new()),
            ["vrrp group `web` removed"]
        );
        assert_eq!(
            group_differences(&Groups::new(), &after),
            ["vrrp group `web` added"]
        );
    }
}

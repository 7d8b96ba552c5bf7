//! What the daemon does besides: events, hooks, reloads.

use super::families::Families;
use crate::control::Monitor;
use crate::tally::{Counted, Tally};

pub(super) fn daemon(monitor: &Monitor, families: &mut Families) {
    let help = "Events since lbd began: changes of health, alarms";
    families
        .counter("lbd_events_total", help)
        .count(&[], monitor.events.last());
    hooks(&monitor.tally, families);
    reloads(&monitor.tally, families);
}

fn hooks(tally: &Tally, families: &mut Families) {
    let mut runs = families.counter(
        "lbd_hook_runs_total",
        "Runs of on_change, by what came of them",
    );
    for (result, counted) in [
        ("success", Counted::HookSucceeded),
        ("failure", Counted::HookFailed),
        ("timeout", Counted::HookTimedOut),
    ] {
        runs.count(&[("result", result)], tally.get(counted));
    }
    let help = "Events that on_change was not told of, since it is too slow for all of them";
    families
        .counter("lbd_hook_missed_events_total", help)
        .count(&[], tally.get(Counted::HookMissed));
}

fn reloads(tally: &Tally, families: &mut Families) {
    let help = "Times that the config file was read again, by what came of it";
    let mut reloads = families.counter("lbd_config_reloads_total", help);
    for (result, counted) in [
        ("success", Counted::ReloadSucceeded),
        ("failure", Counted::ReloadFailed),
    ] {
        reloads.count(&[("result", result)], tally.get(counted));
    }
    let help = "Whether the config file as it was read last is in force";
    families
        .gauge("lbd_config_last_reload_successful", help)
        .put(&[], f64::from(tally.is_last_load_in_force()));
    let help = "When the config file that is in force was read; absent without one";
    let mut loaded = families.gauge("lbd_config_last_reload_success_timestamp_seconds", help);
    let unix_ms = tally.loaded_unix_ms();
    if unix_ms > 0 {
        loaded.put(&[], unix_ms as f64 / 1_000.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hooks_and_reloads_are_told_by_their_results() {
        let monitor = Monitor::default();
        let tally = &monitor.tally;
        let text = |monitor| {
            let mut families = Families::default();
            daemon(monitor, &mut families);
            families.encode().unwrap()
        };
        let before = text(&monitor);
        assert!(
            before.contains("lbd_config_last_reload_successful 1\n"),
            "{before}"
        );
        assert!(!before.contains("timestamp"), "{before}");

        tally.note_loaded(1_700_000_000_500);
        tally.note_refused();
        tally.add(Counted::ReloadFailed, 1);
        tally.add(Counted::HookTimedOut, 2);
        tally.add(Counted::HookMissed, 3);
        let after = text(&monitor);
        for line in [
            "lbd_config_last_reload_successful 0",
            "lbd_config_last_reload_success_timestamp_seconds 1700000000.5",
            "lbd_config_reloads_total{result=\"failure\"} 1",
            "lbd_config_reloads_total{result=\"success\"} 0",
            "lbd_hook_runs_total{result=\"timeout\"} 2",
            "lbd_hook_missed_events_total 3",
        ] {
            assert!(after.lines().any(|one| one == line), "{line} in\n{after}");
        }
    }
}

//! The names that HAProxy's own exporter has for the same things.

use super::backends::Figure;
use super::families::Families;
use crate::engine::snapshot::Snapshot;
use crate::health::board::Board;
use crate::model::{AdminState, Health};

/// `proxy` is the service, `server` the backend.
pub(super) fn haproxy(snapshot: &Snapshot, families: &mut Families) {
    let mut status = families.gauge(
        "haproxy_backend_status",
        "Whether any backend may get new flows",
    );
    for state in &snapshot.services {
        let is_up = state.service.active_group().is_some();
        for (word, is_so) in [("UP", is_up), ("DOWN", !is_up)] {
            let labels = [("proxy", state.service.name.as_str()), ("state", word)];
            status.put(&labels, f64::from(is_so));
        }
    }
    let mut status = families.gauge("haproxy_server_status", "The state of a backend");
    for state in &snapshot.services {
        for one in &state.backends {
            let now = match (one.backend.standing(), one.backend.health) {
                (AdminState::Maint, _) => "MAINT",
                (_, Health::Down) => "DOWN",
                (AdminState::Drain, _) => "DRAIN",
                (AdminState::Ready, _) => "UP",
            };
            for word in ["DOWN", "UP", "MAINT", "DRAIN"] {
                let labels = [
                    ("proxy", state.service.name.as_str()),
                    ("server", one.backend.name.as_str()),
                    ("state", word),
                ];
                status.put(&labels, f64::from(word == now));
            }
        }
    }
    let counters: [(&str, &str, Figure); 2] = [
        (
            "haproxy_server_sessions_total",
            "New flows of a backend",
            |_, one| one.stats.new_flows as f64,
        ),
        (
            "haproxy_server_bytes_in_total",
            "Bytes steered to a backend",
            |_, one| one.stats.bytes as f64,
        ),
    ];
    for (name, help, figure) in counters {
        let mut values = families.counter(name, help);
        for state in &snapshot.services {
            for one in &state.backends {
                let labels = [
                    ("proxy", state.service.name.as_str()),
                    ("server", one.backend.name.as_str()),
                ];
                values.put(&labels, figure(state, one));
            }
        }
    }
}

/// Of a backend with several checks, the slowest.
pub(super) fn durations(board: &Board, families: &mut Families) {
    let help = "How long the last check of a backend took";
    let mut duration = families.gauge("haproxy_server_check_duration_seconds", help);
    for (service, plan) in &board.roster().services {
        for (backend, questions) in &plan.backends {
            let last = questions.iter().filter_map(|question| {
                let (outcome, _) = board.answers(question)?.last.as_ref()?;
                Some(outcome.duration)
            });
            if let Some(longest) = last.max() {
                let labels = [("proxy", service.as_str()), ("server", backend.as_str())];
                duration.put(&labels, longest.as_secs_f64());
            }
        }
    }
}

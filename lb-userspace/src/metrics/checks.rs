//! What checks have found, and how soon it was in force.

use super::families::{Families, Values};
use crate::health::board::Board;
use crate::health::roster::{Seat, check_names};
use crate::model::Health;

pub(super) fn checks(board: &Board, now_ms: u64, families: &mut Families) {
    let mut asked = Vec::new();
    for (service, plan) in &board.roster().services {
        for (backend, questions) in &plan.backends {
            for (question, name) in questions.iter().zip(check_names(questions)) {
                if let Some(answers) = board.answers(question) {
                    let seat = Seat {
                        service: service.clone(),
                        backend: backend.clone(),
                    };
                    asked.push((seat, name, answers));
                }
            }
        }
    }
    let labels = |seat: &Seat, check: &str| {
        [
            ("service", seat.service.clone()),
            ("backend", seat.backend.clone()),
            ("check", check.to_owned()),
        ]
    };
    let put = |values: &mut Values<'_>, seat, check: &str, value: f64| {
        let labels = labels(seat, check);
        let labels: Vec<_> = labels
            .iter()
            .map(|(key, text)| (*key, text.as_str()))
            .collect();
        values.put(&labels, value);
    };
    let mut up = families.gauge("lbd_check_up", "Whether the backend answers this check");
    for (seat, check, answers) in &asked {
        put(
            &mut up,
            seat,
            check,
            f64::from(answers.state.health() == Health::Up),
        );
    }
    let help = "How long the last answer took";
    let mut duration = families.gauge("lbd_check_duration_seconds", help);
    for (seat, check, answers) in &asked {
        if let Some((outcome, _)) = &answers.last {
            put(&mut duration, seat, check, outcome.duration.as_secs_f64());
        }
    }
    for (index, name, help) in [
        (
            0,
            "lbd_check_successes_total",
            "Answers that were as they have to be",
        ),
        (
            1,
            "lbd_check_failures_total",
            "Answers that were not, or were none",
        ),
    ] {
        let mut counts = families.counter(name, help);
        for (seat, check, answers) in &asked {
            put(&mut counts, seat, check, answers.counts[index] as f64);
        }
    }
    let help = "Times that the backend has gone down in the last ten minutes";
    let mut flaps = families.gauge("lbd_check_flaps", help);
    for (seat, check, answers) in &asked {
        put(
            &mut flaps,
            seat,
            check,
            answers.state.flap_count(now_ms) as f64,
        );
    }
    let help = "Time until the server's certificate expires";
    let mut expiry = families.gauge("lbd_check_certificate_expiry_seconds", help);
    for (seat, check, answers) in &asked {
        let observed = answers.last.as_ref().map(|(outcome, _)| &outcome.observed);
        if let Some(days) = observed.and_then(|observed| observed.certificate_days) {
            put(&mut expiry, seat, check, days as f64 * 86_400.0);
        }
    }
    let help = "How far a replica is behind";
    let mut lag = families.gauge("lbd_check_replication_lag_seconds", help);
    for (seat, check, answers) in &asked {
        let observed = answers.last.as_ref().map(|(outcome, _)| &outcome.observed);
        if let Some(lag_s) = observed.and_then(|observed| observed.lag_s) {
            put(&mut lag, seat, check, f64::from(lag_s));
        }
    }
    let mut alarms = families.gauge("lbd_service_alarm", "Whether somebody has to look after it");
    for service in board.roster().services.keys() {
        let is_on = board.alarms().contains_key(service);
        alarms.put(&[("service", service)], f64::from(is_on));
    }
}

/// How soon new flows follow what checks find.
pub(super) fn reactions(board: &Board, families: &mut Families) {
    let reactions = board.reactions();
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    let cumulative = reactions.cumulative();
    families.histogram(
        "lbd_health_in_force_seconds",
        "From the answer to a check that changed a backend's health to the ring in force that follows it",
        cumulative.map(|(bound_ms, count)| (seconds(bound_ms), count)),
        reactions.total_count(),
        seconds(reactions.sum_ms()),
    );
}

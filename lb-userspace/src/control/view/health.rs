//! What checks have found, as it goes over the socket.

use crate::control::proto::{
    Alarm, BackendHealth, CheckFailure, CheckHealth, HealthChanged, HealthReport,
};
use crate::health::board::{Answers, Board, Record, Transition};
use crate::health::roster::{Question, Seat, check_names};
use crate::model::{AgentState, Fit, Keyword as _};

/// Everything, or of one service, one backend.
pub(in crate::control) fn report(
    board: &Board,
    now_ms: u64,
    is_wanted: impl Fn(&Seat) -> bool,
) -> HealthReport {
    let records = board.records().filter(|(seat, _)| is_wanted(seat));
    let backends = records.map(|(seat, record)| backend(board, seat, record, now_ms));
    let is_wanted_service = |service: &str| {
        let seats = board.records().map(|(seat, _)| seat);
        let mut its = seats.filter(|seat| seat.service == service);
        its.any(&is_wanted)
    };
    let alarms = board.alarms().iter();
    let alarms = alarms.filter(|(service, _)| is_wanted_service(service));
    let alarms = alarms.map(|(service, reason)| Alarm {
        service: service.clone(),
        reason: reason.clone(),
    });
    HealthReport {
        backends: backends.collect(),
        alarms: alarms.collect(),
    }
}

fn backend(board: &Board, seat: &Seat, record: &Record, now_ms: u64) -> BackendHealth {
    let plan = board.roster().services.get(&seat.service);
    let questions = plan.and_then(|plan| plan.backends.get(&seat.backend));
    let questions = questions.map_or(&[][..], Vec::as_slice);
    let named = questions.iter().zip(check_names(questions));
    let checks = named.filter_map(|(question, name)| {
        let answers = board.answers(question)?;
        Some(check(question, name, answers, now_ms))
    });
    let finding = record.finding;
    BackendHealth {
        service: seat.service.clone(),
        backend: seat.backend.clone(),
        health: finding.health.word().to_owned(),
        is_fit: finding.fit == Fit::Fit,
        agent: agent(finding.agent),
        since_s: now_ms.saturating_sub(record.since.monotonic_ms) / 1_000,
        checks: checks.collect(),
        history: record.history.iter().map(changed).collect(),
    }
}

/// What an agent has said, in words; empty if nothing.
pub(super) fn agent(said: AgentState) -> String {
    let mut words = Vec::new();
    words.extend(said.admin.map(|admin| admin.word().to_owned()));
    words.extend(said.weight_percent.map(|part| format!("{part} %")));
    words.join(" ")
}

fn check(question: &Question, name: String, answers: &Answers, now_ms: u64) -> CheckHealth {
    let timing = &question.check.timing;
    let seconds = |ms: u64| ms as f64 / 1_000.0;
    let last = answers.last.as_ref();
    let failure = last.and_then(|(outcome, _)| outcome.result.as_ref().err());
    let held_until_ms = answers.state.held_until_ms(now_ms);
    CheckHealth {
        check: name,
        target: question.target.address.to_string(),
        health: answers.state.health().word().to_owned(),
        failure: failure.map(|failure| CheckFailure {
            kind: failure.kind.word().to_owned(),
            reason: failure.reason.clone(),
        }),
        duration_ms: last.map(|(outcome, _)| outcome.duration.as_secs_f64() * 1_000.0),
        age_s: last.map(|(_, at)| seconds(now_ms.saturating_sub(at.monotonic_ms))),
        contradictions: answers.state.contradictions(),
        rise: timing.rise,
        fall: timing.fall,
        held_s: held_until_ms.map(|until_ms| seconds(until_ms - now_ms)),
        flaps: answers.state.flap_count(now_ms),
        success_count: answers.counts[0],
        failure_count: answers.counts[1],
        warning: last.and_then(|(outcome, _)| outcome.observed.warning.clone()),
    }
}

fn changed(transition: &Transition) -> HealthChanged {
    HealthChanged {
        unix_ms: transition.at.unix_ms,
        from: transition.from.clone(),
        to: transition.to.clone(),
        reason: transition.reason.clone(),
        in_force_after_ms: transition.in_force_after_ms,
    }
}

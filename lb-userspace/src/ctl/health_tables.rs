//! Tables of what checks have found.

use std::time::{Duration, UNIX_EPOCH};

use super::grid::Align::{Left, Right};
use super::grid::{Grid, facts};
use super::units::duration;
use crate::control::proto::{BackendHealth, CheckHealth, HealthReport};
use crate::events::Event;

/// `lbctl health list`.
pub(super) fn list(report: &HealthReport) -> String {
    let mut grid = Grid::new(&[
        ("SERVICE", Left),
        ("BACKEND", Left),
        ("HEALTH", Left),
        ("SINCE", Right),
        ("CHECK", Left),
        ("TIME", Right),
        ("LAST ANSWER", Left),
    ]);
    for backend in &report.backends {
        for (position, check) in backend.checks.iter().enumerate() {
            let is_first = position == 0;
            let first = |text: String| if is_first { text } else { String::new() };
            grid.row([
                first(backend.service.clone()),
                first(backend.backend.clone()),
                first(state(&backend.health, backend.is_fit, &backend.agent)),
                first(duration(backend.since_s)),
                check.check.clone(),
                took(check),
                answer(check),
            ]);
        }
    }
    let mut text = grid.draw();
    for alarm in &report.alarms {
        text.push_str(&format!(
            "ALARM: service `{}`: {}\n",
            alarm.service, alarm.reason
        ));
    }
    text
}

/// `up`, and what else is not as usual.
pub(super) fn state(health: &str, is_fit: bool, agent: &str) -> String {
    let mut words = vec![health];
    if !is_fit {
        words.push("unfit");
    }
    if !agent.is_empty() {
        words.push(agent);
    }
    words.join(", ")
}

fn took(check: &CheckHealth) -> String {
    let text = check.duration_ms.map(|ms| format!("{ms:.1} ms"));
    text.unwrap_or_else(|| "-".to_owned())
}

/// The last answer in words, with how far it is from turning the state.
fn answer(check: &CheckHealth) -> String {
    let mut text = match (&check.failure, check.age_s) {
        (Some(failure), _) => failure.reason.clone(),
        (None, Some(_)) => "ok".to_owned(),
        (None, None) => "not asked yet".to_owned(),
    };
    if check.contradictions > 0 {
        let needed = if check.health == "down" {
            check.rise
        } else {
            check.fall
        };
        text = format!("{text} ({} of {needed})", check.contradictions);
    }
    if let Some(held_s) = check.held_s {
        text = format!(
            "{text}; held down for {held_s:.0} s: {} deaths in 10 min",
            check.flaps
        );
    }
    if let Some(warning) = &check.warning {
        text = format!("{text}; {warning}");
    }
    text
}

/// `lbctl health show`.
pub(super) fn show(report: &HealthReport) -> String {
    let blocks: Vec<String> = report.backends.iter().map(block).collect();
    blocks.join("\n")
}

fn block(backend: &BackendHealth) -> String {
    let mut text = facts(&[
        ("Service", backend.service.clone()),
        ("Backend", backend.backend.clone()),
        (
            "Health",
            state(&backend.health, backend.is_fit, &backend.agent),
        ),
        ("Since", duration(backend.since_s)),
    ]);
    for check in &backend.checks {
        let answered = match check.age_s {
            Some(age_s) => format!("{} ({age_s:.1} s ago, took {})", answer(check), took(check)),
            None => answer(check),
        };
        text.push('\n');
        text.push_str(&facts(&[
            ("Check", check.check.clone()),
            ("Target", check.target.clone()),
            ("State", check.health.clone()),
            ("Last answer", answered),
            (
                "Answers",
                format!("{} good, {} bad", check.success_count, check.failure_count),
            ),
        ]));
    }
    if !backend.history.is_empty() {
        text.push_str("\nLast changes\n");
        for changed in &backend.history {
            let at = calendar(changed.unix_ms);
            let followed = match changed.in_force_after_ms {
                Some(after_ms) => format!(" (in force after {after_ms} ms)"),
                None => String::new(),
            };
            text.push_str(&format!(
                "  {at}  {} -> {}: {}{followed}\n",
                changed.from, changed.to, changed.reason
            ));
        }
    }
    text
}

/// A line of `lbctl events`.
pub(super) fn event(event: &Event) -> String {
    let mut subject = event.service.clone().unwrap_or_default();
    if let Some(backend) = &event.backend {
        subject = format!("{subject}/{backend}");
    }
    let others = [&event.group, &event.family, &event.peer];
    for name in others.into_iter().flatten() {
        let space = if subject.is_empty() { "" } else { " " };
        subject = format!("{subject}{space}{name}");
    }
    let change = match &event.from {
        Some(from) => format!("{from} -> {}", event.to),
        None => event.to.clone(),
    };
    let at = calendar(event.unix_ms);
    format!(
        "{at}  {:<7} {subject}  {change}: {}",
        event.kind, event.reason
    )
}

/// The last millisecond that has a date of four digits. Unit: milliseconds since 1970, UTC.
const CALENDAR_MAX_MS: u64 = 253_402_300_799_999;

/// A moment as people write it.
pub(super) fn calendar(unix_ms: u64) -> impl std::fmt::Display {
    let since = Duration::from_millis(unix_ms.min(CALENDAR_MAX_MS));
    humantime::format_rfc3339_millis(UNIX_EPOCH + since)
}

use super::{Findings, Subject};
use crate::model::text::write_duration_ms;

/// From a hundred checks a second, to one an hour. Unit: milliseconds.
const INTERVAL_RANGE: (i64, i64) = (10, 3_600_000);

/// To ten minutes. Unit: milliseconds.
const TIMEOUT_RANGE: (i64, i64) = (1, 600_000);

/// Answers in a row.
const COUNT_RANGE: (i64, i64) = (1, 100);

pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings) {
    let check = subject.check;
    let spans = [
        ("interval", check.interval_ms.given(), INTERVAL_RANGE),
        (
            "fast_interval",
            check.fast_interval_ms.given(),
            INTERVAL_RANGE,
        ),
        ("timeout", check.timeout_ms.given(), TIMEOUT_RANGE),
    ];
    for (key, value, (low, high)) in spans {
        let number = subject.number(key, " milliseconds");
        findings.range(value.copied(), low..=high, number);
    }
    let (low, high) = COUNT_RANGE;
    for (key, value) in [("rise", check.rise()), ("fall", check.fall())] {
        findings.range(value, low..=high, subject.number(key, ""));
    }
    check_order(subject, findings);
}

/// Neither of the shorter spans is longer than the interval.
fn check_order(subject: &Subject<'_>, findings: &mut Findings) {
    let check = subject.check;
    let Some(interval_ms) = check.interval_ms() else {
        return;
    };
    let (low, high) = INTERVAL_RANGE;
    if !(low..=high).contains(&interval_ms) {
        return;
    }
    let spans = [
        (
            "fast_interval",
            check.fast_interval_ms,
            high,
            "it is for the time while in doubt, and may not be slower",
        ),
        (
            "timeout",
            check.timeout_ms,
            TIMEOUT_RANGE.1,
            "a check would begin before the last one has ended",
        ),
    ];
    for (key, span_ms, highest_ms, reason) in spans {
        let Some(span_ms) = span_ms.given().copied() else {
            continue;
        };
        if (interval_ms + 1..=highest_ms).contains(&span_ms) {
            let message = format!(
                "{key} {} is longer than interval {}: {reason}",
                written(span_ms),
                written(interval_ms)
            );
            let problem = subject.invalid(key, message);
            findings.push(problem.against(subject.place("interval")));
        }
    }
}

/// A span that is within its range.
fn written(span_ms: i64) -> String {
    u32::try_from(span_ms).map_or_else(|_| span_ms.to_string(), write_duration_ms)
}

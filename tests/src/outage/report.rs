//! What many deaths have cost, as a table and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::death::Death;
use super::outcome::Outcome;

const HEADINGS: &str = "mode  death     times  allowed     found out after (ms)   last new request lost after (ms)  \
                        new requests lost\n\
                        \x20                       (ms)     least  median    most     least  median    most           \
                        median  most   may\n";

/// A death as soon as it is over.
pub fn line(outcome: &Outcome) -> String {
    let ms = |time: Option<Duration>| match time {
        Some(time) => format!("{} ms", time.as_millis()),
        None => "never".to_owned(),
    };
    format!(
        "{}, {}: found out after {} (the check allows {}), last new request lost after {}, {} new ones \
         lost {:?} ({} may), and {} that were under way, at {:.0} a second",
        outcome.mode,
        outcome.death,
        ms(outcome.detected),
        ms(Some(outcome.budget)),
        ms(outcome.last_failed),
        outcome.failed_total(),
        outcome.failed,
        outcome.failed_max,
        outcome.failed_in_flight,
        outcome.rate,
    )
}

/// A line for each mode and death.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = HEADINGS.to_owned();
    for ((mode, death), outcomes) in groups(outcomes) {
        let detected = spread(outcomes.iter().filter_map(|one| one.detected));
        let last = spread(outcomes.iter().filter_map(|one| one.last_failed));
        let [_, median, most] = spread_of(outcomes.iter().map(|one| one.failed_total() as u64));
        let may = outcomes.iter().map(|one| one.failed_max).min();
        text += &format!(
            "{mode:<5} {:<9} {:>5} {:>8}  {:>8} {:>7} {:>7}  {:>8} {:>7} {:>7}         {median:>8} {most:>5} {:>5}\n",
            death.to_string(),
            outcomes.len(),
            outcomes[0].budget.as_millis(),
            detected[0],
            detected[1],
            detected[2],
            last[0],
            last[1],
            last[2],
            may.unwrap_or(0),
        );
    }
    text
}

/// Everything that was counted.
pub fn json(outcomes: &[Outcome]) -> Value {
    let ms = |time: Option<Duration>| time.map(|time| time.as_millis() as u64);
    let deaths = outcomes.iter().map(|one| {
        json!({
            "mode": one.mode,
            "death": one.death.to_string(),
            "budget_ms": ms(Some(one.budget)),
            "detected_ms": ms(one.detected),
            "last_failed_ms": ms(one.last_failed),
            "failed": one.failed,
            "failed_max": one.failed_max,
            "failed_in_flight": one.failed_in_flight,
            "unexcused": one.unexcused,
            "rate_per_s": one.rate,
            "faults": one.faults(),
        })
    });
    json!({ "deaths": deaths.collect::<Vec<_>>() })
}

fn groups(outcomes: &[Outcome]) -> BTreeMap<(&'static str, Death), Vec<&Outcome>> {
    let mut groups: BTreeMap<_, Vec<&Outcome>> = BTreeMap::new();
    for outcome in outcomes {
        let group = groups.entry((outcome.mode, outcome.death)).or_default();
        group.push(outcome);
    }
    groups
}

/// Least, median and most, in milliseconds; zeros of nothing.
fn spread(times: impl Iterator<Item = Duration>) -> [u64; 3] {
    spread_of(times.map(|time| time.as_millis() as u64))
}

fn spread_of(values: impl Iterator<Item = u64>) -> [u64; 3] {
    let mut values: Vec<u64> = values.collect();
    values.sort_unstable();
    match values.as_slice() {
        [] => [0; 3],
        [least, ..] => [*least, values[values.len() / 2], values[values.len() - 1]],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_least_median_and_most() {
        assert_eq!(spread_of([5, 1, 9, 3, 7].into_iter()), [1, 5, 9]);
        assert_eq!(spread_of(std::iter::once(4)), [4; 3]);
        assert_eq!(spread(std::iter::empty()), [0; 3]);
    }
}

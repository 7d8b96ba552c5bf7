//! What a death has cost, and whether that is what the check allows.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::death::Death;
use super::requests::Request;

/// What a busy machine may add to the budget of a check: the time that lbd, its clients and the servers wait
/// for a processor.
pub const SLACK: Duration = Duration::from_millis(500);

/// Who was begun so long before a death, and has no answer yet, has lost it for another reason: an answer takes
/// less than a millisecond, and on a busy machine some tens.
const IN_FLIGHT_MAX: Duration = Duration::from_millis(250);

/// The load that the proof is about. Unit: requests a second.
pub const RATE_MIN: f64 = 500.0;

/// A hash does not share requests out to the last one: so much above its share may be sent to a backend.
/// Unit: parts of its share.
const SHARE_SLACK: f64 = 1.25;
/// The same for numbers so small that parts of them say nothing. Unit: requests.
const COUNT_SLACK: usize = 10;

/// How often a check asks, and how long it waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckTiming {
    /// Time between two checks.
    pub interval: Duration,
    /// The same while in doubt.
    pub fast_interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Failures in a row that are a death.
    pub fall: u32,
}

impl CheckTiming {
    /// The longest that a dead backend gets new flows: the first check after the death begins an interval
    /// after it at the latest, each further one when the one before it has failed and its fast interval is
    /// over, and the last takes its time-out. It is at most `fall × interval + timeout`.
    pub fn budget(&self) -> Duration {
        let in_doubt = self.fast_interval.max(self.timeout);
        self.interval + in_doubt * self.fall.saturating_sub(1) + self.timeout
    }

    /// The keys of a check in lbd's configuration.
    pub fn keys(&self) -> String {
        format!(
            "interval = \"{}ms\"\nfast_interval = \"{}ms\"\ntimeout = \"{}ms\"\nfall = {}\n",
            self.interval.as_millis(),
            self.fast_interval.as_millis(),
            self.timeout.as_millis(),
            self.fall
        )
    }
}

/// Moments of a death and a return.
#[derive(Clone, Copy, Debug)]
pub struct Moments {
    /// Before the backend was made to die.
    pub struck: Instant,
    /// When it was dead for certain.
    pub dead: Instant,
    /// Before it was made to live again.
    pub undone: Instant,
}

/// What a death has cost.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it died.
    pub death: Death,
    /// How packets come back: `dsr` or `nat`.
    pub mode: &'static str,
    /// What the check allows, without [`SLACK`].
    pub budget: Duration,
    /// From the death to lbd's verdict; `None` = there was none.
    pub detected: Option<Duration>,
    /// From the death to the begin of the last new request that met the dead; `None` = nobody did.
    pub last_failed: Option<Duration>,
    /// Requests that were under way when it died, and failed.
    pub failed_in_flight: usize,
    /// New requests that failed, by how.
    pub failed: BTreeMap<&'static str, usize>,
    /// How many of them the check allows: the share of the dead in the requests of the budget.
    pub failed_max: usize,
    /// Failures for which this death is no excuse, in words.
    pub unexcused: Vec<String>,
    /// Requests a second.
    pub rate: f64,
}

impl Outcome {
    /// Counts `requests`, which all have come to an end. `backend` is the number of the one that died.
    pub fn new(
        (death, mode, backend): (Death, &'static str, u8),
        timing: &CheckTiming,
        moments: &Moments,
        detected: Option<Duration>,
        requests: &[Request],
    ) -> Self {
        let budget = timing.budget();
        let limit = moments.dead + budget + SLACK;
        let mut outcome = Self {
            death,
            mode,
            budget,
            detected,
            last_failed: None,
            failed_in_flight: 0,
            failed: BTreeMap::new(),
            failed_max: failed_max(requests, moments.struck, moments.dead + budget, backend),
            unexcused: Vec::new(),
            rate: rate(requests),
        };
        for request in requests {
            if let Err(breakage) = &request.outcome {
                outcome.count(request, breakage.word(), moments, limit);
            }
        }
        outcome
    }

    fn count(&mut self, request: &Request, word: &'static str, moments: &Moments, limit: Instant) {
        let Moments { struck, undone, .. } = *moments;
        let (begun, ended) = (request.begun, request.begun + request.took);
        if begun < struck && begun + IN_FLIGHT_MAX >= struck && ended >= struck {
            self.failed_in_flight += 1;
        } else if (struck..limit).contains(&begun) {
            *self.failed.entry(word).or_default() += 1;
            self.last_failed = self.last_failed.max(Some(begun - struck));
        } else {
            let when = if begun < struck {
                "before the death".to_owned()
            } else if begun < undone {
                format!("begun {} ms after the death", (begun - struck).as_millis())
            } else {
                format!("begun {} ms after the return", (begun - undone).as_millis())
            };
            self.unexcused.push(format!("{word}, {when}"));
        }
    }

    /// New requests that failed.
    pub fn failed_total(&self) -> usize {
        self.failed.values().sum()
    }

    /// What is not as it has to be.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match self.detected {
            None => faults.push("the death was not found out".to_owned()),
            Some(detected) if detected > self.budget + SLACK => faults.push(format!(
                "found out after {} ms, in place of {} ms",
                detected.as_millis(),
                self.budget.as_millis()
            )),
            Some(_) => {}
        }
        if self.failed_total() > self.failed_max {
            faults.push(format!(
                "{} requests failed, and {} may",
                self.failed_total(),
                self.failed_max
            ));
        }
        if !self.unexcused.is_empty() {
            let first: Vec<&str> = self.unexcused.iter().take(5).map(String::as_str).collect();
            faults.push(format!(
                "{} requests failed for no reason: {} …",
                self.unexcused.len(),
                first.join("; ")
            ));
        }
        if self.rate < RATE_MIN {
            faults.push(format!(
                "{:.0} requests a second are no {RATE_MIN:.0}",
                self.rate
            ));
        }
        let name = format!("{}, {}", self.mode, self.death);
        faults
            .iter()
            .map(|fault| format!("{name}: {fault}"))
            .collect()
    }
}

/// The share of the dead in the requests from its death to `end`, as large as it was before.
fn failed_max(requests: &[Request], struck: Instant, end: Instant, backend: u8) -> usize {
    let before: Vec<u8> = requests
        .iter()
        .filter(|request| request.begun < struck)
        .filter_map(|request| request.outcome.as_ref().ok().copied())
        .collect();
    let its_own = before.iter().filter(|number| **number == backend).count();
    let share = its_own as f64 / before.len().max(1) as f64;
    let in_doubt = requests
        .iter()
        .filter(|request| (struck..end).contains(&request.begun));
    (in_doubt.count() as f64 * share * SHARE_SLACK) as usize + COUNT_SLACK
}

/// Requests that were begun in a second.
fn rate(requests: &[Request]) -> f64 {
    let begun = || requests.iter().map(|request| request.begun);
    match (begun().min(), begun().max()) {
        (Some(first), Some(last)) if last > first => {
            (requests.len() - 1) as f64 / (last - first).as_secs_f64()
        }
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disruption::traffic::Breakage;

    const MS: Duration = Duration::from_millis(1);

    const TIMING: CheckTiming = CheckTiming {
        interval: Duration::from_millis(500),
        fast_interval: Duration::from_millis(100),
        timeout: Duration::from_millis(200),
        fall: 3,
    };

    /// A request a millisecond for six seconds, a third of them to each of three; web1 dies after one second,
    /// is out of the ring after `steered_ms` and lives again after four.
    fn history(steered_ms: u32) -> (Moments, Vec<Request>) {
        let start = Instant::now();
        let moments = Moments {
            struck: start + MS * 1_000,
            dead: start + MS * 1_001,
            undone: start + MS * 4_000,
        };
        let requests = (0..6_000).map(|ms| {
            let is_to_the_dead = ms % 3 == 0 && (1_000..1_000 + steered_ms).contains(&ms);
            Request {
                begun: start + MS * ms,
                took: MS,
                outcome: match is_to_the_dead {
                    true => Err(Breakage::Refused),
                    false => Ok((ms % 3 + 1) as u8),
                },
            }
        });
        (moments, requests.collect())
    }

    fn outcome(steered_ms: u32, change: impl FnOnce(&mut Vec<Request>)) -> Outcome {
        let (moments, mut requests) = history(steered_ms);
        change(&mut requests);
        let who = (Death::Stopped, "dsr", 1);
        Outcome::new(who, &TIMING, &moments, Some(MS * 700), &requests)
    }

    #[test]
    fn the_budget_is_the_longest_way_to_a_verdict() {
        assert_eq!(TIMING.budget(), MS * (500 + 2 * 200 + 200));
        assert!(TIMING.budget() <= TIMING.interval * TIMING.fall + TIMING.timeout);
    }

    #[test]
    fn failures_within_the_budget_are_counted_and_excused() {
        let outcome = outcome(900, |_| {});
        assert_eq!(outcome.faults(), Vec::<String>::new());
        assert_eq!(outcome.failed_total(), 300);
        assert!((598..603).contains(&outcome.last_failed.unwrap().as_millis().abs_diff(300)));
        assert!((450..475).contains(&outcome.failed_max), "{outcome:?}");
        assert!((999.0..1_001.0).contains(&outcome.rate), "{outcome:?}");
    }

    #[test]
    fn whoever_fails_later_or_earlier_has_no_excuse() {
        let late = outcome(2_500, |_| {});
        let faults = late.faults();
        assert!(faults[0].contains("533 requests failed, and"), "{faults:?}");
        assert!(
            faults[1].contains("300 requests failed for no reason"),
            "{faults:?}"
        );
        for ms in [500, 5_000] {
            let one = outcome(900, |requests| requests[ms].outcome = Err(Breakage::Reset));
            assert_eq!(one.unexcused.len(), 1, "{one:?}");
        }
    }

    #[test]
    fn who_was_under_way_is_told_apart_from_who_came_later() {
        let outcome = outcome(900, |requests| {
            requests[998].took = MS * 900;
            requests[998].outcome = Err(Breakage::TimedOut);
        });
        let long_lost = self::outcome(900, |requests| {
            requests[500].took = MS * 900;
            requests[500].outcome = Err(Breakage::TimedOut);
        });
        assert_eq!(long_lost.unexcused, ["timed out, before the death"]);
        assert_eq!((outcome.failed_in_flight, outcome.failed_total()), (1, 300));
        assert_eq!(outcome.faults(), Vec::<String>::new());
    }

    #[test]
    fn more_than_the_share_of_the_dead_a_late_verdict_and_a_small_load_are_faults() {
        let many = outcome(900, |requests| {
            for request in &mut requests[1_000..2_000] {
                request.outcome = Err(Breakage::TimedOut);
            }
        });
        assert!(many.faults()[0].contains("and"), "{many:?}");
        let mut slow = outcome(900, |_| {});
        slow.detected = Some(TIMING.budget() + SLACK + MS);
        assert!(slow.faults()[0].contains("found out after"), "{slow:?}");
        slow.detected = None;
        assert!(slow.faults()[0].contains("not found out"), "{slow:?}");
        let few = outcome(900, |requests| {
            let mut number = 0;
            requests.retain(|_| {
                number += 1;
                number % 3 == 1
            });
        });
        assert!(few.faults().iter().any(|fault| fault.contains("a second")));
    }
}

//! What a step did to the connections: pure counting.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::event::Concerns;
use super::lane::Lane;
use super::traffic::Counts;

/// Breakages that are kept word by word.
const EXAMPLE_COUNT_MAX: usize = 5;

/// What a step did on one lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LaneOutcome {
    /// Flows that stood before.
    pub connections: usize,
    /// Of these, broken ones, without [`LaneOutcome::died_with_backend`].
    pub broken: usize,
    /// Broken ones whose backend's servers were killed.
    pub died_with_backend: usize,
    /// How flows broke, by what they did.
    pub broken_how: BTreeMap<String, usize>,
    /// The first of them word by word.
    pub examples: Vec<String>,
    /// New connections that succeeded.
    pub new_ok: u64,
    /// New connections that failed.
    pub new_failed: u64,
    /// How they failed.
    pub new_failed_how: BTreeMap<&'static str, u64>,
    /// New connections that took 0.9 s or longer: their SYN had to be repeated.
    pub new_delayed: u64,
    /// Packets of the constant-rate streams.
    pub sent: u64,
    /// Of these, those never answered.
    pub lost: u64,
    /// The longest time that a client waited for the next answer.
    pub longest_gap: Duration,
}

impl LaneOutcome {
    /// From what was counted; `dead` are backends whose servers were killed.
    pub fn new(connections: usize, counts: &Counts, dead: &[u8]) -> Self {
        let of_living = |backend: u8| !dead.contains(&backend);
        let mut outcome = Self {
            connections,
            new_ok: counts.new_ok,
            new_failed: counts.new_failed.values().sum(),
            new_failed_how: counts.new_failed.clone(),
            new_delayed: counts.new_delayed,
            ..Self::default()
        };
        for broken in &counts.broken {
            if !of_living(broken.backend) {
                outcome.died_with_backend += 1;
                continue;
            }
            outcome.broken += 1;
            let how = format!("{}: {}", broken.group, broken.breakage.word());
            *outcome.broken_how.entry(how).or_default() += 1;
            if outcome.examples.len() < EXAMPLE_COUNT_MAX {
                let (group, backend) = (broken.group, broken.backend);
                let example = format!("{group} of web{backend}: {}", broken.breakage);
                outcome.examples.push(example);
            }
        }
        for stream in counts
            .streams
            .values()
            .filter(|stream| of_living(stream.backend))
        {
            outcome.sent += stream.sent;
            outcome.lost += stream.sent - stream.answered;
        }
        let gaps = counts.longest_gap.iter();
        let gaps = gaps.filter(|(backend, _)| of_living(**backend));
        outcome.longest_gap = gaps.map(|(_, gap)| *gap).max().unwrap_or_default();
        outcome
    }

    fn add(&mut self, other: &Self) {
        self.connections += other.connections;
        self.broken += other.broken;
        self.died_with_backend += other.died_with_backend;
        self.new_ok += other.new_ok;
        self.new_failed += other.new_failed;
        self.new_delayed += other.new_delayed;
        self.sent += other.sent;
        self.lost += other.lost;
        self.longest_gap = self.longest_gap.max(other.longest_gap);
        for (how, count) in &other.broken_how {
            *self.broken_how.entry(how.clone()).or_default() += count;
        }
        for (how, count) in &other.new_failed_how {
            *self.new_failed_how.entry(how).or_default() += count;
        }
    }
}

/// What goes on beside the traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Nothing.
    Fair,
    /// A SYN flood.
    Flood,
}

/// Under a flood, one in so many new connections may fail.
const NEW_FOR_A_FAILED_ONE: u64 = 100;

/// A step in one forwarding mode.
#[derive(Clone, Debug)]
pub struct Row {
    /// The step.
    pub step: &'static str,
    /// What it must not cost.
    pub concerns: Concerns,
    /// `dsr`, `nat`, or the name of what is compared with.
    pub mode: &'static str,
    /// What else was going on.
    pub weather: Weather,
    /// TCP segments that client and backends sent once more.
    pub retransmitted: u64,
    /// How long the step took. Unit: seconds.
    pub acted_s: f64,
    /// When everything had settled. Unit: seconds from the step's beginning.
    pub settled_s: f64,
    /// What it did, by lane.
    pub lanes: BTreeMap<Lane, LaneOutcome>,
}

impl Row {
    /// All lanes together.
    pub fn total(&self) -> LaneOutcome {
        self.lanes
            .values()
            .fold(LaneOutcome::default(), |mut total, lane| {
                total.add(lane);
                total
            })
    }

    /// What it has cost that it must not; empty: nothing.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (lane, outcome) in &self.lanes {
            let place = format!("{} {lane}, {}", self.mode_text(), self.step);
            if outcome.broken > 0 {
                let (broken, how) = (outcome.broken, &outcome.broken_how);
                let examples = &outcome.examples;
                faults.push(format!("{place}: {broken} broken: {how:?}, {examples:?}"));
            }
            faults.extend(
                self.other_fault(outcome)
                    .map(|fault| format!("{place}: {fault}")),
            );
        }
        faults
    }

    /// The mode, and the flood if there was one.
    pub fn mode_text(&self) -> String {
        match self.weather {
            Weather::Fair => self.mode.to_owned(),
            Weather::Flood => format!("{}, flood", self.mode),
        }
    }

    /// Beside broken connections: in fair weather the daemon loses no packet; under a flood new
    /// connections succeed, unless a backend is dead and nobody knows yet.
    fn other_fault(&self, outcome: &LaneOutcome) -> Option<String> {
        let (failed, all) = (outcome.new_failed, outcome.new_ok + outcome.new_failed);
        match (self.weather, self.concerns) {
            (Weather::Fair, Concerns::Daemon) if outcome.lost > 0 => {
                let (lost, sent) = (outcome.lost, outcome.sent);
                Some(format!("{lost} of {sent} datagrams lost"))
            }
            (Weather::Flood, _) if outcome.died_with_backend == 0 => {
                let is_fault = failed * NEW_FOR_A_FAILED_ONE > all;
                let how = &outcome.new_failed_how;
                is_fault.then(|| format!("{failed} of {all} new connections failed: {how:?}"))
            }
            _ => None,
        }
    }
}

impl Serialize for LaneOutcome {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Flat<'a> {
            connections: usize,
            broken: usize,
            died_with_backend: usize,
            broken_how: &'a BTreeMap<String, usize>,
            new_ok: u64,
            new_failed: u64,
            new_failed_how: &'a BTreeMap<&'static str, u64>,
            new_delayed: u64,
            packets_sent: u64,
            packets_lost: u64,
            longest_gap_ms: u128,
        }
        Flat {
            connections: self.connections,
            broken: self.broken,
            died_with_backend: self.died_with_backend,
            broken_how: &self.broken_how,
            new_ok: self.new_ok,
            new_failed: self.new_failed,
            new_failed_how: &self.new_failed_how,
            new_delayed: self.new_delayed,
            packets_sent: self.sent,
            packets_lost: self.lost,
            longest_gap_ms: self.longest_gap.as_millis(),
        }
        .serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disruption::traffic::{Breakage, Broken, Group, Stream};

    /// Ten flows: one of web1 and two of web2 broken; 100 newcomers, two of which failed; a stream of
    /// web2 that lost 4.
    fn counts() -> Counts {
        let broken = |backend| Broken {
            lane: Lane::ALL[0],
            group: Group::Active,
            backend,
            breakage: Breakage::Reset,
            at_ns: 0,
        };
        Counts {
            broken: vec![broken(1), broken(2), broken(2)],
            new_ok: 98,
            new_failed: [("reset", 2)].into(),
            streams: [(
                7,
                Stream {
                    backend: 2,
                    sent: 50,
                    answered: 46,
                },
            )]
            .into(),
            longest_gap: [(1, Duration::from_millis(3)), (2, Duration::from_secs(9))].into(),
            ..Counts::default()
        }
    }

    fn row(concerns: Concerns, weather: Weather, counts: &Counts, dead: &[u8]) -> Row {
        Row {
            step: "something",
            concerns,
            mode: "dsr",
            weather,
            retransmitted: 0,
            acted_s: 0.0,
            settled_s: 0.0,
            lanes: [(Lane::ALL[0], LaneOutcome::new(10, counts, dead))].into(),
        }
    }

    #[test]
    fn what_a_dead_backend_takes_along_is_counted_apart() {
        let outcome = LaneOutcome::new(10, &counts(), &[2]);
        assert_eq!((outcome.broken, outcome.died_with_backend), (1, 2));
        assert_eq!((outcome.sent, outcome.lost), (0, 0));
        assert_eq!(outcome.longest_gap, Duration::from_millis(3));
        let outcome = LaneOutcome::new(10, &counts(), &[]);
        assert_eq!((outcome.broken, outcome.died_with_backend), (3, 0));
        assert_eq!((outcome.sent, outcome.lost), (50, 4));
    }

    #[test]
    fn faults_are_what_the_step_and_the_weather_must_not_cost() {
        let fault_count =
            |concerns, weather, counts: &Counts| row(concerns, weather, counts, &[]).faults().len();
        let (backends, daemon) = (Concerns::Backends, Concerns::Daemon);
        assert_eq!(fault_count(backends, Weather::Fair, &counts()), 1);
        assert_eq!(fault_count(daemon, Weather::Fair, &counts()), 2);
        let unbroken = Counts {
            broken: Vec::new(),
            ..counts()
        };
        assert_eq!(fault_count(backends, Weather::Fair, &unbroken), 0);
        assert_eq!(fault_count(daemon, Weather::Fair, &unbroken), 1);
        assert_eq!(fault_count(daemon, Weather::Flood, &unbroken), 1);
        let one_failed = Counts {
            new_ok: 99,
            new_failed: [("reset", 1)].into(),
            ..unbroken
        };
        assert_eq!(fault_count(daemon, Weather::Flood, &one_failed), 0);
    }
}

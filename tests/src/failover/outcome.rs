//! What repetitions of a phase have cost: pure counting.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use super::event::{FoundBy, Other, Phase, Warning};
use super::ground::Seen;
use super::node::Maker;
use super::pair::Make;
use crate::disruption::lane::Lane;
use crate::disruption::outcome::LaneOutcome;
use crate::topology::NodeId;

/// One repetition of a phase.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// What was seen from outside.
    pub seen: Seen,
    /// What it did to the connections, where they were asked to prove that they live.
    pub lanes: Option<BTreeMap<Lane, LaneOutcome>>,
}

/// All repetitions of a phase.
#[derive(Clone, Debug)]
pub struct Row {
    /// Whose pair.
    pub make: Make,
    /// `dsr` or `nat`.
    pub mode: &'static str,
    /// The interval between two advertisements.
    pub interval: Duration,
    /// The phase.
    pub phase: &'static str,
    /// What may be held against the pair.
    pub promise: Promise,
    /// Whether the pair was told beforehand.
    pub warning: Warning,
    /// Whether the VIPs had to stay where they were.
    pub stays: bool,
    /// What the node had of the VIPs that did not hold them.
    pub other: Other,
    /// The repetitions.
    pub samples: Vec<Sample>,
    /// How connections broke that were found broken after the repetitions of the whole event, of which each
    /// was not followed by a proof. Said with the event's last phase.
    pub broken_unproved: BTreeMap<String, usize>,
}

/// What we have promised of a phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Promise {
    /// That no connection breaks, that it is dark for no longer than it has to be, and that no VIP moves
    /// without a reason: both nodes are ours.
    Everything,
    /// How soon the VIPs are on the node that takes them, which is ours. The other one is a stranger, and breaks what
    /// goes through it.
    Takeover,
    /// How soon the VIPs are off the node that has had them, which is ours; a stranger takes them.
    Release,
    /// Nothing: what happens is the strangers' own affair.
    Nothing,
}

impl Promise {
    /// Of `phase`, in which the VIPs go from one node to another, or stay.
    pub fn of(make: Make, phase: &Phase, from: NodeId, to: NodeId) -> Self {
        let moves = from != to && phase.found_by == FoundBy::Vrrp;
        match (make.is_mixed(), make.maker_of(to)) {
            (true, Maker::Ours) if moves => Self::Takeover,
            (true, Maker::Rival) if moves => Self::Release,
            _ => Self::of_stay(make),
        }
    }

    /// Of a phase in which nobody takes VIPs.
    pub fn of_stay(make: Make) -> Self {
        match make {
            Make::Ours => Self::Everything,
            // Without a word from a peer beside the advertisements, who hears none of them has to take the VIPs.
            Make::Rival | Make::OursRival | Make::RivalOurs => Self::Nothing,
        }
    }
}

/// Of times, the middle one, the one that 99 of 100 do not exceed, and the longest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Spread {
    /// The middle one. Unit: milliseconds.
    pub p50_ms: f64,
    /// What 99 of 100 do not exceed: of fewer than a hundred, the longest. Unit: milliseconds.
    pub p99_ms: f64,
    /// The longest. Unit: milliseconds.
    pub max_ms: f64,
}

impl Spread {
    /// By nearest rank.
    pub fn of(times: impl Iterator<Item = Duration>) -> Self {
        let mut sorted: Vec<Duration> = times.collect();
        sorted.sort_unstable();
        let rank = |percent: usize| {
            let place = (sorted.len() * percent).div_ceil(100).saturating_sub(1);
            sorted
                .get(place)
                .map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        Self {
            p50_ms: rank(50),
            p99_ms: rank(99),
            max_ms: rank(100),
        }
    }
}

/// Of a row, everything that is counted over its repetitions.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Summary {
    /// Repetitions.
    pub repetitions: usize,
    /// How long nobody answered the client.
    pub darkness: Spread,
    /// How long the machine kept the client itself from asking.
    pub stall: Spread,
    /// How long both had the same VIP.
    pub both_active: Spread,
    /// Connections that were asked to prove that they live, over all repetitions.
    pub connections: usize,
    /// Of these, broken ones.
    pub broken: usize,
    /// Connections found broken after repetitions that were followed by no proof.
    pub broken_unproved: usize,
    /// How they broke.
    pub broken_how: BTreeMap<String, usize>,
    /// New connections while it happened.
    pub new: u64,
    /// Of these, failed ones.
    pub new_failed: u64,
    /// Repetitions in which the VIPs moved and had no reason to.
    pub false_failovers: usize,
}

impl Row {
    /// What it has cost.
    pub fn summary(&self) -> Summary {
        let lanes = self
            .samples
            .iter()
            .filter_map(|sample| sample.lanes.as_ref());
        let outcomes: Vec<&LaneOutcome> = lanes.flat_map(BTreeMap::values).collect();
        let mut broken_how = BTreeMap::new();
        for (how, count) in outcomes.iter().flat_map(|outcome| &outcome.broken_how) {
            *broken_how.entry(how.clone()).or_default() += count;
        }
        let seen = || self.samples.iter().map(|sample| sample.seen);
        Summary {
            repetitions: self.samples.len(),
            darkness: Spread::of(seen().map(|seen| seen.darkness.longest)),
            stall: Spread::of(seen().map(|seen| seen.darkness.stall)),
            both_active: Spread::of(seen().map(|seen| seen.both)),
            connections: outcomes.iter().map(|outcome| outcome.connections).sum(),
            broken: outcomes.iter().map(|outcome| outcome.broken).sum(),
            broken_unproved: self.broken_unproved.values().sum(),
            broken_how,
            new: outcomes
                .iter()
                .map(|outcome| outcome.new_ok + outcome.new_failed)
                .sum(),
            new_failed: outcomes.iter().map(|outcome| outcome.new_failed).sum(),
            false_failovers: seen().filter(|seen| self.stays && seen.took[1]).count(),
        }
    }
}

/// How long it may be dark in 99 of 100 cases where the pair was told. Unit: milliseconds.
const ORDERLY_MAX_MS: f64 = 20.0;
/// How long in other cases, in intervals: Active_Down (RFC 9568 section 6.1) is less than four of them.
const DARK_INTERVALS_MAX: f64 = 4.0;
/// What the machine may take besides, where intervals are shorter than [`SHORT_INTERVAL_MS`]. Unit: milliseconds.
const DARK_EXTRA_MS: f64 = 10.0;
const SHORT_INTERVAL_MS: f64 = 100.0;

impl Row {
    /// How long it may be dark in 99 of 100 cases, where we have promised that. Unit: milliseconds.
    fn dark_max_ms(&self) -> Option<f64> {
        let interval_ms = self.interval.as_secs_f64() * 1e3;
        match (self.promise, self.warning) {
            (Promise::Release | Promise::Nothing, _) => None,
            (Promise::Everything, _) if self.stays => Some(ORDERLY_MAX_MS),
            (Promise::Everything, Warning::Given) => Some(ORDERLY_MAX_MS),
            // Who resigns is followed after Skew_Time (RFC 9568 section 6.1), which is less than an interval.
            (Promise::Takeover, Warning::Given) => Some(interval_ms + DARK_EXTRA_MS),
            (_, Warning::None) if interval_ms < SHORT_INTERVAL_MS => {
                Some(DARK_INTERVALS_MAX * interval_ms + DARK_EXTRA_MS)
            }
            (_, Warning::None) => Some(DARK_INTERVALS_MAX * interval_ms),
        }
    }

    /// Whether both may have VIPs for an interval and no longer.
    fn has_one_holder(&self) -> bool {
        match self.promise {
            Promise::Everything => self.other != Other::HasThem,
            // A stranger that is dead leaves them behind.
            Promise::Takeover | Promise::Release => self.other == Other::HasNone,
            Promise::Nothing => false,
        }
    }

    /// What nodes of ours have cost that they must not; empty: nothing.
    pub fn faults(&self) -> Vec<String> {
        let summary = self.summary();
        let interval_ms = self.interval.as_secs_f64() * 1e3;
        let is_ours = self.promise == Promise::Everything;
        let mut faults = Vec::new();
        let broken = summary.broken + summary.broken_unproved;
        if is_ours && broken > 0 {
            let (how, unproved) = (&summary.broken_how, &self.broken_unproved);
            faults.push(format!(
                "{broken} connections broken: {how:?}, {unproved:?}"
            ));
        }
        if is_ours && summary.false_failovers > 0 {
            faults.push(format!("{} false failovers", summary.false_failovers));
        }
        let dark_ms = summary.darkness.p99_ms;
        if let Some(allowed_ms) = self.dark_max_ms().filter(|max_ms| dark_ms > *max_ms) {
            faults.push(format!(
                "dark for {dark_ms:.0} ms, {allowed_ms:.0} are allowed"
            ));
        }
        if self.has_one_holder() && summary.both_active.p99_ms > interval_ms {
            let both_ms = summary.both_active.p99_ms;
            faults.push(format!(
                "both had VIPs for {both_ms:.0} ms, an interval is allowed"
            ));
        }
        let make = self.make.word();
        let place = format!("{make}, {}, {interval_ms} ms, {}", self.mode, self.phase);
        faults
            .iter()
            .map(|fault| format!("{place}: {fault}"))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::darkness::Darkness;
    use crate::failover::event::Event;

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let ms = |times: &[u64]| Spread::of(times.iter().map(|ms| Duration::from_millis(*ms)));
        let spread = ms(&[9, 1, 5, 3]);
        assert_eq!(
            (spread.p50_ms, spread.p99_ms, spread.max_ms),
            (3.0, 9.0, 9.0)
        );
        let many: Vec<u64> = (1..=200).collect();
        let spread = ms(&many);
        assert_eq!(
            (spread.p50_ms, spread.p99_ms, spread.max_ms),
            (100.0, 198.0, 200.0)
        );
        assert_eq!(ms(&[]), Spread::default());
    }

    #[test]
    fn a_vip_on_the_other_node_is_a_false_failover_where_it_had_to_stay() {
        let sample = |took| Sample {
            seen: Seen {
                darkness: Darkness::default(),
                both: Duration::ZERO,
                took,
            },
            lanes: None,
        };
        let mut row = Row {
            make: Make::Ours,
            mode: "dsr",
            interval: Duration::from_secs(1),
            phase: "something",
            promise: Promise::Everything,
            warning: Warning::None,
            stays: true,
            broken_unproved: BTreeMap::new(),
            other: Other::HasNone,
            samples: vec![sample([true, false]), sample([true, true])],
        };
        assert_eq!(row.summary().false_failovers, 1);
        row.stays = false;
        assert_eq!(row.summary().false_failovers, 0);
    }

    #[test]
    fn in_a_mixed_pair_only_what_our_node_does_is_held_against_us() {
        let [lost, back] = Event::PowerLoss.phases() else {
            panic!("two phases");
        };
        let (lb1, lb2) = (NodeId::Lb1, NodeId::Lb2);
        let promises = |make| {
            [
                Promise::of(make, lost, lb1, lb2),
                Promise::of(make, back, lb2, lb1),
                Promise::of(make, back, lb1, lb1),
            ]
        };
        let (takeover, release) = (Promise::Takeover, Promise::Release);
        assert_eq!(promises(Make::Ours), [Promise::Everything; 3]);
        assert_eq!(promises(Make::Rival), [Promise::Nothing; 3]);
        let ours_first = promises(Make::OursRival);
        assert_eq!(ours_first, [release, takeover, Promise::Nothing]);
        let ours_second = promises(Make::RivalOurs);
        assert_eq!(ours_second, [takeover, release, Promise::Nothing]);
    }
}

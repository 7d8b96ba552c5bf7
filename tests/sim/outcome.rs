//! What came of a run.

use std::fmt;

use crate::client::Habit;
use crate::packet::Source;

/// A connection that got a RST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Break {
    pub(crate) at_ms: u64,
    pub(crate) source: Source,
    pub(crate) habit: Habit,
    /// Ids of the backends.
    pub(crate) owner: usize,
    pub(crate) went_to: usize,
    /// The connection was established, and none of those for which nothing is promised
    /// ([`crate::client::Client::is_promised`]).
    pub(crate) was_promised: bool,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_s = self.at_ms as f64 / 1_000.0;
        let what = if self.was_promised {
            "flow"
        } else {
            "handshake"
        };
        write!(
            f,
            "{at_s:>8.1} s  {what} of {:#x}:{} ({:?}) with backend {} went to {}",
            self.source.address, self.source.port, self.habit, self.owner, self.went_to
        )
    }
}

/// What came of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Connections begun, with the first SYN.
    pub(crate) opened_count: u64,
    /// Connections whose backend got a segment of.
    pub(crate) established_count: u64,
    /// Connections given up after all their SYNs.
    pub(crate) unopened_count: u64,
    pub(crate) breaks: Vec<Break>,
    /// Connections that died with their backend.
    pub(crate) died_count: u64,
    /// Packets of clients.
    pub(crate) packet_count: u64,
    /// Packets of attackers.
    pub(crate) attack_count: u64,
    /// Packets to a dead backend.
    pub(crate) to_dead_count: u64,
    /// Packets dropped by a balancer.
    pub(crate) dropped_count: u64,
    /// Rings written, on all nodes.
    pub(crate) write_count: usize,
    /// Contradictions to the invariants; the first few.
    pub(crate) violations: Vec<String>,
}

/// Contradictions that are kept: one is enough, more help to understand.
const VIOLATIONS_MAX: usize = 10;

impl Outcome {
    pub(crate) fn broken_flows(&self) -> usize {
        self.breaks
            .iter()
            .filter(|broken| broken.was_promised)
            .count()
    }

    pub(crate) fn broken_handshakes(&self) -> usize {
        self.breaks.len() - self.broken_flows()
    }

    /// Whether the promise was broken.
    pub(crate) fn has_failed(&self) -> bool {
        self.broken_flows() > 0 || !self.violations.is_empty() || self.dropped_count > 0
    }

    /// What is wrong, in words.
    pub(crate) fn failures(&self) -> Vec<String> {
        let broken = self.breaks.iter().filter(|broken| broken.was_promised);
        let broken = broken.map(Break::to_string);
        let dropped =
            (self.dropped_count > 0).then(|| format!("{} packets dropped", self.dropped_count));
        broken
            .chain(self.violations.iter().cloned())
            .chain(dropped)
            .take(VIOLATIONS_MAX)
            .collect()
    }

    pub(crate) fn violate(&mut self, at_ms: u64, node: usize, texts: Vec<String>) {
        for text in texts {
            if self.violations.len() < VIOLATIONS_MAX {
                let at_s = at_ms as f64 / 1_000.0;
                self.violations
                    .push(format!("{at_s:>8.1} s  node {node}: {text}"));
            }
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.opened_count += other.opened_count;
        self.established_count += other.established_count;
        self.unopened_count += other.unopened_count;
        self.breaks.extend(other.breaks.iter().cloned());
        self.died_count += other.died_count;
        self.packet_count += other.packet_count;
        self.attack_count += other.attack_count;
        self.to_dead_count += other.to_dead_count;
        self.dropped_count += other.dropped_count;
        self.write_count += other.write_count;
        self.violations.extend(other.violations.iter().cloned());
    }
}

//! The rules, each of which can be switched off here to show the hole that it closes. Production code
//! knows nothing of this: what is switched off is what its surroundings do.

use std::collections::BTreeSet;
use std::fmt;

/// A rule of the transitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// Slots are armed for 1.5 s before a planned change.
    Prepare,
    /// A slot that moves again keeps its previous.
    KeepPrevious,
    /// What is down keeps its flows.
    DownIsNotRemoved,
    /// SYNs take the place of half-open flows only.
    Admission,
    /// A half-open flow's segments are known by their sequence number.
    SequenceCheck,
    /// The flow that a SYN displaced gets its place back.
    Displaced,
    /// SYNs are recorded where slots are in transition.
    Recording,
    /// Flows that are not on record are learned.
    Learning,
    /// A moving slot waits an idle time-out before it becomes quiet.
    SettleLate,
    /// What could not be recorded delays settling.
    Suppressed,
    /// A quiet slot waits until no exception is left.
    Quiet,
    /// A quiet slot's stale entries are purged.
    Purge,
}

impl Rule {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 12] = [
        Self::Prepare,
        Self::KeepPrevious,
        Self::DownIsNotRemoved,
        Self::Admission,
        Self::SequenceCheck,
        Self::Displaced,
        Self::Recording,
        Self::Learning,
        Self::SettleLate,
        Self::Suppressed,
        Self::Quiet,
        Self::Purge,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Prepare => "prepare phase",
            Self::KeepPrevious => "previous is kept",
            Self::DownIsNotRemoved => "down is not removed",
            Self::Admission => "SYN admission",
            Self::SequenceCheck => "sequence check",
            Self::Displaced => "displaced flows restored",
            Self::Recording => "SYNs recorded",
            Self::Learning => "learning",
            Self::SettleLate => "settling waits",
            Self::Suppressed => "suppressed stamps",
            Self::Quiet => "quiet until no exception",
            Self::Purge => "purge",
        };
        f.write_str(text)
    }
}

/// The rules in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    off: BTreeSet<Rule>,
}

impl Rules {
    pub(crate) fn without(rule: Rule) -> Self {
        Self {
            off: BTreeSet::from([rule]),
        }
    }

    pub(crate) fn has(&self, rule: Rule) -> bool {
        !self.off.contains(&rule)
    }
}

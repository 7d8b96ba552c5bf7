//! A scenario for each rule in which its hole opens when it is switched off.

use crate::history::{Changes, Load};
use crate::outcome::Outcome;
use crate::plan::Plan;
use crate::rules::{Rule, Rules};
use crate::runner;

/// What breaks without a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victims {
    /// Established connections.
    Flows,
    /// Handshakes under way.
    Handshakes,
}

impl Victims {
    pub(crate) fn count(self, outcome: &Outcome) -> usize {
        match self {
            Self::Flows => outcome.broken_flows(),
            Self::Handshakes => outcome.broken_handshakes(),
        }
    }
}

/// A rule's scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proof {
    pub(crate) rule: Rule,
    pub(crate) changes: Changes,
    pub(crate) load: Load,
    pub(crate) victims: Victims,
    /// Histories that it takes.
    pub(crate) seed_count: u64,
}

const fn proof(rule: Rule, changes: Changes, load: Load, victims: Victims) -> Proof {
    Proof {
        rule,
        changes,
        load,
        victims,
        seed_count: 16,
    }
}

/// One for each rule.
pub(crate) const PROOFS: [Proof; 12] = [
    Proof {
        // Few handshakes last longer than a moment.
        seed_count: 150,
        ..proof(
            Rule::Prepare,
            Changes::Flap,
            Load::BadNetwork,
            Victims::Handshakes,
        )
    },
    proof(Rule::KeepPrevious, Changes::Mix, Load::Calm, Victims::Flows),
    proof(
        Rule::DownIsNotRemoved,
        Changes::FalseDeath,
        Load::Calm,
        Victims::Flows,
    ),
    proof(
        Rule::Admission,
        Changes::DrainMost,
        Load::SynFlood,
        Victims::Flows,
    ),
    proof(
        Rule::SequenceCheck,
        Changes::Mix,
        Load::SpoofedClients,
        Victims::Flows,
    ),
    proof(
        Rule::Displaced,
        Changes::Drain,
        Load::SpoofedClients,
        Victims::Flows,
    ),
    proof(
        Rule::Recording,
        Changes::Drain,
        Load::Calm,
        Victims::Handshakes,
    ),
    proof(
        Rule::Learning,
        Changes::Drain,
        Load::SlowFlows,
        Victims::Flows,
    ),
    proof(Rule::SettleLate, Changes::Drain, Load::Calm, Victims::Flows),
    proof(
        Rule::Suppressed,
        Changes::Drain,
        Load::TwoPackets,
        Victims::Flows,
    ),
    proof(Rule::Quiet, Changes::Drain, Load::Calm, Victims::Flows),
    proof(Rule::Purge, Changes::Mix, Load::PortReuse, Victims::Flows),
];

/// What came of a scenario: all outcomes added up.
pub(crate) fn run(proof: &Proof, rules: &Rules) -> Outcome {
    let mut total = Outcome::default();
    runner::run_all(
        0..proof.seed_count,
        |seed| Plan::of(seed, proof.changes, proof.load),
        |plan| runner::run(plan, rules),
        |_, outcome| total.add(&outcome),
    );
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_closes_a_hole_that_opens_without_it() {
        for proof in &PROOFS {
            let rule = proof.rule;
            let without = run(proof, &Rules::without(rule));
            let with = run(proof, &Rules::default());
            let (open, closed) = (proof.victims.count(&without), proof.victims.count(&with));
            assert_eq!(with.broken_flows(), 0, "with {rule}: {:#?}", with.breaks);
            assert!(
                open > 10 * closed + 5,
                "{rule}: {open} broken without it, {closed} with it"
            );
        }
    }

    #[test]
    fn no_rule_is_without_a_proof() {
        for rule in Rule::ALL {
            assert!(PROOFS.iter().any(|proof| proof.rule == rule), "{rule}");
        }
    }
}

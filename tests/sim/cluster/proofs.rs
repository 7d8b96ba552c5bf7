//! A scenario for each rule in which its hole opens when it is switched off.

use super::outcome::Outcome;
use super::plan::{Faults, Plan, Surroundings, Way};
use super::rules::{Rule, Rules};
use crate::history::Changes;
use crate::runner;

/// What goes wrong without a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Victims {
    /// Established connections break, those of the unsynced window included.
    Flows,
    /// Established connections break whose record the node that they came to was believed to have.
    Synced,
    /// New connections are sent to backends that are dead.
    Dead,
    /// The nodes do not agree in the end.
    Agreement,
}

impl Victims {
    pub(crate) fn count(self, outcome: &Outcome) -> usize {
        match self {
            Self::Flows => outcome.broken.len() + outcome.unsynced_count,
            Self::Synced => outcome.broken.len(),
            Self::Dead => outcome.syn_to_dead_count as usize,
            Self::Agreement => outcome.violations.len(),
        }
    }
}

/// A rule's scenario.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Proof {
    pub(crate) rule: Rule,
    pub(crate) changes: Changes,
    pub(crate) faults: Faults,
    pub(crate) way: Way,
    pub(crate) surroundings: Surroundings,
    pub(crate) victims: Victims,
}

const fn proof(rule: Rule, changes: Changes, faults: Faults, way: Way) -> Proof {
    Proof {
        rule,
        changes,
        faults,
        way,
        surroundings: Surroundings::USUAL,
        victims: Victims::Flows,
    }
}

/// Scenarios, each of a rule whose need a few histories show.
pub(crate) const PROOFS: [Proof; 12] = [
    Proof {
        victims: Victims::Agreement,
        ..proof(Rule::OneOwner, Changes::Mix, Faults::SyncCut, Way::Vip)
    },
    Proof {
        victims: Victims::Synced,
        surroundings: slow_followers(4_000, 100),
        ..proof(
            Rule::Acknowledgements,
            Changes::Drain,
            Faults::Nothing,
            Way::Ecmp,
        )
    },
    Proof {
        victims: Victims::Synced,
        surroundings: MANY_CLIENTS_AND_SLOW_FOLLOWERS,
        ..proof(
            Rule::ArmedFirst,
            Changes::FalseDeath,
            Faults::Nothing,
            Way::Ecmp,
        )
    },
    Proof {
        victims: Victims::Dead,
        surroundings: slow_followers(8_000, 0),
        ..proof(Rule::Bound, Changes::Death, Faults::Nothing, Way::Vip)
    },
    Proof {
        victims: Victims::Synced,
        surroundings: MANY_CLIENTS_AND_SLOW_FOLLOWERS,
        ..proof(Rule::Landing, Changes::Drain, Faults::Nothing, Way::Ecmp)
    },
    Proof {
        victims: Victims::Synced,
        surroundings: FULL_TABLE,
        ..proof(Rule::Hearsay, Changes::Drain, Faults::Nothing, Way::Ecmp)
    },
    proof(
        Rule::Replication,
        Changes::Drain,
        Faults::HandOver,
        Way::Vip,
    ),
    Proof {
        victims: Victims::Synced,
        ..proof(
            Rule::Retransmission,
            Changes::Drain,
            Faults::SyncLoss,
            Way::Vip,
        )
    },
    Proof {
        surroundings: Surroundings {
            client_count: 200,
            set_count: 256,
            ..slow_streams(1_000)
        },
        ..proof(Rule::Consult, Changes::Nothing, Faults::Chase, Way::Vip)
    },
    proof(Rule::Cut, Changes::Mix, Faults::SyncCut, Way::Ecmp),
    Proof {
        victims: Victims::Synced,
        ..proof(Rule::Standing, Changes::Nothing, Faults::Discord, Way::Vip)
    },
    Proof {
        surroundings: slow_streams(1_000),
        ..proof(Rule::Barrier, Changes::Drain, Faults::PowerLoss, Way::Vip)
    },
];

/// The rule that has no scenario: every flow is told to all nodes, what one has no room for keeps its slots from
/// settling, and records are kept longer than any node may be late. So no history was found in which one node's table
/// has nothing of a slot and another one's has; the rule stays, as those others may err.
pub(crate) const UNPROVED: [Rule; 1] = [Rule::ClearEverywhere];

/// Tables that have too little room.
const FULL_TABLE: Surroundings = Surroundings {
    set_count: 4,
    ..Surroundings::USUAL
};

/// As [`slow_followers`]; a death's move may wait for them. More clients, since it takes one that begins and goes on
/// within a moment.
const MANY_CLIENTS_AND_SLOW_FOLLOWERS: Surroundings = Surroundings {
    client_count: 200,
    set_count: 256,
    urgent_wait_ms: 3_000,
    ..slow_followers(2_000, 500)
};

/// What is said about rings takes so long; flows do not. Unit: milliseconds.
const fn slow_streams(stream_ms: u64) -> Surroundings {
    Surroundings {
        stream_ms,
        ..Surroundings::USUAL
    }
}

/// All but the first node are slow to put a ring in force; a router spreads flows anew all the time.
const fn slow_followers(write_ms: u64, respread_ms: u64) -> Surroundings {
    Surroundings {
        write_ms: (write_ms / 2, write_ms),
        respread_ms,
        ..Surroundings::USUAL
    }
}

/// What came of a scenario: all outcomes added up.
pub(crate) fn run(proof: &Proof, rules: &Rules, seed_count: u64) -> Outcome {
    let mut total = Outcome::default();
    runner::run_all(
        0..seed_count,
        |seed| {
            Plan::of(seed, proof.changes, proof.faults)
                .by(proof.way)
                .amid(proof.surroundings)
        },
        |plan| super::run(plan, rules),
        |_, outcome| total.add(&outcome),
    );
    total
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_rule_of_several_nodes_is_without_a_proof() {
        for rule in Rule::ALL {
            let has_proof = PROOFS.iter().any(|proof| proof.rule == rule);
            assert!(has_proof != UNPROVED.contains(&rule), "{rule}");
        }
    }

    #[test]
    fn rules_of_several_nodes_close_holes_that_open_without_them() {
        for proof in &PROOFS {
            let rule = proof.rule;
            let without = run(proof, &Rules::without(rule), 16);
            let with = run(proof, &Rules::default(), 16);
            assert!(with.broken.is_empty(), "with {rule}: {with:#?}");
            // Slots do not settle while flows find no room.
            let is_calm = !with.has_failed() || proof.surroundings == FULL_TABLE;
            assert!(is_calm, "with {rule}: {with:#?}");
            let (open, closed) = (proof.victims.count(&without), proof.victims.count(&with));
            // Until a death is found out, SYNs go to the dead by any rule.
            let least = match proof.victims {
                Victims::Dead => 2,
                _ => 5,
            };
            assert!(
                open > least * closed,
                "{rule}: {open} wrong without it, {closed} with it"
            );
        }
    }
}

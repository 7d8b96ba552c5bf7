//! What is run, and what is said about it.

use std::collections::BTreeMap;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::Result;

use crate::compare::{self, SCENARIOS};
use crate::history::{Changes, Load};
use crate::outcome::Outcome;
use crate::plan::{Case, Plan};
use crate::proofs::{self, PROOFS, Victims};
use crate::rules::Rules;
use crate::shrink::shrink;
use crate::{regressions, runner};

/// Failing histories that are shrunk and shown.
const SHOWN_MAX: usize = 3;
/// Seeds for each line of the comparison.
const COMPARISON_SEEDS: u64 = 4;

/// The seed's plan, or one of the kind that is asked for.
pub(crate) fn plan_of(
    seed: u64,
    changes: Option<Changes>,
    load: Option<Load>,
    clients: Option<usize>,
) -> Plan {
    let own = Plan::small(seed);
    let mut plan = Plan::of(
        seed,
        changes.unwrap_or(own.changes),
        load.unwrap_or(own.load),
    );
    if let Some(client_count) = clients {
        plan.scale_to(client_count);
    }
    plan
}

/// Runs one plan and shows its history and what came of it.
pub(crate) fn one(plan: &Plan, follow: Option<usize>) -> ExitCode {
    for event in &plan.events {
        println!("{event}");
    }
    let start = Instant::now();
    let outcome = runner::run_following(plan, &Rules::default(), follow);
    for line in outcome.breaks.iter().take(20) {
        println!("{line}");
    }
    for line in &outcome.violations {
        println!("{line}");
    }
    summarize(1, &outcome, start);
    exit_code(&outcome)
}

/// Runs the histories of `seeds`; shrinks what fails.
pub(crate) fn histories(seeds: Range<u64>) -> ExitCode {
    let start = Instant::now();
    let count = seeds.end - seeds.start;
    let run = Histories::run(seeds);
    for case in run.failed.iter().take(SHOWN_MAX) {
        show_failure(case);
    }
    if run.failed.len() > SHOWN_MAX {
        println!("and {} more", run.failed.len() - SHOWN_MAX);
    }
    summarize(count, &run.total, start);
    for (load, share) in &run.handshakes {
        if share.broken_count > 0 {
            println!(
                "  of {} handshakes under {load:?}: {}",
                share.opened_count, share.broken_count
            );
        }
    }
    if run.excess_handshakes().is_empty() {
        exit_code(&run.total)
    } else {
        println!(
            "more handshakes broken than may: {:?}",
            run.excess_handshakes()
        );
        ExitCode::FAILURE
    }
}

/// What came of many histories.
#[derive(Debug, Default)]
pub(crate) struct Histories {
    pub(crate) total: Outcome,
    pub(crate) failed: Vec<Case>,
    pub(crate) handshakes: BTreeMap<Load, Handshakes>,
}

/// Handshakes begun, and those of them that broke.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Handshakes {
    pub(crate) opened_count: u64,
    pub(crate) broken_count: u64,
}

impl Histories {
    /// Runs the histories of `seeds`.
    pub(crate) fn run(seeds: Range<u64>) -> Self {
        let mut histories = Self::default();
        runner::run_all(
            seeds,
            Plan::small,
            |plan| runner::run(plan, &Rules::default()),
            |plan, outcome| histories.take(&plan, &outcome),
        );
        histories
    }

    /// The loads under which more handshakes broke than may.
    pub(crate) fn excess_handshakes(&self) -> Vec<Load> {
        let handshakes = self.handshakes.iter();
        handshakes
            .filter(|(load, handshakes)| {
                let per_million = load.broken_handshakes_per_million_max();
                handshakes.broken_count > handshakes.opened_count * per_million / 1_000_000
            })
            .map(|(load, _)| *load)
            .collect()
    }

    fn take(&mut self, plan: &Plan, outcome: &Outcome) {
        if outcome.has_failed() {
            self.failed.push(Case::of(plan));
        }
        let handshakes = self.handshakes.entry(plan.load).or_default();
        handshakes.opened_count += outcome.opened_count;
        handshakes.broken_count += outcome.broken_handshakes() as u64;
        self.total.add(outcome);
    }
}

fn show_failure(case: &Case) {
    let rules = Rules::default();
    let small = shrink(case.clone(), |case| {
        runner::run(&case.plan(), &rules).has_failed()
    });
    let plan = small.plan();
    println!("FAILED: {small}");
    for event in &plan.events {
        println!("  {event}");
    }
    for line in runner::run(&plan, &rules).failures() {
        println!("  {line}");
    }
}

/// Every rule switched off once.
pub(crate) fn rules() {
    println!("\n| rule | under | broken without it | with it |\n|---|---|---:|---:|");
    for proof in &PROOFS {
        let without = proofs::run(proof, &Rules::without(proof.rule));
        let with = proofs::run(proof, &Rules::default());
        let what = match proof.victims {
            Victims::Flows => "flows",
            Victims::Handshakes => "handshakes",
        };
        println!(
            "| {} | {:?}, {:?} | {} {what} | {} |",
            proof.rule,
            proof.changes,
            proof.load,
            proof.victims.count(&without),
            proof.victims.count(&with)
        );
    }
}

/// The comparison with the classical design.
pub(crate) fn comparison() {
    println!("\n{}", compare::HEAD);
    for scenario in &SCENARIOS {
        println!("{}", scenario.run(COMPARISON_SEEDS));
    }
    println!();
}

/// Histories that failed once.
pub(crate) fn regressions() -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    let cases = regressions::cases()?;
    for case in &cases {
        if runner::run(&case.plan(), &Rules::default()).has_failed() {
            println!("FAILED AGAIN: {case}");
            code = ExitCode::FAILURE;
        }
    }
    println!("{} histories that failed once", cases.len());
    Ok(code)
}

fn summarize(count: u64, total: &Outcome, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{count} histories in {seconds:.1} s: {} connections established, {} packets, {} of attackers, \
         {} rings written",
        total.established_count, total.packet_count, total.attack_count, total.write_count
    );
    println!(
        "broken: {} flows, {} handshakes; {} connections died with their backend; {} invariants \
         violated",
        total.broken_flows(),
        total.broken_handshakes(),
        total.died_count,
        total.violations.len()
    );
}

fn exit_code(outcome: &Outcome) -> ExitCode {
    if outcome.has_failed() {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn thousands_of_histories_break_no_connection() {
        let (start, count) = (Instant::now(), 2_000);
        let run = Histories::run(0..count);
        // Not through the test harness, which would keep it to itself.
        let _ = writeln!(
            std::io::stderr(),
            "{count} histories in {:.0} s, {} connections: {} broken",
            start.elapsed().as_secs_f64(),
            run.total.established_count,
            run.total.broken_flows()
        );
        assert!(run.failed.is_empty(), "failed: {:#?}", run.failed);
        assert_eq!(run.excess_handshakes(), [], "{:#?}", run.handshakes);
    }

    #[test]
    fn a_plan_always_runs_the_same_way() {
        let plan = Plan::small(3);
        let run = || runner::run(&plan, &Rules::default());
        assert_eq!(run(), run());
    }
}

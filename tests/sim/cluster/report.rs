//! What is run, and what is said about it.

use std::ops::Range;
use std::process::ExitCode;
use std::time::Instant;

use super::outcome::Outcome;
use super::plan::{Faults, Plan};
use super::proofs::{self, PROOFS, UNPROVED, Victims};
use super::rules::Rules;
use crate::history::Changes;
use crate::runner;

/// Failing histories that are shown.
const SHOWN_MAX: usize = 5;

/// Runs one plan and shows its history and what came of it.
pub(crate) fn one(
    seed: u64,
    changes: Option<Changes>,
    faults: Option<Faults>,
    follow: Option<usize>,
) -> ExitCode {
    let own = Plan::small(seed);
    let plan = Plan::of(
        seed,
        changes.unwrap_or(own.changes),
        faults.unwrap_or(own.faults),
    )
    .under(own.attack);
    println!(
        "{} nodes, {:?}, {:?}, {:?}, attack {:?}, interval {} cs, patience {} s, idle time-out {} s",
        plan.node_count,
        plan.way,
        plan.changes,
        plan.faults,
        plan.attack,
        plan.interval_cs,
        plan.patience_ms / 1_000,
        plan.idle_timeout_s
    );
    for event in &plan.events {
        println!("{event}");
    }
    let start = Instant::now();
    let outcome = super::run_following(&plan, &Rules::default(), follow);
    show(&outcome);
    summarize(1, &outcome, start);
    exit_code(&outcome)
}

/// Runs the histories of `seeds`.
pub(crate) fn histories(seeds: Range<u64>) -> ExitCode {
    let start = Instant::now();
    let count = seeds.end - seeds.start;
    let (total, failed) = run(seeds);
    for (seed, outcome) in failed.iter().take(SHOWN_MAX) {
        println!("FAILED: --nodes --seed {seed}");
        show(outcome);
    }
    if failed.len() > SHOWN_MAX {
        let seeds: Vec<String> = failed.iter().map(|(seed, _)| seed.to_string()).collect();
        println!("{} failed: {}", failed.len(), seeds.join(" "));
    }
    summarize(count, &total, start);
    exit_code(&total)
}

/// Every rule switched off once.
pub(crate) fn rules(seed_count: u64) {
    println!("\n| rule | under | wrong without it | with it |\n|---|---|---:|---:|");
    for proof in &PROOFS {
        let without = proofs::run(proof, &Rules::without(proof.rule), seed_count);
        let with = proofs::run(proof, &Rules::default(), seed_count);
        let what = match proof.victims {
            Victims::Flows | Victims::Synced => "flows",
            Victims::Dead => "SYNs to dead backends",
            Victims::Agreement => "disagreements",
        };
        println!(
            "| {} | {:?}, {:?}, {:?} | {} {what} | {} |",
            proof.rule,
            proof.changes,
            proof.faults,
            proof.way,
            proof.victims.count(&without),
            proof.victims.count(&with)
        );
    }
    for rule in UNPROVED {
        println!("| {rule} | no scenario was found | | |");
    }
}

fn run(seeds: Range<u64>) -> (Outcome, Vec<(u64, Outcome)>) {
    let mut total = Outcome::default();
    let mut failed = Vec::new();
    runner::run_all(
        seeds,
        Plan::small,
        |plan| super::run(plan, &Rules::default()),
        |plan, outcome| {
            total.add(&outcome);
            if outcome.has_failed() {
                failed.push((plan.seed, outcome));
            }
        },
    );
    failed.sort_by_key(|(seed, _)| *seed);
    (total, failed)
}

fn show(outcome: &Outcome) {
    for line in outcome.broken.iter().take(8).chain(&outcome.violations) {
        println!("  {line}");
    }
    if outcome.dropped_count > 0 {
        println!("  {} packets dropped", outcome.dropped_count);
    }
}

fn summarize(count: u64, total: &Outcome, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{count} histories of several nodes in {seconds:.1} s: {} connections established, {} packets, {} failovers, \
         {} rings written",
        total.established_count, total.packet_count, total.failover_count, total.write_count
    );
    println!(
        "broken: {} flows, {} within the unsynced window, {} handshakes; {} connections died with their backend; {} \
         invariants violated; {} ms with several Active; in {} times of calm, one Active in each group and part of the \
         network; {} looks at whether another node would keep a connection, {} of them while a move away from \
         the dead was on its way to it",
        total.broken.len(),
        total.unsynced_count,
        total.handshake_count,
        total.died_count,
        total.violations.len(),
        total.dual_active_ms,
        total.calm_count,
        total.flow_look_count,
        total.ahead_count
    );
    println!(
        "{} recordings and altered copies sent by attackers",
        total.attack_count
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

    use super::super::plan::Attack;
    use super::*;

    #[test]
    fn who_records_and_alters_what_is_on_the_sync_link_changes_nothing_at_all() {
        for seed in 0..12 {
            let plan = Plan::small(seed).under(Attack::None);
            let calm = super::super::run(&plan, &Rules::default());
            let attacked = super::super::run(&plan.under(Attack::Sync), &Rules::default());
            assert!(attacked.attack_count > 100, "{}", attacked.attack_count);
            let attack_count = attacked.attack_count;
            let calm = Outcome {
                attack_count,
                ..calm
            };
            assert_eq!(attacked, calm, "seed {seed}");
        }
    }

    #[test]
    fn thousands_of_histories_of_several_nodes_break_no_connection() {
        let (start, count) = (Instant::now(), 2_000);
        let (total, failed) = run(0..count);
        // Not through the test harness, which would keep it to itself.
        let _ = writeln!(
            std::io::stderr(),
            "{count} histories of several nodes in {:.0} s, {} connections, {} failovers: {} broken, {} within the \
             unsynced window",
            start.elapsed().as_secs_f64(),
            total.established_count,
            total.failover_count,
            total.broken.len(),
            total.unsynced_count
        );
        let failed: Vec<_> = failed
            .iter()
            .map(|(seed, outcome)| (seed, &outcome.broken, &outcome.violations))
            .collect();
        assert!(failed.is_empty(), "failed: {failed:#?}");
        // What is not looked at can't fail.
        for (what, looks) in [
            ("connections", total.established_count),
            ("failovers", total.failover_count),
            ("looks at other nodes", total.flow_look_count),
            ("times of calm", total.calm_count),
            ("attacks", total.attack_count),
        ] {
            assert!(looks > count, "{looks} {what} in {count} histories");
        }
    }

    #[test]
    fn a_plan_of_several_nodes_always_runs_the_same_way() {
        let plan = Plan::small(3);
        let run = || super::super::run(&plan, &Rules::default());
        assert_eq!(run(), run());
    }
}

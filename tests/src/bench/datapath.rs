//! `lb-bench datapath`: nanoseconds of CPU time for each packet.
//!
//! A wrapper program writes a fresh frame of a random flow and tail-calls the datapath; the same
//! wrapper around `return XDP_TX` is the baseline, measured in the same round with the same
//! frames. Rounds interleave all scenarios of one flow count, so that a noisy moment hits all.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use lb_common::limits::FLOWS_DEFAULT;
use serde::Serialize;

use crate::generator::{Generator, Order, Traffic};
use crate::report::{
    Figure, ProgramFacts, flow_label, kernel_release, print_facts, print_figures, write_json,
};
use crate::scenario::{FLOW_COUNTS, Family, MODES, Scenario};
use crate::{cpu, default_json, facts};

/// What the datapath returns for every packet here, and the baseline too.
const XDP_TX: u32 = 3;

/// Options of `lb-bench datapath`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds; the median of them is reported
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=999))]
    rounds: u32,
    /// Packets in each run of a round
    #[arg(long, default_value_t = 400_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    packets: u32,
    /// CPU to run on
    #[arg(long, default_value_t = 1)]
    cpu: usize,
    /// Only scenarios whose name contains this ("maglev, dsr, IPv4")
    #[arg(long, default_value = "")]
    only: String,
    /// Where the figures are written as JSON [default: target/bench/datapath.json]
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    kernel: String,
    rounds: u32,
    packets: u32,
    figures: Vec<Figure>,
    program: ProgramFacts,
}

/// Measures, prints, writes.
pub(crate) fn run(args: &Args) -> Result<()> {
    cpu::pin(args.cpu)?;
    let mut generator = Generator::load()?;
    let mut figures = Vec::new();
    for flow_count in FLOW_COUNTS {
        eprintln!(
            "measuring {}, {} rounds",
            flow_label(flow_count),
            args.rounds
        );
        figures.extend(measure(&mut generator, args, flow_count)?);
    }
    figures.sort_by_key(|figure| position(&figure.scenario));
    let report = Report {
        kernel: kernel_release()?,
        rounds: args.rounds,
        packets: args.packets,
        figures,
        program: facts()?,
    };
    println!(
        "ns of CPU time for each packet, net of `return XDP_TX`: median (min–max) of {} rounds",
        args.rounds
    );
    print_figures(&report.figures, &FLOW_COUNTS);
    println!();
    print_facts(&report.program);
    write_json(
        &args
            .json
            .clone()
            .unwrap_or_else(|| default_json("datapath.json")),
        &report,
    )
}

/// The order of rows: as in `MODES`, IPv4 before IPv6.
fn position(scenario: &str) -> (Option<usize>, bool) {
    let row = MODES
        .iter()
        .position(|mode| scenario.starts_with(mode.label));
    (row, scenario.ends_with(Family::V6.label()))
}

/// All scenarios of one flow count, round by round.
fn measure(generator: &mut Generator, args: &Args, flow_count: u32) -> Result<Vec<Figure>> {
    let mut scenarios = Vec::new();
    for family in Family::ALL {
        for mode in MODES {
            let name = format!("{}, {}", mode.label, family.label());
            if name.contains(&args.only) {
                scenarios.push(Scenario::load(mode, family, flow_count)?);
            }
        }
    }
    ensure!(
        !scenarios.is_empty(),
        "no scenario is named like \"{}\"",
        args.only
    );
    let baseline = generator.handle("transmit")?;
    for scenario in &mut scenarios {
        scenario.warm_up(generator)?;
    }
    let mut rounds: BTreeMap<usize, Vec<f64>> = BTreeMap::new();
    for _ in 0..args.rounds {
        for (number, scenario) in scenarios.iter().enumerate() {
            let gross = packet_ns(
                generator,
                &scenario.program,
                &scenario.traffic,
                args.packets,
            )?;
            let base = packet_ns(generator, &baseline, &scenario.traffic, args.packets)?;
            rounds.entry(number).or_default().push(gross - base);
        }
    }
    for scenario in &mut scenarios {
        check_traces(scenario, args)?;
    }
    let figures = rounds
        .into_iter()
        .map(|(number, rounds_ns)| Figure::new(scenarios[number].label(), flow_count, rounds_ns));
    Ok(figures.collect())
}

/// CPU time of one packet.
fn packet_ns(
    generator: &mut Generator,
    program: &ProgramFd,
    traffic: &Traffic,
    packets: u32,
) -> Result<f64> {
    let before = cpu::thread_time()?;
    let action = generator.run(program, traffic, Order::Random, packets)?;
    let used = cpu::thread_time()? - before;
    ensure!(
        action == XDP_TX,
        "the program under test returned {action}, not XDP_TX"
    );
    Ok(used.as_nanos() as f64 / f64::from(packets))
}

/// A figure counts only if every packet was forwarded, and no flow was new after the warm-up (of
/// maglev TCP, which has no flows, every packet here is within a connection).
fn check_traces(scenario: &mut Scenario, args: &Args) -> Result<()> {
    let traces = scenario.datapath.counters()?;
    let forwarded: u64 = traces.backends.values().map(|stats| stats.packets).sum();
    let flow_count = u64::from(scenario.traffic.flow_count);
    let expected = u64::from(args.packets) * u64::from(args.rounds) + flow_count;
    ensure!(
        traces.drops.is_empty() && traces.passed == 0 && forwarded == expected,
        "{}: {forwarded} of {expected} packets were forwarded, {:?} dropped, {} passed",
        scenario.label(),
        traces.drops,
        traces.passed
    );
    Ok(())
}

/// Of the program with its default capacities.
fn facts() -> Result<ProgramFacts> {
    let mut scenario = Scenario::load(MODES[0], Family::V4, FLOWS_DEFAULT / 2)?;
    facts::read(&mut scenario.datapath)
}

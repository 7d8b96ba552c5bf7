//! `lb-bench datapath`: nanoseconds of CPU time for each packet.
//!
//! A wrapper program writes a fresh frame of a random flow and tail-calls the datapath; the same
//! wrapper around `return XDP_TX` is the baseline, measured in the same round with the same
//! frames. Rounds interleave all scenarios of one flow count and family, so that a noisy moment hits all.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use aya::programs::ProgramFd;
use lb_common::limits::FLOWS_DEFAULT;
use serde::Serialize;

use crate::generator::{Generator, Order, Traffic};
use crate::memory::FlowTableMemory;
use crate::report::{
    Figure, ProgramFacts, flow_label, kernel_release, print_facts, print_figures, write_json,
};
use crate::scenario::{FLOW_COUNTS, Family, MODES, Mode, Plan, Scenario};
use crate::situation::{BACKEND_COUNT, Situation};
use crate::{cpu, default_json, facts, memory};

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
    flow_tables: Vec<FlowTableMemory>,
}

/// Measures, prints, writes.
pub(crate) fn run(args: &Args) -> Result<()> {
    cpu::pin(args.cpu)?;
    let mut generator = Generator::load()?;
    let rows = rows(&args.only)?;
    let mut figures = Vec::new();
    for flow_count in FLOW_COUNTS {
        for family in Family::ALL {
            eprintln!(
                "measuring {}, {}, {} rounds",
                flow_label(flow_count),
                family.label(),
                args.rounds
            );
            let rows = rows.iter().filter(|row| row.family == family);
            figures.extend(measure(&mut generator, args, rows, flow_count)?);
        }
    }
    let labels: Vec<String> = rows.iter().map(Row::label).collect();
    figures.sort_by_key(|figure| labels.iter().position(|label| *label == figure.scenario));
    let report = Report {
        kernel: kernel_release()?,
        rounds: args.rounds,
        packets: args.packets,
        figures,
        program: facts()?,
        flow_tables: memory::measure(&mut generator)?,
    };
    println!(
        "ns of CPU time for each packet, net of `return XDP_TX`: median (min–max) of {} rounds",
        args.rounds
    );
    print_figures(&report.figures, &FLOW_COUNTS);
    println!();
    print_facts(&report.program);
    memory::print(&report.flow_tables);
    write_json(
        &args
            .json
            .clone()
            .unwrap_or_else(|| default_json("datapath.json")),
        &report,
    )
}

/// A row of the table.
#[derive(Clone, Copy)]
struct Row {
    mode: Mode,
    situation: Situation,
    family: Family,
}

impl Row {
    fn plan(&self, flow_count: u32) -> Plan {
        Plan {
            situation: self.situation,
            ..Plan::new(self.mode, self.family, flow_count)
        }
    }

    fn label(&self) -> String {
        self.plan(1).label()
    }
}

/// The rows whose name contains `only`, in the order of the table.
fn rows(only: &str) -> Result<Vec<Row>> {
    let settled = MODES.iter().map(|mode| (mode, Situation::Settled));
    let in_transition = MODES.iter().flat_map(|mode| {
        let situations = Situation::in_transition(mode).iter();
        situations.map(move |situation| (mode, *situation))
    });
    let rows: Vec<Row> = settled
        .chain(in_transition)
        .flat_map(|(mode, situation)| {
            Family::ALL.map(|family| Row {
                mode: *mode,
                situation,
                family,
            })
        })
        .filter(|row| row.label().contains(only))
        .collect();
    ensure!(!rows.is_empty(), "no scenario is named like \"{only}\"");
    Ok(rows)
}

/// A scenario under measurement.
struct Measured {
    scenario: Scenario,
    rounds_ns: Vec<f64>,
    /// Packets counted before the measurement: all, and those to previous backends.
    counted_before: (u64, u64),
    /// Packets of the measurement.
    sent_count: u64,
}

/// All scenarios of one flow count and family, round by round.
fn measure<'r>(
    generator: &mut Generator,
    args: &Args,
    rows: impl Iterator<Item = &'r Row>,
    flow_count: u32,
) -> Result<Vec<Figure>> {
    let baseline = generator.handle("transmit")?;
    let mut all = Vec::new();
    for row in rows.filter(|row| row.situation.is_possible_with(flow_count)) {
        let mut scenario = Scenario::load(row.plan(flow_count))?;
        scenario.warm_up(generator)?;
        all.push(Measured {
            counted_before: counted(&mut scenario)?,
            scenario,
            rounds_ns: Vec::new(),
            sent_count: 0,
        });
    }
    for _ in 0..args.rounds {
        for measured in &mut all {
            measured.round(generator, &baseline, args.packets)?;
        }
    }
    let figure = |mut measured: Measured| {
        measured.check_traces()?;
        let label = measured.scenario.label();
        Ok(Figure::new(label, flow_count, measured.rounds_ns))
    };
    all.into_iter().map(figure).collect()
}

impl Measured {
    /// The program under test and the baseline by turns, burst by burst.
    fn round(
        &mut self,
        generator: &mut Generator,
        baseline: &ProgramFd,
        packets: u32,
    ) -> Result<()> {
        let bursts = self.scenario.bursts(packets);
        let (mut gross, mut base) = (Duration::ZERO, Duration::ZERO);
        for _ in 0..bursts.count {
            self.scenario.prepare()?;
            let Scenario {
                program, traffic, ..
            } = &self.scenario;
            gross += cpu_time(generator, program, traffic, bursts.order, bursts.len)?;
            base += cpu_time(generator, baseline, traffic, bursts.order, bursts.len)?;
        }
        let packet_count = u64::from(bursts.count) * u64::from(bursts.len);
        let net_ns = gross.as_nanos() as f64 - base.as_nanos() as f64;
        self.rounds_ns.push(net_ns / packet_count as f64);
        self.sent_count += packet_count;
        Ok(())
    }

    /// A figure counts only if every packet was forwarded, and met what its row says: which shows in the
    /// backend that it went to, and, where flows are learned, in the flow table.
    fn check_traces(&mut self) -> Result<()> {
        let label = self.scenario.label();
        let (all, to_previous) = counted(&mut self.scenario)?;
        let (all_before, to_previous_before) = self.counted_before;
        ensure!(
            all - all_before == self.sent_count,
            "{label}: {} of {} packets were forwarded",
            all - all_before,
            self.sent_count
        );
        let situation = self.scenario.plan.situation;
        let share = (to_previous - to_previous_before) as f64 / self.sent_count as f64;
        let (least, most) = situation.previous_share();
        ensure!(
            (least..=most).contains(&share),
            "{label}: {share:.4} of the packets went to previous backends, not {least} to {most}"
        );
        let taken = self.scenario.flows.taken_count();
        match situation {
            Situation::Miss => ensure!(taken == 0, "{label}: {taken} flows are on record"),
            Situation::Learn => {
                let sent = self.scenario.bursts(self.last_packets()).len;
                ensure!(
                    f64::from(taken) >= 0.98 * f64::from(sent),
                    "{label}: {taken} of the last {sent} flows are on record"
                );
            }
            _ => (),
        }
        Ok(())
    }

    /// Packets of one round.
    fn last_packets(&self) -> u32 {
        (self.sent_count / self.rounds_ns.len() as u64) as u32
    }
}

/// Packets forwarded so far: all, and those to previous backends. Any other end of a packet is an error:
/// the figure would be of something else.
fn counted(scenario: &mut Scenario) -> Result<(u64, u64)> {
    let traces = scenario.datapath.counters()?;
    ensure!(
        traces.drops.is_empty() && traces.passed == 0,
        "{}: packets were not forwarded: dropped {:?}, passed to the host {}",
        scenario.label(),
        traces.drops,
        traces.passed
    );
    let packets = |first: u16| {
        traces
            .backends
            .range(first..)
            .map(|(_, stats)| stats.packets)
    };
    Ok((packets(0).sum(), packets(BACKEND_COUNT + 1).sum()))
}

/// CPU time of `packets` packets.
fn cpu_time(
    generator: &mut Generator,
    program: &ProgramFd,
    traffic: &Traffic,
    order: Order,
    packets: u32,
) -> Result<Duration> {
    let before = cpu::thread_time()?;
    let action = generator.run(program, traffic, order, packets)?;
    let used = cpu::thread_time()? - before;
    ensure!(
        action == XDP_TX,
        "the program under test returned {action}, not XDP_TX"
    );
    Ok(used)
}

/// Of the program with its default capacities.
fn facts() -> Result<ProgramFacts> {
    let mut scenario = Scenario::load(Plan {
        entry_count: FLOWS_DEFAULT,
        ..Plan::new(MODES[0], Family::V4, 1)
    })?;
    facts::read(&mut scenario.datapath)
}

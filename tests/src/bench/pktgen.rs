//! `lb-bench pktgen`: packets per second through the attached datapath.
//!
//! A generator sends frames of random flows over a veth pair between two namespaces. On the far end
//! stands, one after the other, `return XDP_DROP`, `return XDP_TX` and the datapath with several
//! services; what it answers is counted on the near end. Rounds interleave them all. A run counts
//! only if each of its frames is accounted for ([`ledger`]), and if the datapath's own counters
//! agree.

mod figures;
mod kernel_pktgen;
mod ledger;
mod source;
mod subject;
mod wire;
mod xdp_link;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lb_common::bench::{FRAME_WORDS, SEND_STAMP_INTERVAL};
use lb_lab::netns;
use lb_lab::signals::on_end_signal;
use lb_lab::wait::wait_until;
use serde::Serialize;

use self::figures::{Figure, Run};
use self::ledger::Ledger;
use self::source::{Source, Wish};
use self::subject::Subject;
use self::wire::{Wire, WireCounters};
use self::xdp_link::XdpLink;
use crate::generator::Generator;
use crate::report::{kernel_release, write_json};
use crate::{cpu, default_json};

/// Frames of the run before the first round, by which a program's rate is known roughly.
const FIRST_RUN_FRAMES: u32 = 64 * SEND_STAMP_INTERVAL as u32;
/// What all runs together may take. Unit: seconds.
const RUNS_MAX_S: f64 = 50.0;
/// How long the last frames may be under way.
const SETTLE_TIMEOUT: Duration = Duration::from_secs(5);
/// The row that the others are compared with.
const TRANSMIT_ROW: usize = 1;

/// Options of `lb-bench pktgen`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Rounds; the median of them is reported
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u32).range(5..=99))]
    rounds: u32,
    /// Length of each run, in seconds; a round has one run for each program
    #[arg(long, default_value_t = 0.5, value_parser = parse_seconds)]
    seconds: f64,
    /// Frames in each run, instead of --seconds [rounded up to a multiple of 1024]
    #[arg(long, conflicts_with = "seconds", value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    packets: Option<u32>,
    /// Flows, a power of two
    #[arg(long, default_value_t = 1 << 16, value_parser = parse_flows)]
    flows: u32,
    /// CPU on which frames are sent, balanced and answered
    #[arg(long, default_value_t = 1)]
    cpu: usize,
    /// What sends the frames
    #[arg(long, value_enum, default_value_t = Wish::Auto)]
    generator: Wish,
    /// Where the figures are written as JSON [default: target/bench/pktgen.json]
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Report {
    kernel: String,
    generator: &'static str,
    wire: &'static str,
    cpu: usize,
    rounds: u32,
    frame_bytes: usize,
    figures: Vec<Figure>,
}

/// How the figures are to be read.
const WIRE: &str = "a veth pair, generator and balancer on one CPU: no figures of a NIC";

/// What is set up once.
struct Bench {
    source: Source,
    cpu: usize,
    under_test: XdpLink,
    _far_end: XdpLink,
    generator: Generator,
    wire: Wire,
}

/// Measures, prints, writes.
pub(crate) fn run(args: &Args) -> Result<()> {
    on_end_signal(remove_namespaces)?;
    // Threads started from here on stay on it too.
    cpu::pin(args.cpu)?;
    let source = Source::choose(args.generator)?;
    eprintln!("frames come from {}", source.label(args.generator));
    let mut bench = Bench::set_up(source, args.cpu)?;
    let mut subjects = subject::load_all(
        &mut bench.generator,
        source,
        bench.wire.balancer_ifindex()?,
        args.flows,
    )?;
    let report = Report {
        kernel: kernel_release()?,
        generator: source.label(args.generator),
        wire: WIRE,
        cpu: args.cpu,
        rounds: args.rounds,
        frame_bytes: FRAME_WORDS * size_of::<u64>(),
        figures: measure(&mut bench, args, &mut subjects)?,
    };
    println!(
        "packets per second over {WIRE}\n\
         generator: {}\n\
         frames of {} B; median (min–max) of {} rounds",
        report.generator, report.frame_bytes, report.rounds
    );
    figures::print(&report.figures);
    let json = args.json.clone();
    write_json(
        &json.unwrap_or_else(|| default_json("pktgen.json")),
        &report,
    )
}

fn parse_seconds(text: &str) -> Result<f64> {
    let seconds: f64 = text.parse()?;
    ensure!((0.01..=5.0).contains(&seconds), "0.01 to 5 seconds a run");
    Ok(seconds)
}

fn parse_flows(text: &str) -> Result<u32> {
    let flows: u32 = text.parse()?;
    ensure!(
        flows.is_power_of_two() && flows <= 1 << 20,
        "a power of two up to {}",
        1 << 20
    );
    Ok(flows)
}

/// Deletes what this process has created, after Ctrl-C. The rest ends with the process.
fn remove_namespaces() {
    for name in netns::list(&format!("lb{}x", std::process::id())) {
        if let Err(error) = netns::remove(&name) {
            eprintln!("namespace {name} is left behind: {error:#}");
        }
    }
}

/// All programs, round by round.
fn measure(bench: &mut Bench, args: &Args, subjects: &mut [Subject]) -> Result<Vec<Figure>> {
    let frame_counts = frame_counts(bench, args, subjects)?;
    let mut runs: Vec<Vec<Run>> = vec![Vec::new(); subjects.len()];
    let started = Instant::now();
    for round in 1..=args.rounds {
        for (number, subject) in subjects.iter_mut().enumerate() {
            runs[number].push(bench.run_once(subject, frame_counts[number])?);
        }
        let elapsed_s = started.elapsed().as_secs_f64();
        eprintln!("round {round} of {} done, {elapsed_s:.1} s", args.rounds);
    }
    let rows = subjects.iter().zip(&runs);
    Ok(rows
        .map(|(subject, own)| {
            let flows = bench.source.flow_count(&subject.traffic);
            Figure::new(&subject.label, flows, own, &runs[TRANSMIT_ROW])
        })
        .collect())
}

/// Frames in each run of each program, by the rate of a short first run.
fn frame_counts(bench: &mut Bench, args: &Args, subjects: &mut [Subject]) -> Result<Vec<u32>> {
    let mut counts = Vec::new();
    let mut runs_s = 0.0;
    for subject in subjects {
        let rate_pps = bench.run_once(subject, FIRST_RUN_FRAMES)?.rate_pps;
        let wanted = args.packets.unwrap_or((rate_pps * args.seconds) as u32);
        let count = wanted.next_multiple_of(SEND_STAMP_INTERVAL as u32);
        counts.push(count.max(SEND_STAMP_INTERVAL as u32));
        runs_s += f64::from(args.rounds) * f64::from(count) / rate_pps;
    }
    ensure!(
        runs_s <= RUNS_MAX_S,
        "{} rounds would take {runs_s:.0} s, more than {RUNS_MAX_S:.0} s: lower --rounds, --seconds \
         or --packets",
        args.rounds
    );
    Ok(counts)
}

impl Bench {
    fn set_up(source: Source, cpu: usize) -> Result<Self> {
        let mut generator = Generator::load()?;
        let wire = Wire::create()?;
        let far_end = wire.attach_to_sender(&generator.handle("count_and_drop")?)?;
        let under_test = wire.attach_to_balancer(&generator.handle("drop_all")?)?;
        Ok(Self {
            source,
            cpu,
            under_test,
            _far_end: far_end,
            generator,
            wire,
        })
    }

    /// Puts a program on the wire, sends it frames, and accounts for each of them.
    fn run_once(&mut self, subject: &mut Subject, frame_count: u32) -> Result<Run> {
        self.under_test.replace(&subject.program)?;
        let wire_before = self.wire.counters()?;
        let seen_before = self.generator.seen_count()?;
        let forwarded_before = subject.forwarded_count()?;
        let sent = self.source.send(
            &self.wire,
            &mut self.generator,
            self.cpu,
            &subject.traffic,
            frame_count,
        )?;
        let ledger = self.settle(subject, sent.frame_count, wire_before, seen_before)?;
        let forwarded = subject.forwarded_count()?.zip(forwarded_before);
        if let Some((after, before)) = forwarded {
            ensure!(
                after - before == ledger.wire.received_count,
                "{}: the datapath counted {} packets, but {ledger}",
                subject.label,
                after - before
            );
        }
        Ok(Run::new(ledger, subject.action, sent.elapsed.as_secs_f64()))
    }

    /// Waits for the last frames.
    fn settle(
        &mut self,
        subject: &Subject,
        sent_count: u64,
        wire_before: WireCounters,
        seen_before: u64,
    ) -> Result<Ledger> {
        let mut ledger = Ledger::default();
        let settled = wait_until("each frame to be accounted for", SETTLE_TIMEOUT, || {
            ledger = Ledger {
                sent_count,
                wire: self.wire.counters()?.since(wire_before),
                answered_count: self.generator.seen_count()? - seen_before,
            };
            Ok(ledger.is_balanced(subject.action).then_some(()))
        });
        settled.with_context(|| format!("{}: {ledger}", subject.label))?;
        Ok(ledger)
    }
}

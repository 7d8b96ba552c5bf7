//! `lb-disruption`: what events cost the connections through the balancer. Run by `cargo xtask test
//! disruption`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use lb_lab::choice::or_all;
use lb_lab::disruption::event::Event;
use lb_lab::disruption::lane::Lane;
use lb_lab::disruption::run::{Findings, RunPlan, run};
use lb_lab::disruption::server::{self, ServerArgs};
use lb_lab::disruption::stage::StagePlan;
use lb_lab::disruption::traffic::{HasDatagrams, TrafficPlan};
use lb_lab::disruption::{raise_descriptor_limit, report};
use lb_lab::lbd::Launch;
use lb_lab::signals::on_end_signal;
use lb_lab::{Forward, netns};

/// Idle flows are silent for this part of the services' idle time-out.
const SILENT_PART: f64 = 0.6;

#[derive(Parser)]
#[command(
    name = "lb-disruption",
    about = "What events cost the connections through the balancer",
    args_conflicts_with_subcommands = true
)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    args: Args,
}

#[derive(Subcommand)]
enum Part {
    /// Be a server on a backend
    #[command(hide = true)]
    Serve(ServerArgs),
}

#[derive(clap::Args)]
struct Args {
    /// Connections in each forwarding mode, scheduler and family
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    connections: u32,
    /// What happens; everything by default
    #[arg(long, value_enum, value_delimiter = ',')]
    events: Vec<Event>,
    /// The forwarding modes; all by default
    #[arg(long, value_enum, value_delimiter = ',')]
    forward: Vec<Forward>,
    /// The services' idle time-out, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=600))]
    idle_timeout: u64,
    /// New connections a second in each scheduler and family
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=1000))]
    newcomers: u32,
    /// A SYN flood all the time, of so many frames a second [1000000 if no number is given]
    #[arg(long, value_name = "RATE", num_args = 0..=1, default_missing_value = "1000000")]
    flood: Option<u32>,
    /// Where random changes begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The directory of another build of lbd, for upgrade and downgrade
    #[arg(long, value_name = "DIRECTORY")]
    other_build: Option<PathBuf>,
    /// Where everything that was counted is written
    #[arg(long, default_value = "target/disruption.json")]
    json: PathBuf,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match &cli.part {
        Some(Part::Serve(args)) => server::serve(args).map(|()| ExitCode::SUCCESS),
        None => prove(&cli.args),
    };
    done.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs every mode, prints the table, writes the JSON.
fn prove(args: &Args) -> Result<ExitCode> {
    ensure!(
        lb_lab::is_root(),
        "network namespaces need root: `cargo xtask test disruption` goes through sudo"
    );
    on_end_signal(netns::remove_own)?;
    raise_descriptor_limit()?;
    let forwards = or_all(&args.forward);
    let mut findings = Findings::default();
    for forward in forwards {
        let plan = run_plan(args, forward)?;
        let mut part = run(&plan, |row| eprint!("{}", report::line(row)))?;
        findings.rows.append(&mut part.rows);
        findings.notes.append(&mut part.notes);
    }
    println!("{}", report::table(&findings.rows));
    for note in &findings.notes {
        println!("{note}");
    }
    report::write_json(&args.json, &report::json(&findings.rows, &findings.notes))?;
    println!("everything that was counted: {}", args.json.display());
    Ok(judge(&findings))
}

fn judge(findings: &Findings) -> ExitCode {
    let faults: Vec<String> = findings.rows.iter().flat_map(|row| row.faults()).collect();
    for fault in &faults {
        println!("FAULT: {fault}");
    }
    if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

fn run_plan(args: &Args, forward: Forward) -> Result<RunPlan> {
    let idle_timeout = Duration::from_secs(args.idle_timeout);
    Ok(RunPlan {
        stage: StagePlan {
            forward,
            idle_timeout,
            server: std::env::current_exe().context("this program has no path")?,
            launch: Launch::keeping(),
        },
        traffic: TrafficPlan {
            lanes: Lane::ALL.to_vec(),
            flows: args.connections as usize,
            has_datagrams: HasDatagrams::Yes,
            silence: idle_timeout.mul_f64(SILENT_PART),
            newcomer_pause: Duration::from_secs(1) / args.newcomers,
        },
        events: or_all(&args.events),
        seed: args.seed,
        other_build: args.other_build.clone(),
        flood_pps: args.flood,
    })
}

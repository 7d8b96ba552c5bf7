//! `lb-failover`: what becomes of VIPs and connections when one of two balancers goes away. Run by `cargo
//! xtask test failover`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand};
use lb_lab::choice::or_all;
use lb_lab::disruption::raise_descriptor_limit;
use lb_lab::disruption::report::write_json;
use lb_lab::disruption::server::{self, ServerArgs};
use lb_lab::failover::event::Event;
use lb_lab::failover::outcome::Row;
use lb_lab::failover::pair::Make;
use lb_lab::failover::report;
use lb_lab::failover::run::{RunPlan, run};
use lb_lab::signals::on_end_signal;
use lb_lab::topology::Balancers;
use lb_lab::{Forward, netns};

#[derive(Parser)]
#[command(
    name = "lb-failover",
    about = "What becomes of VIPs and connections when one of two balancers goes away",
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
    /// Whose pairs; all by default
    #[arg(long, value_enum, value_delimiter = ',')]
    pairs: Vec<Make>,
    /// What happens; everything by default
    #[arg(long, value_enum, value_delimiter = ',')]
    events: Vec<Event>,
    /// The forwarding modes of our pair; all by default
    #[arg(long, value_enum, value_delimiter = ',')]
    forward: Vec<Forward>,
    /// Times between two advertisements, in milliseconds
    #[arg(long, value_delimiter = ',', default_values_t = [1000, 100, 30], value_parser = clap::value_parser!(u64).range(10..=40_950))]
    intervals: Vec<u64>,
    /// Beside DSR at 100 ms, only what moves VIPs on purpose or by the loss of a node, and, of ours at the default
    /// interval of a second, what must not move them: two hours instead of five
    #[arg(long)]
    essential: bool,
    /// How often each thing happens
    #[arg(long, default_value_t = 20)]
    repetitions: usize,
    /// As often also what takes long: the cut of the link between the nodes (else twice), and at intervals of a second
    /// or more what takes tens of them (else five times)
    #[arg(long)]
    full: bool,
    /// Of these, those after which every connection proves that it lives
    #[arg(long, default_value_t = 2)]
    proofs: usize,
    /// Connections in each scheduler and family
    #[arg(long, default_value_t = 250, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    connections: u32,
    /// New connections a second in each scheduler and family
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    newcomers: u32,
    /// How long the link between the nodes is cut, in seconds
    #[arg(long, default_value_t = 60)]
    cut: u64,
    /// The services' idle time-out, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(2..=600))]
    idle_timeout: u64,
    /// The directory of another build of ours, for upgrades
    #[arg(long, value_name = "DIRECTORY")]
    other_build: Option<PathBuf>,
    /// Where everything that was counted is written
    #[arg(long, default_value = "target/failover.json")]
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

/// Runs everything that was chosen, prints the table, writes the JSON. A run that cannot be completed leaves what it
/// has seen, and the others their turn.
fn prove(args: &Args) -> Result<ExitCode> {
    ensure!(
        lb_lab::is_root(),
        "network namespaces need root: `cargo xtask test failover` goes through sudo"
    );
    on_end_signal(netns::remove_own)?;
    raise_descriptor_limit()?;
    let mut rows: Vec<Row> = Vec::new();
    let mut errors = Vec::new();
    for plan in plans(args)? {
        let done = run(&plan, |row| {
            eprint!("{}", report::line(&row));
            rows.push(row);
        });
        if let Err(error) = done {
            eprintln!("error: {error:#}");
            errors.push(format!(
                "{}, {} ms: {}",
                plan.make.word(),
                plan.interval.as_millis(),
                error.root_cause()
            ));
        }
        write_json(&args.json, &report::json(&rows))?;
    }
    println!("{}", report::table(&rows));
    println!("everything that was counted: {}", args.json.display());
    Ok(judge(&rows, &errors))
}

/// Only nodes of ours have promised anything; but what could not be seen was not kept.
fn judge(rows: &[Row], errors: &[String]) -> ExitCode {
    let faults: Vec<String> = rows.iter().flat_map(Row::faults).collect();
    for fault in &faults {
        println!("FAULT: {fault}");
    }
    for error in errors {
        println!("NOT COMPLETED: {error}");
    }
    if faults.is_empty() && errors.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// A run for each pair, way through it, network and interval.
fn plans(args: &Args) -> Result<Vec<RunPlan>> {
    let server = std::env::current_exe().context("this program has no path")?;
    let mut plans = Vec::new();
    for make in or_all(&args.pairs) {
        let forwards: Vec<Forward> = match make {
            Make::Ours => or_all(&args.forward),
            // A proxy has one way only.
            Make::Rival | Make::OursRival | Make::RivalOurs => vec![Forward::Dsr],
        };
        let kinds = forwards.into_iter().flat_map(|forward| {
            [Balancers::Pair, Balancers::PairBehindRouter].map(|balancers| (forward, balancers))
        });
        for (forward, balancers) in kinds {
            let events = events(args, make, balancers);
            let intervals = args.intervals.iter().map(|interval| {
                let is_whole = !args.essential || is_in_the_middle(forward, *interval);
                let chosen = events.iter().copied();
                let chosen = chosen.filter(|event| {
                    let is_default = make == Make::Ours && is_default(forward, *interval);
                    is_whole || event.is_essential() || is_default && event.is_false_alarm()
                });
                (interval, chosen.collect::<Vec<Event>>())
            });
            let intervals = intervals.filter(|(_, events)| !events.is_empty());
            plans.extend(intervals.map(|(interval, events)| RunPlan {
                make,
                forward,
                interval: Duration::from_millis(*interval),
                events,
                balancers,
                cut: Duration::from_secs(args.cut),
                idle_timeout: Duration::from_secs(args.idle_timeout),
                other_build: args.other_build.clone(),
                repetitions: args.repetitions,
                is_full: args.full,
                proofs: args.proofs,
                flows: args.connections as usize,
                newcomer_pause: Duration::from_secs(1) / args.newcomers,
                server: server.clone(),
            }));
        }
    }
    Ok(plans)
}

/// Where everything happens, also in a run of what is essential.
fn is_in_the_middle(forward: Forward, interval_ms: u64) -> bool {
    forward == Forward::Dsr && interval_ms == 100
}

/// Where nodes are with default settings: what is no reason for a failover happens there, too.
fn is_default(forward: Forward, interval_ms: u64) -> bool {
    forward == Forward::Dsr && interval_ms == 1000
}

/// Those that were chosen, that this network is for, and that the pair can be asked for.
fn events(args: &Args, make: Make, balancers: Balancers) -> Vec<Event> {
    let chosen = or_all(&args.events).into_iter();
    chosen
        .filter(|event| event.balancers() == balancers)
        .filter(|event| make == Make::Ours || event.is_common())
        .collect()
}

//! `lb-detection`: how soon dead backends are found out, and what they cost the clients until then. Run by
//! `cargo xtask test detection`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Parser;
use lb_lab::choice::or_all;
use lb_lab::disruption::report::write_json;
use lb_lab::outage::death::Death;
use lb_lab::outage::outcome::{CheckTiming, Outcome};
use lb_lab::outage::proof::Proof;
use lb_lab::outage::report;
use lb_lab::signals::on_end_signal;
use lb_lab::{Forward, netns};

#[derive(Parser)]
#[command(
    name = "lb-detection",
    about = "How soon dead backends are found out, and what they cost until then"
)]
struct Args {
    /// How often each death is repeated, in each mode
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    repetitions: u32,
    /// The ways to die; all by default
    #[arg(long, value_enum, value_delimiter = ',')]
    deaths: Vec<Death>,
    /// The forwarding modes; all by default
    #[arg(long, value_enum, value_delimiter = ',')]
    forward: Vec<Forward>,
    /// The check's interval, in milliseconds
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    interval: u64,
    /// The check's interval while in doubt, in milliseconds
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(10..=60_000))]
    fast_interval: u64,
    /// The check's time-out, in milliseconds
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    timeout: u64,
    /// Failures in a row that are a death
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    fall: u32,
    /// Where everything that was counted is written
    #[arg(long, default_value = "target/detection.json")]
    json: PathBuf,
}

fn main() -> ExitCode {
    prove(&Args::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// Runs every mode, prints the table, writes the JSON.
fn prove(args: &Args) -> Result<ExitCode> {
    ensure!(
        lb_lab::is_root(),
        "network namespaces need root: `cargo xtask test detection` goes through sudo"
    );
    on_end_signal(netns::remove_own)?;
    let timing = CheckTiming {
        interval: Duration::from_millis(args.interval),
        fast_interval: Duration::from_millis(args.fast_interval),
        timeout: Duration::from_millis(args.timeout),
        fall: args.fall,
    };
    let mut outcomes: Vec<Outcome> = Vec::new();
    for forward in or_all(&args.forward) {
        let mut proof = Proof::start(forward, timing)?;
        for _ in 0..args.repetitions {
            for death in or_all(&args.deaths) {
                let outcome = proof.suffer(death)?;
                eprintln!("{}", report::line(&outcome));
                outcomes.push(outcome);
            }
        }
    }
    println!("{}", report::table(&outcomes));
    write_json(&args.json, &report::json(&outcomes))?;
    println!("everything that was counted: {}", args.json.display());
    let faults: Vec<String> = outcomes.iter().flat_map(Outcome::faults).collect();
    for fault in &faults {
        println!("FAULT: {fault}");
    }
    Ok(if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

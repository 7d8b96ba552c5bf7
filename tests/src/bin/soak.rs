//! `lb-soak`: what many checks leave behind. Run by `cargo xtask test soak`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Result, ensure};
use clap::Parser;
use lb_lab::disruption::report::write_json;
use lb_lab::netns;
use lb_lab::signals::on_end_signal;
use lb_lab::soak::run::run;

/// Checks between two lines about how far it is.
const TELL_EVERY: u64 = 10_000;

#[derive(Parser)]
#[command(name = "lb-soak", about = "What many checks leave behind")]
struct Args {
    /// Checks to make
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    checks: u64,
    /// Where everything that was counted is written
    #[arg(long, default_value = "target/soak.json")]
    json: PathBuf,
}

fn main() -> ExitCode {
    prove(&Args::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

fn prove(args: &Args) -> Result<ExitCode> {
    ensure!(
        lb_lab::is_root(),
        "network namespaces need root: `cargo xtask test soak` goes through sudo"
    );
    on_end_signal(netns::remove_own)?;
    let told = AtomicU64::new(0);
    let findings = run(args.checks, |count| {
        let step = count / TELL_EVERY;
        if told.swap(step, Ordering::Relaxed) < step {
            eprintln!("{count} of {} checks", args.checks);
        }
    })?;
    print!("{findings}");
    write_json(&args.json, &findings.json())?;
    println!("everything that was counted: {}", args.json.display());
    let faults = findings.faults();
    for fault in &faults {
        println!("FAULT: {fault}");
    }
    Ok(if faults.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

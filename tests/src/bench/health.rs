//! `lb-bench health`: what checks cost, and how soon the rings follow what they find.

mod probes;
mod reaction;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use self::probes::Cost;
use self::reaction::Reaction;
use crate::default_json;
use crate::report::write_json;

/// Options of `lb-bench health`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long each kind of check is measured, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// How many services stand on the host that dies, in one run each
    #[arg(long, default_values_t = [1, 100, 1_000], value_delimiter = ',', value_parser = clap::value_parser!(u16).range(1..=1_000))]
    services: Vec<u16>,
    /// How often the host dies and comes back in each run
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    deaths: u32,
    /// Where the figures go [default: target/bench/health.json]
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Serialize)]
struct Figures {
    costs: Vec<Cost>,
    reactions: Vec<Reaction>,
}

/// Measures, and prints what was found.
pub(crate) fn run(args: &Args) -> Result<()> {
    let costs = probes::measure_all(Duration::from_secs(args.seconds))?;
    println!("{}", probes::table(&costs));
    let mut reactions = Vec::new();
    for service_count in &args.services {
        reactions.extend(reaction::measure(*service_count, args.deaths)?);
    }
    println!("{}", reaction::table(&reactions));
    let path = args.json.clone();
    let path = path.unwrap_or_else(|| default_json("health.json"));
    write_json(&path, &Figures { costs, reactions })?;
    println!("figures in {}", path.display());
    Ok(())
}

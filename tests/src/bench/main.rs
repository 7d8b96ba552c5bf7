//! The benchmark: what a packet costs in the datapath. Run by `cargo xtask bench`.

mod cpu;
mod datapath;
mod facts;
mod generator;
mod pktgen;
mod report;
mod scenario;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "lb-bench", about = "What a packet costs in the datapath")]
struct Cli {
    #[command(subcommand)]
    subject: Subject,
}

#[derive(Subcommand)]
enum Subject {
    /// Nanoseconds of CPU time for each packet, net of a program that only returns XDP_TX
    Datapath(datapath::Args),
    /// Packets per second through the attached datapath, in network namespaces, beside XDP_DROP and
    /// XDP_TX
    Pktgen(pktgen::Args),
}

/// Where the figures go unless told otherwise.
fn default_json(name: &str) -> PathBuf {
    PathBuf::from("target/bench").join(name)
}

fn main() -> Result<()> {
    match Cli::parse().subject {
        Subject::Datapath(args) => datapath::run(&args),
        Subject::Pktgen(args) => pktgen::run(&args),
    }
}

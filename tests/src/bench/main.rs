//! The benchmark: what a packet costs in the datapath, a health check, and a flow that a peer is told of. Run by
//! `cargo xtask bench`.

mod datapath;
mod facts;
mod flow_memory;
mod health;
mod memory;
mod pktgen;
mod report;
mod scenario;
mod situation;
mod sync;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::{Parser, Subcommand};
use lb_lab::{cpu, generator};

#[derive(Parser)]
#[command(
    name = "lb-bench",
    about = "What a packet costs in the datapath, a health check, and a flow that a peer is told of"
)]
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
    /// Checks a second for each core, and how soon the rings follow what checks find
    Health(health::Args),
    /// Flow changes a second from one node to another, and what each costs
    Sync(sync::Args),
}

/// Where the figures go unless told otherwise.
fn default_json(name: &str) -> PathBuf {
    PathBuf::from("target/bench").join(name)
}

fn main() -> ExitCode {
    match run(&Cli::parse().subject) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(subject: &Subject) -> Result<()> {
    ensure!(
        lb_lab::is_root(),
        "loading and attaching programs needs root (CAP_BPF, CAP_NET_ADMIN, CAP_SYS_ADMIN): \
         `cargo xtask bench` goes through sudo"
    );
    match subject {
        Subject::Datapath(args) => datapath::run(args),
        Subject::Pktgen(args) => pktgen::run(args),
        Subject::Health(args) => health::run(args),
        Subject::Sync(args) => sync::run(args),
    }
}

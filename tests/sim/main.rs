//! `lb-sim`: the real datapath core and the real transition machine among simulated clients, backends,
//! attackers and operators, on a seeded clock.
//!
//! - [`history`] draws what happens from a seed, [`plan`] adds the surroundings.
//! - [`world`] runs it: clients ([`client`]), the network, backends, attackers ([`attack`]), and what
//!   the balancers are told ([`config`]). [`agenda`] has what is due, [`outcome`] what came of it.
//! - [`node`] is a balancer of ours over the memory of [`kernel`]; [`classical`] is one with a table of
//!   all flows, for comparison ([`compare`]).
//! - [`cluster`] is the same of several nodes, with what moves VIPs and rings between them.
//! - [`rules`] switches single rules off, and [`proofs`] shows the hole that opens.
//! - [`shrink`] makes a failing history small; [`regressions`] are those that failed once.

mod agenda;
mod attack;
mod balancer;
mod classical;
mod client;
mod cluster;
mod compare;
mod config;
mod history;
mod kernel;
mod node;
mod outcome;
mod packet;
mod plan;
mod proofs;
mod regressions;
mod report;
mod rng;
mod rules;
mod runner;
mod shrink;
mod world;

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;

use crate::cluster::plan::Faults;
use crate::history::{Changes, Load};

/// Without options: thousands of histories, every rule switched off once, and the comparison with the
/// classical design.
#[derive(Parser)]
#[command(name = "cargo xtask test sim")]
struct Args {
    /// How many histories to run
    #[arg(long, default_value_t = 4_000)]
    seeds: u64,
    /// With --nodes: the first of their seeds
    #[arg(long, default_value_t = 0, requires = "nodes")]
    from: u64,
    /// Run one history, and show it
    #[arg(long)]
    seed: Option<u64>,
    /// With --seed: changes of this kind, not the seed's
    #[arg(long, requires = "seed")]
    changes: Option<Changes>,
    /// With --seed: this load, not the seed's
    #[arg(long, requires = "seed")]
    load: Option<Load>,
    /// With --seed: this many clients, with a ring and tables to match; up to a million
    #[arg(long, requires = "seed")]
    clients: Option<usize>,
    /// With --seed: show each packet of this client
    #[arg(long, requires = "seed")]
    follow: Option<usize>,
    /// Only the histories
    #[arg(long)]
    histories: bool,
    /// Only those of several nodes; with --seed: one of these
    #[arg(long)]
    nodes: bool,
    /// With --nodes and --seed: faults of this kind, not the seed's
    #[arg(long, requires = "seed", requires = "nodes")]
    faults: Option<Faults>,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if args.nodes {
        return Ok(match args.seed {
            Some(seed) => cluster::report::one(seed, args.changes, args.faults, args.follow),
            None => {
                let code = cluster::report::histories(args.from..args.from + args.seeds);
                if !args.histories {
                    cluster::report::rules(16);
                }
                code
            }
        });
    }
    if let Some(seed) = args.seed {
        let plan = report::plan_of(seed, args.changes, args.load, args.clients);
        return Ok(report::one(&plan, args.follow));
    }
    let mut code = report::histories(0..args.seeds);
    if cluster::report::histories(0..args.seeds / 4) == ExitCode::FAILURE {
        code = ExitCode::FAILURE;
    }
    if !args.histories {
        cluster::report::rules(16);
        report::rules();
        report::comparison();
        code = if report::regressions()? == ExitCode::SUCCESS {
            code
        } else {
            ExitCode::FAILURE
        };
    }
    Ok(code)
}

//! The proofs: programs of the laboratory that take longer than a test, in their full form.
//!
//! Their short forms are tests like others: `e2e_disruption.rs`, `e2e_budget.rs`, `e2e_failover.rs`, `e2e_soak.rs`,
//! and the
//! simulator's own.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, Subcommand};

use crate::workspace::Workspace;
use crate::{build, cargo, packages, progress, run};

/// What may follow `cargo xtask test` in place of a layer.
#[derive(Subcommand)]
pub(super) enum Proof {
    /// Real connections under every event: what breaks, what is lost (a table, and JSON)
    Disruption(ProgramArgs),
    /// Servers that die under a load: how soon it is found out, and what it costs (a table, and JSON)
    Detection(ProgramArgs),
    /// Two balancers, ours and keepalived's, one of which goes away: what breaks, how long it is dark (a table, and JSON)
    Failover(ProgramArgs),
    /// Twelve million messages to the peer link and to virtual routers from those who lie: none of a stranger is taken, nothing grows
    Hostile(ProgramArgs),
    /// A hundred thousand health checks: what they leave behind (a table, and JSON)
    Soak(ProgramArgs),
    /// The datapath's core and the control plane's machines in a simulated network, many histories
    Sim(ProgramArgs),
}

/// What a proof's program gets.
#[derive(Args)]
pub(super) struct ProgramArgs {
    /// Options of the program; `--help` lists them
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    args: Vec<OsString>,
}

/// What a proof runs: a program of lb-lab.
struct Program {
    name: &'static str,
    features: &'static str,
    /// The real servers that it starts, in namespaces; without any it needs neither lbd nor root.
    servers: &'static [&'static str],
}

const DISRUPTION: Program = Program {
    name: "lb-disruption",
    features: "e2e",
    servers: &packages::FOR_DISRUPTION,
};
const DETECTION: Program = Program {
    name: "lb-detection",
    features: "e2e",
    servers: &packages::FOR_DETECTION,
};
const FAILOVER: Program = Program {
    name: "lb-failover",
    features: "e2e",
    servers: &packages::FOR_FAILOVER,
};
const SOAK: Program = Program {
    name: "lb-soak",
    features: "e2e",
    servers: &packages::FOR_SOAK,
};
const HOSTILE: Program = Program {
    name: "lb-hostile",
    features: "sim",
    servers: &[],
};
const SIM: Program = Program {
    name: "lb-sim",
    features: "sim",
    servers: &[],
};

/// Builds what the proof needs and becomes its program.
pub(super) fn run(workspace: &Workspace, proof: &Proof) -> Result<ExitCode> {
    let (program, args) = match proof {
        Proof::Disruption(args) => (DISRUPTION, args),
        Proof::Detection(args) => (DETECTION, args),
        Proof::Failover(args) => (FAILOVER, args),
        Proof::Soak(args) => (SOAK, args),
        Proof::Hostile(args) => (HOSTILE, args),
        Proof::Sim(args) => (SIM, args),
    };
    let has_servers = !program.servers.is_empty();
    if has_servers {
        build::everything(workspace)?;
        packages::ensure(program.servers, "real servers")?;
    }
    let mut build = cargo::command(workspace, "build");
    build.args(["--release", "--package", "lb-lab"]);
    build.args(["--features", program.features, "--bin", program.name]);
    progress::run_cargo(&mut build, &format!("building {}", program.name))?;
    if has_servers {
        run::become_root_program(workspace, program.name, &args.args)
    } else {
        run::become_program(workspace, program.name, &args.args)
    }
}

//! `cargo xtask bench datapath | pktgen | health | sync`: builds the objects and the bench program, then becomes
//! it.

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{Args, ValueEnum};

use crate::workspace::Workspace;
use crate::{build, cargo, progress, run};

/// What may follow `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct BenchArgs {
    /// What to measure
    subject: Subject,
    /// What the bench program gets on top
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "ARGS"
    )]
    args: Vec<OsString>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Subject {
    /// Nanoseconds for each packet, in BPF_PROG_TEST_RUN
    Datapath,
    /// Packets per second through the attached program, in network namespaces
    Pktgen,
    /// Health checks a second for each core, and how soon the rings follow what they find
    Health,
    /// Flow changes a second between two nodes, and what each costs them
    Sync,
}

impl Subject {
    fn word(self) -> &'static str {
        match self {
            Self::Datapath => "datapath",
            Self::Pktgen => "pktgen",
            Self::Health => "health",
            Self::Sync => "sync",
        }
    }
}

/// `cargo xtask bench`
pub(crate) fn task(workspace: &Workspace, args: &BenchArgs) -> Result<ExitCode> {
    build::bpf_objects(workspace)?;
    let mut program = cargo::command(workspace, "build");
    program.args([
        "--release",
        "--package",
        "lb-lab",
        "--features",
        "bench",
        "--bin",
        "lb-bench",
    ]);
    progress::run_cargo(&mut program, "building lb-bench")?;
    let mut bench_args = vec![OsString::from(args.subject.word())];
    bench_args.extend(args.args.iter().cloned());
    run::become_root_program(workspace, "lb-bench", &bench_args)
}

//! The project's tasks: `cargo xtask <task>`. One file for each task; this one only dispatches.

mod bench;
mod build;
mod cargo;
mod demo;
mod http_backend;
mod lint;
mod packages;
mod progress;
mod run;
mod test;
mod toolchain;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// What can be typed after `cargo xtask`.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "The project's tasks"
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Build the XDP program, the daemon and its client, bringing the toolchain parts they need
    Build,
    /// Build, then run lbd in the foreground
    Run(run::RunArgs),
    /// Watch requests to a virtual IP being steered to web servers, in network namespaces
    Demo(demo::DemoArgs),
    /// Run the tests: everything, or one layer of it
    Test(test::TestArgs),
    /// Measure the datapath
    Bench(bench::BenchArgs),
    /// Check format and lints, those of the XDP program included
    Lint,
    /// Answer HTTP requests with a name (a web server of the demo)
    #[command(hide = true)]
    HttpBackend(http_backend::HttpBackendArgs),
}

fn main() -> ExitCode {
    match dispatch(Cli::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::locate()?;
    match task {
        Task::Build => build::task(&workspace),
        Task::Run(args) => run::task(&workspace, &args),
        Task::Demo(args) => demo::task(&workspace, &args),
        Task::Test(args) => test::task(&workspace, &args),
        Task::Bench(args) => bench::task(&workspace, &args),
        Task::Lint => lint::task(&workspace),
        Task::HttpBackend(args) => http_backend::task(&args),
    }
}

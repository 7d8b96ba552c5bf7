//! `cargo xtask lint`: format and lints, of the workspace on the host and of the XDP program on its
//! target.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;
use crate::{build, cargo, progress, toolchain};

/// `cargo xtask lint`
pub(crate) fn task(workspace: &Workspace) -> Result<ExitCode> {
    let mut format = cargo::command(workspace, "fmt");
    format.args(["--all", "--check"]);
    check(format, "checking the format")?;

    let mut host = cargo::command(workspace, "clippy");
    host.args(["--workspace", "--all-targets"]);
    host.args(["--features", "lb-userspace/bpf"]);
    host.args(["--", "-D", "warnings"]);
    check(host, "linting the workspace")?;

    let mut lab = cargo::command(workspace, "clippy");
    lab.args([
        "--package",
        "lb-lab",
        "--all-targets",
        "--features",
        "bpf,e2e,bench,sim",
    ]);
    lab.args(["--", "-D", "warnings"]);
    check(lab, "linting the tests of all layers")?;

    toolchain::ensure_bpf(workspace)?;
    let mut bpf = build::bpf_cargo(workspace, "clippy")?;
    bpf.args(["--bins", "--release", "--", "-D", "warnings"]);
    check(bpf, "linting the XDP program")?;
    Ok(ExitCode::SUCCESS)
}

fn check(mut command: Command, doing: &str) -> Result<()> {
    progress::step(doing);
    let status = command
        .status()
        .with_context(|| format!("{doing}: cannot start cargo"))?;
    ensure!(
        status.success(),
        "{doing} found something ({status}); see above"
    );
    Ok(())
}

//! `bpf-linker`, which turns LLVM bitcode into the XDP program's object file.

use std::process::Command;

use anyhow::{Context, Result};

use crate::cargo;
use crate::progress;
use crate::workspace::Workspace;

/// The newest release that links against rustc 1.95's own LLVM 22; later ones want LLVM 23 from the
/// system.
const VERSION: &str = "0.10.4";

/// Installs it under `target/tools` unless this very version is there.
pub(super) fn ensure_installed(workspace: &Workspace) -> Result<()> {
    if installed_version(workspace).as_deref() == Some(VERSION) {
        return Ok(());
    }
    progress::step(&format!(
        "installing bpf-linker {VERSION} under target/tools: it links the XDP program (about a minute)"
    ));
    let mut install = cargo::command(workspace, "install");
    install.args([
        "bpf-linker",
        "--version",
        VERSION,
        "--locked",
        "--force",
        "--root",
    ]);
    install.arg(workspace.tools());
    install.env("CARGO_TARGET_DIR", workspace.target().join("tools-build"));
    progress::run_cargo(&mut install, "installing bpf-linker").with_context(|| {
        format!(
            "no bpf-linker; run `cargo install bpf-linker --version {VERSION} --locked --root target/tools`"
        )
    })
}

/// The installed version, or nothing where there is none that runs.
fn installed_version(workspace: &Workspace) -> Option<String> {
    let output = Command::new(workspace.bpf_linker())
        .arg("--version")
        .output()
        .ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    Some(text.trim().strip_prefix("bpf-linker ")?.to_owned())
}

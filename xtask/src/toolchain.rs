//! What the XDP program needs beyond a plain Rust toolchain: the sources of `core`, which are built
//! for the BPF target, and `bpf-linker`. Both are brought when they are missing, and left alone
//! when they are there.

mod apt_sources;
mod bpf_linker;
mod debian;
mod rust_src;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::workspace::Workspace;

/// Brings the parts that are missing.
pub(crate) fn ensure_bpf(workspace: &Workspace) -> Result<()> {
    rust_src::ensure_present(workspace, &Rustc::ask(workspace)?)?;
    bpf_linker::ensure_installed(workspace)
}

/// The compiler that builds the workspace.
pub(crate) struct Rustc {
    /// Such as `1.95.0`.
    release: String,
    /// The target triple of the machine itself.
    host: String,
    sysroot: PathBuf,
}

impl Rustc {
    /// Asks the compiler about itself.
    pub(crate) fn ask(workspace: &Workspace) -> Result<Self> {
        let verbose = rustc(workspace, &["-vV"])?;
        let field = |name: &str| {
            let value = verbose.lines().find_map(|line| line.strip_prefix(name));
            value
                .map(str::to_owned)
                .with_context(|| format!("`rustc -vV` has no line {name:?}:\n{verbose}"))
        };
        let sysroot = PathBuf::from(rustc(workspace, &["--print", "sysroot"])?.trim_end());
        Ok(Self {
            release: field("release: ")?,
            host: field("host: ")?,
            sysroot,
        })
    }

    /// The directory of the compiler's own shared libraries, LLVM among them.
    pub(crate) fn libraries(&self) -> PathBuf {
        self.sysroot.join("lib")
    }

    /// The variable with which cargo is told how to run programs for this machine.
    pub(crate) fn runner_variable(&self) -> String {
        format!(
            "CARGO_TARGET_{}_RUNNER",
            self.host.to_uppercase().replace('-', "_")
        )
    }
}

fn rustc(workspace: &Workspace, args: &[&str]) -> Result<String> {
    let output = Command::new("rustc")
        .args(args)
        .current_dir(workspace.root())
        .output()
        .context("cannot run rustc; install Rust from https://rustup.rs")?;
    ensure!(
        output.status.success(),
        "`rustc {}` failed: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    Ok(String::from_utf8(output.stdout)?)
}

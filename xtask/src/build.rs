//! Building the XDP program and, with it inside, the daemon.

use std::fs;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use crate::toolchain::Rustc;
use crate::workspace::Workspace;
use crate::{cargo, progress, toolchain};

/// The target that the XDP program is built for: little-endian BPF.
const TARGET: &str = "bpfel-unknown-none";

/// Debug information becomes BTF at the link; v3 has the atomics that return a value (kernel
/// 5.12). Misaligned access lets the compiler read a packet's words whole: an IP header stands at
/// offset 14, and without the feature each of its words becomes four byte loads.
const RUSTFLAGS: &str = "-Cdebuginfo=2 -Clink-arg=--btf -Ctarget-cpu=v3 \
     -Clink-arg=--cpu-features=+allows-misaligned-mem-access";

/// The objects: the program itself, and the wrapper that measures it.
const OBJECTS: [&str; 2] = ["lb-ebpf", "lb-ebpf-bench"];

/// `cargo xtask build`
pub(crate) fn task(workspace: &Workspace) -> Result<ExitCode> {
    everything(workspace)?;
    for object in OBJECTS {
        println!("{}", workspace.short(&workspace.bpf_objects().join(object)));
    }
    for program in ["lbd", "lbd-vrrp", "lbctl"] {
        println!("{}", workspace.short(&workspace.release(program)));
    }
    Ok(ExitCode::SUCCESS)
}

/// The toolchain parts, the BPF objects, the daemon, its VRRP process and its client.
pub(crate) fn everything(workspace: &Workspace) -> Result<()> {
    bpf_objects(workspace)?;
    let mut daemon = cargo::command(workspace, "build");
    daemon.args(["--release", "--package", "lb-userspace"]);
    progress::run_cargo(&mut daemon, "building lbd, lbd-vrrp and lbctl")
}

/// The toolchain parts and the BPF objects.
pub(crate) fn bpf_objects(workspace: &Workspace) -> Result<()> {
    toolchain::ensure_bpf(workspace)?;
    let mut build = bpf_cargo(workspace, "build")?;
    build.arg("--release");
    for object in OBJECTS {
        build.args(["--bin", object]);
    }
    progress::run_cargo(&mut build, "building the XDP program")?;
    let built = bpf_target_dir(workspace).join(TARGET).join("release");
    fs::create_dir_all(workspace.bpf_objects())
        .with_context(|| format!("cannot create {}", workspace.bpf_objects().display()))?;
    for object in OBJECTS {
        copy_if_changed(&built.join(object), &workspace.bpf_objects().join(object))?;
    }
    Ok(())
}

/// A cargo command for `lb-ebpf` on the BPF target. The pinned stable compiler builds `core` for it
/// once `RUSTC_BOOTSTRAP` allows `-Z build-std`.
pub(crate) fn bpf_cargo(workspace: &Workspace, subcommand: &str) -> Result<Command> {
    let mut command = cargo::command(workspace, subcommand);
    command
        .env("RUSTC_BOOTSTRAP", "1")
        // bpf-linker uses the compiler's own LLVM.
        .env("LD_LIBRARY_PATH", Rustc::ask(workspace)?.libraries())
        // The profile switches thin LTO off to save time, which is not what this program is for.
        .env("CARGO_PROFILE_RELEASE_LTO", "false")
        .env(
            "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER",
            workspace.bpf_linker(),
        )
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", RUSTFLAGS)
        .args([
            "--package",
            "lb-ebpf",
            "-Z",
            "build-std=core",
            "--target",
            TARGET,
            "--target-dir",
        ])
        .arg(bpf_target_dir(workspace));
    Ok(command)
}

fn bpf_target_dir(workspace: &Workspace) -> std::path::PathBuf {
    workspace.target().join("bpf-build")
}

/// Leaves the time stamp alone where nothing changed, so that what embeds the file is not built
/// again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let fresh = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|present| present == fresh) {
        return Ok(());
    }
    fs::write(to, fresh).with_context(|| format!("cannot write {}", to.display()))
}

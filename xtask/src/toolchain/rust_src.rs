//! The sources of Rust's `core`: rustup's component, or else the Debian package of the same
//! version.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use lb_lab::wait::wait_until;

use super::{Rustc, debian};
use crate::progress;
use crate::workspace::Workspace;

/// How long rustup may take. Where its host cannot be reached it tries for minutes.
const RUSTUP_TIMEOUT: Duration = Duration::from_secs(30);

/// Where `-Z build-std` looks for the sources, from the sysroot.
const LIBRARY: &str = "lib/rustlib/src/rust/library";

/// Brings the sources unless they are there.
pub(super) fn ensure_present(workspace: &Workspace, rustc: &Rustc) -> Result<()> {
    if is_present(&rustc.sysroot) {
        return Ok(());
    }
    let Err(rustup_error) = from_rustup(workspace, rustc) else {
        return Ok(());
    };
    from_debian(workspace, rustc).with_context(|| {
        format!(
            "no sources of Rust's core, which is built for the BPF target (rustup: {rustup_error:#}); \
             run `rustup component add rust-src`, then this task again"
        )
    })
}

fn is_present(sysroot: &Path) -> bool {
    sysroot.join(LIBRARY).join("core/src/lib.rs").is_file()
}

fn from_rustup(workspace: &Workspace, rustc: &Rustc) -> Result<()> {
    progress::step(
        "adding rustup's component rust-src: core is built from source for the BPF target",
    );
    let mut rustup = Command::new("rustup")
        .args(["component", "add", "rust-src"])
        .current_dir(workspace.root())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("cannot start rustup")?;
    let waited = wait_until("rustup to bring rust-src", RUSTUP_TIMEOUT, || {
        rustup.try_wait().context("cannot wait for rustup")
    });
    let Ok(status) = waited else {
        end(&mut rustup)?;
        bail!("not done after {} s", RUSTUP_TIMEOUT.as_secs());
    };
    ensure!(
        status.success(),
        "`rustup component add rust-src` failed ({status})"
    );
    ensure!(
        is_present(&rustc.sysroot),
        "`rustup component add rust-src` was done, but not for the toolchain in {}",
        rustc.sysroot.display()
    );
    Ok(())
}

fn end(child: &mut Child) -> Result<()> {
    child.kill().context("cannot end rustup")?;
    child.wait().context("cannot wait for rustup's end")?;
    Ok(())
}

fn from_debian(workspace: &Workspace, rustc: &Rustc) -> Result<()> {
    progress::step(&format!(
        "rustup cannot bring it: taking the same sources from Debian's package rust-src {}",
        rustc.release
    ));
    let scratch = workspace.target().join("rust-src");
    let unpacked = debian::fetch_rust_src(&scratch, &rustc.release)?;
    let library = unpacked.join(format!("usr/src/rustc-{}/library", rustc.release));
    ensure!(
        library.join("core/src/lib.rs").is_file(),
        "Debian's package has no {}",
        library.display()
    );
    install(&library, &rustc.sysroot)?;
    fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))
}

/// Copies `library` into the sysroot under another name first, so that a copy cut short is not
/// taken for the whole.
fn install(library: &Path, sysroot: &Path) -> Result<()> {
    let wanted = sysroot.join(LIBRARY);
    let partial = PathBuf::from(format!("{}.partial", wanted.display()));
    let parent = wanted
        .parent()
        .context("the sources' directory has no parent")?;
    fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
    for stale in [&partial, &wanted] {
        if stale.exists() {
            fs::remove_dir_all(stale)
                .with_context(|| format!("cannot remove {}", stale.display()))?;
        }
    }
    let status = Command::new("cp")
        .arg("-a")
        .arg(library)
        .arg(&partial)
        .status()?;
    ensure!(
        status.success(),
        "cannot copy the sources to {}",
        partial.display()
    );
    fs::rename(&partial, &wanted).with_context(|| format!("cannot create {}", wanted.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn install_replaces_what_is_incomplete() {
        let scratch = lb_lab::scratch::ScratchDir::new("rust-src").unwrap();
        let (library, sysroot) = (
            scratch.path().join("library"),
            scratch.path().join("sysroot"),
        );
        fs::create_dir_all(library.join("core/src")).unwrap();
        fs::write(library.join("core/src/lib.rs"), "").unwrap();
        fs::create_dir_all(sysroot.join(LIBRARY).join("core")).unwrap();
        assert!(!is_present(&sysroot));
        install(&library, &sysroot).unwrap();
        assert!(is_present(&sysroot));
    }
}

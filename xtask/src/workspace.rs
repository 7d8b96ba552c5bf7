//! Where things are in the project's tree.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// The project's tree. Everything that a task writes lies under its `target/`.
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// Finds the tree that this xtask was built from.
    pub(crate) fn locate() -> Result<Self> {
        let xtask = env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        let root = xtask
            .parent()
            .context("xtask's directory has no parent")?
            .to_path_buf();
        ensure!(
            root.join("lb-ebpf/Cargo.toml").is_file(),
            "{} is not the project's tree: lb-ebpf/Cargo.toml is not in it; \
             start this task as `cargo xtask …` from inside the tree",
            root.display()
        );
        Ok(Self { root })
    }

    /// The directory of the workspace's `Cargo.toml`.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The build directory, shared by all tasks.
    pub(crate) fn target(&self) -> PathBuf {
        self.root.join("target")
    }

    /// The root that build tools are installed into (`bin/` lies in it).
    pub(crate) fn tools(&self) -> PathBuf {
        self.target().join("tools")
    }

    /// The linker for the XDP program.
    pub(crate) fn bpf_linker(&self) -> PathBuf {
        self.tools().join("bin/bpf-linker")
    }

    /// Where `lb-userspace/build.rs` looks for the finished BPF objects.
    pub(crate) fn bpf_objects(&self) -> PathBuf {
        self.target().join("bpf")
    }

    /// The release build of the program `name`.
    pub(crate) fn release(&self, name: &str) -> PathBuf {
        self.target().join("release").join(name)
    }

    /// `path` as a person in the tree's root would write it.
    pub(crate) fn short<'a>(&self, path: &'a Path) -> std::path::Display<'a> {
        path.strip_prefix(&self.root).unwrap_or(path).display()
    }
}

//! A directory of one's own, gone when it is dropped.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory for configurations, logs and sockets.
#[derive(Debug)]
pub struct ScratchDir {
    path: PathBuf,
    is_kept: bool,
}

impl ScratchDir {
    /// Creates one below the system's directory for temporary files. `purpose` becomes part of its
    /// name.
    pub fn new(purpose: &str) -> Result<Self> {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::at(env::temp_dir().join(format!("lb-{purpose}-{}-{number}", process::id())))
    }

    /// Creates the directory `path`, empty: what was there before is removed.
    pub fn at(path: PathBuf) -> Result<Self> {
        if path.exists() {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot remove {}", path.display()))?;
        }
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self {
            path,
            is_kept: false,
        })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file `name` and returns its path.
    pub fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    }

    /// Leaves the directory standing.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }
}

impl Drop for ScratchDir {
    fn drop(&mut self) {
        if !self.is_kept {
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

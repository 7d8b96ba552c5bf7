//! What an event acts on.

use std::path::PathBuf;

use anyhow::Result;

use super::stage::Stage;
use super::traffic::Traffic;

/// The stage and the traffic on it, while an event happens.
pub struct Scene<'a> {
    /// The site.
    pub stage: &'a mut Stage,
    /// What goes on.
    pub traffic: &'a Traffic,
    /// The directory of another build of lbd.
    pub other_build: Option<PathBuf>,
    /// Where random changes begin.
    pub seed: u64,
    /// Backends whose servers were killed: their connections break, and that is no fault.
    pub dead: Vec<u8>,
    /// What is worth a line under the table.
    pub notes: Vec<String>,
}

impl Scene<'_> {
    /// Runs an `lbctl` command for every service ([`Stage::ctl_all`]).
    pub fn ctl(&self, words: &[&str], backend: u8) -> Result<()> {
        self.stage.ctl_all(words, backend)
    }
}

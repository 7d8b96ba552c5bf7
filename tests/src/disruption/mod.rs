//! The disruption proof: real connections of all kinds, and what becomes of them when backends come
//! and go and when the daemon is reloaded, killed, upgraded.
//!
//! [`stage`] is the site, [`traffic`] the clients, [`event`] what happens; [`run`] takes one step
//! after another, and [`outcome`] counts what each has cost.

mod backends;
mod daemon;
pub mod event;
pub mod flood;
pub mod lane;
pub mod outcome;
pub mod record;
pub mod report;
pub mod run;
pub mod scene;
pub mod server;
pub mod stage;
pub mod traffic;
mod wild;

use anyhow::{Context, Result};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Lets this process, and those that it starts, open as many files as the machine lets them: each
/// connection is one.
pub fn raise_descriptor_limit() -> Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).context("no limit of open files")?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)
        .with_context(|| format!("cannot raise the limit of open files to {hard}"))
}

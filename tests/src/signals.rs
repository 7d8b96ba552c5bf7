//! Cleaning up when a person presses Ctrl-C.

use std::process;
use std::thread;

use anyhow::{Context, Result};
use nix::sys::signal::{SigSet, Signal};

/// The exit code that shells use for "ended by Ctrl-C" (128 + SIGINT).
const EXIT_CODE: i32 = 130;

/// Has `clean_up` called when this process is asked to end (SIGINT, SIGTERM, SIGHUP); the process ends
/// after it. To be called before other threads are started, so that all of them leave the signals to
/// this one's. [`crate::process::Process`] clears the mask for the programs that it starts.
pub fn on_end_signal(clean_up: impl FnOnce() + Send + 'static) -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block().context("cannot block signals")?;
    thread::spawn(move || {
        if signals.wait().is_ok() {
            clean_up();
            process::exit(EXIT_CODE);
        }
    });
    Ok(())
}

//! The process `lbd-vrrp`: one thread that speaks VRRP and puts VIPs onto interfaces.
//!
//! It waits for packets, news of links, orders and deadlines, in one place ([`driver`]), and does what the machines
//! ([`super::machine`]) say. It never waits for anybody else: not for `lbd`, not for the reader of its log.
//!
//! What it has done is in a file beside its socket, so that a successor, after a `kill -9` or for an upgrade, goes on
//! where it was: VIPs stay, an Active router stays Active.

mod advert_socket;
mod args;
mod check;
mod claims;
mod clock;
mod condition;
mod configure;
mod control;
mod devices;
mod disputes;
mod driver;
mod leftovers;
mod log;
mod memory;
mod missing;
mod neighbour_probe;
mod orders;
mod outputs;
mod ports;
mod properties;
mod run;
mod signals;
mod status;
mod surroundings;
mod vips;
mod virtual_mac;
mod wait;

use std::process::ExitCode;

use anyhow::Context;
use clap::Parser;
use tracing::{error, info};

pub use self::leftovers::take_off;

use self::args::Args;
use self::driver::Driver;
use self::log::Log;
use self::signals::Signals;

/// The version, as `lbd-vrrp --version` tells it.
pub const VERSION: &str = env!("LB_VERSION");

/// Runs `lbd-vrrp` with the words of the command line.
pub fn main() -> ExitCode {
    let args = Args::parse();
    // Before any thread is there: all are to leave the signals to the loop.
    let signals = Signals::catch();
    let log = match Log::start(&args) {
        Ok(log) => log,
        Err(error) => {
            eprintln!("error: cannot start the log: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = signals
        .context("cannot catch signals")
        .and_then(|signals| serve(&args, signals));
    let code = match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    };
    drop(log);
    code
}

fn serve(args: &Args, signals: Signals) -> anyhow::Result<()> {
    let mut driver = Driver::open(&args.socket, signals)?;
    info!(socket = %args.socket.display(), version = VERSION, "ready");
    driver.serve()
}

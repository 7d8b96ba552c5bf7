//! Words about backends' lives, flows and rings.

use clap::Subcommand;

use super::{BackendName, words};
use crate::model::{Health, text};

/// A backend to be taken out of service.
#[derive(Debug, clap::Args)]
pub(in crate::ctl) struct TakeOut {
    #[command(flatten)]
    pub(in crate::ctl) backend: BackendName,
    /// New flows stop at once, at the price of handshakes under way
    #[arg(long)]
    pub(in crate::ctl) strict: bool,
}

#[derive(Debug, clap::Args)]
pub(in crate::ctl) struct Drain {
    #[command(flatten)]
    pub(in crate::ctl) take_out: TakeOut,
    /// Waits until no flow is left, but no longer than this, such as 60s or 15m
    #[arg(long, value_name = "TIME", value_parser = text::duration_s)]
    pub(in crate::ctl) wait: Option<i64>,
}

#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum HealthCommand {
    /// Lists what checks have found
    List {
        /// Of this service alone
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
    },
    /// Shows the checks of a backend, their last answers and the last changes
    Show {
        /// The backend's name
        backend: String,
        /// Of this service alone
        #[arg(long, value_name = "NAME")]
        service: Option<String>,
    },
    /// Says whether a backend answers, if no check does
    Set(HealthSet),
}

/// What somebody knows of a backend.
#[derive(Debug, clap::Args)]
pub(in crate::ctl) struct HealthSet {
    #[command(flatten)]
    pub(in crate::ctl) backend: BackendName,
    /// What is known; `unknown` counts as up
    #[arg(value_parser = words::<Health>())]
    pub(in crate::ctl) state: String,
}

/// What has happened.
#[derive(Debug, clap::Args)]
pub(in crate::ctl) struct EventsArgs {
    /// Goes on with what happens
    #[arg(short, long)]
    pub(in crate::ctl) follow: bool,
}

#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum FlowCommand {
    /// Lists the live flows on record
    List {
        #[command(flatten)]
        whose: FlowsOf,
        /// Lists no more than this
        #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(..=100_000))]
        limit: u32,
    },
    /// Counts the live flows on record
    Count(FlowsOf),
}

#[derive(Debug, clap::Args)]
pub(in crate::ctl) struct FlowsOf {
    /// Of this service alone
    #[arg(long, value_name = "NAME")]
    pub(in crate::ctl) service: Option<String>,
    /// Of backends of this name alone
    #[arg(long, value_name = "NAME")]
    pub(in crate::ctl) backend: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum RingCommand {
    /// Shows the share of each backend, and the slots in transition
    Show {
        /// The service's name
        service: String,
    },
}

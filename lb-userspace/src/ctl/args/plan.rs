//! Words about changes to come.

use std::path::PathBuf;

use clap::Subcommand;

use super::lives::{HealthSet, TakeOut};
use super::{BackendAdd, BackendName, ServiceAdd};

/// The changes, in the words that make them.
#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum PlanCommand {
    /// A change of a service
    #[command(subcommand)]
    Service(PlanService),
    /// A change of a backend
    #[command(subcommand)]
    Backend(PlanBackend),
    /// A change of a backend's health
    #[command(subcommand)]
    Health(PlanHealth),
}

#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum PlanHealth {
    /// Somebody says whether a backend answers
    Set(HealthSet),
}

#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum PlanService {
    /// Adding a service
    Add(Box<ServiceAdd>),
    /// Removing a service and its backends
    Remove {
        /// The service's name
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum PlanBackend {
    /// Adding a backend to a service
    Add(BackendAdd),
    /// Changing a backend
    Set {
        #[command(flatten)]
        backend: BackendName,
        /// The new weight, 1 to 1000
        #[arg(long)]
        weight: u32,
    },
    /// Changing a backend's weight
    Weight {
        #[command(flatten)]
        backend: BackendName,
        /// The new weight, 1 to 1000
        weight: u32,
    },
    /// Draining a backend
    Drain(TakeOut),
    /// Putting a backend back into service
    Ready(BackendName),
    /// Taking a backend into maintenance
    Maint(TakeOut),
    /// Removing a backend
    Remove(BackendName),
}

#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum ConfigCommand {
    /// Tells what a reload of a config file would do
    Diff {
        /// The file
        file: PathBuf,
    },
}

//! The events of the proof, each a sequence of steps; a step is a row of the table.

use anyhow::Result;
use clap::ValueEnum;

use super::scene::Scene;
use super::{backends, daemon};

/// Something that happens while connections go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Event {
    /// Nothing: what the machine itself does to the figures
    Nothing,
    /// A backend is added, and removed
    Add,
    /// A backend gets three times its weight, and loses it again
    Weight,
    /// A backend is drained, and readied
    Drain,
    /// A backend's servers die, and live again
    Death,
    /// Thirty random changes in a row
    Random,
    /// All backends are replaced one after another, and replaced back
    Rolling,
    /// The configuration file changes and lbd reads it again (SIGHUP), and once more
    Reload,
    /// lbd is stopped and started (SIGTERM)
    Restart,
    /// lbd is killed and started (SIGKILL)
    Kill,
    /// lbd is replaced by another build, and by the first one again
    Upgrade,
    /// lbd dies after each single write of a change
    Abort,
}

/// What a step concerns, and so what it must not cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concerns {
    /// Backends: no connection may break, but those of a backend that died itself.
    Backends,
    /// The daemon: no packet may be lost either.
    Daemon,
}

/// A step of an event.
#[derive(Clone, Copy)]
pub struct Step {
    /// What happens, as the table says it.
    pub name: &'static str,
    /// What it concerns.
    pub concerns: Concerns,
    /// Makes it happen, and returns when it has.
    pub act: fn(&mut Scene<'_>) -> Result<()>,
}

const fn step(
    name: &'static str,
    concerns: Concerns,
    act: fn(&mut Scene<'_>) -> Result<()>,
) -> Step {
    Step {
        name,
        concerns,
        act,
    }
}

use Concerns::{Backends, Daemon};

impl Event {
    /// Its steps, in their order. After the last one everything is as it was before the first.
    pub fn steps(self) -> &'static [Step] {
        match self {
            Self::Nothing => const { &[step("nothing", Daemon, backends::nothing)] },
            Self::Add => {
                const {
                    &[
                        step("backend added", Backends, backends::add),
                        step("backend removed", Backends, backends::remove),
                    ]
                }
            }
            Self::Weight => {
                const {
                    &[
                        step(
                            "backend's weight tripled",
                            Backends,
                            backends::triple_weight,
                        ),
                        step("… and put back", Backends, backends::put_weight_back),
                    ]
                }
            }
            Self::Drain => {
                const {
                    &[
                        step("backend drained", Backends, backends::drain),
                        step("backend readied", Backends, backends::ready),
                    ]
                }
            }
            Self::Death => {
                const {
                    &[
                        step("backend killed", Backends, backends::die),
                        step("backend revived", Backends, backends::live_again),
                    ]
                }
            }
            Self::Random => {
                const {
                    &[step(
                        "30 random changes",
                        Backends,
                        backends::random_changes,
                    )]
                }
            }
            Self::Rolling => {
                const {
                    &[
                        step("all backends replaced", Backends, backends::replace_all),
                        step("… and replaced back", Backends, backends::replace_all_back),
                    ]
                }
            }
            Self::Reload => {
                const {
                    &[
                        step("reload of a changed file", Daemon, daemon::reload_changed),
                        step("reload of the first file", Daemon, daemon::reload_first),
                    ]
                }
            }
            Self::Restart => const { &[step("restart", Daemon, daemon::restart)] },
            Self::Kill => const { &[step("kill -9 and start", Daemon, daemon::kill)] },
            Self::Upgrade => {
                const {
                    &[
                        step("upgrade", Daemon, daemon::upgrade),
                        step("downgrade", Daemon, daemon::downgrade),
                    ]
                }
            }
            Self::Abort => {
                const { &[step("change interrupted", Daemon, daemon::interrupt_change)] }
            }
        }
    }
}

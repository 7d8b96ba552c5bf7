//! Ways for a web server to die, and to come back.

use std::fmt;

use anyhow::Result;
use clap::ValueEnum;
use nix::sys::signal::Signal;

use crate::firewall;
use crate::nginx::Nginx;
use crate::site::Site;

/// How a backend dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Death {
    /// Its server is killed: connections are refused
    Stopped,
    /// Its server is suspended: the kernel accepts connections, and nobody answers
    Hung,
    /// Its packet filter drops whatever arrives
    Filtered,
}

impl Death {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Stopped, Self::Hung, Self::Filtered];

    /// Has backend `index` of the site die. It is dead when this returns.
    pub fn strike(self, site: &mut Site, index: usize) -> Result<()> {
        match self {
            Self::Stopped => site.nginx[index].process().signal_all(Signal::SIGKILL),
            Self::Hung => site.nginx[index].process().signal_all(Signal::SIGSTOP),
            Self::Filtered => firewall::close(&site.net.backends[index].netns, "drop"),
        }
    }

    /// Has it live again.
    pub fn undo(self, site: &mut Site, index: usize) -> Result<()> {
        match self {
            Self::Stopped => {
                site.nginx[index].process().kill9_all()?;
                let backend = &site.net.backends[index];
                site.nginx[index] = Nginx::start(&backend.name, &backend.netns, &[80])?;
                Ok(())
            }
            Self::Hung => site.nginx[index].process().signal_all(Signal::SIGCONT),
            Self::Filtered => firewall::open(&site.net.backends[index].netns),
        }
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Stopped => "stopped",
            Self::Hung => "hung",
            Self::Filtered => "filtered",
        })
    }
}

//! What one balancer of a pair can be asked to do, whoever made it.

use anyhow::{Result, bail};
use nix::unistd::Pid;

use super::ground::Ground;
use crate::disruption::traffic::HasDatagrams;

/// Who made a balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maker {
    /// We did: `lbd` with its VRRP process.
    Ours,
    /// Others did: HAProxy with keepalived.
    Rival,
}

impl Maker {
    /// What its balancers are called in errors.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Rival => "keepalived + HAProxy",
        }
    }
}

/// One of the two processes of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// What balances, or decides about it.
    Daemon,
    /// What speaks VRRP.
    Vrrp,
}

/// Whether a backend gets new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admin {
    /// It does.
    Ready,
    /// It does not.
    Drain,
}

/// Where a node's peer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerIs {
    /// At the other end of a link that works.
    There,
    /// It is off, or the link does not work, or it knows of no such link.
    Away,
}

/// A build of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// The one that is measured.
    Own,
    /// The one that it is upgraded to, and from.
    Other,
}

/// One of two balancers, in its place on a ground. Dropping it ends it.
pub trait Node {
    /// Who made it.
    fn maker(&self) -> Maker;

    /// Whether it carries UDP.
    fn has_datagrams(&self) -> HasDatagrams;

    /// Kills everything on it.
    fn kill_all(&mut self, ground: &Ground) -> Result<()>;

    /// Starts everything on a machine that has just been switched on.
    fn start(&mut self, ground: &Ground) -> Result<()>;

    /// Kills what balances, or decides about it.
    fn kill_daemon(&mut self, ground: &Ground) -> Result<()>;

    /// Starts it again.
    fn start_daemon(&mut self, ground: &Ground) -> Result<()>;

    /// Kills what speaks VRRP.
    fn kill_vrrp(&mut self, ground: &Ground) -> Result<()>;

    /// Starts it again, if nobody else has.
    fn start_vrrp(&mut self, ground: &Ground) -> Result<()>;

    /// Whether it keeps the VIPs after the death of that part.
    fn outlives(&self, part: Part) -> bool;

    /// Stops everything in good order.
    fn stop(&mut self, ground: &Ground) -> Result<()>;

    /// Whether it has ended, or was ended.
    fn is_off(&mut self) -> bool;

    /// Waits until it knows what it needs to know to stand in for the other one.
    fn wait_ready(&mut self, peer: PeerIs) -> Result<()>;

    /// The processes that are that part.
    fn pids(&mut self, ground: &Ground, part: Part) -> Result<Vec<Pid>>;

    /// Hands the VIPs over to the other node, on somebody's order.
    fn hand_over(&mut self) -> Result<()> {
        bail!("{} cannot hand VIPs over on an order", self.maker().word())
    }

    /// Changes the last backend of every service, on an order; returns before the change is done.
    fn change_backends(&mut self, _to: Admin) -> Result<()> {
        bail!("{} cannot change backends on an order", self.maker().word())
    }

    /// Replaces its programs by those of a build, and starts them.
    fn replace(&mut self, _ground: &Ground, _by: Build) -> Result<()> {
        bail!(
            "{} cannot be replaced by another build",
            self.maker().word()
        )
    }

    /// Steps the wall clock that its processes see.
    fn step_clock(&mut self, _by_s: i64) -> Result<()> {
        bail!("{} has no clock of its own", self.maker().word())
    }

    /// What its processes have said last, for an error.
    fn log(&self) -> String;
}

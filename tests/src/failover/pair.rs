//! What a pair of balancers can be asked to do, whoever made it.

use anyhow::{Result, bail};
use nix::unistd::Pid;

use super::ground::Ground;
use crate::disruption::traffic::HasDatagrams;
use crate::topology::NodeId;

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

/// Two balancers on a ground, of which lb1 has the VIPs while it can. Dropping it ends both.
pub trait Pair {
    /// What it is called in tables.
    fn word(&self) -> &'static str;

    /// Whether it carries UDP.
    fn has_datagrams(&self) -> HasDatagrams;

    /// Kills everything on a node.
    fn kill_all(&mut self, ground: &Ground, node: NodeId) -> Result<()>;

    /// Starts everything on a node that has just been switched on.
    fn start(&mut self, ground: &Ground, node: NodeId) -> Result<()>;

    /// Kills what balances, or decides about it, on a node.
    fn kill_daemon(&mut self, ground: &Ground, node: NodeId) -> Result<()>;

    /// Starts it again.
    fn start_daemon(&mut self, ground: &Ground, node: NodeId) -> Result<()>;

    /// Who has the VIPs while the daemon of lb1 is dead.
    fn without_daemon(&self) -> NodeId;

    /// Kills what speaks VRRP on a node.
    fn kill_vrrp(&mut self, ground: &Ground, node: NodeId) -> Result<()>;

    /// Starts it again, if nobody else has.
    fn start_vrrp(&mut self, ground: &Ground, node: NodeId) -> Result<()>;

    /// Who has the VIPs after the VRRP process of lb1 has died.
    fn without_vrrp(&self) -> NodeId;

    /// Stops everything on a node in good order.
    fn stop(&mut self, ground: &Ground, node: NodeId) -> Result<()>;

    /// Waits until both nodes know what they need to know to stand in for each other.
    fn wait_ready(&mut self, ground: &Ground) -> Result<()>;

    /// The processes that are a part of a node.
    fn pids(&mut self, ground: &Ground, node: NodeId, part: Part) -> Result<Vec<Pid>>;

    /// Hands the VIPs over to the other node, on somebody's order.
    fn hand_over(&mut self, _ground: &Ground, _from: NodeId) -> Result<()> {
        bail!("{} cannot hand VIPs over on an order", self.word())
    }

    /// Changes the last backend of every service, by an order to one node; returns before the change is done.
    fn change_backends(&mut self, _ground: &Ground, _node: NodeId, _to: Admin) -> Result<()> {
        bail!("{} cannot change backends on an order", self.word())
    }

    /// Replaces the programs of a node by another build.
    fn upgrade(&mut self, _ground: &Ground, _node: NodeId) -> Result<()> {
        bail!("{} cannot be upgraded", self.word())
    }

    /// Steps the wall clock that the processes of a node see.
    fn step_clock(&mut self, _node: NodeId, _by_s: i64) -> Result<()> {
        bail!("{} has no clock of its own", self.word())
    }

    /// What its processes have said last, for an error.
    fn logs(&self) -> String;
}

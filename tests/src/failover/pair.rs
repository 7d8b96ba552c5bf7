//! What a pair of balancers can be asked to do, whoever made it.

use anyhow::{Result, bail};

use super::ground::Ground;
use crate::disruption::traffic::HasDatagrams;
use crate::topology::NodeId;

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

    /// Hands the VIPs over to the other node, on somebody's order.
    fn hand_over(&mut self, _ground: &Ground, _from: NodeId) -> Result<()> {
        bail!("{} cannot hand VIPs over on an order", self.word())
    }

    /// What its processes have said last, for an error.
    fn logs(&self) -> String;
}

//! Words about VIPs that move, and the nodes that they move between.

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum VipCommand {
    /// Lists the VRRP groups: who has the VIPs, since when and why
    List {
        /// With interfaces, reasons and counters
        #[arg(short, long)]
        wide: bool,
    },
    /// Hands a group's VIPs over to a peer, without a gap; waits for the outcome
    ///
    /// The peer with the highest priority takes over, and keeps the VIPs, whatever `preempt` says: until it fails,
    /// until `lbctl vip failover` is said there, or until this node's configured priority is changed or it boots anew.
    Failover {
        /// The group's name
        group: String,
    },
}

#[derive(Debug, Subcommand)]
pub(in crate::ctl) enum PeerCommand {
    /// Shows this node among its peers: roles, versions, links, what is not yet shared, drift
    Status,
}

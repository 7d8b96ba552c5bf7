//! VIPs that move, and the nodes that they move between.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::control::peers::{PeerView, SharedRing};
use crate::vrrp::protocol::{Dispute, RouterCounters};

/// The VIPs that move between nodes, and the process that moves them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Vips {
    /// The process; null while it has not said anything.
    pub process: Option<VrrpProcess>,
    /// The virtual routers, by group and family.
    pub routers: Vec<VirtualRouter>,
}

/// `lbd-vrrp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VrrpProcess {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Since it began. Unit: milliseconds.
    pub uptime_ms: u64,
    /// Whether it has real-time priority.
    pub is_realtime: bool,
}

/// A group's VIPs of one family.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VirtualRouter {
    /// The group's name.
    pub group: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// The interface.
    pub interface: String,
    /// The virtual router's id.
    pub vrid: u8,
    /// The VIPs.
    pub vips: Vec<String>,
    /// `active` (this node has the VIPs), `backup`, `initialize` (it takes no part: it is in fault), or `unknown`
    /// while `lbd-vrrp` has not said anything.
    pub state: String,
    /// Since when. Unit: milliseconds since 1970, UTC; null while unknown.
    pub since_unix_ms: Option<u64>,
    /// Since when. Unit: milliseconds ago; null while unknown.
    pub since_ms: Option<u64>,
    /// Why it is in this state, in words.
    pub reason: String,
    /// The priority at present; 0 = it is in fault.
    pub priority: u8,
    /// The configured priority.
    pub priority_configured: u8,
    /// Why the priority is lower than configured, or why it is in fault.
    pub troubles: Vec<String>,
    /// The address that the Active one advertises from, if it is another.
    pub active: Option<String>,
    /// The node that says that it is Active, if it is a peer.
    pub active_node: Option<String>,
    /// The Active one's priority, if it is another.
    pub active_priority: Option<u8>,
    /// Why it does not take over although it would by silence or by priority, if so.
    pub held: Option<String>,
    /// Who advertises and is not believed here, or does not believe this node, with the way out; null: nobody does.
    #[serde(default)]
    pub distrusted: Option<String>,
    /// Between two advertisements. Unit: milliseconds.
    pub interval_ms: u32,
    /// Whether advertisements are authenticated.
    pub authenticate: bool,
    /// The last claim of somebody else to a VIP while it was Active here, if there was one.
    #[serde(default)]
    pub dispute: Option<Dispute>,
    /// Counted since `lbd-vrrp` began.
    pub counters: RouterCounters,
}

/// A group was handed over.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FailoverDone {
    /// The group's name.
    pub group: String,
    /// What has happened, in words.
    pub text: String,
    /// From the request to the outcome. Unit: milliseconds.
    pub took_ms: f64,
}

/// When a VIP last came here, or went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LastFailover {
    /// The group's name.
    pub group: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// What this node was: `active`, `backup` or `initialize`.
    pub from: String,
    /// What it is since.
    pub to: String,
    /// When. Unit: milliseconds since 1970, UTC.
    pub unix_ms: u64,
    /// Why.
    pub reason: String,
}

/// This node among its peers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Peers {
    /// This node's name.
    pub node: String,
    /// The version of its `lbd`.
    pub version: String,
    /// The version of its `lbd-vrrp`; null while it has not said anything.
    pub vrrp_version: Option<String>,
    /// Where peers connect to.
    pub listen: String,
    /// The fingerprint of the flow hash key, the same on all nodes.
    pub hash_key: String,
    /// Why it has not caught up with its peers; null if it has.
    pub behind: Option<String>,
    /// Its part in each group.
    pub roles: Vec<GroupRole>,
    /// When a VIP last came here, or went; null if none has since `lbd` began.
    pub last_failover: Option<LastFailover>,
    /// The peers by name.
    pub peers: Vec<PeerView>,
    /// How each service's ring is shared.
    pub rings: Vec<SharedRing>,
    /// What peers have changed at run time and cannot be in force here, each with the reason.
    pub refused_changes: Vec<String>,
}

/// A node's part in a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GroupRole {
    /// The group's name.
    pub group: String,
    /// `ipv4` or `ipv6`.
    pub family: String,
    /// `active`, `backup`, `initialize` or `unknown`.
    pub state: String,
    /// Since when. Unit: milliseconds since 1970, UTC; null while unknown.
    pub since_unix_ms: Option<u64>,
}

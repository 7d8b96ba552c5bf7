//! What `lbd` and `lbd-vrrp` tell each other: one JSON object a line, over a unix socket.
//!
//! `lbd` sends [`ToVrrp`], `lbd-vrrp` answers with [`FromVrrp`] and sends a status unasked whenever it changes.
//! Keys are only added, so that either side may be upgraded first.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where `lbd-vrrp` listens: the path of `lbd`'s socket with this behind it.
pub const SOCKET_SUFFIX: &str = ".vrrp";

/// From `lbd` to `lbd-vrrp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ToVrrp {
    /// The groups from now on: those that are not named any more are given up.
    Configure(Configuration),
    /// What `lbd` knows, sent at each change and once every heartbeat.
    Facts(Facts),
    /// Hand a group over to a peer, gracefully; answered with [`FromVrrp::Answer`].
    Failover {
        /// The group's name.
        group: String,
        /// Repeated in the answer.
        request: u64,
    },
    /// Hand everything over, withdraw the VIPs, and end.
    Stop,
}

/// What `lbd-vrrp` is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// This node's name.
    pub node: String,
    /// The groups.
    pub groups: Vec<Group>,
    /// The key of authenticated advertisements, 64 hexadecimal digits, derived from the cluster's secret; without
    /// one, no group may authenticate.
    pub key: Option<String>,
    /// Where `lbd` has pinned the datapath: without its daemon, what is attached there tells whether this node
    /// can serve.
    pub pins: Option<String>,
    /// VIPs of groups that `lbd` has put onto this node's interfaces itself, before they were any group's, and where:
    /// they are `lbd-vrrp`'s from now on. Named until it has said that it has taken them over
    /// ([`Status::taken_vips`]), so that at no moment nobody knows whose they are.
    #[serde(default)]
    pub given_vips: BTreeMap<IpAddr, Place>,
}

/// Where an address was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The interface's name at that time.
    pub interface: String,
    /// Its index, which outlives a change of the name.
    pub ifindex: u32,
}

/// A group, as [`crate::model::cluster::VrrpGroup`] has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// The interface.
    pub interface: String,
    /// The virtual router's id.
    pub vrid: u8,
    /// The VIPs.
    pub vips: Vec<IpAddr>,
    /// The configured priority.
    pub priority: u8,
    /// Between two advertisements. Unit: centiseconds.
    pub interval_cs: u16,
    /// Whether to take over from an Active of lower priority.
    pub preempt: bool,
    /// How long to wait before that. Unit: milliseconds.
    pub preempt_delay_ms: u32,
    /// Unicast peers; empty: multicast.
    pub peers: Vec<IpAddr>,
    /// Addresses to send from, at most one of each family.
    pub sources: Vec<IpAddr>,
    /// Whether the node answers at the VIPs.
    pub accept: bool,
    /// Whether the VIPs have the virtual router's Ethernet address.
    pub virtual_mac: bool,
    /// Whether advertisements are authenticated.
    pub authenticate: bool,
    /// What lowers the priority.
    pub tracks: Vec<Track>,
}

/// Something that lowers a group's priority while it is not well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Track {
    /// What.
    pub what: Tracked,
    /// By how much; `None`: the node gives the VIPs up.
    pub weight: Option<u8>,
}

/// What can be tracked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tracked {
    /// An interface, by name.
    Interface(String),
    /// A service's backends that get new flows.
    Service {
        /// Its name.
        name: String,
        /// So many at least.
        live_backends_min: u32,
    },
}

/// What `lbd` knows and `lbd-vrrp` does not. Ages count from the moment of sending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Facts {
    /// Why the datapath cannot serve, if so.
    pub datapath_trouble: Option<String>,
    /// By interface, why it cannot serve; those that can are not in it.
    #[serde(default)]
    pub unwell: BTreeMap<String, String>,
    /// Why this node has not caught up with its peers, if so: it does not become Active then while one of them lives.
    pub behind: Option<String>,
    /// By service, the backends that get new flows.
    pub live_backends: BTreeMap<String, u32>,
    /// What the peers say over the sync link.
    pub peers: Vec<PeerFacts>,
}

/// What a peer says over the sync link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerFacts {
    /// Its name.
    pub node: String,
    /// Since its last heartbeat. Unit: milliseconds.
    pub heard_ms: u64,
    /// Between its heartbeats. Unit: milliseconds.
    pub heartbeat_ms: u32,
    /// Its virtual routers.
    pub routers: Vec<PeerRouter>,
}

/// A peer whose heartbeats have failed to come for so long is not waited for. Long enough for a link that loses nine
/// datagrams of ten; see [`silent_after`].
const SILENT_AFTER_MIN: Duration = Duration::from_secs(3);
/// The same, in heartbeats: where they come seldom.
const SILENT_AFTER_BEATS: u32 = 5;

/// After which a peer that says nothing is silent, by the time between its heartbeats.
pub fn silent_after(heartbeat_ms: u32) -> Duration {
    let beats = Duration::from_millis(heartbeat_ms.into()) * SILENT_AFTER_BEATS;
    beats.max(SILENT_AFTER_MIN)
}

/// A peer's virtual router, as its `lbd-vrrp` last told its `lbd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PeerRouter {
    /// The group's name.
    pub group: String,
    /// Its family.
    pub family: Family,
    /// Its state.
    pub state: State,
    /// Its priority at present; 0 = it is in fault.
    pub priority: u8,
    /// Whether its datapath serves, its interface is up, and nothing that it tracks without a weight is unwell,
    /// judged by its `lbd` itself.
    pub is_fit: bool,
}

/// An address family.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// IPv4.
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// The family of an address.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

/// The states of RFC 9568 section 6.4.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It takes no part: it has just begun, or something that it needs is not well.
    Initialize,
    /// Another one has the VIPs.
    Backup,
    /// It has the VIPs.
    Active,
}

/// From `lbd-vrrp` to `lbd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FromVrrp {
    /// How all routers are.
    Status(Status),
    /// What became of a request.
    Answer {
        /// The request's number.
        request: u64,
        /// Why it was refused, or has failed.
        error: Option<String>,
        /// What has happened, in words, if it was not.
        text: String,
    },
    /// A configuration was refused, as a whole; the former one holds.
    Refused {
        /// Why.
        reason: String,
    },
}

/// How `lbd-vrrp` is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Its version, as `lbd-vrrp --version` tells it.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Since it began. Unit: milliseconds.
    pub uptime_ms: u64,
    /// Whether it has real-time priority.
    pub is_realtime: bool,
    /// The virtual routers.
    pub routers: Vec<RouterStatus>,
    /// Those of [`Configuration::given_vips`] that are known here to be this node's own to remove: `lbd` can forget
    /// them.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub taken_vips: Vec<IpAddr>,
    /// It was told to end, and hands over what it has.
    #[serde(default)]
    pub is_stopping: bool,
}

/// How a virtual router is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouterStatus {
    /// The group's name.
    pub group: String,
    /// Its family.
    pub family: Family,
    /// The virtual router's id.
    pub vrid: u8,
    /// The VIPs.
    #[schema(value_type = Vec<String>)]
    pub vips: Vec<IpAddr>,
    /// Its state.
    pub state: State,
    /// Since when. Unit: milliseconds ago.
    pub since_ms: u64,
    /// Since when. Unit: milliseconds since 1970, UTC.
    pub since_unix_ms: u64,
    /// Why it is in this state, in words.
    pub reason: String,
    /// The configured priority.
    pub priority_configured: u8,
    /// The priority at present; 0 = in fault.
    pub priority: u8,
    /// Why the priority is lower than configured, or why the router is in fault: in words, one for each.
    pub troubles: Vec<String>,
    /// The Active one, if it is another.
    #[schema(value_type = Option<String>)]
    pub active: Option<IpAddr>,
    /// The Active one's priority.
    pub active_priority: Option<u8>,
    /// Why the router does not take over although it would by silence or by priority, if so.
    pub held: Option<String>,
    /// Who advertises and is not believed here, or does not believe this node, if somebody does: both may be Active.
    #[serde(default)]
    pub distrusted: Option<String>,
    /// The last claim of somebody else to a VIP while it was Active here, if there was one.
    #[serde(default)]
    pub dispute: Option<Dispute>,
    /// The last time that it became Active, or was so no more, since `lbd-vrrp` began; `None` = it never was.
    #[serde(default)]
    pub moved: Option<Moved>,
    /// Counted since `lbd-vrrp` began.
    pub counters: RouterCounters,
}

/// A change of state to or from Active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Moved {
    /// Its state before.
    pub from: State,
    /// Its state after.
    pub to: State,
    /// When. Unit: milliseconds since 1970, UTC.
    pub unix_ms: u64,
    /// Why, in words.
    pub reason: String,
}

/// Somebody else claimed a VIP, by ARP or neighbour discovery, while this node was Active.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Dispute {
    /// The VIP.
    #[schema(value_type = String)]
    pub vip: IpAddr,
    /// The Ethernet address at which it was said to be, such as `02:00:00:00:00:01`.
    pub by: String,
    /// When. Unit: milliseconds since 1970, UTC.
    pub unix_ms: u64,
}

/// What a virtual router counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RouterCounters {
    /// Times that it became Active.
    pub became_active: u64,
    /// Times that it became Backup.
    pub became_backup: u64,
    /// Advertisements sent.
    pub sent: u64,
    /// Valid advertisements received.
    pub received: u64,
    /// Packets refused: malformed, of another version, with a wrong hop limit or checksum.
    pub refused: u64,
    /// Packets refused because they were not authentic, or old.
    pub unauthentic: u64,
    /// Times that another one was Active, too.
    pub conflicts: u64,
    /// How long that was, in all. Unit: milliseconds.
    pub dual_active_ms: u64,
    /// VIPs that had gone from its interface while it was Active, and were put back.
    #[serde(default)]
    pub vips_restored: u64,
    /// Times that somebody else claimed a VIP while it was Active here, and the VIPs were announced again.
    #[serde(default)]
    pub disputes: u64,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A group about which there is nothing to say but this.
    pub(crate) fn group(name: &str, vrid: u8, vips: &[&str]) -> Group {
        Group {
            name: name.to_owned(),
            interface: "eth0".to_owned(),
            vrid,
            vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
            priority: 100,
            interval_cs: 100,
            preempt: true,
            preempt_delay_ms: 0,
            peers: Vec::new(),
            sources: Vec::new(),
            accept: true,
            virtual_mac: false,
            authenticate: false,
            tracks: Vec::new(),
        }
    }

    /// A router of the group `web`, likewise.
    pub(crate) fn router(state: State) -> RouterStatus {
        RouterStatus {
            group: "web".to_owned(),
            family: Family::Ipv4,
            vrid: 51,
            vips: Vec::new(),
            state,
            since_ms: 0,
            since_unix_ms: 0,
            reason: String::new(),
            priority_configured: 100,
            priority: 100,
            troubles: Vec::new(),
            active: None,
            active_priority: None,
            held: None,
            distrusted: None,
            dispute: None,
            moved: None,
            counters: RouterCounters::default(),
        }
    }
}

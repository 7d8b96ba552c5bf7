//! What the operator wants of this node as one of several: its peers, and the VIPs that move between them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

/// The interval of heartbeats on the sync link, if nothing else is said. Unit: milliseconds.
pub const HEARTBEAT_DEFAULT_MS: u32 = 100;
/// How long planned changes wait for a peer that is silent, if nothing else is said. Unit: seconds.
pub const PATIENCE_DEFAULT_S: u32 = 120;
/// The priority of a group, if nothing else is said (RFC 9568 section 5.2.4).
pub const VRRP_PRIORITY_DEFAULT: u8 = 100;
/// The advertisement interval, if nothing else is said (RFC 9568 section 5.2.7). Unit: centiseconds.
pub const VRRP_INTERVAL_DEFAULT_CS: u16 = 100;
/// Other nodes of a cluster: every node talks to every other one. Unit: nodes.
pub const PEERS_MAX: usize = 4;
/// Groups of a node: each one is up to two virtual routers with sockets and timers of their own. Unit: groups.
pub const VRRP_GROUPS_MAX: usize = 64;

/// What all groups may take of a heartbeat, which tells the peers of each of their families: its name, and
/// [`VRRP_GROUP_EXTRA_BYTES`]. Unit: bytes.
pub const VRRP_GROUP_BYTES_MAX: usize = 800;

/// See [`VRRP_GROUP_BYTES_MAX`]. Unit: bytes.
pub const VRRP_GROUP_EXTRA_BYTES: usize = 5;
/// VIPs of a group in one family: with our trailer, an advertisement of so many fits in 1,280 bytes, which every
/// IPv6 link carries. Unit: addresses.
pub const VRRP_VIPS_MAX: usize = 48;
/// Unicast peers of a group, of both families together. Unit: addresses.
pub const VRRP_PEERS_MAX: usize = 16;
/// What a group can watch. Unit: tracks.
pub const VRRP_TRACKS_MAX: usize = 16;
/// The priority of who owns the addresses (RFC 9568 section 5.2.4).
pub const VRRP_PRIORITY_OWNER: u8 = 255;

/// This node's end of the sync link, and who is at the other ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// Where peers connect to, over TCP and UDP.
    pub listen: SocketAddr,
    /// The file of the secret that all nodes share: at least 32 bytes, readable by its owner alone.
    pub secret_file: PathBuf,
    /// Between two heartbeats, 10 to 10,000. Unit: milliseconds.
    pub heartbeat_ms: u32,
    /// A peer that is silent on the sync link for longer counts as gone. Unit: seconds.
    pub patience_s: u32,
    /// The other nodes by name.
    pub peers: BTreeMap<String, Peer>,
}

/// Another node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name: what its own config calls `[node] name`.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
}

/// VIPs that are on one node of several, by VRRP (RFC 9568): a virtual router for each address family.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VrrpGroup {
    /// Its name, unique on the node.
    pub name: String,
    /// The interface on which the nodes hear each other, and which gets the VIPs.
    pub interface: String,
    /// The virtual router's id, 1 to 255.
    pub vrid: u8,
    /// The VIPs: at least one.
    pub vips: BTreeSet<IpAddr>,
    /// The higher, the sooner it is Active: 1 to 255; 255 = the owner of the addresses.
    pub priority: u8,
    /// Between two advertisements, 1 to 4095. Unit: centiseconds.
    pub interval_cs: u16,
    /// Whether this node takes over from an Active one of lower priority.
    pub preempt: bool,
    /// How long this node must have heard such a one before it does. Unit: milliseconds.
    pub preempt_delay_ms: u32,
    /// The other nodes' addresses on that interface; empty: advertisements are multicast.
    pub peers: BTreeSet<IpAddr>,
    /// What advertisements are sent from, at most one of each family; else the interface's first address (IPv6:
    /// its link-local one).
    pub sources: BTreeSet<IpAddr>,
    /// Whether this node's own stack answers at the VIPs while it is Active (RFC 9568 section 6.1, Accept_Mode).
    pub accept: bool,
    /// Whether the VIPs have the virtual router's Ethernet address (RFC 9568 section 7.3).
    pub virtual_mac: bool,
    /// Whether advertisements are authenticated with the cluster's secret: an extension of our own.
    pub authenticate: bool,
    /// What lowers the priority while it is not well.
    pub tracks: Vec<Track>,
}

/// Something that a group watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// What.
    pub what: Tracked,
    /// By how much the priority falls, 1 to 254; `None`: the node gives the VIPs up.
    pub weight: Option<u8>,
}

/// What can be watched, besides the group's own interface and the datapath, which always are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// An interface of this name: well while it is up and has a carrier.
    Interface(String),
    /// A service: well while it has so many backends that get new flows.
    Service {
        /// Its name.
        name: String,
        /// At least 1.
        live_backends_min: u32,
    },
}

//! What nodes of ours are told of each other, and of a stranger beside them, in lbd's configuration file.

use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::scratch::ScratchDir;
use crate::topology::{NodeId, Topology};

/// The group of all VIPs.
pub const GROUP: &str = "web";

/// Priorities of lb1 and lb2.
pub const PRIORITIES: [u8; 2] = [200, 100];
/// The virtual routers' id.
pub const VRID: u8 = 51;
/// The port of the link between the two.
const SYNC_PORT: u16 = 7946;
/// Any secret of sufficient length.
const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\n";

/// How two nodes are joined.
#[derive(Clone, Debug)]
pub struct ClusterText {
    /// The VIPs that move between them.
    pub vips: Vec<IpAddr>,
    /// Between two advertisements.
    pub interval: Duration,
    /// Between two heartbeats on the link between the nodes.
    pub heartbeat: Duration,
    /// The file of the secret.
    pub secret: PathBuf,
}

/// Writes the file of the secret.
pub fn write_secret(scratch: &ScratchDir) -> Result<PathBuf> {
    let secret = scratch.write("cluster.key", SECRET)?;
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
    Ok(secret)
}

impl ClusterText {
    /// The start of a node's configuration: the node and its interfaces, its peer, and the group of all VIPs.
    pub fn of_node(&self, net: &Topology, node: NodeId) -> String {
        let peer = node.other();
        let (own_address, peer_address) = (node.sync_address(), peer.sync_address());
        format!(
            "{}[cluster]\nlisten = \"{own_address}:{SYNC_PORT}\"\nsecret_file = \"{}\"\n\
             heartbeat = \"{}ms\"\n\
             [[cluster.peer]]\nname = \"{peer}\"\naddress = \"{peer_address}:{SYNC_PORT}\"\n{}",
            net.node_config_of(node),
            self.secret.display(),
            self.heartbeat.as_millis(),
            group(node, &self.vips, self.interval),
        )
    }
}

/// The same of a node that is joined to nobody: its group is one that any other implementation can be in.
pub fn of_lone_node(net: &Topology, node: NodeId, vips: &[IpAddr], interval: Duration) -> String {
    let group = group(node, vips, interval);
    format!("{}{group}authenticate = false\n", net.node_config_of(node))
}

/// The section of the group of all VIPs.
fn group(node: NodeId, vips: &[IpAddr], interval: Duration) -> String {
    let quoted: Vec<String> = vips.iter().map(|vip| format!("\"{vip}\"")).collect();
    format!(
        "[[vrrp]]\nname = \"{GROUP}\"\ninterface = \"eth0\"\nvrid = {VRID}\nvips = [{}]\n\
         priority = {}\ninterval = \"{}ms\"\n",
        quoted.join(", "),
        PRIORITIES[node as usize],
        interval.as_millis(),
    )
}

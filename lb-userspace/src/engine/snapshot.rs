//! What the engine tells of itself: the model joined with what is in force.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use lb_common::abi::{BackendSignals, BackendStats};
use lb_common::drop_reason::DropReason;

use crate::loader::Adopted;
use crate::model::cluster::{Cluster, VrrpGroup};
use crate::model::{Backend, Interface, Service};
use crate::transition::Summary;

/// How an interface is attached, or why it is not.
#[derive(Clone, Debug)]
pub struct InterfaceState {
    /// As configured.
    pub interface: Interface,
    /// The kernel's index of it, while it is attached.
    pub ifindex: Option<u32>,
    /// `native` or `generic`; `None` while it is not attached.
    pub attached: Option<&'static str>,
    /// Why it is not attached.
    pub reason: Option<String>,
}

/// Where the datapath came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatapathOrigin {
    /// This daemon has made it.
    Fresh,
    /// An earlier daemon has left it.
    Adopted,
    /// An earlier daemon has left it, and this one has exchanged maps for others of another capacity.
    Migrated,
}

impl DatapathOrigin {
    /// Of what the loader has found.
    pub(super) fn of(adopted: Option<&Adopted>) -> Self {
        match adopted {
            None => Self::Fresh,
            Some(adopted) if adopted.is_migrated => Self::Migrated,
            Some(_) => Self::Adopted,
        }
    }

    /// As in the API.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Adopted => "adopted",
            Self::Migrated => "migrated",
        }
    }
}

/// What of the datapath outlives the daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatapathState {
    /// Where it is pinned.
    pub pinned: std::path::PathBuf,
    /// The version of its maps.
    pub abi_version: u32,
    /// Where it came from.
    pub origin: DatapathOrigin,
    /// Since the engine last noted that it looks after it.
    pub heartbeat_age: Duration,
}

/// A backend's next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NextHop {
    /// Known.
    Resolved {
        /// Egress interface's name.
        interface: String,
        /// Ethernet address that frames go to.
        link_address: [u8; 6],
    },
    /// The host does not answer the kernel any more; frames still go to the address that it had,
    /// because a false alarm must not cut traffic.
    LastKnown {
        /// Egress interface's name.
        interface: String,
        /// Ethernet address that frames go to.
        link_address: [u8; 6],
    },
    /// Not known, and why.
    Unresolved(String),
}

/// A backend with what is in force for it.
#[derive(Clone, Debug)]
pub struct BackendState {
    /// As configured.
    pub backend: Backend,
    /// Its id in the maps.
    pub id: u16,
    /// Its next hop.
    pub next_hop: NextHop,
    /// Slots of the ring that it holds.
    pub slots: u32,
    /// Its counters since it was added, summed over the CPUs.
    pub stats: BackendStats,
    /// What its packets tell of its health, since this daemon began or it was added.
    pub signals: BackendSignals,
}

/// A backend that is in the model no more, and is still in force.
#[derive(Clone, Debug)]
pub struct LeavingBackend {
    /// Its name, or its address where that is not known any more.
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its id in the maps.
    pub id: u16,
    /// Slots of the ring that it holds.
    pub slots: u32,
    /// Its counters since it was added, summed over the CPUs.
    pub stats: BackendStats,
}

/// A service with what is in force for it.
#[derive(Clone, Debug)]
pub struct ServiceState {
    /// As configured.
    pub service: Service,
    /// Its id in the maps.
    pub id: u16,
    /// Slots in its ring; 0 while it has no backend.
    pub ring_len: u32,
    /// Its slots by phase; `None` = its ring changes at once.
    pub phases: Option<Summary>,
    /// The interface that its VIP was added to; `None` if VIPs are not managed.
    pub vip_interface: Option<String>,
    /// Its backends, by name.
    pub backends: Vec<BackendState>,
    /// Backends that are in the model no more, and stay until their flows have ended.
    pub leaving: Vec<LeavingBackend>,
    /// Its drops: reasons with a count above 0.
    pub drops: Vec<(DropReason, u64)>,
}

/// How full a map is.
#[derive(Clone, Debug)]
pub struct MapFill {
    /// The map's name.
    pub map: &'static str,
    /// Entries in use; `None` where counting them would mean walking the table.
    pub used: Option<u32>,
    /// Its capacity.
    pub max: u32,
    /// The config key that sets the capacity.
    pub setting: &'static str,
}

/// The state of everything.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// The node's name.
    pub node: String,
    /// Since the daemon's start.
    pub uptime: Duration,
    /// The config file, if there is one.
    pub config_file: Option<std::path::PathBuf>,
    /// What outlives the daemon.
    pub datapath: DatapathState,
    /// The interfaces.
    pub interfaces: Vec<InterfaceState>,
    /// The other nodes, if there are any.
    pub cluster: Option<Cluster>,
    /// The VIPs that move between nodes, by the group's name.
    pub vrrp: BTreeMap<String, VrrpGroup>,
    /// The services, by name.
    pub services: Vec<ServiceState>,
    /// How full the maps are.
    pub maps: Vec<MapFill>,
    /// Rings that were written since the daemon's start.
    pub rings_written_count: u64,
    /// Packets that were not for a service and went to the host.
    pub passed_packets: u64,
    /// Drops that belong to no service: reasons with a count above 0.
    pub drops: Vec<(DropReason, u64)>,
}

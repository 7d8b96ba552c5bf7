//! The checked model: what the operator wants, free of contradictions.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

pub use lb_common::abi::{ForwardMode, Scheduler};
use lb_common::limits::{
    BACKENDS_DEFAULT, FLOWS_DEFAULT, IDLE_TIMEOUT_TCP_S, RING_BLOCKS_DEFAULT, RING_SLOTS_DEFAULT,
    SERVICES_DEFAULT, WEIGHT_DEFAULT,
};

mod change;
pub mod check;
pub mod cluster;
pub mod diff;
pub mod doubt;
pub mod draft;
pub mod eligible;
pub mod files;
mod keyword;
mod observe;
mod policy;
mod problem;
pub mod rules;
mod runtime;
pub mod saved;
pub mod shared;
pub mod slow_start;
pub mod text;

use check::{Check, CheckMode, Role};
use cluster::{Cluster, VrrpGroup};
use doubt::Doubt;

pub use change::{Change, ModelError, backend_from, service_from};
pub use keyword::{Keyword, UnknownWord};
pub use observe::Observation;
pub use policy::{
    AdminState, AgentState, Fit, Health, OnAllDown, OnDown, OnRemove, OnStop, Policies, UdpFlow,
    Urgency,
};
pub use problem::{Kind, Place, Problem, Section};

/// How an XDP program is attached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum XdpMode {
    /// In the driver where it can, else generic with a warning.
    #[default]
    Auto,
    /// In the driver, or not at all.
    Native,
    /// In the kernel's receive path, after the skb was built: works everywhere, and is slow.
    Generic,
}

/// The transport protocol of a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// TCP (6).
    Tcp,
    /// UDP (17).
    Udp,
}

/// An interface that the datapath is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its name, as `ip link` shows it.
    pub name: String,
    /// How to attach.
    pub xdp: XdpMode,
}

/// Capacities of the maps; they are allocated when the datapath is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Services. Unit: entries.
    pub services: u32,
    /// Backends of all services together. Unit: entries.
    pub backends: u32,
    /// Ring storage. Unit: blocks of 64 KiB.
    pub ring_blocks: u32,
    /// Flow table. Unit: entries.
    pub flows: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            services: SERVICES_DEFAULT,
            backends: BACKENDS_DEFAULT,
            ring_blocks: RING_BLOCKS_DEFAULT,
            flows: FLOWS_DEFAULT,
        }
    }
}

/// The listener for Prometheus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metrics {
    /// Its address; `None` = there is none.
    pub listen: Option<SocketAddr>,
    /// Whether some metrics also have the names of HAProxy's, for dashboards that exist.
    pub haproxy_names: bool,
}

/// Programs that are told of what happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hooks {
    /// Runs at each change of a backend's health, and at each alarm.
    pub on_change: Option<Hook>,
}

/// A program, and how long it may take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The program's path, absolute, and its arguments: at least the first.
    pub command: Vec<String>,
    /// It is ended then. Unit: seconds.
    pub timeout_s: u32,
}

impl Hook {
    /// The program's path.
    pub fn program(&self) -> &str {
        self.command.first().map_or("", String::as_str)
    }
}

/// How long a hook may take, if nothing else is said. Unit: seconds.
pub const HOOK_TIMEOUT_DEFAULT_S: u32 = 10;

/// One backend of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Its name, unique within the service.
    pub name: String,
    /// Its address, of the VIP's family.
    pub address: IpAddr,
    /// Its port; equals the service's with DSR.
    pub port: u16,
    /// Its share, [`lb_common::limits::WEIGHT_MIN`] to [`lb_common::limits::WEIGHT_MAX`].
    pub weight: u32,
    /// Its group: 0 = it is no backup; 1 to 9 = it gets new flows only while nobody of a lower group
    /// can.
    pub backup: u8,
    /// What the operator has decided.
    pub admin: AdminState,
    /// Its own checks in place of the service's; empty = none.
    pub checks: Option<Vec<Check>>,
    /// Whether it answers.
    pub health: Health,
    /// Whether it has the service's role.
    pub fit: Fit,
    /// What it has said of itself.
    pub agent: AgentState,
}

/// A VIP endpoint and the backends behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its name, unique on the node.
    pub name: String,
    /// The virtual address.
    pub vip: IpAddr,
    /// The port; 0 = every port.
    pub port: u16,
    /// The transport protocol.
    pub protocol: Protocol,
    /// How new flows are spread.
    pub scheduler: Scheduler,
    /// How packets get to the backends.
    pub forward: ForwardMode,
    /// How long a silent flow stays in the flow table. Unit: seconds.
    pub idle_timeout_s: u32,
    /// Slots of a Maglev ring: `RING_SLOTS_DEFAULT` or `RING_SLOTS_LARGE`.
    pub ring_slots: u32,
    /// What becomes of its flows when backends change.
    pub policies: Policies,
    /// What its backends are asked.
    pub checks: Vec<Check>,
    /// How a backend's checks are combined.
    pub check_mode: CheckMode,
    /// A backend that keeps coming and going is held down for ever longer, up to this; 0 = never. Unit:
    /// seconds.
    pub hold_down_s: u32,
    /// What passes by counts, too.
    pub doubt: Doubt,
    /// Which of its backends it is for.
    pub role: Role,
    /// With [`Role::Reader`], a replica that is further behind is unfit; `None` = however far. Unit: seconds.
    pub max_lag_s: Option<u32>,
    /// With [`Role::Reader`], whether the primary is fit while no replica is.
    pub primary_as_last_resort: bool,
    /// The backends by name.
    pub backends: BTreeMap<String, Backend>,
}

/// How long a backend that keeps coming and going is held down at most, if nothing else is said. Unit:
/// seconds.
pub const HOLD_DOWN_DEFAULT_S: u32 = 60;

/// Everything the operator wants of this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Model {
    /// The node's name.
    pub node: String,
    /// Where the datapath is attached.
    pub interfaces: Vec<Interface>,
    /// Whether VIPs are added to and removed from the interfaces.
    pub manage_vips: bool,
    /// What an orderly stop does to the datapath.
    pub on_stop: OnStop,
    /// Capacities of the maps.
    pub limits: Limits,
    /// Where Prometheus is answered.
    pub metrics: Metrics,
    /// Who is told of what happens.
    pub hooks: Hooks,
    /// The other nodes, if there are any.
    pub cluster: Option<Cluster>,
    /// The VIPs that move between nodes, by the group's name.
    pub vrrp: BTreeMap<String, VrrpGroup>,
    /// The services by name.
    pub services: BTreeMap<String, Service>,
}

impl Backend {
    /// A backend of which nothing else is said, and about which nothing is known.
    pub fn new(name: impl Into<String>, address: IpAddr, port: u16) -> Self {
        Self {
            name: name.into(),
            address,
            port,
            weight: WEIGHT_DEFAULT,
            backup: 0,
            admin: AdminState::default(),
            checks: None,
            health: Health::default(),
            fit: Fit::default(),
            agent: AgentState::default(),
        }
    }
}

impl Service {
    /// A TCP service of which nothing else is said, without backends.
    pub fn new(name: impl Into<String>, vip: IpAddr, port: u16) -> Self {
        Self {
            name: name.into(),
            vip,
            port,
            protocol: Protocol::Tcp,
            scheduler: Scheduler::Maglev,
            forward: ForwardMode::Dsr,
            idle_timeout_s: IDLE_TIMEOUT_TCP_S,
            ring_slots: RING_SLOTS_DEFAULT,
            policies: Policies::default(),
            checks: Vec::new(),
            check_mode: CheckMode::default(),
            hold_down_s: HOLD_DOWN_DEFAULT_S,
            role: Role::default(),
            max_lag_s: None,
            primary_as_last_resort: false,
            doubt: Doubt::default(),
            backends: BTreeMap::new(),
        }
    }

    /// Whether every one of its flows is in the flow table. Round robin cannot tell from a packet
    /// where its flow went, and UDP has no SYN that would tell a new flow from an old one when the ring
    /// changes.
    pub fn tracks_flows(&self) -> bool {
        match self.protocol {
            Protocol::Tcp => self.scheduler == Scheduler::RoundRobin,
            Protocol::Udp => self.policies.flow == UdpFlow::Pinned,
        }
    }

    /// What one of its backends is asked.
    pub fn checks_of<'m>(&'m self, backend: &'m Backend) -> &'m [Check] {
        backend.checks.as_ref().unwrap_or(&self.checks)
    }

    /// Whether a change of its ring is a transition, slot by slot: of maglev services over TCP.
    pub fn has_transitions(&self) -> bool {
        self.scheduler == Scheduler::Maglev && self.protocol == Protocol::Tcp
    }
}

//! The checked model: what the operator wants, free of contradictions.

use std::collections::BTreeMap;
use std::net::IpAddr;

pub use lb_common::abi::{ForwardMode, Scheduler};
use lb_common::limits::{BACKENDS_DEFAULT, FLOWS_DEFAULT, RING_BLOCKS_DEFAULT, SERVICES_DEFAULT};

mod change;
pub mod check;
pub mod diff;
pub mod draft;
pub mod eligible;
mod keyword;
mod policy;
mod problem;
pub mod rules;
mod runtime;
pub mod saved;
pub mod slow_start;
pub mod text;

pub use change::{Change, ModelError, backend_from, service_from};
pub use keyword::{Keyword, UnknownWord};
pub use policy::{
    AdminState, Health, OnAllDown, OnDown, OnRemove, OnStop, Policies, UdpFlow, Urgency,
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
    /// Whether it answers.
    pub health: Health,
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
    /// The backends by name.
    pub backends: BTreeMap<String, Backend>,
}

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
    /// The services by name.
    pub services: BTreeMap<String, Service>,
}

impl Service {
    /// Whether every one of its flows is in the flow table. Round robin cannot tell from a packet
    /// where its flow went, and UDP has no SYN that would tell a new flow from an old one when the ring
    /// changes.
    pub fn tracks_flows(&self) -> bool {
        match self.protocol {
            Protocol::Tcp => self.scheduler == Scheduler::RoundRobin,
            Protocol::Udp => self.policies.flow == UdpFlow::Pinned,
        }
    }

    /// Whether a change of its ring is a transition, slot by slot: of maglev services over TCP.
    pub fn has_transitions(&self) -> bool {
        self.scheduler == Scheduler::Maglev && self.protocol == Protocol::Tcp
    }
}

//! What goes over the socket. The comments are the descriptions in the OpenAPI document.

mod health;
mod lives;
mod pair;
mod plan;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use health::{
    Alarm, BackendHealth, CheckFailure, CheckHealth, Events, HealthChanged, HealthReport,
};
pub use lives::{
    Admin, AdminChange, BackendFlows, Flow, FlowCounts, Flows, Health, HealthChange,
    LeavingBackend, Ring, RingShare,
};
pub use pair::{FailoverDone, GroupRole, LastFailover, Peers, Vips, VirtualRouter, VrrpProcess};
pub use plan::{Breakage, ConfigFile, Plan, PlanRequest, ServicePlan, SlotMove};

/// The state of the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// The node's name.
    pub node: String,
    /// Version of `lbd`.
    pub version: String,
    /// Version of this API.
    pub api_version: String,
    /// Seconds since `lbd` started.
    pub uptime_s: u64,
    /// The config file; null without one.
    pub config_file: Option<String>,
    /// What of the datapath outlives `lbd`.
    pub datapath: Datapath,
    /// Where the datapath is attached.
    pub interfaces: Vec<Interface>,
    /// Number of services.
    pub service_count: usize,
    /// Number of backends of all services.
    pub backend_count: usize,
    /// How full the maps of the datapath are.
    pub maps: Vec<MapFill>,
    /// Packets that were not for a service and went to the host unchanged.
    pub passed_packets: u64,
    /// Drops that belong to no service; reasons with a count above 0.
    pub drops: Vec<Drop>,
}

/// What of the datapath outlives `lbd`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Datapath {
    /// The directory that maps, program and links are pinned in.
    pub pinned: String,
    /// Version of the maps' layouts.
    pub abi_version: u32,
    /// Where it came from: `fresh`, `adopted` (an earlier `lbd` has left it) or `migrated` (the same, with
    /// maps of other capacities).
    pub origin: String,
    /// Milliseconds since `lbd` noted that it looks after it, which it does every second.
    pub heartbeat_age_ms: u64,
}

/// A datapath that goes on without `lbd`: what `lbctl status` says then.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Pinned {
    /// The directory that maps, program and links are pinned in.
    pub pinned: String,
    /// Version of the maps' layouts.
    pub abi_version: u32,
    /// Seconds since an `lbd` last looked after it; null where the version is not `lbctl`'s.
    pub unattended_s: Option<u64>,
    /// The interfaces that it is attached to, each with its mode.
    pub interfaces: Vec<String>,
}

/// An interface that the datapath is or is to be attached to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// The kernel's index of it; null while it is not attached.
    pub ifindex: Option<u32>,
    /// As configured: `auto`, `native` or `generic`.
    pub xdp: String,
    /// As it is: `native` (in the driver) or `generic` (in the kernel's receive path, slow); null while
    /// it is not attached.
    pub attached: Option<String>,
    /// Why it is not attached; null while it is.
    pub reason: Option<String>,
}

/// How full a map is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MapFill {
    /// The map's name.
    pub map: String,
    /// Entries in use; null where counting them would mean walking the table.
    pub used: Option<u32>,
    /// Its capacity in entries.
    pub max: u32,
    /// The config key that sets the capacity.
    pub setting: String,
}

/// Packets dropped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Drop {
    /// The reason, a stable label such as `no_backend`.
    pub reason: String,
    /// How many.
    pub packets: u64,
    /// What it means and what to do about it.
    pub help: String,
}

/// Counters of a backend, or of a service: the sum over its backends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Counters {
    /// Packets steered to it.
    pub packets: u64,
    /// Bytes of those packets, from the Ethernet header on.
    pub bytes: u64,
    /// New flows: SYNs for TCP; flows entered into the flow table for UDP.
    pub new_flows: u64,
    /// Replies rewritten on their way back; NAT only.
    pub reply_packets: u64,
    /// Bytes of those replies.
    pub reply_bytes: u64,
}

/// All services.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Services {
    /// By name.
    pub services: Vec<Service>,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The virtual address.
    pub vip: String,
    /// The port; 0 = every port.
    pub port: u16,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// `maglev` or `round-robin`.
    pub scheduler: String,
    /// `dsr` or `nat`.
    pub forward: String,
    /// Seconds that a silent flow stays in the flow table.
    pub idle_timeout_s: u32,
    /// Slots of a Maglev ring, as configured.
    pub ring_slots: u32,
    /// Where UDP flows go when the ring changes: `pinned` or `hash`; null for TCP.
    pub flow: Option<String>,
    /// Seconds that a backend's weight takes to grow to its full size; 0 = it has it at once.
    pub slow_start_s: u32,
    /// Flows of backends that are down: `keep` or `reset`.
    pub on_down: String,
    /// Flows of backends that are removed or in maintenance: `keep`, `reset` or `drop`.
    pub on_remove: String,
    /// New flows while no backend is eligible: `last_good`, `reset` or `drop`.
    pub on_all_down: String,
    /// Slots of the ring in force; 0 without a backend.
    pub ring_len: u32,
    /// The interface that the VIP was added to; null if that is left to others.
    pub vip_interface: Option<String>,
    /// The sum over the backends.
    pub counters: Counters,
    /// Drops of this service; reasons with a count above 0.
    pub drops: Vec<Drop>,
    /// The backends by name.
    pub backends: Vec<Backend>,
    /// Backends that were removed, and stay until their flows have ended.
    pub leaving: Vec<LeavingBackend>,
}

/// The backends of a service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backends {
    /// By name.
    pub backends: Vec<Backend>,
    /// Backends that were removed, and stay until their flows have ended.
    pub leaving: Vec<LeavingBackend>,
}

/// A backend.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Backend {
    /// The service that it belongs to.
    pub service: String,
    /// Its name, unique within the service.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its port; differs from the service's with NAT only.
    pub port: u16,
    /// Its weight.
    pub weight: u32,
    /// Its group: 0 = no backup; 1 to 9 = it gets new flows only while nobody of a lower group can.
    pub backup: u8,
    /// What the operator has decided: `ready`, `drain` or `maint`.
    pub admin: String,
    /// Whether it answers: `up`, `down`, or `unknown`, which counts as up.
    pub health: String,
    /// Whether it has the role that its service is for; true where that has none.
    pub is_fit: bool,
    /// What its agent has said of it, such as `drain` or `50 %`; empty without an agent.
    pub agent: String,
    /// Whether it may get new flows: ready, not down, fit, of the active backup group.
    pub is_eligible: bool,
    /// Slots of the ring that it holds.
    pub slots: u32,
    /// Its part of the ring, 0 to 1.
    pub share: f64,
    /// Where its packets are sent.
    pub next_hop: NextHop,
    /// Its counters since it was added.
    pub counters: Counters,
}

/// Where a backend's packets are sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct NextHop {
    /// `resolved`; `last_known`: the host does not answer any more, its last address is used;
    /// `unresolved`: packets are dropped as `backend_unresolved`.
    pub state: String,
    /// The egress interface; null if unresolved.
    pub interface: Option<String>,
    /// The Ethernet address; null if unresolved.
    pub link_address: Option<String>,
    /// Why it is unresolved; null otherwise.
    pub reason: Option<String>,
}

/// All counters, read at one time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Milliseconds since `lbd` started: subtract two samples' for a rate.
    pub uptime_ms: u64,
    /// Packets that were not for a service and went to the host unchanged.
    pub passed_packets: u64,
    /// Drops that belong to no service; reasons with a count above 0.
    pub drops: Vec<Drop>,
    /// The services by name.
    pub services: Vec<ServiceStats>,
}

/// A service's counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ServiceStats {
    /// The service's name.
    pub name: String,
    /// The sum over its backends.
    pub counters: Counters,
    /// Its drops; reasons with a count above 0.
    pub drops: Vec<Drop>,
    /// Its backends by name.
    pub backends: Vec<BackendStats>,
}

/// A backend's counters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackendStats {
    /// The backend's name.
    pub name: String,
    /// Its counters since it was added.
    pub counters: Counters,
}

/// A service to be added. Defaults are those of the config file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewService {
    /// Its name: 1 to 63 of `A-Z a-z 0-9 . _ -`.
    #[schema(example = "web")]
    pub name: String,
    /// The virtual address, IPv4 or IPv6.
    #[schema(example = "203.0.113.10")]
    pub vip: String,
    /// The port; 0 = every port.
    #[schema(example = 80)]
    pub port: i64,
    /// `tcp` (default) or `udp`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<String>,
    /// `maglev` (default) or `round-robin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<String>,
    /// `dsr` (default) or `nat`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<String>,
    /// Seconds that a silent flow stays in the flow table, 1 to 604800; default 900 for TCP, 60 for
    /// UDP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_s: Option<i64>,
    /// Slots of a Maglev ring: 16381 (default) or 65521.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ring_slots: Option<i64>,
    /// Where UDP flows go when the ring changes: `pinned` (default) or `hash`; UDP only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow: Option<String>,
    /// Seconds that the weight of a backend takes to grow to its full size when it becomes eligible
    /// again, 0 (default, off) to 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slow_start_s: Option<i64>,
    /// What becomes of the flows of a backend that is down: `keep` (default) or `reset`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_down: Option<String>,
    /// What becomes of the flows of a backend that is removed or in maintenance: `keep` (default),
    /// `reset` or `drop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_remove: Option<String>,
    /// What becomes of new flows while no backend is eligible: `last_good` (default), `reset` or
    /// `drop`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_all_down: Option<String>,
    /// Its first backends, none by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<NewBackend>,
}

/// A backend to be added.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewBackend {
    /// Its address, of the VIP's family.
    #[schema(example = "10.0.0.11")]
    pub address: String,
    /// Its name, unique within the service; default: the address, and the port if it is remapped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its port; may differ from the service's, the default, with NAT only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<i64>,
    /// Its weight, 1 to 1000, default 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<i64>,
    /// Its group: 0 (default) = no backup; 1 to 9 = it gets new flows only while nobody of a lower
    /// group can.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<i64>,
}

/// What to change of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackendChange {
    /// The new weight, 1 to 1000.
    #[schema(example = 100)]
    pub weight: i64,
}

/// A change was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Changed {
    /// The name of what was added, changed or removed.
    pub name: String,
    /// What is worth knowing about it.
    pub warnings: Vec<String>,
}

/// Why nothing was changed, or nobody knows whether it was: see [`ErrorBody::leaves_doubt`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Refusal {
    /// The reason.
    pub error: ErrorBody,
}

/// Why a request was refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// For programs: `invalid`, `not_found`, `method_not_allowed`, `conflict`, `body_too_large`,
    /// `limit_reached`, `map_full`, `failed`, `no_cluster`, `failover_refused`, `vrrp_unavailable`, `vrrp_unanswered`,
    /// `timed_out` or `stopping`.
    pub code: String,
    /// For people.
    pub message: String,
    /// The field of the request at fault; null if it is not about one.
    #[serde(default)]
    pub field: Option<String>,
}

/// The code of an answer in place of one that did not come in time.
pub const TIMED_OUT: &str = "timed_out";
/// The code of a hand-over that `lbd-vrrp` has not answered.
pub const VRRP_UNANSWERED: &str = "vrrp_unanswered";

impl ErrorBody {
    /// Whether the change may be made all the same: somebody has not answered who may have been told.
    pub fn leaves_doubt(&self) -> bool {
        [TIMED_OUT, VRRP_UNANSWERED].contains(&self.code.as_str())
    }
}

//! What was written, before it is known to make sense: the one form that file, API and a change of
//! the model are brought into, so that each rule exists once ([`super::rules`]).

use std::net::{IpAddr, SocketAddr};

use lb_common::limits::{
    BACKENDS_DEFAULT, FLOWS_DEFAULT, IDLE_TIMEOUT_TCP_S, IDLE_TIMEOUT_UDP_S, RING_BLOCKS_DEFAULT,
    RING_SLOTS_DEFAULT, SERVICES_DEFAULT, WEIGHT_DEFAULT,
};

use super::check::{CheckMode, OwnChecks, Role};
use super::{
    AdminState, AgentState, Fit, ForwardMode, HOLD_DOWN_DEFAULT_S, HOOK_TIMEOUT_DEFAULT_S, Health,
    OnAllDown, OnDown, OnRemove, OnStop, Protocol, Scheduler, UdpFlow, XdpMode, eligible,
};

mod check;
mod check_build;
mod cluster;
mod convert;

pub use check::{CheckDraft, WrittenCheck};
pub use check_build::MIN_VALID_DAYS_DEFAULT;
pub use cluster::{ClusterDraft, PeerDraft, TrackDraft, VrrpDraft};

/// A value as it was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Field<T> {
    /// Not written: the default applies, or it is missing.
    #[default]
    Absent,
    /// Written, and no value of its type. Whoever read it has reported it.
    Unreadable,
    /// Written.
    Given(T),
}

impl<T> Field<T> {
    /// The value, if one was given.
    pub const fn given(&self) -> Option<&T> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent | Self::Unreadable => None,
        }
    }
}

impl<T> Field<T> {
    /// Whether anything was written, readable or not.
    pub const fn is_written(&self) -> bool {
        !matches!(self, Self::Absent)
    }
}

impl<T: Copy> Field<T> {
    /// The value, or the default if nothing was written; `None` = unreadable.
    fn or(self, default: T) -> Option<T> {
        self.or_else(|| Some(default))
    }

    fn or_else(self, default: impl FnOnce() -> Option<T>) -> Option<T> {
        match self {
            Self::Given(value) => Some(value),
            Self::Absent => default(),
            Self::Unreadable => None,
        }
    }
}

impl<T> From<Option<T>> for Field<T> {
    fn from(option: Option<T>) -> Self {
        option.map_or(Self::Absent, Self::Given)
    }
}

/// A whole model as written. Numbers are `i64`, so that a value out of range gets the rule's message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Draft {
    /// `node.name`.
    pub node: Field<String>,
    /// `node.manage_vips`.
    pub manage_vips: Field<bool>,
    /// `node.on_stop`.
    pub on_stop: Field<OnStop>,
    /// `[[interface]]`.
    pub interfaces: Vec<InterfaceDraft>,
    /// `[limits]`.
    pub limits: LimitsDraft,
    /// `[metrics]`.
    pub metrics: MetricsDraft,
    /// `[hooks]`.
    pub hooks: HooksDraft,
    /// `[cluster]`; `None` = there is none.
    pub cluster: Option<ClusterDraft>,
    /// `[[vrrp]]`.
    pub vrrp: Vec<VrrpDraft>,
    /// `[[service]]`.
    pub services: Vec<ServiceDraft>,
}

/// `[metrics]` as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MetricsDraft {
    /// Default: none.
    pub listen: Field<SocketAddr>,
    /// Default false.
    pub haproxy_names: Field<bool>,
}

/// `[hooks]` as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HooksDraft {
    /// A program and its arguments. Default: none.
    pub on_change: Field<Vec<String>>,
    /// Unit: seconds. Default [`HOOK_TIMEOUT_DEFAULT_S`].
    pub timeout_s: Field<i64>,
}

impl HooksDraft {
    /// How long a hook may take. Unit: seconds.
    pub fn timeout_s(&self) -> Option<i64> {
        self.timeout_s.or(i64::from(HOOK_TIMEOUT_DEFAULT_S))
    }
}

/// An interface as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceDraft {
    /// Required.
    pub name: Field<String>,
    /// Default `auto`.
    pub xdp: Field<XdpMode>,
}

/// Limits as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LimitsDraft {
    /// Default [`SERVICES_DEFAULT`].
    pub services: Field<i64>,
    /// Default [`BACKENDS_DEFAULT`].
    pub backends: Field<i64>,
    /// Default [`RING_BLOCKS_DEFAULT`].
    pub ring_blocks: Field<i64>,
    /// Default [`FLOWS_DEFAULT`].
    pub flows: Field<i64>,
}

/// A service as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServiceDraft {
    /// Required.
    pub name: Field<String>,
    /// Required.
    pub vip: Field<IpAddr>,
    /// Required.
    pub port: Field<i64>,
    /// Default `tcp`.
    pub protocol: Field<Protocol>,
    /// Default `maglev`.
    pub scheduler: Field<Scheduler>,
    /// Default `dsr`.
    pub forward: Field<ForwardMode>,
    /// Unit: seconds. Default by protocol.
    pub idle_timeout_s: Field<i64>,
    /// Default [`RING_SLOTS_DEFAULT`].
    pub ring_slots: Field<i64>,
    /// What becomes of its flows.
    pub policies: PoliciesDraft,
    /// `[[service.check]]`.
    pub checks: Vec<CheckDraft>,
    /// What follows from the checks.
    pub verdict: VerdictDraft,
    /// `[[service.backend]]`.
    pub backends: Vec<BackendDraft>,
}

/// A service's policies as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PoliciesDraft {
    /// UDP only. Default `pinned`.
    pub flow: Field<UdpFlow>,
    /// Unit: seconds. Default 0.
    pub slow_start_s: Field<i64>,
    /// Default `keep`.
    pub on_down: Field<OnDown>,
    /// Default `keep`; of a writer `reset`.
    pub on_remove: Field<OnRemove>,
    /// Default `last_good`; of a writer `reset`.
    pub on_all_down: Field<OnAllDown>,
}

/// What follows from a service's checks, as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerdictDraft {
    /// Default `all`.
    pub check_mode: Field<CheckMode>,
    /// Unit: seconds. Default [`HOLD_DOWN_DEFAULT_S`].
    pub hold_down_s: Field<i64>,
    /// Unit: per cent. Default: never.
    pub doubt_repeated_syns: Field<i64>,
    /// Unit: per cent. Default: never.
    pub doubt_resets: Field<i64>,
    /// Default `none`.
    pub role: Field<Role>,
    /// Readers only. Unit: seconds. Default: however far.
    pub max_lag_s: Field<i64>,
    /// Readers only. Default `false`.
    pub primary_as_last_resort: Field<bool>,
}

/// A backend as written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BackendDraft {
    /// Default: from the address, see [`ServiceDraft::backend_name`].
    pub name: Field<String>,
    /// Required.
    pub address: Field<IpAddr>,
    /// Default: the service's.
    pub port: Field<i64>,
    /// Default [`WEIGHT_DEFAULT`].
    pub weight: Field<i64>,
    /// Default 0.
    pub backup: Field<i64>,
    /// Default `service`.
    pub checks: Field<OwnChecks>,
    /// `[[service.backend.check]]`; `None` = it lists none.
    pub own_checks: Option<Vec<CheckDraft>>,
    /// Never written in a file: a change at run time, or kept from before.
    pub admin: AdminState,
    /// As `admin`.
    pub health: Health,
    /// As `admin`; `None` = nobody has looked.
    pub fit: Option<Fit>,
    /// As `admin`.
    pub agent: AgentState,
}

/// Values with their defaults; `None` = missing or unreadable, which is reported elsewhere.
impl ServiceDraft {
    /// The protocol.
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol.or(Protocol::Tcp)
    }

    /// The scheduler.
    pub fn scheduler(&self) -> Option<Scheduler> {
        self.scheduler.or(Scheduler::Maglev)
    }

    /// The forwarding mode.
    pub fn forward(&self) -> Option<ForwardMode> {
        self.forward.or(ForwardMode::Dsr)
    }

    /// The idle time-out. Unit: seconds.
    pub fn idle_timeout_s(&self) -> Option<i64> {
        self.idle_timeout_s.or_else(|| match self.protocol()? {
            Protocol::Tcp => Some(i64::from(IDLE_TIMEOUT_TCP_S)),
            Protocol::Udp => Some(i64::from(IDLE_TIMEOUT_UDP_S)),
        })
    }

    /// Slots of a Maglev ring.
    pub fn ring_slots(&self) -> Option<i64> {
        self.ring_slots.or(i64::from(RING_SLOTS_DEFAULT))
    }

    /// Which of its backends it is for.
    pub fn role(&self) -> Option<Role> {
        self.verdict.role.or(Role::default())
    }

    /// What becomes of the flows of backends that are removed. A former primary must get no write.
    pub fn on_remove(&self) -> Option<OnRemove> {
        self.policies.on_remove.or_else(|| match self.role()? {
            Role::Writer => Some(OnRemove::Reset),
            Role::None | Role::Reader => Some(OnRemove::default()),
        })
    }

    /// What becomes of new flows while nobody is eligible. Where that was a writer, nobody else is one.
    pub fn on_all_down(&self) -> Option<OnAllDown> {
        self.policies.on_all_down.or_else(|| match self.role()? {
            Role::Writer => Some(OnAllDown::Reset),
            Role::None | Role::Reader => Some(OnAllDown::default()),
        })
    }

    /// What is known of a backend's fitness before anybody has looked: who accepts writes has to be found
    /// out first.
    fn first_fit(&self) -> Option<Fit> {
        Some(match self.role()? {
            Role::Writer => Fit::Unfit,
            Role::None | Role::Reader => Fit::Fit,
        })
    }

    /// The checks of one of its backends: its own, else the service's.
    pub fn checks_of<'d>(&'d self, backend: &'d BackendDraft) -> &'d [CheckDraft] {
        match (&backend.own_checks, backend.checks.given()) {
            (Some(own), _) => own,
            (None, Some(OwnChecks::None)) => &[],
            (None, Some(OwnChecks::Service) | None) => &self.checks,
        }
    }

    /// The port of one of its backends: its own, else the service's.
    pub fn backend_port(&self, backend: &BackendDraft) -> Option<i64> {
        backend.port.or_else(|| self.port.given().copied())
    }

    /// The name of one of its backends: its own, else the address, and the port if that is not
    /// the service's. A name holds no colon: `2001:db8::1` becomes `2001-db8--1`.
    pub fn backend_name(&self, backend: &BackendDraft) -> Option<String> {
        match &backend.name {
            Field::Given(name) => Some(name.clone()),
            Field::Unreadable => None,
            Field::Absent => {
                let address = backend.address.given()?;
                let port = self.backend_port(backend)?;
                let is_remapped = self.port.given() != Some(&port);
                Some(default_name(*address, is_remapped.then_some(port)))
            }
        }
    }
}

/// The name of a backend that was given none: its address, and its port if that is not the service's.
pub(crate) fn default_name(address: IpAddr, port: Option<i64>) -> String {
    let mut name = address.to_string().replace(':', "-");
    if name.starts_with('-') {
        name.insert(0, '0');
    }
    if let Some(port) = port {
        name.push_str(&format!("-{port}"));
    }
    name
}

impl PoliciesDraft {
    /// Where UDP flows go.
    pub fn flow(&self) -> Option<UdpFlow> {
        self.flow.or(UdpFlow::default())
    }

    /// How long slow start takes. Unit: seconds.
    pub fn slow_start_s(&self) -> Option<i64> {
        self.slow_start_s.or(0)
    }
}

impl VerdictDraft {
    /// How long a backend that keeps coming and going is held down at most. Unit: seconds.
    pub fn hold_down_s(&self) -> Option<i64> {
        self.hold_down_s.or(i64::from(HOLD_DOWN_DEFAULT_S))
    }
}

impl BackendDraft {
    /// What the operator, its agent and the role make of it together; before anybody has looked, it has
    /// the role.
    pub fn standing(&self) -> AdminState {
        eligible::standing(self.admin, self.fit.unwrap_or_default(), self.agent)
    }

    /// Whether it would do for new flows.
    pub fn is_available(&self) -> bool {
        self.standing() == AdminState::Ready && self.health != Health::Down
    }

    /// The backup group.
    pub fn backup(&self) -> Option<i64> {
        self.backup.or(0)
    }

    /// The weight.
    pub fn weight(&self) -> Option<i64> {
        self.weight.or(i64::from(WEIGHT_DEFAULT))
    }
}

impl InterfaceDraft {
    /// How to attach.
    pub fn xdp(&self) -> Option<XdpMode> {
        self.xdp.or(XdpMode::Auto)
    }
}

impl LimitsDraft {
    /// Services.
    pub fn services(&self) -> Option<i64> {
        self.services.or(i64::from(SERVICES_DEFAULT))
    }

    /// Backends.
    pub fn backends(&self) -> Option<i64> {
        self.backends.or(i64::from(BACKENDS_DEFAULT))
    }

    /// Blocks of ring storage.
    pub fn ring_blocks(&self) -> Option<i64> {
        self.ring_blocks.or(i64::from(RING_BLOCKS_DEFAULT))
    }

    /// Flows.
    pub fn flows(&self) -> Option<i64> {
        self.flows.or(i64::from(FLOWS_DEFAULT))
    }
}

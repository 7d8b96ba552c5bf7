//! What was written, before it is known to make sense: the one form that file, API and a change of
//! the model are brought into, so that each rule exists once ([`super::rules`]).

use std::net::IpAddr;

use lb_common::limits::{
    BACKENDS_DEFAULT, FLOWS_DEFAULT, IDLE_TIMEOUT_TCP_S, IDLE_TIMEOUT_UDP_S, RING_BLOCKS_DEFAULT,
    RING_SLOTS_DEFAULT, SERVICES_DEFAULT, WEIGHT_DEFAULT,
};

use super::{
    Backend, ForwardMode, Interface, Limits, Model, Protocol, Scheduler, Service, XdpMode,
};

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
    /// `[[interface]]`.
    pub interfaces: Vec<InterfaceDraft>,
    /// `[limits]`.
    pub limits: LimitsDraft,
    /// `[[service]]`.
    pub services: Vec<ServiceDraft>,
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
    /// `[[service.backend]]`.
    pub backends: Vec<BackendDraft>,
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

fn default_name(address: IpAddr, port: Option<i64>) -> String {
    let mut name = address.to_string().replace(':', "-");
    if name.starts_with('-') {
        name.insert(0, '0');
    }
    if let Some(port) = port {
        name.push_str(&format!("-{port}"));
    }
    name
}

impl BackendDraft {
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

/// Draft → model: `None` if anything is missing, unreadable or does not fit its type. Whether it
/// makes sense is for [`super::rules::check`] to say.
impl Draft {
    pub(super) fn build(&self) -> Option<Model> {
        let interfaces = self.interfaces.iter().map(InterfaceDraft::build);
        let services = self.services.iter().map(|service| {
            let service = service.build()?;
            Some((service.name.clone(), service))
        });
        Some(Model {
            node: self.node.given()?.clone(),
            interfaces: interfaces.collect::<Option<_>>()?,
            manage_vips: self.manage_vips.or(true)?,
            limits: self.limits.build()?,
            services: services.collect::<Option<_>>()?,
        })
    }
}

impl InterfaceDraft {
    fn build(&self) -> Option<Interface> {
        Some(Interface {
            name: self.name.given()?.clone(),
            xdp: self.xdp()?,
        })
    }
}

impl LimitsDraft {
    fn build(&self) -> Option<Limits> {
        Some(Limits {
            services: u32::try_from(self.services()?).ok()?,
            backends: u32::try_from(self.backends()?).ok()?,
            ring_blocks: u32::try_from(self.ring_blocks()?).ok()?,
            flows: u32::try_from(self.flows()?).ok()?,
        })
    }
}

impl ServiceDraft {
    /// The service alone; `None` if anything is missing, unreadable or does not fit its type.
    pub fn build(&self) -> Option<Service> {
        let backends = self.backends.iter().map(|backend| {
            let backend = self.build_backend(backend)?;
            Some((backend.name.clone(), backend))
        });
        Some(Service {
            name: self.name.given()?.clone(),
            vip: *self.vip.given()?,
            port: u16::try_from(*self.port.given()?).ok()?,
            protocol: self.protocol()?,
            scheduler: self.scheduler()?,
            forward: self.forward()?,
            idle_timeout_s: u32::try_from(self.idle_timeout_s()?).ok()?,
            ring_slots: u32::try_from(self.ring_slots()?).ok()?,
            backends: backends.collect::<Option<_>>()?,
        })
    }

    fn build_backend(&self, backend: &BackendDraft) -> Option<Backend> {
        Some(Backend {
            name: self.backend_name(backend)?,
            address: *backend.address.given()?,
            port: u16::try_from(self.backend_port(backend)?).ok()?,
            weight: u32::try_from(backend.weight()?).ok()?,
        })
    }
}

impl From<&Model> for Draft {
    fn from(model: &Model) -> Self {
        Self {
            node: Field::Given(model.node.clone()),
            manage_vips: Field::Given(model.manage_vips),
            interfaces: model.interfaces.iter().map(InterfaceDraft::from).collect(),
            limits: LimitsDraft::from(&model.limits),
            services: model.services.values().map(ServiceDraft::from).collect(),
        }
    }
}

impl From<&Interface> for InterfaceDraft {
    fn from(interface: &Interface) -> Self {
        Self {
            name: Field::Given(interface.name.clone()),
            xdp: Field::Given(interface.xdp),
        }
    }
}

impl From<&Limits> for LimitsDraft {
    fn from(limits: &Limits) -> Self {
        Self {
            services: Field::Given(i64::from(limits.services)),
            backends: Field::Given(i64::from(limits.backends)),
            ring_blocks: Field::Given(i64::from(limits.ring_blocks)),
            flows: Field::Given(i64::from(limits.flows)),
        }
    }
}

impl From<&Service> for ServiceDraft {
    fn from(service: &Service) -> Self {
        Self {
            name: Field::Given(service.name.clone()),
            vip: Field::Given(service.vip),
            port: Field::Given(i64::from(service.port)),
            protocol: Field::Given(service.protocol),
            scheduler: Field::Given(service.scheduler),
            forward: Field::Given(service.forward),
            idle_timeout_s: Field::Given(i64::from(service.idle_timeout_s)),
            ring_slots: Field::Given(i64::from(service.ring_slots)),
            backends: service.backends.values().map(BackendDraft::from).collect(),
        }
    }
}

impl From<&Backend> for BackendDraft {
    fn from(backend: &Backend) -> Self {
        Self {
            name: Field::Given(backend.name.clone()),
            address: Field::Given(backend.address),
            port: Field::Given(i64::from(backend.port)),
            weight: Field::Given(i64::from(backend.weight)),
        }
    }
}

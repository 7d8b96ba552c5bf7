//! Drafts ↔ models.

use super::{BackendDraft, Draft, Field, InterfaceDraft, LimitsDraft, PoliciesDraft, ServiceDraft};
use crate::model::{
    Backend, Interface, Limits, Model, OnDown, OnRemove, OnStop, Policies, Protocol, Service,
};

/// Draft → model: `None` if anything is missing, unreadable or does not fit its type. Whether it
/// makes sense is for [`crate::model::rules::check`] to say.
impl Draft {
    pub(in crate::model) fn build(&self) -> Option<Model> {
        let interfaces = self.interfaces.iter().map(InterfaceDraft::build);
        let services = self.services.iter().map(|service| {
            let service = service.build()?;
            Some((service.name.clone(), service))
        });
        Some(Model {
            node: self.node.given()?.clone(),
            interfaces: interfaces.collect::<Option<_>>()?,
            manage_vips: self.manage_vips.or(true)?,
            on_stop: self.on_stop.or(OnStop::default())?,
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

impl PoliciesDraft {
    fn build(&self) -> Option<Policies> {
        Some(Policies {
            flow: self.flow()?,
            slow_start_s: u32::try_from(self.slow_start_s()?).ok()?,
            on_down: self.on_down.or(OnDown::default())?,
            on_remove: self.on_remove.or(OnRemove::default())?,
            on_all_down: self.on_all_down()?,
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
            policies: self.policies.build()?,
            backends: backends.collect::<Option<_>>()?,
        })
    }

    fn build_backend(&self, backend: &BackendDraft) -> Option<Backend> {
        Some(Backend {
            name: self.backend_name(backend)?,
            address: *backend.address.given()?,
            port: u16::try_from(self.backend_port(backend)?).ok()?,
            weight: u32::try_from(backend.weight()?).ok()?,
            backup: u8::try_from(backend.backup()?).ok()?,
            admin: backend.admin,
            health: backend.health,
        })
    }
}

impl From<&Model> for Draft {
    fn from(model: &Model) -> Self {
        Self {
            node: Field::Given(model.node.clone()),
            manage_vips: Field::Given(model.manage_vips),
            on_stop: Field::Given(model.on_stop),
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
            policies: policies(service),
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
            backup: Field::Given(i64::from(backend.backup)),
            admin: backend.admin,
            health: backend.health,
        }
    }
}

fn policies(service: &Service) -> PoliciesDraft {
    let policies = &service.policies;
    PoliciesDraft {
        flow: match service.protocol {
            Protocol::Tcp => Field::Absent,
            Protocol::Udp => Field::Given(policies.flow),
        },
        slow_start_s: Field::Given(i64::from(policies.slow_start_s)),
        on_down: Field::Given(policies.on_down),
        on_remove: Field::Given(policies.on_remove),
        on_all_down: Field::Given(policies.on_all_down),
    }
}

//! Drafts ↔ models.

use super::check_build::Surroundings;
use super::{
    BackendDraft, CheckDraft, ClusterDraft, Draft, Field, HooksDraft, InterfaceDraft, LimitsDraft,
    MetricsDraft, PoliciesDraft, ServiceDraft, VerdictDraft, VrrpDraft,
};
use crate::model::check::{Check, CheckMode, OwnChecks};
use crate::model::doubt::Doubt;
use crate::model::{
    Backend, Hook, Hooks, Interface, Limits, Metrics, Model, OnDown, OnStop, Policies, Protocol,
    Service,
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
            metrics: self.metrics.build()?,
            hooks: self.hooks.build()?,
            cluster: self.build_cluster()?,
            vrrp: self.build_vrrp()?,
            services: services.collect::<Option<_>>()?,
        })
    }
}

impl MetricsDraft {
    fn build(&self) -> Option<Metrics> {
        let listen = match self.listen {
            Field::Absent => None,
            Field::Given(address) => Some(address),
            Field::Unreadable => return None,
        };
        Some(Metrics {
            listen,
            haproxy_names: self.haproxy_names.or(false)?,
        })
    }
}

impl From<Metrics> for MetricsDraft {
    fn from(metrics: Metrics) -> Self {
        Self {
            listen: metrics.listen.into(),
            haproxy_names: Field::Given(metrics.haproxy_names),
        }
    }
}

impl HooksDraft {
    fn build(&self) -> Option<Hooks> {
        let timeout_s = u32::try_from(self.timeout_s()?).ok()?;
        let on_change = match &self.on_change {
            Field::Absent => None,
            Field::Given(command) => Some(Hook {
                command: command.clone(),
                timeout_s,
            }),
            Field::Unreadable => return None,
        };
        Some(Hooks { on_change })
    }
}

impl From<&Hooks> for HooksDraft {
    fn from(hooks: &Hooks) -> Self {
        let hook = hooks.on_change.as_ref();
        Self {
            on_change: hook.map(|hook| hook.command.clone()).into(),
            timeout_s: hook.map(|hook| i64::from(hook.timeout_s)).into(),
        }
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
            policies: self.build_policies()?,
            checks: self.build_checks(&self.checks)?,
            check_mode: self.verdict.check_mode.or(CheckMode::default())?,
            hold_down_s: u32::try_from(self.verdict.hold_down_s()?).ok()?,
            doubt: self.build_doubt()?,
            role: self.role()?,
            max_lag_s: self.build_max_lag_s()?,
            primary_as_last_resort: self.verdict.primary_as_last_resort.or(false)?,
            backends: backends.collect::<Option<_>>()?,
        })
    }

    fn build_doubt(&self) -> Option<Doubt> {
        let percent = |field: &Field<i64>| match field.given() {
            Some(percent) => u8::try_from(*percent).ok().map(Some),
            None => Some(None),
        };
        Some(Doubt {
            repeated_syns_percent: percent(&self.verdict.doubt_repeated_syns)?,
            resets_percent: percent(&self.verdict.doubt_resets)?,
        })
    }

    fn build_policies(&self) -> Option<Policies> {
        let policies = &self.policies;
        Some(Policies {
            flow: policies.flow()?,
            slow_start_s: u32::try_from(policies.slow_start_s()?).ok()?,
            on_down: policies.on_down.or(OnDown::default())?,
            on_remove: self.on_remove()?,
            on_all_down: self.on_all_down()?,
        })
    }

    /// The outer `None` = it cannot be used.
    fn build_max_lag_s(&self) -> Option<Option<u32>> {
        match self.verdict.max_lag_s {
            Field::Given(lag_s) => u32::try_from(lag_s).ok().map(Some),
            Field::Absent => Some(None),
            Field::Unreadable => None,
        }
    }

    fn build_checks(&self, checks: &[CheckDraft]) -> Option<Vec<Check>> {
        let surroundings = Surroundings {
            protocol: self.protocol()?,
            role: self.role()?,
        };
        checks.iter().map(|one| one.build(surroundings)).collect()
    }

    /// The outer `None` = they cannot be used.
    fn build_own_checks(&self, backend: &BackendDraft) -> Option<Option<Vec<Check>>> {
        match (&backend.own_checks, backend.checks) {
            (_, Field::Unreadable) => None,
            (Some(own), _) => self.build_checks(own).map(Some),
            (None, Field::Given(OwnChecks::None)) => Some(Some(Vec::new())),
            (None, Field::Given(OwnChecks::Service) | Field::Absent) => Some(None),
        }
    }

    fn build_backend(&self, backend: &BackendDraft) -> Option<Backend> {
        Some(Backend {
            name: self.backend_name(backend)?,
            address: *backend.address.given()?,
            port: u16::try_from(self.backend_port(backend)?).ok()?,
            weight: u32::try_from(backend.weight()?).ok()?,
            backup: u8::try_from(backend.backup()?).ok()?,
            checks: self.build_own_checks(backend)?,
            admin: backend.admin,
            health: backend.health,
            fit: backend.fit.or_else(|| self.first_fit())?,
            agent: backend.agent,
        })
    }
}

impl From<&Model> for Draft {
    fn from(model: &Model) -> Self {
        Self {
            node: Field::Given(model.node.clone()),
            manage_vips: Field::Given(model.manage_vips),
            metrics: model.metrics.into(),
            hooks: HooksDraft::from(&model.hooks),
            on_stop: Field::Given(model.on_stop),
            interfaces: model.interfaces.iter().map(InterfaceDraft::from).collect(),
            limits: LimitsDraft::from(&model.limits),
            cluster: model.cluster.as_ref().map(ClusterDraft::from),
            vrrp: model.vrrp.values().map(VrrpDraft::from).collect(),
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
            checks: service.checks.iter().map(CheckDraft::from).collect(),
            verdict: verdict(service),
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
            checks: match &backend.checks {
                Some(own) if own.is_empty() => Field::Given(OwnChecks::None),
                Some(_) | None => Field::Absent,
            },
            own_checks: match &backend.checks {
                Some(own) if !own.is_empty() => Some(own.iter().map(CheckDraft::from).collect()),
                Some(_) | None => None,
            },
            admin: backend.admin,
            health: backend.health,
            fit: Some(backend.fit),
            agent: backend.agent,
        }
    }
}

fn verdict(service: &Service) -> VerdictDraft {
    VerdictDraft {
        check_mode: Field::Given(service.check_mode),
        hold_down_s: Field::Given(i64::from(service.hold_down_s)),
        doubt_repeated_syns: service.doubt.repeated_syns_percent.map(i64::from).into(),
        doubt_resets: service.doubt.resets_percent.map(i64::from).into(),
        role: Field::Given(service.role),
        max_lag_s: service.max_lag_s.map(i64::from).into(),
        primary_as_last_resort: match service.primary_as_last_resort {
            true => Field::Given(true),
            false => Field::Absent,
        },
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

use super::draft::{BackendDraft, Draft, Field, ServiceDraft};
use super::problem::{Kind, Problem};
use super::rules::{self, Checked};
use super::{AdminState, Backend, Health, Model, Observation, Service, Urgency};
use crate::suggest::closest;

/// A change at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a service (with the backends it holds, usually none).
    AddService(Service),
    /// Removes a service and its backends.
    RemoveService {
        /// Its name.
        service: String,
    },
    /// Adds a backend.
    AddBackend {
        /// The service's name.
        service: String,
        /// The new backend.
        backend: Backend,
    },
    /// Changes a backend's weight.
    SetBackendWeight {
        /// The service's name.
        service: String,
        /// The backend's name.
        backend: String,
        /// The new weight.
        weight: u32,
    },
    /// Takes a backend out of service, or puts it back.
    SetBackendAdmin {
        /// The service's name.
        service: String,
        /// The backend's name.
        backend: String,
        /// The new state.
        admin: AdminState,
        /// Whether handshakes under way are waited for.
        urgency: Urgency,
    },
    /// Says whether a backend answers.
    SetBackendHealth {
        /// The service's name.
        service: String,
        /// The backend's name.
        backend: String,
        /// What is known now.
        health: Health,
    },
    /// Says what checks have found out. What is not there (any more) is passed over.
    Observe(Vec<Observation>),
    /// Removes a backend.
    RemoveBackend {
        /// The service's name.
        service: String,
        /// The backend's name.
        backend: String,
    },
}

impl Change {
    /// How soon it takes effect: a death waits for nobody.
    pub fn urgency(&self) -> Urgency {
        match self {
            Self::SetBackendAdmin { urgency, .. } => *urgency,
            Self::SetBackendHealth {
                health: Health::Down,
                ..
            } => Urgency::Immediate,
            Self::Observe(batch) if batch.iter().any(Observation::is_death) => Urgency::Immediate,
            _ => Urgency::Planned,
        }
    }
}

/// Why a change was refused; the model stays as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// There is no such service.
    #[error("no service `{name}`{}", hint(.known, "lbctl service list"))]
    NoService {
        /// The name that was asked for.
        name: String,
        /// The closest name that exists.
        known: Option<String>,
    },
    /// There is no such backend.
    #[error("service `{service}` has no backend `{name}`{}", hint(.known, "lbctl backend list"))]
    NoBackend {
        /// The service.
        service: String,
        /// The name that was asked for.
        name: String,
        /// The closest name that exists.
        known: Option<String>,
    },
    /// No service has such a backend.
    #[error("no service has a backend `{name}`{}", hint(.known, "lbctl backend list"))]
    NoBackendAnywhere {
        /// The name that was asked for.
        name: String,
        /// The closest name that exists.
        known: Option<String>,
    },
    /// The model would break these rules.
    #[error("{}", lines(.0))]
    Problems(Vec<Problem>),
}

fn hint(known: &Option<String>, list: &str) -> String {
    match known {
        Some(known) => format!("; did you mean `{known}`?"),
        None => format!("; `{list}` shows those that exist"),
    }
}

fn lines(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(Problem::to_string).collect();
    lines.join("\n")
}

impl Model {
    /// The model after a change, with what is worth knowing about the service concerned. Nothing
    /// is half applied: a refused change leaves no trace.
    ///
    /// # Errors
    /// [`ModelError`]: a name that is not there, or broken rules.
    pub fn apply(&self, change: Change) -> Result<(Self, Vec<Problem>), ModelError> {
        let change = match change {
            Change::Observe(batch) => return Ok(self.observed(&batch)),
            change => change,
        };
        let mut draft = Draft::from(self);
        let position = edit(self, &mut draft, change)?;
        let Checked {
            model,
            errors,
            warnings,
        } = rules::check(&draft);
        let Some(model) = model else {
            return Err(ModelError::Problems(errors));
        };
        let concerned = warnings
            .into_iter()
            .filter(|warning| position.is_some_and(|index| warning.place.section.is_of(index)));
        Ok((model, concerned.collect()))
    }

    /// The model after observations. They break no rule: what can be worth knowing is that nobody is
    /// left.
    fn observed(&self, batch: &[Observation]) -> (Self, Vec<Problem>) {
        let mut model = self.clone();
        let changed = model.observe(batch);
        let services = changed.iter().filter_map(|name| model.services.get(name));
        let warnings =
            services.flat_map(|service| rules::check_availability(&ServiceDraft::from(service)));
        let warnings = warnings.collect();
        (model, warnings)
    }

    /// A service by name.
    ///
    /// # Errors
    /// [`ModelError::NoService`].
    pub fn service(&self, name: &str) -> Result<&Service, ModelError> {
        self.services
            .get(name)
            .ok_or_else(|| ModelError::NoService {
                name: name.to_owned(),
                known: closest(name, self.services.keys().map(String::as_str)).map(str::to_owned),
            })
    }

    /// Position of a service in the order of names.
    fn service_position(&self, name: &str) -> Result<usize, ModelError> {
        self.service(name)?;
        Ok(self
            .services
            .keys()
            .take_while(|known| *known != name)
            .count())
    }
}

impl Model {
    /// Positions of a service and of one of its backends, in the order of names.
    fn backend_place(&self, service: &str, backend: &str) -> Result<(usize, usize), ModelError> {
        let index = self.service_position(service)?;
        let position = self.service(service)?.backend_position(backend)?;
        Ok((index, position))
    }
}

impl Service {
    /// A backend by name.
    ///
    /// # Errors
    /// [`ModelError::NoBackend`].
    pub fn backend(&self, name: &str) -> Result<&Backend, ModelError> {
        self.backends
            .get(name)
            .ok_or_else(|| ModelError::NoBackend {
                service: self.name.clone(),
                name: name.to_owned(),
                known: closest(name, self.backends.keys().map(String::as_str)).map(str::to_owned),
            })
    }

    /// Position of a backend in the order of names.
    fn backend_position(&self, name: &str) -> Result<usize, ModelError> {
        self.backend(name)?;
        Ok(self
            .backends
            .keys()
            .take_while(|known| *known != name)
            .count())
    }
}

/// Writes a change into the draft of `model`, whose services and backends stand in the model's
/// order; returns the position of the service concerned, if it is still there.
fn edit(model: &Model, draft: &mut Draft, change: Change) -> Result<Option<usize>, ModelError> {
    match change {
        Change::AddService(service) => {
            draft.services.push(ServiceDraft::from(&service));
            Ok(Some(draft.services.len() - 1))
        }
        Change::RemoveService { service } => {
            draft.services.remove(model.service_position(&service)?);
            Ok(None)
        }
        Change::AddBackend { service, backend } => {
            let index = model.service_position(&service)?;
            let backends = &mut draft.services[index].backends;
            backends.push(BackendDraft::from(&backend));
            Ok(Some(index))
        }
        Change::SetBackendWeight {
            service,
            backend,
            weight,
        } => {
            let (index, position) = model.backend_place(&service, &backend)?;
            draft.services[index].backends[position].weight = Field::Given(i64::from(weight));
            Ok(Some(index))
        }
        Change::SetBackendAdmin {
            service,
            backend,
            admin,
            ..
        } => {
            let (index, position) = model.backend_place(&service, &backend)?;
            draft.services[index].backends[position].admin = admin;
            Ok(Some(index))
        }
        Change::SetBackendHealth {
            service,
            backend,
            health,
        } => {
            let (index, position) = model.backend_place(&service, &backend)?;
            draft.services[index].backends[position].health = health;
            Ok(Some(index))
        }
        // It needs no rules: see `Model::observed`.
        Change::Observe(_) => Ok(None),
        Change::RemoveBackend { service, backend } => {
            let (index, position) = model.backend_place(&service, &backend)?;
            draft.services[index].backends.remove(position);
            Ok(Some(index))
        }
    }
}

/// A new service from what was written, checked by itself. Whether it goes with the other services
/// is for [`Model::apply`] to say.
///
/// # Errors
/// [`ModelError::Problems`].
pub fn service_from(draft: &ServiceDraft) -> Result<Service, ModelError> {
    let problems = rules::check_service_alone(draft);
    let errors: Vec<_> = problems.into_iter().filter(Problem::is_error).collect();
    match draft.build() {
        Some(service) if errors.is_empty() => Ok(service),
        _ => Err(ModelError::Problems(errors)),
    }
}

/// A backend of `service` from what was written, with the service's port and a name from the address
/// where they are left out, checked by itself.
///
/// # Errors
/// [`ModelError::Problems`].
pub fn backend_from(service: &Service, backend: BackendDraft) -> Result<Backend, ModelError> {
    let mut draft = ServiceDraft::from(service);
    draft.backends = vec![backend];
    let service = service_from(&draft)?;
    let backend = service.backends.into_values().next();
    backend.ok_or_else(|| ModelError::Problems(Vec::new()))
}

impl Problem {
    fn is_error(&self) -> bool {
        self.kind != Kind::Warning
    }
}

#[cfg(test)]
#[path = "change_tests.rs"]
pub(super) mod tests;

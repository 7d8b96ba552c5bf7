//! What is not in the config file and outlives its being read again: admin state, and what checks have
//! found out.

use super::{AgentState, Backend, Health, Model, Service};

impl Model {
    /// This model with admin state, and what checks have found out, as they are in `current`, for the
    /// backends that remain.
    ///
    /// What the operator has said of a backend goes with its endpoint or, if that is new, with its
    /// name: whoever drains `web1`, gives it another address and reads the file again does not want
    /// it to get flows before he says so. What checks have found out goes with the endpoint alone, and
    /// is forgotten with the last check: nobody would ever say otherwise. Fitness is for one role.
    #[must_use]
    pub fn keeping_state_of(mut self, current: &Self) -> Self {
        for service in self.services.values_mut() {
            if let Some(before) = counterpart(current, service) {
                keep(service, before);
            }
        }
        self
    }
}

/// The service with the same endpoint, else the one of the same name.
fn counterpart<'m>(current: &'m Model, service: &Service) -> Option<&'m Service> {
    let endpoint = |one: &Service| (one.vip, one.port, one.protocol);
    let named = current.services.get(&service.name);
    named
        .filter(|before| endpoint(before) == endpoint(service))
        .or_else(|| {
            let mut services = current.services.values();
            services.find(|before| endpoint(before) == endpoint(service))
        })
        .or(named)
}

fn keep(service: &mut Service, before: &Service) {
    let has_checks = !service.checks.is_empty();
    let has_same_role = service.role == before.role;
    for backend in service.backends.values_mut() {
        let endpoint = (backend.address, backend.port);
        let is_same = |one: &&Backend| (one.address, one.port) == endpoint;
        if let Some(same) = before.backends.values().find(is_same) {
            backend.admin = same.admin;
            let is_checked = match &backend.checks {
                Some(own) => !own.is_empty(),
                None => has_checks,
            };
            let loses_checks = !is_checked && !before.checks_of(same).is_empty();
            (backend.health, backend.agent) = match loses_checks {
                true => (Health::default(), AgentState::default()),
                false => (same.health, same.agent),
            };
            if has_same_role {
                backend.fit = same.fit;
            }
        } else if let Some(namesake) = before.backends.get(&backend.name) {
            backend.admin = namesake.admin;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::tests::model;
    use super::super::{AdminState, Health};
    use super::*;

    /// `web1` drained and up, `web2` down.
    fn current() -> Model {
        let mut model = model();
        let web = model.services.get_mut("web").unwrap();
        let web1 = web.backends.get_mut("web1").unwrap();
        (web1.admin, web1.health) = (AdminState::Drain, Health::Up);
        web.backends.get_mut("web2").unwrap().health = Health::Down;
        model
    }

    fn state(model: &Model, service: &str, backend: &str) -> (AdminState, Health) {
        let backend = &model.services[service].backends[backend];
        (backend.admin, backend.health)
    }

    #[test]
    fn a_file_that_is_read_again_keeps_them() {
        assert_eq!(model().keeping_state_of(&current()), current());
    }

    #[test]
    fn another_name_is_still_the_same_endpoint() {
        let mut new = model();
        let mut web = new.services.remove("web").unwrap();
        web.name = "www".to_owned();
        let mut web1 = web.backends.remove("web1").unwrap();
        web1.name = "one".to_owned();
        web.backends.insert("one".to_owned(), web1);
        new.services.insert("www".to_owned(), web);
        let kept = new.keeping_state_of(&current());
        assert_eq!(state(&kept, "www", "one"), (AdminState::Drain, Health::Up));
    }

    #[test]
    fn another_machine_of_the_same_name_keeps_what_the_operator_said_and_no_health() {
        let mut new = model();
        let web = new.services.get_mut("web").unwrap();
        let web1 = web.backends.get_mut("web1").unwrap();
        web1.address = "10.0.0.99".parse().unwrap();
        let kept = new.keeping_state_of(&current());
        assert_eq!(
            state(&kept, "web", "web1"),
            (AdminState::Drain, Health::Unknown)
        );
        assert_eq!(
            state(&kept, "web", "web2"),
            (AdminState::Ready, Health::Down)
        );
    }

    #[test]
    fn a_service_on_another_vip_keeps_the_operators_word() {
        let mut new = model();
        new.services.get_mut("web").unwrap().vip = "203.0.113.99".parse().unwrap();
        let kept = new.keeping_state_of(&current());
        assert_eq!(state(&kept, "web", "web1"), (AdminState::Drain, Health::Up));
    }
}

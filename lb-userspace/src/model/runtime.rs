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
    use super::super::check::{AgentCheck, Check, CheckKind, Role, Timing, Via};
    use super::super::{AdminState, Fit, Health};
    use super::*;

    fn check() -> Check {
        Check {
            kind: CheckKind::Agent(AgentCheck::default()),
            timing: Timing::DEFAULT,
            port: Some(8081),
            source: None,
            via: Via::Direct,
        }
    }

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
    fn what_a_check_has_found_goes_with_the_last_check() {
        let drain = AgentState {
            admin: Some(AdminState::Drain),
            weight_percent: None,
        };
        let mut checked = current();
        let web = checked.services.get_mut("web").unwrap();
        web.checks = vec![check()];
        web.backends.get_mut("web2").unwrap().agent = drain;
        let found = |model: &Model| {
            let web2 = &model.services["web"].backends["web2"];
            (web2.health, web2.agent)
        };
        let mut other = model();
        other.services.get_mut("web").unwrap().checks = vec![check(), check()];
        assert_eq!(
            found(&other.keeping_state_of(&checked)),
            (Health::Down, drain)
        );
        let none = model().keeping_state_of(&checked);
        assert_eq!(found(&none), (Health::Unknown, AgentState::default()));
        assert_eq!(state(&none, "web", "web1").0, AdminState::Drain);
        let mut own = model();
        let web = own.services.get_mut("web").unwrap();
        web.backends.get_mut("web2").unwrap().checks = Some(vec![check()]);
        assert_eq!(
            found(&own.keeping_state_of(&checked)),
            (Health::Down, drain)
        );
        // What somebody else has said of a backend that lbd never checked, stays.
        assert_eq!(
            state(&model().keeping_state_of(&current()), "web", "web2").1,
            Health::Down
        );
    }

    #[test]
    fn who_is_fit_for_one_role_is_not_known_to_be_so_for_another() {
        let with_role = |role, fit| {
            let mut model = model();
            let web = model.services.get_mut("web").unwrap();
            web.role = role;
            web.backends.values_mut().for_each(|one| one.fit = fit);
            model
        };
        let fit = |model: Model| model.services["web"].backends["web1"].fit;
        let writer = || with_role(Role::Writer, Fit::Unfit);
        let found = with_role(Role::Writer, Fit::Fit);
        assert_eq!(fit(writer().keeping_state_of(&found)), Fit::Fit);
        let reader = with_role(Role::Reader, Fit::Fit);
        assert_eq!(fit(writer().keeping_state_of(&reader)), Fit::Unfit);
        let demoted = with_role(Role::Writer, Fit::Unfit);
        assert_eq!(fit(model().keeping_state_of(&demoted)), Fit::Fit);
    }

    #[test]
    fn a_service_on_another_vip_keeps_the_operators_word() {
        let mut new = model();
        new.services.get_mut("web").unwrap().vip = "203.0.113.99".parse().unwrap();
        let kept = new.keeping_state_of(&current());
        assert_eq!(state(&kept, "web", "web1"), (AdminState::Drain, Health::Up));
    }
}

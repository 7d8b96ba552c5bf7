//! What checks have found out, written into the model without going through its rules: none of them is
//! about it.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::{AgentState, Backend, Fit, Health, Model, Service};

/// What is known of a backend now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The service's name.
    pub service: String,
    /// The backend's name.
    pub backend: String,
    /// Where it is: of another one by the same name nothing is known by this.
    pub endpoint: SocketAddr,
    /// Whether it answers.
    pub health: Health,
    /// Whether it has the service's role.
    pub fit: Fit,
    /// What it has said of itself.
    pub agent: AgentState,
}

impl Observation {
    /// Whether the backend is of no use from now on: nobody waits for handshakes with it.
    pub fn is_death(&self) -> bool {
        self.health == Health::Down || self.fit == Fit::Unfit
    }
}

impl Model {
    /// Notes observations; returns the names of the services that are different now. Those of backends
    /// that are not there (any more) are passed over: a check may end after its backend was removed.
    pub fn observe(&mut self, observations: &[Observation]) -> BTreeSet<String> {
        let mut changed = BTreeSet::new();
        for one in observations {
            let service = self.services.get_mut(&one.service);
            if service.is_some_and(|service| service.observe(one)) {
                changed.insert(one.service.clone());
            }
        }
        changed
    }
}

impl Service {
    /// Whether that changed anything.
    fn observe(&mut self, one: &Observation) -> bool {
        let is_it =
            |backend: &&mut Backend| one.endpoint == SocketAddr::new(backend.address, backend.port);
        let Some(backend) = self.backends.get_mut(&one.backend).filter(is_it) else {
            return false;
        };
        let before = (backend.health, backend.fit, backend.agent);
        (backend.health, backend.fit, backend.agent) = (one.health, one.fit, one.agent);
        before != (one.health, one.fit, one.agent)
    }
}

#[cfg(test)]
mod tests {
    use super::super::change::tests::model;
    use super::super::{AdminState, Change, Urgency};
    use super::*;

    fn observation(service: &str, backend: &str) -> Observation {
        let model = model();
        let known = model.services.get(service);
        let known = known.and_then(|service| service.backends.get(backend));
        let anywhere = SocketAddr::from(([10, 0, 0, 99], 80));
        Observation {
            service: service.to_owned(),
            backend: backend.to_owned(),
            endpoint: known.map_or(anywhere, |one| SocketAddr::new(one.address, one.port)),
            health: Health::Up,
            fit: Fit::Fit,
            agent: AgentState::default(),
        }
    }

    fn down(backend: &str) -> Observation {
        Observation {
            health: Health::Down,
            ..observation("web", backend)
        }
    }

    #[test]
    fn a_batch_tells_which_services_it_has_changed() {
        let mut model = model();
        let drain = AgentState {
            admin: Some(AdminState::Drain),
            weight_percent: Some(50),
        };
        let batch = [
            down("web1"),
            Observation {
                fit: Fit::Unfit,
                agent: drain,
                ..observation("web", "web2")
            },
        ];
        let changed = model.observe(&batch);
        assert_eq!(changed.into_iter().collect::<Vec<_>>(), ["web"]);
        let web = &model.services["web"];
        assert_eq!(web.backends["web1"].health, Health::Down);
        let web2 = &web.backends["web2"];
        assert_eq!(
            (web2.health, web2.fit, web2.agent),
            (Health::Up, Fit::Unfit, drain)
        );
        assert!(model.observe(&batch).is_empty(), "nothing is new");
    }

    #[test]
    fn what_has_gone_meanwhile_is_passed_over() {
        let mut model = model();
        let before = model.clone();
        let namesake = Observation {
            endpoint: SocketAddr::from(([10, 0, 0, 99], 80)),
            ..down("web1")
        };
        let gone = [
            observation("web", "web9"),
            observation("shop", "web1"),
            namesake,
        ];
        assert!(model.observe(&gone).is_empty());
        assert_eq!(model, before);
    }

    #[test]
    fn a_change_of_that_kind_tells_what_becomes_of_new_flows_and_nothing_else() {
        let change = |batch: &[Observation]| {
            let (model, warnings) = model().apply(Change::Observe(batch.to_vec())).unwrap();
            let lines: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            (model, lines)
        };
        let (one_down, warnings) = change(&[down("web1")]);
        assert_eq!(
            one_down.services["web"].backends["web1"].health,
            Health::Down
        );
        assert_eq!(warnings, [""; 0]);
        let unfit = Observation {
            fit: Fit::Unfit,
            ..observation("web", "web2")
        };
        let (_, warnings) = change(&[down("web1"), unfit]);
        assert_eq!(
            warnings,
            [
                "service `web`: no backend can take new flows (web1 down, web2 unfit): they go on to \
                 the backends that had them last (on_all_down = \"last_good\")"
            ]
        );
    }

    #[test]
    fn a_batch_with_a_death_waits_for_nobody() {
        let urgency =
            |one: Observation| Change::Observe(vec![observation("web", "web2"), one]).urgency();
        assert_eq!(urgency(down("web1")), Urgency::Immediate);
        let unfit = Observation {
            fit: Fit::Unfit,
            ..observation("web", "web1")
        };
        assert_eq!(urgency(unfit), Urgency::Immediate);
        assert_eq!(urgency(observation("web", "web1")), Urgency::Planned);
    }
}

//! Which backends get a service's new flows, and with what weight. Pure.

use lb_common::limits::{WEIGHT_MAX, WEIGHT_MIN};

use super::slow_start;
use super::{AdminState, AgentState, Backend, Fit, Health, Service};

/// A backend that new flows may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eligible<'s> {
    /// As configured.
    pub backend: &'s Backend,
    /// Its weight for now: less than the configured one while it starts slowly.
    pub weight: u32,
}

/// What the operator, an agent and the role make of a backend together: the strictest word applies. Who
/// is unfit for the role is as good as in maintenance.
pub(super) fn standing(admin: AdminState, fit: Fit, agent: AgentState) -> AdminState {
    if fit == Fit::Unfit {
        return AdminState::Maint;
    }
    let told = agent.admin.unwrap_or_default();
    let weighed = match agent.weight_percent {
        Some(0) => AdminState::Drain,
        _ => AdminState::Ready,
    };
    admin.max(told).max(weighed)
}

impl Backend {
    /// What the operator, the backend's agent and the service's role make of it together.
    pub fn standing(&self) -> AdminState {
        standing(self.admin, self.fit, self.agent)
    }

    /// Its share: the configured weight, or the part of it that its agent has asked for, from
    /// [`WEIGHT_MIN`] to [`WEIGHT_MAX`]. Zero per cent is no weight, but a drain: see [`Self::standing`].
    pub fn effective_weight(&self) -> u32 {
        match self.agent.weight_percent {
            None | Some(0) => self.weight,
            Some(percent) => {
                let part = u64::from(self.weight) * u64::from(percent) / 100;
                // Within 32 bits, since it is at most WEIGHT_MAX.
                part.clamp(u64::from(WEIGHT_MIN), u64::from(WEIGHT_MAX)) as u32
            }
        }
    }

    /// Whether it would do for new flows: ready and fit, and not known to be down. If it gets any depends
    /// on its `backup` group.
    pub fn is_available(&self) -> bool {
        self.standing() == AdminState::Ready && self.health != Health::Down
    }
}

impl Service {
    /// The `backup` group whose backends get the new flows: the lowest with an available one.
    pub fn active_group(&self) -> Option<u8> {
        let available = self.backends.values().filter(|one| one.is_available());
        available.map(|backend| backend.backup).min()
    }

    /// The backends that new flows may go to, in the order of their names.
    pub fn eligible(&self) -> impl Iterator<Item = &Backend> {
        let group = self.active_group();
        let backends = self.backends.values();
        backends.filter(move |one| one.is_available() && group == Some(one.backup))
    }

    /// Whether new flows go to this backend of the service. Of many, [`Self::eligible`] tells sooner.
    pub fn is_eligible(&self, backend: &Backend) -> bool {
        backend.is_available() && self.active_group() == Some(backend.backup)
    }
}

/// The backends that get the new flows of a service, in the order of their names. `eligible_for_ms`
/// tells since when a backend has been one of them; `None` = for ever, as far as slow start goes.
///
/// `None` = nobody is eligible: `on_all_down` says what becomes of new flows.
pub fn members<'s>(
    service: &'s Service,
    eligible_for_ms: impl Fn(&Backend) -> Option<u64>,
) -> Option<Vec<Eligible<'s>>> {
    service.active_group()?;
    let slow_start_ms = u64::from(service.policies.slow_start_s) * 1_000;
    let members = service.eligible().map(|backend| Eligible {
        backend,
        weight: match eligible_for_ms(backend) {
            Some(since_ms) => {
                slow_start::weight(backend.effective_weight(), since_ms, slow_start_ms)
            }
            None => backend.effective_weight(),
        },
    });
    Some(members.collect())
}

#[cfg(test)]
mod tests {
    use super::super::change::tests::{backend, service};
    use super::*;

    /// A service with backends of these weights and backup groups, named `a`, `b`, …
    fn web(backends: &[(u32, u8)]) -> Service {
        let mut web = service("web", "203.0.113.10");
        for (name, (weight, backup)) in ('a'..).zip(backends) {
            let name = name.to_string();
            let one = Backend {
                weight: *weight,
                backup: *backup,
                ..backend(&name, "10.0.0.1")
            };
            web.backends.insert(name, one);
        }
        web
    }

    fn set(service: &mut Service, name: &str, admin: AdminState, health: Health) {
        let backend = service.backends.get_mut(name).unwrap();
        (backend.admin, backend.health) = (admin, health);
    }

    fn weights(service: &Service) -> Option<Vec<(&str, u32)>> {
        let members = members(service, |_| None)?;
        let pairs = members.iter().map(|one| (&*one.backend.name, one.weight));
        Some(pairs.collect())
    }

    #[test]
    fn ready_backends_that_are_not_down_get_new_flows() {
        let mut web = web(&[(1, 0), (2, 0), (3, 0), (4, 0), (5, 0)]);
        set(&mut web, "b", AdminState::Drain, Health::Up);
        set(&mut web, "c", AdminState::Maint, Health::Unknown);
        set(&mut web, "d", AdminState::Ready, Health::Down);
        set(&mut web, "e", AdminState::Ready, Health::Up);
        assert_eq!(weights(&web), Some(vec![("a", 1), ("e", 5)]));
    }

    #[test]
    fn the_lowest_group_with_anybody_available_gets_all() {
        let mut web = web(&[(1, 0), (2, 3), (3, 7), (4, 3)]);
        assert_eq!(weights(&web), Some(vec![("a", 1)]));
        set(&mut web, "a", AdminState::Ready, Health::Down);
        assert_eq!(weights(&web), Some(vec![("b", 2), ("d", 4)]));
        assert!(web.is_eligible(&web.backends["b"]) && !web.is_eligible(&web.backends["c"]));
        set(&mut web, "b", AdminState::Drain, Health::Unknown);
        set(&mut web, "d", AdminState::Maint, Health::Unknown);
        assert_eq!(weights(&web), Some(vec![("c", 3)]));
    }

    #[test]
    fn who_is_unfit_for_the_role_is_as_good_as_in_maintenance() {
        let mut db = web(&[(1, 0), (2, 0)]);
        db.backends.get_mut("a").unwrap().fit = Fit::Unfit;
        assert_eq!(weights(&db), Some(vec![("b", 2)]));
        assert_eq!(db.backends["a"].standing(), AdminState::Maint);
    }

    #[test]
    fn of_the_operator_and_the_agent_the_stricter_one_applies() {
        let mut web = web(&[(1, 0)]);
        let one = web.backends.get_mut("a").unwrap();
        let cases = [
            (AdminState::Ready, None, AdminState::Ready),
            (
                AdminState::Ready,
                Some(AdminState::Drain),
                AdminState::Drain,
            ),
            (
                AdminState::Maint,
                Some(AdminState::Drain),
                AdminState::Maint,
            ),
            (
                AdminState::Drain,
                Some(AdminState::Ready),
                AdminState::Drain,
            ),
        ];
        for (operator, agent, both) in cases {
            (one.admin, one.agent.admin) = (operator, agent);
            assert_eq!(one.standing(), both, "{operator:?} {agent:?}");
        }
    }

    #[test]
    fn an_agent_asks_for_a_part_of_the_weight_and_for_none_with_a_drain() {
        let mut web = web(&[(100, 0), (7, 0), (1000, 0)]);
        let ask = |web: &mut Service, percent| {
            for one in web.backends.values_mut() {
                one.agent.weight_percent = Some(percent);
            }
        };
        ask(&mut web, 50);
        assert_eq!(weights(&web), Some(vec![("a", 50), ("b", 3), ("c", 500)]));
        ask(&mut web, 1);
        assert_eq!(weights(&web), Some(vec![("a", 1), ("b", 1), ("c", 10)]));
        ask(&mut web, 256);
        assert_eq!(
            weights(&web),
            Some(vec![("a", 256), ("b", 17), ("c", 1000)])
        );
        ask(&mut web, 0);
        assert_eq!(weights(&web), None);
        assert_eq!(web.backends["a"].standing(), AdminState::Drain);
    }

    #[test]
    fn nobody_is_told_from_an_empty_list() {
        let mut one = web(&[(1, 0)]);
        set(&mut one, "a", AdminState::Drain, Health::Up);
        assert_eq!(weights(&one), None);
        assert_eq!(weights(&web(&[])), None);
    }

    #[test]
    fn a_backend_that_starts_slowly_has_less_weight() {
        let mut web = web(&[(100, 0), (100, 0)]);
        web.policies.slow_start_s = 10;
        let since = |backend: &Backend| (backend.name == "b").then_some(0);
        let found: Vec<u32> = members(&web, since)
            .unwrap()
            .iter()
            .map(|one| one.weight)
            .collect();
        assert_eq!(found, [100, 10]);
    }
}

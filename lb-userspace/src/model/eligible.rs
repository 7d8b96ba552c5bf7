//! Which backends get a service's new flows, and with what weight. Pure.

use super::slow_start;
use super::{AdminState, Backend, Health, Service};

/// A backend that new flows may go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eligible<'s> {
    /// As configured.
    pub backend: &'s Backend,
    /// Its weight for now: less than the configured one while it starts slowly.
    pub weight: u32,
}

impl Backend {
    /// Whether it would do for new flows: ready, and not known to be down. If it gets any depends on
    /// its `backup` group.
    pub fn is_available(&self) -> bool {
        self.admin == AdminState::Ready && self.health != Health::Down
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
            Some(since_ms) => slow_start::weight(backend.weight, since_ms, slow_start_ms),
            None => backend.weight,
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

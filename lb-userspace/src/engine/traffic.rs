//! How busy each service is: who is put right first when many are to be put right at once.

use std::collections::{BTreeMap, BTreeSet};

use super::core::Engine;
use crate::desired::ids::ServiceIdentity;
use crate::maps::MapStore as _;
use crate::model::Observation;

/// Packets of the services between the last two looks.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    /// By the service's name: all packets that its backends have ever got.
    totals: BTreeMap<String, u64>,
    /// By the service's name: those between the last two looks.
    lately: BTreeMap<String, u64>,
}

impl Traffic {
    /// Notes what all services have counted until now.
    fn note(&mut self, totals: BTreeMap<String, u64>) {
        let since = |(name, total): (&String, &u64)| {
            let before = self.totals.get(name).copied().unwrap_or(*total);
            // Backends come and go, and their counts with them.
            (name.clone(), total.saturating_sub(before))
        };
        self.lately = totals.iter().map(since).collect();
        self.totals = totals;
    }

    /// Keeps the observations of the busiest services, at most this many of them; returns the others, in
    /// the order of traffic too.
    pub(super) fn split_off(
        &self,
        observations: &mut Vec<Observation>,
        services_max: usize,
    ) -> Vec<Observation> {
        let rank = |one: &Observation| self.lately.get(&one.service).copied().unwrap_or(0);
        // Stable: of one backend, the later observation stays the later one.
        observations.sort_by(|one, other| {
            let busier = rank(other).cmp(&rank(one));
            busier.then_with(|| one.service.cmp(&other.service))
        });
        let mut services = BTreeSet::new();
        let first_left = observations.iter().position(|one| {
            services.insert(one.service.as_str());
            services.len() > services_max
        });
        observations.split_off(first_left.unwrap_or(observations.len()))
    }
}

impl Engine {
    /// Looks at how busy the services are.
    pub(super) fn look_at_traffic(&mut self) {
        let totals = self.model.services.values().map(|service| {
            let identity = ServiceIdentity::of(service);
            let backends = service.backends.values();
            let ids = backends.filter_map(|one| self.ids.backend(&identity, one.address, one.port));
            // What cannot be read is reported where somebody asks for it.
            let counts = ids.filter_map(|id| self.store.backend_stats(id.id).ok());
            (service.name.clone(), counts.map(|one| one.packets).sum())
        });
        let totals = totals.collect();
        self.traffic.note(totals);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{AgentState, Fit, Health};

    fn observations(seats: &[(&str, &str)]) -> Vec<Observation> {
        let observed = seats.iter().map(|(service, backend)| Observation {
            service: (*service).to_owned(),
            backend: (*backend).to_owned(),
            endpoint: "10.0.0.11:80".parse().unwrap(),
            health: Health::Down,
            fit: Fit::Fit,
            agent: AgentState::default(),
        });
        observed.collect()
    }

    fn seats(observations: &[Observation]) -> Vec<(&str, &str)> {
        let seats = observations.iter();
        seats
            .map(|one| (one.service.as_str(), one.backend.as_str()))
            .collect()
    }

    fn totals(counts: &[(&str, u64)]) -> BTreeMap<String, u64> {
        let counts = counts.iter();
        counts
            .map(|(name, count)| ((*name).to_owned(), *count))
            .collect()
    }

    #[test]
    fn the_busiest_services_come_first_with_all_that_was_found_of_them() {
        let mut traffic = Traffic::default();
        traffic.note(totals(&[("a", 1_000_000), ("b", 10), ("c", 10), ("d", 0)]));
        traffic.note(totals(&[("a", 1_000_001), ("b", 10), ("c", 500), ("d", 2)]));
        let found = [
            ("a", "web1"),
            ("b", "web1"),
            ("c", "web1"),
            ("c", "web2"),
            ("d", "web1"),
        ];
        let mut now = observations(&found);
        let left = traffic.split_off(&mut now, 2);
        assert_eq!(seats(&now), [("c", "web1"), ("c", "web2"), ("d", "web1")]);
        assert_eq!(seats(&left), [("a", "web1"), ("b", "web1")]);
    }

    #[test]
    fn with_room_for_all_nothing_is_left() {
        let traffic = Traffic::default();
        let mut now = observations(&[("a", "web1"), ("b", "web1")]);
        assert!(traffic.split_off(&mut now, 2).is_empty());
        assert_eq!(now.len(), 2);
    }

    #[test]
    fn counts_that_fall_are_no_traffic() {
        let mut traffic = Traffic::default();
        traffic.note(totals(&[("a", 100), ("b", 1)]));
        traffic.note(totals(&[("a", 5), ("b", 2)]));
        let mut now = observations(&[("a", "web1"), ("b", "web1")]);
        let left = traffic.split_off(&mut now, 1);
        assert_eq!(
            (seats(&now), seats(&left)),
            (vec![("b", "web1")], vec![("a", "web1")])
        );
    }
}

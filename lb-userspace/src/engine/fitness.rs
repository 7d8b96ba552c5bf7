//! What this node could serve with: for those who decide which node has the VIPs.

use std::collections::BTreeMap;

use tokio::sync::watch;

use super::core::Engine;
use crate::model::Service;

/// What there is to serve with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitness {
    /// By service, the backends that get new flows.
    pub live_backends: BTreeMap<String, u32>,
    /// Interfaces that the datapath is not attached to, with the reasons.
    pub unattached: BTreeMap<String, String>,
}

impl Engine {
    /// What this node could serve with, from now on.
    pub(super) fn fitness(&self) -> watch::Receiver<Fitness> {
        self.fitness.subscribe()
    }

    /// Tells those who follow it, if it has changed.
    pub(super) fn tell_fitness(&self) {
        let services = self.model.services.values();
        let states = self.interfaces.states(&self.model.interfaces);
        let unattached = states
            .into_iter()
            .filter(|state| state.ifindex.is_none())
            .map(|state| {
                let reason = state
                    .reason
                    .unwrap_or_else(|| "not attached yet".to_owned());
                (state.interface.name, reason)
            });
        let fitness = Fitness {
            live_backends: services
                .map(|service| (service.name.clone(), live_count(service)))
                .collect(),
            unattached: unattached.collect(),
        };
        self.fitness.send_if_modified(|known| {
            let is_changed = *known != fitness;
            *known = fitness;
            is_changed
        });
    }
}

fn live_count(service: &Service) -> u32 {
    let backends = service.backends.values();
    backends.filter(|one| service.is_eligible(one)).count() as u32
}

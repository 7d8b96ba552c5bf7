//! What this node could serve with: for those who decide which node has the VIPs.

use std::collections::BTreeMap;
use std::net::IpAddr;

use tokio::sync::watch;

use super::core::Engine;
use super::snapshot::InterfaceState;
use crate::model::Service;
use crate::vrrp::protocol::Place;

/// What there is to serve with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fitness {
    /// By service, the backends that get new flows.
    pub live_backends: BTreeMap<String, u32>,
    /// Interfaces that cannot serve, with the reasons: the datapath is not attached, or there is no link.
    pub unwell: BTreeMap<String, String>,
    /// VIPs of groups that the engine has added itself, before they were any group's, and where: for the VRRP process
    /// to take over.
    pub given_vips: BTreeMap<IpAddr, Place>,
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
        let unwell = states.into_iter().filter_map(|state| {
            let reason = self.unwell(&state)?;
            Some((state.interface.name, reason))
        });
        let fitness = Fitness {
            live_backends: services
                .map(|service| (service.name.clone(), live_count(service)))
                .collect(),
            unwell: unwell.collect(),
            given_vips: self.given_vips(),
        };
        self.fitness.send_if_modified(|known| {
            let is_changed = *known != fitness;
            *known = fitness;
            is_changed
        });
    }
}

impl Engine {
    /// Why an interface cannot serve, if so.
    fn unwell(&self, state: &InterfaceState) -> Option<String> {
        let Some(ifindex) = state.ifindex else {
            let reason = state.reason.as_deref().unwrap_or("not yet");
            return Some(format!("the datapath is not attached: {reason}"));
        };
        let link = self.surroundings.view().links.get(&ifindex)?;
        match link {
            link if !link.is_up => Some("it is down".to_owned()),
            link if !link.has_carrier => Some("it has no carrier".to_owned()),
            _ => None,
        }
    }
}

fn live_count(service: &Service) -> u32 {
    let backends = service.backends.values();
    backends.filter(|one| service.is_eligible(one)).count() as u32
}

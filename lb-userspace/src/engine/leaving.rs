//! Backends that are leaving, as they are shown.

use std::net::IpAddr;

use super::core::Engine;
use crate::desired::ids::ServiceIdentity;
use crate::model::draft::default_name;
use crate::model::{Backend, Service};

/// A backend that the model has no more, and whose flows have not all ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Departing {
    /// Its id in the maps.
    pub(super) id: u16,
    /// What it is called now.
    pub(super) name: String,
    pub(super) address: IpAddr,
    pub(super) port: u16,
}

/// Those that are leaving a service and still have an entry.
pub(super) fn departing(engine: &Engine, service: &Service) -> Vec<Departing> {
    let identity = ServiceIdentity::of(service);
    let its = engine
        .leaving
        .iter()
        .filter(|((one, ..), _)| *one == identity);
    let departing = its.filter_map(|((_, address, port), leaving)| {
        Some(Departing {
            id: engine.ids.backend(&identity, *address, *port)?.id,
            name: name(service, &leaving.backend),
            address: *address,
            port: *port,
        })
    });
    let written = &engine.actual.maps.backends;
    departing
        .filter(|one| written.contains_key(&one.id))
        .collect()
}

/// The name that it had, unless that is not known or another backend has it now.
fn name(service: &Service, backend: &Backend) -> String {
    if service.backends.contains_key(&backend.name) {
        address_name(service, backend.address, backend.port)
    } else {
        backend.name.clone()
    }
}

/// What a backend is called that nobody has given a name.
pub(super) fn address_name(service: &Service, address: IpAddr, port: u16) -> String {
    let is_remapped = port != service.port;
    default_name(address, is_remapped.then_some(i64::from(port)))
}

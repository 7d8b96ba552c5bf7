//! Rules between services: names, VIP endpoints, backends that are VIPs, and replies under NAT that
//! could belong to two services.

use std::collections::HashMap;
use std::net::IpAddr;

use super::backends::endpoint_text;
use super::{Findings, backend_subject, service_subject};
use crate::model::draft::ServiceDraft;
use crate::model::problem::{Kind, Problem};
use crate::model::{ForwardMode, Protocol, Section};

/// Checks all services against one another.
pub(super) fn check(services: &[ServiceDraft], findings: &mut Findings) {
    check_names(services, findings);
    check_vip_endpoints(services, findings);
    check_backends_are_no_vips(services, findings);
    check_nat_replies(services, findings);
}

fn check_names(services: &[ServiceDraft], findings: &mut Findings) {
    let mut first_with = HashMap::new();
    for (index, service) in services.iter().enumerate() {
        let Some(name) = service.name.given() else {
            continue;
        };
        let first = *first_with.entry(name).or_insert(index);
        if first != index {
            let subject = service_subject(index, service);
            let place = Section::Service(index).key("name");
            findings.push(
                Problem::new(
                    Kind::Conflict,
                    place,
                    subject,
                    "there is one of this name already",
                )
                .against(Section::Service(first).key("name")),
            );
        }
    }
}

fn check_vip_endpoints(services: &[ServiceDraft], findings: &mut Findings) {
    let mut first_with = HashMap::new();
    for (index, service) in services.iter().enumerate() {
        let endpoint = (
            service.vip.given(),
            service.port.given(),
            service.protocol(),
        );
        let (Some(vip), Some(port), Some(protocol)) = endpoint else {
            continue;
        };
        let first = *first_with.entry((vip, port, protocol)).or_insert(index);
        if first != index {
            let endpoint = endpoint_text(*vip, *port);
            let owner = service_subject(first, &services[first]);
            let message = format!("{endpoint} {protocol} belongs to {owner} already");
            let place = Section::Service(index).key("vip");
            findings.push(
                Problem::new(
                    Kind::Conflict,
                    place,
                    service_subject(index, service),
                    message,
                )
                .against(Section::Service(first).key("vip")),
            );
        }
    }
}

/// A backend at a VIP would be this node itself: its packets would come straight back.
fn check_backends_are_no_vips(services: &[ServiceDraft], findings: &mut Findings) {
    let vips: HashMap<&IpAddr, usize> = services
        .iter()
        .enumerate()
        .rev()
        .filter_map(|(index, service)| Some((service.vip.given()?, index)))
        .collect();
    for (index, service) in services.iter().enumerate() {
        for (position, backend) in service.backends.iter().enumerate() {
            let Some(owner) = backend
                .address
                .given()
                .and_then(|address| vips.get(address))
            else {
                continue;
            };
            let message = format!(
                "its address is the VIP of {}",
                service_subject(*owner, &services[*owner])
            );
            let place = Section::Backend(index, position).key("address");
            let subject = backend_subject((index, service), (position, backend));
            findings.push(
                Problem::new(Kind::Conflict, place, subject, message)
                    .against(Section::Service(*owner).key("vip"))
                    .help("use the backend's own address"),
            );
        }
    }
}

/// A NAT reply is told by (backend address, port, protocol) alone, so that must lead to one
/// service; one with port 0 claims every port of its backends.
fn check_nat_replies(services: &[ServiceDraft], findings: &mut Findings) {
    let mut by_address: HashMap<(IpAddr, Protocol), Vec<NatEndpoint>> = HashMap::new();
    for (index, service) in services.iter().enumerate() {
        let (Some(ForwardMode::Nat), Some(protocol)) = (service.forward(), service.protocol())
        else {
            continue;
        };
        for (position, backend) in service.backends.iter().enumerate() {
            let endpoint = (backend.address.given(), service.backend_port(backend));
            let (Some(address), Some(port)) = endpoint else {
                continue;
            };
            let earlier = by_address.entry((*address, protocol)).or_default();
            let entry = NatEndpoint {
                index,
                position,
                port,
            };
            if let Some(other) = earlier.iter().find(|other| other.is_ambiguous_with(&entry)) {
                let owner = service_subject(other.index, &services[other.index]);
                let message = format!(
                    "{} {protocol} is a NAT backend of {owner} already: its replies could belong to either",
                    endpoint_text(*address, port)
                );
                let subject = backend_subject((index, service), (position, backend));
                let place = Section::Backend(index, position).key("address");
                findings.push(
                    Problem::new(Kind::Conflict, place, subject, message)
                        .against(Section::Backend(other.index, other.position).key("address"))
                        .help("let the backend listen on a port for each service, or use DSR"),
                );
            }
            earlier.push(entry);
        }
    }
}

struct NatEndpoint {
    index: usize,
    position: usize,
    port: i64,
}

impl NatEndpoint {
    /// Two entries of one service are a duplicate, which another rule reports.
    fn is_ambiguous_with(&self, other: &Self) -> bool {
        let overlaps = self.port == other.port || self.port == 0 || other.port == 0;
        self.index != other.index && overlaps
    }
}

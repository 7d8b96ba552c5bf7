use std::collections::HashMap;

use lb_common::limits::{WEIGHT_MAX, WEIGHT_MIN};

use super::{Findings, Number, address, backend_subject, names};
use crate::model::draft::{BackendDraft, ServiceDraft};
use crate::model::problem::{Kind, Problem};
use crate::model::{ForwardMode, Section};

/// The last of the backup groups: more ranks than anybody keeps apart in a failure.
const BACKUP_GROUP_MAX: i64 = 9;

/// A backend under examination.
struct Subject<'a> {
    section: Section,
    name: String,
    service: &'a ServiceDraft,
    backend: &'a BackendDraft,
}

/// Checks a service's backends, each by itself and against one another.
pub(super) fn check(index: usize, service: &ServiceDraft, findings: &mut Findings) {
    for (position, backend) in service.backends.iter().enumerate() {
        let subject = Subject {
            section: Section::Backend(index, position),
            name: backend_subject((index, service), (position, backend)),
            service,
            backend,
        };
        let name_place = subject.section.key("name");
        names::check(&backend.name, name_place, &subject.name, findings);
        check_address(&subject, findings);
        check_weight(&subject, findings);
        check_backup(&subject, findings);
        check_port(&subject, findings);
    }
    check_unique(index, service, findings);
}

fn check_address(subject: &Subject<'_>, findings: &mut Findings) {
    let Subject {
        section,
        name,
        service,
        backend,
    } = subject;
    findings.require(&backend.address, *section, "address", name);
    let Some(address) = backend.address.given() else {
        return;
    };
    let place = section.key("address");
    if let Some(reason) = address::unfit(*address) {
        let message = format!("address {address} {reason}");
        findings.push(Problem::new(Kind::Invalid, place, name, message));
        return;
    }
    let Some(vip) = service.vip.given() else {
        return;
    };
    if vip.is_ipv4() != address.is_ipv4() {
        let message = format!(
            "address {address} is {}, the VIP {vip} is {}",
            address::family(*address),
            address::family(*vip)
        );
        let help = "a service and its backends are of one family; make a service for each family";
        findings.push(Problem::new(Kind::Invalid, place, name, message).help(help));
    }
}

fn check_weight(subject: &Subject<'_>, findings: &mut Findings) {
    let weight = subject.backend.weight();
    let place = subject.section.key("weight");
    if weight == Some(0) {
        let message = "weight 0";
        let help = "to take a backend out of service, drain it (lbctl backend drain) or remove it";
        findings.push(Problem::new(Kind::Invalid, place, &subject.name, message).help(help));
        return;
    }
    let number = Number {
        place,
        subject: &subject.name,
        noun: "weight",
        unit: "",
    };
    findings.range(
        weight,
        i64::from(WEIGHT_MIN)..=i64::from(WEIGHT_MAX),
        number,
    );
}

fn check_backup(subject: &Subject<'_>, findings: &mut Findings) {
    let number = Number {
        place: subject.section.key("backup"),
        subject: &subject.name,
        noun: "backup",
        unit: " (0 means no backup)",
    };
    findings.range(subject.backend.backup(), 0..=BACKUP_GROUP_MAX, number);
}

/// A backend's port differs from the service's with NAT only, and never under "every port".
fn check_port(subject: &Subject<'_>, findings: &mut Findings) {
    let Subject {
        section,
        name,
        service,
        backend,
    } = subject;
    let place = section.key("port");
    let (Some(own), Some(outer)) = (backend.port.given().copied(), service.port.given().copied())
    else {
        return;
    };
    let fault = if own == outer {
        None
    } else if !(0..=i64::from(u16::MAX)).contains(&own) {
        Some((format!("port {own} is not in 1 to 65535"), None))
    } else if outer == 0 {
        let message = format!("port {own}, but the service takes every port (port 0)");
        Some((message, Some("leave the backend's port out")))
    } else if own == 0 {
        let message = "port 0 is for a service with port 0 only".to_owned();
        Some((
            message,
            Some("leave the port out: it is the service's then"),
        ))
    } else if service.forward() == Some(ForwardMode::Dsr) {
        let message =
            format!("port {own} differs from the service's {outer}, and DSR rewrites no port");
        Some((
            message,
            Some("use the service's port, or forward = \"nat\""),
        ))
    } else {
        None
    };
    if let Some((message, help)) = fault {
        let mut problem = Problem::new(Kind::Invalid, place, name, message);
        problem.help = help.map(str::to_owned);
        findings.push(problem);
    }
}

/// Names and address:port occur once in a service.
fn check_unique(index: usize, service: &ServiceDraft, findings: &mut Findings) {
    let mut names = HashMap::new();
    let mut endpoints = HashMap::new();
    for (position, backend) in service.backends.iter().enumerate() {
        let section = Section::Backend(index, position);
        let subject = || backend_subject((index, service), (position, backend));
        let endpoint = (backend.address.given(), service.backend_port(backend));
        if let (Some(address), Some(port)) = endpoint {
            let first = *endpoints.entry((*address, port)).or_insert(section);
            if first != section {
                let message = format!(
                    "{} is in this service already",
                    endpoint_text(*address, port)
                );
                findings.push(
                    Problem::new(Kind::Conflict, section.key("address"), subject(), message)
                        .against(first.key("address"))
                        .help("to give a backend a larger share, raise its weight"),
                );
                // Names made from the same address collide too: one report is enough.
                continue;
            }
        }
        if let Some(name) = service.backend_name(backend) {
            let first = *names.entry(name).or_insert(section);
            if first != section {
                let message = "the name is taken in this service";
                findings.push(
                    Problem::new(Kind::Conflict, section.key("name"), subject(), message)
                        .against(first.key("name")),
                );
            }
        }
    }
}

/// `10.0.0.11:80`, `[2001:db8::11]:80`, or the address alone where the port is 0.
pub(super) fn endpoint_text(address: std::net::IpAddr, port: i64) -> String {
    match (port, address) {
        (0, _) => address.to_string(),
        (_, std::net::IpAddr::V4(_)) => format!("{address}:{port}"),
        (_, std::net::IpAddr::V6(_)) => format!("[{address}]:{port}"),
    }
}

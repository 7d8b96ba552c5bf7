use lb_common::limits::{RING_SLOTS_DEFAULT, RING_SLOTS_LARGE, SERVICE_BACKENDS_MAX};

use super::{Findings, Number, address, names, service_subject};
use crate::model::draft::{Draft, ServiceDraft};
use crate::model::problem::{Kind, Problem};
use crate::model::{Protocol, Scheduler, Section, UdpFlow};

/// A port, or 0 for every port.
const PORT_RANGE: (i64, i64) = (0, u16::MAX as i64);

/// From the shortest time-out that the datapath's clock of whole seconds can tell, to a week: beyond
/// that, a table of dead flows. Unit: seconds.
const IDLE_TIMEOUT_RANGE: (i64, i64) = (1, 7 * 24 * 3600);

/// Off, to an hour: a backend that needs longer to warm up is no use in a failure. Unit: seconds.
const SLOW_START_RANGE: (i64, i64) = (0, 3600);

/// Slots that each backend of a Maglev ring should have for an imbalance of at most 1 % (Maglev
/// paper, section 5.3).
const SLOTS_PER_BACKEND: i64 = 100;

/// Checks a service by itself, its backends apart.
pub(super) fn check(index: usize, service: &ServiceDraft, findings: &mut Findings) {
    let section = Section::Service(index);
    let subject = service_subject(index, service);
    findings.require(&service.name, section, "name", &subject);
    findings.require(&service.vip, section, "vip", &subject);
    findings.require(&service.port, section, "port", &subject);
    names::check(&service.name, section.key("name"), &subject, findings);
    check_vip(section, service, &subject, findings);
    check_numbers(section, service, &subject, findings);
    check_ring(section, service, &subject, findings);
    check_flow(section, service, &subject, findings);
    check_backend_count(section, service, &subject, findings);
}

fn check_vip(section: Section, service: &ServiceDraft, subject: &str, findings: &mut Findings) {
    let Some(vip) = service.vip.given() else {
        return;
    };
    if let Some(reason) = address::unfit(*vip) {
        let message = format!("VIP {vip} {reason}");
        findings.push(Problem::new(
            Kind::Invalid,
            section.key("vip"),
            subject,
            message,
        ));
    }
}

fn check_numbers(section: Section, service: &ServiceDraft, subject: &str, findings: &mut Findings) {
    let (low, high) = PORT_RANGE;
    let port = Number {
        place: section.key("port"),
        subject,
        noun: "port",
        unit: " (0 means every port)",
    };
    findings.range(service.port.given().copied(), low..=high, port);
    let (low, high) = IDLE_TIMEOUT_RANGE;
    let idle_timeout = Number {
        place: section.key("idle_timeout"),
        subject,
        noun: "idle_timeout",
        unit: " seconds",
    };
    findings.range(service.idle_timeout_s(), low..=high, idle_timeout);
    let (low, high) = SLOW_START_RANGE;
    let slow_start = Number {
        place: section.key("slow_start"),
        subject,
        noun: "slow_start",
        unit: " seconds (0 means off)",
    };
    findings.range(service.policies.slow_start_s(), low..=high, slow_start);
}

/// `flow` is for UDP, and `hash` needs a ring that is indexed by the hash.
fn check_flow(section: Section, service: &ServiceDraft, subject: &str, findings: &mut Findings) {
    let (Some(protocol), Some(scheduler)) = (service.protocol(), service.scheduler()) else {
        return;
    };
    let fault = match (service.policies.flow.given(), protocol, scheduler) {
        (None, ..) | (Some(UdpFlow::Pinned), Protocol::Udp, _) => return,
        (Some(_), Protocol::Tcp, _) => (
            "`flow` is for UDP services; TCP connections are never moved",
            "leave it out, or set protocol = \"udp\"",
        ),
        (Some(UdpFlow::Hash), Protocol::Udp, Scheduler::Maglev) => return,
        (Some(UdpFlow::Hash), Protocol::Udp, Scheduler::RoundRobin) => (
            "flow \"hash\" does not go with the scheduler round-robin, which follows no hash",
            "set scheduler = \"maglev\", or flow = \"pinned\"",
        ),
    };
    let place = section.key("flow");
    findings.push(Problem::new(Kind::Invalid, place, subject, fault.0).help(fault.1));
}

fn check_ring(section: Section, service: &ServiceDraft, subject: &str, findings: &mut Findings) {
    let (Some(slots), Some(scheduler)) = (service.ring_slots(), service.scheduler()) else {
        return;
    };
    let (usual, large) = (i64::from(RING_SLOTS_DEFAULT), i64::from(RING_SLOTS_LARGE));
    let place = section.key("ring_slots");
    if slots != usual && slots != large {
        let message = format!("ring_slots {slots} is neither {usual} nor {large}");
        findings.push(Problem::new(Kind::Invalid, place, subject, message));
        return;
    }
    if scheduler == Scheduler::RoundRobin && slots != usual {
        let message = "ring_slots has no effect with the scheduler round-robin";
        findings.push(Problem::new(Kind::Warning, place, subject, message));
    }
    let fit = slots / SLOTS_PER_BACKEND;
    let count = service.backends.len();
    if scheduler == Scheduler::Maglev && i64::try_from(count).is_ok_and(|count| count > fit) {
        let message = format!(
            "{count} backends in a ring of {slots} slots: more than {fit} are spread less evenly than 1 %"
        );
        let mut problem = Problem::new(Kind::Warning, section.whole(), subject, message);
        if slots == usual {
            problem = problem.help(format!("set ring_slots = {large}"));
        }
        findings.push(problem);
    }
}

fn check_backend_count(
    section: Section,
    service: &ServiceDraft,
    subject: &str,
    findings: &mut Findings,
) {
    let count = service.backends.len();
    if count == 0 {
        let message = "has no backend: its packets are dropped and counted as no_backend";
        let name = service.name.given().map_or("NAME", String::as_str);
        let help = format!("add one: lbctl backend add {name} ADDRESS");
        findings.push(Problem::new(Kind::Warning, section.whole(), subject, message).help(help));
    }
    if count > SERVICE_BACKENDS_MAX {
        let message = format!("{count} backends; a service has at most {SERVICE_BACKENDS_MAX}");
        findings.push(Problem::new(Kind::Full, section.whole(), subject, message));
    }
}

/// Checks the sums over all services against the configured capacities.
pub(super) fn check_limits(draft: &Draft, findings: &mut Findings) {
    let backends = draft.services.iter().map(|service| service.backends.len());
    let entries = [
        ("services", draft.services.len(), draft.limits.services()),
        ("backends", backends.sum(), draft.limits.backends()),
    ];
    for (key, count, limit) in entries {
        let Some(limit) = limit else { continue };
        if i64::try_from(count).is_ok_and(|count| count > limit) {
            let message = format!("{count} {key}, and room for {limit}");
            let help = format!("raise `limits.{key}` in the config file and restart lbd");
            let place = Section::Limits.key(key);
            findings.push(Problem::new(Kind::Full, place, "limits", message).help(help));
        }
    }
}

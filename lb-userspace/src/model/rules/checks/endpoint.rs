//! Whether a check can ask the service's backends at all: protocol, port, source and way.

use super::super::address;
use super::{Findings, Subject};
use crate::model::check::{CheckType, Via};
use crate::model::problem::{Kind, Problem};
use crate::model::{ForwardMode, Keyword, Protocol};

/// A port of the check's own.
const PORT_RANGE: (i64, i64) = (1, u16::MAX as i64);

/// How a check depends on the service's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    /// It asks over this one; a port of its own may lead it to something beside the service.
    Speaks(Protocol),
    /// It asks what a service of this protocol is, and means nothing to another.
    Needs(Protocol),
    /// It asks over the service's protocol, or over none.
    Any,
}

const fn transport(check_type: CheckType) -> Transport {
    match check_type {
        CheckType::Tcp | CheckType::Http | CheckType::Https | CheckType::Grpc => {
            Transport::Speaks(Protocol::Tcp)
        }
        CheckType::Mysql | CheckType::Postgres | CheckType::Redis | CheckType::Fastcgi => {
            Transport::Needs(Protocol::Tcp)
        }
        CheckType::Udp => Transport::Speaks(Protocol::Udp),
        CheckType::Dns | CheckType::Icmp | CheckType::Exec | CheckType::Agent => Transport::Any,
    }
}

pub(super) fn check(subject: &Subject<'_>, check_type: CheckType, findings: &mut Findings) {
    let (low, high) = PORT_RANGE;
    let port = subject.check.port.given().copied();
    findings.range(port, low..=high, subject.number("port", ""));
    check_transport(subject, check_type, findings);
    check_port(subject, check_type, findings);
    check_source(subject, findings);
    check_way(subject, findings);
}

fn check_transport(subject: &Subject<'_>, check_type: CheckType, findings: &mut Findings) {
    let Some(service) = subject.service.protocol() else {
        return;
    };
    let has_port = subject.check.port.is_written();
    let (asked, help) = match transport(check_type) {
        Transport::Speaks(asked) if asked != service && !has_port => {
            let help = format!(
                "give it the `port` of something there that speaks {}, or another type",
                upper(asked)
            );
            (asked, help)
        }
        Transport::Needs(asked) if asked != service => {
            let help = "use a check of type udp, dns, icmp or exec".to_owned();
            (asked, help)
        }
        Transport::Speaks(_) | Transport::Needs(_) | Transport::Any => return,
    };
    let message = format!(
        "a check of type {} asks over {}, and the service is {}",
        check_type.word(),
        upper(asked),
        upper(service)
    );
    findings.push(subject.invalid("type", message).help(help));
}

const fn upper(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

/// A service of every port has none to ask at, and an agent listens at one of its own.
fn check_port(subject: &Subject<'_>, check_type: CheckType, findings: &mut Findings) {
    if subject.check.port.is_written() {
        return;
    }
    let takes_every_port = subject.service.port.given() == Some(&0);
    let reason = match check_type {
        CheckType::Agent => "an agent listens at a port of its own: `port` is missing",
        CheckType::Icmp | CheckType::Exec => return,
        _ if takes_every_port => "the service takes every port: `port` is missing",
        _ => return,
    };
    let place = subject.section.whole();
    findings.push(Problem::new(Kind::Invalid, place, &subject.name, reason));
}

fn check_source(subject: &Subject<'_>, findings: &mut Findings) {
    let Some(source) = subject.check.source.given() else {
        return;
    };
    if let Some(reason) = address::unfit(*source) {
        findings.push(subject.invalid("source", format!("source {source} {reason}")));
        return;
    }
    let Some(vip) = subject.service.vip.given() else {
        return;
    };
    if vip.is_ipv4() != source.is_ipv4() {
        let message = format!(
            "source {source} is {}, and the backends are {}",
            address::family(*source),
            address::family(*vip)
        );
        findings.push(subject.invalid("source", message));
    } else if source == vip {
        let message = format!("source {source} is the VIP: the answers would go to the backends");
        let problem = subject.invalid("source", message);
        findings.push(problem.help("use an address of this node's own"));
    }
}

fn check_way(subject: &Subject<'_>, findings: &mut Findings) {
    let is_nat = subject.service.forward() == Some(ForwardMode::Nat);
    if subject.check.via.given() == Some(&Via::Datapath) && is_nat {
        let message = "via \"datapath\" does not go with forward = \"nat\": the backends do not have \
                       the VIP";
        let problem = subject.invalid("via", message);
        findings.push(problem.help("leave it out: NAT's backends are asked at their own address"));
    }
}

//! Services for one role of a replicated database, and what else follows from checks.

use super::super::{Findings, Number, backend_subject, service_subject};
use super::database::hasty_redis_lag;
use crate::model::check::{CheckType, Role};
use crate::model::draft::{BackendDraft, CheckDraft, ServiceDraft};
use crate::model::problem::{Kind, Problem};
use crate::model::{Keyword, OnAllDown, OnRemove, Protocol, Section};

/// Off, to an hour: what flaps for that long is no flapping. Unit: seconds.
const HOLD_DOWN_RANGE: (i64, i64) = (0, 3_600);

/// How far behind a reader's replica may be: to a day. Unit: seconds.
const LAG_RANGE: (i64, i64) = (0, 24 * 3_600);

/// A share of new connections; of resets there may be more than one for each. Unit: per cent.
const PERCENT_RANGE: (i64, i64) = (1, 100);

pub(super) fn check(index: usize, service: &ServiceDraft, findings: &mut Findings) {
    let section = Section::Service(index);
    let subject = service_subject(index, service);
    let numbers = [
        (
            "hold_down",
            service.verdict.hold_down_s(),
            HOLD_DOWN_RANGE,
            " seconds (0 means off)",
        ),
        (
            "max_lag",
            service.verdict.max_lag_s.given().copied(),
            LAG_RANGE,
            " seconds",
        ),
        (
            "doubt_repeated_syns",
            service.verdict.doubt_repeated_syns.given().copied(),
            PERCENT_RANGE,
            " per cent",
        ),
        (
            "doubt_resets",
            service.verdict.doubt_resets.given().copied(),
            PERCENT_RANGE,
            " per cent",
        ),
    ];
    for (key, value, (low, high), unit) in numbers {
        let number = Number {
            place: section.key(key),
            subject: &subject,
            noun: key,
            unit,
        };
        findings.range(value, low..=high, number);
    }
    check_doubt(section, service, &subject, findings);
    let Some(role) = service.role() else { return };
    if role != Role::Reader {
        check_keys_of_readers(section, service, &subject, findings);
    } else if asks_redis(service) {
        let lag_s = service.verdict.max_lag_s.given().copied();
        let problem = hasty_redis_lag(lag_s, section.key("max_lag"), &subject);
        findings.problems.extend(problem);
    }
    if role == Role::Writer {
        check_writer(section, service, &subject, findings);
    }
    if role != Role::None {
        check_databases(index, service, findings);
    }
}

/// What passes by hurries a check: of a service without any, or of one without connections, it says
/// nothing.
fn check_doubt(section: Section, service: &ServiceDraft, subject: &str, findings: &mut Findings) {
    let verdict = &service.verdict;
    let keys = [
        (
            "doubt_repeated_syns",
            verdict.doubt_repeated_syns.is_written(),
        ),
        ("doubt_resets", verdict.doubt_resets.is_written()),
    ];
    let has_checks = !service.checks.is_empty()
        || service
            .backends
            .iter()
            .any(|one| one.own_checks.as_ref().is_some_and(|own| !own.is_empty()));
    let (trouble, help) = match service.protocol() {
        Some(Protocol::Udp) => ("is for TCP: UDP has no SYN and no RST", "leave it out"),
        Some(Protocol::Tcp) if !has_checks => (
            "makes a check come sooner, and the service has none",
            "add a [[service.check]]",
        ),
        _ => return,
    };
    for (key, _) in keys.into_iter().filter(|(_, is_written)| *is_written) {
        let message = format!("`{key}` {trouble}");
        let problem = Problem::new(Kind::Invalid, section.key(key), subject, message);
        findings.push(problem.help(help));
    }
}

fn asks_redis(service: &ServiceDraft) -> bool {
    let own = service
        .backends
        .iter()
        .filter_map(|one| one.own_checks.as_ref());
    let mut checks = service.checks.iter().chain(own.flatten());
    checks.any(|check| check.check_type() == Some(CheckType::Redis))
}

fn check_keys_of_readers(
    section: Section,
    service: &ServiceDraft,
    subject: &str,
    findings: &mut Findings,
) {
    let verdict = &service.verdict;
    let keys = [
        (
            "max_lag",
            verdict.max_lag_s.is_written(),
            "below [[service.check]] it is for every database",
        ),
        (
            "primary_as_last_resort",
            verdict.primary_as_last_resort.is_written(),
            "leave it out",
        ),
    ];
    for (key, _, help) in keys.into_iter().filter(|(_, is_written, _)| *is_written) {
        let message = format!("`{key}` is for services with role = \"reader\"");
        let problem = Problem::new(Kind::Invalid, section.key(key), subject, message);
        findings.push(problem.help(help).against(section.key("role")));
    }
}

/// New flows never go to a former primary, and old ones do not stay there.
fn check_writer(section: Section, service: &ServiceDraft, subject: &str, findings: &mut Findings) {
    let role = section.key("role");
    if service.policies.on_all_down.given() == Some(&OnAllDown::LastGood) {
        let message = "on_all_down \"last_good\" would send writes to a backend that is no primary";
        let place = section.key("on_all_down");
        let problem = Problem::new(Kind::Conflict, place, subject, message);
        findings.push(
            problem
                .against(role)
                .help("leave it out: with role = \"writer\" it is \"reset\""),
        );
    }
    if service.policies.on_remove.given() == Some(&OnRemove::Keep) {
        let message = "on_remove \"keep\" leaves connections with a primary that has been demoted";
        let place = section.key("on_remove");
        let problem = Problem::new(Kind::Warning, place, subject, message);
        findings.push(problem.help("leave it out: with role = \"writer\" it is \"reset\""));
    }
}

/// Each backend has a check that can tell its role, and none that decides on it as well.
fn check_databases(index: usize, service: &ServiceDraft, findings: &mut Findings) {
    let Some(role) = service.role() else { return };
    let inherits =
        |backend: &BackendDraft| backend.own_checks.is_none() && !backend.checks.is_written();
    let missing = || {
        format!(
            "role \"{}\" needs a check of type mysql, postgres or redis: nothing else tells who is the \
             primary",
            role.word()
        )
    };
    let is_blind = !can_tell(&service.checks);
    if is_blind && (service.backends.is_empty() || service.backends.iter().any(inherits)) {
        let place = Section::Service(index).key("role");
        let problem = Problem::new(
            Kind::Invalid,
            place,
            service_subject(index, service),
            missing(),
        );
        findings.push(problem.help("add a [[service.check]]"));
    }
    check_undecided(
        &service.checks,
        &service_subject(index, service),
        findings,
        |check| Section::Check(index, check),
    );
    for (position, backend) in service.backends.iter().enumerate() {
        if inherits(backend) {
            continue;
        }
        let subject = backend_subject((index, service), (position, backend));
        if !can_tell(service.checks_of(backend)) {
            let place = Section::Backend(index, position).whole();
            findings.push(
                Problem::new(Kind::Invalid, place, &subject, missing())
                    .against(Section::Service(index).key("role")),
            );
        }
        let own = backend.own_checks.as_deref().unwrap_or_default();
        check_undecided(own, &subject, findings, |check| {
            Section::BackendCheck(index, position, check)
        });
    }
}

/// Whether one of them tells a primary from a replica; one whose type is not known may.
fn can_tell(checks: &[CheckDraft]) -> bool {
    let mut types = checks.iter().map(CheckDraft::check_type);
    types.any(|one| one.is_none_or(CheckType::is_database))
}

/// A backend that has not the role is not down: its flows end as `on_remove` says, not `on_down`.
fn check_undecided(
    checks: &[CheckDraft],
    owner: &str,
    findings: &mut Findings,
    section: impl Fn(usize) -> Section,
) {
    for (position, check) in checks.iter().enumerate() {
        let CheckDraft::Written(check) = check else {
            continue;
        };
        if check.writable.is_written() {
            let subject = super::name(owner, position, check.check_type.given());
            let message = "`writable` beside the service's role, which says already who gets flows";
            let place = section(position).key("writable");
            findings.push(
                Problem::new(Kind::Conflict, place, subject, message)
                    .help("leave it out: a backend that has not the role would count as down"),
            );
        }
    }
}

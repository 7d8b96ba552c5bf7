//! Rules of health checks. A check that a model holds already was found good when it was written; what
//! remains to be seen then is whether the service's role can be told.

mod database;
mod endpoint;
mod exchange;
mod role;
mod texts;
mod timing;
mod web;

#[cfg(test)]
mod tests;

use super::{Findings, Number, backend_subject, service_subject};
use crate::model::check::{CheckType, OwnChecks, types_of};
use crate::model::draft::{BackendDraft, CheckDraft, Field, ServiceDraft, WrittenCheck};
use crate::model::problem::{Kind, Place, Problem};
use crate::model::{Keyword, Section};

/// Checks of one backend: more than anybody has found use for. Unit: checks.
const CHECKS_MAX: usize = 8;

/// A check under examination.
struct Subject<'a> {
    section: Section,
    /// ``service `web`, check 1 (http)``.
    name: String,
    service: &'a ServiceDraft,
    check: &'a WrittenCheck,
}

impl Subject<'_> {
    fn place(&self, key: &'static str) -> Place {
        self.section.key(key)
    }

    /// Something that is wrong with a key.
    fn invalid(&self, key: &'static str, message: impl Into<String>) -> Problem {
        Problem::new(Kind::Invalid, self.place(key), &self.name, message)
    }

    fn number<'s>(&'s self, key: &'static str, unit: &'s str) -> Number<'s> {
        Number {
            place: self.place(key),
            subject: &self.name,
            noun: key,
            unit,
        }
    }
}

/// Checks the checks of a service and of its backends, and what follows from them.
pub(super) fn check(index: usize, service: &ServiceDraft, findings: &mut Findings) {
    let section = Section::Service(index);
    let subject = service_subject(index, service);
    check_count(section, &service.checks, &subject, findings);
    check_list(service, &service.checks, &subject, findings, |position| {
        Section::Check(index, position)
    });
    for (position, backend) in service.backends.iter().enumerate() {
        let section = Section::Backend(index, position);
        // The name is made only where there is something to say.
        if backend.own_checks.is_none() {
            continue;
        }
        let subject = backend_subject((index, service), (position, backend));
        check_own(section, backend, &subject, findings);
        let own = backend.own_checks.as_deref().unwrap_or_default();
        check_count(section, own, &subject, findings);
        check_list(service, own, &subject, findings, |check| {
            Section::BackendCheck(index, position, check)
        });
    }
    role::check(index, service, findings);
}

fn check_count(section: Section, checks: &[CheckDraft], subject: &str, findings: &mut Findings) {
    let count = checks.len();
    if count > CHECKS_MAX {
        let message = format!("{count} checks; a backend has at most {CHECKS_MAX}");
        let place = section.key("check");
        findings.push(Problem::new(Kind::Invalid, place, subject, message));
    }
}

/// A backend's own list, and the word for none.
fn check_own(section: Section, backend: &BackendDraft, subject: &str, findings: &mut Findings) {
    let is_empty = backend.own_checks.as_ref().is_some_and(Vec::is_empty);
    match backend.checks {
        Field::Given(word) => {
            let message = format!("checks = \"{}\" beside checks of its own", word.word());
            let place = section.key("checks");
            let problem = Problem::new(Kind::Conflict, place, subject, message);
            findings.push(
                problem
                    .against(section.key("check"))
                    .help("leave one of them out"),
            );
        }
        Field::Absent if is_empty => {
            let none = OwnChecks::None.word();
            let place = section.key("check");
            let problem = Problem::new(Kind::Invalid, place, subject, "an empty list of checks");
            findings.push(problem.help(format!("write checks = \"{none}\" to have none")));
        }
        Field::Absent | Field::Unreadable => {}
    }
}

fn check_list(
    service: &ServiceDraft,
    checks: &[CheckDraft],
    owner: &str,
    findings: &mut Findings,
    section: impl Fn(usize) -> Section,
) {
    for (position, draft) in checks.iter().enumerate() {
        let CheckDraft::Written(check) = draft else {
            continue;
        };
        let subject = Subject {
            section: section(position),
            name: name(owner, position, check.check_type.given()),
            service,
            check,
        };
        check_one(&subject, findings);
    }
}

fn name(owner: &str, position: usize, check_type: Option<&CheckType>) -> String {
    let number = position + 1;
    match check_type {
        Some(check_type) => format!("{owner}, check {number} ({})", check_type.word()),
        None => format!("{owner}, check {number}"),
    }
}

fn check_one(subject: &Subject<'_>, findings: &mut Findings) {
    let Subject { section, check, .. } = subject;
    findings.require(&check.check_type, *section, "type", &subject.name);
    timing::check(subject, findings);
    texts::check(subject, findings);
    let Some(check_type) = check.check_type.given().copied() else {
        return;
    };
    check_keys(subject, check_type, findings);
    endpoint::check(subject, check_type, findings);
    web::check(subject, check_type, findings);
    database::check(subject, check_type, findings);
    exchange::check(subject, check_type, findings);
}

/// Reports keys of other types.
fn check_keys(subject: &Subject<'_>, check_type: CheckType, findings: &mut Findings) {
    for key in subject.check.keys() {
        let types = types_of(key);
        if types.contains(&check_type) {
            continue;
        }
        let types: Vec<&str> = types.iter().map(|one| one.word()).collect();
        let message = format!(
            "`{key}` is a key of checks of type {}, and this one is of type {}",
            types.join(", "),
            check_type.word()
        );
        findings.push(subject.invalid(key, message));
    }
}

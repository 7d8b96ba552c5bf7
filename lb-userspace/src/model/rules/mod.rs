//! Every rule over a model, once: for the file, for the API and for each change at run time.

mod address;
mod availability;
mod backends;
mod checks;
mod cluster;
mod endpoints;
mod names;
mod node;
mod services;
mod vrrp;

#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::draft::{BackendDraft, Draft, Field, ServiceDraft};
use super::problem::{Kind, Place, Problem};
use super::{Model, Section};

/// The verdict on a draft.
#[derive(Debug)]
pub struct Checked {
    /// The model; `None` if there are errors, or if the reader of the draft has reported some.
    pub model: Option<Model>,
    /// What keeps the draft from being a model, in the order of the draft.
    pub errors: Vec<Problem>,
    /// What is worth knowing.
    pub warnings: Vec<Problem>,
}

/// Checks a draft against every rule.
pub fn check(draft: &Draft) -> Checked {
    let mut findings = Findings::default();
    node::check(draft, &mut findings);
    for (index, service) in draft.services.iter().enumerate() {
        check_service(index, service, &mut findings);
    }
    endpoints::check(&draft.services, &mut findings);
    services::check_limits(draft, &mut findings);
    cluster::check(draft, &mut findings);
    vrrp::check(draft, &mut findings);

    let (warnings, mut errors): (Vec<_>, Vec<_>) = findings
        .problems
        .into_iter()
        .partition(|problem| problem.kind == Kind::Warning);
    errors.sort_by_key(|problem| problem.place);
    let model = if errors.is_empty() {
        draft.build()
    } else {
        None
    };
    Checked {
        model,
        errors,
        warnings,
    }
}

/// Checks one service against the rules that need no other service.
pub(super) fn check_service_alone(service: &ServiceDraft) -> Vec<Problem> {
    let mut findings = Findings::default();
    check_service(0, service, &mut findings);
    findings.problems
}

/// Tells what becomes of a service's new flows while nobody can take any.
pub(super) fn check_availability(service: &ServiceDraft) -> Vec<Problem> {
    let mut findings = Findings::default();
    availability::check(0, service, &mut findings);
    findings.problems
}

fn check_service(index: usize, service: &ServiceDraft, findings: &mut Findings) {
    services::check(index, service, findings);
    backends::check(index, service, findings);
    checks::check(index, service, findings);
    availability::check(index, service, findings);
}

/// Collects problems.
#[derive(Default)]
struct Findings {
    problems: Vec<Problem>,
}

impl Findings {
    fn push(&mut self, problem: Problem) {
        self.problems.push(problem);
    }

    /// Reports a required value that was not written.
    fn require<T>(&mut self, field: &Field<T>, section: Section, key: &'static str, subject: &str) {
        if matches!(field, Field::Absent) {
            let message = format!("`{key}` is missing");
            self.push(Problem::new(
                Kind::Invalid,
                section.whole(),
                subject,
                message,
            ));
        }
    }

    /// Reports a number outside its range.
    fn range(&mut self, value: Option<i64>, range: RangeInclusive<i64>, number: Number<'_>) {
        let Some(value) = value.filter(|value| !range.contains(value)) else {
            return;
        };
        let (low, high) = (range.start(), range.end());
        let unit = number.unit;
        let message = format!("{} {value} is not in {low} to {high}{unit}", number.noun);
        self.push(Problem::new(
            Kind::Invalid,
            number.place,
            number.subject,
            message,
        ));
    }
}

/// A number that a range is checked for.
struct Number<'a> {
    place: Place,
    subject: &'a str,
    noun: &'a str,
    /// With a leading space, or empty.
    unit: &'a str,
}

/// ``service `web` ``, or its position where it has no name.
fn service_subject(index: usize, service: &ServiceDraft) -> String {
    named("service", service.name.given(), index)
}

/// ``service `web`, backend `web1` ``, or positions where names are missing.
fn backend_subject(service: (usize, &ServiceDraft), backend: (usize, &BackendDraft)) -> String {
    let name = service.1.backend_name(backend.1);
    format!(
        "{}, {}",
        service_subject(service.0, service.1),
        named("backend", name.as_ref(), backend.0)
    )
}

fn named(noun: &str, name: Option<impl Display>, index: usize) -> String {
    match name {
        Some(name) => format!("{noun} `{name}`"),
        None => format!("{noun} number {}", index + 1),
    }
}

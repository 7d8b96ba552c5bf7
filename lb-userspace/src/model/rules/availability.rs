use super::{Findings, service_subject};
use crate::model::draft::{BackendDraft, ServiceDraft};
use crate::model::problem::{Kind, Problem};
use crate::model::{AdminState, Fit, Health, Keyword, OnAllDown, Section};

/// Backends that a message names.
const NAMED_MAX: usize = 5;

/// Tells what becomes of new flows while no backend of a service can take any.
pub(super) fn check(index: usize, service: &ServiceDraft, findings: &mut Findings) {
    if service.backends.is_empty() || service.backends.iter().any(BackendDraft::is_available) {
        return;
    }
    let Some(policy) = service.on_all_down() else {
        return;
    };
    let fate = match policy {
        OnAllDown::LastGood => "they go on to the backends that had them last",
        OnAllDown::Reset => "they are answered with RST",
        OnAllDown::Drop => "they are dropped",
    };
    let message = format!(
        "no backend can take new flows ({}): {fate} (on_all_down = \"{}\")",
        states(service),
        policy.word()
    );
    let subject = service_subject(index, service);
    let place = Section::Service(index).whole();
    let mut problem = Problem::new(Kind::Warning, place, subject, message);
    if let Some(help) = way_back(service) {
        problem = problem.help(help);
    }
    findings.push(problem);
}

/// `web1 drain, web2 down`.
fn states(service: &ServiceDraft) -> String {
    let state = |backend: &BackendDraft| {
        let name = service.backend_name(backend).unwrap_or_default();
        let word = match (backend.admin, backend.fit) {
            (AdminState::Ready, Some(Fit::Unfit)) => Fit::Unfit.word(),
            (AdminState::Ready, _) if backend.standing() == AdminState::Ready => {
                backend.health.word()
            }
            (AdminState::Ready, _) => backend.standing().word(),
            (admin, _) => admin.word(),
        };
        format!("{name} {word}")
    };
    let mut states: Vec<String> = service.backends.iter().take(NAMED_MAX).map(state).collect();
    let unnamed = service.backends.len().saturating_sub(NAMED_MAX);
    if unnamed > 0 {
        states.push(format!("and {unnamed} more"));
    }
    states.join(", ")
}

/// How to get one back that the operator has taken out and that is not known to be down.
fn way_back(service: &ServiceDraft) -> Option<String> {
    let mut backends = service.backends.iter();
    let is_held = |one: &&BackendDraft| {
        one.admin != AdminState::Ready && one.health != Health::Down && one.fit != Some(Fit::Unfit)
    };
    let backend = backends.find(is_held)?;
    let (name, backend) = (service.name.given()?, service.backend_name(backend)?);
    Some(format!(
        "to put one back: lbctl backend ready {name} {backend}"
    ))
}

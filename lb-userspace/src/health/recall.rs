//! What a model knows of backends already: from before this daemon began, or before their checks were
//! others.

use std::net::SocketAddr;

use super::judge::Finding;
use super::outcome::AgentWords;
use super::roster::{Question, Roster, Seat};
use crate::model::check::CheckKind;
use crate::model::{AgentState, Health, Model};

/// Whether a backend answers, as a model knows.
pub(super) fn health_in(model: &Model, seat: &Seat) -> Health {
    finding_in(model, seat).map_or(Health::Unknown, |finding| finding.health)
}

/// What an agent had said before this daemon began, as far as it is known to be this one: then what it leaves
/// unsaid stays. Of a backend with several agents, only what they said together is known.
pub(super) fn agent_in(model: &Model, roster: &Roster, question: &Question) -> Option<AgentWords> {
    let is_agent = |question: &Question| matches!(question.check.kind, CheckKind::Agent(_));
    let seat = roster.questions.get(question)?.first()?;
    let asked = roster
        .services
        .get(&seat.service)?
        .backends
        .get(&seat.backend)?;
    let agent_count = asked.iter().filter(|one| is_agent(one)).count();
    if !is_agent(question) || agent_count != 1 {
        return None;
    }
    let finding = finding_in(model, seat)?;
    let AgentState {
        admin,
        weight_percent,
    } = finding.agent;
    // Where nobody but the agent is asked, a death was its word.
    let is_its_death = asked.len() == 1 && finding.health == Health::Down;
    let words = AgentWords {
        is_up: is_its_death.then_some(false),
        admin,
        weight_percent,
    };
    (words != AgentWords::default()).then_some(words)
}

/// What a model knows of a backend.
pub(super) fn finding_in(model: &Model, seat: &Seat) -> Option<Finding> {
    let service = model.services.get(&seat.service)?;
    let backend = service.backends.get(&seat.backend)?;
    Some(Finding {
        health: backend.health,
        fit: backend.fit,
        agent: backend.agent,
    })
}

/// Where a model has a backend.
pub(super) fn endpoint_in(model: &Model, seat: &Seat) -> Option<SocketAddr> {
    let backend = model
        .services
        .get(&seat.service)?
        .backends
        .get(&seat.backend)?;
    Some(SocketAddr::new(backend.address, backend.port))
}

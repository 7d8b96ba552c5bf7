//! From answers to what is known of a service's backends: whether they are up, whether they have the
//! service's role, and what they say of themselves. Pure.

use std::collections::BTreeMap;

use super::outcome::{AgentWords, Observed};
use super::roster::{Question, ServicePlan};
use crate::model::check::{CheckKind, CheckMode, Role};
use crate::model::{AgentState, Fit, Health, Keyword as _};

/// What is known by one question.
#[derive(Clone, Copy, Debug)]
pub struct Known<'a> {
    /// Whether it was asked, and something came of it, since this daemon began.
    pub is_asked: bool,
    /// Whether the backend answers it.
    pub health: Health,
    /// What the last answer said besides that was as it has to be: one that failed says nothing of roles
    /// until it counts.
    pub observed: &'a Observed,
    /// What an agent said last.
    pub agent: Option<&'a AgentWords>,
}

/// What is known of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether it answers.
    pub health: Health,
    /// Whether it has the service's role.
    pub fit: Fit,
    /// What it says of itself.
    pub agent: AgentState,
}

impl Finding {
    /// In words: `up`, `down`, and what else is not as usual, such as `up, unfit` or `up, agent drain, 50 %`.
    pub fn words(&self) -> String {
        let mut words = self.health.word().to_owned();
        if self.fit == Fit::Unfit {
            words += ", unfit";
        }
        if let Some(admin) = self.agent.admin {
            words = format!("{words}, agent {}", admin.word());
        }
        if let Some(percent) = self.agent.weight_percent {
            words = format!("{words}, {percent} %");
        }
        words
    }
}

/// What is known of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// By the backend's name.
    pub backends: BTreeMap<String, Finding>,
    /// What somebody has to look after, such as two primaries.
    pub alarm: Option<String>,
}

/// A backend's part in replication, as far as it answers.
struct Part {
    health: Health,
    is_writable: Option<bool>,
    is_following: bool,
}

/// What follows for a service. `None` = of a service with a role, not every backend has been asked yet:
/// until then what was known before holds.
pub fn judge<'a>(
    plan: &ServicePlan,
    known: impl Fn(&Question) -> Option<Known<'a>>,
) -> Option<Verdict> {
    let mut verdict = Verdict::default();
    let mut parts = BTreeMap::new();
    let mut are_all_asked = true;
    for (name, questions) in &plan.backends {
        let answers: Vec<(&Question, Known<'a>)> = questions
            .iter()
            .filter_map(|question| Some((&**question, known(question)?)))
            .collect();
        are_all_asked &= answers.iter().all(|(_, known)| known.is_asked);
        let finding = Finding {
            health: combine(plan.mode, &answers),
            fit: Fit::Fit,
            agent: agent(&answers),
        };
        parts.insert(name.as_str(), part(plan, finding.health, &answers));
        verdict.backends.insert(name.clone(), finding);
    }
    if plan.role == Role::None {
        return Some(verdict);
    }
    if !are_all_asked {
        return None;
    }
    let fit = match plan.role {
        Role::Reader => readers(plan, &parts),
        _ => writer(&parts, &mut verdict.alarm),
    };
    for (name, finding) in &mut verdict.backends {
        if !fit.contains(&name.as_str()) {
            finding.fit = Fit::Unfit;
        }
    }
    Some(verdict)
}

/// An agent that does not answer says nothing: whether the backend does is for the other checks to say.
fn combine(mode: CheckMode, answers: &[(&Question, Known<'_>)]) -> Health {
    let mut healths = Vec::new();
    let mut is_dismissed = false;
    for (question, known) in answers {
        if matches!(question.check.kind, CheckKind::Agent(_)) {
            is_dismissed |= known.agent.is_some_and(|words| words.is_up == Some(false));
        } else {
            healths.push(known.health);
        }
    }
    let has = |health| healths.contains(&health);
    match mode {
        _ if is_dismissed => Health::Down,
        _ if healths.is_empty() => Health::Up,
        CheckMode::All if has(Health::Down) => Health::Down,
        CheckMode::Any if has(Health::Up) => Health::Up,
        _ if has(Health::Unknown) => Health::Unknown,
        CheckMode::All => Health::Up,
        CheckMode::Any => Health::Down,
    }
}

fn agent(answers: &[(&Question, Known<'_>)]) -> AgentState {
    let words = answers.iter().filter_map(|(_, known)| known.agent);
    let mut state = AgentState::default();
    for words in words {
        state.admin = state.admin.max(words.admin);
        let percents = [state.weight_percent, words.weight_percent];
        state.weight_percent = percents.into_iter().flatten().min();
    }
    state
}

fn part(plan: &ServicePlan, health: Health, answers: &[(&Question, Known<'_>)]) -> Part {
    let mut all = answers.iter().map(|(_, known)| known.observed);
    let observed = all.find(|observed| observed.writable.is_some());
    let is_following = observed.is_some_and(|observed| {
        let is_close = match plan.max_lag_s {
            Some(max_s) => observed.lag_s.is_some_and(|lag_s| lag_s <= max_s),
            None => true,
        };
        observed.replication_running == Some(true) && is_close
    });
    Part {
        health,
        is_writable: observed.and_then(|observed| observed.writable),
        is_following,
    }
}

/// The one that accepts writes; while two do, nobody: either may be the one that the other replaces.
fn writer<'p>(parts: &BTreeMap<&'p str, Part>, alarm: &mut Option<String>) -> Vec<&'p str> {
    let writable: Vec<&str> = parts
        .iter()
        .filter(|(_, part)| part.health != Health::Down && part.is_writable == Some(true))
        .map(|(name, _)| *name)
        .collect();
    match writable.len() {
        0 => *alarm = Some("no backend accepts writes".to_owned()),
        1 => {}
        _ => {
            let names = writable.join("` and `");
            *alarm = Some(format!("`{names}` accept writes: nobody gets any"));
            return Vec::new();
        }
    }
    writable
}

fn readers<'p>(plan: &ServicePlan, parts: &BTreeMap<&'p str, Part>) -> Vec<&'p str> {
    let names = |is_wanted: &dyn Fn(&Part) -> bool| -> Vec<&'p str> {
        let wanted = parts
            .iter()
            .filter(|(_, part)| part.health != Health::Down && is_wanted(part));
        wanted.map(|(name, _)| *name).collect()
    };
    let replicas = names(&|part| part.is_writable == Some(false) && part.is_following);
    if replicas.is_empty() && plan.primary_as_last_resort {
        return names(&|part| part.is_writable == Some(true));
    }
    replicas
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;

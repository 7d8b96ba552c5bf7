//! Everything that is known by asking: the state of each question, and what follows for each backend.
//! No clock and no I/O.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;

use super::judge::{Finding, Known, Verdict, judge};
use super::machine::CheckState;
use super::outcome::{AgentWords, Observed, Outcome};
use super::reaction::Reactions;
use super::recall::{agent_in, endpoint_in, finding_in, health_in};
use super::roster::{Question, Roster, Seat, ServicePlan};
use super::unfit;
use crate::model::{Fit, Health, Model, Observation};

/// Changes of a backend that are remembered.
pub const HISTORY_LEN: usize = 20;

/// A moment: of the clock that is never set, for spans; and of the calendar, for people. Unit:
/// milliseconds, the latter since 1970.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// Since some moment in the past.
    pub monotonic_ms: u64,
    /// Since 1970, UTC.
    pub unix_ms: u64,
}

/// What is known by one question.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Whether the backend answers.
    pub state: CheckState,
    /// The last answer.
    pub last: Option<(Outcome, Moment)>,
    /// What the last good answer said besides.
    observed: Observed,
    /// What an agent said last.
    agent: Option<AgentWords>,
    /// Answers so far, good and bad.
    pub counts: [u64; 2],
}

/// A change of what is known of a backend, or an alarm of its service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// When.
    pub at: Moment,
    /// The service.
    pub service: String,
    /// The backend; `None` = the service as a whole.
    pub backend: Option<String>,
    /// What was so, and is so now, such as `up` and `down`.
    pub from: String,
    /// See `from`.
    pub to: String,
    /// Why.
    pub reason: String,
    /// How much later new flows followed it; `None` = not yet, or it is an alarm. Unit: milliseconds.
    pub in_force_after_ms: Option<u64>,
}

/// What is known of a backend, and since when.
#[derive(Clone, Debug)]
pub struct Record {
    /// Where it is: of another backend by the same name, nothing of this is true.
    pub endpoint: SocketAddr,
    /// What is known.
    pub finding: Finding,
    /// Since when its health and its fitness are what they are.
    pub since: Moment,
    /// Its last changes, the latest last.
    pub history: VecDeque<Transition>,
}

/// Everything that is known by asking.
#[derive(Debug, Default)]
pub struct Board {
    roster: Roster,
    answers: BTreeMap<Arc<Question>, Answers>,
    records: BTreeMap<Seat, Record>,
    alarms: BTreeMap<String, String>,
    /// Backends whose finding the engine has not been told yet.
    untold: BTreeSet<Seat>,
    reactions: Reactions,
}

/// How the questions change with a model.
#[derive(Debug, Default)]
pub struct RosterChange {
    /// To be asked from now on.
    pub begun: Vec<Arc<Question>>,
    /// To be asked no more.
    pub ended: Vec<Arc<Question>>,
    /// What follows from answers that are there, where they are judged in another way now.
    pub transitions: Vec<Transition>,
}

impl Board {
    /// Follows a model. What is known of a question that stays is kept; a new one begins with what the model
    /// knows of its backend, so that a restart takes nobody for dead or alive anew.
    pub fn follow(&mut self, model: &Model, now: Moment) -> RosterChange {
        let roster = Roster::of(model);
        let mut change = RosterChange::default();
        for (question, seats) in &roster.questions {
            if !self.answers.contains_key(question) {
                let answers = Answers {
                    state: CheckState::known(health_in(model, &seats[0])),
                    agent: agent_in(model, &roster, question),
                    ..Answers::default()
                };
                self.answers.insert(Arc::clone(question), answers);
                change.begun.push(Arc::clone(question));
            }
        }
        self.answers.retain(|question, _| {
            let is_asked = roster.questions.contains_key(question);
            if !is_asked {
                change.ended.push(Arc::clone(question));
            }
            is_asked
        });
        self.alarms
            .retain(|service, _| roster.services.contains_key(service));
        self.follow_seats(model, &roster, now);
        let before = std::mem::replace(&mut self.roster, roster);
        change.transitions = self.follow_plans(&before, now);
        change
    }

    /// A finding follows from the plan in force: where that is another one, it is judged anew.
    fn follow_plans(&mut self, before: &Roster, now: Moment) -> Vec<Transition> {
        let plans = self.roster.services.iter();
        let changed: Vec<String> = plans
            .filter(|(name, plan)| before.services.get(*name).is_some_and(|old| old != *plan))
            .map(|(name, _)| name.clone())
            .collect();
        let reason = "the configuration has changed";
        let changes = changed.iter().map(|name| self.review(name, reason, now));
        changes.flatten().collect()
    }

    fn follow_seats(&mut self, model: &Model, roster: &Roster, now: Moment) {
        let mut seats = BTreeSet::new();
        for (service, plan) in &roster.services {
            for backend in plan.backends.keys() {
                let seat = Seat {
                    service: service.clone(),
                    backend: backend.clone(),
                };
                let (Some(known), Some(endpoint)) =
                    (finding_in(model, &seat), endpoint_in(model, &seat))
                else {
                    continue;
                };
                let begun = || Record {
                    endpoint,
                    finding: known,
                    since: now,
                    history: VecDeque::new(),
                };
                let record = self.records.entry(seat.clone()).or_insert_with(begun);
                if record.endpoint != endpoint {
                    *record = begun();
                }
                let former = self.roster.services.get(service);
                if former.is_some_and(|former| former.role != plan.role) {
                    // Who has the new role is for the answers to say.
                    record.finding.fit = known.fit;
                }
                if record.finding != known {
                    // It was removed and added again, or is about to be told.
                    self.untold.insert(seat.clone());
                }
                seats.insert(seat);
            }
        }
        self.records.retain(|seat, _| seats.contains(seat));
        self.untold.retain(|seat| seats.contains(seat));
    }

    /// Takes an answer in; returns what changes by it.
    pub fn note(&mut self, question: &Question, outcome: Outcome, now: Moment) -> Vec<Transition> {
        let Some(answers) = self.answers.get_mut(question) else {
            return Vec::new();
        };
        let is_success = outcome.result.is_ok();
        answers.counts[usize::from(!is_success)] += 1;
        let was_unknown = answers.last.is_none();
        let has_turned = answers.state.observe(
            is_success,
            now.monotonic_ms,
            &question.check.timing,
            question.hold_down_max_ms,
        );
        let mut is_news = has_turned || was_unknown;
        if is_success && answers.observed != outcome.observed {
            answers.observed = outcome.observed.clone();
            is_news = true;
        }
        if let Some(said) = &outcome.observed.agent {
            let words = said.after(answers.agent.as_ref().unwrap_or(&AgentWords::default()));
            is_news |= answers.agent.as_ref() != Some(&words);
            answers.agent = Some(words);
        }
        let reason = match &outcome.result {
            Ok(()) => "answers".to_owned(),
            Err(failure) => failure.reason.clone(),
        };
        answers.last = Some((outcome, now));
        if !is_news {
            return Vec::new();
        }
        let seats = self.roster.questions.get(question);
        let services: BTreeSet<String> = seats
            .into_iter()
            .flatten()
            .map(|seat| seat.service.clone())
            .collect();
        let changes = services.iter().map(|name| self.review(name, &reason, now));
        changes.flatten().collect()
    }

    /// What passes by puts a backend in doubt: returns what is to be asked at once.
    pub fn doubt(&mut self, seat: &Seat) -> Vec<Arc<Question>> {
        let record = self.records.get(seat);
        if record.is_none_or(|record| record.finding.health != Health::Up) {
            return Vec::new();
        }
        let plan = self.roster.services.get(&seat.service);
        let questions = plan.and_then(|plan| plan.backends.get(&seat.backend));
        let mut hurried = Vec::new();
        for question in questions.into_iter().flatten() {
            let answers = self.answers.get_mut(question);
            if answers.is_some_and(|answers| answers.state.doubt(&question.check.timing)) {
                hurried.push(Arc::clone(question));
            }
        }
        hurried
    }

    /// Judges a service anew.
    fn review(&mut self, service: &str, reason: &str, now: Moment) -> Vec<Transition> {
        let Some(plan) = self.roster.services.get(service) else {
            return Vec::new();
        };
        let known = |question: &Question| {
            let answers = self.answers.get(question)?;
            Some(Known {
                is_asked: answers.last.is_some(),
                health: answers.state.health(),
                observed: &answers.observed,
                agent: answers.agent.as_ref(),
            })
        };
        let Some(verdict) = judge(plan, known) else {
            return Vec::new();
        };
        let unfit = self.unfit_reasons(plan, &verdict);
        let alarm = self.sound(service, &verdict, now);
        let mut transitions: Vec<Transition> = alarm.into_iter().collect();
        for (backend, finding) in verdict.backends {
            let unfit = unfit.get(&backend).map(String::as_str);
            let seat = Seat {
                service: service.to_owned(),
                backend,
            };
            transitions.extend(self.record(seat, finding, (reason, unfit), now));
        }
        transitions
    }

    /// Of each backend that has not the service's role, why.
    fn unfit_reasons(&self, plan: &ServicePlan, verdict: &Verdict) -> BTreeMap<String, String> {
        let unfit = verdict
            .backends
            .iter()
            .filter(|(_, finding)| finding.fit == Fit::Unfit);
        let reasons = unfit.map(|(name, _)| {
            let questions = plan.backends.get(name).into_iter().flatten();
            let mut observed = questions
                .filter_map(|question| Some(&self.answers.get(question)?.observed))
                .filter(|observed| observed.writable.is_some());
            let reason = unfit::reason(plan, observed.next(), verdict.alarm.as_deref());
            (name.clone(), reason)
        });
        reasons.collect()
    }

    /// `reasons`: what the last answer said, and why the backend is unfit if it is.
    fn record(
        &mut self,
        seat: Seat,
        finding: Finding,
        reasons: (&str, Option<&str>),
        now: Moment,
    ) -> Option<Transition> {
        let record = self.records.get_mut(&seat)?;
        if record.finding == finding {
            return None;
        }
        let transition = Transition {
            at: now,
            service: seat.service.clone(),
            backend: Some(seat.backend.clone()),
            from: record.finding.words(),
            to: finding.words(),
            reason: unfit::why(record.finding, finding, reasons),
            in_force_after_ms: None,
        };
        let is_other = |one: Finding| (one.health, one.fit) != (finding.health, finding.fit);
        if is_other(record.finding) {
            record.since = now;
        }
        record.finding = finding;
        if record.history.len() == HISTORY_LEN {
            record.history.pop_front();
        }
        record.history.push_back(transition.clone());
        self.untold.insert(seat);
        Some(transition)
    }

    fn sound(&mut self, service: &str, verdict: &Verdict, now: Moment) -> Option<Transition> {
        let before = self.alarms.get(service).cloned();
        if before == verdict.alarm {
            return None;
        }
        match &verdict.alarm {
            Some(alarm) => self.alarms.insert(service.to_owned(), alarm.clone()),
            None => self.alarms.remove(service),
        };
        let word = |alarm: &Option<String>| if alarm.is_some() { "alarm" } else { "quiet" };
        Some(Transition {
            at: now,
            service: service.to_owned(),
            backend: None,
            from: word(&before).to_owned(),
            to: word(&verdict.alarm).to_owned(),
            reason: verdict.alarm.clone().or(before).unwrap_or_default(),
            in_force_after_ms: None,
        })
    }

    /// What the engine has to be told; the next call has what is new by then.
    pub fn take_observations(&mut self) -> Vec<Observation> {
        let untold = std::mem::take(&mut self.untold);
        let told = untold.into_iter().filter_map(|seat| {
            let Record {
                endpoint, finding, ..
            } = self.records.get(&seat)?;
            Some(Observation {
                service: seat.service,
                backend: seat.backend,
                endpoint: *endpoint,
                health: finding.health,
                fit: finding.fit,
                agent: finding.agent,
            })
        });
        told.collect()
    }

    /// What was known of these backends at `taken_ms` is in force now.
    pub fn note_in_force(&mut self, told: &[Observation], taken_ms: u64, now_ms: u64) {
        for one in told {
            let seat = Seat {
                service: one.service.clone(),
                backend: one.backend.clone(),
            };
            let Some(record) = self.records.get_mut(&seat) else {
                continue;
            };
            for transition in &mut record.history {
                let decided_ms = transition.at.monotonic_ms;
                if transition.in_force_after_ms.is_none() && decided_ms <= taken_ms {
                    let took_ms = now_ms.saturating_sub(decided_ms);
                    transition.in_force_after_ms = Some(took_ms);
                    self.reactions.note(took_ms);
                }
            }
        }
    }

    /// How soon the rings have followed until now.
    pub fn reactions(&self) -> &Reactions {
        &self.reactions
    }

    /// All questions, and who asks them.
    pub fn roster(&self) -> &Roster {
        &self.roster
    }

    /// What is known by a question.
    pub fn answers(&self, question: &Question) -> Option<&Answers> {
        self.answers.get(question)
    }

    /// What is known of each backend that is asked.
    pub fn records(&self) -> impl Iterator<Item = (&Seat, &Record)> {
        self.records.iter()
    }

    /// What somebody has to look after, by service.
    pub fn alarms(&self) -> &BTreeMap<String, String> {
        &self.alarms
    }
}

#[cfg(test)]
#[path = "board_agent_tests.rs"]
mod agent_tests;

#[cfg(test)]
#[path = "board_plan_tests.rs"]
mod plan_tests;

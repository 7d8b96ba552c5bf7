//! Who is asked what: the questions that a model makes necessary, each once, however many services ask it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::probe::Target;
use crate::model::check::{Check, CheckMode, Role};
use crate::model::{Model, Service};

/// A check of one address: what is asked once for everybody who wants to know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Question {
    /// Whom.
    pub target: Target,
    /// What, and when.
    pub check: Check,
    /// How long a flapping backend is held down at most. Unit: milliseconds.
    pub hold_down_max_ms: u64,
}

/// A backend of a service: whose state follows from answers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Seat {
    /// The service's name.
    pub service: String,
    /// The backend's name.
    pub backend: String,
}

/// What a service wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServicePlan {
    /// How a backend's checks are combined.
    pub mode: CheckMode,
    /// Whom it is for.
    pub role: Role,
    /// See [`Service::max_lag_s`].
    pub max_lag_s: Option<u32>,
    /// See [`Service::primary_as_last_resort`].
    pub primary_as_last_resort: bool,
    /// The questions about each backend, by its name; those without any are not here.
    pub backends: BTreeMap<String, Vec<Arc<Question>>>,
}

/// All questions, and who asks them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    /// By question, who wants to know.
    pub questions: BTreeMap<Arc<Question>, Vec<Seat>>,
    /// By the service's name; those without any question are not here.
    pub services: BTreeMap<String, ServicePlan>,
}

/// What a backend's checks are called, one name each: those that are described alike are numbered.
pub fn check_names(questions: &[Arc<Question>]) -> Vec<String> {
    let mut names: Vec<String> = Vec::with_capacity(questions.len());
    for question in questions {
        let words = question.check.to_string();
        let numbered = (2..).map(|number| format!("{words} ({number})"));
        let mut candidates = std::iter::once(words.clone()).chain(numbered);
        names.extend(candidates.find(|name| !names.contains(name)));
    }
    names
}

impl Roster {
    /// The questions of a model.
    pub fn of(model: &Model) -> Self {
        let mut roster = Self::default();
        for service in model.services.values() {
            roster.add(service);
        }
        roster
    }

    fn add(&mut self, service: &Service) {
        let mut backends = BTreeMap::new();
        for backend in service.backends.values() {
            let address = SocketAddr::new(backend.address, backend.port);
            let vip = SocketAddr::new(service.vip, service.port);
            let mut questions = Vec::new();
            for check in service.checks_of(backend) {
                let question = self.question(Question {
                    target: check.target(address, vip),
                    check: check.clone(),
                    hold_down_max_ms: u64::from(service.hold_down_s) * 1_000,
                });
                let seats = self.questions.entry(Arc::clone(&question)).or_default();
                seats.push(Seat {
                    service: service.name.clone(),
                    backend: backend.name.clone(),
                });
                questions.push(question);
            }
            if !questions.is_empty() {
                backends.insert(backend.name.clone(), questions);
            }
        }
        if backends.is_empty() {
            return;
        }
        let plan = ServicePlan {
            mode: service.check_mode,
            role: service.role,
            max_lag_s: service.max_lag_s,
            primary_as_last_resort: service.primary_as_last_resort,
            backends,
        };
        self.services.insert(service.name.clone(), plan);
    }

    fn question(&self, question: Question) -> Arc<Question> {
        match self.questions.get_key_value(&question) {
            Some((known, _)) => Arc::clone(known),
            None => Arc::new(question),
        }
    }
}

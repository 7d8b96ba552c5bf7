//! Asks the questions when they are due, and tells the engine what follows.
//!
//! All of it is one thread of its own: nothing that the engine does delays a check, and ten thousand
//! checks a second delay nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use futures::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinSet, LocalSet};
use tokio::time::{Instant, sleep_until};
use tracing::{error, info, warn};

use super::board::{Board, Moment, Transition};
use super::outcome::{Failure, FailureKind, Observed, Outcome};
use super::probe::{probe, wire};
use super::roster::{Question, Seat};
use super::schedule::Schedule;
use crate::engine::{EngineError, EngineHandle, InDoubt, Models, Progress};
use crate::events::{Event, EventLog, unix_ms};
use crate::model::{Model, Observation};
use crate::ways::WaysReceiver;

/// Checks under way at a time; further ones wait. Each needs a descriptor or two.
const UNDER_WAY_MAX: usize = 8_192;

/// A doubt that goes on is told once: anybody can repeat SYNs, and deaths shall be seen beside it. Unit:
/// milliseconds.
const DOUBT_QUIET_MS: u64 = 60_000;

/// After the engine has refused to put something in force, it is told again.
const RETRY_PAUSE: Duration = Duration::from_millis(200);

/// What is known of the backends, for whoever asks. Clones are the same.
#[derive(Clone, Debug)]
pub struct HealthHandle {
    board: Arc<Mutex<Board>>,
    began: Instant,
}

impl Default for HealthHandle {
    fn default() -> Self {
        Self {
            board: Arc::default(),
            began: Instant::now(),
        }
    }
}

impl HealthHandle {
    /// Now, on the clocks that the board's moments are of.
    pub fn now(&self) -> Moment {
        Moment {
            monotonic_ms: self.began.elapsed().as_millis() as u64,
            unix_ms: unix_ms(),
        }
    }

    /// What is known. Not to be held for long: checks wait meanwhile.
    pub fn board(&self) -> MutexGuard<'_, Board> {
        // A panic while it was held would be a fault of one answer; the rest is as good as before.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The thread that asks. Dropping it ends it; checks under way are cut off.
#[derive(Debug)]
pub struct Runner {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Runner {
    /// Starts asking whatever the models make necessary, in this thread's network namespace.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(
        models: Models,
        ways: WaysReceiver,
        doubts: mpsc::Receiver<InDoubt>,
        engine: EngineHandle,
        health: HealthHandle,
        events: EventLog,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot start the runtime of the health checks")?;
        let mut asking = Asking {
            models,
            doubts,
            engine,
            health,
            events,
            schedule: Schedule::default(),
            doubted_ms: BTreeMap::new(),
            probes: JoinSet::new(),
        };
        let work = move || {
            wire::follow(ways);
            let local = LocalSet::new();
            local.block_on(&runtime, async move {
                tokio::select! {
                    () = asking.run() => {}
                    _ended = stopped => {}
                }
            });
        };
        let thread = thread::Builder::new().name("health".to_owned()).spawn(work);
        Ok(Self {
            stop: Some(stop),
            thread: Some(thread.context("cannot start the thread of the health checks")?),
        })
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            warn!("the thread of the health checks had panicked");
        }
    }
}

/// An answer, and when it was asked for.
type Answer = (Arc<Question>, Outcome, u64);

/// Services that are put right at once, where many are to be: the first, which have most traffic; each
/// further time this many times as many.
const SERVICES_AT_ONCE: usize = 16;
const SERVICES_GROWTH: usize = 4;

/// What the engine is told at once.
#[derive(Clone, Debug)]
struct News {
    observations: Vec<Observation>,
    /// All that was known by then is in it.
    taken_ms: u64,
    services_max: usize,
}

/// What the engine is being told, and how much of it is in force.
type Telling = Pin<Box<dyn Future<Output = (News, Result<Progress, EngineError>)>>>;

struct Asking {
    models: Models,
    doubts: mpsc::Receiver<InDoubt>,
    engine: EngineHandle,
    health: HealthHandle,
    events: EventLog,
    schedule: Schedule,
    /// When which backend was in doubt last.
    doubted_ms: BTreeMap<Seat, u64>,
    probes: JoinSet<Answer>,
}

impl Asking {
    /// Until the engine has ended.
    async fn run(&mut self) {
        let mut telling: Option<Telling> = None;
        self.follow();
        loop {
            self.ask_due();
            if telling.is_none() {
                telling = self.tell();
            }
            let next_due = self.next_due();
            tokio::select! {
                changed = self.models.changed() => match changed {
                    Ok(()) => self.follow(),
                    Err(_) => return,
                },
                Some(answered) = self.probes.join_next(), if !self.probes.is_empty() => {
                    if let Ok((question, outcome, began_ms)) = answered {
                        self.note(&question, outcome, began_ms);
                    }
                }
                Some(doubt) = self.doubts.recv() => self.hurry(doubt),
                told = poll(&mut telling) => {
                    telling = match told {
                        (news, Ok(progress)) => self.told(&news, progress),
                        (_, Err(EngineError::Stopped)) => return,
                        (news, Err(error)) => {
                            warn!("what checks have found is not in force, trying again: {error}");
                            Some(self.tell_again(news.observations, SERVICES_AT_ONCE, RETRY_PAUSE))
                        }
                    };
                }
                () = until(next_due) => {}
            }
        }
    }

    fn next_due(&self) -> Option<Instant> {
        if self.probes.len() >= UNDER_WAY_MAX {
            return None;
        }
        let due_ms = self.schedule.next_due_ms()?;
        Some(self.health.began + Duration::from_millis(due_ms))
    }

    fn follow(&mut self) {
        let model: Arc<Model> = Arc::clone(&self.models.borrow_and_update());
        let now = self.health.now();
        let change = self.health.board().follow(&model, now);
        for question in &change.ended {
            // One that is under way comes to its end, and nobody hears of it: to cut it off could count against
            // this node at the server.
            self.schedule.end(question);
        }
        self.schedule.begin(&change.begun, now.monotonic_ms);
        for transition in change.transitions {
            self.announce(transition);
        }
    }

    fn ask_due(&mut self) {
        let now_ms = self.health.now().monotonic_ms;
        while self.probes.len() < UNDER_WAY_MAX
            && let Some(question) = self.schedule.pop_due(now_ms)
        {
            self.probes.spawn_local(ask(question, now_ms));
        }
    }

    fn note(&mut self, question: &Arc<Question>, outcome: Outcome, began_ms: u64) {
        let now = self.health.now();
        let mut board = self.health.board();
        let transitions = board.note(question, outcome, now);
        let timing = &question.check.timing;
        let interval_ms = match board.answers(question) {
            Some(answers) => answers.state.interval_ms(timing),
            // Nobody wants to know any more.
            None => return,
        };
        drop(board);
        self.schedule
            .again(question, began_ms, interval_ms, now.monotonic_ms);
        for transition in transitions {
            self.announce(transition);
        }
    }

    /// Asks a backend at once that is in doubt by what passes by.
    fn hurry(&mut self, doubt: InDoubt) {
        let InDoubt {
            service,
            backend,
            reason,
        } = doubt;
        let now = self.health.now();
        let seat = Seat { service, backend };
        let hurried = self.health.board().doubt(&seat);
        if hurried.is_empty() {
            return;
        }
        for question in &hurried {
            self.schedule.hurry(question, now.monotonic_ms);
        }
        let before_ms = self.doubted_ms.insert(seat.clone(), now.monotonic_ms);
        self.doubted_ms
            .retain(|_, doubted_ms| now.monotonic_ms < *doubted_ms + DOUBT_QUIET_MS);
        if before_ms.is_some_and(|before_ms| now.monotonic_ms < before_ms + DOUBT_QUIET_MS) {
            return;
        }
        let Seat { service, backend } = seat;
        info!(service, backend, "in doubt, asked at once: {reason}");
        self.events.push(Event {
            unix_ms: now.unix_ms,
            kind: "doubt".to_owned(),
            service: Some(service),
            backend: Some(backend),
            to: "asked at once".to_owned(),
            reason,
            ..Event::default()
        });
    }

    fn announce(&self, transition: Transition) {
        let Transition {
            at,
            service,
            backend,
            from,
            to,
            reason,
            in_force_after_ms: _,
        } = transition;
        let kind = match &backend {
            Some(backend) => {
                info!(service, backend, "health {from} -> {to}: {reason}");
                "health"
            }
            None => {
                warn!(service, "{to}: {reason}");
                "alarm"
            }
        };
        self.events.push(Event {
            unix_ms: at.unix_ms,
            kind: kind.to_owned(),
            service: Some(service),
            backend,
            from: Some(from),
            to,
            reason,
            ..Event::default()
        });
    }

    fn tell(&self) -> Option<Telling> {
        let observations = self.health.board().take_observations();
        (!observations.is_empty())
            .then(|| self.telling(observations, SERVICES_AT_ONCE, Duration::ZERO))
    }

    /// Some of it is in force; goes on with what is left.
    fn told(&self, news: &News, progress: Progress) -> Option<Telling> {
        let Progress { left, in_force_at } = progress;
        let is_left: BTreeSet<&str> = left.iter().map(|one| one.service.as_str()).collect();
        let in_force = news.observations.iter();
        let in_force: Vec<Observation> = in_force
            .filter(|one| !is_left.contains(one.service.as_str()))
            .cloned()
            .collect();
        let after = in_force_at.saturating_duration_since(self.health.began.into_std());
        let mut board = self.health.board();
        board.note_in_force(&in_force, news.taken_ms, after.as_millis() as u64);
        drop(board);
        let services_max = news.services_max.saturating_mul(SERVICES_GROWTH);
        (!left.is_empty()).then(|| self.tell_again(left, services_max, Duration::ZERO))
    }

    /// Once more what is not in force, and what has changed since: the engine takes the latter last.
    fn tell_again(
        &self,
        mut observations: Vec<Observation>,
        services_max: usize,
        pause: Duration,
    ) -> Telling {
        observations.append(&mut self.health.board().take_observations());
        self.telling(observations, services_max, pause)
    }

    fn telling(
        &self,
        observations: Vec<Observation>,
        services_max: usize,
        pause: Duration,
    ) -> Telling {
        let engine = self.engine.clone();
        let news = News {
            observations,
            taken_ms: self.health.now().monotonic_ms,
            services_max,
        };
        Box::pin(async move {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            let told = engine.observe(news.observations.clone(), news.services_max);
            let progress = told.await;
            (news, progress)
        })
    }
}

/// Asks once.
async fn ask(question: Arc<Question>, began_ms: u64) -> Answer {
    let began = std::time::Instant::now();
    let timeout = Duration::from_millis(question.check.timing.timeout_ms.into());
    let asked = probe(&question.check.kind, question.target, began + timeout);
    // What is in a probe's hands is gone with it.
    let asked = AssertUnwindSafe(asked).catch_unwind().await;
    let (result, observed) = asked.unwrap_or_else(|_panic| {
        let failure = Failure::new(
            FailureKind::Local,
            "the check itself has failed: a fault of lbd",
        );
        error!(check = %question.check, target = %question.target.address, "{}", failure.reason);
        (Err(failure), Observed::default())
    });
    let outcome = Outcome {
        result,
        observed,
        duration: began.elapsed(),
    };
    (question, outcome, began_ms)
}

/// Waits for what the engine is being told; with nothing to tell, for ever.
async fn poll(telling: &mut Option<Telling>) -> (News, Result<Progress, EngineError>) {
    match telling {
        Some(telling) => telling.await,
        None => std::future::pending().await,
    }
}

/// Waits until then; without a time, for ever.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

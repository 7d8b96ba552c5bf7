//! What the API knows of `lbd-vrrp`, and the way to it. Whoever supervises that process attaches both.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tokio::sync::{mpsc, oneshot, watch};

use crate::vrrp::protocol::{Family, State, Status};

/// Failovers that are remembered; older ones are forgotten.
pub const FAILOVERS_MAX: usize = 100;

/// A virtual router: a group in one family.
pub type RouterKey = (String, Family);

/// Somebody wants a group handed over.
#[derive(Debug)]
pub struct FailoverRequest {
    /// The group's name.
    pub group: String,
    /// Where to tell what has become of it: in words, or why it was refused or has failed.
    pub reply: oneshot::Sender<Result<String, FailoverError>>,
}

/// Why a group was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailoverError {
    /// There is nobody to do it.
    #[error("lbd-vrrp is not running, or has not said anything yet: lbd's log tells why")]
    NotRunning,
    /// There is nobody to do it, and this is why.
    #[error("{0}")]
    Absent(String),
    /// Who is to do it was told, and has said nothing: it may be done all the same.
    #[error("{0}")]
    Unanswered(String),
    /// It was refused, or has failed.
    #[error("{0}")]
    Failed(String),
}

/// A virtual router has become Active, or has ceased to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failover {
    /// The group's name.
    pub group: String,
    /// Its family.
    pub family: Family,
    /// What it was.
    pub from: State,
    /// What it is since.
    pub to: State,
    /// When. Unit: milliseconds since 1970, UTC.
    pub unix_ms: u64,
    /// Why, in words.
    pub reason: String,
}

/// The other end of a handle.
#[derive(Clone, Debug)]
struct Attached {
    status: watch::Receiver<Option<Status>>,
    failovers: mpsc::Sender<FailoverRequest>,
}

/// `lbd-vrrp`, as far as `lbd` knows it. Clones are the same.
#[derive(Clone, Debug, Default)]
pub struct VrrpHandle {
    attached: Arc<OnceLock<Attached>>,
    stops: Arc<OnceLock<mpsc::Sender<oneshot::Sender<()>>>>,
    history: Arc<Mutex<History>>,
}

#[derive(Debug, Default)]
struct History {
    last: VecDeque<Failover>,
    counts: BTreeMap<(RouterKey, &'static str), u64>,
}

impl VrrpHandle {
    /// Attaches the process: what it says of itself, and where to ask it for a failover. Once only; later calls
    /// change nothing.
    pub fn attach(
        &self,
        status: watch::Receiver<Option<Status>>,
        failovers: mpsc::Sender<FailoverRequest>,
    ) {
        // A daemon has one supervisor: the first one stays.
        let _second = self.attached.set(Attached { status, failovers });
    }

    /// Attaches whoever has the process hand its VIPs over and end. Once only, like [`Self::attach`].
    pub fn attach_stop(&self, stops: mpsc::Sender<oneshot::Sender<()>>) {
        let _second = self.stops.set(stops);
    }

    /// Has the process hand its VIPs over and end, and waits for that: before the datapath is taken off. Without a
    /// process there is nothing to wait for.
    pub async fn stop(&self) {
        let Some(stops) = self.stops.get() else {
            return;
        };
        let (done, stopped) = oneshot::channel();
        if stops.send(done).await.is_ok() {
            // Dropped or sent, it has ended.
            let _either = stopped.await;
        }
    }

    /// What it has said last; `None` = nothing yet, or it is not there.
    pub fn status(&self) -> Option<Status> {
        self.attached.get()?.status.borrow().clone()
    }

    /// Its words as they come; `None` = nobody is attached.
    pub fn subscribe(&self) -> Option<watch::Receiver<Option<Status>>> {
        Some(self.attached.get()?.status.clone())
    }

    /// Hands a group over to a peer, and waits for the outcome.
    ///
    /// # Errors
    /// [`FailoverError`].
    pub async fn failover(&self, group: &str) -> Result<String, FailoverError> {
        let attached = self.attached.get().ok_or(FailoverError::NotRunning)?;
        let (reply, answer) = oneshot::channel();
        let request = FailoverRequest {
            group: group.to_owned(),
            reply,
        };
        let sent = attached.failovers.send(request).await;
        sent.map_err(|_| FailoverError::NotRunning)?;
        match answer.await {
            Ok(outcome) => outcome,
            Err(_) => {
                let text = "lbd has ceased to listen to lbd-vrrp: it stops";
                Err(FailoverError::Unanswered(text.to_owned()))
            }
        }
    }

    /// Remembers a failover, and counts it by its cause.
    pub fn note(&self, failover: Failover) {
        let key = (failover.group.clone(), failover.family);
        let mut history = self.lock();
        *history.counts.entry((key, cause(&failover))).or_default() += 1;
        if history.last.len() == FAILOVERS_MAX {
            history.last.pop_front();
        }
        history.last.push_back(failover);
    }

    /// The last failover of a group, of all families and groups without one.
    pub fn last_failover(&self, group: Option<&str>) -> Option<Failover> {
        let history = self.lock();
        let mut last = history.last.iter().rev();
        last.find(|one| group.is_none_or(|group| group == one.group))
            .cloned()
    }

    /// How many failovers there were, by router and cause.
    pub fn failover_counts(&self) -> Vec<(RouterKey, &'static str, u64)> {
        let history = self.lock();
        let counts = history.counts.iter();
        counts
            .map(|((key, cause), count)| (key.clone(), *cause, *count))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, History> {
        // Nobody panics while holding it.
        self.history.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A failover's cause as a label: what the machine says in words, in one of a few.
fn cause(failover: &Failover) -> &'static str {
    const CAUSES: [(&str, &str); 11] = [
        ("no advertisement", "silence"),
        ("over the sync link", "peer_unfit"),
        ("preempts", "preemption"),
        ("handed over", "hand_over"),
        ("hands over", "hand_over"),
        ("nobody took over", "hand_over_failed"),
        ("in fault", "fault"),
        ("stopped", "stop"),
        ("became Active while", "process_stopped"),
        ("is Active with priority", "higher_priority"),
        ("process was replaced", "process_replaced"),
    ];
    let mut causes = CAUSES.iter();
    let found = causes.find(|(words, _)| failover.reason.contains(words));
    found.map_or("other", |(_, label)| label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failover(group: &str, reason: &str) -> Failover {
        Failover {
            group: group.to_owned(),
            family: Family::Ipv4,
            from: State::Backup,
            to: State::Active,
            unix_ms: 1,
            reason: reason.to_owned(),
        }
    }

    #[test]
    fn what_the_machine_says_has_a_label() {
        let cases = [
            ("no advertisement of 10.0.0.1 for 310 ms", "silence"),
            ("no advertisement of anybody", "silence"),
            ("it preempts 10.0.0.1 of priority 100", "preemption"),
            ("10.0.0.1 has handed over", "hand_over"),
            ("it hands over on demand", "hand_over"),
            ("stopped, and handed over to 10.0.0.2", "hand_over"),
            ("it was stopped", "stop"),
            ("in fault: eth0 is down", "fault"),
            (
                "lb2 says over the sync link that it is in fault, or stopped",
                "peer_unfit",
            ),
            ("10.0.0.1 is Active with priority 200", "higher_priority"),
            (
                "10.0.0.1 became Active while this process did not run",
                "process_stopped",
            ),
            ("it is the owner of the addresses", "other"),
        ];
        for (reason, label) in cases {
            assert_eq!(cause(&failover("web", reason)), label, "{reason}");
        }
    }

    #[test]
    fn failovers_are_counted_and_only_the_last_are_remembered() {
        let handle = VrrpHandle::default();
        assert_eq!(handle.last_failover(None), None);
        for _ in 0..FAILOVERS_MAX + 1 {
            handle.note(failover("web", "no advertisement of anybody"));
        }
        handle.note(failover("db", "it was stopped"));
        assert_eq!(handle.lock().last.len(), FAILOVERS_MAX);
        assert_eq!(handle.last_failover(None).unwrap().group, "db");
        assert_eq!(handle.last_failover(Some("web")).unwrap().group, "web");
        let counts = handle.failover_counts();
        let short: Vec<_> = counts
            .iter()
            .map(|(key, cause, count)| (key.0.as_str(), *cause, *count))
            .collect();
        assert_eq!(short, [("db", "stop", 1), ("web", "silence", 101)]);
    }

    #[tokio::test]
    async fn a_failover_waits_for_its_outcome_and_nobody_there_is_told() {
        let handle = VrrpHandle::default();
        let refused = handle.failover("web").await;
        assert_eq!(refused, Err(FailoverError::NotRunning));
        let (status, receiver) = watch::channel(Some(Status::default()));
        let (requests, mut taken) = mpsc::channel(1);
        handle.attach(receiver, requests);
        assert_eq!(handle.status(), Some(Status::default()));
        drop(status);
        let supervisor = tokio::spawn(async move {
            let failed = FailoverError::Failed("nobody is ready".to_owned());
            for outcome in [Ok("to lb2".to_owned()), Err(failed)] {
                let request: FailoverRequest = taken.recv().await.unwrap();
                assert_eq!(request.group, "web");
                request.reply.send(outcome).unwrap();
            }
        });
        assert_eq!(handle.failover("web").await, Ok("to lb2".to_owned()));
        let failed = FailoverError::Failed("nobody is ready".to_owned());
        assert_eq!(handle.failover("web").await, Err(failed));
        supervisor.await.unwrap();
        let gone = handle.failover("web").await;
        assert_eq!(gone, Err(FailoverError::NotRunning));
    }
}

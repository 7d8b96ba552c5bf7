//! `lbd`'s side: it sees to it that there is an `lbd-vrrp` while there are groups, tells it what to do, and hears
//! how it is.
//!
//! `lbd-vrrp` survives `lbd`: it is found by its socket, and started only if nobody answers there. When it dies, it
//! is started again at once, and goes on where it was; one of another version makes way for ours.

mod link;
mod process;
mod task;

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

use self::task::Task;
use super::protocol::{Configuration, Facts, SOCKET_SUFFIX, Status};

/// How long a hand-over may take until it is given up for lost.
const FAILOVER_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a process may take to hand over and end.
const STOP_TIMEOUT: Duration = Duration::from_secs(12);
/// Requests that wait at a time.
const REQUESTS_MAX: usize = 32;

/// How `lbd-vrrp` is started.
#[derive(Clone, Debug)]
pub struct Options {
    /// `lbd`'s own socket.
    pub socket: PathBuf,
    /// The program; `None` = beside `lbd`'s own, or where the shell would find it.
    pub program: Option<PathBuf>,
    /// What it logs, as `--log` has it.
    pub log: String,
    /// How it logs: `text` or `json`.
    pub log_format: String,
}

impl Options {
    /// The socket of `lbd-vrrp`.
    pub fn vrrp_socket(&self) -> PathBuf {
        vrrp_socket(&self.socket)
    }
}

/// The socket of the `lbd-vrrp` of the `lbd` behind `socket`.
pub fn vrrp_socket(socket: &Path) -> PathBuf {
    let mut path = socket.as_os_str().to_owned();
    path.push(SOCKET_SUFFIX);
    path.into()
}

/// Why a group was not handed over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FailoverError {
    /// `lbd-vrrp` says no, or it did not work.
    #[error("{0}")]
    Refused(String),
    /// There is nobody to be told.
    #[error("lbd-vrrp is not there: {0}")]
    Absent(&'static str),
    /// It was told, and has said nothing: it may have been done all the same.
    #[error("lbd-vrrp does not answer: {0}")]
    Unanswered(&'static str),
}

/// What is asked of the task.
enum Order {
    Failover {
        group: String,
        answer: oneshot::Sender<Result<String, FailoverError>>,
    },
    /// Hand everything over, and end `lbd-vrrp`.
    Stop { done: oneshot::Sender<()> },
}

/// The supervisor, while it is held. Dropping it leaves `lbd-vrrp` as it is.
#[derive(Debug)]
pub struct Supervisor {
    status: watch::Receiver<Option<Status>>,
    orders: mpsc::Sender<Order>,
    task: JoinHandle<()>,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Supervisor {
    /// Starts it. Must be called within a runtime. As long as `configuration` is `None`, nothing is done; without
    /// groups, a process that is there is ended.
    pub fn start(
        options: Options,
        configuration: watch::Receiver<Option<Configuration>>,
        facts: watch::Receiver<Facts>,
    ) -> Self {
        let (status_sender, status) = watch::channel(None);
        let (orders, waiting) = mpsc::channel(REQUESTS_MAX);
        let task = Task::new(options, configuration, facts, status_sender, waiting);
        Self {
            status,
            orders,
            task: tokio::spawn(task.run()),
        }
    }

    /// What `lbd-vrrp` has said last of itself; `None` = nothing yet. A process that has died changes nothing: what
    /// it did last is so until its successor says something.
    pub fn status(&self) -> watch::Receiver<Option<Status>> {
        self.status.clone()
    }

    /// Hands a group over to a peer, and says in words what has happened.
    ///
    /// # Errors
    /// [`FailoverError`].
    pub async fn failover(&self, group: &str) -> Result<String, FailoverError> {
        let (answer, answered) = oneshot::channel();
        let group = group.to_owned();
        let order = Order::Failover { group, answer };
        let sent = self.orders.send(order).await;
        sent.map_err(|_| FailoverError::Absent("its supervisor has ended"))?;
        match timeout(FAILOVER_TIMEOUT, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(FailoverError::Unanswered("it has died meanwhile")),
            Err(_) => Err(FailoverError::Unanswered("the time is over")),
        }
    }

    /// Has `lbd-vrrp` hand everything over and end, and waits for that.
    pub async fn stop(&self) {
        let (done, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop { done }).await.is_err() {
            return;
        }
        if timeout(STOP_TIMEOUT, stopped).await.is_err() {
            warn!("lbd-vrrp does not end: VIPs may be left");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_beside_that_of_lbd() {
        let path = vrrp_socket(Path::new("/run/lbd/lbd.sock"));
        assert_eq!(path, Path::new("/run/lbd/lbd.sock.vrrp"));
    }
}

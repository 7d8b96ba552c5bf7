//! `lbd`'s side: it sees to it that there is an `lbd-vrrp` while there are groups, tells it what to do, and hears
//! how it is.
//!
//! `lbd-vrrp` survives `lbd`: it is found by its socket, and started only if nobody answers there. When it dies, it
//! is started again at once, and goes on where it was; one of another version makes way for ours.

mod link;
mod process;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use self::link::{Link, Said};
use self::process::Peer;
use super::process::VERSION;
use super::protocol::{Configuration, Facts, FromVrrp, SOCKET_SUFFIX, Status, ToVrrp};

/// How long a process may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks whether it answers.
const START_POLL: Duration = Duration::from_millis(5);
/// A process that was well for so long has not died quickly.
const WELL_AFTER: Duration = Duration::from_secs(30);
/// The wait before a restart after two quick deaths; it doubles.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
/// It doubles up to this.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// `lbd-vrrp` says something every second; one that is silent for so long hangs, and is replaced.
const SILENCE_MAX: Duration = Duration::from_secs(30);
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
    /// There is nobody to say anything.
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
        let task = Task {
            options,
            configuration,
            facts,
            status: status_sender,
            orders: waiting,
            deaths: Deaths::default(),
            has_spawned: false,
        };
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
        sent.map_err(|_| FailoverError::Unanswered("its supervisor has ended"))?;
        match timeout(FAILOVER_TIMEOUT, answered).await {
            Ok(Ok(result)) => result,
            Ok(Err(_)) => Err(FailoverError::Unanswered("it has died meanwhile")),
            Err(_) => Err(FailoverError::Unanswered("the time is over")),
        }
    }

    /// Has `lbd-vrrp` hand everything over and end, and waits for that.
    pub async fn stop(self) {
        let (done, stopped) = oneshot::channel();
        if self.orders.send(Order::Stop { done }).await.is_err() {
            return;
        }
        if timeout(STOP_TIMEOUT, stopped).await.is_err() {
            warn!("lbd-vrrp does not end: VIPs may be left");
        }
    }
}

/// How a session with a process has ended.
enum End {
    /// It died, or closed the connection.
    Died,
    /// It says nothing any more.
    Hangs,
    /// It is of another version.
    OtherVersion,
    /// There is nothing for it to do any more.
    Idle,
    /// It was told to end, by somebody who waits for that.
    Stopped(oneshot::Sender<()>),
    /// Nobody is left to work for.
    Abandoned,
}

struct Task {
    options: Options,
    configuration: watch::Receiver<Option<Configuration>>,
    facts: watch::Receiver<Facts>,
    status: watch::Sender<Option<Status>>,
    orders: mpsc::Receiver<Order>,
    deaths: Deaths,
    /// The process that answers is one that we have started.
    has_spawned: bool,
}

impl Task {
    async fn run(mut self) {
        loop {
            let Some(link) = self.reach().await else {
                return;
            };
            let began = Instant::now();
            let peer = link.peer();
            match self.session(link).await {
                End::Died => {
                    let pause = self.deaths.note(began.elapsed());
                    warn!("lbd-vrrp has died: starting it again");
                    sleep(pause).await;
                }
                End::Hangs => {
                    warn!("lbd-vrrp says nothing any more: it is replaced");
                    finish(peer, Finish::Kill).await;
                }
                End::OtherVersion => finish(peer, Finish::MakeWay).await,
                End::Idle => self.status.send_modify(|status| *status = None),
                End::Stopped(done) => {
                    finish(peer, Finish::Await).await;
                    let _gone = done.send(());
                    return;
                }
                End::Abandoned => return,
            }
        }
    }

    /// A connection to a process; `None` if nobody is left to work for. Waits while there is nothing to do.
    async fn reach(&mut self) -> Option<Link> {
        let path = self.options.vrrp_socket();
        loop {
            let configuration = self.configuration.borrow_and_update().clone();
            let has_groups = configuration.as_ref().map(|one| !one.groups.is_empty());
            if has_groups.is_some()
                && let Ok(link) = Link::connect(&path).await
            {
                return Some(link);
            }
            if has_groups == Some(true) {
                match self.spawn(&path).await {
                    Ok(link) => return Some(link),
                    Err(error) => {
                        let pause = self.deaths.note(Duration::ZERO).max(BACK_OFF_MIN);
                        warn!("cannot start lbd-vrrp: {error}");
                        sleep(pause).await;
                        continue;
                    }
                }
            }
            tokio::select! {
                changed = self.configuration.changed() => changed.ok()?,
                order = self.orders.recv() => refuse(order?),
            }
        }
    }

    async fn spawn(&mut self, path: &Path) -> io::Result<Link> {
        let mut child = process::spawn(&self.options, path)?;
        self.has_spawned = true;
        let until = Instant::now() + START_TIMEOUT;
        loop {
            if let Ok(link) = Link::connect(path).await {
                // Whoever ends is waited for, lest a zombie stays.
                tokio::spawn(async move { child.wait().await });
                return Ok(link);
            }
            if let Some(status) = child.try_wait()? {
                return Err(io::Error::other(format!(
                    "it ended with {status}: see its log"
                )));
            }
            if Instant::now() >= until {
                child.start_kill()?;
                let seconds = START_TIMEOUT.as_secs();
                let text = format!(
                    "it does not answer at {} within {seconds} s",
                    path.display()
                );
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            sleep(START_POLL).await;
        }
    }

    async fn session(&mut self, mut link: Link) -> End {
        let mut requests: Vec<(u64, oneshot::Sender<Result<String, FailoverError>>)> = Vec::new();
        let mut number = 0;
        let mut is_configured = false;
        let mut silent_since = Instant::now();
        loop {
            let heard = tokio::select! {
                said = link.next() => {
                    silent_since = Instant::now();
                    match said {
                        Ok(Said::Line(message)) => Some(*message),
                        Ok(Said::Nonsense(error)) => {
                            warn!("lbd-vrrp says what cannot be understood: {error}");
                            None
                        }
                        Err(_) => return End::Died,
                    }
                }
                () = tokio::time::sleep_until(silent_since + SILENCE_MAX) => return End::Hangs,
                changed = self.configuration.changed(), if is_configured => {
                    if changed.is_err() {
                        return End::Abandoned;
                    }
                    match self.configure(&mut link).await {
                        Ok(Work::Some) => {}
                        Ok(Work::None) => return End::Idle,
                        Err(_) => return End::Died,
                    }
                    None
                }
                changed = self.facts.changed(), if is_configured => {
                    if changed.is_err() {
                        return End::Abandoned;
                    }
                    let facts = self.facts.borrow_and_update().clone();
                    if link.send(&ToVrrp::Facts(facts)).await.is_err() {
                        return End::Died;
                    }
                    None
                }
                order = self.orders.recv() => match order {
                    None => return End::Abandoned,
                    Some(Order::Stop { done }) => {
                        // Were it gone already, there is nothing to wait for, either.
                        let _died = link.send(&ToVrrp::Stop).await;
                        return End::Stopped(done);
                    }
                    Some(Order::Failover { group, answer }) => {
                        number += 1;
                        requests.retain(|(_, answer)| !answer.is_closed());
                        requests.push((number, answer));
                        let order = ToVrrp::Failover { group, request: number };
                        if link.send(&order).await.is_err() {
                            return End::Died;
                        }
                        None
                    }
                },
            };
            match heard {
                Some(FromVrrp::Status(status)) if !is_configured => {
                    // Its first word tells whom we talk to.
                    if self.is_to_be_replaced(&status) {
                        return End::OtherVersion;
                    }
                    self.status.send_replace(Some(status));
                    is_configured = true;
                    match self.configure(&mut link).await {
                        Ok(Work::Some) => {}
                        Ok(Work::None) => return End::Idle,
                        Err(_) => return End::Died,
                    }
                }
                Some(FromVrrp::Status(status)) => {
                    self.status.send_replace(Some(status));
                }
                Some(FromVrrp::Answer {
                    request,
                    error,
                    text,
                }) => {
                    let found = requests.iter().position(|(number, _)| *number == request);
                    if let Some(at) = found {
                        let (_, answer) = requests.swap_remove(at);
                        let result =
                            error.map_or(Ok(text), |error| Err(FailoverError::Refused(error)));
                        let _gone = answer.send(result);
                    }
                }
                Some(FromVrrp::Refused { reason }) => warn!("lbd-vrrp refuses: {reason}"),
                None => {}
            }
        }
    }

    /// One that is of another version than we are, unless that is what is installed.
    fn is_to_be_replaced(&self, status: &Status) -> bool {
        if status.version == VERSION {
            return false;
        }
        if self.has_spawned {
            warn!(
                "lbd-vrrp is of version {}, and lbd of {VERSION}",
                status.version
            );
            return false;
        }
        info!("lbd-vrrp {} makes way for {VERSION}", status.version);
        true
    }

    /// Says what is to be done; whether there is anything.
    async fn configure(&mut self, link: &mut Link) -> io::Result<Work> {
        let configuration = self
            .configuration
            .borrow_and_update()
            .clone()
            .unwrap_or_default();
        let has_groups = !configuration.groups.is_empty();
        // Facts come first: what is known of the peers decides how a router begins.
        let facts = self.facts.borrow_and_update().clone();
        link.send(&ToVrrp::Facts(facts)).await?;
        link.send(&ToVrrp::Configure(configuration)).await?;
        if has_groups {
            return Ok(Work::Some);
        }
        link.send(&ToVrrp::Stop).await?;
        Ok(Work::None)
    }
}

/// Whether there is anything to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Some,
    None,
}

/// Without a process.
fn refuse(order: Order) {
    match order {
        Order::Failover { answer, .. } => {
            let error = FailoverError::Unanswered("there is no VRRP group on this node");
            let _gone = answer.send(Err(error));
        }
        Order::Stop { done } => {
            let _gone = done.send(());
        }
    }
}

/// How a process is brought to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    /// It is told to leave everything to its successor.
    MakeWay,
    /// It does not listen.
    Kill,
    /// It knows already.
    Await,
}

async fn finish(peer: Option<Peer>, how: Finish) {
    let Some(peer) = peer else {
        warn!("lbd-vrrp cannot be found by its socket: it goes on");
        sleep(BACK_OFF_MAX).await;
        return;
    };
    let told = match how {
        Finish::MakeWay => peer.signal(libc::SIGUSR1),
        Finish::Kill => peer.signal(libc::SIGKILL),
        Finish::Await => Ok(()),
    };
    if let Err(error) = told {
        warn!("lbd-vrrp cannot be signalled: {error}");
    }
    if timeout(STOP_TIMEOUT, peer.ended()).await.is_err() {
        warn!("lbd-vrrp does not end: it is killed");
        if let Err(error) = peer.signal(libc::SIGKILL) {
            warn!("lbd-vrrp cannot be killed: {error}");
        }
    }
}

/// How often the process has died quickly.
#[derive(Debug, Default)]
struct Deaths {
    quick: u32,
}

impl Deaths {
    /// One more, of a process that has lived so long; how long to wait before the next one. The first restart
    /// does not wait.
    fn note(&mut self, lived: Duration) -> Duration {
        if lived >= WELL_AFTER {
            self.quick = 0;
        }
        let doublings = self.quick;
        self.quick = self.quick.saturating_add(1);
        match doublings {
            0 => Duration::ZERO,
            n => BACK_OFF_MIN
                .saturating_mul(1 << (n - 1).min(16))
                .min(BACK_OFF_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_restart_is_at_once_and_a_quick_death_delays_the_next() {
        let mut deaths = Deaths::default();
        let pauses: Vec<u64> = (0..9)
            .map(|_| deaths.note(Duration::from_secs(1)).as_millis() as u64)
            .collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(deaths.note(WELL_AFTER), Duration::ZERO);
    }

    #[test]
    fn the_socket_is_beside_that_of_lbd() {
        let path = vrrp_socket(Path::new("/run/lbd/lbd.sock"));
        assert_eq!(path, Path::new("/run/lbd/lbd.sock.vrrp"));
    }
}

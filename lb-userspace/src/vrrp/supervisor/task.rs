//! The task behind the supervisor: it finds or starts a process, talks to it until that ends, and begins anew.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

use super::link::{Link, Said};
use super::process::{self, Peer};
use super::{FailoverError, Options, Order, STOP_TIMEOUT};
use crate::vrrp::process::VERSION;
use crate::vrrp::protocol::{Configuration, Facts, FromVrrp, Status, ToVrrp};

/// How long a process may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks whether it answers.
const START_POLL: Duration = Duration::from_millis(5);
/// A process that has lived for so long has not died of its start: one that is killed now and then is replaced at
/// once, each time.
const WELL_AFTER: Duration = Duration::from_millis(300);
/// The wait before a restart after two quick deaths; it doubles.
const BACK_OFF_MIN: Duration = Duration::from_millis(100);
/// It doubles up to this.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// How long after an end that others have ordered a process is started again, if this one has not ended by then.
const STOPPED_PAUSE: Duration = Duration::from_secs(3);
/// `lbd-vrrp` says something every second; one that is silent for so long hangs, and is replaced.
pub(super) const SILENCE_MAX: Duration = Duration::from_secs(30);

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

pub(super) struct Task {
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
    pub(super) fn new(
        options: Options,
        configuration: watch::Receiver<Option<Configuration>>,
        facts: watch::Receiver<Facts>,
        status: watch::Sender<Option<Status>>,
        orders: mpsc::Receiver<Order>,
    ) -> Self {
        Self {
            options,
            configuration,
            facts,
            status,
            orders,
            deaths: Deaths::default(),
            has_spawned: false,
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let Some(mut link) = self.reach().await else {
                return;
            };
            let began = Instant::now();
            let peer = link.peer();
            match self.session(&mut link).await {
                // Others have told it so, as where a machine is shut down: then this process is told, too.
                End::Died if self.is_stopping() => {
                    info!("lbd-vrrp was told to end");
                    let told = self.refuse_for(STOPPED_PAUSE, "it was told to end");
                    if told.await.is_none() {
                        return;
                    }
                }
                End::Died => {
                    let pause = self.deaths.note(began.elapsed());
                    warn!("lbd-vrrp has died: starting it again");
                    sleep(pause).await;
                }
                End::Hangs => {
                    warn!("lbd-vrrp says nothing any more: it is replaced");
                    finish(peer, Finish::Kill).await;
                }
                End::OtherVersion => make_way(peer, &mut link).await,
                End::Idle => {
                    self.status.send_modify(|status| *status = None);
                    // It hands its VIPs over first.
                    finish(peer, Finish::Await).await;
                }
                End::Stopped(done) => {
                    finish(peer, Finish::Await).await;
                    self.status.send_modify(|status| *status = None);
                    let _gone = done.send(());
                    // Whoever looks at the status goes on looking at it, and none is started again.
                    while let Some(order) = self.orders.recv().await {
                        refuse(order, "it was told to end");
                    }
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
                        // What the last one has said of itself is no longer so.
                        self.status.send_modify(|status| *status = None);
                        let reason = "it cannot be started: lbd's log tells why";
                        self.refuse_for(pause, reason).await?;
                        continue;
                    }
                }
            }
            tokio::select! {
                changed = self.configuration.changed() => changed.ok()?,
                order = self.orders.recv() => refuse(order?, "there is no VRRP group on this node"),
            }
        }
    }

    /// Whether the process has said that it ends.
    fn is_stopping(&self) -> bool {
        let status = self.status.borrow();
        status.as_ref().is_some_and(|status| status.is_stopping)
    }

    /// Waits, and tells whoever asks meanwhile that there is nobody to do it; `None` if nobody is left to work for.
    async fn refuse_for(&mut self, pause: Duration, reason: &'static str) -> Option<()> {
        let over = Instant::now() + pause;
        loop {
            tokio::select! {
                () = sleep_until(over) => return Some(()),
                order = self.orders.recv() => refuse(order?, reason),
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

    async fn session(&mut self, link: &mut Link) -> End {
        let mut session = Session::default();
        let mut silent_since = Instant::now();
        loop {
            let is_configured = session.is_configured;
            let happened = tokio::select! {
                said = link.next() => {
                    silent_since = Instant::now();
                    match said {
                        Ok(said) => Happened::Said(said),
                        Err(_) => return End::Died,
                    }
                }
                () = sleep_until(silent_since + SILENCE_MAX) => return End::Hangs,
                changed = self.configuration.changed(), if is_configured => match changed {
                    Ok(()) => Happened::OtherConfiguration,
                    Err(_) => return End::Abandoned,
                },
                changed = self.facts.changed(), if is_configured => match changed {
                    Ok(()) => Happened::OtherFacts,
                    Err(_) => return End::Abandoned,
                },
                order = self.orders.recv() => match order {
                    Some(order) => Happened::Order(order),
                    None => return End::Abandoned,
                },
            };
            match self.step(&mut session, link, happened).await {
                Ok(None) => {}
                Ok(Some(end)) => return end,
                Err(error) if error.kind() == io::ErrorKind::TimedOut => return End::Hangs,
                Err(_) => return End::Died,
            }
        }
    }

    /// Goes on with a session; its end, if this is it.
    async fn step(
        &mut self,
        session: &mut Session,
        link: &mut Link,
        happened: Happened,
    ) -> io::Result<Option<End>> {
        match happened {
            Happened::Said(Said::Nonsense(error)) => {
                warn!("lbd-vrrp says what cannot be understood: {error}");
            }
            Happened::Said(Said::Line(message)) => match *message {
                FromVrrp::Status(status) => return self.take_status(session, link, status).await,
                FromVrrp::Answer {
                    request,
                    error,
                    text,
                } => session.answer(request, error.map_or(Ok(text), Err)),
                FromVrrp::Refused { reason } => warn!("lbd-vrrp refuses: {reason}"),
            },
            Happened::OtherConfiguration => return self.configure(link).await,
            Happened::OtherFacts => {
                let facts = self.facts.borrow_and_update().clone();
                link.send(&ToVrrp::Facts(facts)).await?;
            }
            // Whoever has asked has gone, and what has not begun by then does not begin any more.
            Happened::Order(Order::Failover { answer, .. }) if answer.is_closed() => {}
            Happened::Order(Order::Failover { group, answer }) => {
                let request = session.note_request(answer);
                link.send(&ToVrrp::Failover { group, request }).await?;
            }
            Happened::Order(Order::Stop { done }) => {
                // Were it gone already, there is nothing to wait for, either.
                let _died = link.send(&ToVrrp::Stop).await;
                return Ok(Some(End::Stopped(done)));
            }
        }
        Ok(None)
    }

    /// Its first word tells whom we talk to: then it is told what to do.
    async fn take_status(
        &mut self,
        session: &mut Session,
        link: &mut Link,
        status: Status,
    ) -> io::Result<Option<End>> {
        if session.is_configured {
            self.status.send_replace(Some(status));
            return Ok(None);
        }
        if self.is_to_be_replaced(&status) {
            return Ok(Some(End::OtherVersion));
        }
        self.status.send_replace(Some(status));
        session.is_configured = true;
        self.configure(link).await
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

    /// Says what is to be done; the end, if that is nothing.
    async fn configure(&mut self, link: &mut Link) -> io::Result<Option<End>> {
        let configuration = self.configuration.borrow_and_update().clone();
        let configuration = configuration.unwrap_or_default();
        let has_groups = !configuration.groups.is_empty();
        // Facts come first: what is known of the peers decides how a router begins.
        let facts = self.facts.borrow_and_update().clone();
        link.send(&ToVrrp::Facts(facts)).await?;
        link.send(&ToVrrp::Configure(configuration)).await?;
        if has_groups {
            return Ok(None);
        }
        link.send(&ToVrrp::Stop).await?;
        Ok(Some(End::Idle))
    }
}

/// What happens while a process is there.
enum Happened {
    Said(Said),
    OtherConfiguration,
    OtherFacts,
    Order(Order),
}

/// Who waits for an answer.
type Asker = oneshot::Sender<Result<String, FailoverError>>;

/// The talk with one process.
#[derive(Default)]
struct Session {
    /// It has been told what to do.
    is_configured: bool,
    requests: Vec<(u64, Asker)>,
    last_request: u64,
}

impl Session {
    /// A number for a request. Those whose askers have gone are forgotten.
    fn note_request(&mut self, asker: Asker) -> u64 {
        self.requests.retain(|(_, asker)| !asker.is_closed());
        self.last_request += 1;
        self.requests.push((self.last_request, asker));
        self.last_request
    }

    fn answer(&mut self, request: u64, result: Result<String, String>) {
        let found = self
            .requests
            .iter()
            .position(|(number, _)| *number == request);
        if let Some(at) = found {
            let (_, asker) = self.requests.swap_remove(at);
            let _gone = asker.send(result.map_err(FailoverError::Refused));
        }
    }
}

/// Without a process.
fn refuse(order: Order, reason: &'static str) {
    match order {
        Order::Failover { answer, .. } => {
            let _gone = answer.send(Err(FailoverError::Absent(reason)));
        }
        Order::Stop { done } => {
            let _gone = done.send(());
        }
    }
}

/// How a process is brought to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finish {
    /// It does not listen.
    Kill,
    /// It knows already.
    Await,
}

/// Tells a process to leave everything to its successor. The successor need not wait until the kernel is done with
/// it: it acts no more when it closes the connection.
async fn make_way(peer: Option<Peer>, link: &mut Link) {
    let told = peer.as_ref().map(|peer| peer.signal(libc::SIGUSR1));
    if !matches!(told, Some(Ok(()))) {
        return finish(peer, Finish::Kill).await;
    }
    let closed = async { while link.next().await.is_ok() {} };
    if timeout(STOP_TIMEOUT, closed).await.is_err() {
        finish(peer, Finish::Kill).await;
    }
}

async fn finish(peer: Option<Peer>, how: Finish) {
    let Some(peer) = peer else {
        warn!("lbd-vrrp cannot be found by its socket: it goes on");
        sleep(BACK_OFF_MAX).await;
        return;
    };
    let told = match how {
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
    use crate::vrrp::protocol::State;
    use crate::vrrp::protocol::tests::{group, router};

    /// Its predecessor was Active; peers and the engine must not take it for that any more.
    #[tokio::test]
    async fn of_a_program_that_cannot_be_started_nothing_is_so_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let options = Options {
            socket: directory.path().join("lbd.sock"),
            program: Some(directory.path().join("lbd-vrrp")),
            log: "info".to_owned(),
            log_format: "text".to_owned(),
        };
        let configuration = Configuration {
            groups: vec![group("web", 51, &["203.0.113.10"])],
            ..Configuration::default()
        };
        let (_wanted, configuration) = watch::channel(Some(configuration));
        let (_known, facts) = watch::channel(Facts::default());
        let (_asker, orders) = mpsc::channel(1);
        let last = Status {
            routers: vec![router(State::Active)],
            ..Status::default()
        };
        let (says, mut status) = watch::channel(Some(last));
        let task = tokio::spawn(Task::new(options, configuration, facts, says, orders).run());
        let is_gone = status.wait_for(Option::is_none);
        timeout(START_TIMEOUT, is_gone).await.unwrap().unwrap();
        task.abort();
    }

    #[test]
    fn the_first_restart_is_at_once_and_a_quick_death_delays_the_next() {
        let mut deaths = Deaths::default();
        let pauses: Vec<u64> = (0..9)
            .map(|_| deaths.note(WELL_AFTER / 2).as_millis() as u64)
            .collect();
        assert_eq!(pauses, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(deaths.note(WELL_AFTER), Duration::ZERO);
    }
}

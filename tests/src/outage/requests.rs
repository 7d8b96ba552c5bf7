//! Requests at a constant rate, each over a connection of its own, whatever becomes of the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpSocket;
use tokio::sync::oneshot;
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::disruption::traffic::Breakage;
use crate::http::BACKEND_HEADER;
use crate::netns::Netns;
use crate::wait::wait_until;

/// How long a request may take before its client gives up: less than the second after which Linux repeats
/// a SYN (RFC 6298), so that whoever was sent to a machine that says nothing has failed.
pub const CLIENT_TIMEOUT: Duration = Duration::from_millis(900);

/// How long waiting for requests may take on a busy machine, besides the time until they begin.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest answer that is read. Unit: bytes.
const ANSWER_LEN_MAX: usize = 4096;
const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n";

/// A request, and what became of it.
#[derive(Clone, Debug)]
pub struct Request {
    /// When it was begun.
    pub begun: Instant,
    /// How long it took.
    pub took: Duration,
    /// The number of the backend that answered, or how it failed.
    pub outcome: Result<u8, Breakage>,
}

/// Requests so far.
#[derive(Debug, Default)]
struct Ledger {
    finished: Vec<Request>,
    /// When those under way were begun.
    under_way: BTreeMap<u64, Instant>,
    next: u64,
}

/// A load under way. Dropping it ends it.
#[derive(Debug)]
pub struct Requests {
    ledger: Arc<Mutex<Ledger>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Requests {
    /// Starts sending a request to `address` every `pause`, from `netns`.
    pub fn start(netns: &Netns, address: SocketAddr, pause: Duration) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let (stop, stopped) = oneshot::channel();
        let (entry, shared) = (netns.entry(), Arc::clone(&ledger));
        let thread = thread::spawn(move || entry.run(|| send(address, pause, &shared, stopped))?);
        Self {
            ledger,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Waits until `count` requests that were begun after `since` have come to an end.
    pub fn wait_finished(&self, since: Instant, count: usize) -> Result<()> {
        let until_then = since.saturating_duration_since(Instant::now());
        self.wait(until_then + WAIT_TIMEOUT, |ledger| {
            // In the order of their ends.
            let latest = ledger.finished.iter().rev();
            let latest = latest.take_while(|request| request.begun + request.took > since);
            latest.filter(|request| request.begun > since).count() >= count
        })
    }

    /// What became of the requests that were begun before `end`, all of which have come to an end by then.
    /// They are forgotten.
    pub fn take(&self, end: Instant) -> Result<Vec<Request>> {
        self.wait(WAIT_TIMEOUT, |ledger| {
            ledger.under_way.values().all(|begun| *begun >= end)
        })?;
        let mut ledger = lock(&self.ledger);
        let (taken, rest) = ledger
            .finished
            .drain(..)
            .partition(|request| request.begun < end);
        ledger.finished = rest;
        Ok(taken)
    }

    fn wait(&self, timeout: Duration, is_so: impl Fn(&Ledger) -> bool) -> Result<()> {
        wait_until("requests to come to an end", timeout, || {
            let has_ended = self.thread.as_ref().is_none_or(JoinHandle::is_finished);
            ensure!(!has_ended, "the clients have ended by themselves");
            Ok(is_so(&lock(&self.ledger)).then_some(()))
        })
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        drop(self.stop.take());
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => eprintln!("the clients: {error:#}"),
            Some(Err(panic)) if !thread::panicking() => std::panic::resume_unwind(panic),
            _ => {}
        }
    }
}

fn lock(ledger: &Mutex<Ledger>) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The clients' thread. A tick that comes late is made up for: the rate holds on a busy machine, too.
fn send(
    address: SocketAddr,
    pause: Duration,
    ledger: &Arc<Mutex<Ledger>>,
    stopped: oneshot::Receiver<()>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the clients")?;
    let sending = async {
        let mut ticks = interval(pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        loop {
            ticks.tick().await;
            tokio::task::spawn_local(ask_once(address, Arc::clone(ledger)));
        }
    };
    LocalSet::new().block_on(&runtime, async {
        tokio::select! {
            () = sending => {}
            _ended = stopped => {}
        }
    });
    Ok(())
}

async fn ask_once(address: SocketAddr, ledger: Arc<Mutex<Ledger>>) {
    let begun = Instant::now();
    let number = {
        let mut ledger = lock(&ledger);
        let number = ledger.next;
        ledger.next += 1;
        ledger.under_way.insert(number, begun);
        number
    };
    let outcome = timeout(CLIENT_TIMEOUT, ask(address)).await;
    let request = Request {
        begun,
        took: begun.elapsed(),
        outcome: outcome.map_err(Breakage::from).flatten(),
    };
    let mut ledger = lock(&ledger);
    ledger.under_way.remove(&number);
    ledger.finished.push(request);
}

/// The connection is reset at its end: hundreds a second that stayed in TIME_WAIT would use up the ports.
async fn ask(address: SocketAddr) -> Result<u8, Breakage> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    let reset_on_close = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    setsockopt(&socket, sockopt::Linger, &reset_on_close).map_err(std::io::Error::from)?;
    let mut stream = socket.connect(address).await?;
    stream.write_all(REQUEST).await?;
    let mut answer = Vec::with_capacity(512);
    while answer.len() < ANSWER_LEN_MAX {
        if stream.read_buf(&mut answer).await? == 0 {
            return Err(Breakage::Closed);
        }
        if let Some(backend) = backend_of(&answer)? {
            return Ok(backend);
        }
    }
    Err(Breakage::WrongData("an endless answer".to_owned()))
}

/// Whose answer this is, once it is complete: the name in the header and the one in the body are the same.
fn backend_of(answer: &[u8]) -> Result<Option<u8>, Breakage> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Ok(None);
    };
    if !body.ends_with('\n') {
        return Ok(None);
    }
    let mut lines = head.lines();
    let is_good = lines
        .next()
        .is_some_and(|line| line.starts_with("HTTP/1.1 200"));
    let mut headers = lines.filter_map(|line| line.split_once(": "));
    let named = headers.find(|(name, _)| name.eq_ignore_ascii_case(BACKEND_HEADER));
    let number = named
        .filter(|(_, name)| is_good && *name == body.trim_end())
        .and_then(|(_, name)| name.strip_prefix("web")?.parse().ok());
    match number {
        Some(number) => Ok(Some(number)),
        None => Err(Breakage::WrongData(text.into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_when_it_is_complete_and_names_one_backend() {
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-Backend: web2\r\n\r\nweb2\n";
        for cut in 0..whole.len() {
            assert_eq!(backend_of(&whole.as_bytes()[..cut]), Ok(None), "{cut}");
        }
        assert_eq!(backend_of(whole.as_bytes()), Ok(Some(2)));
        for (from, to) in [
            ("200 OK", "503 No"),
            ("X-Backend: web2", "X-Backend: web3"),
            ("X-Backend", "X-Other"),
        ] {
            let wrong = whole.replace(from, to);
            assert!(backend_of(wrong.as_bytes()).is_err(), "{wrong}");
        }
    }
}

//! The client of a laboratory network: single requests, many of them, and a continuous load.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::http::{self, Connection, Response, Target};
use crate::netns::{Entry, Netns};

/// Requests for each backend's name.
pub type Counts = BTreeMap<String, u32>;

/// How long a request of a [`Load`] may take before it counts as failed.
const LOAD_TIMEOUT: Duration = Duration::from_secs(3);
/// Failures that are kept word by word; the rest is only counted.
const REASON_COUNT_MAX: usize = 10;

/// A namespace from which requests are sent.
#[derive(Debug)]
pub struct Client {
    netns: Netns,
}

impl Client {
    pub(crate) fn new(netns: Netns) -> Self {
        Self { netns }
    }

    /// The client's namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    pub(crate) fn netns_mut(&mut self) -> &mut Netns {
        &mut self.netns
    }

    /// Runs `work` on a fresh thread inside the client's namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.netns.run(work)
    }

    /// One GET of `/` over a connection of its own.
    pub fn http_get(&self, target: impl Into<Target>) -> Result<Response> {
        let target = target.into();
        self.run(|| http::get(&target, "/"))?
    }

    /// Opens a connection that carries several requests.
    pub fn connect(&self, target: impl Into<Target>) -> Result<Connection> {
        let target = target.into();
        self.run(|| Connection::open(&target))?
    }

    /// Sends `request_count` GETs, one after another, each over a connection of its own, and counts
    /// the answers by backend. A request that fails, or is not answered with 200, is an error.
    pub fn http_get_many(&self, address: SocketAddr, request_count: u32) -> Result<Counts> {
        self.run(|| {
            let mut counts = Counts::new();
            for number in 1..=request_count {
                let response = http::get(&address.into(), "/")
                    .with_context(|| format!("request {number} of {request_count}"))?;
                ensure!(
                    response.status == 200,
                    "request {number}: status {}",
                    response.status
                );
                *counts.entry(response.backend).or_default() += 1;
            }
            Ok(counts)
        })?
    }

    /// Starts sending GETs, one after another, each over a connection of its own, until
    /// [`Load::stop`].
    pub fn start_load(&self, address: SocketAddr) -> Load {
        Load::start(self.netns.entry(), address)
    }
}

/// What became of a load's requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Answered requests by backend.
    pub ok: Counts,
    /// Requests that were not answered with 200.
    pub failed: u32,
    /// The reasons of the first failures.
    pub reasons: Vec<String>,
}

impl Tally {
    /// Answered requests.
    pub fn ok_total(&self) -> u32 {
        self.ok.values().sum()
    }

    fn record(&mut self, outcome: Result<Response>) {
        let reason = match outcome {
            Ok(response) if response.status == 200 => {
                *self.ok.entry(response.backend).or_default() += 1;
                return;
            }
            Ok(response) => format!("status {} from {}", response.status, response.backend),
            Err(error) => format!("{error:#}"),
        };
        self.failed += 1;
        if self.reasons.len() < REASON_COUNT_MAX {
            self.reasons.push(reason);
        }
    }
}

/// A continuous load. Dropping it stops it.
#[derive(Debug)]
pub struct Load {
    tally: Arc<Mutex<Tally>>,
    is_stopped: Arc<AtomicBool>,
    sender: Option<JoinHandle<Result<()>>>,
}

impl Load {
    fn start(entry: Entry, address: SocketAddr) -> Self {
        let tally = Arc::new(Mutex::new(Tally::default()));
        let is_stopped = Arc::new(AtomicBool::new(false));
        let (tally_in, stopped_in) = (Arc::clone(&tally), Arc::clone(&is_stopped));
        let sender = thread::spawn(move || {
            entry.run(|| {
                let target = Target {
                    timeout: LOAD_TIMEOUT,
                    ..Target::from(address)
                };
                while !stopped_in.load(Ordering::Relaxed) {
                    let outcome = http::get(&target, "/");
                    tally_in
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .record(outcome);
                }
            })
        });
        Self {
            tally,
            is_stopped,
            sender: Some(sender),
        }
    }

    /// What happened since the start, or since the last [`Load::take`].
    pub fn tally(&self) -> Tally {
        self.tally
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// As [`Load::tally`], and begins to count anew.
    pub fn take(&self) -> Tally {
        std::mem::take(&mut *self.tally.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends the load after the request under way.
    pub fn stop(mut self) -> Result<Tally> {
        self.end()?;
        Ok(self.take())
    }

    fn end(&mut self) -> Result<()> {
        self.is_stopped.store(true, Ordering::Relaxed);
        match self.sender.take().map(JoinHandle::join) {
            Some(Ok(result)) => result.context("the load did not start"),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("{error:#}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(status: u16) -> Result<Response> {
        let local = SocketAddr::from(([127, 0, 0, 1], 1));
        Ok(Response {
            status,
            backend: "web1".to_owned(),
            body: Vec::new(),
            local,
        })
    }

    #[test]
    fn tally_tells_answers_from_failures_and_bounds_the_reasons() {
        let mut tally = Tally::default();
        tally.record(response(200));
        tally.record(response(502));
        for _ in 0..100 {
            tally.record(Err(anyhow::anyhow!("refused")));
        }
        assert_eq!((tally.ok_total(), tally.failed), (1, 101));
        assert_eq!(tally.reasons.len(), REASON_COUNT_MAX);
        assert_eq!(tally.reasons[0], "status 502 from web1");
    }
}

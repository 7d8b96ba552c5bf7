//! What the tests of backends' lives share: connections that stay open, and what lbctl says of a service.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_lab::http::{Connection, Target};
use lb_lab::lbd::CtlOutput;
use lb_lab::serde_json::Value;
use lb_lab::wait::wait_until;
use lb_lab::{Lbd, Topology};

/// A short idle time-out, so that a whole cycle of a slot passes in a test.
pub(crate) const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

/// Far longer than a test: a flow that is silent for longer may be forgotten, and answered by another backend.
pub(crate) const LONG_IDLE_TIMEOUT: Duration = Duration::from_secs(120);

/// How long anything may take that has no time of its own.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Between two words on a connection in use: far less than [`IDLE_TIMEOUT`].
const TALK_INTERVAL: Duration = Duration::from_millis(200);

/// Where the service of a VIP is.
pub(crate) fn at(vip: impl Into<IpAddr>) -> SocketAddr {
    SocketAddr::new(vip.into(), 80)
}

/// The first cause of an error that the system has a name for.
pub(crate) fn kind(error: &anyhow::Error) -> ErrorKind {
    let cause = error.chain().find_map(|cause| cause.downcast_ref());
    cause.map_or_else(|| panic!("no system error: {error:#}"), io::Error::kind)
}

/// An open connection, and who answers on it.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) backend: String,
    connection: Connection,
}

impl Held {
    /// Connects. Each step on it may take `timeout`.
    pub(crate) fn open(net: &Topology, address: SocketAddr, timeout: Duration) -> Result<Self> {
        let target = Target {
            timeout,
            ..address.into()
        };
        let mut connection = net.client.connect(target)?;
        let backend = connection.get("/")?.backend;
        Ok(Self {
            backend,
            connection,
        })
    }

    /// The client's end.
    pub(crate) fn local(&self) -> SocketAddr {
        self.connection.local()
    }

    /// A request and its answer, which must be of the same backend.
    pub(crate) fn say(&mut self) -> Result<()> {
        let answer = self.connection.get("/")?;
        ensure!(
            answer.backend == self.backend,
            "a connection to {} was answered by {}",
            self.backend,
            answer.backend
        );
        Ok(())
    }
}

/// Connections to a service, at least one to each of `backends`.
pub(crate) fn open_to_each(net: &Topology, address: SocketAddr, backends: &[&str]) -> Vec<Held> {
    open_to_each_within(net, address, backends, PATIENCE)
}

/// The same, of which each step may take `timeout`.
pub(crate) fn open_to_each_within(
    net: &Topology,
    address: SocketAddr,
    backends: &[&str],
    timeout: Duration,
) -> Vec<Held> {
    let mut held: Vec<Held> = Vec::new();
    wait_until("a connection to each backend", PATIENCE, || {
        held.push(Held::open(net, address, timeout)?);
        let has = |name: &&str| held.iter().any(|one| one.backend == **name);
        Ok(backends.iter().all(has).then_some(()))
    })
    .unwrap();
    held
}

/// How many connections there are to each backend.
pub(crate) fn count(held: &[Held]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for one in held {
        *counts.entry(one.backend.clone()).or_default() += 1;
    }
    counts
}

/// Connections in use all the time.
#[derive(Debug)]
pub(crate) struct Busy {
    is_stopped: Arc<AtomicBool>,
    talker: JoinHandle<Result<Vec<Held>>>,
}

impl Busy {
    pub(crate) fn start(mut held: Vec<Held>) -> Self {
        let is_stopped = Arc::new(AtomicBool::new(false));
        let is_over = Arc::clone(&is_stopped);
        let talker = thread::spawn(move || {
            while !is_over.load(Ordering::Relaxed) {
                for one in &mut held {
                    one.say()?;
                }
                thread::sleep(TALK_INTERVAL);
            }
            Ok(held)
        });
        Self { is_stopped, talker }
    }

    /// The connections, none of which has broken or moved.
    pub(crate) fn stop(self) -> Vec<Held> {
        self.is_stopped.store(true, Ordering::Relaxed);
        let held = self.talker.join().unwrap();
        held.context("a connection broke").unwrap()
    }
}

/// What lbctl says of one service.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Web<'s> {
    pub(crate) lbd: &'s Lbd,
    pub(crate) name: &'s str,
}

impl Web<'_> {
    /// `lbctl backend WORD SERVICE …`, which must succeed.
    pub(crate) fn backend(&self, word: &str, rest: &[&str]) -> String {
        let words = [&["backend", word, self.name], rest].concat();
        self.lbd.ctl_ok(&words).unwrap()
    }

    /// `lbctl health set SERVICE BACKEND STATE`.
    pub(crate) fn set_health(&self, backend: &str, state: &str) {
        let words = ["health", "set", self.name, backend, state];
        self.lbd.ctl_ok(&words).unwrap();
    }

    /// `lbctl backend drain SERVICE BACKEND --wait TIME`, however it ends.
    pub(crate) fn drain_and_wait(&self, backend: &str, time: &str) -> CtlOutput {
        let words = ["backend", "drain", self.name, backend, "--wait", time];
        self.lbd.ctl(&words).unwrap()
    }

    pub(crate) fn ring(&self) -> Value {
        self.lbd.ctl_json(&["ring", "show", self.name]).unwrap()
    }

    pub(crate) fn show(&self) -> Value {
        self.lbd.ctl_json(&["service", "show", self.name]).unwrap()
    }

    /// Slots by backend that send new flows there.
    pub(crate) fn slots(&self) -> BTreeMap<String, u64> {
        slots(&self.ring(), "slots")
    }

    /// Waits until the ring is as it should be.
    pub(crate) fn await_ring<T>(&self, what: &str, probe: impl Fn(&Value) -> Option<T>) -> T {
        let found = wait_until(what, PATIENCE, || Ok(probe(&self.ring())));
        found.unwrap_or_else(|error| panic!("{error:#}: {:#}", self.ring()))
    }

    /// Waits until no change of the ring is being prepared.
    pub(crate) fn await_change(&self) {
        self.lbd.await_ring(self.name).unwrap();
    }

    /// Waits until all slots are settled.
    pub(crate) fn await_settled(&self) {
        self.await_ring("a settled ring", |ring| {
            (ring["settled_slots"] == ring["slots"]).then_some(())
        });
    }

    /// Flows on record.
    pub(crate) fn flows(&self) -> Value {
        let words = ["flow", "list", "--service", self.name];
        self.lbd.ctl_json(&words).unwrap()
    }

    /// Established flows on record by backend; those without any left out.
    pub(crate) fn established(&self) -> BTreeMap<String, u64> {
        let flows = self.flows();
        let counts = flows["counts"].as_array().unwrap().iter();
        let established = |one: &Value| {
            let count = one["flows"]["established"].as_u64().unwrap();
            (text(&one["backend"]), count)
        };
        counts
            .map(established)
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// Packets that were dropped for a reason.
    pub(crate) fn dropped(&self, reason: &str) -> u64 {
        let show = self.show();
        let mut drops = show["drops"].as_array().unwrap().iter();
        let found = drops.find(|drop| drop["reason"] == reason);
        found.map_or(0, |drop| drop["packets"].as_u64().unwrap())
    }
}

/// A figure of each backend in `lbctl ring show`; those without any left out.
pub(crate) fn slots(ring: &Value, key: &str) -> BTreeMap<String, u64> {
    let backends = ring["backends"].as_array().unwrap().iter();
    backends
        .map(|one| (text(&one["name"]), one[key].as_u64().unwrap()))
        .filter(|(_, slots)| *slots > 0)
        .collect()
}

pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

//! Connections that are held open and used all the time: does any of them break?

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;
use lb_lab::Client;
use lb_lab::http::{Connection, Target};

/// Connections that one thread uses, one after the other.
const CONNECTIONS_A_THREAD: usize = 10;
/// Between two requests of a thread.
const PACE: Duration = Duration::from_millis(5);
/// Who gets no answer by then takes the connection for broken.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// What became of the connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Fate {
    /// Those that were used.
    pub(super) held: usize,
    /// Of these, broken ones.
    pub(super) broken: usize,
    /// Requests answered over them.
    pub(super) answered: usize,
    /// The longest time that somebody waited for an answer.
    pub(super) longest_wait: Duration,
}

/// Connections in use. Dropping it closes them.
pub(super) struct Held {
    fate: Arc<Mutex<Fate>>,
    is_over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Held {
    /// Opens so many connections to each address, and begins to use them.
    pub(super) fn open(client: &Client, addresses: &[SocketAddr], count: usize) -> Result<Self> {
        let fate = Arc::new(Mutex::new(Fate::default()));
        let is_over = Arc::new(AtomicBool::new(false));
        let mut connections = Vec::new();
        for address in addresses {
            let target = Target {
                timeout: ANSWER_TIMEOUT,
                ..Target::from(*address)
            };
            for _ in 0..count {
                connections.push(client.connect(target.clone())?);
            }
        }
        lock(&fate).held = connections.len();
        let mut threads = Vec::new();
        while !connections.is_empty() {
            let rest = connections.split_off(CONNECTIONS_A_THREAD.min(connections.len()));
            let mine = std::mem::replace(&mut connections, rest);
            let (fate, over) = (Arc::clone(&fate), Arc::clone(&is_over));
            threads.push(thread::spawn(move || use_all(mine, &fate, &over)));
        }
        Ok(Self {
            fate,
            is_over,
            threads,
        })
    }

    /// What became of them since the last call.
    pub(super) fn take(&self) -> Fate {
        let mut fate = lock(&self.fate);
        let fresh = Fate {
            held: fate.held - fate.broken,
            ..Fate::default()
        };
        std::mem::replace(&mut fate, fresh)
    }

    /// As [`Held::take`], and goes on counting.
    pub(super) fn look(&self) -> Fate {
        *lock(&self.fate)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn lock(fate: &Mutex<Fate>) -> MutexGuard<'_, Fate> {
    fate.lock().unwrap_or_else(PoisonError::into_inner)
}

fn use_all(mut connections: Vec<Connection>, fate: &Mutex<Fate>, is_over: &AtomicBool) {
    while !is_over.load(Ordering::Relaxed) && !connections.is_empty() {
        connections.retain_mut(|connection| {
            thread::sleep(PACE);
            let began = Instant::now();
            let answer = connection.get("/");
            let mut fate = lock(fate);
            fate.longest_wait = fate.longest_wait.max(began.elapsed());
            match answer {
                Ok(_) => fate.answered += 1,
                Err(_) => fate.broken += 1,
            }
            answer.is_ok()
        });
    }
}

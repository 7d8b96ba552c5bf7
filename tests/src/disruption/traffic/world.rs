//! What all flows of a traffic share.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::breakage::Breakage;
use super::flow::ANSWER_TIMEOUT;
use super::ledger::Ledger;

/// Connections that are opened at a time.
const OPENING_MAX: usize = 64;

/// What all flows share.
#[derive(Debug)]
pub(super) struct World {
    pub(super) ledger: Arc<Ledger>,
    /// How long an idle flow is silent.
    pub(super) silence: Duration,
    /// What nginx serves to slow downloads.
    pub(super) content: Vec<u8>,
    /// Holds back those that open connections.
    pub(super) doorkeeper: Semaphore,
    rounds: watch::Receiver<u64>,
}

impl World {
    pub(super) fn new(
        ledger: Arc<Ledger>,
        silence: Duration,
        rounds: watch::Receiver<u64>,
    ) -> Self {
        Self {
            ledger,
            silence,
            content: crate::nginx::big_content(),
            doorkeeper: Semaphore::new(OPENING_MAX),
            rounds,
        }
    }

    /// Those that follow from now on.
    pub(super) fn rounds(&self) -> watch::Receiver<u64> {
        let mut rounds = self.rounds.clone();
        rounds.mark_unchanged();
        rounds
    }
}

/// A TCP connection to a service.
pub(super) async fn connect(address: SocketAddr) -> Result<TcpStream, Breakage> {
    let stream = timeout(ANSWER_TIMEOUT, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

//! The life of a flow: opened, used at its own pace, and in every round it proves to be alive.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::breakage::Breakage;
use super::group::Group;
use super::ledger::FlowId;
use super::world::World;
use crate::disruption::lane::Lane;

/// How long a client waits for an answer. Linux gives up no connection by then, so what takes longer
/// is broken for its user and would be noticed later otherwise.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Flows take this long, all together, to begin to prove that they are alive.
const PROOF_SPREAD: Duration = Duration::from_secs(1);

/// A connection of some kind.
pub(super) trait Flow {
    /// What it does at its pace: some bytes there, or back, or both.
    async fn step(&mut self) -> Result<(), Breakage>;

    /// Proves that both ends are alive now.
    async fn prove(&mut self) -> Result<(), Breakage> {
        self.step().await
    }

    /// Number of the backend that answers.
    fn backend(&self) -> u8;
}

/// The time between two steps.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pace {
    /// 100 to 200 ms.
    Words,
    /// So long that a change has passed meanwhile.
    Silent(Duration),
    /// None: it waits for what the server sends.
    Reading,
}

impl Pace {
    fn pause(self, id: FlowId, step: u64) -> Duration {
        match self {
            Self::Words => Duration::from_millis(100 + mix(id ^ (step << 32)) % 100),
            // Spread, so that not all of them speak at once.
            Self::Silent(pause) => pause.mul_f64(0.8 + 0.2 * (mix(id) % 256) as f64 / 256.0),
            Self::Reading => Duration::ZERO,
        }
    }
}

/// A scattered number (the finalizer of MurmurHash3, Appleby).
pub(super) fn mix(mut value: u64) -> u64 {
    value ^= value >> 33;
    value = value.wrapping_mul(0xff51_afd7_ed55_8ccd);
    value ^= value >> 33;
    value = value.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    value ^ (value >> 33)
}

/// Who a flow is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Identity {
    pub(super) id: FlowId,
    pub(super) lane: Lane,
    pub(super) group: Group,
}

/// Opens something when its turn comes; the ledger is told what became of it.
pub(super) async fn open<T>(
    who: Identity,
    opening: impl Future<Output = Result<T, Breakage>>,
    backend: impl FnOnce(&T) -> u8,
    world: &World,
) -> Option<T> {
    let turn = world.doorkeeper.acquire().await;
    let opened = timeout(ANSWER_TIMEOUT, opening).await;
    drop(turn);
    let (id, lane, group) = (who.id, who.lane, who.group);
    match opened.map_err(Breakage::from).flatten() {
        Ok(flow) => {
            world.ledger.opened(id, lane, group, Ok(backend(&flow)));
            Some(flow)
        }
        Err(breakage) => {
            let reason = format!("{group}, {lane}: {breakage}");
            world.ledger.opened(id, lane, group, Err(reason));
            None
        }
    }
}

/// Opens a flow and uses it until it breaks. What broke it goes into the ledger.
pub(super) async fn use_flow<F: Flow>(
    who: Identity,
    opening: impl Future<Output = Result<F, Breakage>>,
    pace: Pace,
    world: &World,
) {
    // From before it stands, so that it misses no round.
    let mut rounds = world.rounds();
    let Some(mut flow) = open(who, opening, F::backend, world).await else {
        return;
    };
    let mut step = 0;
    let breakage = loop {
        step += 1;
        let round = tokio::select! {
            () = sleep(pace.pause(who.id, step)) => None,
            round = next_round(&mut rounds) => Some(round),
        };
        if let Some(round) = round {
            // Not all at once: thousands of segments at the same moment find no room in a veth pair.
            sleep(PROOF_SPREAD.mul_f64((mix(who.id ^ (round << 32)) % 1024) as f64 / 1024.0)).await;
        }
        let began = Instant::now();
        let done = match round {
            None => timeout(ANSWER_TIMEOUT, flow.step()).await,
            Some(_) => timeout(ANSWER_TIMEOUT, flow.prove()).await,
        };
        if let Err(breakage) = done.map_err(Breakage::from).flatten() {
            break breakage;
        }
        if who.group == Group::Active {
            let waited = began.elapsed();
            world.ledger.note_wait(who.lane, flow.backend(), waited);
        }
        if let Some(round) = round {
            world.ledger.proved(who.id, round);
        }
    };
    world.ledger.broke(who.id, breakage);
}

/// Waits for the next round. Where there will be none, the traffic ends, and this task with it.
pub(super) async fn next_round(rounds: &mut watch::Receiver<u64>) -> u64 {
    match rounds.changed().await {
        Ok(()) => *rounds.borrow_and_update(),
        Err(_) => std::future::pending().await,
    }
}

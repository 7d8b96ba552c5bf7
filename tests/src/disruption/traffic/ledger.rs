//! What becomes of flows, newcomers and streams: the only thing that the traffic's thread and the
//! run's share.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::breakage::Breakage;
use super::group::Group;
use crate::disruption::lane::Lane;
use crate::disruption::record::now_ns;

/// A flow, for as long as the traffic runs.
pub(super) type FlowId = u64;
/// An event of the run, and the time until the next one.
pub type Epoch = u64;

/// What is known of a flow.
#[derive(Clone, Debug)]
pub(super) struct FlowState {
    /// Its way through the balancer.
    pub(super) lane: Lane,
    /// What it does.
    pub(super) group: Group,
    /// The backend that answers it.
    pub(super) backend: u8,
    /// The last round in which it proved to be alive.
    pub(super) proved_round: u64,
}

/// A flow that broke.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Its way through the balancer.
    pub lane: Lane,
    /// What it did.
    pub group: Group,
    /// The backend that had answered it.
    pub backend: u8,
    /// How.
    pub breakage: Breakage,
    /// When. Unit: nanoseconds of `CLOCK_MONOTONIC`.
    pub at_ns: u64,
}

/// The constant rate of one flow under one event.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// The backend.
    pub backend: u8,
    /// Packets that the client sent.
    pub sent: u64,
    /// Of these, answered ones.
    pub answered: u64,
}

/// What happened on one lane under one event.
#[derive(Clone, Debug, Default)]
pub struct Counts {
    /// Flows that broke.
    pub broken: Vec<Broken>,
    /// New connections that were opened, used and closed.
    pub new_ok: u64,
    /// New connections that failed, by how.
    pub new_failed: BTreeMap<&'static str, u64>,
    /// New connections that took longer than a retransmission of a SYN does.
    pub new_delayed: u64,
    /// Begun and not yet ended.
    pub new_under_way: u64,
    /// Datagrams of each UDP flow.
    pub streams: BTreeMap<FlowId, Stream>,
    /// The longest time that a client waited for the next answer, by backend.
    pub longest_gap: BTreeMap<u8, Duration>,
}

#[derive(Debug, Default)]
struct State {
    epoch: Epoch,
    flows: BTreeMap<FlowId, FlowState>,
    opening: BTreeMap<(Lane, Group), usize>,
    cannot_open: Vec<String>,
    counts: BTreeMap<(Epoch, Lane), Counts>,
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The event under way.
    pub fn epoch(&self) -> Epoch {
        self.lock().epoch
    }

    /// Ends an event and begins the next one. Returns the one that ended.
    pub fn next_epoch(&self) -> Epoch {
        let mut state = self.lock();
        state.epoch += 1;
        state.epoch - 1
    }

    /// What happened under an event.
    pub fn counts(&self, epoch: Epoch) -> BTreeMap<Lane, Counts> {
        let state = self.lock();
        let of_epoch = state.counts.range((epoch, Lane::ALL[0])..);
        of_epoch
            .take_while(|((other, _), _)| *other == epoch)
            .map(|((_, lane), counts)| (*lane, counts.clone()))
            .collect()
    }

    /// Notes what happened on a lane under an event.
    pub fn note(&self, epoch: Epoch, lane: Lane, change: impl FnOnce(&mut Counts)) {
        change(self.lock().counts.entry((epoch, lane)).or_default());
    }

    /// Notes how long a client waited for an answer, under the event that goes on.
    pub fn note_wait(&self, lane: Lane, backend: u8, waited: Duration) {
        let epoch = self.epoch();
        self.note(epoch, lane, |counts| {
            let longest = counts.longest_gap.entry(backend).or_default();
            *longest = waited.max(*longest);
        });
    }

    /// A flow is being opened.
    pub fn opening(&self, lane: Lane, group: Group) {
        *self.lock().opening.entry((lane, group)).or_default() += 1;
    }

    /// A flow stands, or cannot be opened.
    pub fn opened(&self, id: FlowId, lane: Lane, group: Group, backend: Result<u8, String>) {
        let mut state = self.lock();
        if let Some(count) = state.opening.get_mut(&(lane, group)) {
            *count -= 1;
        }
        match backend {
            Ok(backend) => {
                let flow = FlowState {
                    lane,
                    group,
                    backend,
                    proved_round: 0,
                };
                state.flows.insert(id, flow);
            }
            Err(reason) => state.cannot_open.push(reason),
        }
    }

    /// A flow has proved in a round to be alive.
    pub fn proved(&self, id: FlowId, round: u64) {
        if let Some(flow) = self.lock().flows.get_mut(&id) {
            flow.proved_round = round;
        }
    }

    /// A flow broke.
    pub fn broke(&self, id: FlowId, breakage: Breakage) {
        let mut state = self.lock();
        let Some(flow) = state.flows.remove(&id) else {
            return;
        };
        let key = (state.epoch, flow.lane);
        state.counts.entry(key).or_default().broken.push(Broken {
            lane: flow.lane,
            group: flow.group,
            backend: flow.backend,
            breakage,
            at_ns: now_ns(),
        });
    }

    /// Flows that stand or are being opened, of a lane and a group.
    pub fn present(&self, lane: Lane, group: Group) -> usize {
        let state = self.lock();
        let standing = state.flows.values();
        let standing = standing.filter(|flow| flow.lane == lane && flow.group == group);
        standing.count() + state.opening.get(&(lane, group)).copied().unwrap_or(0)
    }

    /// Flows that are being opened, and why others could not be.
    pub fn opening_state(&self) -> (usize, Vec<String>) {
        let state = self.lock();
        (state.opening.values().sum(), state.cannot_open.clone())
    }

    /// Flows that stand, by lane.
    pub fn standing(&self) -> BTreeMap<Lane, usize> {
        let mut standing = BTreeMap::new();
        for flow in self.lock().flows.values() {
            *standing.entry(flow.lane).or_default() += 1;
        }
        standing
    }

    /// Flows that have not yet proved in `round` to be alive, with their groups.
    pub fn unproved(&self, round: u64) -> BTreeSet<(Group, FlowId)> {
        let state = self.lock();
        let flows = state.flows.iter();
        flows
            .filter(|(_, flow)| flow.proved_round < round)
            .map(|(id, flow)| (flow.group, *id))
            .collect()
    }
}

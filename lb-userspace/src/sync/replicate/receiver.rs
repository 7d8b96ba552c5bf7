//! What one peer tells of its flows, merged into this node's table. No clock and no I/O.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::dictionary::{Assembly, Dictionary, ServiceEndpoint, Translation, Untranslatable};
use super::message::{FlowsAck, Malformed, parse_flows};
use super::shadow::Shadow;
use super::table::{Merge, Merged, Now};
use super::transit::Transits;
use crate::sync::flow::SharedFlow;

/// An acknowledgement is repeated so often, if all has arrived of late, and if not: then they are lost as well.
const REPEATS: u32 = 1;
const REPEATS_LOSSY: u32 = 20;
/// Between two of them. Unit: microseconds.
const REPEAT_US: u64 = 4_000;
/// At least so often one is sent, so that what this node wants is heard at last. Unit: microseconds.
const IDLE_MAX_US: u64 = 200_000;
/// Entries for backends that nothing is known of are waited for so long. Unit: microseconds.
const STRANGERS_WAIT_US: u64 = 5_000_000;

/// What has come of a peer's flows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReceiverCounts {
    /// Flows that came.
    pub flows: u64,
    /// This node has them as the peer does.
    pub agreed: u64,
    /// This node knows better.
    pub later: u64,
    /// There was no room.
    pub no_room: u64,
    /// This node's table does not take them.
    pub refused: u64,
    /// This node has no such backend.
    pub unknown: u64,
    /// The peer itself gives that id another meaning by now.
    pub stale: u64,
    /// Datagrams that had to wait for the peer's dictionary: they come again.
    pub early: u64,
    /// Datagrams that came again.
    pub repeated: u64,
}

/// Backends of which the peer has flows, and this node nothing: it makes entries for them, if it can.
#[derive(Default)]
struct Strangers {
    /// By the peer's id.
    ids: BTreeSet<u16>,
    /// Of these, those that were told to the caller.
    told: BTreeSet<u16>,
    /// When the first one was met; `None` = there is none. Unit: microseconds.
    since_us: Option<u64>,
}

impl Strangers {
    fn note(&mut self, backend_id: u16, now_us: u64) {
        self.ids.insert(backend_id);
        self.since_us.get_or_insert(now_us);
    }

    /// Whether it is worth while to wait for their entries.
    fn are_awaited(&self, now_us: u64) -> bool {
        let is_recent = |since_us| now_us < since_us + STRANGERS_WAIT_US;
        self.since_us.is_some_and(is_recent)
    }
}

/// What one peer tells.
#[derive(Default)]
pub struct Receiver {
    assembly: Assembly,
    version: u32,
    theirs: Dictionary,
    translation: Translation,
    ack: FlowsAck,
    repeat_count: u32,
    repeat_us: u64,
    /// When the latest datagram arrived. Unit: microseconds.
    arrived_us: u64,
    /// When the last acknowledgement was sent. Unit: microseconds.
    sent_us: u64,
    complete_round: u32,
    lag_ms: u32,
    transits: Transits,
    /// Whether anything meant nothing here since this node's dictionary last changed.
    has_missed: bool,
    strangers: Strangers,
    counts: ReceiverCounts,
}

impl Receiver {
    /// For a peer of which nothing is known. All its flows are wanted.
    pub fn new() -> Self {
        let mut receiver = Self::default();
        receiver.ack.wanted_round = 1;
        // The first acknowledgement only says so.
        receiver.repeat_count = REPEATS;
        receiver
    }

    /// Takes a part of the peer's dictionary.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn take_dictionary(&mut self, payload: &[u8], ours: &Dictionary) -> Result<(), Malformed> {
        if let Some((version, theirs)) = self.assembly.take(payload)? {
            self.version = version;
            self.ack.dictionary_version = version;
            self.repeat_count = REPEATS_LOSSY;
            self.theirs = theirs;
            self.translation = Translation::new(&self.theirs, ours);
            // Ids may mean others now.
            self.strangers = Strangers::default();
        }
        Ok(())
    }

    /// This node's words are others now. If something meant nothing here before, everything is wanted again.
    pub fn own_dictionary_changed(&mut self, ours: &Arc<Dictionary>) {
        self.translation = Translation::new(&self.theirs, ours);
        self.strangers = Strangers::default();
        if self.has_missed {
            self.want_all();
        }
    }

    /// Backends that the peer has flows of, and this node's services nothing: each is told once for each dictionary.
    pub fn take_strangers(&mut self) -> Vec<(ServiceEndpoint, SocketAddr)> {
        let new: Vec<u16> = self
            .strangers
            .ids
            .difference(&self.strangers.told)
            .copied()
            .collect();
        self.strangers.told.extend(&new);
        let meaning = |id: &u16| {
            let backend = self.theirs.backends.get(id)?;
            let service = self.theirs.services.get(&backend.service_id)?;
            Some((*service, backend.address))
        };
        new.iter().filter_map(meaning).collect()
    }

    /// Everything is wanted again.
    pub fn want_all(&mut self) {
        self.has_missed = false;
        self.ack.wanted_round += 1;
        self.repeat_count = REPEATS_LOSSY;
    }

    /// Takes a datagram of flows: merges them, and notes in the peer's shadow what it knows.
    ///
    /// # Errors
    /// [`Malformed`]: nothing has changed.
    pub fn take_flows<M: Merge + ?Sized>(
        &mut self,
        payload: &[u8],
        table: &mut M,
        shadow: &mut Shadow,
        now: Now,
    ) -> Result<(), Malformed> {
        let (header, flows) = parse_flows(payload)?;
        if header.dictionary_version > self.version {
            self.counts.early += 1;
            return Ok(());
        }
        self.repeat_us = now.us;
        if !self.ack.note(header.sequence) {
            self.counts.repeated += 1;
            self.repeat_count = self.repeat_count.max(REPEATS);
            return Ok(());
        }
        self.repeat_count = if self.ack.has_gaps() {
            REPEATS_LOSSY
        } else {
            REPEATS
        };
        let late_ms = self.transits.note(header.sent_ms, now);
        let late_s = late_ms.saturating_add(500) / 1_000;
        for mut flow in flows {
            flow.remaining_s = flow.remaining_s.saturating_sub_unsigned(late_s);
            self.take_flow(&flow, table, shadow, now);
        }
        if header.sequence == self.ack.latest {
            self.arrived_us = now.us;
            self.lag_ms = header.lag_ms;
        }
        self.complete_round = self.complete_round.max(header.complete_round);
        Ok(())
    }

    fn take_flow<M: Merge + ?Sized>(
        &mut self,
        flow: &SharedFlow,
        table: &mut M,
        shadow: &mut Shadow,
        now: Now,
    ) {
        self.counts.flows += 1;
        let flow = match self.translation.flow(flow) {
            Ok(flow) => flow,
            Err(missing @ (Untranslatable::Unknown | Untranslatable::Stranger)) => {
                self.has_missed = true;
                self.counts.unknown += 1;
                if missing == Untranslatable::Stranger {
                    self.strangers.note(flow.backend_id, now.us);
                }
                return;
            }
            Err(Untranslatable::Stale) => {
                self.counts.stale += 1;
                return;
            }
        };
        match table.merge(&flow, now.s()) {
            Merged::Agreed { place, entry } => {
                shadow.set(place, &entry);
                self.counts.agreed += 1;
            }
            // The peer may not know it. The next walk tells it, not this moment: two nodes that are of different
            // minds would never end.
            Merged::Later { place } => {
                shadow.forget(place);
                self.counts.later += 1;
            }
            Merged::NoRoom => self.counts.no_room += 1,
            Merged::Refused => self.counts.refused += 1,
        }
    }

    /// The acknowledgement that is due, if one is.
    pub fn poll(&mut self, now: Now) -> Option<FlowsAck> {
        let is_due = self.repeat_count > 0 && self.repeat_us <= now.us;
        if !is_due && now.us < self.sent_us + IDLE_MAX_US {
            return None;
        }
        self.repeat_count = self.repeat_count.saturating_sub(1);
        self.repeat_us = now.us + REPEAT_US;
        self.sent_us = now.us;
        let held_us = now.us.saturating_sub(self.arrived_us);
        self.ack.held_us = held_us.min(u32::MAX.into()) as u32;
        Some(self.ack)
    }

    /// Whether this node has all flows that the peer had when all were last wanted. Those of backends that it has no
    /// entries for are waited for, but not long: there may be no room.
    pub fn is_caught_up(&self, now: Now) -> bool {
        self.complete_round >= self.ack.wanted_round && !self.strangers.are_awaited(now.us)
    }

    /// The age of the peer's oldest change that this node had not acknowledged, as the peer last said. Unit:
    /// milliseconds.
    pub fn lag_ms(&self) -> u32 {
        self.lag_ms
    }

    /// What has come of the flows.
    pub fn counts(&self) -> ReceiverCounts {
        self.counts
    }
}

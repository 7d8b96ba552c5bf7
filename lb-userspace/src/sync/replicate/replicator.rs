//! Replication with all peers: one table, and for each session a sender and a receiver. No clock and no I/O.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::dictionary::{ServiceEndpoint, Vocabulary};
use super::message::{Malformed, parse_ack};
use super::receiver::{Receiver, ReceiverCounts};
use super::sender::{Sender, SenderCounts};
use super::table::{Merge, Now, Table};
use crate::sync::kind;

/// Between two looks at what has changed. Unit: microseconds.
pub const LOOK_US: u64 = 3_000;

/// Where replication sends what it has to say. A session is what the caller calls it.
pub trait Outlet {
    /// A datagram, which may be lost.
    fn datagram(&mut self, session: u64, kind: u16, payload: &[u8]);
    /// A frame, which arrives in order, or the session ends.
    fn frame(&mut self, session: u64, kind: u16, payload: Vec<u8>);
}

/// How replication with a peer stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowsStatus {
    /// Whether this node has the peer's flows: all that it had when the session began, and what came since.
    pub is_caught_up: bool,
    /// Whether the peer has this node's.
    pub has_told_all: bool,
    /// The age of this node's oldest change that the peer has not acknowledged. Unit: milliseconds.
    pub lag_ms: u32,
    /// The same of the peer's, as it last said. Unit: milliseconds.
    pub peer_lag_ms: u32,
    /// Sets of the table that the peer is to be told of.
    pub waiting_sets: u64,
    /// Datagrams under way.
    pub under_way: u64,
    /// To the peer and back, by acknowledgements, smoothed. Unit: microseconds.
    pub rtt_us: Option<u64>,
    /// What was told.
    pub sent: SenderCounts,
    /// What has come.
    pub received: ReceiverCounts,
}

struct Peer {
    /// `None` while there is no table.
    sender: Option<Sender>,
    /// The number of the first datagram of the next sender.
    first: u64,
    receiver: Receiver,
}

/// Replication with all peers.
pub struct Replicator<T> {
    table: Option<T>,
    vocabulary: Vocabulary,
    peers: BTreeMap<u64, Peer>,
    changed: Vec<u32>,
    /// When changes were last taken. Unit: microseconds.
    looked_us: u64,
}

impl<T: Table + Merge> Default for Replicator<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Table + Merge> Replicator<T> {
    /// Without a table and without peers.
    pub fn new() -> Self {
        Self {
            table: None,
            vocabulary: Vocabulary::default(),
            peers: BTreeMap::new(),
            changed: Vec::new(),
            looked_us: 0,
        }
    }

    /// The table from now on: everything in it is to be told, and everything to be heard.
    pub fn attach(&mut self, table: T, now: Now) {
        let set_count = table.set_count();
        self.table = Some(table);
        for peer in self.peers.values_mut() {
            peer.sender = Some(Sender::new(set_count, peer.first, now));
            peer.receiver.want_all();
        }
    }

    /// Gives the table back. Peers are told nothing, and what they tell is not acknowledged, until there is another.
    pub fn detach(&mut self) -> Option<T> {
        for peer in self.peers.values_mut() {
            let sender = peer.sender.take();
            peer.first = sender.map_or(peer.first, |sender| sender.next());
        }
        self.table.take()
    }

    /// The table.
    pub fn table(&self) -> Option<&T> {
        self.table.as_ref()
    }

    /// The same, to be changed: a simulated datapath writes it.
    pub fn table_mut(&mut self) -> Option<&mut T> {
        self.table.as_mut()
    }

    /// A session with a peer has begun, of a number that no other has had.
    pub fn session_up(&mut self, session: u64, now: Now, outlet: &mut impl Outlet) {
        let table = self.table.as_ref();
        let peer = Peer {
            sender: table.map(|table| Sender::new(table.set_count(), 1, now)),
            first: 1,
            receiver: Receiver::new(),
        };
        self.peers.insert(session, peer);
        if self.vocabulary.version() > 0 {
            tell_dictionary(&self.vocabulary, session, outlet);
        }
    }

    /// It has ended.
    pub fn session_down(&mut self, session: u64) {
        self.peers.remove(&session);
    }

    /// This node has given its flows up to a peer ([`Sender::tell_ages`]).
    pub fn tell_ages(&mut self) {
        let senders = self.peers.values_mut();
        senders
            .filter_map(|peer| peer.sender.as_mut())
            .for_each(Sender::tell_ages);
    }

    /// Takes a datagram of a session.
    ///
    /// # Errors
    /// [`Malformed`]: nothing has changed.
    pub fn take_datagram(
        &mut self,
        session: u64,
        kind: u16,
        payload: &[u8],
        now: Now,
    ) -> Result<(), Malformed> {
        let (Some(peer), Some(table)) = (self.peers.get_mut(&session), &mut self.table) else {
            return Ok(());
        };
        let Some(sender) = &mut peer.sender else {
            return Ok(());
        };
        match kind {
            kind::FLOWS => peer
                .receiver
                .take_flows(payload, table, sender.shadow(), now),
            kind::FLOWS_ACK => sender.acknowledged(&parse_ack(payload)?, now),
            _ => Err(Malformed::Content("a datagram of a kind that is not known")),
        }
    }

    /// Takes a frame of a session.
    ///
    /// # Errors
    /// [`Malformed`].
    pub fn take_frame(&mut self, session: u64, kind: u16, payload: &[u8]) -> Result<(), Malformed> {
        let Some(peer) = self.peers.get_mut(&session) else {
            return Ok(());
        };
        match kind {
            kind::DICTIONARY => {
                let ours = self.vocabulary.dictionary();
                peer.receiver.take_dictionary(payload, ours)
            }
            _ => Err(Malformed::Content("a frame of a kind that is not known")),
        }
    }

    /// Does what is due: to be called after each batch of datagrams, and at [`Self::deadline_us`].
    pub fn tick(&mut self, now: Now, outlet: &mut impl Outlet) {
        let Some(table) = &mut self.table else { return };
        if self.peers.is_empty() {
            return;
        }
        if self.looked_us + LOOK_US <= now.us {
            // What has changed by now has done so since the last look, at the earliest.
            let since_us = self.looked_us.max(now.us.saturating_sub(1_000_000));
            self.looked_us = now.us;
            self.changed.clear();
            table.take_changed(&mut self.changed, usize::MAX);
            for peer in self.peers.values_mut() {
                let Some(sender) = &mut peer.sender else {
                    continue;
                };
                self.changed
                    .iter()
                    .for_each(|set| sender.mark(*set, since_us));
            }
            if self.vocabulary.update(table.dictionary()) {
                for (session, peer) in &mut self.peers {
                    tell_dictionary(&self.vocabulary, *session, outlet);
                    peer.receiver
                        .own_dictionary_changed(self.vocabulary.dictionary());
                    peer.sender.iter_mut().for_each(Sender::look_again);
                }
            }
        }
        for (session, peer) in &mut self.peers {
            if let Some(ack) = peer.receiver.poll(now) {
                outlet.datagram(*session, kind::FLOWS_ACK, bytemuck::bytes_of(&ack));
            }
            if let Some(sender) = &mut peer.sender {
                let send = |payload: &[u8]| outlet.datagram(*session, kind::FLOWS, payload);
                sender.poll(table, &self.vocabulary, now, send);
            }
        }
    }

    /// Backends that the peer of a session has flows of and this node's services nothing, since they were last asked
    /// for.
    pub fn take_strangers(&mut self, session: u64) -> Vec<(ServiceEndpoint, SocketAddr)> {
        let peer = self.peers.get_mut(&session);
        peer.map_or_else(Vec::new, |peer| peer.receiver.take_strangers())
    }

    /// When [`Self::tick`] is to be called though nothing has arrived; `None`: not at all. Unit: microseconds.
    pub fn deadline_us(&self) -> Option<u64> {
        let is_idle = self.table.is_none() || self.peers.is_empty();
        (!is_idle).then_some(self.looked_us + LOOK_US)
    }

    /// How replication in a session stands.
    pub fn status(&self, session: u64, now: Now) -> Option<FlowsStatus> {
        let peer = self.peers.get(&session)?;
        let sender = peer.sender.as_ref();
        Some(FlowsStatus {
            is_caught_up: sender.is_some() && peer.receiver.is_caught_up(now),
            has_told_all: sender.is_some_and(Sender::has_told_all),
            lag_ms: sender.map_or(0, |sender| sender.lag_ms(now)),
            peer_lag_ms: peer.receiver.lag_ms(),
            waiting_sets: sender.map_or(0, |sender| sender.waiting_count() as u64),
            under_way: sender.map_or(0, |sender| sender.under_way_count() as u64),
            rtt_us: sender.and_then(Sender::rtt_us),
            sent: sender.map(Sender::counts).unwrap_or_default(),
            received: peer.receiver.counts(),
        })
    }
}

fn tell_dictionary(vocabulary: &Vocabulary, session: u64, outlet: &mut impl Outlet) {
    for payload in vocabulary.frames() {
        outlet.frame(session, kind::DICTIONARY, payload);
    }
}

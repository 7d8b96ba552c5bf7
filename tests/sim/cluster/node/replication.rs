//! How flows are told to the peers, and taken from them.

use std::net::SocketAddr;

use lb_common::datapath::flow;
use lb_common::kernel::Kernel as _;
use lb_userspace::cluster::Rings as _;
use lb_userspace::sync::kind;
use lb_userspace::sync::replicate::message::FlowsAck;
use lb_userspace::sync::replicate::replicator::FlowsStatus;

use super::identity::SERVICE;
use super::{Node, fingerprint_of};
use crate::cluster::flows::{Outbox, Said};
use crate::cluster::rules::Rule;
use crate::packet::Source;

/// Until a mark is looked at, at most. Unit: milliseconds.
const LOOK_MS: u64 = 10;

impl Node {
    /// A session with a peer has begun.
    pub(in crate::cluster) fn session_up(
        &mut self,
        peer: usize,
        session: u64,
        now_ms: u64,
    ) -> Vec<Said> {
        let now = self.moment(now_ms);
        let mut outbox = Outbox::default();
        if let Some(control) = &mut self.control {
            control.sessions.insert(peer, session);
            control.replicator.session_up(session, now, &mut outbox);
        }
        outbox.said
    }

    /// It has ended.
    pub(in crate::cluster) fn session_down(&mut self, peer: usize) {
        if let Some(control) = &mut self.control
            && let Some(session) = control.sessions.remove(&peer)
        {
            control.replicator.session_down(session);
        }
    }

    /// Does what is due in the replication of flows; what is to be sent comes out.
    pub(in crate::cluster) fn replicate(&mut self, now_ms: u64) -> Vec<Said> {
        let now = self.moment(now_ms);
        let mut outbox = Outbox::default();
        self.take_in_strangers();
        let Some(control) = &mut self.control else {
            return outbox.said;
        };
        if let Some(table) = control.replicator.table_mut() {
            table.learn_backends(&self.kernel.backends);
        }
        control.replicator.tick(now, &mut outbox);
        let rules = &self.build.rules;
        if !rules.has(Rule::Replication) {
            outbox.said.iter_mut().for_each(Said::leave_out_flows);
        }
        if !rules.has(Rule::Retransmission) {
            for session in control.sessions.values() {
                let sent = outbox.said.iter().filter(|said| said.session == *session);
                if let Some(latest) = sent.filter_map(Said::flows_number).max() {
                    let ack = FlowsAck {
                        latest,
                        earlier: [u64::MAX; 4],
                        dictionary_version: 1,
                        ..FlowsAck::default()
                    };
                    let ack = bytemuck::bytes_of(&ack);
                    let taken =
                        control
                            .replicator
                            .take_datagram(*session, kind::FLOWS_ACK, ack, now);
                    taken.expect("it was sent");
                }
            }
        }
        outbox.said
    }

    /// Makes entries for backends that peers have flows of, and this node nothing.
    fn take_in_strangers(&mut self) {
        let Some(mut control) = self.control.take() else {
            return;
        };
        let sessions = control.sessions.values();
        let strangers: Vec<SocketAddr> = sessions
            .flat_map(|session| control.replicator.take_strangers(*session))
            .map(|(_, address)| address)
            .collect();
        let ids = control.rings.ids_of(&SERVICE, &strangers);
        control.rings.named.clear();
        for id in ids.unwrap_or_default() {
            self.be_known(&mut control, id);
        }
        self.control = Some(control);
    }

    /// Takes a datagram of the replication; what contradicts the protocol is noted.
    pub(in crate::cluster) fn take_flows(
        &mut self,
        session: u64,
        kind: u16,
        payload: &[u8],
        now_ms: u64,
    ) {
        let now = self.moment(now_ms);
        self.kernel.now_s = now.s();
        if let Some(control) = &mut self.control {
            if let Some(table) = control.replicator.table_mut() {
                table.learn_backends(&self.kernel.backends);
            }
            let taken = control
                .replicator
                .take_datagram(session, kind, payload, now);
            // Without the rule, the peer acknowledges what was taken for acknowledged.
            if let Err(malformed) = taken {
                self.violations.push(malformed.to_string());
            }
        }
    }

    /// Takes a frame of the replication.
    pub(in crate::cluster) fn take_words(&mut self, session: u64, kind: u16, payload: &[u8]) {
        if let Some(control) = &mut self.control
            && let Err(malformed) = control.replicator.take_frame(session, kind, payload)
        {
            self.violations.push(malformed.to_string());
        }
    }

    /// Whether a flow's record may not have reached a peer, by what replication says of itself: the age of the
    /// oldest change that is not acknowledged.
    pub(in crate::cluster) fn is_unsynced(&self, source: Source, peer: usize, now_ms: u64) -> bool {
        let Some(status) = self.flows_status(peer, now_ms) else {
            return true;
        };
        let fingerprint = fingerprint_of(&self.kernel, source);
        let changed_ms = self.changed_ms.get(&fingerprint).copied().unwrap_or(0);
        // Marks that nobody has looked at: `lbd` does not run.
        let (first, second) = flow::sets(fingerprint, self.kernel.flow_set_count());
        let is_marked = [first, second]
            .iter()
            .any(|set| self.kernel.is_marked(*set));
        is_marked
            || !status.has_told_all
            || now_ms <= changed_ms + u64::from(status.lag_ms) + LOOK_MS
    }

    /// How replication with a peer stands; `None`: there is no session.
    fn flows_status(&self, peer: usize, now_ms: u64) -> Option<FlowsStatus> {
        let control = self.control.as_ref()?;
        let session = control.sessions.get(&peer)?;
        control.replicator.status(*session, self.moment(now_ms))
    }

    /// A peer whose flows are not all here.
    pub(in crate::cluster) fn lacks_flows_of(&self, now_ms: u64) -> Option<usize> {
        let peers = self.control.as_ref()?.sessions.keys().copied();
        let mut behind = peers.filter(|peer| {
            let status = self.flows_status(*peer, now_ms);
            status.is_some_and(|status| !status.is_caught_up)
        });
        behind.next()
    }
}

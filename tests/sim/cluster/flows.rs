//! What the replication of flows has to say, on its way to the link.

use lb_userspace::sync::kind;
use lb_userspace::sync::replicate::message::FlowsHeader;
use lb_userspace::sync::replicate::replicator::Outlet;

/// By which way it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Channel {
    /// It may be lost.
    Datagram,
    /// It arrives in order, or the session ends.
    Stream,
}

/// Something said in a session.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) session: u64,
    pub(super) channel: Channel,
    pub(super) kind: u16,
    pub(super) payload: Vec<u8>,
}

impl Said {
    fn header(&self) -> Option<FlowsHeader> {
        let is_flows = self.channel == Channel::Datagram && self.kind == kind::FLOWS;
        let header = self.payload.get(..size_of::<FlowsHeader>());
        header
            .filter(|_| is_flows)
            .map(bytemuck::pod_read_unaligned)
    }

    /// The number of a datagram of flows.
    pub(super) fn flows_number(&self) -> Option<u64> {
        self.header().map(|header| header.sequence)
    }

    /// Makes a datagram of flows one without any.
    pub(super) fn leave_out_flows(&mut self) {
        if let Some(header) = self.header() {
            let empty = FlowsHeader { count: 0, ..header };
            self.payload = bytemuck::bytes_of(&empty).to_vec();
        }
    }
}

/// What was said and not sent yet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    pub(super) said: Vec<Said>,
}

impl Outbox {
    fn push(&mut self, session: u64, channel: Channel, kind: u16, payload: Vec<u8>) {
        self.said.push(Said {
            session,
            channel,
            kind,
            payload,
        });
    }
}

impl Outlet for Outbox {
    fn datagram(&mut self, session: u64, kind: u16, payload: &[u8]) {
        self.push(session, Channel::Datagram, kind, payload.to_vec());
    }

    fn frame(&mut self, session: u64, kind: u16, payload: Vec<u8>) {
        self.push(session, Channel::Stream, kind, payload);
    }
}

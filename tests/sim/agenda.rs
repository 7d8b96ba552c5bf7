//! What is to happen when.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::packet::Kind;

/// A client's segment, as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Sent {
    pub(crate) client: u32,
    pub(crate) incarnation: u32,
    pub(crate) sequence: u32,
    pub(crate) port: u16,
    pub(crate) kind: KindCode,
}

/// A [`Kind`] that has an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KindCode(u8);

impl From<Kind> for KindCode {
    fn from(kind: Kind) -> Self {
        Self(kind as u8)
    }
}

impl From<KindCode> for Kind {
    fn from(code: KindCode) -> Self {
        [Self::Syn, Self::Segment, Self::Fin, Self::Rst][usize::from(code.0)]
    }
}

/// Something due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// The nodes' control planes, the attackers, the auditor.
    Tick,
    /// An event of the history, by its number.
    Happens(u32),
    /// What the health checks make of an event, a little later.
    Noticed(u32),
    /// A node hears of a change of the model, by its number.
    Configured { node: u32, change: u32 },
    /// A client's timer.
    Wakes { client: u32, timer: u32 },
    /// A segment reaches its balancer.
    Arrives(Sent),
    /// A SYN-ACK reaches its client.
    SynAck {
        client: u32,
        incarnation: u32,
        backend: u32,
    },
}

/// The agenda: time in milliseconds, and in the order of entry at the same time.
#[derive(Debug, Default)]
pub(crate) struct Agenda {
    heap: BinaryHeap<Reverse<(u64, u64, Due)>>,
    count: u64,
}

impl Agenda {
    pub(crate) fn push(&mut self, at_ms: u64, due: Due) {
        self.count += 1;
        self.heap.push(Reverse((at_ms, self.count, due)));
    }

    pub(crate) fn pop(&mut self) -> Option<(u64, Due)> {
        let Reverse((at_ms, _, due)) = self.heap.pop()?;
        Some((at_ms, due))
    }
}

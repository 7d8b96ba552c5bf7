//! Packets that nobody meant who has a connection.

use crate::balancer::{Balancer, Segment};
use crate::client::Client;
use crate::history::Load;
use crate::packet::{Kind, Source};
use crate::rng::Rng;

/// An attacker, who sees every node and knows every client's address and port.
pub(crate) struct Attacker {
    load: Load,
    per_s: u64,
    rng: Rng,
}

impl Attacker {
    pub(crate) fn new(load: Load, per_s: u64, rng: Rng) -> Self {
        Self { load, per_s, rng }
    }

    /// Sends what is due in a tick of `tick_ms`.
    pub(crate) fn send(
        &mut self,
        tick_ms: u64,
        nodes: &mut [Box<dyn Balancer>],
        clients: &[Client],
    ) -> u64 {
        let count = self.per_s * tick_ms / 1_000 * nodes.len() as u64;
        for _ in 0..count {
            match self.load {
                Load::SynFlood => self.forge(nodes, &[Kind::Syn]),
                Load::AckFlood => self.forge(nodes, &[Kind::Segment]),
                Load::TwoPackets => self.forge(nodes, &[Kind::Syn, Kind::Segment]),
                Load::SpoofedClients => self.impersonate(nodes, clients),
                Load::FullTable => self.forge_some(nodes),
                Load::Calm
                | Load::SlowFlows
                | Load::HalfClosed
                | Load::PortReuse
                | Load::BadNetwork => return 0,
            }
        }
        count
    }

    /// Segments of a connection from nowhere.
    fn forge(&mut self, nodes: &mut [Box<dyn Balancer>], kinds: &[Kind]) {
        let random = self.rng.next();
        let source = Source {
            address: 0x6440_0000 | random as u32 & 0x003f_ffff,
            port: (random >> 32) as u16,
        };
        let initial = (random >> 30) as u32;
        let node = self.rng.below(nodes.len() as u64) as usize;
        for (sequence, kind) in (initial..).zip(kinds) {
            let kind = *kind;
            nodes[node].steer(&Segment {
                source,
                kind,
                sequence,
            });
        }
    }

    /// A tenth of a flood: what fills a small table.
    fn forge_some(&mut self, nodes: &mut [Box<dyn Balancer>]) {
        if self.rng.happens(100) {
            self.forge(nodes, &[Kind::Syn, Kind::Segment]);
        }
    }

    /// A segment in the name of a client that is connected. The attacker does not see the sequence
    /// numbers. That a guess fits has a chance of 1 in 65,536; here it never does.
    fn impersonate(&mut self, nodes: &mut [Box<dyn Balancer>], clients: &[Client]) {
        let position = self.rng.below(clients.len() as u64) as usize;
        let client = &clients[position];
        let kinds = [Kind::Syn, Kind::Syn, Kind::Syn, Kind::Fin, Kind::Rst];
        let kind = self.rng.pick(&kinds);
        let distance = if kind == Kind::Syn {
            0x8000_0000
        } else {
            0x4000_0000
        };
        let spread = self.rng.next() as u32 & 0x1fff_ffff;
        let segment = Segment {
            source: client.source(position),
            kind,
            sequence: client.initial.wrapping_add(distance + spread),
        };
        if client.is_live() {
            nodes[client.node].steer(&segment);
        }
    }
}

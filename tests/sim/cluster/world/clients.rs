//! Clients, their packets' way to a node and a backend, and what is broken.

use lb_common::abi::Slot;

use super::super::plan::Way;
use super::{Due, START_MS, World};
use crate::agenda::Sent;
use crate::balancer::{LiveFlow, Segment};
use crate::client::{NEVER_MS, Phase, Turn};
use crate::packet::{Kind, Source};

/// How long a router or a switch takes to see that a node is gone. Unit: milliseconds.
const RETRY_MS: u64 = 300;

/// A client's initial sequence number: for the same ports it grows by one every 4 µs (RFC 6528 section 3).
fn initial_sequence(client: u32, now_ms: u64) -> u32 {
    let secret = lb_common::hash::mix(u64::from(client)) as u32;
    secret.wrapping_add((now_ms * 250) as u32)
}

impl World<'_> {
    pub(super) fn wake(&mut self, client: u32, timer: u32) {
        let manners = self.manners();
        let waking = &mut self.clients[client as usize];
        if waking.timer != timer {
            return;
        }
        let was_opening = matches!(waking.phase, Phase::Opening(_));
        let turn = waking.turn(manners);
        if turn.sends == Some(Kind::Syn) && !was_opening {
            waking.initial = initial_sequence(client, self.now_ms);
        }
        self.outcome.opened_count += u64::from(turn.sends == Some(Kind::Syn) && !was_opening);
        self.outcome.unopened_count += u64::from(was_opening && turn.sends.is_none());
        self.act(client, turn);
    }

    fn act(&mut self, client: u32, turn: Turn) {
        let position = client as usize;
        let acting = &mut self.clients[position];
        acting.timer += 1;
        let timer = acting.timer;
        if turn.wake_ms < NEVER_MS {
            let due = Due::Wakes { client, timer };
            self.agenda.push(self.now_ms + turn.wake_ms, due);
        }
        let Some(kind) = turn.sends else {
            return;
        };
        let is_syn = kind == Kind::Syn;
        let sent = Sent {
            client,
            incarnation: acting.incarnation,
            sequence: if is_syn {
                acting.initial
            } else {
                acting.sequence()
            },
            port: acting.source(position).port,
            kind: kind.into(),
        };
        let delay_ms = acting.rng.within(1, 20);
        self.agenda.push(self.now_ms + delay_ms, Due::Arrives(sent));
    }

    /// The node that a client's packets reach now; `None`: they are lost.
    fn node_of(&self, position: usize) -> Option<usize> {
        let is_there = |number: &usize| {
            self.machines[*number].is_powered && !self.net.lan_down.contains(number)
        };
        match self.plan.way {
            Way::Vip => Some(self.located).filter(is_there),
            Way::Ecmp => {
                let is_announced = |number: &usize| self.machines[*number].is_announced;
                let nodes = (0..self.machines.len())
                    .filter(is_there)
                    .filter(is_announced);
                let nodes: Vec<usize> = nodes.collect();
                let hash =
                    lb_common::hash::mix(self.spread ^ lb_common::hash::mix(position as u64));
                nodes.get(hash as usize % nodes.len().max(1)).copied()
            }
        }
    }

    pub(super) fn arrive(&mut self, sent: &Sent) {
        let kind = Kind::from(sent.kind);
        let position = sent.client as usize;
        let client = &self.clients[position];
        if client.incarnation != sent.incarnation {
            return;
        }
        let source = Source {
            port: sent.port,
            ..client.source(position)
        };
        self.outcome.packet_count += 1;
        let Some(node) = self.node_of(position) else {
            self.outcome.lost_count += 1;
            if matches!(kind, Kind::Segment | Kind::Fin) {
                self.agenda
                    .push(self.now_ms + RETRY_MS, Due::Arrives(*sent));
            }
            return;
        };
        let segment = Segment {
            source,
            kind,
            sequence: sent.sequence,
        };
        let is_followed = self.followed == Some(position);
        let before = is_followed.then(|| self.machines[node].node.explain(source));
        let is_late = match kind {
            Kind::Syn => self.is_foreign(source, node),
            _ => self.is_unsynced(position, source, node),
        };
        if is_late {
            self.unsynced[position] = sent.incarnation;
        }
        let went_to = self.machines[node].node.steer(&segment, self.now_ms);
        if let Some(before) = before {
            let at_s = (self.now_ms - START_MS) as f64 / 1_000.0;
            let to = went_to.map_or(0, |backend| backend + 1);
            println!(
                "{at_s:>8.3} s  {kind:?} {:#x} at node {node} to {to}: {before}",
                sent.sequence
            );
        }
        match went_to {
            Some(backend) if self.is_alive[backend] => {
                self.deliver(sent, kind, backend, node);
            }
            Some(_) if kind == Kind::Syn => self.outcome.syn_to_dead_count += 1,
            Some(_) => self.outcome.to_dead_count += 1,
            None => self.outcome.dropped_count += 1,
        }
        if went_to.is_some() {
            self.last_node[position] = node;
        }
    }

    /// Whether a client comes to another node than before, and its flow's record has not: on record there, not
    /// here, and not acknowledged.
    fn is_unsynced(&self, position: usize, source: Source, node: usize) -> bool {
        let client = &self.clients[position];
        let (last, Some(backend)) = (self.last_node[position], client.owner) else {
            return false;
        };
        if last == node || !client.is_live() {
            return false;
        }
        let flow = LiveFlow {
            source,
            sequence: client.sequence(),
            backend,
        };
        let is_lost = !self.machines[node].node.would_keep(&flow);
        let last = &self.machines[last];
        // What a dead node had to tell was told while it lived, or never.
        let told_ms = last.died_ms.unwrap_or(self.now_ms);
        is_lost && last.node.would_keep(&flow) && last.node.is_unsynced(source, node, told_ms)
    }

    /// I3 across the nodes: whichever caught-up node a connection's next segment comes to, it goes to the same backend,
    /// unless that node has not been told of it yet, or one of them misses a peer.
    pub(super) fn check_flows_everywhere(&mut self) {
        for position in 0..self.clients.len() {
            let client = &self.clients[position];
            let Some(backend) = client.owner else {
                continue;
            };
            // What has come to a node too early once is counted when it breaks.
            let is_unsynced = self.unsynced[position] == client.incarnation;
            if !client.is_live() || !client.is_promised() || is_unsynced {
                continue;
            }
            let flow = LiveFlow {
                source: client.source(position),
                sequence: client.sequence(),
                backend,
            };
            let last = self.last_node[position];
            for node in 0..self.machines.len() {
                self.check_flow_at(&flow, node, last);
            }
        }
    }

    /// Whether any node still has something to tell `node` of a flow: not only its present one, who may have been told
    /// of it by a third.
    fn is_untold(&self, source: Source, node: usize) -> bool {
        let mut tellers = self.machines.iter().enumerate();
        tellers.any(|(teller, machine)| {
            let has_word = teller != node && machine.is_powered;
            has_word && machine.node.is_unsynced(source, node, self.now_ms)
        })
    }

    fn check_flow_at(&mut self, flow: &LiveFlow, node: usize, last: usize) {
        let (there, origin) = (&self.machines[node], &self.machines[last]);
        let serves = there.is_powered && origin.is_powered;
        let hear_all = serves && [there, origin].iter().all(|one| one.node.reaches_all());
        if node == last || !hear_all || self.behind(node).is_some() {
            return;
        }
        self.outcome.flow_look_count += 1;
        // What its own node would not keep any more has been told of elsewhere, when it broke. A predecessor of the same
        // ports that has ended and expired is forgotten with a sweep.
        let is_safe = there.node.would_keep(flow)
            || there.node.has_ended_record(flow.source)
            || !origin.node.would_keep(flow)
            || self.is_untold(flow.source, node);
        if is_safe {
            return;
        }
        let (left, moved) = (
            there.node.slot_of(flow.source),
            origin.node.slot_of(flow.source),
        );
        if left == Slot::settled(moved.miss()) {
            // A death's move does not wait for an acknowledgement for longer than 300 ms: nothing else records flows of
            // a slot that is settled elsewhere.
            self.outcome.ahead_count += 1;
            return;
        }
        let Source { address, port } = flow.source;
        let (here, there) = (
            origin.node.explain(flow.source),
            there.node.explain(flow.source),
        );
        let text = format!(
            "I3: flow {address:#x}:{port} of backend {} at node {last} ({here}) would break at node {node} ({there})",
            flow.backend + 1
        );
        self.outcome.violate(self.now_ms - START_MS, text);
    }

    /// Whether a connection begins at a node that has not heard yet what another one has on record of the same ports:
    /// which of the two records is the later will be told by whole seconds alone.
    fn is_foreign(&self, source: Source, node: usize) -> bool {
        let here = self.machines[node].node.backend_on_record(source);
        (0..self.machines.len()).any(|other| {
            let other = &self.machines[other];
            let there = other.node.backend_on_record(source);
            let is_other = there.is_some() && there != here;
            is_other && other.is_powered && other.node.is_unsynced(source, node, self.now_ms)
        })
    }

    fn deliver(&mut self, sent: &Sent, kind: Kind, backend: usize, node: usize) {
        let client = &mut self.clients[sent.client as usize];
        if client.phase == Phase::Idle {
            return;
        }
        if kind == Kind::Syn {
            client.is_split |= client.is_confirmed && client.owner != Some(backend);
            let due = Due::SynAck {
                client: sent.client,
                incarnation: sent.incarnation,
                backend,
            };
            let delay_ms = client.rng.within(1, 20);
            self.agenda.push(self.now_ms + delay_ms, due);
        } else if client.owner == Some(backend) {
            self.outcome.established_count += u64::from(!client.is_confirmed);
            client.is_confirmed = true;
        } else if client.is_live() {
            self.break_off(sent.client, backend, node);
        }
    }

    fn break_off(&mut self, number: u32, backend: usize, node: usize) {
        let position = number as usize;
        let client = &self.clients[position];
        if self.unsynced[position] == client.incarnation {
            self.outcome.unsynced_count += 1;
        } else if client.is_promised() {
            let at_s = (self.now_ms - START_MS) as f64 / 1_000.0;
            let owner = client.owner.map_or(0, |owner| owner + 1);
            let text = format!(
                "{at_s:>8.3} s  client {position} ({:?}) with backend {owner} went to {} at node {node}, before at node {}: {}",
                client.habit,
                backend + 1,
                self.last_node[position],
                self.machines[node].node.explain(client.source(position))
            );
            self.outcome.broken.push(text);
        } else {
            self.outcome.handshake_count += 1;
        }
        self.reset(number);
    }

    /// The connection is over, without a word.
    pub(super) fn reset(&mut self, client: u32) {
        let reset = &mut self.clients[client as usize];
        reset.phase = Phase::Idle;
        let wake_ms = reset.rng.within(10, 2_000);
        let turn = Turn {
            sends: None,
            wake_ms,
        };
        self.act(client, turn);
    }

    pub(super) fn take_syn_ack(&mut self, client: u32, incarnation: u32, backend: usize) {
        let manners = self.manners();
        let opening = &mut self.clients[client as usize];
        if opening.incarnation != incarnation || !self.is_alive[backend] {
            return;
        }
        if let Some(turn) = opening.take_syn_ack(backend, manners) {
            self.act(client, turn);
        }
    }
}

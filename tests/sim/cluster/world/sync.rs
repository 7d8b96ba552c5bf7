//! What goes over the sync link: heartbeats, messages about rings, flows; as bytes, sealed, in real sessions.

use super::super::flows::{Channel, Said};
use super::super::links::Opened;
use super::super::net::Path;
use super::super::node::name;
use super::super::rules::Rule;
use super::{Due, NodeStatus, World};
use lb_userspace::cluster::message::Message;
use lb_userspace::sync::kind;
use lb_userspace::sync::session::Event;

/// A message about rings, in a frame.
const RINGS: u16 = kind::FREE_MIN;

impl World<'_> {
    fn runs(&self, number: usize) -> bool {
        let machine = &self.machines[number];
        let is_there = machine.is_powered && machine.node.control.is_some();
        is_there && self.now_ms >= machine.stopped_until_ms
    }

    /// Pairs of nodes that have no session try to make one.
    pub(super) fn connect(&mut self) {
        for one in 0..self.machines.len() {
            for other in one + 1..self.machines.len() {
                let is_open = self.net.is_open(Path::Sync, one, other)
                    && self.net.is_open(Path::Sync, other, one);
                let can = is_open && self.runs(one) && self.runs(other);
                if !can || !self.links.may_connect(one, other, self.now_ms) {
                    continue;
                }
                let tries = [(one, other), (other, one), (one, other)];
                if tries
                    .iter()
                    .all(|(from, to)| self.net.datagram(Path::Sync, *from, *to).is_some())
                {
                    self.links.connect(one, other, self.now_ms);
                    self.set_out(one, other);
                }
            }
        }
    }

    /// The real session is up at this end.
    fn link_up(&mut self, at: usize, peer: usize, session: u64) {
        let node = &mut self.machines[at].node;
        if let Some(control) = &mut node.control {
            control.coordinator.link_up(&name(peer));
        }
        let said = node.session_up(peer, session, self.now_ms);
        node.look_soon();
        self.say_all(at, said);
        self.send_heartbeat(at, peer);
    }

    fn link_down(&mut self, at: usize, peer: usize) {
        let connection = self.links.connection(at, peer);
        let (Some(connection), Some(was_up)) = (connection, self.links.disconnect(at, peer)) else {
            return;
        };
        let local_ms = self.machines[at].node.clock.local_ms(self.now_ms);
        let node = &mut self.machines[at].node;
        node.session_down(peer);
        if let Some(control) = &mut node.control
            && was_up
        {
            control.coordinator.link_down(&name(peer), local_ms);
        }
        node.look_soon();
        // The other end hears of it, if it can.
        if self.links.connection(peer, at) == Some(connection)
            && let Some(delay_ms) = self.net.datagram(Path::Sync, at, peer)
        {
            let due = Due::Closed {
                from: at,
                to: peer,
                connection,
            };
            self.agenda.push(self.now_ms + delay_ms, due);
        }
    }

    /// A node's `lbd` is gone: its kernel closes the connections.
    pub(super) fn close_all(&mut self, at: usize) {
        for peer in 0..self.machines.len() {
            if peer != at {
                self.link_down(at, peer);
            }
        }
    }

    /// A node is gone, and says nothing.
    pub(super) fn forget_sessions(&mut self, at: usize) {
        for peer in 0..self.machines.len() {
            if peer != at {
                self.links.disconnect(at, peer);
            }
        }
    }

    /// Every node tells its peers how it is, and looks who is silent.
    pub(super) fn beat(&mut self) {
        for from in 0..self.machines.len() {
            if !self.runs(from) {
                continue;
            }
            for to in 0..self.machines.len() {
                if to == from || self.links.connection(from, to).is_none() {
                    continue;
                }
                if self.links.is_silent(from, to, self.now_ms) {
                    self.link_down(from, to);
                    continue;
                }
                self.send_heartbeat(from, to);
            }
            self.tell_facts(from);
        }
    }

    fn send_heartbeat(&mut self, from: usize, to: usize) {
        let status = self.status_of(from).to_bytes();
        self.send_datagram(from, to, kind::HEARTBEAT, &status);
    }

    /// Seals a datagram and sends it, if there is a session.
    fn send_datagram(&mut self, from: usize, to: usize, kind: u16, payload: &[u8]) {
        let Some(bytes) = self.links.seal(from, to, kind, payload) else {
            return;
        };
        if let Some(delay_ms) = self.net.datagram(Path::Sync, from, to) {
            let due = Due::Datagram { to, bytes };
            self.agenda.push(self.now_ms + delay_ms, due);
        }
    }

    /// A node's VRRP state has changed: its coordinator hears of it, and its peers at once.
    pub(super) fn tell_own_state(&mut self, number: usize) {
        let status = self.status_of(number);
        let node = &mut self.machines[number].node;
        if let Some(control) = &mut node.control {
            control.coordinator.note_own_active(status.active());
        }
        node.look_soon();
        if self.runs(number) {
            for to in 0..self.machines.len() {
                if to != number {
                    self.send_heartbeat(number, to);
                }
            }
        }
    }

    /// A node is Active no more: another one has its flows.
    pub(super) fn give_flows_up(&mut self, number: usize) {
        if let Some(control) = &mut self.machines[number].node.control {
            control.replicator.tell_ages();
        }
    }

    /// Why a node has not caught up: its rings, or its peers' flows.
    pub(super) fn behind(&self, number: usize) -> Option<String> {
        let node = &self.machines[number].node;
        let rings = node.control.as_ref()?.coordinator.behind();
        rings.or_else(|| {
            let peer = node.lacks_flows_of(self.now_ms)?;
            Some(format!("the flows of {} are not here yet", name(peer)))
        })
    }

    /// A node's `lbd`: what came in, what is due, what it has to say.
    pub(super) fn tick_control(&mut self, number: usize) {
        if !self.runs(number) {
            return;
        }
        for due in std::mem::take(&mut self.machines[number].waiting) {
            self.take_sync(due);
        }
        let outputs = self.machines[number].node.tick(self.now_ms);
        for output in outputs {
            let peer = super::super::node::number(&output.peer);
            self.say(number, peer, RINGS, &output.message.encode());
        }
        self.replicate(number);
    }

    fn replicate(&mut self, number: usize) {
        let said = self.machines[number].node.replicate(self.now_ms);
        self.say_all(number, said);
    }

    fn say_all(&mut self, from: usize, said: Vec<Said>) {
        for said in said {
            let to = (0..self.machines.len())
                .find(|to| *to != from && self.links.up(from, *to) == Some(said.session));
            match (to, said.channel) {
                (Some(to), Channel::Datagram) => {
                    self.send_datagram(from, to, said.kind, &said.payload);
                }
                (Some(to), Channel::Stream) => self.say(from, to, said.kind, &said.payload),
                // The session has ended meanwhile.
                (None, _) => {}
            }
        }
    }

    fn say(&mut self, from: usize, to: usize, kind: u16, payload: &[u8]) {
        if self.links.up(from, to).is_some() {
            self.links.send(from, to, kind, payload);
            self.set_out(from, to);
        }
    }

    /// What an end has written to its stream is on its way.
    fn set_out(&mut self, from: usize, to: usize) {
        if let Some(connection) = self.links.set_out(from, to) {
            let due = Due::Stream {
                from,
                to,
                connection,
            };
            let mut flight_ms = self.net.flight_ms();
            if self.links.up(from, to).is_some() {
                flight_ms += self.plan.surroundings.stream_ms;
            }
            self.agenda.push(self.now_ms + flight_ms, due);
        }
    }

    /// A piece of a stream arrives, or is sent again, or the connection is as good as dead.
    pub(super) fn land(&mut self, from: usize, to: usize, connection: u64) {
        if self.links.connection(from, to) != Some(connection) {
            return;
        }
        if self.net.carries(from, to) {
            let bytes = self.links.land(from, to);
            let due = Due::Bytes {
                from,
                to,
                connection,
                bytes,
            };
            return self.take_sync(due);
        }
        match self.links.resend_ms(from, to) {
            Some(wait_ms) => {
                let due = Due::Stream {
                    from,
                    to,
                    connection,
                };
                self.agenda.push(self.now_ms + wait_ms, due);
            }
            None => self.link_down(from, to),
        }
    }

    /// Something has come over the sync link.
    pub(super) fn take_sync(&mut self, due: Due) {
        let to = match &due {
            Due::Closed { to, .. } | Due::Bytes { to, .. } | Due::Datagram { to, .. } => *to,
            _ => return,
        };
        // What has waited comes first.
        if !self.runs(to) || !self.machines[to].waiting.is_empty() {
            if self.machines[to].is_powered && self.machines[to].node.control.is_some() {
                self.machines[to].waiting.push(due);
            }
            return;
        }
        if !self.is_current(&due) {
            return;
        }
        match due {
            Due::Closed { from, .. } => self.link_down(to, from),
            Due::Bytes {
                from,
                connection,
                bytes,
                ..
            } => {
                if let Some(attacker) = &mut self.attacker {
                    attacker.record_stream(from, to, connection, &bytes);
                }
                self.take_bytes(from, to, &bytes);
            }
            Due::Datagram { bytes, .. } => {
                if let Ok(opened) = self.links.open(to, &bytes) {
                    if let Some(attacker) = &mut self.attacker {
                        attacker.record_datagram(&bytes);
                    }
                    self.take_datagram(to, &opened);
                }
            }
            _ => {}
        }
    }

    /// Whether a stream's connection is still there at its receiver.
    fn is_current(&self, due: &Due) -> bool {
        match due {
            Due::Closed {
                from,
                to,
                connection,
            }
            | Due::Bytes {
                from,
                to,
                connection,
                ..
            } => self.links.connection(*to, *from) == Some(*connection),
            _ => true,
        }
    }

    fn take_bytes(&mut self, from: usize, to: usize, bytes: &[u8]) {
        self.links.hear(to, from, self.now_ms);
        let received = self.links.receive(to, from, bytes);
        self.set_out(to, from);
        let events = match received {
            Ok(events) => events,
            Err(refusal) => {
                let text = format!("node {to} refuses node {from}: {refusal}");
                self.outcome.violate(self.now_ms - super::START_MS, text);
                return self.link_down(to, from);
            }
        };
        for event in events {
            let Some(session) = self.links.up(to, from) else {
                return;
            };
            match event {
                Event::Up { .. } => self.link_up(to, from, session),
                Event::Frame { kind, payload } if kind == RINGS => {
                    self.take_message(from, to, &payload);
                }
                Event::Frame { kind, payload } => {
                    self.machines[to].node.take_words(session, kind, &payload);
                }
            }
        }
    }

    fn take_datagram(&mut self, to: usize, opened: &Opened) {
        let from = opened.from;
        self.links.hear(to, from, self.now_ms);
        if opened.kind == kind::HEARTBEAT {
            return self.take_heartbeat(from, to, &opened.payload);
        }
        let (session, kind) = (opened.connection, opened.kind);
        let node = &mut self.machines[to].node;
        node.take_flows(session, kind, &opened.payload, self.now_ms);
        self.replicate(to);
    }

    fn take_heartbeat(&mut self, from: usize, to: usize, payload: &[u8]) {
        let Some(status) = NodeStatus::parse(payload) else {
            let text = "a heartbeat cannot be read".to_owned();
            return self.outcome.violate(self.now_ms - super::START_MS, text);
        };
        let machine = &mut self.machines[to];
        if let Some(control) = &mut machine.node.control {
            control
                .coordinator
                .note_peer_active(&name(from), status.active());
        }
        machine.node.look_soon();
        let known = machine.heard.get(&from).map(|(_, known)| known);
        let is_news = known.is_none_or(|known| known.is_other_than(&status));
        machine.heard.insert(from, (self.now_ms, status));
        if is_news {
            self.tell_facts(to);
        }
    }

    fn take_message(&mut self, from: usize, to: usize, payload: &[u8]) {
        let Ok(message) = Message::decode(payload) else {
            let text = "a message cannot be read".to_owned();
            return self.outcome.violate(self.now_ms - super::START_MS, text);
        };
        let is_ring = matches!(message, Message::Ring(_) | Message::Claim(_));
        if is_ring && !self.rules.has(Rule::OneOwner) {
            return;
        }
        let node = &mut self.machines[to].node;
        let local_ms = node.clock.local_ms(self.now_ms);
        if let Some(control) = &mut node.control {
            control.coordinator.receive(&name(from), message, local_ms);
        }
        node.look_soon();
    }
}

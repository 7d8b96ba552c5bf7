//! What goes over the sync link: heartbeats, messages about rings, flows.

use super::super::flows::{self, Sender};
use super::super::net::Path;
use super::super::node::name;
use super::super::rules::Rule;
use super::{Due, World};
use lb_userspace::cluster::message::Message;

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
                    self.link_up(one, other);
                    self.link_up(other, one);
                }
            }
        }
    }

    fn link_up(&mut self, at: usize, peer: usize) {
        let (now_ms, status) = (self.now_ms, self.status_of(peer));
        let machine = &mut self.machines[at];
        let set_count = machine.node.build.set_count;
        if let Some(control) = &mut machine.node.control {
            control.coordinator.link_up(&name(peer));
            control
                .coordinator
                .note_peer_active(&name(peer), status.active.clone());
            control.senders.insert(peer, Sender::new(set_count, now_ms));
            control.told_all.remove(&peer);
            control.offsets_ms.remove(&peer);
        }
        machine.heard.insert(peer, (now_ms, status));
        machine.node.look_soon();
    }

    fn link_down(&mut self, at: usize, peer: usize) {
        if !self.links.disconnect(at, peer) {
            return;
        }
        let session = self.links.up(peer, at);
        let local_ms = self.machines[at].node.clock.local_ms(self.now_ms);
        let node = &mut self.machines[at].node;
        if let Some(control) = &mut node.control {
            control.coordinator.link_down(&name(peer), local_ms);
            control.senders.remove(&peer);
        }
        node.look_soon();
        // The other end hears of it, if it can.
        if let Some(session) = session
            && let Some(delay_ms) = self.net.datagram(Path::Sync, at, peer)
        {
            let due = Due::Closed {
                from: at,
                to: peer,
                session,
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
                let Some(session) = self.links.up(from, to) else {
                    continue;
                };
                if self.links.is_silent(from, to, self.now_ms) {
                    self.link_down(from, to);
                    continue;
                }
                self.send_heartbeat(from, to, session);
            }
            self.tell_facts(from);
        }
    }

    fn send_heartbeat(&mut self, from: usize, to: usize, session: u64) {
        if let Some(delay_ms) = self.net.datagram(Path::Sync, from, to) {
            let due = Due::Heartbeat {
                from,
                to,
                session,
                status: self.status_of(from),
            };
            self.agenda.push(self.now_ms + delay_ms, due);
        }
    }

    /// A node's VRRP state has changed: its coordinator hears of it, and its peers at once.
    pub(super) fn tell_own_state(&mut self, number: usize) {
        let status = self.status_of(number);
        let node = &mut self.machines[number].node;
        if let Some(control) = &mut node.control {
            control.coordinator.note_own_active(status.active);
        }
        node.look_soon();
        if self.runs(number) {
            for to in 0..self.machines.len() {
                if let Some(session) = self.links.up(number, to) {
                    self.send_heartbeat(number, to, session);
                }
            }
        }
    }

    /// Why a node has not caught up: its rings, or its peers' flows.
    pub(super) fn behind(&self, number: usize) -> Option<String> {
        let control = self.machines[number].node.control.as_ref()?;
        let waits_for = control
            .senders
            .keys()
            .find(|peer| !control.told_all.contains(peer));
        let flows = waits_for.map(|peer| format!("the flows of {} are not here yet", name(*peer)));
        control.coordinator.behind().or(flows)
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
            self.say(
                number,
                super::super::node::number(&output.peer),
                output.message,
            );
        }
        self.send_flows(number);
    }

    fn say(&mut self, from: usize, to: usize, message: Message) {
        let Some(session) = self.links.up(from, to) else {
            return;
        };
        // As it is on the wire.
        let Ok(message) = Message::decode(&message.encode()) else {
            self.outcome
                .violate(self.now_ms, "a message cannot be read".to_owned());
            return;
        };
        let Some(delay_ms) = self.net.stream(from, to) else {
            if self.net.is_open(Path::Sync, from, to) {
                self.link_down(from, to);
            }
            return;
        };
        let at_ms = self.links.arrival_ms(from, to, self.now_ms + delay_ms);
        let due = Due::Said {
            from,
            to,
            session,
            message,
        };
        self.agenda.push(at_ms, due);
    }

    fn send_flows(&mut self, from: usize) {
        let (now_ms, rules) = (self.now_ms, self.rules.clone());
        let machine = &mut self.machines[from];
        let Some(control) = &mut machine.node.control else {
            return;
        };
        let mut datagrams = Vec::new();
        let mut complete = Vec::new();
        for (peer, sender) in &mut control.senders {
            let was_complete = sender.is_complete;
            for datagram in sender.send(&machine.node.kernel, now_ms) {
                if !rules.has(Rule::Retransmission) {
                    sender.acknowledged(datagram.number);
                }
                datagrams.push((*peer, datagram));
            }
            if sender.is_complete && !was_complete {
                complete.push(*peer);
            }
        }
        let sent_ms = self.machines[from].node.clock.local_ms(self.now_ms);
        for (to, datagram) in datagrams {
            let Some(session) = self.links.up(from, to) else {
                continue;
            };
            let datagram = flows::Datagram {
                sent_ms,
                ..datagram
            };
            if !rules.has(Rule::Replication) {
                continue;
            }
            if let Some(delay_ms) = self.net.datagram(Path::Sync, from, to) {
                let due = Due::Flows {
                    from,
                    to,
                    session,
                    datagram,
                };
                self.agenda.push(self.now_ms + delay_ms, due);
            }
        }
        for to in complete {
            self.tell_complete(from, to);
        }
    }

    fn tell_complete(&mut self, from: usize, to: usize) {
        if let Some(session) = self.links.up(from, to)
            && let Some(delay_ms) = self.net.stream(from, to)
        {
            let at_ms = self.links.arrival_ms(from, to, self.now_ms + delay_ms);
            self.agenda
                .push(at_ms, Due::FlowsComplete { from, to, session });
        }
    }

    /// Something has come over the sync link.
    pub(super) fn take_sync(&mut self, due: Due) {
        let (from, to, session) = match &due {
            Due::Heartbeat {
                from, to, session, ..
            }
            | Due::Closed { from, to, session }
            | Due::Said {
                from, to, session, ..
            }
            | Due::FlowsComplete { from, to, session }
            | Due::Flows {
                from, to, session, ..
            }
            | Due::FlowsAcked {
                from, to, session, ..
            } => (*from, *to, *session),
            _ => return,
        };
        if self.links.up(to, from) != Some(session) {
            return;
        }
        if !self.runs(to) {
            if self.machines[to].is_powered && self.machines[to].node.control.is_some() {
                self.machines[to].waiting.push(due);
            }
            return;
        }
        // What was under way when the cut began arrives no more.
        if !self.net.is_open(Path::Sync, from, to) {
            return;
        }
        self.links.hear(to, from, self.now_ms);
        match due {
            Due::Closed { .. } => self.link_down(to, from),
            Due::Heartbeat { status, .. } => {
                let machine = &mut self.machines[to];
                if let Some(control) = &mut machine.node.control {
                    control
                        .coordinator
                        .note_peer_active(&name(from), status.active.clone());
                }
                machine.node.look_soon();
                let is_news = machine.heard.get(&from).is_none_or(|(_, known)| {
                    known.router.state != status.router.state
                        || known.router.is_fit != status.router.is_fit
                });
                machine.heard.insert(from, (self.now_ms, status));
                if is_news {
                    self.tell_facts(to);
                }
            }
            Due::Said { message, .. } => self.take_message(from, to, message),
            Due::FlowsComplete { .. } => {
                if let Some(control) = &mut self.machines[to].node.control {
                    control.told_all.insert(from);
                }
                self.tell_facts(to);
            }
            Due::Flows { datagram, .. } => self.take_flows(from, to, session, &datagram),
            Due::FlowsAcked { number, .. } => {
                let mut is_complete_now = false;
                if let Some(control) = &mut self.machines[to].node.control
                    && let Some(sender) = control.senders.get_mut(&from)
                {
                    let was_complete = sender.is_complete;
                    sender.acknowledged(number);
                    is_complete_now = sender.is_complete && !was_complete;
                }
                if is_complete_now {
                    self.tell_complete(to, from);
                }
            }
            _ => {}
        }
    }

    fn take_message(&mut self, from: usize, to: usize, message: Message) {
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

    fn take_flows(&mut self, from: usize, to: usize, session: u64, datagram: &flows::Datagram) {
        let node = &mut self.machines[to].node;
        let local_ms = node.clock.local_ms(self.now_ms);
        node.kernel.now_s = (local_ms / 1_000) as u32;
        let late_s = node.lateness_s(from, local_ms, datagram.sent_ms);
        for flow in &datagram.flows {
            // What has waited, here or there, is not news.
            let flow = flows::SharedFlow {
                remaining_s: flow.remaining_s - late_s,
                ..*flow
            };
            if let Some((place, entry)) = node.merge(&flow)
                && let Some(control) = &mut node.control
                && let Some(sender) = control.senders.get_mut(&from)
            {
                sender.note_agreed(place, entry);
            }
        }
        if let Some(delay_ms) = self.net.datagram(Path::Sync, to, from) {
            let due = Due::FlowsAcked {
                from: to,
                to: from,
                session,
                number: datagram.number,
            };
            self.agenda.push(self.now_ms + delay_ms, due);
        }
    }
}

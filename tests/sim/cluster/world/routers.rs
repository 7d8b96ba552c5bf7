//! VRRP processes: their packets, timers and announcements.

use std::array;
use std::net::IpAddr;

use lb_userspace::vrrp::protocol::{PeerFacts, PeerRouter, State};
use lb_userspace::vrrp::router::{Input, Output};

use super::super::links::HEARTBEAT_MS;
use super::super::net::Path;
use super::super::node::{GROUP_COUNT, group, name};
use super::super::rules::Rule;
use super::super::vips::{Outputs, Packet, Process, address, priority};
use super::{Due, NodeStatus, World};

/// A peer that says nothing for so long on the sync link is silent. Unit: milliseconds.
const SILENT_AFTER_MS: u64 = 3_000;
/// Longer than routers take to agree: a node that is behind waits for three Active_Down_Intervals of at most 4 s.
/// Unit: milliseconds.
const CALM_MS: u64 = 15_000;

impl World<'_> {
    /// A node's clock, as its VRRP process reads it. Unit: microseconds.
    pub(super) fn local_us(&self, number: usize) -> u64 {
        self.machines[number].node.clock.local_ms(self.now_ms) * 1_000
    }

    pub(super) fn start_vrrp(&mut self, number: usize) {
        let now_us = self.local_us(number);
        let mut process = Process::new(number, self.plan.interval_cs, &mut self.rng, now_us);
        let mut out = Outputs::default();
        process.begin(number, now_us, &mut out);
        self.machines[number].vrrp = Some(process);
        self.carry_out(number, out);
    }

    /// The process is killed, and its successor goes on at once.
    pub(super) fn restart_vrrp(&mut self, number: usize) {
        let now_us = self.local_us(number);
        let Some(old) = self.machines[number].vrrp.take() else {
            return;
        };
        let mut process = Process::new(number, self.plan.interval_cs, &mut self.rng, now_us);
        let mut out = Outputs::default();
        process.resume(number, old.states, now_us, &mut out);
        process.stopped_until_ms = old.stopped_until_ms;
        self.machines[number].vrrp = Some(process);
        self.carry_out(number, out);
    }

    /// What is due in a node's VRRP process; first what came in while it did not run.
    pub(super) fn tick_vrrp(&mut self, number: usize) {
        let (now_ms, now_us) = (self.now_ms, self.local_us(number));
        let Some(process) = &mut self.machines[number].vrrp else {
            return;
        };
        if !process.is_running(now_ms) {
            return;
        }
        let mut out = Outputs::default();
        let is_due = process.deadline().is_some_and(|due_us| now_us >= due_us);
        if process.stopped_until_ms > 0 {
            let late_us = process
                .deadline()
                .map_or(0, |due_us| now_us.saturating_sub(due_us));
            process.stopped_until_ms = 0;
            if late_us > u64::from(self.plan.interval_cs) * 10_000 {
                let overslept = Input::Overslept { by_us: late_us };
                process.handle(now_us, overslept, &mut out);
            }
        }
        for packet in std::mem::take(&mut process.waiting) {
            let received = Input::Received {
                source: address(packet.from),
                destination: packet.destination,
                hop_limit: 255,
                payload: &packet.payload,
            };
            process.handle(now_us, received, &mut out);
            if let Some(attacker) = &mut self.attacker {
                attacker.record_advert(number, &packet);
            }
        }
        if is_due {
            process.handle(now_us, Input::Timer, &mut out);
        }
        self.carry_out(number, out);
    }

    pub(super) fn take_advert(&mut self, to: usize, packet: Packet) {
        let now_ms = self.now_ms;
        if let Some(process) = &mut self.machines[to].vrrp {
            process.waiting.push(packet);
            if process.is_running(now_ms) {
                self.tick_vrrp(to);
            }
        }
    }

    pub(super) fn take_probe(&mut self, number: usize, address: IpAddr) {
        let (now_ms, now_us) = (self.now_ms, self.local_us(number));
        if let Some(process) = &mut self.machines[number].vrrp
            && process.is_running(now_ms)
        {
            let mut out = Outputs::default();
            process.handle(now_us, Input::ProbeAnswered { address }, &mut out);
            self.carry_out(number, out);
        }
    }

    pub(super) fn hand_over(&mut self) {
        let Some(number) = self.active(0).next() else {
            return;
        };
        let (now_ms, now_us) = (self.now_ms, self.local_us(number));
        if let Some(process) = &mut self.machines[number].vrrp
            && process.is_running(now_ms)
        {
            let mut out = Outputs::default();
            process.routers[0].handle(now_us, Input::HandOver, &mut out[0]);
            self.carry_out(number, out);
        }
    }

    pub(super) fn note_link_up(&mut self, number: usize) {
        let now_us = self.local_us(number);
        if let Some(process) = &mut self.machines[number].vrrp {
            let mut out = Outputs::default();
            process.handle(now_us, Input::LinkUp, &mut out);
            self.carry_out(number, out);
        }
    }

    /// Whether a node's leg is down is a fault of its router.
    pub(super) fn tell_condition(&mut self, number: usize) {
        let now_us = self.local_us(number);
        let is_down = self.net.lan_down.contains(&number);
        let fault = is_down.then_some("its interface is down");
        if let Some(process) = &mut self.machines[number].vrrp {
            let mut out = Outputs::default();
            process.tell_condition(number, now_us, fault, &mut out);
            self.carry_out(number, out);
        }
    }

    /// `lbd` tells its VRRP process what it knows.
    pub(super) fn tell_facts(&mut self, number: usize) {
        let (now_ms, now_us) = (self.now_ms, self.local_us(number));
        let machine = &self.machines[number];
        if machine.node.control.is_none() || now_ms < machine.stopped_until_ms {
            return;
        }
        let facts: Vec<PeerFacts> = machine
            .heard
            .iter()
            .map(|(peer, (at_ms, status))| PeerFacts {
                node: name(*peer),
                heard_ms: now_ms - at_ms,
                heartbeat_ms: HEARTBEAT_MS as u32,
                routers: status.routers.to_vec(),
            })
            .collect();
        let behind = self
            .behind(number)
            .or_else(|| self.out_of_touch(number))
            .filter(|_| self.rules.has(Rule::Barrier));
        if let Some(process) = &mut self.machines[number].vrrp
            && process.is_running(now_ms)
        {
            let mut out = Outputs::default();
            process.tell(now_us, &facts, behind.as_deref(), &mut out);
            self.carry_out(number, out);
        }
    }

    /// Why a node cannot know what its peers know, if so: it hears none of them.
    fn out_of_touch(&self, number: usize) -> Option<String> {
        let mut heard = self.machines[number].heard.iter();
        let is_any_heard = heard.any(|(peer, (at_ms, _))| {
            let is_fresh = self.now_ms <= at_ms + SILENT_AFTER_MS;
            is_fresh && self.links.up(number, *peer).is_some()
        });
        (!is_any_heard).then(|| "no peer is heard on the sync link".to_owned())
    }

    /// What a node says of itself.
    pub(super) fn status_of(&self, number: usize) -> NodeStatus {
        let process = self.machines[number].vrrp.as_ref();
        let is_fit = !self.net.lan_down.contains(&number);
        let router = |group_number: usize| {
            let state = process.map_or(State::Initialize, |one| one.states[group_number]);
            let (group, family) = group(group_number);
            PeerRouter {
                group,
                family,
                state,
                priority: if is_fit {
                    priority(number, group_number)
                } else {
                    0
                },
                is_fit: is_fit && state != State::Initialize,
            }
        };
        NodeStatus {
            routers: array::from_fn(router),
        }
    }

    /// The nodes that are Active in a group.
    pub(super) fn active(&self, group: usize) -> impl Iterator<Item = usize> {
        let machines = self.machines.iter().enumerate();
        machines
            .filter(move |(_, machine)| {
                let process = machine.vrrp.as_ref();
                machine.is_powered && process.is_some_and(|one| one.states[group] == State::Active)
            })
            .map(|(number, _)| number)
    }

    pub(super) fn count_active(&mut self) {
        let down = &self.net.lan_down;
        let count = |group| {
            let active = self.active(group);
            active.filter(|number| !down.contains(number)).count()
        };
        if (0..GROUP_COUNT).any(|group| count(group) > 1) {
            self.outcome.dual_active_ms += super::TICK_MS;
        }
    }

    /// Where nothing has befallen anybody for long, and advertisements arrive, each group has one Active node in each part of the clients' network
    /// whose nodes hear each other. That is looked at once for each such time.
    pub(super) fn check_calm(&mut self) {
        let is_lost = self.net.lan_loss > 0;
        if is_lost || self.is_calm_checked || self.now_ms < self.calm_since_ms + CALM_MS {
            return;
        }
        self.is_calm_checked = true;
        let parts = self.parts().unwrap_or_default();
        self.outcome.calm_count += u64::from(!parts.is_empty());
        for part in &parts {
            for group in 0..GROUP_COUNT {
                let active: Vec<usize> = self
                    .active(group)
                    .filter(|node| part.contains(node))
                    .collect();
                if active.len() != 1 {
                    let text = format!("of nodes {part:?}, {active:?} are Active in group {group}");
                    self.outcome.violate(self.now_ms - super::START_MS, text);
                }
            }
        }
    }

    /// The nodes in parts that hear each other in the clients' network. `None` while some hear others that do not hear
    /// them, or two that do not hear each other both hear a third one: no part has one Active then.
    fn parts(&self) -> Option<Vec<Vec<usize>>> {
        let takes_part = |number: &usize| {
            let machine = &self.machines[*number];
            let process = machine.vrrp.as_ref();
            let is_running = process.is_some_and(|one| one.is_running(self.now_ms));
            machine.is_powered && is_running && !self.net.lan_down.contains(number)
        };
        let nodes: Vec<usize> = (0..self.machines.len()).filter(takes_part).collect();
        let heard_by = |hearer: usize| -> Vec<usize> {
            let is_heard =
                |from: &usize| *from == hearer || self.net.is_open(Path::Lan, *from, hearer);
            nodes.iter().copied().filter(is_heard).collect()
        };
        let mut parts: Vec<Vec<usize>> = Vec::new();
        for node in &nodes {
            let heard = heard_by(*node);
            if heard.iter().any(|other| heard_by(*other) != heard) {
                return None;
            }
            if !parts.contains(&heard) {
                parts.push(heard);
            }
        }
        Some(parts)
    }

    pub(super) fn carry_out(&mut self, number: usize, outputs: Outputs) {
        for (group, outputs) in outputs.into_iter().enumerate() {
            for output in outputs {
                self.carry_out_one(number, group, output);
            }
        }
    }

    fn carry_out_one(&mut self, number: usize, group: usize, output: Output) {
        match output {
            Output::Send { to, payload } => self.multicast(number, to, &payload),
            // Nobody asks for the other VIP.
            Output::Announce(_) if group == 0 => self.announce(number),
            Output::Probe { address } => self.probe(number, address),
            Output::Changed { from, to, .. } => {
                if let Some(process) = &mut self.machines[number].vrrp {
                    process.states[group] = to;
                }
                self.tell_own_state(number);
                if from == State::Active {
                    self.give_flows_up(number);
                }
            }
            _ => {}
        }
    }

    fn multicast(&mut self, from: usize, destination: IpAddr, payload: &[u8]) {
        self.advert_count += 1;
        for to in 0..self.machines.len() {
            let is_meant = destination.is_multicast() || address(to) == destination;
            if to == from || !is_meant || !self.machines[to].is_powered {
                continue;
            }
            if let Some(delay_ms) = self.net.datagram(Path::Lan, from, to) {
                let packet = Packet {
                    from,
                    destination,
                    payload: payload.to_vec(),
                    number: self.advert_count,
                };
                let due = Due::Advert { to, packet };
                self.agenda.push(self.now_ms + delay_ms, due);
            }
        }
    }

    fn announce(&mut self, number: usize) {
        if !self.net.lan_down.contains(&number) && self.located != number {
            self.located = number;
            self.outcome.failover_count += 1;
        }
    }

    /// The kernel of a node answers, whatever its processes do.
    fn probe(&mut self, from: usize, address_asked: IpAddr) {
        let asked = (0..self.machines.len()).find(|number| address(*number) == address_asked);
        if let Some(asked) = asked
            && self.machines[asked].is_powered
            && self.net.is_open(Path::Lan, from, asked)
            && self.net.is_open(Path::Lan, asked, from)
        {
            let due = Due::Probed {
                node: from,
                address: address_asked,
            };
            self.agenda.push(self.now_ms + 2, due);
        }
    }
}

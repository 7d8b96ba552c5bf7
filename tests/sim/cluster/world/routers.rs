//! VRRP processes: their packets, timers and announcements.

use std::net::IpAddr;

use lb_userspace::vrrp::protocol::{PeerFacts, PeerRouter, State};
use lb_userspace::vrrp::router::{Input, Output};

use super::super::links::HEARTBEAT_MS;
use super::super::net::Path;
use super::super::node::{group, name};
use super::super::rules::Rule;
use super::super::vips::{Packet, Process, address, priority};
use super::{Due, NodeStatus, World};

/// A peer that says nothing for so long on the sync link is silent. Unit: milliseconds.
const SILENT_AFTER_MS: u64 = 3_000;

impl World<'_> {
    /// A node's clock, as its VRRP process reads it. Unit: microseconds.
    pub(super) fn local_us(&self, number: usize) -> u64 {
        self.machines[number].node.clock.local_ms(self.now_ms) * 1_000
    }

    pub(super) fn start_vrrp(&mut self, number: usize) {
        let now_us = self.local_us(number);
        let mut process = Process::new(number, self.plan.interval_cs, &mut self.rng, now_us);
        let mut out = Vec::new();
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
        let mut out = Vec::new();
        process.resume(number, old.state, now_us, &mut out);
        process.stopped_until_ms = old.stopped_until_ms;
        process.state = process.router.status(now_us, 0).state;
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
        let mut out = Vec::new();
        let is_due = process
            .router
            .deadline()
            .is_some_and(|due_us| now_us >= due_us);
        if process.stopped_until_ms > 0 {
            let late_us = process
                .router
                .deadline()
                .map_or(0, |due_us| now_us.saturating_sub(due_us));
            process.stopped_until_ms = 0;
            if late_us > u64::from(self.plan.interval_cs) * 10_000 {
                let overslept = Input::Overslept { by_us: late_us };
                process.router.handle(now_us, overslept, &mut out);
            }
        }
        for packet in std::mem::take(&mut process.waiting) {
            let received = Input::Received {
                source: address(packet.from),
                destination: packet.destination,
                hop_limit: 255,
                payload: &packet.payload,
            };
            process.router.handle(now_us, received, &mut out);
            if let Some(attacker) = &mut self.attacker {
                attacker.record_advert(number, &packet);
            }
        }
        if is_due {
            process.router.handle(now_us, Input::Timer, &mut out);
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
            let mut out = Vec::new();
            let answered = Input::ProbeAnswered { address };
            process.router.handle(now_us, answered, &mut out);
            self.carry_out(number, out);
        }
    }

    pub(super) fn hand_over(&mut self) {
        let Some(number) = self.active().next() else {
            return;
        };
        let (now_ms, now_us) = (self.now_ms, self.local_us(number));
        if let Some(process) = &mut self.machines[number].vrrp
            && process.is_running(now_ms)
        {
            let mut out = Vec::new();
            process.router.handle(now_us, Input::HandOver, &mut out);
            self.carry_out(number, out);
        }
    }

    pub(super) fn note_link_up(&mut self, number: usize) {
        let now_us = self.local_us(number);
        if let Some(process) = &mut self.machines[number].vrrp {
            let mut out = Vec::new();
            process.router.handle(now_us, Input::LinkUp, &mut out);
            self.carry_out(number, out);
        }
    }

    /// Whether a node's leg is down is a fault of its router.
    pub(super) fn tell_condition(&mut self, number: usize) {
        let now_us = self.local_us(number);
        let is_down = self.net.lan_down.contains(&number);
        let mut condition = lb_userspace::vrrp::priority::Condition::well(priority(number));
        if is_down {
            condition.faults.push("its interface is down".to_owned());
            condition.priority = 0;
        }
        if let Some(process) = &mut self.machines[number].vrrp {
            let mut out = Vec::new();
            process
                .router
                .handle(now_us, Input::Condition(&condition), &mut out);
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
                routers: vec![status.router.clone()],
            })
            .collect();
        let behind = self
            .behind(number)
            .or_else(|| self.out_of_touch(number))
            .filter(|_| self.rules.has(Rule::Barrier));
        if let Some(process) = &mut self.machines[number].vrrp
            && process.is_running(now_ms)
        {
            let mut out = Vec::new();
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
        let state = self.machines[number]
            .vrrp
            .as_ref()
            .map_or(State::Initialize, |process| process.state);
        let is_fit = !self.net.lan_down.contains(&number);
        NodeStatus {
            router: PeerRouter {
                group: group().0,
                family: group().1,
                state,
                priority: if is_fit { priority(number) } else { 0 },
                is_fit: is_fit && state != State::Initialize,
            },
        }
    }

    /// The nodes that are Active.
    pub(super) fn active(&self) -> impl Iterator<Item = usize> {
        let machines = self.machines.iter().enumerate();
        machines
            .filter(|(_, machine)| {
                let process = machine.vrrp.as_ref();
                machine.is_powered && process.is_some_and(|one| one.state == State::Active)
            })
            .map(|(number, _)| number)
    }

    pub(super) fn count_active(&mut self) {
        let down = &self.net.lan_down;
        let count = self
            .active()
            .filter(|number| !down.contains(number))
            .count();
        if count > 1 {
            self.outcome.dual_active_ms += super::TICK_MS;
        }
    }

    pub(super) fn carry_out(&mut self, number: usize, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { to, payload } => self.multicast(number, to, &payload),
                Output::Announce(_) => self.announce(number),
                Output::Probe { address } => self.probe(number, address),
                Output::Changed { from, to, .. } => {
                    if let Some(process) = &mut self.machines[number].vrrp {
                        process.state = to;
                    }
                    self.tell_own_state(number);
                    if from == State::Active {
                        self.give_flows_up(number);
                    }
                }
                _ => {}
            }
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

//! Doing what the machines say.

use std::collections::BTreeSet;
use std::net::IpAddr;

use tracing::{debug, info, warn};

use super::clock;
use super::driver::Driver;
use super::run::Run;
use super::{vips, virtual_mac};
use crate::vrrp::protocol::{Family, FromVrrp, Place, State};
use crate::vrrp::router::{HandOverError, Handed, Input, Outcome, Output};

/// A request to hand a group over, until all its routers have answered.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) client: u64,
    pub(super) number: u64,
    /// Routers that have not answered.
    pub(super) waiting: usize,
    pub(super) texts: Vec<String>,
    pub(super) errors: Vec<String>,
}

impl Request {
    /// What was not done, and what was all the same: of two families, one may go and the other not.
    fn error(&self) -> Option<String> {
        let errors = self.errors.join("; ");
        match (self.errors.is_empty(), self.texts.is_empty()) {
            (true, _) => None,
            (false, true) => Some(errors),
            (false, false) => Some(format!(
                "{errors}; done all the same: {}",
                self.texts.join("; ")
            )),
        }
    }
}

impl Driver {
    /// Tells a machine what has happened, and does what it says.
    pub(super) fn feed(&mut self, index: usize, now_us: u64, input: Input<'_>) {
        let mut outputs = Vec::new();
        let Some(run) = self.runs.get_mut(index) else {
            return;
        };
        run.machine.handle(now_us, input, &mut outputs);
        self.perform(index, now_us, outputs);
    }

    /// Does what a machine says, in its order.
    pub(super) fn perform(&mut self, index: usize, now_us: u64, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Send { to, payload } => self.send(index, to, &payload),
                Output::AddVips(vips) => self.add_vips(index, &vips),
                Output::RemoveVips(vips) => self.remove_vips(index, &vips),
                Output::Announce(vips) => self.announce(index, &vips),
                Output::Probe { address } => self.probe(index, address),
                Output::Changed { from, to, reason } => self.note_change(index, from, to, &reason),
                Output::HandedOver(result) => self.note_hand_over(index, result),
                Output::Stopped => self.note_stopped(index),
                Output::Conflict { .. }
                | Output::Disputed(_)
                | Output::AddressesDiffer { .. }
                | Output::Distrusted { .. }
                | Output::Refused { .. } => {
                    self.note_quarrel(index, now_us, &output);
                }
            }
        }
    }

    /// What the VIPs of a router go onto: its device, or its interface.
    pub(super) fn place(&self, index: usize) -> Option<Place> {
        let run = self.runs.get(index)?;
        if run.group.virtual_mac {
            let device = run.device.as_ref()?;
            return Some(Place {
                interface: device.name.clone(),
                ifindex: device.ifindex,
            });
        }
        let port = self.ports.get(&run.group.interface)?;
        Some(Place {
            interface: run.group.interface.clone(),
            ifindex: port.port.ifindex,
        })
    }

    fn send(&mut self, index: usize, to: IpAddr, payload: &[u8]) {
        let Some(run) = self.runs.get(index) else {
            return;
        };
        let source = run.machine.config().source;
        let sent = if run.group.virtual_mac && to.is_multicast() {
            self.send_frame(index, source, to, payload)
        } else {
            match self.ports.voice(&run.group.interface, run.family) {
                None => Err("there is no socket".to_owned()),
                Some(voice) => {
                    let sent = voice.adverts.send(source, to, payload);
                    sent.map_err(|error| error.to_string())
                }
            }
        };
        let Some(run) = self.runs.get_mut(index) else {
            return;
        };
        let is_active = run.machine.state() == State::Active;
        let trouble = sent.err();
        if let (Some(text), true) = (&trouble, trouble != run.send_trouble) {
            warn!("{}: cannot send to {to}: {text}", run.name());
        }
        let is_sent = trouble.is_none();
        run.send_trouble = trouble;
        if is_sent && is_active {
            self.memory.note_alive(clock::boottime_us());
        }
    }

    fn send_frame(
        &self,
        index: usize,
        source: IpAddr,
        to: IpAddr,
        payload: &[u8],
    ) -> Result<(), String> {
        let run = self.runs.get(index).ok_or("it is gone")?;
        let port = self
            .ports
            .get(&run.group.interface)
            .ok_or("there is no interface")?;
        let packets = self.packets.as_ref().ok_or("there is no packet socket")?;
        let link = virtual_mac::address(run.family, run.group.vrid);
        let frame = virtual_mac::frame(link, source, to, payload).ok_or("it fits in no frame")?;
        let sent = packets.send(port.port.ifindex, &frame);
        sent.map_err(|error| error.to_string())
    }

    fn add_vips(&mut self, index: usize, vips: &[IpAddr]) {
        let began_us = clock::monotonic_us();
        let Some(place) = self.place(index) else {
            return;
        };
        if let Some(run) = self.runs.get_mut(index) {
            run.has_leftovers = false;
        }
        // The datapath serves the VIPs already. Adding them may have to wait for the kernel's one lock on all that
        // is network configuration (up to 88 ms were seen on a busy node), which must not keep the VIPs dark. The
        // machine has them announced again as soon as they are there, and this node answers whoever asks.
        self.announce(index, vips);
        self.raise_device(index);
        // Whether the node accepts what is for no service is the datapath's business: the address is needed for
        // ARP and neighbour discovery in any case.
        let memory = &mut self.memory;
        let save = |record: &_| memory.save(record);
        let outcome = vips::add(&mut self.netlink, &mut self.record, &place, vips, save);
        self.note_added(index, began_us, &outcome);
        let took_us = clock::monotonic_us().saturating_sub(began_us);
        debug!(
            took_us,
            interface = place.interface,
            "{} VIPs added",
            vips.len()
        );
    }

    fn remove_vips(&mut self, index: usize, vips: &[IpAddr]) {
        let Some(run) = self.runs.get_mut(index) else {
            return;
        };
        run.has_leftovers = false;
        let is_active = run.machine.state() == State::Active;
        // A reload may have given them to another group.
        let held = self.held_by_others(index);
        let (kept, gone): (Vec<IpAddr>, _) = vips.iter().partition(|vip| held.contains(vip));
        if !kept.is_empty() {
            let name = self.runs.get(index).map(Run::name).unwrap_or_default();
            info!("{name}: another group of this node has {kept:?} now");
        }
        vips::remove(&mut self.netlink, &mut self.record, &gone);
        if !is_active {
            self.lower_device(index);
        }
        self.is_record_dirty = true;
    }

    /// The VIPs that other routers have, by the configuration from now on: those that are Active, and those that have
    /// just begun and find theirs here.
    fn held_by_others(&self, index: usize) -> BTreeSet<IpAddr> {
        let others = self.runs.iter().enumerate();
        let holders = others
            .filter(|(other, _)| *other != index)
            .map(|(_, run)| run)
            .filter(|run| run.machine.state() == State::Active || run.has_leftovers);
        let groups = &self.record.configuration.groups;
        let vips = holders.flat_map(|run| {
            let group = groups.iter().find(|group| run.is_for(group, run.family));
            let vips = group
                .into_iter()
                .flat_map(|group| group.vips.iter().copied());
            vips.filter(|vip| Family::of(*vip) == run.family)
        });
        vips.collect()
    }

    fn announce(&mut self, index: usize, vips: &[IpAddr]) {
        let began_us = clock::monotonic_us();
        let Some(run) = self.runs.get(index) else {
            return;
        };
        let (Some(port), Some(packets)) = (self.ports.get(&run.group.interface), &self.packets)
        else {
            return;
        };
        let link = match run.group.virtual_mac {
            true => Some(virtual_mac::address(run.family, run.group.vrid)),
            false => port.port.link.address,
        };
        // What has no Ethernet address has nobody to tell.
        let Some(link) = link else { return };
        for vip in vips {
            if let Err(error) = packets.announce(port.port.ifindex, link, *vip) {
                debug!("{error:#}");
            }
        }
        let took_us = clock::monotonic_us().saturating_sub(began_us);
        debug!(took_us, "{}: {} VIPs announced", run.name(), vips.len());
    }

    fn probe(&mut self, index: usize, address: IpAddr) {
        let Some(run) = self.runs.get(index) else {
            return;
        };
        let source = run.machine.config().source;
        let probe = self.ports.probe(&run.group.interface, run.family);
        let asked = probe.and_then(|found| match found {
            Some((probe, port)) => match port.link.address {
                Some(link) => probe.ask(link, source, address),
                None => Ok(()),
            },
            None => Ok(()),
        });
        if let Err(error) = asked {
            debug!("{}: cannot ask for {address}: {error}", run.name());
        }
    }

    fn note_change(&mut self, index: usize, from: State, to: State, reason: &str) {
        if let Some(run) = self.runs.get(index) {
            info!("{}: {from:?} -> {to:?}: {reason}", run.name());
        }
        self.is_record_dirty = true;
        self.is_status_dirty = true;
        self.are_ears_stale = true;
    }

    fn note_hand_over(&mut self, index: usize, result: Result<Handed, HandOverError>) {
        let Some(run) = self.runs.get_mut(index) else {
            return;
        };
        let (name, asked_by) = (run.name(), run.asked_by.take());
        let told = match &result {
            Ok(handed) => {
                let after_ms = handed.after_us as f64 / 1e3;
                info!(
                    "{name}: handed over to {} after {after_ms:.1} ms",
                    handed.to
                );
                Ok(format!(
                    "{name}: handed over to {} after {after_ms:.1} ms",
                    handed.to
                ))
            }
            Err(error) => {
                info!("{name}: not handed over: {error}");
                Err(format!("{name}: {error}"))
            }
        };
        let request = self
            .requests
            .iter_mut()
            .find(|request| asked_by == Some((request.client, request.number)));
        let Some(request) = request else { return };
        match told {
            Ok(text) => request.texts.push(text),
            Err(error) => request.errors.push(error),
        }
        request.waiting = request.waiting.saturating_sub(1);
        self.answer_requests();
    }

    /// Answers those requests that nothing more is to come for.
    pub(super) fn answer_requests(&mut self) {
        let (done, waiting) = std::mem::take(&mut self.requests)
            .into_iter()
            .partition(|request| request.waiting == 0);
        self.requests = waiting;
        for request in done {
            let answer = FromVrrp::Answer {
                request: request.number,
                error: request.error(),
                text: request.texts.join("; "),
            };
            self.control.tell(request.client, &answer);
        }
    }

    fn note_stopped(&mut self, index: usize) {
        if let Some(run) = self.runs.get_mut(index) {
            run.is_stopped = true;
        }
        self.is_record_dirty = true;
        self.is_status_dirty = true;
    }

    fn note_quarrel(&mut self, index: usize, now_us: u64, output: &Output) {
        let Some(run) = self.runs.get_mut(index) else {
            return;
        };
        let name = run.name();
        match output {
            Output::Conflict {
                with,
                priority,
                outcome,
            } => {
                let with = with.map_or_else(|| "another node".to_owned(), |with| with.to_string());
                let what = match outcome {
                    Outcome::Won => "this node stays Active",
                    Outcome::Lost => "this node has withdrawn",
                };
                warn!("{name}: {with} (priority {priority}) was Active, too: {what}");
            }
            Output::Disputed(claim) => {
                let (by, vip) = (claim.by_text(), claim.vip);
                warn!("{name}: {by} claims {vip}, which is Active here: announcing it again");
                self.is_status_dirty = true;
            }
            Output::AddressesDiffer { source, addresses } => {
                warn!("{name}: {source} has other VIPs: {addresses:?}");
            }
            Output::Distrusted { source, why } => {
                warn!("{name}: {}", why.about(*source));
                self.is_status_dirty = true;
            }
            Output::Refused { source, reason } => {
                if let Some(count) = run.refusals.note(now_us) {
                    info!("{name}: {count} packets refused, the last one from {source}: {reason}");
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_hand_over_that_is_done_in_part_both_parts_are_told() {
        let mut request = Request {
            client: 1,
            number: 1,
            waiting: 0,
            texts: vec!["web/ipv4: handed over".to_owned()],
            errors: Vec::new(),
        };
        assert_eq!(request.error(), None);
        request.errors.push("web/ipv6: nobody is there".to_owned());
        let told = "web/ipv6: nobody is there; done all the same: web/ipv4: handed over";
        assert_eq!(request.error().as_deref(), Some(told));
        request.texts.clear();
        assert_eq!(
            request.error().as_deref(),
            Some("web/ipv6: nobody is there")
        );
    }
}

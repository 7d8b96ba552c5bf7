//! What the machines are told of the world around them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;

use tracing::{info, warn};

use super::clock;
use super::condition::{self, Known};
use super::driver::Driver;
use super::ports::{self, Wanted};
use super::run::{families, router_config};
use crate::pins::pinned_interfaces;
use crate::vrrp::protocol::{Facts, Family, State, Tracked};
use crate::vrrp::router::Input;

/// Facts are sent with every heartbeat, each 10 s at the longest; older ones are those of an `lbd` that hangs.
/// Unit: microseconds.
const FACTS_LIFETIME_US: u64 = 15_000_000;

/// Why a node counts as behind whose `lbd` has yet to say something.
const UNTOLD: &str = "lbd has not said yet whether this node has caught up with its peers";
/// The same of one whose `lbd` has gone or hangs: rings and flows go on without it.
const SILENT: &str = "lbd does not run, or hangs: what the peers know does not come here";

impl Driver {
    /// The interfaces that matter to the routers at present.
    pub(super) fn wanted(&self) -> Wanted {
        let mut wanted = Wanted::default();
        for run in &self.runs {
            let of_interface = wanted.families.entry(run.group.interface.clone());
            of_interface.or_default().insert(run.family);
            let tracked = run
                .group
                .tracks
                .iter()
                .filter_map(|track| match &track.what {
                    Tracked::Interface(name) => Some(name.clone()),
                    Tracked::Service { .. } => None,
                });
            wanted.tracked.extend(tracked);
        }
        wanted
    }

    /// All VIPs: none of them is an address to send from.
    pub(super) fn all_vips(&self) -> BTreeSet<IpAddr> {
        let groups = self.record.configuration.groups.iter();
        let configured = groups.flat_map(|group| group.vips.iter().copied());
        configured.chain(self.record.vips.keys().copied()).collect()
    }

    /// What each router sends from; empty for those that have nothing, with the reason in words.
    fn sources(&self) -> BTreeMap<(String, Family), Result<IpAddr, String>> {
        let vips = self.all_vips();
        let mut sources = BTreeMap::new();
        for group in &self.record.configuration.groups {
            let Some(port) = self.ports.get(&group.interface) else {
                continue;
            };
            for family in families(group) {
                let mut runs = self.runs.iter();
                let run = runs.find(|run| {
                    run.family == family && run.group.name == group.name && !run.is_leaving
                });
                let present = run.map(|run| run.machine.config().source);
                let source = ports::source(group, family, &port.addresses, &vips, present);
                sources.insert((group.name.clone(), family), source);
            }
        }
        sources
    }

    /// Tells the machines what they send from, where that has changed.
    pub(super) fn take_sources(&mut self, now_us: u64) {
        let sources = self.sources();
        for index in 0..self.runs.len() {
            let Some(run) = self.runs.get(index).filter(|run| !run.is_leaving) else {
                continue;
            };
            let source = sources.get(&(run.group.name.clone(), run.family));
            // An interface that is gone for a moment is no reason to change anything: the router is in fault.
            let Some(Ok(source)) = source else { continue };
            if run.machine.config().source == *source {
                continue;
            }
            info!("{}: sending from {source}", run.name());
            let config = router_config(
                &self.record.configuration,
                &run.group,
                run.family,
                Some(*source),
            );
            self.reconfigure_run(index, now_us, config);
        }
    }

    /// Tells the machines how well they are, where that has changed.
    pub(super) fn tell_conditions(&mut self, now_us: u64) {
        let sources = self.sources();
        for index in 0..self.runs.len() {
            let Some(run) = self.runs.get(index) else {
                continue;
            };
            let source = sources.get(&(run.group.name.clone(), run.family));
            let mut voice_trouble = source.and_then(|source| source.clone().err());
            if self.ports.voice(&run.group.interface, run.family).is_none() {
                let trouble = format!("{} cannot be listened on", run.group.interface);
                voice_trouble = voice_trouble.or(Some(trouble));
            }
            if run.group.virtual_mac && run.device.is_none() {
                let trouble = "there is no device for the virtual MAC".to_owned();
                voice_trouble = voice_trouble.or(Some(trouble));
            }
            let known = Known {
                links: &self.ports.links,
                facts: self.facts.as_ref().map(|(facts, _)| facts),
                unwell: self.word(now_us).map(|facts| &facts.unwell),
                datapath_trouble: self.datapath_trouble.as_deref(),
                voice_trouble: voice_trouble.as_deref(),
            };
            let condition = condition::of_group(&run.group, known);
            if run.condition.as_ref() == Some(&condition) {
                continue;
            }
            self.is_status_dirty = true;
            if let Some(run) = self.runs.get_mut(index) {
                run.condition = Some(condition.clone());
            }
            self.feed(index, now_us, Input::Condition(&condition));
        }
    }

    /// Takes what `lbd` knows.
    pub(super) fn take_facts(&mut self, now_us: u64, facts: Facts) {
        let peers = facts.peers.clone();
        self.facts = Some((facts, now_us));
        self.tell_behind(now_us);
        for index in 0..self.runs.len() {
            self.feed(index, now_us, Input::PeerFacts(&peers));
        }
        self.look_at_datapath(now_us);
        self.tell_conditions(now_us);
    }

    /// What `lbd` knows; `None` once it has gone, or hangs.
    fn word(&self, now_us: u64) -> Option<&Facts> {
        let (facts, heard_us) = self.facts.as_ref()?;
        let is_fresh = now_us < heard_us + FACTS_LIFETIME_US;
        (is_fresh && self.control.has_master()).then_some(facts)
    }

    /// Why this node has not caught up with its peers, if so: without `lbd` it falls behind. One that is Active stays so.
    pub(super) fn behind(&self, now_us: u64) -> Option<String> {
        match self.word(now_us) {
            Some(facts) => facts.behind.clone(),
            None if self.facts.is_none() => Some(UNTOLD.to_owned()),
            None => Some(SILENT.to_owned()),
        }
    }

    /// Tells the machines whether this node has caught up, where that has changed.
    pub(super) fn tell_behind(&mut self, now_us: u64) {
        let behind = self.behind(now_us);
        if self.told_behind.as_ref() == Some(&behind) {
            return;
        }
        for index in 0..self.runs.len() {
            self.feed(index, now_us, Input::Behind(behind.as_deref()));
        }
        self.told_behind = Some(behind);
    }

    /// Whether the datapath can serve: `lbd` knows best; without it, what it has pinned tells.
    pub(super) fn look_at_datapath(&mut self, now_us: u64) {
        let trouble = match self.word(now_us) {
            Some(facts) => facts.datapath_trouble.clone(),
            None => self.missing_datapath(),
        };
        if trouble != self.datapath_trouble {
            match &trouble {
                Some(trouble) => warn!("the datapath cannot serve: {trouble}"),
                None => info!("the datapath serves"),
            }
            self.datapath_trouble = trouble;
        }
    }

    fn missing_datapath(&mut self) -> Option<String> {
        let pins = self.record.configuration.pins.clone()?;
        let interfaces = match pinned_interfaces(Path::new(&pins)) {
            Ok(interfaces) => interfaces,
            Err(error) => return Some(format!("cannot read {pins}: {error}")),
        };
        let groups = &self.record.configuration.groups;
        let mut attached_count = 0;
        for name in interfaces {
            match self.netlink.port(&name) {
                Ok(Some(port)) if port.xdp_program.is_some() => attached_count += 1,
                // Another interface than a group's takes packets of its own: it is not judged here.
                Ok(Some(_)) if groups.iter().any(|group| group.interface == name) => {
                    return Some(format!("no XDP program is on {name}"));
                }
                Ok(_) => {}
                Err(error) => return Some(format!("cannot look at {name}: {error}")),
            }
        }
        (attached_count == 0).then(|| "no datapath is attached".to_owned())
    }

    /// VIPs that a former process has left stay, so that nothing is dark, until it is certain that this node is
    /// not to have them.
    pub(super) fn clear_leftovers(&mut self, index: usize, now_us: u64) {
        let Some(run) = self.runs.get_mut(index) else {
            return;
        };
        if !run.has_leftovers {
            return;
        }
        let status = run.machine.status(now_us, clock::unix_ms());
        let is_elsewhere = match status.state {
            State::Active => false,
            State::Backup => status.active.is_some(),
            State::Initialize => run.condition.as_ref().is_some_and(|one| one.is_fault()),
        };
        if is_elsewhere {
            info!("{}: the VIPs of a former process are removed", run.name());
            self.perform(
                index,
                now_us,
                vec![crate::vrrp::router::Output::RemoveVips(status.vips)],
            );
        }
    }
}

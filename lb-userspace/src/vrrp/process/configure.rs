//! From a configuration to routers that run, and from a former process to this one.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::IpAddr;

use tracing::{info, warn};

use super::check::{self, Nonsense};
use super::clock;
use super::driver::Driver;
use super::memory::SavedRouter;
use super::run::{Run, families, router_config};
use super::{leftovers, vips};
use crate::vrrp::machine::Router;
use crate::vrrp::protocol::{Configuration, Family, Group, State};
use crate::vrrp::router::{Input, RouterConfig, Saved};

/// What a former process has left of a router.
#[derive(Clone, Copy, Debug)]
struct Inheritance {
    saved: Saved,
    age_us: u64,
}

impl Driver {
    /// Goes on where a former process has ended. If that is too long ago for any router, only what it has put onto
    /// interfaces is taken over, and what to do is for `lbd` to say.
    ///
    /// # Errors
    /// If the kernel gives no random numbers.
    pub(super) fn inherit(&mut self, now_us: u64) -> io::Result<()> {
        let legacy = self.memory.legacy(&self.record.boot, clock::boottime_us());
        self.record.vips = legacy.record.vips;
        self.record.macvlans = legacy.record.macvlans;
        self.record.settings = legacy.record.settings;
        let configuration = legacy.record.configuration;
        // However long ago: an order holds until it is taken back.
        let routers = legacy.record.routers.iter();
        self.yielding = routers
            .filter(|router| router.saved.yields)
            .map(|router| (router.group.clone(), router.family))
            .collect();
        let Some(age_us) = legacy.age_us else {
            return Ok(());
        };
        let longest_cs = configuration
            .groups
            .iter()
            .map(|group| group.interval_cs)
            .max();
        let fresh_us = 3 * u64::from(longest_cs.unwrap_or(0)) * 10_000;
        if age_us >= fresh_us || check::check(&configuration).is_err() {
            info!(
                "the former process ended {} ms ago: nothing is resumed",
                age_us / 1000
            );
            return Ok(());
        }
        info!(
            "going on where a former process ended {} ms ago",
            age_us / 1000
        );
        let former: BTreeMap<(String, Family), Inheritance> = legacy
            .record
            .routers
            .into_iter()
            .map(|router| {
                let saved = router.saved;
                ((router.group, router.family), Inheritance { saved, age_us })
            })
            .collect();
        self.take_configuration(now_us, configuration, &former)
    }

    /// Does from now on what a configuration says.
    ///
    /// # Errors
    /// [`Nonsense`]: the former one holds.
    pub(super) fn configure(
        &mut self,
        now_us: u64,
        configuration: Configuration,
    ) -> Result<(), Nonsense> {
        check::check(&configuration)?;
        if self.is_stopping() {
            return Ok(());
        }
        let is_known = configuration == self.record.configuration;
        if is_known && self.runs.iter().any(|run| !run.is_leaving) {
            return Ok(());
        }
        let adopted = self.adopt(&configuration);
        if let Err(error) = self.take_configuration(now_us, configuration, &BTreeMap::new()) {
            warn!("cannot begin: {error}");
        }
        self.leave_for_now(&adopted);
        Ok(())
    }

    /// Takes over what `lbd` has added itself. That is on disk before anybody is told, and before a router acts.
    fn adopt(&mut self, configuration: &Configuration) -> BTreeSet<IpAddr> {
        let adopted = vips::adopt(&mut self.record, configuration);
        for vip in &adopted {
            info!("VIP {vip}, which lbd has added, moves between nodes from now on");
        }
        if !adopted.is_empty() {
            // A successor must not take them for those of no group.
            self.record.configuration = configuration.clone();
            self.memory.save(&self.record);
        }
        adopted
    }

    /// What was taken over stays where it is, until it is certain that this node is not to have it.
    fn leave_for_now(&mut self, adopted: &BTreeSet<IpAddr>) {
        for run in self.runs.iter_mut().filter(|run| !run.is_leaving) {
            let has_any = run.group.vips.iter().any(|vip| adopted.contains(vip));
            run.has_leftovers |= has_any && run.machine.state() != State::Active;
        }
    }

    fn take_configuration(
        &mut self,
        now_us: u64,
        configuration: Configuration,
        former: &BTreeMap<(String, Family), Inheritance>,
    ) -> io::Result<()> {
        self.record.configuration = configuration;
        self.is_record_dirty = true;
        self.is_status_dirty = true;
        let fresh = self.add_runs()?;
        if former.is_empty() {
            self.leave_to(&fresh);
        }
        self.end_others(now_us);
        self.remove_strangers();
        // Sources and conditions of all; those that are new have not begun yet.
        self.refresh(now_us);
        self.reconfigure_all(now_us);
        self.tell_conditions(now_us);
        for index in fresh {
            self.begin(index, now_us, former);
        }
        // A group that is not there now, and comes later, is another one.
        self.yielding.clear();
        Ok(())
    }

    /// VIPs that other routers of this node have on the same interface stay where they are for those that come: where a
    /// group gets another name, and no peer is there to take them meanwhile, they would be nowhere for three intervals.
    fn leave_to(&mut self, fresh: &[usize]) {
        let record_vips = &self.record.vips;
        for index in fresh {
            let Some(run) = self.runs.get_mut(*index) else {
                continue;
            };
            let interface = &run.group.interface;
            let mut places = run.group.vips.iter().filter_map(|vip| record_vips.get(vip));
            run.has_leftovers = places.any(|place| place.interface == *interface);
        }
    }

    fn groups(&self) -> Vec<(Group, Family)> {
        let groups = self.record.configuration.groups.iter();
        groups
            .flat_map(|group| families(group).map(|family| (group.clone(), family)))
            .collect()
    }

    /// Routers that are no longer wanted, or are another one now.
    fn end_others(&mut self, now_us: u64) {
        let groups = self.groups();
        for index in 0..self.runs.len() {
            let is_wanted = self.runs.get(index).is_some_and(|run| {
                groups
                    .iter()
                    .any(|(group, family)| run.is_for(group, *family))
            });
            if !is_wanted {
                self.end_run(index, now_us);
            }
        }
    }

    /// VIPs of ours that no group has any more.
    fn remove_strangers(&mut self) {
        let configured = self.record.configuration.groups.iter();
        let mut kept: BTreeSet<IpAddr> = configured
            .flat_map(|group| group.vips.iter().copied())
            .collect();
        // Those that are being handed over are removed when that is done.
        for run in self.runs.iter().filter(|run| run.is_leaving) {
            kept.extend(&run.group.vips);
        }
        vips::remove_others(&mut self.netlink, &mut self.record, &kept);
    }

    /// A run for each router that has none; returns where they are.
    fn add_runs(&mut self) -> io::Result<Vec<usize>> {
        let mut fresh = Vec::new();
        for (group, family) in self.groups() {
            if self.runs.iter().any(|run| run.is_for(&group, family)) {
                continue;
            }
            let config = router_config(&self.record.configuration, &group, family, None);
            let machine = Router::new(config, clock::session()?, clock::monotonic_us());
            fresh.push(self.runs.len());
            self.runs.push(Run::new(group, family, machine));
        }
        Ok(fresh)
    }

    fn reconfigure_all(&mut self, now_us: u64) {
        for (group, family) in self.groups() {
            let found = self.runs.iter().position(|run| run.is_for(&group, family));
            let Some(index) = found else { continue };
            let Some(run) = self.runs.get_mut(index) else {
                continue;
            };
            let source = run.machine.config().source;
            let config = router_config(&self.record.configuration, &group, family, Some(source));
            run.group = group;
            if *run.machine.config() != config {
                self.reconfigure_run(index, now_us, config);
            }
        }
    }

    /// Gives a machine another configuration of the same virtual router.
    pub(super) fn reconfigure_run(&mut self, index: usize, now_us: u64, config: RouterConfig) {
        let session = match clock::session() {
            Ok(session) => session,
            Err(error) => {
                warn!("a change of the configuration waits: {error}");
                return;
            }
        };
        let mut outputs = Vec::new();
        let Some(run) = self.runs.get_mut(index) else {
            return;
        };
        run.machine
            .reconfigure(now_us, config, session, &mut outputs);
        // The priority may be another one: it is told anew.
        run.condition = None;
        self.are_ears_stale = true;
        self.perform(index, now_us, outputs);
    }

    /// A router's first word: it resumes what a former process had, or starts.
    fn begin(
        &mut self,
        index: usize,
        now_us: u64,
        former: &BTreeMap<(String, Family), Inheritance>,
    ) {
        let behind = self.behind(now_us);
        self.feed(index, now_us, Input::Behind(behind.as_deref()));
        if let Some((facts, heard_us)) = &self.facts {
            let mut peers = facts.peers.clone();
            for peer in &mut peers {
                peer.heard_ms += now_us.saturating_sub(*heard_us) / 1000;
            }
            self.feed(index, now_us, Input::PeerFacts(&peers));
        }
        let record_vips = &self.record.vips;
        let Some(run) = self.runs.get_mut(index) else {
            return;
        };
        let key = (run.group.name.clone(), run.family);
        let interval_us = run.machine.config().interval_us();
        let inherited = former.get(&key).filter(|one| one.age_us < 3 * interval_us);
        match inherited {
            Some(Inheritance { saved, age_us }) => {
                let mut outputs = Vec::new();
                run.machine.resume(now_us, *saved, *age_us, &mut outputs);
                self.perform(index, now_us, outputs);
            }
            None => {
                let vips = &run.group.vips;
                run.has_leftovers = vips.iter().any(|vip| record_vips.contains_key(vip));
                if self.yielding.remove(&key) {
                    run.machine.yield_to_others();
                }
                self.feed(index, now_us, Input::Startup);
            }
        }
    }

    /// Writes down what a successor needs.
    pub(super) fn save(&mut self) {
        let routers = self.runs.iter().filter(|run| !run.is_leaving);
        self.record.routers = routers
            .map(|run| SavedRouter {
                group: run.group.name.clone(),
                family: run.family,
                saved: run.machine.saved(),
            })
            .collect();
        self.is_record_dirty = false;
        self.memory.save(&self.record);
    }

    /// Removes everything that is on interfaces because of us.
    pub(super) fn leave_nothing(&mut self) {
        leftovers::remove_all(&mut self.netlink, &mut self.record);
        let was_active = self
            .runs
            .iter()
            .any(|run| run.machine.state() == State::Active);
        if was_active {
            warn!("the wait for a hand-over was given up");
        }
        self.memory.remove();
    }
}

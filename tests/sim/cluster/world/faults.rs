//! What befalls backends, nodes and networks.

use super::super::plan::{Action, Fault};
use super::super::rules::Rule;
use super::{Due, World};
use crate::client::Phase;
use crate::config::{Admin, BackendConfig};
use crate::history;

/// What a health check takes to notice. Unit: milliseconds.
const NOTICE_MS: u64 = 1_000;
/// The most that nodes differ in when they notice. Unit: milliseconds.
const LAG_MAX_MS: u64 = 400;

impl World<'_> {
    pub(super) fn happen(&mut self, number: usize) {
        match self.plan.events[number].action {
            Action::Fault(fault) => self.befall(fault),
            Action::Backend(history::Action::Die(backend)) => {
                self.die(backend);
                self.agenda
                    .push(self.now_ms + NOTICE_MS, Due::Noticed(number));
            }
            Action::Backend(history::Action::Revive(backend)) => {
                self.is_alive[backend] = true;
                self.agenda
                    .push(self.now_ms + NOTICE_MS, Due::Noticed(number));
            }
            Action::Backend(action) => self.change(action),
        }
    }

    pub(super) fn notice(&mut self, number: usize) {
        match self.plan.events[number].action {
            Action::Backend(history::Action::Die(backend)) if !self.is_alive[backend] => {
                self.change(history::Action::FalseDown(backend));
            }
            Action::Backend(history::Action::Revive(backend)) => {
                self.change(history::Action::Up(backend));
            }
            Action::Backend(_) | Action::Fault(_) => {}
        }
    }

    fn die(&mut self, backend: usize) {
        self.is_alive[backend] = false;
        for client in 0..self.clients.len() {
            let dying = &self.clients[client];
            if dying.phase != Phase::Idle && dying.owner == Some(backend) {
                self.outcome.died_count += 1;
                self.reset(client as u32);
            }
        }
    }

    fn change(&mut self, action: history::Action) {
        use history::Action as Do;
        let backends = &mut self.config.backends;
        match action {
            Do::Drain(backend) => set_admin(&mut backends[backend], Admin::Drain),
            Do::DrainStrictly(backend) => set_admin(&mut backends[backend], Admin::StrictDrain),
            Do::Ready(backend) => backends[backend].admin = Admin::Ready,
            Do::Remove(backend) => backends[backend].admin = Admin::Absent,
            Do::Weight(backend, weight) => backends[backend].weight = weight,
            Do::FalseDown(backend) => backends[backend].is_up = false,
            Do::Up(backend) if self.is_alive[backend] => backends[backend].is_up = true,
            Do::Up(_) | Do::Die(_) | Do::Revive(_) | Do::ChangeBalancer => {}
        }
        self.config.refill();
        self.configs.push(self.config.clone());
        let change = self.configs.len() - 1;
        for node in 0..self.machines.len() {
            let lag_ms = self.rng.below(LAG_MAX_MS);
            self.agenda
                .push(self.now_ms + lag_ms, Due::Configured { node, change });
        }
    }

    pub(super) fn configure(&mut self, number: usize, change: usize) {
        let machine = &mut self.machines[number];
        if self.now_ms < machine.blind_until_ms {
            let due = Due::Configured {
                node: number,
                change,
            };
            return self.agenda.push(machine.blind_until_ms, due);
        }
        if machine.config_known < change {
            machine.config_known = change;
            machine.node.configure(&self.configs[change]);
        }
    }

    fn befall(&mut self, fault: Fault) {
        self.calm_since_ms = self.now_ms;
        self.is_calm_checked = false;
        match fault {
            Fault::PowerLoss(number) => self.lose_power(number),
            Fault::PowerUp(number) => self.power_up(number),
            Fault::KillControl(number) => {
                self.close_all(number);
                self.machines[number].node.control = None;
                self.machines[number].waiting.clear();
                self.machines[number].heard.clear();
            }
            Fault::StartControl(number) => self.start_control(number),
            Fault::RestartVrrp(number) => self.restart_vrrp(number),
            Fault::Stop(number, lasts_ms) => {
                let until_ms = self.now_ms + lasts_ms;
                let machine = &mut self.machines[number];
                machine.stopped_until_ms = until_ms;
                if let Some(process) = &mut machine.vrrp {
                    process.stopped_until_ms = until_ms;
                }
            }
            Fault::Blind(number, lasts_ms) => {
                self.machines[number].blind_until_ms = self.now_ms + lasts_ms;
            }
            Fault::LanDown(number) => {
                self.net.lan_down.insert(number);
                self.tell_condition(number);
            }
            Fault::LanUp(number) => self.lan_up(number),
            Fault::LanCut(from, to) => {
                self.net.lan_cut.insert((from, to));
            }
            Fault::LanHeal(one, other) => {
                self.net.lan_cut.remove(&(one, other));
                self.net.lan_cut.remove(&(other, one));
            }
            Fault::SyncCut(from, to) => {
                self.net.sync_cut.insert((from, to));
            }
            Fault::SyncHeal(one, other) => {
                self.net.sync_cut.remove(&(one, other));
                self.net.sync_cut.remove(&(other, one));
            }
            Fault::SyncLoss(per_mille) => self.net.sync_loss = per_mille,
            Fault::LanLoss(per_mille) => self.net.lan_loss = per_mille,
            Fault::HandOver => self.hand_over(),
            Fault::Respread => self.spread = self.rng.next(),
        }
    }

    fn lose_power(&mut self, number: usize) {
        let others = self.machines.iter().enumerate();
        let is_any_other = others
            .filter(|(other, _)| *other != number)
            .any(|(_, machine)| machine.is_powered);
        if !is_any_other {
            return;
        }
        self.forget_sessions(number);
        let machine = &mut self.machines[number];
        machine.died_ms = Some(self.now_ms);
        machine.is_powered = false;
        machine.vrrp = None;
        machine.waiting.clear();
        machine.heard.clear();
    }

    fn power_up(&mut self, number: usize) {
        if self.machines[number].is_powered {
            return;
        }
        let rules = self.rules.clone();
        let config = self.config.clone();
        let mut machine = Self::machine(
            self.plan,
            &rules,
            &config,
            number,
            self.now_ms,
            &mut self.rng,
        );
        machine.config_known = self.configs.len() - 1;
        self.machines[number] = machine;
        self.start_vrrp(number);
        if self.rules.has(Rule::Barrier) {
            self.tell_facts(number);
        }
        if self.net.lan_down.contains(&number) {
            self.tell_condition(number);
        }
    }

    fn start_control(&mut self, number: usize) {
        let (config, now_ms) = (self.config.clone(), self.now_ms);
        let known = self.configs.len() - 1;
        let machine = &mut self.machines[number];
        if !machine.is_powered || machine.node.control.is_some() {
            return;
        }
        machine.config_known = known;
        machine.node.start_control(&config, now_ms);
        self.tell_own_state(number);
        self.tell_facts(number);
    }

    fn lan_up(&mut self, number: usize) {
        if self.net.lan_down.remove(&number) {
            self.tell_condition(number);
            self.note_link_up(number);
        }
    }

    /// At the end everything is up and ready.
    pub(super) fn heal(&mut self) {
        self.calm_since_ms = self.now_ms;
        self.is_calm_checked = false;
        for number in 0..self.machines.len() {
            self.power_up(number);
            self.start_control(number);
            self.lan_up(number);
        }
        self.net.lan_cut.clear();
        self.net.sync_cut.clear();
        self.net.sync_loss = 0;
        self.net.lan_loss = 0;
        for backend in 0..self.plan.backend_count {
            self.is_alive[backend] = true;
            self.config.backends[backend].is_up = true;
        }
        self.change(history::Action::Up(0));
    }
}

/// A backend that is not in the model is not drained.
fn set_admin(backend: &mut BackendConfig, admin: Admin) {
    if backend.admin != Admin::Absent {
        backend.admin = admin;
    }
}

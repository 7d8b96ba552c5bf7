//! What happens to the backends, and how the balancers hear of it.

use super::{AT_RISK_MS, LAG_MAX_MS, NOTICE_MS, World};
use crate::agenda::Due;
use crate::client::Phase;
use crate::config::{Admin, BackendConfig};
use crate::history::Action;

impl World<'_> {
    pub(super) fn happen(&mut self, number: u32) {
        let action = self.plan.events[number as usize].action;
        match action {
            Action::Die(backend) => self.die(backend),
            Action::Revive(backend) => {
                self.hosts[backend].is_alive = true;
                self.agenda
                    .push(self.now_ms + NOTICE_MS, Due::Noticed(number));
            }
            Action::ChangeBalancer => self.change_balancer(),
            _ => self.change(action),
        }
        if matches!(action, Action::Die(_)) {
            self.agenda
                .push(self.now_ms + NOTICE_MS, Due::Noticed(number));
        }
    }

    pub(super) fn notice(&mut self, number: u32) {
        match self.plan.events[number as usize].action {
            Action::Die(backend) if !self.hosts[backend].is_alive => {
                self.change(Action::FalseDown(backend));
            }
            Action::Revive(backend) => self.change(Action::Up(backend)),
            _ => {}
        }
    }

    fn die(&mut self, backend: usize) {
        self.hosts[backend].is_alive = false;
        for client in 0..self.clients.len() {
            let dying = &self.clients[client];
            if dying.phase != Phase::Idle && dying.owner == Some(backend) {
                self.outcome.died_count += 1;
                self.reset(client as u32);
            }
        }
    }

    fn change_balancer(&mut self) {
        let last = self.nodes.len() - 1;
        for client in &mut self.clients {
            if client.node == 0 {
                client.node = last;
            }
        }
    }

    /// The model changes, and every node hears of it in its own time.
    pub(super) fn change(&mut self, action: Action) {
        let backends = &mut self.config.backends;
        match action {
            Action::Drain(backend) => set_admin(&mut backends[backend], Admin::Drain),
            Action::DrainStrictly(backend) => {
                set_admin(&mut backends[backend], Admin::StrictDrain);
            }
            Action::Ready(backend) => backends[backend].admin = Admin::Ready,
            Action::Remove(backend) => backends[backend].admin = Admin::Absent,
            Action::Weight(backend, weight) => backends[backend].weight = weight,
            Action::FalseDown(backend) => {
                backends[backend].is_up = false;
                self.down_since_ms[backend].get_or_insert(self.now_ms);
            }
            Action::Up(backend) if self.hosts[backend].is_alive => {
                backends[backend].is_up = true;
                let since_ms = self.down_since_ms[backend].take().unwrap_or(self.now_ms);
                if self.now_ms - since_ms >= AT_RISK_MS {
                    self.risky_until_ms[backend] = self.now_ms + NOTICE_MS;
                }
            }
            Action::Up(_) => {}
            Action::Die(_) | Action::Revive(_) | Action::ChangeBalancer => {}
        }
        self.config.refill();
        self.configs.push(self.config.clone());
        let change = self.configs.len() as u32 - 1;
        for node in 0..self.nodes.len() as u32 {
            let lag_ms = if node == 0 {
                0
            } else {
                LAG_MAX_MS.min(self.rng.within(1, 3) * 100)
            };
            self.agenda
                .push(self.now_ms + lag_ms, Due::Configured { node, change });
        }
    }

    /// A node hears of the model as it was after a change, unless it has heard of a later one.
    pub(super) fn configure(&mut self, node: usize, change: u32) {
        if self.known[node].is_none_or(|known| known < change) {
            self.known[node] = Some(change);
            self.nodes[node].configure(&self.configs[change as usize]);
        }
    }

    /// At the end, everything is up and ready.
    pub(super) fn heal(&mut self) {
        for backend in 0..self.plan.backend_count {
            self.hosts[backend].is_alive = true;
            self.config.backends[backend].is_up = true;
            self.down_since_ms[backend] = None;
        }
        self.change(Action::Up(0));
    }
}

/// A backend that is not in the model is not drained.
fn set_admin(backend: &mut BackendConfig, admin: Admin) {
    if backend.admin != Admin::Absent {
        backend.admin = admin;
    }
}

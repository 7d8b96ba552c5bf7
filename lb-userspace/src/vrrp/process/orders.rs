//! What signals and clients ask for.

use tracing::{info, warn};

use super::control::Event;
use super::driver::{Course, Driver};
use super::outputs::Request;
use super::run::Run;
use super::signals::Order;
use crate::vrrp::protocol::{FromVrrp, State, ToVrrp};
use crate::vrrp::router::Input;

/// The wait for hand-overs when the process ends. Unit: microseconds.
const STOP_TIMEOUT_US: u64 = 10_000_000;

impl Driver {
    /// Does what signals and clients ask for.
    pub(super) fn take_orders(&mut self, now_us: u64) -> Course {
        let mut course = Course::On;
        while let Some(order) = self.signals.next() {
            match order {
                Order::Stop => self.stop(now_us),
                Order::MakeWay => course = Course::MakeWay,
            }
        }
        for event in self.control.round() {
            match event {
                Event::Came(client) => {
                    let status = self.status(now_us);
                    self.control.tell(client, &FromVrrp::Status(status));
                }
                Event::MasterGone => {
                    info!("lbd has gone: going on as it has said last");
                    self.tell_behind(now_us);
                    self.look_at_datapath(now_us);
                    self.tell_conditions(now_us);
                }
                Event::Said(client, ToVrrp::Configure(configuration)) => {
                    if let Err(nonsense) = self.configure(now_us, configuration) {
                        let reason = nonsense.to_string();
                        warn!("a configuration is refused: {reason}");
                        self.control.tell(client, &FromVrrp::Refused { reason });
                    }
                }
                Event::Said(_, ToVrrp::Facts(facts)) => self.take_facts(now_us, facts),
                Event::Said(client, ToVrrp::Failover { group, request }) => {
                    self.fail_over(now_us, client, request, &group);
                }
                Event::Said(_, ToVrrp::Stop) => self.stop(now_us),
            }
        }
        course
    }

    fn fail_over(&mut self, now_us: u64, client: u64, number: u64, group: &str) {
        let of_group = |run: &&Run| run.group.name == group && !run.is_leaving;
        let error = if !self.runs.iter().any(|run| of_group(&run)) {
            Some(format!("there is no group {group}"))
        } else if self
            .runs
            .iter()
            .any(|run| of_group(&run) && run.asked_by.is_some())
        {
            Some(format!("a hand-over of {group} is under way"))
        } else {
            None
        };
        let mut request = Request {
            client,
            number,
            waiting: 0,
            texts: Vec::new(),
            errors: error.into_iter().collect(),
        };
        let mut indices = Vec::new();
        if request.errors.is_empty() {
            indices.extend(self.indices_to_hand_over(group));
            for index in &indices {
                if let Some(run) = self.runs.get_mut(*index) {
                    run.asked_by = Some((client, number));
                }
            }
        }
        request.waiting = indices.len();
        self.requests.push(request);
        for index in indices {
            self.feed(index, now_us, Input::HandOver);
        }
        self.answer_requests();
    }

    /// The Active routers of a group; if there is none, its first one, whose refusal is the answer.
    fn indices_to_hand_over(&self, group: &str) -> Vec<usize> {
        let of_group = |index: &usize| {
            let run = self.runs.get(*index);
            run.is_some_and(|run| run.group.name == group && !run.is_leaving)
        };
        let is_active = |index: &usize| {
            let run = self.runs.get(*index);
            run.is_some_and(|run| run.machine.state() == State::Active)
        };
        let all: Vec<usize> = (0..self.runs.len()).filter(of_group).collect();
        let active: Vec<usize> = all.iter().copied().filter(is_active).collect();
        match active.is_empty() {
            true => all.into_iter().take(1).collect(),
            false => active,
        }
    }

    /// Begins to end: everything is handed over.
    fn stop(&mut self, now_us: u64) {
        if self.stop_at_us.is_some() {
            return;
        }
        info!("stopping");
        self.stop_at_us = Some(now_us + STOP_TIMEOUT_US);
        self.is_status_dirty = true;
        for index in 0..self.runs.len() {
            self.end_run(index, now_us);
        }
    }

    /// Has a router hand over and end; when it has, it is dropped.
    pub(super) fn end_run(&mut self, index: usize, now_us: u64) {
        let Some(run) = self.runs.get_mut(index) else {
            return;
        };
        if !run.is_leaving {
            run.is_leaving = true;
            self.feed(index, now_us, Input::Shutdown);
        }
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stop_at_us.is_some()
    }
}

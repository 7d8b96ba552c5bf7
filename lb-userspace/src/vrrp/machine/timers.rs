//! What becomes due, and when.

use super::Router;
use crate::vrrp::protocol::State;
use crate::vrrp::router::Output;

impl Router {
    /// When [`crate::vrrp::router::Input::Timer`] is due, if ever. Unit: microseconds.
    pub fn deadline(&self) -> Option<u64> {
        let hand_over = self
            .hand_over
            .map(|hand_over| hand_over.until_us.min(hand_over.again_at_us));
        let all = [
            self.adver_at_us,
            self.active_down_at_us,
            self.probe_at_us,
            self.hello_at_us,
            self.answer_at_us,
            self.announcements.deadline_us(),
            self.disputes.deadline_us(),
            self.linger.map(|linger| linger.until_us),
            hand_over,
        ];
        all.into_iter().flatten().min()
    }

    pub(super) fn on_timer(&mut self, now_us: u64, out: &mut Vec<Output>) {
        let is_due = |at_us: Option<u64>| at_us.is_some_and(|at_us| at_us <= now_us);
        self.on_request_timer(now_us, out);
        if is_due(self.linger.map(|linger| linger.until_us)) {
            self.on_linger_timer(now_us, out);
        }
        if is_due(self.adver_at_us) {
            self.doubt_until_us = None;
            self.advertise_periodically(now_us, out);
        }
        if is_due(self.probe_at_us) {
            self.probe(now_us, out);
        }
        if is_due(self.active_down_at_us) {
            self.on_active_down(now_us, out);
        }
        if is_due(self.answer_at_us) {
            self.answer(now_us, out);
        }
        if is_due(self.hello_at_us) {
            self.greet(now_us, out);
        }
        self.defend_if_due(now_us, out);
        self.announce_if_due(now_us, out);
    }

    /// The process did not run for a while, and what it knows is old. A Backup gives the Active one more interval. An
    /// Active whose peers may have taken over is silent for an interval, and gives way to any of them: it knows less
    /// than they do. They may have after three silent intervals, and the first was not overslept.
    pub(super) fn on_overslept(&mut self, now_us: u64, by_us: u64) {
        match self.state {
            State::Initialize => {}
            State::Backup => {
                let earliest_us = now_us + self.active_interval_us;
                self.active_down_at_us = self.active_down_at_us.map(|at_us| at_us.max(earliest_us));
                self.probe_at_us = self.probe_at_us.map(|_| now_us);
                self.probe_answered_us = None;
            }
            State::Active => {
                let interval_us = self.config.interval_us();
                if by_us >= 2 * interval_us && self.hand_over.is_none() {
                    self.doubt_until_us = Some(now_us + interval_us);
                    self.adver_at_us = Some(now_us + interval_us);
                }
            }
        }
    }
}

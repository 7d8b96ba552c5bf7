//! When the VIPs are announced.

use super::Router;
use crate::vrrp::router::Output;

/// On becoming Active: at once, and so often again. The first ones may get lost while a switch still learns.
const AS_NEW_TIMES: u32 = 5;
/// Between those. Unit: microseconds.
const AS_NEW_EVERY_US: u64 = 1_000_000;
/// After a conflict: at once, and so often again, once each interval.
const AFTER_CONFLICT_TIMES: u32 = 3;
/// Between two announcements, at least: what makes a router announce may come as often as others like. Unit:
/// microseconds.
const SPACING_US: u64 = 10_000;

/// So many repetitions, at even distances.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Repeats {
    next_us: u64,
    every_us: u64,
    left: u32,
    last_us: Option<u64>,
}

impl Repeats {
    pub(super) fn deadline_us(&self) -> Option<u64> {
        (self.left > 0).then_some(self.next_us)
    }
}

impl Router {
    pub(super) fn announce_as_new(&mut self, now_us: u64, out: &mut Vec<Output>) {
        self.plan_announcements(now_us, AS_NEW_EVERY_US, AS_NEW_TIMES);
        self.announce_if_due(now_us, out);
    }

    pub(super) fn announce_after_conflict(&mut self, now_us: u64, out: &mut Vec<Output>) {
        let every_us = self.config.interval_us();
        self.plan_announcements(now_us, every_us, AFTER_CONFLICT_TIMES);
        self.announce_if_due(now_us, out);
    }

    fn plan_announcements(&mut self, now_us: u64, every_us: u64, times: u32) {
        let last_us = self.announcements.last_us;
        let earliest_us = last_us.map_or(now_us, |last_us| last_us + SPACING_US);
        self.announcements = Repeats {
            next_us: earliest_us.max(now_us),
            every_us: every_us.max(SPACING_US),
            left: times + 1,
            last_us,
        };
    }

    pub(super) fn announce_if_due(&mut self, now_us: u64, out: &mut Vec<Output>) {
        let repeats = &mut self.announcements;
        if repeats.left > 0 && repeats.next_us <= now_us {
            repeats.left -= 1;
            repeats.next_us = now_us + repeats.every_us;
            repeats.last_us = Some(now_us);
            out.push(Output::Announce(self.config.listed_vips()));
        }
    }
}

//! Two Actives at once: how often, and for how long.

use std::net::IpAddr;

use super::Router;
use crate::vrrp::router::{Outcome, Output};

/// What is counted of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Dual {
    episode: Option<Episode>,
    ended_us: u64,
}

/// From the first to the last sign of another Active. Unit: microseconds.
#[derive(Clone, Copy, Debug)]
struct Episode {
    first_us: u64,
    last_us: u64,
    /// Without a sign for longer, it is over.
    window_us: u64,
}

impl Dual {
    /// A sign of another Active. Whether it is the first of an episode.
    fn note(&mut self, now_us: u64, window_us: u64) -> bool {
        match &mut self.episode {
            Some(episode) if now_us <= episode.last_us + episode.window_us => {
                episode.last_us = now_us;
                episode.window_us = window_us;
                false
            }
            _ => {
                self.end();
                self.episode = Some(Episode {
                    first_us: now_us,
                    last_us: now_us,
                    window_us,
                });
                true
            }
        }
    }

    /// This router is Active no more.
    pub(super) fn end(&mut self) {
        let episode = self.episode.take();
        self.ended_us += episode.map_or(0, |episode| episode.last_us - episode.first_us);
    }

    /// In all. Unit: microseconds.
    pub(super) fn total_us(&self) -> u64 {
        let present = self
            .episode
            .map_or(0, |episode| episode.last_us - episode.first_us);
        self.ended_us + present
    }
}

impl Router {
    /// This router is Active, stays so, and has a sign of another one.
    pub(super) fn note_conflict(
        &mut self,
        now_us: u64,
        with: Option<IpAddr>,
        priority: u8,
        window_us: u64,
        out: &mut Vec<Output>,
    ) {
        if self.dual.note(now_us, window_us) {
            self.counters.conflicts += 1;
            let outcome = Outcome::Won;
            out.push(Output::Conflict {
                with,
                priority,
                outcome,
            });
        }
    }

    /// This router withdraws. `is_known` = the other one has been Active for a while; else it takes over just now, as
    /// it may, and that is no conflict.
    pub(super) fn note_lost_conflict(
        &mut self,
        now_us: u64,
        advert: (IpAddr, u8, u64),
        is_known: bool,
        out: &mut Vec<Output>,
    ) {
        let (source, priority, interval_us) = advert;
        if !is_known && self.dual.episode.is_none() {
            return;
        }
        if self.dual.note(now_us, 2 * interval_us) {
            self.counters.conflicts += 1;
        }
        let outcome = Outcome::Lost;
        out.push(Output::Conflict {
            with: Some(source),
            priority,
            outcome,
        });
    }
}

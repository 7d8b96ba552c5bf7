//! When a Backup takes over, and when it does not.

use std::fmt::Display;
use std::net::IpAddr;

use super::{Router, ms};
use crate::vrrp::router::Output;

/// Nobody is known to be Active, and a node that is behind waits for a better one: so many Active_Down_Intervals.
/// Then a VIP with some connections lost is better than no VIP.
const BARRED_MAX_INTERVALS: u64 = 3;

/// The other Active, as its advertisements show it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heard {
    pub(super) source: IpAddr,
    pub(super) priority: u8,
    pub(super) interval_us: u64,
    /// Its last advertisement.
    pub(super) at_us: u64,
    /// Since when it is this one.
    pub(super) since_us: u64,
}

impl Heard {
    /// Whether advertisements that should have come did not.
    fn is_silent(&self, now_us: u64) -> bool {
        now_us >= self.silent_from_us()
    }

    fn silent_from_us(&self) -> u64 {
        self.at_us + self.interval_us * 3 / 2
    }
}

/// A reason to wait, and until when it holds at least. Unit: microseconds.
type Wait = (String, u64);

impl Router {
    /// An advertisement of a router that this one leaves the VIPs to (RFC 9568 section 6.4.2).
    pub(super) fn follow(&mut self, now_us: u64, source: IpAddr, priority: u8, interval_us: u64) {
        self.note_active(now_us, source, priority, interval_us);
        self.active_interval_us = interval_us;
        self.active_down_at_us = Some(now_us + self.active_down_us());
        self.held = None;
        self.barred_since_us = None;
    }

    fn note_active(&mut self, now_us: u64, source: IpAddr, priority: u8, interval_us: u64) {
        let former = self.active.filter(|active| active.source == source);
        if former.is_none() {
            self.lower_since_us = None;
            self.news.forget_active();
        }
        let heard = Heard {
            source,
            priority,
            interval_us,
            at_us: now_us,
            since_us: former.map_or(now_us, |former| former.since_us),
        };
        self.active = Some(heard);
        self.probe_answered_us = None;
        self.probe_at_us = self.news.is_any().then(|| heard.silent_from_us());
    }

    /// An Active of lower priority was heard, and this router preempts: after its delay at once; without one when
    /// Active_Down_Timer fires, as the RFC has it. Not while it is behind.
    pub(super) fn challenge(
        &mut self,
        now_us: u64,
        advert: (IpAddr, u8, u64),
        out: &mut Vec<Output>,
    ) {
        let (source, priority, interval_us) = advert;
        if self.active.is_none_or(|active| active.source != source) {
            self.lower_since_us = None;
        }
        let since_us = *self.lower_since_us.get_or_insert(now_us);
        let delay_us = u64::from(self.config.preempt_delay_ms) * 1_000;
        if self.lacks().is_some() || now_us < since_us + delay_us {
            self.follow(now_us, source, priority, interval_us);
            self.lower_since_us = Some(since_us);
        } else if delay_us > 0 {
            let reason = format!("it preempts {source} of priority {priority}");
            self.become_active(now_us, reason, 0, out);
        } else {
            self.note_active(now_us, source, priority, interval_us);
            self.lower_since_us = Some(since_us);
        }
    }

    /// Somebody who was Active resigns (RFC 9568 section 6.4.2).
    pub(super) fn on_resignation(&mut self, now_us: u64, source: IpAddr) {
        self.active = self.active.filter(|active| active.source != source);
        self.active_down_at_us = Some(now_us + self.skew_us());
        // With authentication it is certain who says so, and that he does so now: a node of ours that fails or stops.
        if self.guard.is_some() {
            self.news.note_resignation(now_us);
        }
    }

    /// Active_Down_Timer has fired (RFC 9568 section 6.4.2), or what it was held for has changed.
    pub(super) fn on_active_down(&mut self, now_us: u64, out: &mut Vec<Output>) {
        let wait = self.hold(now_us);
        if let Some((why, until_us)) = wait.or_else(|| self.barrier(now_us, None)) {
            self.held = Some(why);
            self.active_down_at_us = Some(until_us.max(now_us + 1));
            return;
        }
        let reason = match self.active {
            Some(active) if active.is_silent(now_us) => {
                let silent_ms = ms(now_us.saturating_sub(active.at_us));
                format!("no advertisement of {} for {silent_ms} ms", active.source)
            }
            Some(active) => {
                format!(
                    "it preempts {} of priority {}",
                    active.source, active.priority
                )
            }
            None => "no advertisement of anybody".to_owned(),
        };
        self.become_active(now_us, reason, 0, out);
    }

    /// The hold: the Active's process is silent, but its node is well. Its `lbd` says so over the sync link, and its
    /// kernel answers on the link. So a process that is stopped, slow or being replaced is no failover, and a node
    /// that is dead or cut off is one without delay.
    fn hold(&self, now_us: u64) -> Option<Wait> {
        let active = self.active.filter(|active| active.is_silent(now_us))?;
        let (node, fresh_until_us) = self.news.fit_active(now_us, self.active_interval_us)?;
        let answered_us = self.probe_answered_us?;
        let answers_until_us = answered_us + active.interval_us;
        if answers_until_us <= now_us {
            return None;
        }
        let silent_ms = ms(now_us.saturating_sub(active.at_us));
        let why = format!(
            "no advertisement of {source} for {silent_ms} ms, but {node} says over the sync link that it is Active, \
             and {source} answers on the link",
            source = active.source
        );
        Some((why, fresh_until_us.min(answers_until_us)))
    }

    /// Why this router leaves the VIPs to others, if so: its node has not caught up with its peers, or hears nothing
    /// of the Active one over the sync link.
    pub(super) fn lacks(&self) -> Option<String> {
        self.behind.clone().or_else(|| self.out_of_touch())
    }

    /// Of three nodes, two may have lost their sync link to each other and not that to the third: what the Active one
    /// knows is then not known here, though a peer is heard. Its advertisements go on, and no heartbeat says that
    /// its sender is Active. Without authentication it may be a stranger, who never says anything there.
    fn out_of_touch(&self) -> Option<String> {
        let active = self.active.filter(|_| self.guard.is_some())?;
        let named_us = self.news.named_us.unwrap_or(0).max(active.since_us);
        let is_old = active.at_us >= named_us + self.news.patience_us()?;
        is_old.then(|| {
            let source = active.source;
            format!("{source} is Active, and no peer says so over the sync link")
        })
    }

    /// The failback barrier: a node that has not caught up leaves the VIPs to a peer that lives. That is not the one at
    /// `unfit`, which has said that it cannot have them.
    fn barrier(&mut self, now_us: u64, unfit: Option<IpAddr>) -> Option<Wait> {
        let behind = self.lacks()?;
        let peer = self.living_peer(now_us, unfit)?;
        if self
            .news
            .fit_active(now_us, self.active_interval_us)
            .is_none()
        {
            let since_us = *self.barred_since_us.get_or_insert(now_us);
            if now_us >= since_us + BARRED_MAX_INTERVALS * self.active_down_us() {
                return None;
            }
        }
        Some((
            not_caught_up(&peer, &behind),
            now_us + self.active_interval_us,
        ))
    }

    /// Whether the barrier would keep this router from taking over now from the Active one, which is not fit.
    pub(super) fn is_barred(&mut self, now_us: u64) -> bool {
        let unfit = self.active.map(|active| active.source);
        self.barrier(now_us, unfit).is_some()
    }

    /// A peer that could have the VIPs.
    fn living_peer(&self, now_us: u64, unfit: Option<IpAddr>) -> Option<String> {
        let by_news = self.news.fit_node(now_us, self.active_interval_us);
        let by_packets = || {
            let senders = self.guard.iter().flat_map(|guard| guard.proven());
            senders
                .filter(|sender| !sender.flags.is_fault && Some(sender.source) != unfit)
                .find(|sender| {
                    let silence_max_us = match sender.is_active {
                        true => self.active_down_us(),
                        false => 3 * self.hello_period_us(),
                    };
                    now_us < sender.heard_us + silence_max_us
                })
                .map(|sender| sender.source.to_string())
        };
        by_news.map(str::to_owned).or_else(by_packets)
    }

    /// The Active has been silent for too long: is its kernel there?
    pub(super) fn probe(&mut self, now_us: u64, out: &mut Vec<Output>) {
        self.probe_at_us = self.active.map(|active| {
            out.push(Output::Probe {
                address: active.source,
            });
            now_us + active.interval_us / 2
        });
    }

    pub(super) fn note_probe_answer(&mut self, now_us: u64, address: IpAddr) {
        if self.active.is_some_and(|active| active.source == address) {
            self.probe_answered_us = Some(now_us);
        }
    }
}

/// The barrier, in words.
pub(super) fn not_caught_up(peer: &dyn Display, behind: &str) -> String {
    format!("this node has not caught up with {peer}: {behind}")
}

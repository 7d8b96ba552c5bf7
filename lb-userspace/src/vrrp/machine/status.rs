//! How a router is, for people and for `lbd`.

use super::takeover::not_caught_up;
use super::{Router, ms};
use crate::vrrp::protocol::{Dispute, Moved, RouterCounters, RouterStatus, State};

impl Router {
    /// How it is. `now_unix_ms` is the same moment by the calendar, in milliseconds since 1970.
    pub fn status(&self, now_us: u64, now_unix_ms: u64) -> RouterStatus {
        let since_ms = ms(now_us.saturating_sub(self.since_us));
        let unix_ms = |at_us| now_unix_ms.saturating_sub(ms(now_us.saturating_sub(at_us)));
        let active = match self.state {
            State::Active => None,
            State::Backup | State::Initialize => self.active.as_ref(),
        };
        RouterStatus {
            group: self.config.group.clone(),
            family: self.config.family,
            vrid: self.config.vrid,
            vips: self.config.listed_vips(),
            state: self.state,
            since_ms,
            since_unix_ms: now_unix_ms.saturating_sub(since_ms),
            reason: self.reason.clone(),
            priority_configured: self.config.priority,
            priority: match self.condition.is_fault() {
                true => 0,
                false => self.condition.priority,
            },
            troubles: [&self.condition.faults[..], &self.condition.troubles].concat(),
            active: active.map(|active| active.source),
            active_priority: active.map(|active| active.priority),
            held: self.held.clone().or_else(|| self.why_not_preempting()),
            distrusted: self.distrusted(now_us),
            dispute: self.disputes.last().map(|(claim, at_us)| Dispute {
                vip: claim.vip,
                by: claim.by_text(),
                unix_ms: unix_ms(at_us),
            }),
            moved: self.moved.as_ref().map(|moved| Moved {
                from: moved.from,
                to: moved.to,
                unix_ms: unix_ms(moved.at_us),
                reason: moved.reason.clone(),
            }),
            counters: RouterCounters {
                dual_active_ms: ms(self.dual.total_us()),
                ..self.counters
            },
        }
    }

    /// Why it does not preempt an Active of lower priority, if it would but for that.
    fn why_not_preempting(&self) -> Option<String> {
        let _since = self
            .lower_since_us
            .filter(|_| self.state == State::Backup)?;
        Some(not_caught_up(&self.active?.source, &self.lacks()?))
    }
}

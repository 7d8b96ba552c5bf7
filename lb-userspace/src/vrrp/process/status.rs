//! What is told of the process, and when.

use crate::vrrp::protocol::{RouterCounters, Status};

/// Without a change of state, the status is looked at so often at most. Unit: microseconds.
const LOOK_EVERY_US: u64 = 100_000;
/// Without any news, the status is told so often: `lbd` knows that this process is alive. Unit: microseconds.
const REPEAT_EVERY_US: u64 = 1_000_000;

/// What was told last.
#[derive(Debug, Default)]
pub(super) struct Told {
    essence: Status,
    looked_us: u64,
    told_us: u64,
}

impl Told {
    /// Whether it is time to look whether there is something new.
    pub(super) fn is_due(&self, now_us: u64) -> bool {
        now_us >= self.looked_us + LOOK_EVERY_US
    }

    /// Whether `status` is news: then it counts as told.
    pub(super) fn is_news(&mut self, now_us: u64, status: &Status) -> bool {
        self.looked_us = now_us;
        let essence = essence(status);
        let is_time = now_us >= self.told_us + REPEAT_EVERY_US;
        let is_news = essence != self.essence || is_time;
        if is_news {
            self.essence = essence;
            self.told_us = now_us;
        }
        is_news
    }
}

/// The status without what changes by itself.
fn essence(status: &Status) -> Status {
    let mut essence = status.clone();
    essence.uptime_ms = 0;
    for router in &mut essence.routers {
        router.since_ms = 0;
        router.since_unix_ms = 0;
        if let Some(dispute) = &mut router.dispute {
            dispute.unix_ms = 0;
        }
        if let Some(moved) = &mut router.moved {
            moved.unix_ms = 0;
        }
        router.counters = RouterCounters {
            disputes: router.counters.disputes,
            ..RouterCounters::default()
        };
    }
    essence
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vrrp::protocol::tests::router;
    use crate::vrrp::protocol::{RouterStatus, State};

    fn status(state: State, sent: u64) -> Status {
        Status {
            uptime_ms: sent,
            routers: vec![RouterStatus {
                since_ms: sent,
                since_unix_ms: sent,
                counters: RouterCounters {
                    sent,
                    ..RouterCounters::default()
                },
                ..router(state)
            }],
            ..Status::default()
        }
    }

    #[test]
    fn a_change_of_state_is_news_at_once_and_all_else_now_and_then() {
        let mut told = Told::default();
        assert!(told.is_news(5_000_000, &status(State::Backup, 1)));
        assert!(!told.is_news(5_000_001, &status(State::Backup, 2)));
        assert!(told.is_news(5_000_002, &status(State::Active, 3)));
        assert!(!told.is_due(5_000_003));
        assert!(told.is_due(5_100_002));
        assert!(!told.is_news(5_100_002, &status(State::Active, 4)));
        assert!(told.is_news(6_000_002, &status(State::Active, 5)));
        assert!(told.is_news(9_000_000, &status(State::Active, 5)));
    }
}

//! A router that speaks and hears nobody: where an attacker gets packets of the right form from.

use std::collections::VecDeque;

use lb_userspace::vrrp::machine::Router;
use lb_userspace::vrrp::router::{Input, RouterConfig, Session};

use super::{Advert, START_US, fire, sent, tell};

/// It becomes Active, and says so for ever.
pub(super) struct Voice {
    router: Router,
    now_us: u64,
    said: VecDeque<Advert>,
}

impl Voice {
    pub(super) fn new(config: RouterConfig, session: Session) -> Self {
        let mut router = Router::new(config, session, START_US);
        let source = router.config().source;
        let out = tell(&mut router, START_US, Input::Startup);
        Self {
            said: sent(&out, source).collect(),
            router,
            now_us: START_US,
        }
    }

    /// What it says next.
    pub(super) fn next(&mut self) -> Option<Advert> {
        for _ in 0..100 {
            if let Some(advert) = self.said.pop_front() {
                return Some(advert);
            }
            self.now_us = self.router.deadline()?;
            let out = fire(&mut self.router, self.now_us)?;
            self.said.extend(sent(&out, self.router.config().source));
        }
        None
    }
}

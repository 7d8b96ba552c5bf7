//! What the peers say over the sync link.

use super::Router;
use crate::vrrp::protocol::{PeerFacts, State, silent_after};
use crate::vrrp::router::{Output, RouterConfig, US_PER_MS};

/// Peers listened to. A cluster has a few nodes.
const PEERS_MAX: usize = 32;

/// What a peer says of its router of this group and family.
#[derive(Clone, Debug)]
struct Word {
    node: String,
    /// When it was heard. Unit: microseconds.
    heard_us: u64,
    /// Between its heartbeats. Unit: microseconds.
    heartbeat_us: u64,
    /// When it was first heard to be Active, if the word before said that it was not. Unit: microseconds.
    turned_active_us: Option<u64>,
    state: State,
    priority: u8,
    is_fit: bool,
}

impl Word {
    /// Old news are none: two heartbeats or two advertisement intervals, whichever is longer.
    fn fresh_until_us(&self, interval_us: u64) -> u64 {
        self.heard_us
            .saturating_add(2 * interval_us.max(self.heartbeat_us))
    }

    /// Whether it speaks of the time since `since_us`, when its first advertisement as the present Active came.
    /// Heartbeats tell of a change later than advertisements do: what one says soon after may be of the time before
    /// that, unless the change itself was heard since.
    fn is_of_time_since(&self, since_us: u64) -> bool {
        self.heard_us >= since_us + self.heartbeat_us
            || self
                .turned_active_us
                .is_some_and(|turned_us| turned_us >= since_us)
    }

    /// Keeps of the word before what this one does not tell.
    fn continue_from(&mut self, former: &Self) {
        self.turned_active_us = match (former.state, self.state) {
            (State::Active, State::Active) => former.turned_active_us,
            (_, State::Active) => Some(self.heard_us),
            _ => None,
        };
    }

    fn can_serve(&self) -> bool {
        self.is_fit && self.priority > 0
    }

    fn is_fit_active(&self) -> bool {
        self.can_serve() && self.state == State::Active
    }

    /// Why it cannot have the VIPs now, in words.
    fn trouble(&self) -> String {
        let what = match self.state {
            State::Active => "Active, but not fit",
            State::Backup => "Backup",
            State::Initialize => "in fault, or stopped",
        };
        format!("{} says over the sync link that it is {what}", self.node)
    }
}

/// What all peers say.
#[derive(Clone, Debug, Default)]
pub(super) struct News {
    words: Vec<Word>,
    /// The node that has said that it is Active, since this router is Backup of the present Active.
    active_node: Option<String>,
    /// When a peer was last heard that said that it is Active. Unit: microseconds.
    pub(super) named_us: Option<u64>,
    /// Between the heartbeats of the peers that are heard. Unit: milliseconds.
    heartbeat_ms: Option<u32>,
    /// When an Active one has resigned last: who was Active before that may not be any more. Unit: microseconds.
    resigned_us: Option<u64>,
}

impl News {
    /// In place of what was said before.
    fn take(&mut self, mut words: Vec<Word>) {
        let active = words.iter().filter(|word| word.state == State::Active);
        self.named_us = self.named_us.max(active.map(|word| word.heard_us).max());
        for word in &mut words {
            let former = self.words.iter().find(|former| former.node == word.node);
            if let Some(former) = former {
                word.continue_from(former);
            }
        }
        self.words = words;
    }

    /// After which a peer is silent; `None` = there is none over the sync link. Unit: microseconds.
    pub(super) fn patience_us(&self) -> Option<u64> {
        let patience = silent_after(self.heartbeat_ms?);
        Some(u64::try_from(patience.as_micros()).unwrap_or(u64::MAX))
    }

    pub(super) fn is_any(&self) -> bool {
        !self.words.is_empty()
    }

    pub(super) fn forget_active(&mut self) {
        self.active_node = None;
    }

    fn fresh(&self, now_us: u64, interval_us: u64) -> impl Iterator<Item = &Word> {
        self.words
            .iter()
            .filter(move |word| now_us < word.fresh_until_us(interval_us))
            .filter(|word| !self.is_outdated(word))
    }

    pub(super) fn note_resignation(&mut self, now_us: u64) {
        self.resigned_us = Some(now_us);
    }

    /// Heartbeats tell of a change later than advertisements do.
    fn is_outdated(&self, word: &Word) -> bool {
        let is_older = |resigned_us| word.heard_us < resigned_us + word.heartbeat_us;
        word.state == State::Active && self.resigned_us.is_some_and(is_older)
    }

    /// A peer that says that it is Active and fit, and until when that is fresh. Unit: microseconds.
    pub(super) fn fit_active(&self, now_us: u64, interval_us: u64) -> Option<(&str, u64)> {
        self.fresh(now_us, interval_us)
            .find(|word| word.is_fit_active())
            .map(|word| (&*word.node, word.fresh_until_us(interval_us)))
    }

    /// A peer that could have the VIPs.
    pub(super) fn fit_node(&self, now_us: u64, interval_us: u64) -> Option<&str> {
        self.fresh(now_us, interval_us)
            .find(|word| word.can_serve())
            .map(|word| &*word.node)
    }
}

fn words_of(now_us: u64, config: &RouterConfig, facts: &[PeerFacts]) -> Vec<Word> {
    let mut words = Vec::new();
    for peer in facts.iter().take(PEERS_MAX) {
        let is_ours = |router: &&crate::vrrp::protocol::PeerRouter| {
            router.group == config.group && router.family == config.family
        };
        words.extend(peer.routers.iter().find(is_ours).map(|router| Word {
            node: peer.node.clone(),
            heard_us: now_us.saturating_sub(peer.heard_ms.saturating_mul(US_PER_MS)),
            heartbeat_us: u64::from(peer.heartbeat_ms) * US_PER_MS,
            turned_active_us: None,
            state: router.state,
            priority: router.priority,
            is_fit: router.is_fit,
        }));
    }
    words
}

impl Router {
    pub(super) fn hear_news(&mut self, now_us: u64, facts: &[PeerFacts], out: &mut Vec<Output>) {
        self.news.take(words_of(now_us, &self.config, facts));
        self.news.heartbeat_ms = facts.iter().map(|peer| peer.heartbeat_ms).max();
        match self.state {
            State::Active => self.see_other_active_in_news(now_us, out),
            State::Backup => {
                self.start_probing(now_us);
                if let Some(reason) = self.news_to_take_over(now_us) {
                    self.become_active(now_us, reason, 0, out);
                } else if self.held.is_some() {
                    self.on_active_down(now_us, out);
                }
            }
            State::Initialize => {}
        }
    }

    fn start_probing(&mut self, now_us: u64) {
        if self.probe_at_us.is_none() && self.news.is_any() {
            self.probe_at_us = self
                .active
                .map(|active| now_us.max(active.at_us + active.interval_us * 3 / 2));
        }
    }

    /// The peer that was Active and fit is not any more, nobody else is, and this router comes first among those that
    /// could take over. Once for each time that a peer was Active: its advertisements may still say otherwise.
    fn news_to_take_over(&mut self, now_us: u64) -> Option<String> {
        let interval_us = self.active_interval_us;
        if let Some((node, _)) = self.news.fit_active(now_us, interval_us) {
            let word = self.news.words.iter().find(|word| word.node == node)?;
            if word.is_of_time_since(self.active?.since_us) {
                self.news.active_node = Some(node.to_owned());
            }
            return None;
        }
        let node = self.news.active_node.clone()?;
        let mut fresh = self.news.fresh(now_us, interval_us);
        let reason = fresh.find(|word| word.node == node)?.trouble();
        drop(fresh);
        self.news.forget_active();
        (self.comes_first(now_us, &node) && !self.is_barred(now_us)).then_some(reason)
    }

    fn comes_first(&self, now_us: u64, unfit_node: &str) -> bool {
        let own = self.condition.priority;
        let mut others = self
            .news
            .fresh(now_us, self.active_interval_us)
            .filter(|word| word.node != unfit_node && word.can_serve());
        others
            .all(|word| own > word.priority || own == word.priority && self.config.node < word.node)
    }

    /// Two Actives that do not hear each other's advertisements. What was said before this router became Active, or
    /// while the peer may not have known, is no evidence.
    fn see_other_active_in_news(&mut self, now_us: u64, out: &mut Vec<Output>) {
        let interval_us = self.config.interval_us();
        let since_us = self.since_us;
        let evidence = self
            .news
            .fresh(now_us, interval_us)
            .filter(|word| word.state == State::Active)
            .find(|word| word.heard_us > since_us + 2 * word.heartbeat_us.max(interval_us))
            .map(|word| (word.priority, 2 * word.heartbeat_us.max(interval_us)));
        if let Some((priority, window_us)) = evidence {
            self.note_conflict(now_us, None, priority, window_us, out);
        }
    }
}

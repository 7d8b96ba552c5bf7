//! What has happened on this node, for whoever follows it: the last events, each with a number.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use utoipa::ToSchema;

/// Events that are remembered; older ones are forgotten.
pub const EVENTS_MAX: usize = 1_000;

/// Something that has happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// Counts up from 1 since the daemon began.
    pub sequence: u64,
    /// When. Unit: milliseconds since 1970, UTC.
    pub unix_ms: u64,
    /// `health`, `alarm`, `vip`, `peer`, …
    pub kind: String,
    /// The service concerned, if any.
    pub service: Option<String>,
    /// The backend concerned, if any.
    pub backend: Option<String>,
    /// The VRRP group concerned, if any.
    #[serde(default)]
    pub group: Option<String>,
    /// The group's family concerned, `ipv4` or `ipv6`, if any.
    #[serde(default)]
    pub family: Option<String>,
    /// The peer concerned, if any.
    #[serde(default)]
    pub peer: Option<String>,
    /// What was so before, if that says anything.
    pub from: Option<String>,
    /// What is so now.
    pub to: String,
    /// Why.
    pub reason: String,
}

/// The last events. Clones are the same log.
#[derive(Clone, Debug)]
pub struct EventLog {
    events: Arc<Mutex<VecDeque<Event>>>,
    last: Arc<watch::Sender<u64>>,
}

impl Default for EventLog {
    fn default() -> Self {
        Self {
            events: Arc::default(),
            last: Arc::new(watch::Sender::new(0)),
        }
    }
}

impl EventLog {
    /// Adds an event; its number, and its time if it has none, are filled in.
    pub fn push(&self, mut event: Event) {
        let mut events = self.lock();
        let sequence = *self.last.borrow() + 1;
        event.sequence = sequence;
        if event.unix_ms == 0 {
            event.unix_ms = unix_ms();
        }
        if events.len() == EVENTS_MAX {
            events.pop_front();
        }
        events.push_back(event);
        // Under the lock, so that numbers are given once; nobody who follows holds it for long.
        self.last.send_replace(sequence);
    }

    /// The number of the last event; 0 = there was none.
    pub fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// The events after number `after` that are remembered, the oldest first.
    pub fn after(&self, after: u64) -> Vec<Event> {
        let events = self.lock();
        let new = events.iter().filter(|event| event.sequence > after);
        new.cloned().collect()
    }

    /// Waits until there is an event after number `after`.
    pub async fn wait_after(&self, after: u64) {
        let mut last = self.last.subscribe();
        // The sender lives as long as the log does.
        let _ended = last.wait_for(|last| *last > after).await;
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Event>> {
        // Nobody panics while holding it.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Now. Unit: milliseconds since 1970, UTC.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(to: &str) -> Event {
        Event {
            kind: "health".to_owned(),
            to: to.to_owned(),
            ..Event::default()
        }
    }

    #[test]
    fn events_are_numbered_and_old_ones_forgotten() {
        let log = EventLog::default();
        assert_eq!(log.after(0), []);
        for number in 0..EVENTS_MAX + 5 {
            log.push(event(&number.to_string()));
        }
        let all = log.after(0);
        assert_eq!((all.len(), all[0].sequence), (EVENTS_MAX, 6));
        assert_eq!(all[0].to, "5");
        let last = log.after(EVENTS_MAX as u64 + 4);
        assert_eq!(last.len(), 1);
        assert!(last[0].unix_ms > 0);
    }

    #[tokio::test]
    async fn who_waits_is_woken_by_the_next_event() {
        let log = EventLog::default();
        log.push(event("one"));
        log.wait_after(0).await;
        let waiting = tokio::spawn({
            let log = log.clone();
            async move {
                log.wait_after(1).await;
                log.after(1)
            }
        });
        log.push(event("two"));
        assert_eq!(waiting.await.unwrap()[0].to, "two");
    }
}

//! Tells the event log what happens to VIPs and peers.

use std::collections::BTreeMap;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use super::Monitor;
use super::peers::PeersView;
use super::vrrp::{Failover, RouterKey, VrrpHandle};
use crate::events::{Event, EventLog, unix_ms};
use crate::vrrp::protocol::{Family, Moved, RouterStatus, State, Status};

/// Follows what `lbd-vrrp` and the sync link say. Dropping it ends that.
#[derive(Debug)]
pub struct Herald {
    tasks: [JoinHandle<()>; 2],
}

impl Herald {
    /// To be called when everything is attached to `monitor`, within a runtime.
    pub fn start(monitor: &Monitor) -> Self {
        let (vrrp, events) = (monitor.vrrp.clone(), monitor.events.clone());
        let peers = monitor.peers.subscribe();
        let peer_events = events.clone();
        Self {
            tasks: [
                tokio::spawn(async move {
                    if let Some(status) = vrrp.subscribe() {
                        follow_vips(status, &vrrp, &events).await;
                    }
                }),
                tokio::spawn(follow_peers(peers, peer_events)),
            ],
        }
    }
}

impl Drop for Herald {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn follow_vips(
    mut status: watch::Receiver<Option<Status>>,
    vrrp: &VrrpHandle,
    events: &EventLog,
) {
    let began_unix_ms = unix_ms();
    let mut known = Routers::default();
    loop {
        let now = status.borrow_and_update().clone().unwrap_or_default();
        for news in known.update(&now.routers, began_unix_ms) {
            if let Some(failover) = news.failover {
                vrrp.note(failover);
            }
            if let Some(event) = news.event {
                tell(events, event);
            }
        }
        if status.changed().await.is_err() {
            return;
        }
    }
}

fn tell(events: &EventLog, event: Event) {
    let subject = event.group.as_deref().or(event.peer.as_deref());
    let subject = subject.unwrap_or_default();
    let (kind, to, reason) = (&event.kind, &event.to, &event.reason);
    match event.kind.as_str() {
        "alarm" => warn!("{subject}: {to}: {reason}"),
        _ => info!("{kind} {subject}: {to}: {reason}"),
    }
    events.push(event);
}

/// Something about a virtual router.
#[derive(Debug, PartialEq, Eq)]
struct News {
    failover: Option<Failover>,
    /// None of what was so before this daemon began.
    event: Option<Event>,
}

/// The virtual routers as they were last told.
#[derive(Debug, Default)]
struct Routers(BTreeMap<RouterKey, RouterStatus>);

impl Routers {
    /// What is new. What `lbd-vrrp` says first is news only if it has happened since `began_unix_ms`.
    fn update(&mut self, routers: &[RouterStatus], began_unix_ms: u64) -> Vec<News> {
        let mut news = Vec::new();
        for router in routers {
            let key = (router.group.clone(), router.family);
            let before = self.0.insert(key, router.clone());
            news.extend(changed(before.as_ref(), router, began_unix_ms));
            news.extend(conflict(before.as_ref(), router));
            news.extend(restored(before.as_ref(), router));
            news.extend(distrust(before.as_ref(), router));
            news.extend(dispute(before.as_ref(), router));
        }
        let is_there = |(group, family): &RouterKey| {
            let mut routers = routers.iter();
            routers.any(|one| one.group == *group && one.family == *family)
        };
        self.0.retain(|key, _| is_there(key));
        // The last failover comes last.
        news.sort_by_key(|one| one.failover.as_ref().map(|failover| failover.unix_ms));
        news
    }
}

/// A change of state. One that was followed by another before anybody looked is seen by its count.
fn changed(before: Option<&RouterStatus>, now: &RouterStatus, began_unix_ms: u64) -> Option<News> {
    let counts = |one: &RouterStatus| (one.counters.became_active, one.counters.became_backup);
    let (from, is_old) = match before {
        Some(before) if before.state == now.state && counts(before) == counts(now) => return None,
        Some(before) => (before.state, false),
        None => (State::Initialize, now.since_unix_ms < began_unix_ms),
    };
    if from == now.state && before.is_none() && now.moved.is_none() {
        return None;
    }
    // At first that which `lbd-vrrp` remembers: a former daemon has seen it.
    let remembered = now.moved.as_ref().filter(|_| before.is_none());
    let moved = remembered.cloned().or_else(|| {
        let is_failover = [from, now.state].contains(&State::Active);
        is_failover.then(|| Moved {
            from,
            to: now.state,
            unix_ms: now.since_unix_ms,
            reason: now.reason.clone(),
        })
    });
    let failover = moved.map(|moved| Failover {
        group: now.group.clone(),
        family: now.family,
        from: moved.from,
        to: moved.to,
        unix_ms: moved.unix_ms,
        reason: moved.reason,
    });
    let event = (!is_old).then(|| Event {
        unix_ms: now.since_unix_ms,
        from: Some(word(from).to_owned()),
        to: word(now.state).to_owned(),
        reason: now.reason.clone(),
        ..about(now, "vip")
    });
    Some(News { failover, event })
}

/// Another one is Active, too.
fn conflict(before: Option<&RouterStatus>, now: &RouterStatus) -> Option<News> {
    let counted = before?.counters.conflicts;
    let new_count = now.counters.conflicts.checked_sub(counted)?;
    let event = (new_count > 0).then(|| Event {
        to: "both Active".to_owned(),
        reason: format!(
            "another node was Active at the same time; in all for {} ms",
            now.counters.dual_active_ms
        ),
        ..about(now, "alarm")
    })?;
    Some(News {
        failover: None,
        event: Some(event),
    })
}

/// Somebody removes VIPs from an Active node.
fn restored(before: Option<&RouterStatus>, now: &RouterStatus) -> Option<News> {
    let counted = before?.counters.vips_restored;
    let new_count = now.counters.vips_restored.checked_sub(counted)?;
    let event = (new_count > 0).then(|| Event {
        to: "put back".to_owned(),
        reason: format!(
            "{new_count} VIPs had gone from its interface while it was Active: look who removes addresses there"
        ),
        ..about(now, "alarm")
    })?;
    Some(News {
        failover: None,
        event: Some(event),
    })
}

/// Somebody advertises, and he and this node do not believe each other.
fn distrust(before: Option<&RouterStatus>, now: &RouterStatus) -> Option<News> {
    let before = before.and_then(|before| before.distrusted.as_ref());
    let (from, to, reason) = match (before, &now.distrusted) {
        (None, Some(reason)) => ("quiet", "alarm", reason.clone()),
        (Some(_), None) => {
            let reason = "nobody advertises any more who is not believed".to_owned();
            ("alarm", "quiet", reason)
        }
        (None, None) | (Some(_), Some(_)) => return None,
    };
    let event = Event {
        from: Some(from.to_owned()),
        to: to.to_owned(),
        reason,
        ..about(now, "alarm")
    };
    Some(News {
        failover: None,
        event: Some(event),
    })
}

/// Somebody else claims a VIP.
fn dispute(before: Option<&RouterStatus>, now: &RouterStatus) -> Option<News> {
    let counted = before?.counters.disputes;
    let new_count = now.counters.disputes.checked_sub(counted)?;
    let last = now.dispute.as_ref().filter(|_| new_count > 0)?;
    let event = Event {
        unix_ms: last.unix_ms,
        to: "disputed".to_owned(),
        reason: format!(
            "{} claims {}, which is Active here: announced again",
            last.by, last.vip
        ),
        ..about(now, "alarm")
    };
    Some(News {
        failover: None,
        event: Some(event),
    })
}

fn about(router: &RouterStatus, kind: &str) -> Event {
    Event {
        kind: kind.to_owned(),
        group: Some(router.group.clone()),
        family: Some(family_word(router.family).to_owned()),
        ..Event::default()
    }
}

/// A state's word for people and labels.
pub fn word(state: State) -> &'static str {
    match state {
        State::Initialize => "initialize",
        State::Backup => "backup",
        State::Active => "active",
    }
}

/// A family's word for people and labels.
pub fn family_word(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

async fn follow_peers(mut view: watch::Receiver<PeersView>, events: EventLog) {
    let mut known = PeersView::default();
    loop {
        let now = view.borrow_and_update().clone();
        for event in peer_events(&known, &now) {
            tell(&events, event);
        }
        known = now;
        if view.changed().await.is_err() {
            return;
        }
    }
}

fn peer_events(before: &PeersView, now: &PeersView) -> Vec<Event> {
    let mut events = Vec::new();
    for peer in &now.peers {
        let about = |from: Option<&str>, to: &str, reason: String| Event {
            kind: "peer".to_owned(),
            peer: Some(peer.name.clone()),
            from: from.map(str::to_owned),
            to: to.to_owned(),
            reason,
            ..Event::default()
        };
        let was = before.peers.iter().find(|one| one.name == peer.name);
        let was_up = was.is_some_and(|was| was.is_up);
        match (was_up, peer.is_up) {
            (false, true) => {
                let version = peer.version.as_deref().unwrap_or("unknown");
                let reason = format!("the sync link to {} is up; lbd {version}", peer.address);
                events.push(about(was.map(|_| "down"), "up", reason));
            }
            (true, false) => {
                let reason = peer.reason.clone().unwrap_or_default();
                events.push(about(Some("up"), "down", reason));
            }
            (true, true) | (false, false) => {}
        }
        let old_drift = was.map_or(&[][..], |was| &was.drift);
        if peer.is_up && old_drift != peer.drift {
            events.push(match peer.drift.as_slice() {
                [] => about(
                    None,
                    "no drift",
                    "its configuration is this node's".to_owned(),
                ),
                lines => about(None, "drift", lines.join("; ")),
            });
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::peers::PeerView;
    use crate::vrrp::protocol::{self, Dispute};

    fn router(state: State, since_unix_ms: u64, reason: &str) -> RouterStatus {
        RouterStatus {
            since_unix_ms,
            reason: reason.to_owned(),
            ..protocol::tests::router(state)
        }
    }

    fn events(news: Vec<News>) -> Vec<(String, Option<String>, String)> {
        let events = news.into_iter().filter_map(|one| one.event);
        events.map(|one| (one.kind, one.from, one.to)).collect()
    }

    #[test]
    fn a_change_of_state_is_told_once_and_a_failover_noted() {
        let mut known = Routers::default();
        let backup = router(State::Backup, 1_000, "it has begun");
        let first = known.update(std::slice::from_ref(&backup), 500);
        assert!(first[0].failover.is_none());
        assert_eq!(events(first)[0].2, "backup");
        assert_eq!(known.update(&[backup], 500), []);
        let active = router(State::Active, 2_000, "no advertisement of anybody");
        let news = known.update(&[active], 500);
        let failover = news[0].failover.as_ref().unwrap();
        assert_eq!(
            (failover.from, failover.to, failover.unix_ms),
            (State::Backup, State::Active, 2_000)
        );
        let event = news[0].event.as_ref().unwrap();
        assert_eq!(
            (event.group.as_deref(), event.family.as_deref()),
            (Some("web"), Some("ipv4"))
        );
        assert_eq!(event.reason, "no advertisement of anybody");
    }

    #[test]
    fn what_was_so_before_the_daemon_began_is_remembered_and_not_told() {
        let mut known = Routers::default();
        let active = router(State::Active, 1_000, "it preempts 10.0.0.1 of priority 1");
        let news = known.update(&[active], 5_000);
        assert!(news[0].failover.is_some());
        assert!(news[0].event.is_none());
    }

    #[test]
    fn the_last_failover_is_remembered_across_a_restart_of_the_daemon() {
        let moved = |from, to, unix_ms| {
            Some(Moved {
                from,
                to,
                unix_ms,
                reason: "10.0.0.1 is Active with priority 200".to_owned(),
            })
        };
        let mut web = router(State::Backup, 3_000, "it has begun");
        web.moved = moved(State::Active, State::Backup, 2_500);
        let mut db = router(State::Active, 1_500, "");
        db.group = "db".to_owned();
        db.moved = moved(State::Backup, State::Active, 1_500);
        let mut known = Routers::default();
        let news = known.update(&[web.clone(), db], 5_000);
        assert!(news.iter().all(|one| one.event.is_none()));
        let mut failovers = news.into_iter().filter_map(|one| one.failover);
        assert_eq!(failovers.next().unwrap().group, "db");
        let last = failovers.next().unwrap();
        assert_eq!(
            (&*last.group, last.from, last.to, last.unix_ms),
            ("web", State::Active, State::Backup, 2_500)
        );
        // Once is enough.
        web.state = State::Initialize;
        let news = known.update(&[web], 5_000);
        assert!(news[0].failover.is_none());
    }

    #[test]
    fn a_state_that_came_back_before_anybody_looked_is_told() {
        let mut known = Routers::default();
        let mut active = router(State::Active, 1_000, "a");
        known.update(std::slice::from_ref(&active), 0);
        active.counters.became_backup += 1;
        active.counters.became_active += 1;
        active.since_unix_ms = 3_000;
        assert_eq!(known.update(&[active], 0).len(), 1);
    }

    #[test]
    fn two_active_nodes_are_an_alarm() {
        let mut known = Routers::default();
        let mut active = router(State::Active, 1_000, "a");
        known.update(std::slice::from_ref(&active), 0);
        active.counters.conflicts = 1;
        active.counters.dual_active_ms = 40;
        let told = events(known.update(std::slice::from_ref(&active), 0));
        assert_eq!(told, [("alarm".to_owned(), None, "both Active".to_owned())]);
        // A process that was replaced counts anew.
        active.counters.conflicts = 0;
        assert_eq!(known.update(&[active], 0), []);
    }

    #[test]
    fn vips_that_were_removed_by_others_are_an_alarm() {
        let mut known = Routers::default();
        let mut active = router(State::Active, 1_000, "a");
        known.update(std::slice::from_ref(&active), 0);
        active.counters.vips_restored = 2;
        let news = known.update(std::slice::from_ref(&active), 0);
        let reason = &news[0].event.as_ref().unwrap().reason;
        assert!(reason.starts_with("2 VIPs had gone"), "{reason}");
        assert_eq!(known.update(&[active], 0), []);
    }

    #[test]
    fn a_stranger_that_claims_a_vip_is_an_alarm() {
        let mut known = Routers::default();
        let mut active = router(State::Active, 1_000, "a");
        known.update(std::slice::from_ref(&active), 0);
        active.counters.disputes = 2;
        active.dispute = Some(Dispute {
            vip: [203, 0, 113, 10].into(),
            by: "02:00:00:00:00:66".to_owned(),
            unix_ms: 7_000,
        });
        let mut news = known.update(std::slice::from_ref(&active), 0);
        let event = news.remove(0).event.unwrap();
        assert_eq!((event.unix_ms, &*event.to), (7_000, "disputed"));
        assert_eq!(
            event.reason,
            "02:00:00:00:00:66 claims 203.0.113.10, which is Active here: announced again"
        );
        assert_eq!(known.update(&[active], 0), []);
    }

    #[test]
    fn somebody_who_is_not_believed_is_an_alarm_until_he_is_silent() {
        let mut known = Routers::default();
        let mut active = router(State::Active, 1_000, "a");
        known.update(std::slice::from_ref(&active), 0);
        let mut words = |reason: Option<&str>| {
            active.distrusted = reason.map(str::to_owned);
            let told = events(known.update(std::slice::from_ref(&active), 0));
            told.into_iter().map(|(_, _, to)| to).collect::<Vec<_>>()
        };
        assert_eq!(words(Some("10.0.0.2 advertises")), ["alarm"]);
        assert_eq!(words(Some("10.0.0.3 advertises")), [""; 0]);
        assert_eq!(words(None), ["quiet"]);
        assert_eq!(words(None), [""; 0]);
    }

    #[test]
    fn a_peer_that_comes_goes_or_differs_is_told() {
        let view = |is_up, drift: &[&str]| PeersView {
            peers: vec![PeerView {
                name: "lb2".to_owned(),
                is_up,
                reason: (!is_up).then(|| "silent".to_owned()),
                drift: drift.iter().map(|line| (*line).to_owned()).collect(),
                ..PeerView::default()
            }],
            ..PeersView::default()
        };
        let words = |before, now| {
            let events = peer_events(&before, &now).into_iter();
            events.map(|one| one.to).collect::<Vec<_>>()
        };
        assert_eq!(words(PeersView::default(), view(false, &[])), [""; 0]);
        assert_eq!(words(PeersView::default(), view(true, &[])), ["up"]);
        assert_eq!(words(view(true, &[]), view(false, &[])), ["down"]);
        assert_eq!(words(view(true, &[]), view(true, &["x"])), ["drift"]);
        assert_eq!(words(view(true, &["x"]), view(true, &[])), ["no drift"]);
        assert_eq!(words(view(true, &["x"]), view(true, &["x"])), [""; 0]);
    }
}

//! When to have the kernel resolve a neighbour. Sans-IO: `now` goes in, hosts come out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::netlink::view::{LinkHost, NeighbourState, View};

/// A host that is known and not confirmed lately is asked for this often. The kernel confirms a
/// used entry by itself, but does not see what XDP sends.
const STALE_PERIOD: Duration = Duration::from_secs(5);

/// A host that is not known is asked for this often: it was just started, or is down.
const UNKNOWN_PERIOD: Duration = Duration::from_secs(1);

/// Clients that are resolved at the packet path's request in each period of [`UNKNOWN_PERIOD`]. An
/// attacker who makes up addresses on the link must not keep the control plane busy.
const CLIENTS_PER_PERIOD_MAX: usize = 256;

/// Who was asked for, and when.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    asked: BTreeMap<LinkHost, Instant>,
    clients: BTreeSet<LinkHost>,
    clients_since: Option<Instant>,
}

impl Resolver {
    /// The hosts of `hosts` to be resolved now.
    pub(super) fn due(
        &mut self,
        hosts: &BTreeSet<LinkHost>,
        view: &View,
        now: Instant,
    ) -> Vec<LinkHost> {
        self.asked.retain(|host, _| hosts.contains(host));
        let is_due = |host: &&LinkHost| {
            let Some(period) = period(host, view) else {
                return false;
            };
            let asked = self.asked.get(host);
            asked.is_none_or(|asked| now.duration_since(*asked) >= period)
        };
        let due: Vec<LinkHost> = hosts.iter().filter(is_due).copied().collect();
        self.asked.extend(due.iter().map(|host| (*host, now)));
        due
    }

    /// Whether a client that the packet path asks for is to be resolved: once in a period, and not
    /// too many in one.
    pub(super) fn accepts_client(&mut self, host: LinkHost, now: Instant) -> bool {
        let is_over = self
            .clients_since
            .is_none_or(|since| now.duration_since(since) >= UNKNOWN_PERIOD);
        if is_over {
            self.clients.clear();
            self.clients_since = Some(now);
        }
        self.clients.len() < CLIENTS_PER_PERIOD_MAX && self.clients.insert(host)
    }
}

fn period(host: &LinkHost, view: &View) -> Option<Duration> {
    let state = view.neighbours.get(host).map(|entry| entry.state);
    match state {
        Some(NeighbourState::Confirmed) => None,
        Some(NeighbourState::Stale) => Some(STALE_PERIOD),
        Some(NeighbourState::Unknown) | None => Some(UNKNOWN_PERIOD),
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;
    use crate::netlink::view::NeighbourEntry;

    const HOST: LinkHost = (2, IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 9)));

    fn view(state: NeighbourState) -> View {
        let entry = NeighbourEntry {
            address: Some([2; 6]),
            state,
        };
        View {
            neighbours: BTreeMap::from([(HOST, entry)]),
            ..View::default()
        }
    }

    /// Seconds at which a host in this state is asked for.
    fn asked_at(view: &View) -> Vec<u64> {
        let start = Instant::now();
        let hosts = BTreeSet::from([HOST]);
        let mut resolver = Resolver::default();
        (0..8)
            .filter(|second| {
                let now = start + Duration::from_secs(*second);
                !resolver.due(&hosts, view, now).is_empty()
            })
            .collect()
    }

    #[test]
    fn the_less_is_known_the_more_often_is_asked() {
        assert!(asked_at(&view(NeighbourState::Confirmed)).is_empty());
        assert_eq!(asked_at(&view(NeighbourState::Stale)), [0, 5]);
        assert_eq!(asked_at(&view(NeighbourState::Unknown)).len(), 8);
        assert_eq!(asked_at(&View::default()).len(), 8);
    }

    #[test]
    fn a_client_is_resolved_once_a_period() {
        let mut resolver = Resolver::default();
        let now = Instant::now();
        assert!(resolver.accepts_client(HOST, now));
        assert!(!resolver.accepts_client(HOST, now));
        assert!(resolver.accepts_client(HOST, now + UNKNOWN_PERIOD));
    }

    #[test]
    fn a_flood_of_clients_is_bounded() {
        let mut resolver = Resolver::default();
        let now = Instant::now();
        let accepted = (0..10_000_u32)
            .filter(|n| resolver.accepts_client((2, IpAddr::from(n.to_be_bytes())), now))
            .count();
        assert_eq!(accepted, CLIENTS_PER_PERIOD_MAX);
    }
}

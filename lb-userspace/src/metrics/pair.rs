//! VIPs that move, and the nodes that they move between.

use super::families::Families;
use crate::control::herald::{family_word, word};
use crate::control::peers::{PeerView, PeersView};
use crate::control::vrrp::VrrpHandle;
use crate::vrrp::protocol::{RouterCounters, RouterStatus, State};

/// A figure of a virtual router.
type Figure = fn(&RouterStatus) -> f64;

/// A count of a virtual router.
type Count = fn(&RouterCounters) -> u64;

/// What `lbd-vrrp` has said last.
pub(super) fn vips(vrrp: &VrrpHandle, families: &mut Families) {
    let status = vrrp.status().unwrap_or_default();
    states(&status.routers, families);
    let gauges: [(&str, &str, Figure); 4] = [
        (
            "lbd_vrrp_priority",
            "The priority at present; 0 while the node cannot have the VIPs",
            |one| f64::from(one.priority),
        ),
        (
            "lbd_vrrp_priority_configured",
            "The configured priority",
            |one| f64::from(one.priority_configured),
        ),
        (
            "lbd_vrrp_held",
            "Whether it does not take over although it would by silence or by priority",
            |one| f64::from(one.held.is_some()),
        ),
        (
            "lbd_vrrp_distrusted",
            "Whether somebody advertises whom this node does not believe, or who does not believe it",
            |one| f64::from(one.distrusted.is_some()),
        ),
    ];
    for (name, help, figure) in gauges {
        let mut values = families.gauge(name, help);
        for one in &status.routers {
            values.put(&labels(one), figure(one));
        }
    }
    let counters: [(&str, &str, Count); 7] = [
        (
            "lbd_vrrp_adverts_sent_total",
            "Advertisements sent",
            |one| one.sent,
        ),
        (
            "lbd_vrrp_adverts_received_total",
            "Valid advertisements received",
            |one| one.received,
        ),
        (
            "lbd_vrrp_adverts_refused_total",
            "Packets refused: malformed, of another version, with a wrong hop limit or checksum",
            |one| one.refused,
        ),
        (
            "lbd_vrrp_adverts_unauthentic_total",
            "Packets refused because they were not authentic, or old",
            |one| one.unauthentic,
        ),
        (
            "lbd_vrrp_conflicts_total",
            "Times that another one was Active, too",
            |one| one.conflicts,
        ),
        (
            "lbd_vrrp_vips_restored_total",
            "VIPs that had gone from the interface of an Active node, and were put back",
            |one| one.vips_restored,
        ),
        (
            "lbd_vrrp_disputes_total",
            "Times that somebody else claimed a VIP by ARP or neighbour discovery while it was Active here",
            |one| one.disputes,
        ),
    ];
    for (name, help, count) in counters {
        let mut values = families.counter(name, help);
        for one in &status.routers {
            values.count(&labels(one), count(&one.counters));
        }
    }
    let help = "How long another one was Active, too";
    let mut dual = families.counter("lbd_vrrp_dual_active_seconds_total", help);
    for one in &status.routers {
        dual.put(&labels(one), one.counters.dual_active_ms as f64 / 1_000.0);
    }
    transitions(&status.routers, families);
    failovers(vrrp, families);
}

fn labels(router: &RouterStatus) -> [(&str, &str); 2] {
    [
        ("group", router.group.as_str()),
        ("family", family_word(router.family)),
    ]
}

fn states(routers: &[RouterStatus], families: &mut Families) {
    let help = "1 for the state that a virtual router is in";
    let mut values = families.gauge("lbd_vrrp_state", help);
    for one in routers {
        for state in [State::Initialize, State::Backup, State::Active] {
            let [group, family] = labels(one);
            let labels = [group, family, ("state", word(state))];
            values.put(&labels, f64::from(one.state == state));
        }
    }
    let help = "Since when it is in that state, in seconds since 1970";
    let mut since = families.gauge("lbd_vrrp_state_since_timestamp_seconds", help);
    for one in routers {
        since.put(&labels(one), one.since_unix_ms as f64 / 1_000.0);
    }
}

fn transitions(routers: &[RouterStatus], families: &mut Families) {
    let help = "Times that a virtual router became Active or Backup, since lbd-vrrp began";
    let mut values = families.counter("lbd_vrrp_transitions_total", help);
    for one in routers {
        let [group, family] = labels(one);
        let counts = [
            (State::Active, one.counters.became_active),
            (State::Backup, one.counters.became_backup),
        ];
        for (state, count) in counts {
            values.count(&[group, family, ("to", word(state))], count);
        }
    }
}

fn failovers(vrrp: &VrrpHandle, families: &mut Families) {
    let help = "Times that VIPs came to this node or left it, since lbd began, by the cause";
    let mut values = families.counter("lbd_vrrp_failovers_total", help);
    for ((group, family), cause, count) in vrrp.failover_counts() {
        let labels = [
            ("group", group.as_str()),
            ("family", family_word(family)),
            ("reason", cause),
        ];
        values.count(&labels, count);
    }
}

/// A figure of a peer; `None` = it is not known.
type PeerFigure = fn(&PeerView) -> Option<f64>;

/// A count of a peer.
type PeerCount = fn(&PeerView) -> u64;

/// What is known of the other nodes.
pub(super) fn peers(view: &PeersView, families: &mut Families) {
    let help = "Whether this node knows all that its peers know";
    families
        .gauge("lbd_caught_up", help)
        .put(&[], f64::from(view.behind.is_none()));
    let gauges: [(&str, &str, PeerFigure); 7] = [
        ("lbd_peer_up", "Whether the sync link is up", |one| {
            Some(f64::from(one.is_up))
        }),
        (
            "lbd_peer_heartbeat_age_seconds",
            "Time since the peer's last heartbeat",
            |one| Some(one.heartbeat_age_ms? as f64 / 1_000.0),
        ),
        (
            "lbd_peer_round_trip_seconds",
            "From here to the peer and back",
            |one| Some(f64::from(one.rtt_us?) / 1_000_000.0),
        ),
        (
            "lbd_peer_lag_seconds",
            "Since when the peer lacks a change of the flow table that was made here",
            |one| Some(one.lag_ms as f64 / 1_000.0),
        ),
        (
            "lbd_peer_flows_unacked",
            "Changes of the flow table on their way to the peer",
            |one| Some(one.unacked_flows as f64),
        ),
        (
            "lbd_peer_caught_up",
            "Whether the peer knows all that its peers know, as it says",
            |one| one.is_up.then(|| f64::from(one.behind.is_none())),
        ),
        (
            "lbd_peer_drift",
            "In how many things the peer's configuration differs from this node's",
            |one| one.is_up.then_some(one.drift.len() as f64),
        ),
    ];
    for (name, help, figure) in gauges {
        let mut values = families.gauge(name, help);
        for one in &view.peers {
            if let Some(value) = figure(one) {
                values.put(&[("peer", &one.name)], value);
            }
        }
    }
    let counters: [(&str, &str, PeerCount); 2] = [
        (
            "lbd_peer_flows_sent_total",
            "Changes of the flow table sent to the peer, once more included",
            |one| one.sent_flows,
        ),
        (
            "lbd_peer_flows_received_total",
            "Changes of the flow table received from the peer",
            |one| one.received_flows,
        ),
    ];
    for (name, help, count) in counters {
        let mut values = families.counter(name, help);
        for one in &view.peers {
            values.count(&[("peer", &one.name)], count(one));
        }
    }
    let help = "Messages of the peer that were refused, by reason";
    let mut refused = families.counter("lbd_peer_refused_total", help);
    for one in &view.peers {
        for (reason, count) in &one.refused {
            refused.count(&[("peer", &one.name), ("reason", reason)], *count);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{mpsc, watch};

    use super::*;
    use crate::control::vrrp::Failover;
    use crate::vrrp::protocol::{self, Family, Status};

    fn router() -> RouterStatus {
        RouterStatus {
            since_ms: 5,
            since_unix_ms: 1_700_000_000_500,
            reason: "it preempts 10.0.0.2 of priority 100".to_owned(),
            priority_configured: 200,
            priority: 150,
            counters: RouterCounters {
                became_active: 2,
                sent: 7,
                dual_active_ms: 1_500,
                disputes: 3,
                ..RouterCounters::default()
            },
            ..protocol::tests::router(State::Active)
        }
    }

    fn assert_lines(text: &str, lines: &[&str]) {
        for line in lines {
            assert!(text.lines().any(|one| one == *line), "{line} in\n{text}");
        }
    }

    #[test]
    fn routers_are_told_by_group_and_family() {
        let vrrp = VrrpHandle::default();
        let text = |vrrp: &VrrpHandle| {
            let mut families = Families::default();
            vips(vrrp, &mut families);
            families.encode().unwrap()
        };
        assert_eq!(text(&vrrp), "");
        let status = Status {
            routers: vec![router()],
            ..Status::default()
        };
        let (_status, receiver) = watch::channel(Some(status));
        vrrp.attach(receiver, mpsc::channel(1).0);
        vrrp.note(Failover {
            group: "web".to_owned(),
            family: Family::Ipv4,
            from: State::Backup,
            to: State::Active,
            unix_ms: 1,
            reason: router().reason,
        });
        assert_lines(
            &text(&vrrp),
            &[
                "lbd_vrrp_state{group=\"web\",family=\"ipv4\",state=\"active\"} 1",
                "lbd_vrrp_state{group=\"web\",family=\"ipv4\",state=\"backup\"} 0",
                "lbd_vrrp_state_since_timestamp_seconds{group=\"web\",family=\"ipv4\"} 1700000000.5",
                "lbd_vrrp_priority{group=\"web\",family=\"ipv4\"} 150",
                "lbd_vrrp_adverts_sent_total{group=\"web\",family=\"ipv4\"} 7",
                "lbd_vrrp_dual_active_seconds_total{group=\"web\",family=\"ipv4\"} 1.5",
                "lbd_vrrp_disputes_total{group=\"web\",family=\"ipv4\"} 3",
                "lbd_vrrp_transitions_total{group=\"web\",family=\"ipv4\",to=\"active\"} 2",
                "lbd_vrrp_failovers_total{group=\"web\",family=\"ipv4\",reason=\"preemption\"} 1",
            ],
        );
    }

    #[test]
    fn of_a_peer_that_was_never_heard_only_that_is_told() {
        let view = PeersView {
            behind: Some("no peer has answered yet".to_owned()),
            peers: vec![
                PeerView {
                    name: "lb2".to_owned(),
                    ..PeerView::default()
                },
                PeerView {
                    name: "lb3".to_owned(),
                    is_up: true,
                    heartbeat_age_ms: Some(30),
                    rtt_us: Some(250),
                    lag_ms: 4,
                    drift: vec!["x".to_owned()],
                    refused: [("forged".to_owned(), 9)].into(),
                    ..PeerView::default()
                },
            ],
            ..PeersView::default()
        };
        let mut families = Families::default();
        peers(&view, &mut families);
        let text = families.encode().unwrap();
        assert_lines(
            &text,
            &[
                "lbd_caught_up 0",
                "lbd_peer_up{peer=\"lb2\"} 0",
                "lbd_peer_up{peer=\"lb3\"} 1",
                "lbd_peer_heartbeat_age_seconds{peer=\"lb3\"} 0.03",
                "lbd_peer_round_trip_seconds{peer=\"lb3\"} 0.00025",
                "lbd_peer_lag_seconds{peer=\"lb3\"} 0.004",
                "lbd_peer_drift{peer=\"lb3\"} 1",
                "lbd_peer_refused_total{peer=\"lb3\",reason=\"forged\"} 9",
            ],
        );
        assert!(!text.contains("lbd_peer_heartbeat_age_seconds{peer=\"lb2\"}"));
        assert!(!text.contains("lbd_peer_caught_up{peer=\"lb2\"}"));
    }
}

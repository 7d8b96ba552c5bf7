//! `lbctl vip` and `lbctl peer`, with what a supervisor and a sync link would say.

use lb_userspace::control::herald::Herald;
use lb_userspace::control::peers::{PeerView, PeersView};
use lb_userspace::control::vrrp::{FailoverError, FailoverRequest};
use lb_userspace::vrrp::protocol::{
    Family, PeerRouter, RouterCounters, RouterStatus, State, Status,
};
use tokio::sync::{mpsc, watch};

use crate::fake::Daemon;
use crate::lbctl::{lbctl, row};

fn router(family: Family, state: State) -> RouterStatus {
    let vip = match family {
        Family::Ipv4 => "203.0.113.10",
        Family::Ipv6 => "2001:db8::10",
    };
    RouterStatus {
        group: "web".to_owned(),
        family,
        vrid: 51,
        vips: vec![vip.parse().unwrap()],
        state,
        since_ms: 1_234,
        since_unix_ms: 1_700_000_000_123,
        reason: "no advertisement of 10.0.0.2 for 310 ms".to_owned(),
        priority_configured: 200,
        priority: 150,
        troubles: vec!["eth1 is down: -50".to_owned()],
        active: None,
        active_priority: None,
        dispute: None,
        moved: None,
        held: None,
        distrusted: None,
        counters: RouterCounters {
            sent: 77,
            conflicts: 1,
            dual_active_ms: 42,
            ..RouterCounters::default()
        },
    }
}

/// Attaches a process with these routers, and somebody who hands groups over, or says why not.
fn attach(
    daemon: &Daemon,
    routers: Vec<RouterStatus>,
    outcome: Result<&'static str, FailoverError>,
) -> watch::Sender<Option<Status>> {
    let status = Status {
        version: "0.1.0".to_owned(),
        pid: 42,
        uptime_ms: 5_000,
        is_realtime: true,
        routers,
        taken_vips: Vec::new(),
        is_stopping: false,
    };
    let (sender, receiver) = watch::channel(Some(status));
    let (requests, mut taken) = mpsc::channel::<FailoverRequest>(1);
    daemon.monitor.vrrp.attach(receiver, requests);
    daemon.block_on(async move {
        tokio::spawn(async move {
            while let Some(request) = taken.recv().await {
                let outcome = outcome.clone().map(str::to_owned);
                request.reply.send(outcome).unwrap();
            }
        });
    });
    sender
}

fn peer() -> PeerView {
    PeerView {
        name: "lb2".to_owned(),
        address: "10.0.9.2:7946".to_owned(),
        is_up: true,
        since_unix_ms: 1,
        version: Some("0.1.0".to_owned()),
        protocol: Some("1.0".to_owned()),
        heartbeat_age_ms: Some(30),
        rtt_us: Some(250),
        lag_ms: 4,
        unacked_flows: 3,
        routers: vec![PeerRouter {
            group: "web".to_owned(),
            family: Family::Ipv4,
            state: State::Active,
            priority: 100,
            is_fit: true,
        }],
        drift: vec!["service `web`, backend `web1` weight 100 -> 7".to_owned()],
        refused: [("forged".to_owned(), 9)].into(),
        ..PeerView::default()
    }
}

#[test]
fn vips_are_listed_with_who_has_them_and_why() {
    let daemon = Daemon::start_pair();
    let unknown = daemon.ok("vip list");
    assert!(unknown.contains("lbd-vrrp has not said anything yet"));
    assert_eq!(
        row(&unknown, "web ipv4")[..4],
        ["web", "ipv4", "203.0.113.10", "unknown"]
    );
    let mut backup = router(Family::Ipv6, State::Backup);
    backup.active = Some("fe80::2".parse().unwrap());
    backup.active_priority = Some(100);
    backup.held = Some("lb2 is well".to_owned());
    let routers = vec![router(Family::Ipv4, State::Active), backup];
    let _status = attach(&daemon, routers, Ok(""));
    let table = daemon.ok("vip list");
    let cells = row(&table, "web ipv4").join(" ");
    assert_eq!(
        cells,
        "web ipv4 203.0.113.10 active 1234 ms 150 of 200 this node eth1 is down: -50"
    );
    let cells = row(&table, "web ipv6").join(" ");
    assert!(cells.contains("fe80::2 (100) held: lb2 is well"), "{cells}");
    let wide = daemon.ok("vip list --wide");
    let cells = row(&wide, "web ipv4").join(" ");
    assert!(
        cells.contains("eth0 51") && cells.contains("100 ms"),
        "{cells}"
    );
    assert!(cells.contains("77") && cells.contains("42 ms"), "{cells}");
    assert!(cells.contains("no advertisement of 10.0.0.2"), "{cells}");
    let json = daemon.json("vip list");
    assert_eq!(json["process"]["pid"], 42);
    assert_eq!(json["routers"][0]["state"], "active");
    assert_eq!(json["routers"][0]["counters"]["dual_active_ms"], 42);
    assert_eq!(json["routers"][1]["held"], "lb2 is well");
}

#[test]
fn a_group_is_handed_over_and_the_outcome_told() {
    let daemon = Daemon::start_pair();
    let active = vec![router(Family::Ipv4, State::Active)];
    let _status = attach(&daemon, active, Ok("handed over to 10.0.0.2"));
    let told = daemon.ok("vip failover web");
    assert!(
        told.starts_with("group web: handed over to 10.0.0.2, in ") && told.ends_with(" ms\n"),
        "{told}"
    );
    let json = daemon.json("vip failover web");
    assert_eq!(json["group"], "web");
    assert!(json["took_ms"].as_f64().unwrap() >= 0.0);
}

#[test]
fn what_cannot_be_handed_over_is_refused_with_the_way_out() {
    let alone = Daemon::start();
    assert!(alone.ok("vip list").contains("add [[vrrp]]"));
    let refused = alone.refused("vip failover web");
    assert!(
        refused.contains("groups are [[vrrp]] in the config file"),
        "{refused}"
    );

    let daemon = Daemon::start_pair();
    let refused = daemon.refused("vip failover wev");
    assert!(refused.contains("did you mean `web`?"), "{refused}");
    let refused = daemon.refused("vip failover web");
    assert!(refused.contains("lbd-vrrp is not running"), "{refused}");
    let backup = vec![router(Family::Ipv4, State::Backup)];
    let _status = attach(&daemon, backup, Ok(""));
    let refused = daemon.refused("vip failover web");
    assert!(refused.contains("nobody else is known to be"), "{refused}");
    daemon.monitor.peers.set(PeersView {
        peers: vec![peer()],
        ..PeersView::default()
    });
    let refused = daemon.refused("vip failover web");
    assert!(
        refused.contains("is not Active on this node; lb2 is: `lbctl vip failover web` there"),
        "{refused}"
    );

    let daemon = Daemon::start_pair();
    let active = vec![router(Family::Ipv4, State::Active)];
    let failed = FailoverError::Failed("nobody is ready to take over".to_owned());
    let _status = attach(&daemon, active, Err(failed));
    let refused = daemon.refused("vip failover web");
    assert!(
        refused.contains("nobody is ready to take over"),
        "{refused}"
    );
}

#[test]
fn a_hand_over_that_nobody_answers_may_be_done_all_the_same() {
    let reason = "lbd-vrrp".to_owned();
    for (error, code) in [
        (FailoverError::Absent(reason.clone()), 1),
        (FailoverError::Unanswered(reason), 3),
    ] {
        let daemon = Daemon::start_pair();
        let active = vec![router(Family::Ipv4, State::Active)];
        let _status = attach(&daemon, active, Err(error));
        let done = lbctl(&daemon.socket, "vip failover web");
        assert_eq!((done.code, done.stdout.as_str()), (code, ""));
        assert!(done.stderr.contains("lbd-vrrp"), "{}", done.stderr);
    }
}

#[test]
fn peers_are_shown_with_what_is_not_shared_yet() {
    let alone = Daemon::start();
    let refused = alone.refused("peer status");
    assert!(refused.contains("has no [cluster]"), "{refused}");

    let daemon = Daemon::start_pair();
    let text = daemon.ok("peer status");
    assert!(text.contains("no peers are known yet"), "{text}");
    daemon.monitor.peers.set(PeersView {
        behind: Some("the flows of lb2 are under way".to_owned()),
        hash_key: "00112233aabbccdd".to_owned(),
        peers: vec![
            peer(),
            PeerView {
                name: "lb3".to_owned(),
                address: "10.0.9.3:7946".to_owned(),
                reason: Some("it speaks version 2 of the protocol, and this node 1".to_owned()),
                ..PeerView::default()
            },
        ],
        refused_changes: vec!["service `db`: no room".to_owned()],
        ..PeersView::default()
    });
    let text = daemon.ok("peer status");
    for words in [
        "lb1",
        "no: the flows of lb2 are under way",
        "00112233aabbccdd",
        "Not taken over: service `db`: no room",
        "lb2 at 10.0.9.2:7946",
        "web ipv4 active priority 100",
        "30 ms ago, there and back in 250 us",
        "lag 4 ms, 3 not acknowledged",
        "9 forged",
        "service `web`, backend `web1` weight 100 -> 7",
        "protocol 1.0",
        "it speaks version 2 of the protocol",
        "never heard",
    ] {
        assert!(text.contains(words), "{words:?} in\n{text}");
    }
    let json = daemon.json("peer status");
    assert_eq!(json["node"], "lb1");
    assert_eq!(json["listen"], "10.0.9.1:7946");
    assert_eq!(json["roles"][0]["state"], "unknown");
    assert_eq!(json["peers"][0]["lag_ms"], 4);
    assert_eq!(json["peers"][1]["is_up"], false);
}

#[test]
fn a_failover_becomes_an_event_and_the_last_one_is_shown() {
    let daemon = Daemon::start_pair();
    let status = attach(&daemon, vec![], Ok(""));
    let herald = daemon.block_on(async { Herald::start(&daemon.monitor) });
    let mut routers = vec![router(Family::Ipv4, State::Backup)];
    let say = |routers: &[RouterStatus]| {
        status.send_modify(|status| status.as_mut().unwrap().routers = routers.to_vec());
    };
    let next = |after| {
        let waited = async { daemon.monitor.events.wait_after(after).await };
        daemon.block_on(async {
            tokio::time::timeout(std::time::Duration::from_secs(20), waited).await
        })
    };
    // In the future, so that it is news to this daemon.
    routers[0].since_unix_ms = 4_000_000_000_000;
    say(&routers);
    next(0).unwrap();
    routers[0].state = State::Active;
    say(&routers);
    next(1).unwrap();
    daemon.monitor.peers.set(PeersView {
        peers: vec![peer()],
        ..PeersView::default()
    });
    next(2).unwrap();
    let events = daemon.monitor.events.after(1);
    assert_eq!(
        (events[0].kind.as_str(), events[0].to.as_str()),
        ("vip", "active")
    );
    assert_eq!(events[0].group.as_deref(), Some("web"));
    assert_eq!(
        (events[1].kind.as_str(), events[1].to.as_str()),
        ("peer", "up")
    );
    assert_eq!(events[1].peer.as_deref(), Some("lb2"));
    let json = daemon.json("peer status");
    assert_eq!(json["last_failover"]["to"], "active");
    assert_eq!(
        json["last_failover"]["reason"],
        "no advertisement of 10.0.0.2 for 310 ms"
    );
    drop(herald);
    let done = lbctl(&daemon.socket, "events");
    assert!(
        done.stdout.contains("vip     web ipv4  backup -> active"),
        "{}",
        done.stdout
    );
}

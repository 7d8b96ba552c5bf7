//! `lbctl backend drain`, with and without `--strict` and `--wait`, and `ready`.

use std::net::IpAddr;
use std::time::Duration;

use lb_lab::serde_json::{self, Value};
use lb_lab::topology::{VIP_V4, VIP_V6};
use lb_lab::{Forward, Interfaces, Plan, ServiceText, Site, require, shares};

use crate::stage::{Busy, IDLE_TIMEOUT, LONG_IDLE_TIMEOUT, Web, at, count, open_to_each, slots};

const ALL: [&str; 3] = ["web1", "web2", "web3"];
const OTHERS: [&str; 2] = ["web2", "web3"];

fn site(forward: Forward, vip: IpAddr, idle_timeout: Duration) -> Site {
    Site::start(Plan::new(forward, Interfaces::One, 3), |net| {
        let web = ServiceText::new(net, "web", vip).idle_timeout(idle_timeout);
        vec![web.backends(net, &ALL)]
    })
    .unwrap()
}

/// New connections go to these backends alone, and to each of them.
fn new_ones_go_to(site: &Site, vip: IpAddr, backends: &[&str]) {
    let counts = site.net.client.http_get_many(at(vip), 100).unwrap();
    let equal: Vec<(&str, u32)> = backends.iter().map(|name| (*name, 1)).collect();
    shares::follow_weights(&counts, &equal).unwrap();
}

/// A whole drain: with a connection open it is not over, and once the last one has closed it is, after an
/// idle time-out.
fn drained_backend_keeps_what_it_has(forward: Forward, vip: IpAddr) {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = site(forward, vip, IDLE_TIMEOUT);
    let web = Web {
        lbd: &site.lbd,
        name: "web",
    };
    let held = open_to_each(&site.net, at(vip), &ALL);
    let open_count = count(&held)["web1"];
    let busy = Busy::start(held);
    web.backend("drain", &["web1"]);
    assert!(slots(&web.ring(), "slots")["web1"] > 0, "it is prepared");
    web.await_change();
    assert!(!web.slots().contains_key("web1"), "{:?}", web.slots());
    new_ones_go_to(&site, vip, &OTHERS);

    // Longer than until the slots have settled, but for those with an exception.
    let waited = web.drain_and_wait("web1", "8s");
    assert_eq!(waited.code, 4, "{waited:?}");
    let left = format!("{open_count} flows on record ({open_count} established");
    assert!(waited.stdout.contains(&left), "{waited:?}");
    assert!(waited.stderr.contains(&left), "told at once: {waited:?}");
    let ring = web.ring();
    assert_eq!(ring["moving_slots"], 0, "{ring}");
    assert!(
        ring["quiet_slots"].as_u64().unwrap() >= open_count,
        "{ring}"
    );
    new_ones_go_to(&site, vip, &OTHERS);

    drop(busy.stop());
    let waited = web.drain_and_wait("web1", "30s");
    assert_eq!(waited.code, 0, "{waited:?}");
    assert!(waited.stdout.contains("no flow is left"), "{waited:?}");
    web.await_settled();

    web.backend("ready", &["web1"]);
    web.await_change();
    new_ones_go_to(&site, vip, &ALL);
}

#[test]
fn drained_dsr_backend_keeps_its_connections_and_the_wait_ends_with_the_last() {
    drained_backend_keeps_what_it_has(Forward::Dsr, VIP_V4);
}

#[test]
fn drained_nat_backend_keeps_its_connections_and_the_wait_ends_with_the_last() {
    drained_backend_keeps_what_it_has(Forward::Nat, VIP_V6);
}

#[test]
fn wait_for_a_drain_is_not_certain_before_an_idle_time_out() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = site(Forward::Dsr, VIP_V4, Duration::from_secs(60));
    let web = Web {
        lbd: &site.lbd,
        name: "web",
    };
    // It is on no record, and silent.
    let held = open_to_each(&site.net, at(VIP_V4), &["web1"]);
    let waited = web.drain_and_wait("web1", "3s");
    assert_eq!(waited.code, 5, "{waited:?}");
    assert!(waited.stdout.contains("0 flows on record"), "{waited:?}");
    let until = waited.stderr.lines().last().unwrap();
    assert!(until.contains("certain in 5"), "of 60 s: {until}");

    let words = ["backend", "drain", "web", "web1", "--wait", "1s"];
    let json = site.lbd.ctl(&[&["-o", "json"][..], &words].concat());
    let json = json.unwrap();
    assert_eq!(json.code, 5);
    let found: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(
        (&found["state"], &found["slots"]),
        (&"drain".into(), &0.into())
    );
    let certain_in_s = found["certain_in_s"].as_u64().unwrap();
    assert!((40..60).contains(&certain_in_s), "{found}");

    // At its next word it is known.
    for mut one in held {
        one.say().unwrap();
    }
    let waited = web.drain_and_wait("web1", "1s");
    assert_eq!(waited.code, 4, "{waited:?}");
}

#[test]
fn strict_drain_takes_effect_before_the_command_returns() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = site(Forward::Dsr, VIP_V6, LONG_IDLE_TIMEOUT);
    let web = Web {
        lbd: &site.lbd,
        name: "web",
    };
    let mut held = open_to_each(&site.net, at(VIP_V6), &ALL);
    web.backend("drain", &["web1", "--strict"]);
    assert!(!web.slots().contains_key("web1"), "{:?}", web.slots());
    new_ones_go_to(&site, VIP_V6, &OTHERS);

    // One that is being prepared becomes strict.
    web.backend("drain", &["web2"]);
    assert!(web.slots().contains_key("web2"));
    web.backend("drain", &["web2", "--strict"]);
    assert!(!web.slots().contains_key("web2"), "{:?}", web.slots());
    for one in &mut held {
        one.say().unwrap();
    }
    for name in OTHERS {
        web.backend("ready", &[name]);
    }
    web.backend("ready", &["web1"]);
    web.await_change();
    new_ones_go_to(&site, VIP_V6, &ALL);
    for one in &mut held {
        one.say().unwrap();
    }
}

#[test]
fn drain_of_a_service_in_turn_counts_exactly() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = Site::start(Plan::new(Forward::Dsr, Interfaces::One, 3), |net| {
        let web = ServiceText::new(net, "web", VIP_V4).scheduler("round-robin");
        vec![web.idle_timeout(IDLE_TIMEOUT).backends(net, &ALL)]
    })
    .unwrap();
    let web = Web {
        lbd: &site.lbd,
        name: "web",
    };
    let busy = Busy::start(open_to_each(&site.net, at(VIP_V4), &ALL));
    let waited = web.drain_and_wait("web1", "1s");
    assert_eq!(waited.code, 4, "{waited:?}");
    assert!(waited.stdout.contains("1 established"), "{waited:?}");
    new_ones_go_to(&site, VIP_V4, &OTHERS);
    drop(busy.stop());
    let waited = web.drain_and_wait("web1", "30s");
    assert_eq!(waited.code, 0, "{waited:?}");
}

#[test]
fn wait_for_the_last_backend_says_that_new_flows_still_come() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = site(Forward::Dsr, VIP_V4, IDLE_TIMEOUT);
    let web = Web {
        lbd: &site.lbd,
        name: "web",
    };
    for name in OTHERS {
        web.backend("drain", &[name, "--strict"]);
    }
    let waited = web.drain_and_wait("web1", "1s");
    assert_eq!(waited.code, 5, "{waited:?}");
    assert!(waited.stderr.contains("no backend can take new flows"));
    let reason = waited.stderr.lines().last().unwrap();
    assert!(
        reason.contains("still send new flows there"),
        "nothing becomes certain by waiting: {reason}"
    );
    new_ones_go_to(&site, VIP_V4, &["web1"]);
}

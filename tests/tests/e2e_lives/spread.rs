//! Who gets how many of the new connections: backup groups, weights, slow start.

use std::collections::BTreeMap;

use lb_lab::topology::{VIP_V4, VIP_V6};
use lb_lab::wait::wait_until;
use lb_lab::{Forward, Interfaces, Plan, ServiceText, Site, require, shares};

use crate::stage::{Busy, IDLE_TIMEOUT, PATIENCE, Web, at, open_to_each};

const ALL: [&str; 3] = ["web1", "web2", "web3"];

/// Requests by which a share is told.
const REQUEST_COUNT: u32 = 300;

#[test]
fn backups_serve_group_by_group_while_nobody_else_can() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = Site::start(Plan::new(Forward::Dsr, Interfaces::One, 3), |net| {
        let web = ServiceText::new(net, "web", VIP_V4)
            .idle_timeout(IDLE_TIMEOUT)
            .backends(net, &ALL);
        vec![web.backup("web2", 1).backup("web3", 2)]
    })
    .unwrap();
    let web = Web {
        lbd: &site.lbd,
        name: "web",
    };
    let serves = |name: &str| {
        let counts = site.net.client.http_get_many(at(VIP_V4), 20).unwrap();
        assert!(counts.keys().eq([name]), "{counts:?}, not {name}");
    };
    serves("web1");
    let busy = Busy::start(open_to_each(&site.net, at(VIP_V4), &["web1"]));
    web.set_health("web1", "down");
    serves("web2");
    web.backend("drain", &["web2", "--strict"]);
    serves("web3");
    let eligible = |name: &str| {
        let show = site.lbd.ctl_json(&["backend", "show", "web", name]);
        show.unwrap()["is_eligible"].as_bool().unwrap()
    };
    assert_eq!(ALL.map(eligible), [false, false, true]);
    web.backend("ready", &["web2"]);
    web.await_change();
    serves("web2");
    web.set_health("web1", "up");
    web.await_change();
    serves("web1");
    assert_eq!(ALL.map(eligible), [true, false, false]);
    busy.stop();
}

/// New connections follow the weights at once after the change was prepared, and old ones stay.
#[test]
fn shares_follow_a_change_of_weights() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = Site::start(Plan::new(Forward::Nat, Interfaces::One, 3), |net| {
        let web = ServiceText::new(net, "web", VIP_V6).idle_timeout(IDLE_TIMEOUT);
        vec![web.backends(net, &ALL)]
    })
    .unwrap();
    let web = Web {
        lbd: &site.lbd,
        name: "web",
    };
    let busy = Busy::start(open_to_each(&site.net, at(VIP_V6), &ALL));
    for weights in [[1, 1, 3], [4, 1, 3], [1, 1, 1]] {
        for (name, weight) in ALL.into_iter().zip(weights) {
            web.backend("weight", &[name, &(weight * 100).to_string()]);
        }
        web.await_change();
        let counts = site.net.client.http_get_many(at(VIP_V6), REQUEST_COUNT);
        let expected: Vec<(&str, u32)> = ALL.into_iter().zip(weights).collect();
        shares::follow_weights(&counts.unwrap(), &expected).unwrap();
    }
    busy.stop();
}

#[test]
fn backend_that_comes_back_grows_to_its_share() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = Site::start(Plan::new(Forward::Dsr, Interfaces::One, 3), |net| {
        let web = ServiceText::new(net, "web", VIP_V4).key("slow_start", "8s");
        vec![web.idle_timeout(IDLE_TIMEOUT).backends(net, &ALL)]
    })
    .unwrap();
    let web = Web {
        lbd: &site.lbd,
        name: "web",
    };
    let whole = web.slots()["web1"];
    let busy = Busy::start(open_to_each(&site.net, at(VIP_V4), &ALL));
    web.set_health("web1", "down");
    assert!(!web.slots().contains_key("web1"));
    web.set_health("web1", "up");

    let mut steps: Vec<u64> = Vec::new();
    let mut first_counts = BTreeMap::new();
    wait_until("its whole share", PATIENCE, || {
        let now = web.slots().get("web1").copied().unwrap_or(0);
        if now > 0 && steps.is_empty() {
            first_counts = site.net.client.http_get_many(at(VIP_V4), REQUEST_COUNT)?;
        }
        if now > 0 && steps.last() != Some(&now) {
            steps.push(now);
        }
        Ok((now == whole).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {steps:?} of {whole}"));
    assert!(steps.is_sorted(), "{steps:?}");
    // A tenth of the weight is a twentieth of the ring. Changes are prepared for 1.5 s, so the first that
    // is seen may be the second or third step.
    assert!(steps[0] < whole / 2, "{steps:?}");
    assert!(steps.len() >= 4, "{steps:?}");
    let first = first_counts.get("web1").copied().unwrap_or(0);
    assert!(first > 0 && first < REQUEST_COUNT / 4, "{first_counts:?}");
    let counts = site.net.client.http_get_many(at(VIP_V4), REQUEST_COUNT);
    let equal = ALL.map(|name| (name, 1));
    shares::follow_weights(&counts.unwrap(), &equal).unwrap();
    busy.stop();
}

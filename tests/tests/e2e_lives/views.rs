//! What lbctl says of flows, rings and changes to come, beside what is and what then happens.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_lab::serde_json::Value;
use lb_lab::topology::{VIP_V4, VIP_V6};
use lb_lab::wait::wait_until;
use lb_lab::{Forward, Interfaces, Plan, ServiceText, Site, require, service};

use crate::stage::{Busy, Held, IDLE_TIMEOUT, PATIENCE, Web, at, count, open_to_each, slots, text};

const ALL: [&str; 3] = ["web1", "web2", "web3"];

fn plan(forward: Forward) -> Plan {
    Plan::new(forward, Interfaces::One, 4)
}

fn site(forward: Forward, vip: IpAddr, scheduler: &'static str) -> Site {
    Site::start(plan(forward), |net| {
        let web = ServiceText::new(net, "web", vip).scheduler(scheduler);
        vec![web.idle_timeout(IDLE_TIMEOUT).backends(net, &ALL)]
    })
    .unwrap()
}

/// Client's address and port, and backend.
type Ends = BTreeSet<(String, u64, String)>;

fn ends_of(held: &[Held]) -> Ends {
    let ends = |one: &Held| {
        let local = one.local();
        let port = u64::from(local.port());
        (local.ip().to_string(), port, one.backend.clone())
    };
    held.iter().map(ends).collect()
}

/// The established flows that are listed.
fn listed(flows: &Value) -> Ends {
    let flows = flows["flows"].as_array().unwrap().iter();
    let ends = |flow: &Value| {
        let port = flow["client_port"].as_u64().unwrap();
        (text(&flow["client"]), port, text(&flow["backend"]))
    };
    flows
        .filter(|flow| flow["state"] == "established")
        .map(ends)
        .collect()
}

/// Round robin keeps every flow on record: the list is what is open, and a flow that closes closes there.
fn flows_in_turn_are_those_that_are_open(forward: Forward, vip: IpAddr) {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = site(forward, vip, "round-robin");
    let web = Web {
        lbd: &site.lbd,
        name: "web",
    };
    let mut held = open_to_each(&site.net, at(vip), &ALL);
    held.extend(open_to_each(&site.net, at(vip), &ALL));
    let (ends, counts) = (ends_of(&held), count(&held));
    let busy = Busy::start(held);
    let flows = web.flows();
    assert_eq!(listed(&flows), ends);
    assert_eq!(web.established(), counts);
    for flow in flows["flows"].as_array().unwrap() {
        assert_eq!(
            (&flow["service"], &flow["port"]),
            (&"web".into(), &80.into())
        );
        let idle_s = flow["idle_s"].as_u64().unwrap();
        let expires_s = flow["expires_s"].as_u64().unwrap();
        assert_eq!(idle_s + expires_s, IDLE_TIMEOUT.as_secs(), "{flow}");
    }
    let complete = |flows: &Value| {
        let mut counts = flows["counts"].as_array().unwrap().iter();
        counts.all(|one| one["is_complete"] == true)
    };
    assert!(complete(&flows));
    let of_web1 = site.lbd.ctl_json(&["flow", "list", "--backend", "web1"]);
    let of_web1 = listed(&of_web1.unwrap());
    assert!(of_web1.iter().all(|(.., backend)| backend == "web1"));
    assert_eq!(of_web1.len() as u64, counts["web1"]);
    let one = site.lbd.ctl_json(&["flow", "list", "--limit", "1"]);
    assert_eq!(one.unwrap()["flows"].as_array().unwrap().len(), 1);

    drop(busy.stop());
    assert!(web.established().is_empty(), "{}", web.flows());
    wait_until("an empty table", PATIENCE, || {
        Ok(web.flows()["flows"]
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(()))
    })
    .unwrap();
}

#[test]
fn flows_in_turn_are_those_that_are_open_over_ipv4() {
    flows_in_turn_are_those_that_are_open(Forward::Dsr, VIP_V4);
}

#[test]
fn flows_in_turn_are_those_that_are_open_over_ipv6() {
    flows_in_turn_are_those_that_are_open(Forward::Nat, VIP_V6);
}

/// A ring on its way, phase by phase, with the connections of the backend that goes as its exceptions; and
/// the backend until it is gone.
fn ring_is_seen_to_move(vip: IpAddr) {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = site(Forward::Dsr, vip, "maglev");
    let web = Web {
        lbd: &site.lbd,
        name: "web",
    };
    let held = open_to_each(&site.net, at(vip), &ALL);
    let ends: Ends = ends_of(&held)
        .into_iter()
        .filter(|(.., backend)| backend == "web1")
        .collect();
    let busy = Busy::start(held);
    assert!(listed(&web.flows()).is_empty(), "the ring is settled");

    let before = web.slots();
    web.backend("remove", &["web1"]);
    let armed = web.ring();
    let in_transition = armed["armed_slots"].as_u64().unwrap();
    assert!(in_transition >= before["web1"], "{armed}");
    assert_eq!(slots(&armed, "slots"), before, "{armed}");
    assert_eq!(slots(&armed, "previous_slots")["web1"], before["web1"]);
    assert!(armed["since_s"].as_u64().unwrap() < 2, "{armed}");
    is_shown_leaving(&web, &armed);

    let moving = web.await_ring("moving slots", |ring| {
        (ring["moving_slots"] == in_transition).then(|| ring.clone())
    });
    assert_eq!(moving["armed_slots"], 0, "{moving}");
    assert!(!slots(&moving, "slots").contains_key("web1"), "{moving}");
    assert_eq!(slots(&moving, "previous_slots")["web1"], before["web1"]);
    // New connections in slots that move are on record too; none is open.
    site.net.client.http_get_many(at(vip), 30).unwrap();
    wait_until("the exceptions on record", PATIENCE, || {
        Ok((listed(&web.flows()) == ends).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}: {ends:?} {}", web.flows()));
    assert_eq!(web.established()["web1"], ends.len() as u64);

    let quiet = web.await_ring("quiet slots", |ring| {
        // Two of the connections may share a slot.
        let quiet = ring["quiet_slots"].as_u64().unwrap();
        let is_quiet = (1..=ends.len() as u64).contains(&quiet);
        (ring["moving_slots"] == 0 && is_quiet).then(|| ring.clone())
    });
    assert!(!slots(&quiet, "previous_slots").contains_key("web1"));
    is_shown_leaving(&web, &quiet);

    drop(busy.stop());
    web.await_settled();
    wait_until("the end of what was leaving", PATIENCE, || {
        Ok(web.show()["leaving"]
            .as_array()
            .unwrap()
            .is_empty()
            .then_some(()))
    })
    .unwrap();
    let names = web.ring()["backends"].as_array().unwrap().len();
    assert_eq!(names, 2);
    assert!(site.lbd.log().contains("gone"), "{}", site.lbd.log_tail());
}

fn is_shown_leaving(web: &Web<'_>, ring: &Value) {
    let mut backends = ring["backends"].as_array().unwrap().iter();
    let web1 = backends.find(|one| one["name"] == "web1").unwrap();
    assert_eq!(
        (&web1["is_leaving"], &web1["is_eligible"]),
        (&true.into(), &false.into())
    );
    let show = web.show();
    let leaving = show["leaving"].as_array().unwrap();
    assert_eq!(leaving.len(), 1, "{show}");
    assert_eq!(
        (&leaving[0]["name"], &leaving[0]["port"]),
        (&"web1".into(), &80.into())
    );
    let table = web.lbd.ctl_ok(&["backend", "list", "web"]).unwrap();
    assert!(table.contains("leaving"), "{table}");
}

#[test]
fn ring_is_seen_to_move_and_a_removed_backend_until_it_is_gone() {
    ring_is_seen_to_move(VIP_V4);
}

/// Each of these changes, foreseen and then made.
#[test]
fn plans_come_true() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = site(Forward::Dsr, VIP_V6, "maglev");
    let web = Web {
        lbd: &site.lbd,
        name: "web",
    };
    for change in [
        "backend drain web web1",
        "backend ready web web1",
        "backend weight web web3 250",
        "backend add web fd00:10::14 --name web4",
        "health set web web2 down",
        "health set web web2 up",
        "backend remove web web4",
        "backend drain web web3 --strict",
    ] {
        web.await_settled();
        let words: Vec<&str> = change.split(' ').collect();
        let plan = site.lbd.ctl_json(&[&["plan"], &words[..]].concat());
        let foreseen = Foreseen::of(&plan.unwrap());
        assert_eq!(foreseen.breakage_count, 0, "{change}");
        assert_eq!(foreseen.before, web.slots(), "{change}");
        site.lbd.ctl_ok(&words).unwrap();
        comes_true(&web, &foreseen, change);
    }
}

/// A service as a plan has it.
struct Foreseen {
    moved: u64,
    before: BTreeMap<String, u64>,
    after: BTreeMap<String, u64>,
    breakage_count: usize,
}

impl Foreseen {
    fn of(plan: &Value) -> Self {
        let [service] = plan["services"].as_array().unwrap().as_slice() else {
            panic!("one service would change: {plan}");
        };
        let figures = |key: &str| {
            let backends = service["backends"].as_array().unwrap().iter();
            backends
                .map(|one| (text(&one["name"]), one[key].as_u64().unwrap()))
                .filter(|(_, slots)| *slots > 0)
                .collect()
        };
        Self {
            moved: service["moved_slots"].as_u64().unwrap(),
            before: figures("slots_before"),
            after: figures("slots_after"),
            breakage_count: service["breakages"].as_array().unwrap().len(),
        }
    }
}

fn comes_true(web: &Web<'_>, foreseen: &Foreseen, change: &str) {
    assert!(foreseen.moved > 0, "{change}");
    let moved = web.await_ring("the slots that move", |ring| {
        let is_done = ring["armed_slots"] == 0 && ring["moving_slots"] != 0;
        is_done.then(|| ring.clone())
    });
    assert_eq!(moved["moving_slots"], foreseen.moved, "{change}");
    assert_eq!(slots(&moved, "slots"), foreseen.after, "{change}");
}

/// Flows on record in slots that move, and such as break.
#[test]
fn plans_know_the_flows_on_record() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = Site::start(plan(Forward::Dsr), |net| {
        let web = ServiceText::new(net, "web", VIP_V4).scheduler("round-robin");
        let web = web.key("on_remove", "reset");
        vec![web.idle_timeout(IDLE_TIMEOUT).backends(net, &ALL)]
    })
    .unwrap();
    let web = Web {
        lbd: &site.lbd,
        name: "web",
    };
    let held = open_to_each(&site.net, at(VIP_V4), &ALL);
    let counts = count(&held);
    let busy = Busy::start(held);
    let breakages = |words: &[&str]| {
        let plan = site.lbd.ctl_json(&[&["plan"], words].concat()).unwrap();
        plan["services"][0]["breakages"].as_array().unwrap().clone()
    };
    assert!(breakages(&["backend", "drain", "web", "web1"]).is_empty());
    for words in [["backend", "remove"], ["backend", "maint"]] {
        let broken = breakages(&[&words[..], &["web", "web1"]].concat());
        assert_eq!(broken.len(), 1, "{broken:?}");
        assert_eq!(
            (&broken[0]["backend"], &broken[0]["is_complete"]),
            (&"web1".into(), &true.into())
        );
        assert_eq!(broken[0]["known_flows"], counts["web1"]);
        assert!(text(&broken[0]["reason"]).contains("on_remove = \"reset\""));
    }
    let all = breakages(&["service", "remove", "web"]);
    assert_eq!(all[0]["known_flows"], counts.values().sum::<u64>());
    assert_eq!(web.established(), counts, "nothing was done");
    busy.stop();
}

/// The file's other content, foreseen and then read.
#[test]
fn config_diff_says_what_a_reload_does() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = site(Forward::Dsr, VIP_V4, "maglev");
    let (net, lbd) = (&site.net, &site.lbd);
    let web = Web { lbd, name: "web" };
    let text = |weights: &[(&str, u32)]| {
        let web = ServiceText::new(net, "web", VIP_V4).idle_timeout(IDLE_TIMEOUT);
        service::config(net, &[web.weights(net, weights)])
    };
    let file = lbd.directory().join("next.toml");
    let diff = |config: &str| {
        std::fs::write(&file, config).unwrap();
        lbd.ctl_json(&["config", "diff", file.to_str().unwrap()])
            .unwrap()
    };
    let same = diff(&text(&[("web1", 100), ("web2", 100), ("web3", 100)]));
    assert_eq!(same["services"].as_array().unwrap().len(), 0, "{same}");

    let next = text(&[("web2", 50), ("web3", 100), ("web4", 100)]);
    let plan = diff(&next);
    let changes: Vec<String> = plan["changes"]
        .as_array()
        .unwrap()
        .iter()
        .map(crate::stage::text)
        .collect();
    assert_eq!(changes.len(), 3, "{changes:?}");
    let foreseen = Foreseen::of(&plan);
    assert_eq!(foreseen.before, web.slots());
    let busy = Busy::start(open_to_each(net, at(VIP_V4), &ALL));
    lbd.reload(&next).unwrap();
    wait_until("the reload", PATIENCE, || {
        Ok(lbd.log().contains("reloaded").then_some(()))
    })
    .unwrap();
    comes_true(&web, &foreseen, "reload");
    busy.stop();

    let restart = diff(&next.replacen("eth0", "lo", 1));
    assert_eq!(restart["restart"][0], "[[interface]]", "{restart}");
}

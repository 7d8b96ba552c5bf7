//! How flows end when their backend is put into maintenance or removed: `on_remove`.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_lab::capture::{Capture, Segment};
use lb_lab::client::Load;
use lb_lab::nginx::Nginx;
use lb_lab::topology::{VIP_V4, VIP_V6, VIPS_V4, VIPS_V6};
use lb_lab::wait::wait_until;
use lb_lab::{Forward, Interfaces, Lbd, Plan, ServiceText, Site, Topology, require, service};

use crate::stage::{
    Held, IDLE_TIMEOUT, LONG_IDLE_TIMEOUT, PATIENCE, Web, at, kind, open_to_each_within,
};

const ALL: [&str; 3] = ["web1", "web2", "web3"];

/// `on_remove`, which is the service's name too.
const POLICIES: [&str; 3] = ["keep", "reset", "drop"];

/// How long an answer that is not to come is waited for.
const SILENCE: Duration = Duration::from_millis(700);

/// A RST comes as quickly as an answer.
const AT_ONCE: Duration = Duration::from_millis(500);

/// One service for each policy on VIPs of one family. With NAT each has ports of its own, since an answer is
/// told by nothing else.
fn services(net: &Topology, vips: [IpAddr; 3]) -> Vec<ServiceText> {
    let service = |((policy, vip), port): ((&'static str, IpAddr), u16)| {
        let service = ServiceText::new(net, policy, vip)
            .idle_timeout(LONG_IDLE_TIMEOUT)
            .key("on_remove", policy)
            .backends(net, &ALL);
        match net.forward() {
            Forward::Dsr => service,
            Forward::Nat => service.backend_port(port),
        }
    };
    POLICIES
        .into_iter()
        .zip(vips)
        .zip(8001..)
        .map(service)
        .collect()
}

fn web_servers(net: &Topology) -> Vec<Nginx> {
    let backends = net.backends.iter();
    backends
        .map(|one| Nginx::start(&one.name, &one.netns, &[80, 8001, 8002, 8003]).unwrap())
        .collect()
}

/// Puts web1 into maintenance and removes web2, with connections open, under each policy.
fn flows_end_as_the_policy_says(forward: Forward, vips: [IpAddr; 3]) {
    if require(&["ip", "nginx", "tshark"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(forward, Interfaces::One, 3)).unwrap();
    let _nginx = web_servers(&net);
    let lbd = Lbd::start(&net.lb, &service::config(&net, &services(&net, vips))).unwrap();
    for (policy, vip) in POLICIES.into_iter().zip(vips) {
        let web = Web {
            lbd: &lbd,
            name: policy,
        };
        // The first answer to a client that NAT does not know yet takes a second.
        net.client.http_get(at(vip)).unwrap();
        let mut held = open_to_each_within(&net, at(vip), &ALL, SILENCE);
        let capture = Capture::start(net.client.netns(), "eth0", "tcp port 80").unwrap();
        web.backend("maint", &["web1"]);
        web.backend("remove", &["web2"]);
        if policy != "keep" {
            assert!(web.slots().keys().eq(["web3"]), "at once: {}", web.ring());
        }
        let (mut staying, mut ended): (Vec<_>, Vec<_>) =
            held.drain(..).partition(|one| one.backend == "web3");
        match policy {
            "keep" => staying.append(&mut ended),
            "reset" => are_reset(&web, &mut ended, capture),
            _ => are_silenced(&web, &mut ended),
        }
        for one in &mut staying {
            one.say().unwrap();
        }

        web.await_change();
        let counts = net.client.http_get_many(at(vip), 30).unwrap();
        assert!(counts.keys().eq(["web3"]), "{policy}: {counts:?}");

        // What was dropped was not lost: the client sends it again.
        web.backend("ready", &["web1"]);
        let returning = staying.iter_mut().chain(&mut ended);
        for one in returning.filter(|one| one.backend == "web1" && policy != "reset") {
            wait_until("an answer", PATIENCE, || Ok(one.say().ok())).unwrap();
        }
        web.await_change();
        open_to_each_within(&net, at(vip), &["web1", "web3"], SILENCE);
    }
}

/// Each connection breaks at its next word, by a RST with the very number that the client awaits.
fn are_reset(web: &Web<'_>, held: &mut [Held], capture: Capture) {
    assert!(!held.is_empty());
    let before = web.dropped("reset");
    for one in held.iter_mut() {
        let started = Instant::now();
        let error = one.say().unwrap_err();
        assert_eq!(kind(&error), ErrorKind::ConnectionReset, "{error:#}");
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
    }
    let count = held.len();
    assert_eq!(web.dropped("reset"), before + count as u64);
    // A word and its RST for each.
    let segments = capture.segments(2 * count).unwrap();
    for one in held {
        let port = one.local().port();
        let word = find(&segments, |one| one.source_port == port);
        let reset = find(&segments, |one| one.destination_port == port);
        assert!(reset.is_reset, "{segments:?}");
        assert_eq!(reset.sequence, word.acknowledged, "{segments:?}");
    }
}

fn find(segments: &[Segment], is_it: impl Fn(&Segment) -> bool) -> Segment {
    let found = segments.iter().copied().find(is_it);
    found.unwrap_or_else(|| panic!("not captured: {segments:?}"))
}

/// Nobody answers on any of the connections, and the packets are counted.
fn are_silenced(web: &Web<'_>, held: &mut [Held]) {
    assert!(!held.is_empty());
    for one in held.iter_mut() {
        let error = one.say().unwrap_err();
        assert_eq!(kind(&error), ErrorKind::WouldBlock, "{error:#}");
    }
    assert!(web.dropped("backend_removed") >= held.len() as u64);
    assert_eq!(web.dropped("reset"), 0);
}

fn first_three<A: Copy + Into<IpAddr>>(vips: [A; 4]) -> [IpAddr; 3] {
    let [first, second, third, _] = vips.map(Into::into);
    [first, second, third]
}

#[test]
fn flows_of_a_dsr_backend_end_as_the_policy_says_over_ipv4() {
    flows_end_as_the_policy_says(Forward::Dsr, first_three(VIPS_V4));
}

#[test]
fn flows_of_a_dsr_backend_end_as_the_policy_says_over_ipv6() {
    flows_end_as_the_policy_says(Forward::Dsr, first_three(VIPS_V6));
}

#[test]
fn flows_of_a_nat_backend_end_as_the_policy_says_over_ipv4() {
    flows_end_as_the_policy_says(Forward::Nat, first_three(VIPS_V4));
}

#[test]
fn flows_of_a_nat_backend_end_as_the_policy_says_over_ipv6() {
    flows_end_as_the_policy_says(Forward::Nat, first_three(VIPS_V6));
}

/// Loads at a time on each service, one request after another each.
const LOAD_COUNT: usize = 4;
/// Times that web1 goes and comes.
const ROUND_COUNT: usize = 5;
/// Requests of a load between two changes.
const SOME_REQUESTS: u32 = 20;

/// A connection that began before the change may end by it: it was the backend's. One that begins during it,
/// or after it, is never refused.
#[test]
fn maintenance_resets_no_new_connection_while_another_backend_is_up() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = Site::start(Plan::new(Forward::Dsr, Interfaces::One, 2), |net| {
        let web = |name, vip| {
            ServiceText::new(net, name, vip)
                .idle_timeout(IDLE_TIMEOUT)
                .key("on_remove", "reset")
                .backends(net, &["web1", "web2"])
        };
        vec![
            web("hash", VIP_V4),
            web("turns", VIP_V6).scheduler("round-robin"),
        ]
    })
    .unwrap();
    let addresses = [at(VIP_V4), at(VIP_V6)];
    let loads: Vec<Load> = addresses
        .into_iter()
        .flat_map(|address| [address; LOAD_COUNT])
        .map(|address| site.net.client.start_load(address))
        .collect();
    for _ in 0..ROUND_COUNT {
        for word in ["maint", "ready"] {
            for name in ["hash", "turns"] {
                let web = Web {
                    lbd: &site.lbd,
                    name,
                };
                web.backend(word, &["web1"]);
            }
            more_requests(&loads);
        }
    }
    for load in loads {
        let tally = load.stop().unwrap();
        assert!(tally.ok["web1"] > 0 && tally.ok["web2"] > 0);
        // At each change no more than the one under way.
        assert!(tally.failed as usize <= ROUND_COUNT, "{tally:?}");
        for reason in &tally.reasons {
            assert!(reason.contains("no answer"), "{tally:?}");
        }
    }
}

fn more_requests(loads: &[Load]) {
    let done = |load: &Load| load.tally().ok_total();
    let before: Vec<u32> = loads.iter().map(done).collect();
    wait_until("more requests", PATIENCE, || {
        let mut pairs = loads.iter().zip(&before);
        let is_enough = pairs.all(|(load, before)| done(load) >= before + SOME_REQUESTS);
        Ok(is_enough.then_some(()))
    })
    .unwrap();
}

/// It is the same one under any name, as long as it has not gone for good: its flows are its own again, and
/// those that said nothing meanwhile do not know of anything.
#[test]
fn removed_backend_that_is_added_again_has_its_flows_again() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 3)).unwrap();
    let _nginx = web_servers(&net);
    let [keep, reset, _] = first_three(VIPS_V4);
    let texts = services(&net, first_three(VIPS_V4));
    let lbd = Lbd::start(&net.lb, &service::config(&net, &texts)).unwrap();
    for (policy, vip) in [("keep", keep), ("reset", reset)] {
        let web = Web {
            lbd: &lbd,
            name: policy,
        };
        let before = web.slots();
        let mut held = open_to_each_within(&net, at(vip), &ALL, PATIENCE);
        let address = net.backends[0].address_like(vip).to_string();
        web.backend("remove", &["web1"]);
        web.await_change();
        assert_eq!(web.show()["leaving"][0]["name"], "web1");
        web.backend("add", &[&address, "--name", "again"]);
        assert_eq!(web.show()["leaving"].as_array().unwrap().len(), 0);
        web.await_change();
        let again = web.slots();
        assert_eq!(again["again"], before["web1"], "{again:?}");
        for one in &mut held {
            one.say().unwrap();
        }
        assert_eq!(web.dropped("reset"), 0);
    }
}

//! `lbctl health set`: `on_down`, and `on_all_down` where nobody is left.

use std::io::ErrorKind;
use std::net::IpAddr;
use std::time::Duration;

use lb_lab::http::Target;
use lb_lab::topology::{VIP_V4, VIP_V6, VIPS_V4, VIPS_V6};
use lb_lab::{Forward, Interfaces, Plan, ServiceText, Site, Topology, require};

use crate::stage::{Held, LONG_IDLE_TIMEOUT, Web, at, kind, open_to_each};

const ALL: [&str; 2] = ["web1", "web2"];

/// How long an answer that is not to come is waited for.
const SILENCE: Duration = Duration::from_millis(500);

fn service(
    net: &Topology,
    name: &str,
    vip: impl Into<IpAddr>,
    keys: &[(&'static str, &'static str)],
) -> ServiceText {
    let web = ServiceText::new(net, name, vip.into()).idle_timeout(LONG_IDLE_TIMEOUT);
    let web = web.backends(net, &ALL);
    keys.iter()
        .fold(web, |web, (key, value)| web.key(key, value))
}

/// The backends of some new connections.
fn new_ones(net: &Topology, vip: impl Into<IpAddr>) -> Vec<String> {
    let counts = net.client.http_get_many(at(vip), 30).unwrap();
    counts.into_keys().collect()
}

fn of_web1(held: &mut [Held]) -> impl Iterator<Item = &mut Held> {
    held.iter_mut().filter(|one| one.backend == "web1")
}

#[test]
fn flows_of_a_backend_that_is_down_are_kept_or_reset() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let (v4, v6) = (VIP_V4, VIP_V6);
    let site = Site::start(Plan::new(Forward::Dsr, Interfaces::One, 2), |net| {
        vec![
            service(net, "keep", v4, &[]),
            service(net, "reset", v6, &[("on_down", "reset")]),
        ]
    })
    .unwrap();
    for (name, vip) in [("keep", v4), ("reset", v6)] {
        let web = Web {
            lbd: &site.lbd,
            name,
        };
        let mut held = open_to_each(&site.net, at(vip), &ALL);
        web.set_health("web1", "down");
        assert_eq!(new_ones(&site.net, vip), ["web2"], "at once");
        for one in of_web1(&mut held) {
            match (name, one.say()) {
                ("keep", said) => said.unwrap(),
                (_, said) => assert_eq!(kind(&said.unwrap_err()), ErrorKind::ConnectionReset),
            }
        }
        web.set_health("web1", "up");
        web.await_change();
        assert_eq!(new_ones(&site.net, vip), ALL);
        let whole = |one: &&mut Held| name == "keep" || one.backend == "web2";
        for one in held.iter_mut().filter(whole) {
            one.say().unwrap();
        }
    }
}

/// How a connection that is not to come about fails.
fn connect_failure(net: &Topology, vip: IpAddr) -> ErrorKind {
    let target = Target {
        timeout: SILENCE,
        ..at(vip).into()
    };
    kind(&net.client.http_get(target).unwrap_err())
}

fn all_down(forward: Forward, vips: [IpAddr; 3]) {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    for (policy, vip) in ["last_good", "reset", "drop"].into_iter().zip(vips) {
        let site = Site::start(Plan::new(forward, Interfaces::One, 2), |net| {
            vec![service(net, "web", vip, &[("on_all_down", policy)])]
        })
        .unwrap();
        let web = Web {
            lbd: &site.lbd,
            name: "web",
        };
        let mut held = open_to_each(&site.net, at(vip), &ALL);
        for name in ALL {
            web.set_health(name, "down");
        }
        match policy {
            // Those that were the last.
            "last_good" => assert_eq!(new_ones(&site.net, vip), ["web2"]),
            "reset" => {
                assert_eq!(
                    connect_failure(&site.net, vip),
                    ErrorKind::ConnectionRefused
                );
                assert_eq!(web.dropped("reset"), 1);
            }
            _ => {
                let failure = connect_failure(&site.net, vip);
                assert!(
                    [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&failure),
                    "{failure}"
                );
                assert!(web.dropped("all_down") > 0);
            }
        }
        for one in &mut held {
            one.say().unwrap();
        }
        web.set_health("web1", "unknown");
        assert_eq!(new_ones(&site.net, vip), ["web1"], "at once");
        for one in &mut held {
            one.say().unwrap();
        }
    }
}

#[test]
fn with_every_dsr_backend_down_the_policy_says_what_becomes_of_new_connections() {
    all_down(
        Forward::Dsr,
        [VIPS_V4[0], VIPS_V4[1], VIPS_V4[2]].map(Into::into),
    );
}

#[test]
fn with_every_nat_backend_down_the_policy_says_what_becomes_of_new_connections() {
    all_down(
        Forward::Nat,
        [VIPS_V6[0], VIPS_V6[1], VIPS_V6[2]].map(Into::into),
    );
}

/// `last_good` is for checkers that are wrong: what they say of all backends at once ends nothing where new
/// flows still go.
#[test]
fn last_good_backends_serve_although_flows_of_those_that_are_down_are_reset() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let vip = VIP_V4;
    let site = Site::start(Plan::new(Forward::Dsr, Interfaces::One, 2), |net| {
        vec![service(net, "web", vip, &[("on_down", "reset")])]
    })
    .unwrap();
    let web = Web {
        lbd: &site.lbd,
        name: "web",
    };
    let mut held = open_to_each(&site.net, at(vip), &ALL);
    for name in ALL {
        web.set_health(name, "down");
    }
    assert_eq!(new_ones(&site.net, vip), ["web2"]);
    for one in &mut held {
        let said = one.say();
        match &*one.backend {
            "web2" => said.unwrap(),
            _ => assert_eq!(kind(&said.unwrap_err()), ErrorKind::ConnectionReset),
        }
    }
    web.set_health("web1", "up");
    assert_eq!(new_ones(&site.net, vip), ["web1"]);
    let mut of_web2 = held.iter_mut().filter(|one| one.backend == "web2");
    let error = of_web2.next().unwrap().say().unwrap_err();
    assert_eq!(kind(&error), ErrorKind::ConnectionReset, "web2 is down");
}

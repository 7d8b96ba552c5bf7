//! What was said with lbctl survives `kill -9`, restarts and reloads.

use std::collections::BTreeMap;
use std::fs;

use lb_lab::lbd::Launch;
use lb_lab::scratch::ScratchDir;
use lb_lab::serde_json::Value;
use lb_lab::site::web_servers;
use lb_lab::topology::VIP_V4;
use lb_lab::wait::wait_until;
use lb_lab::{Forward, Interfaces, Lbd, Plan, ServiceText, Site, Topology, require, service};

use crate::stage::{Busy, IDLE_TIMEOUT, PATIENCE, Web, at, open_to_each, text};

const ALL: [&str; 3] = ["web1", "web2", "web3"];

fn web_text(net: &Topology, weights: &[(&str, u32)]) -> ServiceText {
    let web = ServiceText::new(net, "web", VIP_V4).idle_timeout(IDLE_TIMEOUT);
    web.weights(net, weights)
}

fn site(launch: Launch) -> Site {
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 4)).unwrap();
    let nginx = web_servers(&net).unwrap();
    let config = service::config(&net, &[web_text(&net, &ALL.map(|name| (name, 100)))]);
    let scratch = ScratchDir::new("lives").unwrap();
    let lbd = Lbd::launch_in(launch, scratch, &net.lb, &config).unwrap();
    Site { lbd, nginx, net }
}

fn web(site: &Site) -> Web<'_> {
    Web {
        lbd: &site.lbd,
        name: "web",
    }
}

/// Admin state and health by backend.
fn states(web: &Web<'_>) -> BTreeMap<String, (String, String)> {
    let show = web.show();
    let backends = show["backends"].as_array().unwrap().iter();
    let state = |one: &Value| {
        let state = (text(&one["admin"]), text(&one["health"]));
        (text(&one["name"]), state)
    };
    backends.map(state).collect()
}

fn expected(states: &[(&str, &str, &str)]) -> BTreeMap<String, (String, String)> {
    let state = |(name, admin, health): &(&str, &str, &str)| {
        let state = ((*admin).to_owned(), (*health).to_owned());
        ((*name).to_owned(), state)
    };
    states.iter().map(state).collect()
}

/// Drains web1, adds web4, removes web3, and says that web2 is down; returns what is to be remembered.
fn say_it_all(web: &Web<'_>) -> BTreeMap<String, (String, String)> {
    web.backend("drain", &["web1"]);
    web.backend("add", &["10.0.0.14", "--name", "web4"]);
    web.backend("remove", &["web3"]);
    web.set_health("web2", "down");
    web.await_change();
    assert!(web.slots().keys().eq(["web4"]), "{}", web.ring());
    expected(&[
        ("web1", "drain", "unknown"),
        ("web2", "ready", "down"),
        ("web4", "ready", "unknown"),
    ])
}

#[test]
fn what_was_said_survives_a_kill_and_states_survive_a_reload() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let mut site = site(Launch::default());
    let busy = Busy::start(open_to_each(&site.net, at(VIP_V4), &ALL));
    let said = say_it_all(&web(&site));
    assert_eq!(states(&web(&site)), said);

    site.lbd.kill9().unwrap();
    site.lbd.restart(&site.net.lb).unwrap();
    let web = web(&site);
    assert_eq!(states(&web), said);
    assert!(web.slots().keys().eq(["web4"]), "{}", web.ring());
    let leaving = &web.show()["leaving"];
    assert_eq!(leaving[0]["address"], "10.0.0.13", "{leaving}");
    assert!(web.established().contains_key("web1"));

    // The file has web3 and not web4, and another weight.
    let weights = [("web1", 100), ("web2", 200), ("web3", 300)];
    let config = service::config(&site.net, &[web_text(&site.net, &weights)]);
    site.lbd.reload(&config).unwrap();
    wait_until("the reload", PATIENCE, || {
        Ok(site.lbd.log().contains("reloaded").then_some(()))
    })
    .unwrap();
    let kept = [
        ("web1", "drain", "unknown"),
        ("web2", "ready", "down"),
        ("web3", "ready", "unknown"),
    ];
    assert_eq!(states(&web), expected(&kept));
    assert!(
        site.lbd
            .log()
            .contains("backend `web4` added (made with lbctl)"),
        "{}",
        site.lbd.log_tail()
    );
    web.await_change();
    assert!(web.slots().keys().eq(["web3"]), "{}", web.ring());
    busy.stop();
}

#[test]
fn what_was_said_survives_a_restart_and_states_one_with_another_file() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let mut site = site(Launch::keeping());
    let busy = Busy::start(open_to_each(&site.net, at(VIP_V4), &ALL));
    let said = say_it_all(&web(&site));
    site.lbd.terminate().unwrap();
    site.lbd.restart(&site.net.lb).unwrap();
    assert_eq!(states(&web(&site)), said);

    site.lbd.terminate().unwrap();
    let weights = [("web1", 100), ("web2", 200), ("web3", 300)];
    let config = service::config(&site.net, &[web_text(&site.net, &weights)]);
    fs::write(site.lbd.directory().join("lbd.toml"), config).unwrap();
    site.lbd.restart(&site.net.lb).unwrap();
    let kept = [
        ("web1", "drain", "unknown"),
        ("web2", "ready", "down"),
        ("web3", "ready", "unknown"),
    ];
    assert_eq!(states(&web(&site)), expected(&kept));
    let log = site.lbd.log();
    assert!(
        log.contains("dropped: service `web`, backend `web4` added"),
        "{log}"
    );
    busy.stop();
}

/// While nobody is eligible the ring stays as it is, also over the end of the daemon.
#[test]
fn last_good_ring_survives_a_kill() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let mut site = site(Launch::default());
    let busy = Busy::start(open_to_each(&site.net, at(VIP_V4), &ALL));
    for name in ALL {
        web(&site).set_health(name, "down");
    }
    let slots = web(&site).slots();
    assert!(slots.keys().eq(["web3"]), "{slots:?}");
    site.lbd.kill9().unwrap();
    site.lbd.restart(&site.net.lb).unwrap();
    assert_eq!(web(&site).slots(), slots);
    let counts = site.net.client.http_get_many(at(VIP_V4), 30).unwrap();
    assert!(counts.keys().eq(["web3"]), "{counts:?}");
    web(&site).set_health("web1", "up");
    web(&site).await_ring("the one that is up", |ring| {
        crate::stage::slots(ring, "slots")
            .keys()
            .eq(["web1"])
            .then_some(())
    });
    busy.stop();
}

//! Changes while requests come in: backends are added, re-weighted and removed, a backend gets another
//! network card, the configuration is reloaded.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::time::{Duration, Instant};

use lb_lab::client::{Load, Tally};
use lb_lab::http::{Connection, Target};
use lb_lab::serde_json::Value;
use lb_lab::service::{self, ServiceText};
use lb_lab::topology::{VIP_V4, VIP_V6, VIPS_V4};
use lb_lab::wait::wait_until;
use lb_lab::{Forward, Interfaces, Lbd, Plan, Site, Topology, require, shares};

/// Requests in each phase. With three backends, twice the share is 16 standard deviations away.
const REQUEST_COUNT: u32 = 500;

/// How long a phase may take: a request takes about a millisecond.
const PHASE_TIMEOUT: Duration = Duration::from_secs(30);

/// A neighbour's change is to reach the datapath in this time.
const NEIGHBOUR_TIMEOUT: Duration = Duration::from_secs(1);

/// How a service is scheduled, as the configuration says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scheduler {
    Maglev,
    RoundRobin,
}

impl Scheduler {
    fn word(self) -> &'static str {
        match self {
            Self::Maglev => "maglev",
            Self::RoundRobin => "round-robin",
        }
    }
}

/// Requests one after another, looked at between the changes of a service.
struct Traffic {
    load: Load,
}

impl Traffic {
    /// What became of the requests up to the change and of the one that was under way then. Every later one
    /// begins after it.
    fn pass_the_change(&self) -> Tally {
        let before = self.load.tally();
        let done = |tally: &Tally| tally.ok_total() + tally.failed;
        wait_until("two more requests", PHASE_TIMEOUT, || {
            Ok((done(&self.load.tally()) >= done(&before) + 2).then_some(()))
        })
        .unwrap();
        self.load.take()
    }

    /// Sends [`REQUEST_COUNT`] requests, none of which may fail.
    fn phase(&self) -> Tally {
        wait_until("the requests of a phase", PHASE_TIMEOUT, || {
            let tally = self.load.tally();
            Ok((tally.ok_total() + tally.failed >= REQUEST_COUNT).then_some(()))
        })
        .unwrap();
        let tally = self.load.take();
        assert_eq!(tally.failed, 0, "{:?}", tally.reasons);
        tally
    }
}

/// Connections to a service that stay open, one to each of its backends, by the backends' names.
fn open_to_each(
    net: &Topology,
    address: SocketAddr,
    backends: &[&str],
) -> BTreeMap<String, Connection> {
    let mut connections = BTreeMap::new();
    wait_until("a connection to each backend", PHASE_TIMEOUT, || {
        let mut connection = net.client.connect(address)?;
        connections.insert(connection.get("/")?.backend, connection);
        Ok((connections.len() == backends.len()).then_some(()))
    })
    .unwrap();
    connections
}

/// Adds web3 to web1 and web2, re-weights it, and removes web1, all under load.
///
/// No request may fail, under way during a change or after it.
fn changes_hands_under_load(scheduler: Scheduler, forward: Forward, vip: IpAddr) {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = Site::start(Plan::new(forward, Interfaces::One, 3), |net| {
        let web = ServiceText::new(net, "web", vip).scheduler(scheduler.word());
        vec![web.backends(net, &["web1", "web2"])]
    })
    .unwrap();
    let address = SocketAddr::new(vip, 80);
    let mut held = open_to_each(&site.net, address, &["web1", "web2"]);
    let traffic = Traffic {
        load: site.net.client.start_load(address),
    };
    let pass_the_change = || {
        site.lbd.await_ring("web").unwrap();
        let tally = traffic.pass_the_change();
        assert_eq!(tally.failed, 0, "{:?}", tally.reasons);
    };
    shares::follow_weights(&traffic.phase().ok, &[("web1", 1), ("web2", 1)]).unwrap();

    let third = site.net.backends[2].address_like(vip).to_string();
    let add = ["backend", "add", "web", &third, "--name", "web3"];
    site.lbd.ctl_ok(&add).unwrap();
    pass_the_change();
    let counts = traffic.phase().ok;
    shares::follow_weights(&counts, &[("web1", 1), ("web2", 1), ("web3", 1)]).unwrap();
    if scheduler == Scheduler::RoundRobin {
        shares::take_turns(&counts, &["web1", "web2", "web3"]).unwrap();
    }

    let set = ["backend", "set", "web", "web3", "--weight", "300"];
    site.lbd.ctl_ok(&set).unwrap();
    pass_the_change();
    let weights = [("web1", 1), ("web2", 1), ("web3", 3)];
    shares::follow_weights(&traffic.phase().ok, &weights).unwrap();

    let remove = ["backend", "remove", "web", "web1"];
    site.lbd.ctl_ok(&remove).unwrap();
    pass_the_change();
    shares::follow_weights(&traffic.phase().ok, &[("web2", 1), ("web3", 3)]).unwrap();

    if scheduler == Scheduler::RoundRobin {
        let answer = held.get_mut("web2").unwrap().get("/").unwrap();
        assert_eq!(answer.backend, "web2", "a connection has moved");
    }
}

#[test]
fn changes_of_a_hashed_dsr_service_lose_no_request() {
    changes_hands_under_load(Scheduler::Maglev, Forward::Dsr, VIP_V4);
}

#[test]
fn changes_of_a_hashed_nat_service_lose_no_request() {
    changes_hands_under_load(Scheduler::Maglev, Forward::Nat, VIP_V6);
}

#[test]
fn changes_of_a_dsr_service_in_turn_lose_no_request() {
    changes_hands_under_load(Scheduler::RoundRobin, Forward::Dsr, VIP_V6);
}

#[test]
fn changes_of_a_nat_service_in_turn_lose_no_request() {
    changes_hands_under_load(Scheduler::RoundRobin, Forward::Nat, VIP_V4);
}

/// The client's ports of the tests that look at where a port goes.
const PORTS: Range<u16> = 30_000..30_100;

/// Of the ports whose backend stays, so many may move when another is removed. 2 % of the slots may, so
/// of 67 ports 1.3 are to be expected, and 11 occur once in ten million.
const MOVED_MAX: usize = 10;

/// The backend of each port.
fn ask_from_every_port(net: &Topology, vip: IpAddr) -> BTreeMap<u16, String> {
    PORTS
        .map(|port| {
            let target = Target {
                source_port: Some(port),
                ..SocketAddr::new(vip, 80).into()
            };
            (port, net.client.http_get(target).unwrap().backend)
        })
        .collect()
}

#[test]
fn the_same_client_port_keeps_its_backend_whatever_else_changes() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let all = ["web1", "web2", "web3"];
    let services = |net: &Topology| {
        vec![
            ServiceText::new(net, "v4", VIP_V4).backends(net, &all),
            ServiceText::new(net, "v6", VIP_V6).backends(net, &all),
        ]
    };
    let site = Site::start(Plan::new(Forward::Dsr, Interfaces::One, 3), services).unwrap();
    let config = service::config(&site.net, &services(&site.net));
    for (service, vip) in [("v4", VIP_V4), ("v6", VIP_V6)] {
        let first = ask_from_every_port(&site.net, vip);
        for name in all {
            assert!(first.values().any(|backend| backend == name), "{name}");
        }
        assert_eq!(ask_from_every_port(&site.net, vip), first);

        let other = VIPS_V4[1].to_string();
        for change in [
            &["service", "add", "other", "--vip", &other, "--port", "80"][..],
            &["backend", "add", "other", "10.0.0.11"],
            &["backend", "add", "other", "10.0.0.13"],
            &["backend", "set", "other", "10.0.0.13", "--weight", "7"],
            &["service", "remove", "other"],
        ] {
            site.lbd.ctl_ok(change).unwrap();
        }
        reload(&site.lbd, &config, "reloaded");
        assert_eq!(ask_from_every_port(&site.net, vip), first);

        site.lbd
            .ctl_ok(&["backend", "remove", service, "web2"])
            .unwrap();
        site.lbd.await_ring(service).unwrap();
        let after = ask_from_every_port(&site.net, vip);
        let moved = first.iter().filter(|(port, backend)| {
            let stays = backend.as_str() != "web2";
            stays && after[port] != **backend
        });
        assert!(after.values().all(|backend| backend != "web2"));
        assert!(moved.count() <= MOVED_MAX, "{first:?} became {after:?}");
    }
}

/// Reloads, and waits for the line in the log that tells what became of it.
fn reload(lbd: &Lbd, config: &str, outcome: &str) {
    let count = |log: &str| log.matches(outcome).count();
    let before = count(&lbd.log());
    lbd.reload(config).unwrap();
    wait_until(outcome, PHASE_TIMEOUT, || {
        Ok((count(&lbd.log()) > before).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", lbd.log_tail()));
}

#[test]
fn backend_with_a_new_ethernet_address_is_followed_within_a_second() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    for forward in [Forward::Dsr, Forward::Nat] {
        let site = Site::start(Plan::new(forward, Interfaces::One, 1), |net| {
            vec![
                ServiceText::new(net, "v4", VIP_V4).backends(net, &["web1"]),
                ServiceText::new(net, "v6", VIP_V6).backends(net, &["web1"]),
            ]
        })
        .unwrap();
        let vips = [("v4", VIP_V4), ("v6", VIP_V6)];
        let get = |vip| site.net.client.http_get(SocketAddr::new(vip, 80));
        for (_, vip) in vips {
            get(vip).unwrap();
        }
        // Linux would not take a second announcement within a second (arp(7), locktime).
        site.net
            .lb
            .sysctl(&[("net/ipv4/neigh/eth0/locktime", "0")])
            .unwrap();
        let backend = &site.net.backends[0].netns;
        backend
            .sysctl(&[
                ("net/ipv4/conf/eth0/arp_notify", "1"),
                ("net/ipv6/conf/eth0/ndisc_notify", "1"),
            ])
            .unwrap();
        let address = "02:00:00:00:be:ef";
        backend
            .ip(&format!("link set dev eth0 address {address}"))
            .unwrap();
        let changed = Instant::now();
        for (service, vip) in vips {
            let left = NEIGHBOUR_TIMEOUT.saturating_sub(changed.elapsed());
            wait_until("the new address", left, || {
                let shown = site.lbd.ctl_json(&["backend", "show", service, "web1"])?;
                Ok((shown["next_hop"]["link_address"] == address).then_some(()))
            })
            .unwrap();
            assert_eq!(get(vip).unwrap().backend, "web1");
        }
    }
}

#[test]
fn reload_brings_what_the_file_says_and_nothing_of_a_bad_one() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let second = IpAddr::from(VIPS_V4[1]);
    let site = Site::start(Plan::new(Forward::Dsr, Interfaces::One, 2), |net| {
        vec![ServiceText::new(net, "web", VIP_V4).backends(net, &["web1"])]
    })
    .unwrap();
    let (net, lbd) = (&site.net, &site.lbd);
    let backend_of = |vip| {
        let answer = net.client.http_get(SocketAddr::new(vip, 80));
        answer.unwrap().backend
    };
    let text = |name, vip, backend| ServiceText::new(net, name, vip).backends(net, &[backend]);
    let config = service::config(
        net,
        &[text("web", VIP_V4, "web2"), text("more", second, "web1")],
    );
    reload(lbd, &config, "reloaded");
    lbd.await_ring("web").unwrap();
    assert_eq!(
        (backend_of(VIP_V4), backend_of(second)),
        ("web2".into(), "web1".into())
    );

    let in_force = lbd.ctl_json(&["service", "list"]).unwrap();
    let names = |value: &Value| {
        let services = value["services"].as_array().unwrap().iter();
        let name = |service: &Value| service["name"].to_string();
        services.map(name).collect::<Vec<_>>()
    };
    let one_bad_word = config.replacen("weight = 100", "weigth = 100", 1);
    let other_interface = config.replace("eth0", "lo");
    for (bad, reason) in [
        (one_bad_word, "unknown key `weigth`"),
        (
            other_interface,
            "[[interface]] changed, which takes a restart",
        ),
    ] {
        reload(lbd, &bad, "reload refused");
        assert!(lbd.log().contains(reason), "{}", lbd.log_tail());
        assert_eq!(
            names(&lbd.ctl_json(&["service", "list"]).unwrap()),
            names(&in_force)
        );
        assert_eq!(
            (backend_of(VIP_V4), backend_of(second)),
            ("web2".into(), "web1".into())
        );
    }

    lbd.ctl_ok(&["backend", "add", "web", "10.0.0.11", "--name", "by-hand"])
        .unwrap();
    reload(lbd, &config, "reloaded");
    assert!(lbd.log().contains("by-hand"), "{}", lbd.log_tail());
    assert_eq!(
        lbd.ctl(&["backend", "show", "web", "by-hand"])
            .unwrap()
            .code,
        1
    );
}

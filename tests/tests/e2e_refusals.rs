//! Bad input and bad circumstances on a real network: each is refused with a reason, and nothing is half
//! applied. That lbd and lbctl refuse every bad word of a configuration or a command is tested beside
//! their code, without a network.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use lb_lab::lbd::{Ended, ctl, program, run_to_end};
use lb_lab::observe::{self, Address};
use lb_lab::scratch::ScratchDir;
use lb_lab::serde_json::Value;
use lb_lab::service;
use lb_lab::site::web_servers;
use lb_lab::topology::{VIP_V4, VIP_V6, VIPS_V4};
use lb_lab::{Forward, Interfaces, Lbd, Plan, ServiceText, Site, Topology, require, shares};

fn network(backend_count: u8) -> Topology {
    Topology::build(Plan::new(Forward::Dsr, Interfaces::One, backend_count)).unwrap()
}

/// A site with the service `web` on [`VIP_V4`], backend web1.
fn site() -> Site {
    Site::start(Plan::new(Forward::Dsr, Interfaces::One, 2), |net| {
        vec![ServiceText::new(net, "web", VIP_V4).backends(net, &["web1"])]
    })
    .unwrap()
}

/// What lbd would have changed of the balancer's machine.
#[derive(Debug, PartialEq)]
struct Traces {
    xdp: Option<&'static str>,
    addresses: Vec<Address>,
}

fn traces(net: &Topology) -> Traces {
    Traces {
        xdp: observe::xdp_mode(&net.lb, "eth0").unwrap(),
        addresses: observe::addresses(&net.lb, "eth0").unwrap(),
    }
}

/// Runs an lbd that is to refuse: with exit code 1, all the `reasons` in its log, no file left, and
/// nothing changed. `wrapper` is what starts it, if it is not to be started as it is.
fn refuses_to_start(net: &Topology, wrapper: &[&str], config: &str, reasons: &[&str]) {
    let scratch = ScratchDir::new("refused").unwrap();
    let socket = scratch.path().join("lbd.sock");
    let before = traces(net);
    let ended = start(net, wrapper, &scratch, config, &socket);
    assert_eq!(ended.code, 1, "{}", ended.log);
    for reason in reasons {
        assert!(ended.log.contains(reason), "{reason}: {}", ended.log);
    }
    assert_eq!(traces(net), before);
    assert!(!socket.exists());
}

fn start(
    net: &Topology,
    wrapper: &[&str],
    scratch: &ScratchDir,
    config: &str,
    socket: &Path,
) -> Ended {
    let config = scratch.write("lbd.toml", config).unwrap();
    let mut command = net.lb.command("env");
    command.args(wrapper).arg(program("lbd").unwrap());
    command.arg("--config").arg(config);
    command.arg("--socket").arg(socket);
    run_to_end(command).unwrap()
}

/// The services as the API tells them, without what moves by itself.
fn services(lbd: &Lbd) -> Value {
    let mut list = lbd.ctl_json(&["service", "list"]).unwrap();
    for service in list["services"].as_array_mut().unwrap() {
        service["counters"].take();
        for backend in service["backends"].as_array_mut().unwrap() {
            backend["counters"].take();
        }
    }
    list
}

fn serves(site: &Site) {
    let answer = site.net.client.http_get(SocketAddr::new(VIP_V4, 80));
    assert_eq!(answer.unwrap().backend, "web1");
}

#[test]
fn missing_interface_is_named_and_the_one_that_is_there_left_alone() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let net = network(1);
    let web = ServiceText::new(&net, "web", VIP_V4).backends(&net, &["web1"]);
    let config = service::config(&net, &[web]) + "[[interface]]\nname = \"eth9\"\n";
    refuses_to_start(&net, &[], &config, &["no interface eth9; there is", "eth0"]);
}

#[test]
fn config_with_mistakes_attaches_nothing_and_shows_them_all() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let net = network(2);
    let both = ["web1", "web2"];
    let good = ServiceText::new(&net, "web", VIP_V4).backends(&net, &both);
    let bad = ServiceText::new(&net, "web", VIP_V4).weights(&net, &[("web1", 0), ("web2", 1001)]);
    let remapped = ServiceText::new(&net, "v6", VIP_V6).backends(&net, &both);
    let config = service::config(&net, &[good, bad, remapped.backend_port(8080)]).replacen(
        "scheduler",
        "sheduler",
        1,
    );
    let reasons = [
        "unknown key `sheduler`",
        "did you mean `scheduler`?",
        "weight 0",
        "1001",
        "8080",
        "lbd.toml:11:",
        "^^^^",
    ];
    refuses_to_start(&net, &[], &config, &reasons);
}

#[test]
fn lbd_without_a_privilege_says_which_one() {
    if require(&["ip", "setpriv"]).is_missing() {
        return;
    }
    let net = network(1);
    let web = ServiceText::new(&net, "web", VIP_V4).backends(&net, &["web1"]);
    let config = service::config(&net, &[web]);
    for (dropped, missing) in [
        ("-net_admin", &["CAP_NET_ADMIN"][..]),
        ("-net_raw", &["CAP_NET_RAW"]),
        ("-bpf,-sys_admin", &["CAP_BPF"]),
        ("-perfmon,-sys_admin", &["CAP_PERFMON"]),
        (
            "-all",
            &["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"],
        ),
    ] {
        let bounding = format!("--bounding-set={dropped}");
        refuses_to_start(&net, &["setpriv", &bounding], &config, missing);
    }
}

#[test]
fn second_lbd_on_the_same_interface_or_socket_is_refused_and_the_first_serves_on() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = site();
    let second = ServiceText::new(&site.net, "second", VIPS_V4[1].into());
    let config = service::config(&site.net, &[second.backends(&site.net, &["web2"])]);
    for mode in ["native", "auto", "generic"] {
        let config = config.replace("\"native\"", &format!("\"{mode}\""));
        let reasons = ["eth0 already has an XDP program", "is another lbd running?"];
        refuses_to_start(&site.net, &[], &config, &reasons);
        serves(&site);
    }

    let before = traces(&site.net);
    let scratch = ScratchDir::new("second").unwrap();
    let ended = start(&site.net, &[], &scratch, &config, site.lbd.socket());
    assert_eq!(ended.code, 1, "{}", ended.log);
    let reason = format!("lbd is running already (pid {})", site.lbd.pid());
    assert!(ended.log.contains(&reason), "{}", ended.log);
    assert_eq!(traces(&site.net), before);
    assert_eq!(site.lbd.ctl(&["status"]).unwrap().code, 0);
    serves(&site);
}

#[test]
fn lbctl_tells_refused_from_wrong_usage_from_not_reachable() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = site();
    let before = (services(&site.lbd), traces(&site.net));
    for (line, code, reason) in [
        // Refused by the daemon.
        ("service add web --vip 203.0.113.11 --port 80", 1, "web"),
        (
            "service add x --vip 203.0.113.10 --port 80",
            1,
            "belongs to service `web` already",
        ),
        ("service add x --vip 127.0.0.1 --port 80", 1, "127.0.0.1"),
        ("service remove wbe", 1, "web"),
        ("backend add web 10.0.0.11", 1, "10.0.0.11"),
        ("backend add web fd00:10::11", 1, "fd00:10::11"),
        ("backend add web 10.0.0.12 --weight 0", 1, "weight 0"),
        ("backend add web 10.0.0.12 --weight 1001", 1, "1000"),
        ("backend add web 10.0.0.12 --port 8080", 1, "nat"),
        ("backend add web 203.0.113.10", 1, "VIP"),
        ("backend set web web9 --weight 3", 1, "web9"),
        ("backend remove web web9", 1, "web9"),
        // Wrong usage.
        ("service add x --vip 203.0.113.11", 2, "--port"),
        ("service add x --vip nowhere --port 80", 2, "nowhere"),
        ("service add x --vip 203.0.113.11 --port 65536", 2, "65536"),
        (
            "service add x --vip 203.0.113.11 --port 80 --forward tunnel",
            2,
            "tunnel",
        ),
        ("service drop web", 2, "drop"),
        ("backend set web web1", 2, "--weight"),
    ] {
        let output = site.lbd.ctl(&line.split(' ').collect::<Vec<_>>()).unwrap();
        assert_eq!(output.code, code, "{line}: {output:?}");
        assert!(output.stderr.contains(reason), "{line}: {output:?}");
        assert_eq!(output.stdout, "", "{line}");
    }
    assert_eq!((services(&site.lbd), traces(&site.net)), before);
    serves(&site);

    let nowhere = Path::new("/nonexistent/lbd.sock");
    let output = ctl(nowhere, &["status"]).unwrap();
    assert_eq!(output.code, 3, "{output:?}");
    assert!(
        output.stderr.contains("/nonexistent/lbd.sock"),
        "{output:?}"
    );
    let mut lbctl = Command::new(program("lbctl").unwrap());
    lbctl.env("LBCTL_SOCKET", site.lbd.socket());
    assert!(lbctl.arg("status").output().unwrap().status.success());
}

#[test]
fn full_map_is_named_with_its_limit_and_its_setting() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let net = network(3);
    let _nginx = web_servers(&net).unwrap();
    let web = ServiceText::new(&net, "web", VIP_V4).backends(&net, &["web1"]);
    let limits = "[limits]\nservices = 3\nbackends = 3\nring_blocks = 8\nflows = 1024\n";
    let lbd = Lbd::start(
        &net.lb,
        &(limits.to_owned() + &service::config(&net, &[web])),
    )
    .unwrap();
    let words = |line: &'static str| line.split(' ').collect::<Vec<_>>();
    let fits = |line| drop(lbd.ctl_ok(&words(line)).unwrap());
    let is_full = |line, reasons: &[&str]| {
        let before = (services(&lbd), traces(&net));
        let output = lbd.ctl(&words(line)).unwrap();
        assert_eq!(output.code, 1, "{line}: {output:?}");
        for reason in reasons {
            assert!(output.stderr.contains(reason), "{line}: {output:?}");
        }
        assert_eq!((services(&lbd), traces(&net)), before, "{line}");
        let counts = net.client.http_get_many(SocketAddr::new(VIP_V4, 80), 10);
        assert_eq!(counts.unwrap()["web1"], 10);
        let log = lbd.log();
        assert!(!log.contains("not wholly restored"), "{line}: {log}");
    };

    // A ring of 65521 slots takes four blocks of the eight, its successor four more, and web has one.
    fits("service add big --vip 203.0.113.11 --port 80 --ring-slots 65521");
    is_full(
        "backend add big 10.0.0.12",
        &["RINGS", "8", "limits.ring_blocks"],
    );
    fits("service remove big");
    fits("service add more --vip 203.0.113.11 --port 80");
    fits("service add most --vip 203.0.113.12 --port 80");
    is_full(
        "service add over --vip 203.0.113.13 --port 80",
        &["services", "3", "limits.services"],
    );
    fits("backend add more 10.0.0.12");
    fits("backend add most 10.0.0.12");
    is_full(
        "backend add most 10.0.0.13",
        &["backends", "3", "limits.backends"],
    );
    fits("backend remove most 10.0.0.12");
    is_full(
        "backend add most 10.0.0.13",
        &["1 by removed backends that may have flows yet"],
    );
    fits("service remove most");
    fits("service add most --vip 203.0.113.12 --port 80");
    fits("backend add most 10.0.0.13");
}

/// A veth refuses native XDP while its peer may send frames larger than a page.
#[test]
fn driver_that_refuses_native_mode_gets_generic_mode_with_a_warning() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let net = network(2);
    let _nginx = web_servers(&net).unwrap();
    net.switch().ip("link set dev lb mtu 9000").unwrap();
    let web = |name, vip| ServiceText::new(&net, name, vip).backends(&net, &["web1", "web2"]);
    let native = service::config(&net, &[web("v4", VIP_V4), web("v6", VIP_V6)]);
    let reasons = ["the driver of eth0 refuses native XDP", "xdp = \"auto\""];
    refuses_to_start(&net, &[], &native, &reasons);

    let auto = native.replace("\"native\"", "\"auto\"");
    let lbd = Lbd::start(&net.lb, &auto).unwrap();
    assert_eq!(traces(&net).xdp, Some("generic"));
    let warning = "generic XDP, because the driver refuses native mode";
    assert!(lbd.log().contains(warning), "{}", lbd.log());
    for vip in [VIP_V4, VIP_V6] {
        let counts = net.client.http_get_many(SocketAddr::new(vip, 80), 100);
        shares::follow_weights(&counts.unwrap(), &[("web1", 1), ("web2", 1)]).unwrap();
    }
}

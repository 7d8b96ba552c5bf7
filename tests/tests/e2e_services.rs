//! A service's life by `lbctl` and by the API, and the kinds of service: remapped ports, every port, no
//! backend.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use lb_lab::http::Target;
use lb_lab::nginx::Nginx;
use lb_lab::process::run;
use lb_lab::serde_json::{self, Value};
use lb_lab::service;
use lb_lab::site::web_servers;
use lb_lab::topology::{VIP_V4, VIP_V6};
use lb_lab::wait::wait_until;
use lb_lab::{
    Forward, Interfaces, Lbd, Plan, ServiceText, Site, Topology, observe, require, shares,
};

/// How long to wait for an answer that is not to come.
const NO_ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// How long to wait for one that is.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// A network with web servers, and an lbd that has no service yet.
fn without_a_service() -> Site {
    let plan = Plan::new(Forward::Dsr, Interfaces::One, 2);
    Site::start(plan, |_| Vec::new()).unwrap()
}

/// How a connection that is not to come about fails, within `timeout`.
fn connect_failure(net: &Topology, address: SocketAddr, timeout: Duration) -> ErrorKind {
    let target = Target {
        timeout,
        ..address.into()
    };
    let error = net.client.http_get(target).unwrap_err();
    let cause = error.chain().find_map(|cause| cause.downcast_ref());
    cause.map_or_else(|| panic!("{error:#}"), io::Error::kind)
}

#[test]
fn lbctl_brings_a_service_into_being_and_takes_it_away_again() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let Site { lbd, net, .. } = &without_a_service();
    let address = SocketAddr::new(VIP_V4, 80);
    let before = observe::addresses(&net.lb, "eth0").unwrap();
    let add = "service add web --vip 203.0.113.10 --port 80 --protocol tcp --scheduler round-robin \
               --forward dsr";
    let words = |line: &'static str| line.split_whitespace().collect::<Vec<_>>();
    lbd.ctl_ok(&words(add)).unwrap();
    for line in [
        "backend add web 10.0.0.11 --port 80 --weight 2 --name web1",
        "backend add web 10.0.0.12 --weight 2",
    ] {
        lbd.ctl_ok(&words(line)).unwrap();
    }
    let counts = net.client.http_get_many(address, 30).unwrap();
    shares::take_turns(&counts, &["web1", "web2"]).unwrap();

    let stats = lbd.ctl_json(&["stats"]).unwrap();
    let backends = stats["services"][0]["backends"].as_array().unwrap();
    let of_each = |key: &str| {
        let counters = backends.iter().map(|backend| &backend["counters"][key]);
        counters
            .map(|count| count.as_u64().unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(of_each("new_flows"), [15, 15]);
    // A connection of one small request: SYN, ACK, request, FIN and their like.
    assert!(
        of_each("packets").iter().all(|packets| *packets >= 4 * 15),
        "{stats}"
    );
    let shown = lbd.ctl_json(&["service", "show", "web"]).unwrap();
    assert_eq!(shown["vip_interface"], "eth0");
    assert_eq!(shown["backends"][0]["name"], "10.0.0.12");
    assert_eq!(shown["backends"][1]["next_hop"]["state"], "resolved");
    for table in ["status", "stats", "service list", "backend list web"] {
        let text = lbd.ctl_ok(&words(table)).unwrap();
        assert!(text.contains("web") || text.contains("eth0"), "{text}");
    }

    lbd.ctl_ok(&words("backend set web web1 --weight 6"))
        .unwrap();
    let counts = net.client.http_get_many(address, 40).unwrap();
    assert_eq!(counts["web1"], 30, "{counts:?}");

    lbd.ctl_ok(&words("backend remove web web1")).unwrap();
    let counts = net.client.http_get_many(address, 10).unwrap();
    assert_eq!(counts["web2"], 10, "{counts:?}");

    lbd.ctl_ok(&words("service remove web")).unwrap();
    assert_eq!(observe::addresses(&net.lb, "eth0").unwrap(), before);
    let list = lbd.ctl_json(&["service", "list"]).unwrap();
    assert_eq!(list["services"], serde_json::json!([]));
}

/// The host owns the VIP: were the packets handed to it, it would answer with a reset.
#[test]
fn service_without_backends_is_silent_and_counts_its_packets() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let Site { lbd, net, .. } = &without_a_service();
    for vip in [VIP_V4, VIP_V6] {
        let (name, address) = (vip.to_string().replace(':', "-"), SocketAddr::new(vip, 80));
        let added = lbd
            .ctl(&[
                "service",
                "add",
                &name,
                "--vip",
                &vip.to_string(),
                "--port",
                "80",
            ])
            .unwrap();
        assert_eq!(added.code, 0);
        assert!(added.stderr.contains("has no backend"), "{added:?}");

        // The client's first packet waits for the neighbour's answer, maybe longer than the client.
        wait_until("a counted packet", ANSWER_TIMEOUT, || {
            let failure = connect_failure(net, address, NO_ANSWER_TIMEOUT);
            assert_eq!(failure, ErrorKind::TimedOut);
            let drops = lbd.ctl_json(&["service", "show", &name])?["drops"].take();
            let is_counted = drops[0]["packets"].as_u64() >= Some(1);
            assert!(!is_counted || drops[0]["reason"] == "no_backend", "{drops}");
            Ok(is_counted.then_some(()))
        })
        .unwrap();
        // Another port of the VIP is the host's own, which has nobody there.
        let other = SocketAddr::new(vip, 81);
        let failure = connect_failure(net, other, ANSWER_TIMEOUT);
        assert_eq!(failure, ErrorKind::ConnectionRefused);

        let backend = net.backends[1].address_like(vip).to_string();
        lbd.ctl_ok(&["backend", "add", &name, &backend]).unwrap();
        assert_eq!(net.client.http_get(address).unwrap().backend, "web2");
    }
}

#[test]
fn nat_backends_may_listen_on_another_port() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(Forward::Nat, Interfaces::Two, 2)).unwrap();
    let _nginx: Vec<Nginx> = net
        .backends
        .iter()
        .map(|b| Nginx::start(&b.name, &b.netns, &[8080]).unwrap())
        .collect();
    let web = |name, vip| {
        let service = ServiceText::new(&net, name, vip);
        service.backends(&net, &["web1", "web2"]).backend_port(8080)
    };
    let config = service::config(&net, &[web("v4", VIP_V4), web("v6", VIP_V6)]);
    let _lbd = Lbd::start(&net.lb, &config).unwrap();
    for vip in [VIP_V4, VIP_V6] {
        let counts = net.client.http_get_many(SocketAddr::new(vip, 80), 100);
        shares::follow_weights(&counts.unwrap(), &[("web1", 1), ("web2", 1)]).unwrap();
    }
}

#[test]
fn service_for_every_port_leaves_one_with_an_exact_port_alone() {
    if require(&["ip", "nginx", "ping"]).is_missing() {
        return;
    }
    for forward in [Forward::Dsr, Forward::Nat] {
        let net = Topology::build(Plan::new(forward, Interfaces::One, 2)).unwrap();
        let ports = [80, 81, 8080];
        let _nginx: Vec<Nginx> = net
            .backends
            .iter()
            .map(|b| Nginx::start(&b.name, &b.netns, &ports).unwrap())
            .collect();
        let services = [
            ServiceText::new(&net, "every4", VIP_V4)
                .port(0)
                .backends(&net, &["web1"]),
            ServiceText::new(&net, "every6", VIP_V6)
                .port(0)
                .backends(&net, &["web1"]),
            ServiceText::new(&net, "exact4", VIP_V4)
                .port(81)
                .backends(&net, &["web2"]),
            ServiceText::new(&net, "exact6", VIP_V6)
                .port(81)
                .backends(&net, &["web2"]),
        ];
        let _lbd = Lbd::start(&net.lb, &service::config(&net, &services)).unwrap();
        for vip in [VIP_V4, VIP_V6] {
            let answers = ports.map(|port| {
                let answer = net.client.http_get(SocketAddr::new(vip, port));
                answer.unwrap().backend
            });
            assert_eq!(answers, ["web1", "web2", "web1"], "{forward:?} {vip}");
            observe::ping(net.client.netns(), vip).unwrap();
        }
    }
}

/// What curl gets from the API: the status code and the body.
fn curl(socket: &Path, path: &str, options: &[&str]) -> (u16, Value) {
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--max-time",
        "5",
        "-w",
        "\n%{http_code}",
        "--unix-socket",
    ]);
    curl.arg(socket).args(options);
    let output = run(curl.arg(format!("http://lbd{path}"))).unwrap();
    let (body, status) = output.rsplit_once('\n').unwrap();
    let body = serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {body}"));
    (status.parse().unwrap(), body)
}

#[test]
fn api_serves_curl_over_its_socket() {
    if require(&["ip", "nginx", "curl"]).is_missing() {
        return;
    }
    let Site { lbd, net, .. } = &without_a_service();
    let socket = lbd.socket();
    let mode = std::fs::metadata(socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let (status, document) = curl(socket, "/openapi.json", &[]);
    assert_eq!(status, 200);
    assert!(document["paths"]["/v1/services"].is_object(), "{document}");

    let web = r#"{"name": "web", "vip": "203.0.113.10", "port": 80}"#;
    assert_eq!(curl(socket, "/v1/services", &["-d", web]).0, 201);
    let backend = r#"{"address": "10.0.0.11", "name": "web1"}"#;
    let backends = "/v1/services/web/backends";
    assert_eq!(curl(socket, backends, &["-d", backend]).0, 201);
    let answer = net.client.http_get(SocketAddr::new(VIP_V4, 80)).unwrap();
    assert_eq!(answer.backend, "web1");

    let before = curl(socket, "/v1/services", &[]).1;
    let weight = r#"{"weight": 0}"#;
    let web1 = format!("{backends}/web1");
    for (path, options, status, code) in [
        (
            web1.as_str(),
            &["-X", "PATCH", "-d", weight][..],
            400,
            "invalid",
        ),
        ("/v1/services", &["-d", web], 409, "conflict"),
        ("/v1/services", &["-d", "{\"nam\": 1}"], 400, "invalid"),
        ("/v1/services/wbe", &["-X", "DELETE"], 404, "not_found"),
        ("/v1/status", &["-X", "DELETE"], 405, "method_not_allowed"),
    ] {
        let (found, body) = curl(socket, path, options);
        assert_eq!(
            (found, &body["error"]["code"]),
            (status, &code.into()),
            "{path}: {body}"
        );
    }
    let without_counters = |mut list: Value| {
        for service in list["services"].as_array_mut().unwrap() {
            for key in ["counters", "backends"] {
                service[key].take();
            }
        }
        list
    };
    let after = curl(socket, "/v1/services", &[]).1;
    assert_eq!(without_counters(after), without_counters(before));
    assert_eq!(curl(socket, "/v1/services/web", &["-X", "DELETE"]).0, 200);
    assert_eq!(curl(socket, "/v1/status", &[]).1["service_count"], 0);
}

#[test]
fn generic_mode_serves_where_it_is_asked_for() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    for forward in [Forward::Dsr, Forward::Nat] {
        let net = Topology::build(Plan::new(forward, Interfaces::One, 2)).unwrap();
        let _nginx = web_servers(&net).unwrap();
        let web = |name, vip| ServiceText::new(&net, name, vip).backends(&net, &["web1", "web2"]);
        let config = service::config(&net, &[web("v4", VIP_V4), web("v6", VIP_V6)]);
        let lbd = Lbd::start(&net.lb, &config.replace("\"native\"", "\"generic\"")).unwrap();
        assert_eq!(observe::xdp_mode(&net.lb, "eth0").unwrap(), Some("generic"));
        let status = lbd.ctl_json(&["status"]).unwrap();
        assert_eq!(status["interfaces"][0]["attached"], "generic");
        assert!(lbd.log().contains("WARN generic XDP"), "{}", lbd.log());
        for vip in [VIP_V4, VIP_V6] {
            let counts = net.client.http_get_many(SocketAddr::new(vip, 80), 100);
            shares::follow_weights(&counts.unwrap(), &[("web1", 1), ("web2", 1)]).unwrap();
        }
    }
}

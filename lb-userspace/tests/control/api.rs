//! Each path with good input, spoken byte by byte: no client of ours in between.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::fake::Daemon;

/// An answer, and what there is to look at.
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Value,
}

impl Answer {
    /// Status, code and field of a refusal.
    pub(crate) fn refusal(&self) -> (u16, &str, Option<&str>) {
        let error = &self.body["error"];
        assert!(!self.message().is_empty());
        (
            self.status,
            error["code"].as_str().unwrap(),
            error["field"].as_str(),
        )
    }

    pub(crate) fn message(&self) -> &str {
        self.body["error"]["message"]
            .as_str()
            .unwrap_or_else(|| panic!("{}", self.body))
    }
}

pub(crate) fn ask(daemon: &Daemon, method: &str, path: &str, body: &str) -> Answer {
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: lbd\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let text = daemon.block_on(async {
        let mut stream = UnixStream::connect(&daemon.socket).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    });
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_lowercase(),
        body: serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {text}")),
    }
}

pub(crate) fn get(daemon: &Daemon, path: &str) -> Answer {
    ask(daemon, "GET", path, "")
}

pub(crate) fn post(daemon: &Daemon, path: &str, body: &Value) -> Answer {
    ask(daemon, "POST", path, &body.to_string())
}

fn web() -> Value {
    json!({"name": "web", "vip": "203.0.113.10", "port": 80})
}

/// A daemon with the service `web` and its backend `web1`.
pub(crate) fn with_web() -> Daemon {
    let daemon = Daemon::start();
    assert_eq!(post(&daemon, "/v1/services", &web()).status, 201);
    let web1 = json!({"name": "web1", "address": "10.0.0.11"});
    assert_eq!(
        post(&daemon, "/v1/services/web/backends", &web1).status,
        201
    );
    daemon
}

#[test]
fn status_has_its_documented_keys() {
    let status = get(&Daemon::start(), "/v1/status");
    assert_eq!(status.status, 200);
    assert_eq!(
        status.body,
        json!({
            "node": "lb1",
            "version": env!("CARGO_PKG_VERSION"),
            "api_version": "v1",
            "uptime_s": 61,
            "config_file": null,
            "datapath": {
                "pinned": "/sys/fs/bpf/lbd/x", "abi_version": 2, "origin": "fresh",
                "heartbeat_age_ms": 250
            },
            "interfaces": [
                {
                    "name": "eth0", "ifindex": 2, "xdp": "auto", "attached": "generic",
                    "reason": null
                },
                {
                    "name": "eth1", "ifindex": null, "xdp": "native", "attached": null,
                    "reason": "no interface eth1; there is lo, eth0"
                }
            ],
            "service_count": 0,
            "backend_count": 0,
            "maps": [
                {"map": "SERVICES", "used": 1, "max": 3, "setting": "limits.services"},
                {"map": "FLOWS", "used": null, "max": 4096, "setting": "limits.flows"},
            ],
            "passed_packets": 7,
            "drops": [{"reason": "truncated", "packets": 1, "help": "the frame ends inside a header"}],
        })
    );
}

#[test]
fn a_service_lives_from_post_to_delete() {
    let daemon = Daemon::start();
    let added = post(&daemon, "/v1/services", &web());
    assert_eq!(added.status, 201);
    assert!(
        added.head.contains("location: /v1/services/web"),
        "{}",
        added.head
    );
    assert_eq!(added.body["name"], "web");
    let warning = added.body["warnings"][0].as_str().unwrap();
    assert!(warning.contains("has no backend"), "{warning}");

    let shown = get(&daemon, "/v1/services/web").body;
    let expected = [
        ("vip", json!("203.0.113.10")),
        ("port", json!(80)),
        ("protocol", json!("tcp")),
        ("scheduler", json!("maglev")),
        ("forward", json!("dsr")),
        ("idle_timeout_s", json!(900)),
        ("ring_slots", json!(16381)),
        ("flow", json!(null)),
        ("slow_start_s", json!(0)),
        ("on_down", json!("keep")),
        ("on_remove", json!("keep")),
        ("on_all_down", json!("last_good")),
        ("ring_len", json!(0)),
        ("vip_interface", json!("eth0")),
        ("backends", json!([])),
    ];
    for (key, value) in expected {
        assert_eq!(shown[key], value, "{key}");
    }
    assert_eq!(
        get(&daemon, "/v1/services").body,
        json!({"services": [shown]})
    );

    let removed = ask(&daemon, "DELETE", "/v1/services/web", "");
    assert_eq!(
        (removed.status, &removed.body),
        (200, &json!({"name": "web", "warnings": []}))
    );
    assert_eq!(get(&daemon, "/v1/services").body, json!({"services": []}));
}

#[test]
fn every_field_of_a_new_service_is_heard() {
    let daemon = Daemon::start();
    let dns = json!({
        "name": "dns", "vip": "2001:db8::10", "port": 0, "protocol": "udp",
        "scheduler": "round-robin", "forward": "nat", "idle_timeout_s": 30, "ring_slots": 16381,
        "flow": "pinned", "slow_start_s": 30, "on_down": "reset", "on_remove": "drop",
        "on_all_down": "reset",
        "backends": [
            {"address": "2001:db8::11", "weight": 7, "name": "dns1", "port": 0, "backup": 1},
        ],
    });
    assert_eq!(post(&daemon, "/v1/services", &dns).status, 201);
    let shown = get(&daemon, "/v1/services/dns").body;
    for key in [
        "vip",
        "port",
        "protocol",
        "scheduler",
        "forward",
        "idle_timeout_s",
        "flow",
        "slow_start_s",
        "on_down",
        "on_remove",
        "on_all_down",
    ] {
        assert_eq!(shown[key], dns[key], "{key}");
    }
    assert_eq!(shown["backends"][0]["name"], "dns1");
    assert_eq!(shown["backends"][0]["weight"], 7);
    assert_eq!(shown["backends"][0]["backup"], 1);
}

#[test]
fn a_backend_lives_from_post_to_delete() {
    let daemon = with_web();
    let heavy = json!({"address": "10.0.0.12", "weight": 300});
    let added = post(&daemon, "/v1/services/web/backends", &heavy);
    assert_eq!(
        (added.status, &added.body),
        (201, &json!({"name": "10.0.0.12", "warnings": []}))
    );
    let location = "location: /v1/services/web/backends/10.0.0.12";
    assert!(added.head.contains(location), "{}", added.head);

    let web1 = get(&daemon, "/v1/services/web/backends/web1").body;
    let listed = get(&daemon, "/v1/services/web/backends").body;
    assert_eq!(listed["backends"][1], web1);
    assert_eq!(
        web1,
        json!({
            "service": "web", "name": "web1", "address": "10.0.0.11", "port": 80, "weight": 100,
            "backup": 0, "admin": "ready", "health": "unknown", "is_fit": true,
            "agent": "", "is_eligible": true,
            "slots": 100, "share": 0.25,
            "next_hop": {
                "state": "last_known", "interface": "eth0",
                "link_address": "02:00:00:00:00:0c", "reason": null,
            },
            "counters": {
                "packets": 10, "bytes": 1000, "new_flows": 2, "reply_packets": 0, "reply_bytes": 0,
            },
        })
    );

    let path = "/v1/services/web/backends/web1";
    let set = ask(&daemon, "PATCH", path, r#"{"weight": 300}"#);
    assert_eq!(
        (set.status, &set.body),
        (200, &json!({"name": "web1", "warnings": []}))
    );
    assert_eq!(get(&daemon, path).body["share"], 0.5);
    assert_eq!(ask(&daemon, "DELETE", path, "").status, 200);
    assert_eq!(get(&daemon, path).refusal(), (404, "not_found", None));
}

#[test]
fn stats_are_summed_by_service() {
    let daemon = with_web();
    post(
        &daemon,
        "/v1/services/web/backends",
        &json!({"address": "10.0.0.12"}),
    );
    let stats = get(&daemon, "/v1/stats").body;
    assert_eq!(stats["uptime_ms"], 61_500);
    let web = &stats["services"][0];
    assert_eq!(web["name"], "web");
    assert_eq!(web["counters"]["packets"], 20);
    assert_eq!(web["drops"][0]["reason"], "no_backend");
    let names: Vec<_> = web["backends"]
        .as_array()
        .unwrap()
        .iter()
        .map(|b| &b["name"])
        .collect();
    assert_eq!(names, ["10.0.0.12", "web1"]);
}

#[test]
fn the_datapath_is_taken_off_by_the_engine() {
    let daemon = with_web();
    let detached = ask(&daemon, "POST", "/v1/datapath/detach", "");
    assert_eq!(
        (detached.status, &detached.body),
        (200, &json!({"name": "datapath", "warnings": []}))
    );
    let after = get(&daemon, "/v1/status");
    assert_eq!((after.status, after.refusal().1), (503, "stopping"));
}

#[test]
fn the_openapi_document_names_every_path_and_every_path_answers() {
    let daemon = with_web();
    let document = get(&daemon, "/openapi.json").body;
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let paths = document["paths"].as_object().unwrap();
    let operations: usize = paths
        .values()
        .map(|path| path.as_object().unwrap().len())
        .sum();
    assert_eq!((paths.len(), operations), (18, 25));
    let readable = paths.iter().filter(|(_, path)| path["get"].is_object());
    for (path, _) in readable {
        let path = path
            .replace("{service}", "web")
            .replace("{backend}", "web1");
        let status = match path.as_str() {
            // A node on its own.
            "/v1/peers" => 404,
            _ => 200,
        };
        assert_eq!(get(&daemon, &path).status, status, "{path}");
    }
    let schemas = &document["components"]["schemas"];
    for name in [
        "Status",
        "Service",
        "Backend",
        "Stats",
        "NewService",
        "Changed",
        "Refusal",
    ] {
        assert!(schemas[name]["properties"].is_object(), "{name}");
    }
    let hint = schemas["NewService"]["properties"]["scheduler"]["description"].to_string();
    assert!(hint.contains("round-robin"), "{hint}");
}

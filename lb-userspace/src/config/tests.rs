//! Mistakes in a file, each with its place. The rules themselves are tested with the model.

use super::*;
use crate::model::{
    ForwardMode, Limits, Model, OnAllDown, OnDown, OnRemove, OnStop, Policies, Protocol, Scheduler,
    UdpFlow, XdpMode,
};

pub(super) fn overrides() -> Overrides {
    Overrides {
        interfaces: vec![],
        node: "host".to_owned(),
    }
}

pub(crate) fn model(text: &str) -> Model {
    parse("lbd.toml", text, &overrides()).unwrap().model
}

pub(super) fn report(text: &str) -> Report {
    let loaded = parse("lbd.toml", text, &overrides());
    loaded.map(|loaded| loaded.model).unwrap_err()
}

/// `line:column: message` of everything that is said about a text that is refused.
pub(super) fn mistakes(text: &str) -> Vec<String> {
    let report = report(text);
    let strip = |line: String| line.strip_prefix("lbd.toml:").unwrap_or(&line).to_owned();
    report.lines().map(strip).collect()
}

/// The one mistake of a text.
#[track_caller]
pub(super) fn mistake(text: &str) -> String {
    let mistakes = mistakes(text);
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    mistakes.into_iter().next().unwrap()
}

/// Every key once, none at its default.
pub(super) const FULL: &str = r#"
[node]
name = "lb1"
manage_vips = false
on_stop = "detach"

[[interface]]
name = "eth0"
xdp = "native"

[limits]
services = 10
backends = 20
ring_blocks = 32
flows = 4096

[[service]]
name = "web"
vip = "203.0.113.10"
port = 80
protocol = "tcp"
scheduler = "round-robin"
forward = "nat"
idle_timeout = "15m"
slow_start = "30s"
on_down = "reset"
on_remove = "drop"
on_all_down = "reset"
check_mode = "any"
hold_down = "2m"

[[service.check]]
type = "https"
interval = "5s"
fast_interval = "250ms"
timeout = "3s"
rise = 3
fall = 4
port = 8443
source = "10.0.0.1"
method = "HEAD"
path = "/health"
host = "www.example.com"
headers = { Accept = "text/plain" }
status = [200, "300-399"]
version = "2"
tls_name = "backend.example.com"
verify = false
min_valid_days = 30

[[service.check]]
type = "exec"
command = ["/bin/true", "--all"]

[[service.backend]]
name = "web1"
address = "10.0.0.11"
port = 8080
weight = 7
backup = 9

[[service.backend.check]]
type = "grpc"
grpc_service = "shop.Orders"
tls = true

[[service.backend]]
name = "web2"
address = "10.0.0.12"
port = 8080
checks = "none"

[[service]]
name = "dns"
vip = "2001:db8::10"
port = 53
protocol = "udp"
ring_slots = 65521
flow = "hash"

[[service.check]]
type = "dns"
name = "www.example.com"
query_type = "AAAA"
expect = "2001:db8::80"

[[service.check]]
type = "udp"
send = "\u0000ping"
expect = "pong"

[[service.backend]]
address = "2001:db8::11"

[[service]]
name = "db"
vip = "203.0.113.20"
port = 3306
role = "reader"
max_lag = "10s"
primary_as_last_resort = true

[[service.check]]
type = "mysql"
via = "datapath"
user = "check"
password_env = "PATH"
query = "SELECT 1"
replication = "running"
max_lag = "1m"
gtid = "0-1-100"

[[service.check]]
type = "agent"
port = 8081
send = "state"

[[service.backend]]
address = "10.0.0.21"
"#;

/// A service up to and without its backends.
pub(super) const WEB: &str = "[[service]]\nname = \"web\"\nvip = \"203.0.113.10\"\nport = 80\n";

#[test]
fn every_key_reaches_the_model() {
    let model = model(FULL);
    assert_eq!((model.node.as_str(), model.manage_vips), ("lb1", false));
    assert_eq!(model.on_stop, OnStop::Detach);
    assert_eq!(model.interfaces[0].name, "eth0");
    assert_eq!(model.interfaces[0].xdp, XdpMode::Native);
    let limits = Limits {
        services: 10,
        backends: 20,
        ring_blocks: 32,
        flows: 4096,
    };
    assert_eq!(model.limits, limits);
    let web = &model.services["web"];
    assert_eq!((web.port, web.protocol), (80, Protocol::Tcp));
    assert_eq!(
        (web.scheduler, web.forward),
        (Scheduler::RoundRobin, ForwardMode::Nat)
    );
    assert_eq!(web.idle_timeout_s, 900);
    assert_eq!(
        (web.backends["web1"].port, web.backends["web1"].weight),
        (8080, 7)
    );
    let policies = Policies {
        flow: UdpFlow::Pinned,
        slow_start_s: 30,
        on_down: OnDown::Reset,
        on_remove: OnRemove::Drop,
        on_all_down: OnAllDown::Reset,
    };
    assert_eq!((web.policies, web.backends["web1"].backup), (policies, 9));
    let dns = &model.services["dns"];
    assert_eq!(dns.policies.flow, UdpFlow::Hash);
    assert_eq!(
        (dns.protocol, dns.ring_slots, dns.idle_timeout_s),
        (Protocol::Udp, 65_521, 60)
    );
    assert_eq!(dns.backends["2001-db8--11"].port, 53);
}

#[test]
fn an_empty_file_is_a_node_without_services() {
    let model = model("");
    assert_eq!((model.node.as_str(), model.manage_vips), ("host", true));
    assert_eq!(model.limits, Limits::default());
    assert!(model.services.is_empty() && model.interfaces.is_empty());
}

#[test]
fn interfaces_of_the_command_line_come_on_top_of_the_file() {
    let overrides = Overrides {
        interfaces: vec!["eth1".to_owned(), "eth0".to_owned()],
        node: "host".to_owned(),
    };
    let model = parse("lbd.toml", FULL, &overrides).unwrap().model;
    let named: Vec<_> = model
        .interfaces
        .iter()
        .map(|i| (i.name.as_str(), i.xdp))
        .collect();
    assert_eq!(named, [("eth0", XdpMode::Native), ("eth1", XdpMode::Auto)]);

    let overrides = Overrides {
        interfaces: vec!["name-of-16-bytes".to_owned()],
        ..overrides
    };
    let report = parse("command line", "", &overrides)
        .map(|loaded| loaded.model)
        .unwrap_err();
    assert!(
        report
            .to_string()
            .starts_with("command line: error: interface `name-of-16-bytes`")
    );
}

#[test]
fn warnings_do_not_keep_a_file_from_loading() {
    let loaded = parse("lbd.toml", WEB, &overrides()).unwrap();
    let lines: Vec<_> = loaded.warnings.lines().collect();
    assert_eq!(lines.len(), 1);
    assert!(lines[0].starts_with("lbd.toml:1:1: warning: service `web`: has no backend"));
    assert_eq!(loaded.warnings.error_count(), 0);
}

#[test]
fn unknown_keys_get_a_suggestion_at_every_level() {
    assert_eq!(
        mistake("[nodes]\n"),
        "1:2: error: unknown key `nodes` (did you mean `node`?)"
    );
    assert_eq!(
        mistake("[limits]\nring_blcks = 9\n"),
        "2:1: error: unknown key `ring_blcks` (did you mean `ring_blocks`?)"
    );
    let backend = "[[service.backend]]\naddress = \"10.0.0.11\"\ncolour = \"red\"\n";
    assert_eq!(
        mistake(&format!("{WEB}{backend}")),
        "7:1: error: unknown key `colour` (the keys here are `name`, `address`, `port`, `weight`, \
         `backup`, `checks`, `check`)"
    );
}

#[test]
fn wrong_types_say_what_was_found_and_how_it_is_written() {
    let cases = [
        (
            "[node]\nname = 5\n",
            "2:8: error: `name` is a whole number, not a string (write it like `name = \"…\"`)",
        ),
        (
            "[node]\nmanage_vips = \"no\"\n",
            "2:15: error: `manage_vips` is a string, not true or false (write it like `manage_vips = true`)",
        ),
        (
            "[limits]\nflows = 1e6\n",
            "2:9: error: `flows` is a number with a fraction, not a whole number (write it like `flows = 80`)",
        ),
        (
            "[limits]\nflows = 99999999999999999999\n",
            "2:9: error: `flows` = 99999999999999999999 is too large a number (write a smaller one)",
        ),
        (
            "node = []\n",
            "1:8: error: `node` is a list, not a table (write `[node]` and its keys below)",
        ),
        (
            "service = [1]\n",
            "1:12: error: `service` is a whole number, not a list of tables (write `[[service]]`, with two brackets, for each one)",
        ),
        (
            "interface = 2026-01-01\n",
            "1:13: error: `interface` is a date, not a list of tables (write `[[interface]]`, with two brackets, for each one)",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(mistake(text), expected);
    }
}

#[test]
fn one_bracket_for_two_is_explained_and_the_keys_are_checked_all_the_same() {
    let mistakes = mistakes("[interface]\nname = \"eth0\"\nxpd = \"auto\"\n");
    assert_eq!(
        mistakes,
        [
            "1:1: error: `interface` is a table, not a list of tables (write `[[interface]]`, with two brackets, for each one)",
            "3:1: error: unknown key `xpd` (did you mean `xdp`?)",
        ]
    );
}

#[test]
fn wrong_words_addresses_and_time_spans_are_found_at_their_value() {
    let interface = "[[interface]]\nname = \"eth0\"\nxdp = \"driver\"\n";
    assert_eq!(
        mistake(interface),
        "3:7: error: unknown xdp `driver` (write one of `auto`, `native`, `generic`)"
    );
    let web = |line: &str| format!("{WEB}{line}\n[[service.backend]]\naddress = \"10.0.0.11\"\n");
    assert_eq!(
        mistake(&web("scheduler = \"maglv\"")),
        "5:13: error: unknown scheduler `maglv` (did you mean `maglev`? It is one of `maglev`, `round-robin`)"
    );
    assert_eq!(
        mistake(&web("on_all_down = \"last-good\"")),
        "5:15: error: unknown on_all_down `last-good` (did you mean `last_good`? It is one of `last_good`, `reset`, `drop`)"
    );
    assert_eq!(
        mistake(&web("flow = \"hash\"")),
        "5:8: error: service `web`: `flow` is for UDP services; TCP connections are never moved \
         (leave it out, or set protocol = \"udp\")"
    );
    assert_eq!(
        mistake(&web("idle_timeout = \"1 day\"")),
        "5:16: error: `1 day` is not a time span (write a whole number and its unit: `90s`, `15m` or `2h`)"
    );
    assert_eq!(
        mistake(&web("").replace("203.0.113.10", "203.0.113.10/32")),
        "3:7: error: `203.0.113.10/32` is not an IP address \
         (write it without a prefix length: `203.0.113.10`)"
    );
}

#[test]
fn columns_are_characters_not_bytes() {
    let text = "[node] # Knoten\nname = \"lb\" # größte\n[limits]\nflows = 5 # é\n\"größe\" = 1\n";
    assert_eq!(
        mistakes(text),
        [
            "4:9: error: limits: flows 5 is not in 1024 to 67108864",
            "5:1: error: unknown key `größe` (the keys here are `services`, `backends`, `ring_blocks`, `flows`)",
        ]
    );
    assert_eq!(
        mistake("x = \"äöü\" y\n"),
        "1:11: error: this is not TOML: unexpected key or value, expected newline, `#`"
    );
}

#[test]
fn slips_of_syntax_are_found_and_what_follows_is_not_guessed_at() {
    assert_eq!(
        mistake("[node]\nname = \"lb1\n[[service]]\n"),
        "2:12: error: this is not TOML: invalid basic string, expected `\"`"
    );
    assert_eq!(
        mistakes("b = lb1\nc = [\n"),
        [
            "1:5: error: this is not TOML: string values must be quoted, expected literal string",
            "2:6: error: this is not TOML: unclosed array, expected `]`",
        ]
    );
}

#[test]
fn a_key_written_twice_hides_nothing_else() {
    assert_eq!(
        mistakes("[node]\nname = \"a\"\nname = \"b\"\nnmae = 1\n"),
        [
            "3:1: error: `name` is written twice in this table",
            "4:1: error: unknown key `nmae` (did you mean `name`?)",
        ]
    );
}

#[test]
fn contradictions_point_to_both_places() {
    let twin = "[[service]]\nname = \"shop\"\nvip = \"203.0.113.10\"\nport = 80\n";
    let backend = "[[service.backend]]\naddress = \"10.0.0.11\"\n";
    let report = report(&format!("{WEB}{backend}{twin}{backend}"));
    assert_eq!(
        report.to_string(),
        "lbd.toml:9:7: error: service `shop`: 203.0.113.10:80 tcp belongs to service `web` already"
    );
    let drawing = report.render(Look::Plain);
    assert!(drawing.contains("[lbd.toml:9:7]"), "{drawing}");
    assert!(drawing.contains("^^^"), "{drawing}");
    assert!(drawing.contains("contradicts this"), "{drawing}");
    assert!(drawing.contains("3 | vip = \"203.0.113.10\""), "{drawing}");
}

#[test]
fn a_default_that_breaks_a_rule_points_to_the_section() {
    let backends = "[[service.backend]]\nname = \"10.0.0.12\"\naddress = \"10.0.0.11\"\n\
                    [[service.backend]]\naddress = \"10.0.0.12\"\n";
    assert_eq!(
        mistake(&format!("{WEB}{backends}")),
        "8:1: error: service `web`, backend `10.0.0.12`: the name is taken in this service"
    );
}

#[test]
fn six_mistakes_are_six_reports_in_the_order_of_the_file() {
    let text = r#"[node]
naem = "lb1"
[[interface]]
name = "eth0"
xdp = 1
[[service]]
name = "web"
vip = "203.0.113.10"
port = 99999
scheduler = "magic"
[[service.backend]]
address = "10.0.0.300"
[[service.backend]]
address = "10.0.0.12"
weight = 0
"#;
    let report = report(text);
    assert_eq!(report.error_count(), 6);
    let places: Vec<_> = report
        .lines()
        .map(|line| line.split(": ").next().unwrap().to_owned())
        .collect();
    assert_eq!(
        places,
        [
            "lbd.toml:2:1",
            "lbd.toml:5:7",
            "lbd.toml:9:8",
            "lbd.toml:10:13",
            "lbd.toml:12:11",
            "lbd.toml:15:10",
        ]
    );
    let drawing = report.render(Look::Plain);
    assert_eq!(drawing.matches(",-[lbd.toml:").count(), 6, "{drawing}");
}

#[test]
fn a_file_that_cannot_be_read_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let refusal = |path: &std::path::Path| {
        let loaded = load(Some(path), &overrides());
        loaded.map(|loaded| loaded.model).unwrap_err().to_string()
    };
    let missing = directory.path().join("missing.toml");
    assert!(refusal(&missing).contains("No such file or directory"));
    assert!(refusal(directory.path()).contains("it is no regular file"));
    let fifo = directory.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for special in [&*fifo, std::path::Path::new("/dev/zero")] {
        assert!(refusal(special).contains("it is no regular file"));
    }
    let huge = directory.path().join("huge.toml");
    let file = std::fs::File::create(&huge).unwrap();
    file.set_len(64 * 1024 * 1024 + 1).unwrap();
    assert!(refusal(&huge).contains("it is larger than 67108864 bytes"));
    let binary = directory.path().join("binary.toml");
    std::fs::write(&binary, b"a = \xff").unwrap();
    assert!(refusal(&binary).contains("it is no UTF-8 text: see byte 4"));
}

#[test]
fn a_line_too_wide_to_be_drawn_is_named_by_its_place() {
    let wide = "x".repeat(100_000);
    let text = format!("[node]\nname = \"{wide}\"\n{wide} = 1\n[nodes]\n");
    let report = report(&text);
    let drawing = report.render(Look::Plain);
    for place in [
        "lbd.toml:2:8: error: ",
        "lbd.toml:3:1: error: unknown key `xxx",
    ] {
        assert!(drawing.contains(place), "{place}");
    }
    assert!(drawing.len() < 10_000, "{} bytes", drawing.len());
    assert_eq!(report.error_count(), 3);
}

#[test]
fn of_a_hundred_thousand_mistakes_the_first_hundred_are_told() {
    // A warning that comes first takes no error's place.
    let keys: String = (0..100_000).map(|n| format!("key{n} = 1\n")).collect();
    let text = format!("{WEB}[limits]\n{keys}");
    let start = std::time::Instant::now();
    let report = report(&text);
    assert_eq!(report.error_count(), 100_000);
    let lines: Vec<_> = report.lines().collect();
    assert_eq!(lines.len(), 101);
    assert_eq!(lines[100], "lbd.toml: and 99901 more");
    assert!(
        lines
            .iter()
            .take(100)
            .all(|line| line.contains(": error: "))
    );
    let drawing = report.render(Look::Plain);
    assert!(drawing.ends_with("lbd.toml: and 99901 more\n"));
    // Quadratic work on this text takes minutes.
    assert!(start.elapsed() < std::time::Duration::from_secs(30));
}

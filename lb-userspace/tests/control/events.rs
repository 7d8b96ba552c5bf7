//! `lbctl events`: what is remembered, and what happens from then on.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use lb_userspace::events::{EVENTS_MAX, Event};
use serde_json::{Value, json};

use crate::fake::Daemon;

fn death(backend: &str) -> Event {
    Event {
        unix_ms: 1_700_000_000_123,
        kind: "health".to_owned(),
        service: Some("web".to_owned()),
        backend: Some(backend.to_owned()),
        from: Some("up".to_owned()),
        to: "down".to_owned(),
        reason: "connection refused".to_owned(),
        ..Event::default()
    }
}

fn alarm() -> Event {
    Event {
        kind: "alarm".to_owned(),
        service: Some("db".to_owned()),
        from: Some("quiet".to_owned()),
        to: "alarm".to_owned(),
        reason: "no backend accepts writes".to_owned(),
        ..Event::default()
    }
}

#[test]
fn events_are_a_line_each_as_text_and_as_json() {
    let daemon = Daemon::start();
    assert_eq!(daemon.ok("events"), "");
    daemon.monitor.events.push(death("web1"));
    daemon.monitor.events.push(alarm());
    let text = daemon.ok("events");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "2023-11-14T22:13:20.123Z  health  web/web1  up -> down: connection refused"
    );
    assert!(lines[1].ends_with("  alarm   db  quiet -> alarm: no backend accepts writes"));
    assert_eq!(lines.len(), 2);

    let json: Vec<Value> = daemon
        .ok("events -o json")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(json.len(), 2);
    assert_eq!(
        json[0],
        json!({
            "sequence": 1,
            "unix_ms": 1_700_000_000_123_u64,
            "kind": "health",
            "service": "web",
            "backend": "web1",
            "group": null,
            "family": null,
            "peer": null,
            "from": "up",
            "to": "down",
            "reason": "connection refused",
        })
    );
    assert_eq!(
        (&json[1]["sequence"], &json[1]["backend"]),
        (&json!(2), &Value::Null)
    );
}

#[test]
fn who_follows_gets_each_event_once_as_it_happens() {
    let daemon = Daemon::start();
    for _ in 0..EVENTS_MAX {
        daemon.monitor.events.push(death("web1"));
    }
    let mut lbctl = Command::new(env!("CARGO_BIN_EXE_lbctl"))
        .env("LBCTL_SOCKET", &daemon.socket)
        .args(["-o", "json", "events", "-f"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(lbctl.stdout.take().unwrap()).lines();
    let mut next = || {
        let line = lines.next().expect("it follows").unwrap();
        let event: Event = serde_json::from_str(&line).unwrap();
        (event.sequence, event.backend.unwrap())
    };
    let remembered = EVENTS_MAX as u64;
    for sequence in 1..=remembered {
        assert_eq!(next(), (sequence, "web1".to_owned()));
    }
    for number in 2..5 {
        let backend = format!("web{number}");
        daemon.monitor.events.push(death(&backend));
        assert_eq!(next(), (remembered + number - 1, backend));
    }
    lbctl.kill().unwrap();
    lbctl.wait().unwrap();
}

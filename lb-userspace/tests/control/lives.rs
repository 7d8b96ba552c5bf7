//! Backends' lives: admin state and health, flows, rings, and what a change would do. API and `lbctl`.

use serde_json::{Value, json};

use crate::api::{ask, get, post, with_web as api_with_web};
use crate::fake::{BUSY, Daemon};
use crate::lbctl::{lbctl, row, with_web};

const WEB1: &str = "/v1/services/web/backends/web1";

fn put(daemon: &Daemon, path: &str, body: &Value) -> (u16, Value) {
    let answer = ask(daemon, "PUT", path, &body.to_string());
    (answer.status, answer.body)
}

#[test]
fn admin_state_and_health_are_set_and_shown() {
    let daemon = api_with_web();
    let (admin, health) = (format!("{WEB1}/admin"), format!("{WEB1}/health"));
    let second = json!({"address": "10.0.0.12"});
    post(&daemon, "/v1/services/web/backends", &second);
    let done = put(&daemon, &admin, &json!({"state": "drain", "strict": true}));
    assert_eq!(done, (200, json!({"name": "web1", "warnings": []})));
    assert_eq!(put(&daemon, &health, &json!({"state": "up"})).0, 200);
    let shown = get(&daemon, WEB1).body;
    assert_eq!(
        [&shown["admin"], &shown["health"], &shown["is_eligible"]],
        [&json!("drain"), &json!("up"), &json!(false)]
    );
    assert_eq!(get(&daemon, &health).body, json!({"state": "up"}));
    assert_eq!(
        get(&daemon, &admin).body,
        json!({
            "state": "drain", "slots": 0, "previous_slots": 5,
            "flows": {"half_open": 0, "established": 2, "closing": 0},
            "is_empty": false, "certain_in_s": 90,
        })
    );
}

#[test]
fn taking_out_the_last_one_is_allowed_and_told() {
    let daemon = api_with_web();
    let (status, body) = put(
        &daemon,
        &format!("{WEB1}/admin"),
        &json!({"state": "maint"}),
    );
    assert_eq!(status, 200);
    let warning = body["warnings"][0].as_str().unwrap();
    assert!(
        warning.contains("no backend can take new flows (web1 maint)")
            && warning.contains("on_all_down = \"last_good\""),
        "{warning}"
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_its_field() {
    let daemon = api_with_web();
    let refusal = |method: &str, path: &str, body: &str| {
        let answer = ask(&daemon, method, path, body);
        let (status, code, field) = answer.refusal();
        let field = field.map(str::to_owned);
        (status, code.to_owned(), field, answer.message().to_owned())
    };
    let (status, code, field, message) =
        refusal("PUT", &format!("{WEB1}/admin"), r#"{"state": "drained"}"#);
    assert_eq!(
        (status, &*code, field.as_deref()),
        (400, "invalid", Some("state"))
    );
    assert!(message.contains("did you mean `drain`?"), "{message}");
    for (method, path, body, status, field) in [
        (
            "PUT",
            "/v1/services/web/backends/web1/health",
            r#"{"state": "well"}"#,
            400,
            Some("state"),
        ),
        (
            "PUT",
            "/v1/services/web/backends/web1/admin",
            r#"{"state": "drain", "force": true}"#,
            400,
            Some("force"),
        ),
        (
            "PUT",
            "/v1/services/web/backends/web2/admin",
            r#"{"state": "drain"}"#,
            404,
            None,
        ),
        (
            "PUT",
            "/v1/services/wbe/backends/web1/health",
            r#"{"state": "up"}"#,
            404,
            None,
        ),
        ("GET", "/v1/services/web/backends/web2/admin", "", 404, None),
        ("GET", "/v1/services/wbe/ring", "", 404, None),
        ("GET", "/v1/flows?limit=-1", "", 400, Some("limit")),
        ("GET", "/v1/flows?limit=100001", "", 400, Some("limit")),
        ("GET", "/v1/flows?limit=many", "", 400, None),
        ("GET", "/v1/flows?colour=red", "", 400, None),
        (
            "POST",
            "/v1/plan",
            r#"{"change": "set_weight", "service": "web", "backend": "web1", "weight": 0}"#,
            400,
            Some("weight"),
        ),
        (
            "POST",
            "/v1/plan",
            r#"{"change": "remove_backend", "service": "web", "backend": "web2"}"#,
            404,
            None,
        ),
        (
            "POST",
            "/v1/plan",
            r#"{"change": "explode"}"#,
            400,
            Some("change"),
        ),
        (
            "POST",
            "/v1/config/diff",
            r#"{"name": "x.toml", "text": "[[service]]\n"}"#,
            400,
            Some("text"),
        ),
    ] {
        let found = refusal(method, path, body);
        assert_eq!(
            (found.0, found.2.as_deref()),
            (status, field),
            "{path}: {}",
            found.3
        );
    }
}

#[test]
fn flows_are_listed_and_counted() {
    let daemon = api_with_web();
    let flows = get(&daemon, "/v1/flows?service=web&limit=1").body;
    assert_eq!(
        flows,
        json!({
            "flows": [{
                "service": "web", "backend": "web1", "client": "192.0.2.7", "client_port": 4000,
                "port": 80, "state": "established", "idle_s": 10, "expires_s": 890,
            }],
            "counts": [{
                "service": "web", "backend": "web1",
                "flows": {"half_open": 1, "established": 1, "closing": 0}, "is_complete": false,
            }],
        })
    );
    let table = daemon.ok("flow list");
    assert_eq!(
        row(&table, "web web1")[2..],
        [
            "192.0.2.7",
            "4000",
            "80",
            "established",
            "10s",
            "14m",
            "50s"
        ]
    );
    assert!(table.contains("2 flows on record\n"), "{table}");
    let cut = daemon.ok("flow list --service web --backend web1 --limit 1");
    assert!(
        cut.contains("2 flows on record, 1 of them not listed"),
        "{cut}"
    );
    let count = daemon.ok("flow count");
    assert_eq!(row(&count, "web web1")[2..], ["1", "1", "0", "2"]);
    assert!(count.contains("settled slots are on no record"), "{count}");
    assert_eq!(daemon.json("flow count")["flows"], json!([]));
}

#[test]
fn flows_that_are_all_on_record_are_not_excused() {
    let daemon = Daemon::start();
    daemon.ok("service add rr --vip 203.0.113.10 --port 80 --scheduler round-robin");
    daemon.ok("backend add rr 10.0.0.11");
    let count = daemon.ok("flow count");
    assert!(!count.contains("no record"), "{count}");
    assert_eq!(daemon.json("flow count")["counts"][0]["is_complete"], true);
}

#[test]
fn a_ring_shows_shares_and_transitions() {
    let daemon = with_web();
    daemon.ok("backend drain web 10.0.0.12");
    let ring = daemon.ok("ring show web");
    assert_eq!(row(&ring, "Slots:")[1], "16381");
    assert!(
        ring.contains("1 (0 armed, 1 moving, 0 quiet), the oldest for 1m 15s"),
        "{ring}"
    );
    assert_eq!(row(&ring, "web1")[1..4], ["16381", "100.0", "%"]);
    assert_eq!(row(&ring, "10.0.0.12")[7..], ["not", "eligible"]);
    let json = daemon.json("ring show web");
    assert_eq!(
        (&json["moving_slots"], &json["since_s"]),
        (&json!(1), &json!(75))
    );
}

#[test]
fn the_commands_change_what_the_list_shows() {
    let daemon = with_web();
    let state = || {
        let list = daemon.ok("backend list web");
        let row = row(&list, "web web1");
        format!("{} {}", row[7], row[8])
    };
    for (command, done, expected) in [
        ("backend drain web web1", "drain", "drain unknown"),
        ("backend maint web web1 --strict", "maint", "maint unknown"),
        ("health set web web1 down", "down", "maint down"),
        ("backend ready web web1", "ready", "ready down"),
        ("health set web web1 up", "up", "ready up"),
    ] {
        assert_eq!(daemon.ok(command), format!("backend web1 of web: {done}\n"));
        assert_eq!(state(), expected, "{command}");
    }
    let weight = daemon.ok("backend weight web web1 7");
    assert_eq!(weight, "backend web1 of web: weight 7\n");
    let refused = daemon.refused("backend weight web web1 0");
    assert!(refused.contains("drain it"), "{refused}");
}

#[test]
fn a_backup_says_that_it_waits() {
    let daemon = with_web();
    daemon.ok("backend add web 10.0.0.13 --name spare --backup 1");
    let waiting = daemon.ok("backend show web spare");
    assert_eq!(row(&waiting, "Admin state:")[2..], ["ready", "(backup)"]);
    daemon.ok("health set web web1 down");
    daemon.ok("health set web 10.0.0.12 down");
    let active = daemon.ok("backend show web spare");
    assert_eq!(row(&active, "Admin state:")[2..], ["ready"]);
    assert_eq!(row(&active, "Backup:")[1..], ["group", "1"]);
}

#[test]
fn the_wait_for_a_drain_ends_when_no_flow_is_left_for_certain() {
    let daemon = with_web();
    let done = lbctl(&daemon.socket, "backend drain web web1 --wait 60s");
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert_eq!(
        done.stdout,
        "backend web1 of web: drain\nbackend web1 of web: no flow is left\n"
    );
    assert!(
        done.stderr.starts_with("2 flows on record"),
        "{}",
        done.stderr
    );
}

#[test]
fn the_wait_for_a_drain_tells_what_is_left_and_what_it_cannot_know() {
    let daemon = with_web();
    daemon.ok(&format!("backend add web 10.0.0.13 --name {BUSY}"));
    let busy = lbctl(
        &daemon.socket,
        &format!("backend drain web {BUSY} --wait 1s"),
    );
    assert_eq!(busy.code, 4, "{}", busy.stderr);
    assert!(busy.stderr.contains("2 flows are left"), "{}", busy.stderr);

    // The fake has forgotten those on record by now.
    let line = "backend drain web 10.0.0.12 --wait 1s -o json";
    let uncertain = lbctl(&daemon.socket, line);
    assert_eq!(uncertain.code, 5, "{}", uncertain.stderr);
    assert!(
        uncertain.stderr.contains("certain in 1m 30s"),
        "{}",
        uncertain.stderr
    );
    let json: Value = serde_json::from_str(&uncertain.stdout).unwrap();
    assert_eq!(
        (&json["is_empty"], &json["certain_in_s"]),
        (&json!(false), &json!(90))
    );
}

#[test]
fn a_wait_that_somebody_makes_pointless_ends() {
    let daemon = with_web();
    let waiting = daemon.socket.clone();
    let line = format!("backend add web 10.0.0.13 --name {BUSY}");
    daemon.ok(&line);
    let waiter =
        std::thread::spawn(move || lbctl(&waiting, &format!("backend drain web {BUSY} --wait 1h")));
    let admin = || daemon.json(&format!("backend show web {BUSY}"))["admin"].clone();
    while admin() != "drain" {
        std::thread::yield_now();
    }
    daemon.ok(&format!("backend ready web {BUSY}"));
    let done = waiter.join().unwrap();
    assert_eq!(done.code, 1, "{}", done.stderr);
    assert!(done.stderr.contains("made ready again"), "{}", done.stderr);
}

#[test]
fn a_plan_tells_slots_and_breakages_and_changes_nothing() {
    let daemon = with_web();
    let plan = daemon.ok("plan backend drain web web1");
    assert!(plan.contains("of 16381 slots move"), "{plan}");
    assert_eq!(row(&plan, "web1")[4..], ["0", "0.0", "%"]);
    assert!(plan.contains("flows that would break: 0\n"), "{plan}");
    assert!(
        plan.contains("note: new flows follow after 1.5 s"),
        "{plan}"
    );

    let removal = daemon.ok("plan service remove web");
    assert!(
        removal.contains(
            "flows that would break: any of the service (0 on record, and those that \
                          are on none): the service goes"
        ),
        "{removal}"
    );
    for line in [
        "plan backend ready web web1",
        "plan backend maint web web1 --strict",
        "plan backend weight web web1 7",
        "plan backend set web web1 --weight 7",
        "plan backend remove web web1",
        "plan backend add web 10.0.0.14",
        "plan health set web web1 down",
        "plan service add api --vip 203.0.113.11 --port 80",
    ] {
        daemon.ok(line);
    }
    let untouched = daemon.json("backend show web web1");
    assert_eq!(
        (&untouched["admin"], &untouched["weight"]),
        (&json!("ready"), &json!(300))
    );
    let refused = daemon.refused("plan backend remove web wbe1");
    assert!(refused.contains("did you mean `web1`?"), "{refused}");
    let last = daemon.ok("plan backend drain web 10.0.0.12");
    assert!(!last.contains("warning"), "{last}");
    daemon.ok("backend drain web web1");
    let last = daemon.ok("plan backend drain web 10.0.0.12");
    assert!(
        last.contains("warning: service `web`: no backend can take new flows"),
        "{last}"
    );
    assert_eq!(
        daemon.json("plan backend drain web web1")["services"],
        json!([])
    );
}

#[test]
fn a_config_file_is_compared_with_what_is_in_force() {
    let daemon = with_web();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("lbd.toml");
    let text = "[[interface]]\nname = \"eth0\"\n\
                [[service]]\nname = \"web\"\nvip = \"203.0.113.10\"\nport = 80\n\
                on_remove = \"reset\"\n\
                [[service.backend]]\nname = \"web1\"\naddress = \"10.0.0.11\"\nweight = 300\n";
    std::fs::write(&file, text).unwrap();
    let diff = daemon.ok(&format!("config diff {}", file.display()));
    assert!(
        diff.contains("service `web` on_remove keep -> reset\n"),
        "{diff}"
    );
    assert!(
        diff.contains("service `web`, backend `10.0.0.12` removed\n"),
        "{diff}"
    );
    assert!(
        diff.contains("flows that would break: all of 10.0.0.12 (0 on record"),
        "{diff}"
    );
    assert!(
        diff.contains("it is removed, and on_remove = \"reset\""),
        "{diff}"
    );
    assert!(
        diff.contains("stays as long as lbd is started with --iface eth1"),
        "{diff}"
    );
    assert!(diff.contains("a reload would be refused: "), "{diff}");

    std::fs::write(&file, text.replace("port = 80", "prot = 80")).unwrap();
    let refused = daemon.refused(&format!("config diff {}", file.display()));
    assert!(refused.contains("did you mean `port`?"), "{refused}");
    let missing = daemon.refused("config diff /nonexistent/lbd.toml");
    assert!(missing.contains("No such file"), "{missing}");
}

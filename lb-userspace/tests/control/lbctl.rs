//! The real `lbctl` binary: words in, tables, JSON and exit codes out.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Output};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use serde_json::Value;

use crate::fake::Daemon;

pub(crate) struct Done {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().expect("it was not killed"),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs `lbctl` with the words of a line.
pub(crate) fn lbctl(socket: &Path, line: &str) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbctl"));
    command
        .env("LBCTL_SOCKET", socket)
        .args(line.split_whitespace());
    command.output().unwrap().into()
}

impl Daemon {
    #[track_caller]
    pub(crate) fn ok(&self, line: &str) -> String {
        let done = lbctl(&self.socket, line);
        assert_eq!(done.code, 0, "lbctl {line}: {}", done.stderr);
        done.stdout
    }

    #[track_caller]
    pub(crate) fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("{line} -o json"))).unwrap()
    }

    #[track_caller]
    pub(crate) fn refused(&self, line: &str) -> String {
        let done = lbctl(&self.socket, line);
        assert_eq!(
            (done.code, done.stdout.as_str()),
            (1, ""),
            "lbctl {line}: {}",
            done.stderr
        );
        done.stderr
    }
}

const ADD_WEB: &str = "service add web --vip 203.0.113.10 --port 80 --protocol tcp \
                       --scheduler maglev --forward dsr";

pub(crate) fn with_web() -> Daemon {
    let daemon = Daemon::start();
    daemon.ok(ADD_WEB);
    daemon.ok("backend add web 10.0.0.11 --name web1 --weight 300");
    daemon.ok("backend add web 10.0.0.12");
    daemon
}

/// The cells of the row that begins with these words.
#[track_caller]
pub(crate) fn row<'t>(table: &'t str, start: &str) -> Vec<&'t str> {
    let words = |line: &'t str| line.split_whitespace().collect::<Vec<_>>();
    let start: Vec<_> = start.split(' ').collect();
    let mut rows = table.lines().map(words);
    rows.find(|row| row.starts_with(&start))
        .unwrap_or_else(|| panic!("no {start:?} in\n{table}"))
}

#[test]
fn a_service_is_added_listed_shown_and_removed() {
    let daemon = Daemon::start();
    assert!(daemon.ok("service list").contains("lbctl service add NAME"));
    let added = lbctl(&daemon.socket, ADD_WEB);
    assert_eq!(
        (added.code, added.stdout.as_str()),
        (0, "service web added\n")
    );
    assert!(
        added
            .stderr
            .starts_with("warning: service `web`: has no backend"),
        "{}",
        added.stderr
    );
    assert!(
        daemon
            .ok("service show web")
            .contains("no backends; add one")
    );

    daemon.ok("backend add web 10.0.0.11");
    let list = daemon.ok("service list");
    let cells = [
        "web",
        "203.0.113.10",
        "80",
        "tcp",
        "maglev",
        "dsr",
        "1",
        "2",
        "10",
        "1000",
        "B",
        "3",
    ];
    assert_eq!(row(&list, "web"), cells);
    let shown = daemon.ok("service show web");
    assert!(shown.contains("203.0.113.10, on eth0"), "{shown}");
    assert_eq!(row(&shown, "Idle time-out:")[2], "15m");
    assert_eq!(row(&shown, "web 10.0.0.11")[2], "10.0.0.11");
    assert_eq!(row(&shown, "3 no_backend")[2], "the");

    assert_eq!(daemon.ok("service remove web"), "service web removed\n");
    assert_eq!(
        daemon.json("service list")["services"],
        serde_json::json!([])
    );
}

#[test]
fn a_backend_is_added_listed_set_shown_and_removed() {
    let daemon = with_web();
    let list = daemon.ok("backend list web");
    assert_eq!(list, daemon.ok("backend list"));
    let web1 = row(&list, "web web1");
    assert_eq!(
        web1[2..9],
        ["10.0.0.11", "80", "300", "75.0", "%", "ready", "unknown"]
    );
    assert_eq!(
        web1[13..],
        [
            "02:00:00:00:00:0c",
            "on",
            "eth0",
            "(does",
            "not",
            "answer;",
            "last",
            "known)"
        ]
    );

    let set = daemon.ok("backend set web web1 --weight 100");
    assert_eq!(set, "backend web1 of web: weight 100\n");
    let shown = daemon.ok("backend show web web1");
    assert_eq!(row(&shown, "Share:")[1..], ["50.0", "%,", "100", "slots"]);
    assert_eq!(row(&shown, "Backend:")[1..], ["web1", "of", "web"]);

    assert_eq!(
        daemon.ok("backend remove web 10.0.0.12"),
        "backend 10.0.0.12 removed from web\n"
    );
    let left = daemon.json("backend list web");
    assert_eq!(left["backends"].as_array().unwrap().len(), 1);
}

#[test]
fn every_option_arrives() {
    let daemon = Daemon::start();
    daemon.ok(
        "service add dns --vip 2001:db8::10 --port 53 --protocol udp --scheduler round-robin \
         --forward nat --idle-timeout 2m --ring-slots 16381 --flow pinned --slow-start 30s \
         --on-down reset --on-remove drop --on-all-down drop",
    );
    daemon.ok("backend add dns 2001:db8::11 --port 5353 --weight 2 --backup 3");
    let dns = daemon.json("service show dns");
    assert_eq!(dns["protocol"], "udp");
    assert_eq!(dns["scheduler"], "round-robin");
    assert_eq!(dns["forward"], "nat");
    assert_eq!(dns["idle_timeout_s"], 120);
    assert_eq!(
        (&dns["flow"], &dns["slow_start_s"]),
        (&"pinned".into(), &30.into())
    );
    let policies = daemon.ok("service show dns");
    assert_eq!(
        row(&policies, "Policies:")[1..].join(" "),
        "flow pinned, slow_start 30s, on_down reset, on_remove drop, on_all_down drop"
    );
    let backend = daemon.json("backend show dns 2001-db8--11-5353");
    assert_eq!(
        (&backend["port"], &backend["weight"]),
        (&Value::from(5353), &Value::from(2))
    );
    assert_eq!(backend["backup"], 3);
}

#[test]
fn status_and_stats_have_tables_and_json() {
    let daemon = with_web();
    let status = daemon.ok("status");
    assert_eq!(row(&status, "Node:")[1], "lb1");
    assert_eq!(row(&status, "Up for:")[2..], ["1m", "1s"]);
    assert_eq!(row(&status, "eth0")[..3], ["eth0", "2", "generic"]);
    assert_eq!(
        row(&status, "FLOWS"),
        ["FLOWS", "-", "4096", "limits.flows"]
    );
    assert_eq!(daemon.json("status")["backend_count"], 2);

    let stats = daemon.ok("stats");
    assert_eq!(row(&stats, "web (all)")[2..6], ["4", "20", "2.0", "KiB"]);
    assert_eq!(row(&stats, "web web1")[2..4], ["2", "10"]);
    assert_eq!(row(&stats, "- 1")[2], "truncated");
    assert_eq!(
        daemon.json("stats")["services"][0]["counters"]["bytes"],
        2000
    );
}

#[test]
fn watching_ends_by_itself_after_the_count() {
    let daemon = with_web();
    let text = daemon.ok("stats --watch --interval 0.1 --count 2");
    assert_eq!(text.matches("NEW FLOWS/S").count(), 2, "{text}");
    assert_eq!(row(&text, "web web1")[2..4], ["0", "0"]);
    let lines = daemon.ok("stats --watch --interval 0.1 --count 2 -o json");
    let samples: Vec<Value> = lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    assert_eq!(samples.len(), 2);
    assert_eq!(samples[1]["uptime_ms"], 61_500);
}

#[test]
fn numbers_are_aligned_right_and_lines_have_no_trailing_blanks() {
    let list = with_web().ok("backend list");
    let lines: Vec<_> = list.lines().collect();
    let end = |line: &str, word: &str| line.find(word).map(|at| at + word.len());
    assert_eq!(end(lines[0], "WEIGHT"), end(lines[2], "300"));
    assert_eq!(end(lines[0], "WEIGHT"), end(lines[1], " 100"));
    assert!(lines.iter().all(|line| *line == line.trim_end()), "{list}");
}

#[test]
fn what_the_daemon_refuses_is_exit_code_1() {
    let daemon = with_web();
    assert!(
        daemon
            .refused(ADD_WEB)
            .contains("there is one of this name already")
    );
    assert!(
        daemon
            .refused("backend set web web1 --weight 0")
            .contains("remove it")
    );
    assert!(
        daemon
            .refused("backend add web 10.0.0.13 --port 8080")
            .contains("DSR rewrites no port")
    );
    assert!(
        daemon
            .refused("service show wbe")
            .contains("did you mean `web`?")
    );
    assert!(
        daemon
            .refused("backend remove web ../../x")
            .contains("no backend `../../x`")
    );
    assert!(
        daemon
            .refused("backend list nowhere")
            .starts_with("lbctl: no service `nowhere`")
    );
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let daemon = Daemon::start();
    for line in [
        "",
        "service",
        "service add web",
        "backend add web nowhere",
        "status --colour",
    ] {
        let done = lbctl(&daemon.socket, line);
        assert_eq!(done.code, 2, "lbctl {line}");
        assert!(!done.stderr.is_empty());
    }
    let done = lbctl(
        &daemon.socket,
        "service add web --vip 10.0.0.1:80 --port 80",
    );
    assert!(
        done.stderr.contains("the port has a key of its own"),
        "{}",
        done.stderr
    );
}

#[test]
fn no_daemon_is_exit_code_3_with_a_way_out() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("lbd.sock");
    let done = lbctl(&missing, "status");
    assert_eq!(done.code, 3);
    assert!(
        done.stderr.contains("lbd.sock: No such file"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("is lbd running?"), "{}", done.stderr);

    let stale = directory.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    let done = lbctl(&missing, &format!("status --socket {}", stale.display()));
    assert_eq!(done.code, 3);
    assert!(
        done.stderr.contains("Connection refused"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_peer_that_is_no_lbd_is_exit_code_3() {
    use std::io::{Read, Write};
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("other.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let peer = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).unwrap() > 0);
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi")
            .unwrap();
    });
    let done = lbctl(&path, "status");
    peer.join().unwrap();
    assert_eq!(done.code, 3);
    assert!(
        done.stderr.contains("are both of one version?"),
        "{}",
        done.stderr
    );
}

#[test]
fn a_closed_pipe_is_no_failure() {
    let daemon = with_web();
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbctl"));
    command
        .env("LBCTL_SOCKET", &daemon.socket)
        .args(["service", "list"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let done: Done = command.stdout(writer).output().unwrap().into();
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
}

#[test]
fn completions_need_no_daemon() {
    let done = lbctl(Path::new("/nonexistent"), "completions bash");
    assert_eq!(done.code, 0, "{}", done.stderr);
    assert!(done.stdout.contains("round-robin"));
}

#[test]
fn a_daemon_with_too_many_clients_is_told_from_one_that_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("lbd.sock");
    let listener = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::empty(),
        None,
    )
    .unwrap();
    bind(listener.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
    // Nobody accepts, and the queue has room for one more than this.
    listen(&listener, Backlog::new(0).unwrap()).unwrap();
    let _waiting = UnixStream::connect(&path).unwrap();
    let done = lbctl(&path, "status");
    assert_eq!(done.code, 3, "{}", done.stderr);
    assert!(done.stderr.contains("too many clients"), "{}", done.stderr);
}

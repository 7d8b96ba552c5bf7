//! The real `lbd` binary, as far as it goes without privilege: `--check` and its first errors. What
//! it does to interfaces is tested end to end.

use std::path::{Path, PathBuf};
use std::process::Command;

struct Done {
    code: i32,
    stdout: String,
    stderr: String,
}

fn lbd(args: &[&str]) -> Done {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lbd"));
    let output = command.args(args).output().unwrap();
    Done {
        code: output.status.code().expect("it was not killed"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn check(file: &Path) -> Done {
    lbd(&["--config", file.to_str().unwrap(), "--check"])
}

fn write(directory: &tempfile::TempDir, text: &str) -> PathBuf {
    let file = directory.path().join("lbd.toml");
    std::fs::write(&file, text).unwrap();
    file
}

const GOOD: &str = r#"
[[interface]]
name = "eth0"
[[service]]
name = "web"
vip = "203.0.113.10"
port = 80
[[service.backend]]
name = "web1"
address = "10.0.0.11"
"#;

#[test]
fn a_good_file_is_ok_and_counted() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(&directory, GOOD);
    let done = check(&file);
    assert_eq!((done.code, done.stderr.as_str()), (0, ""));
    assert_eq!(
        done.stdout,
        format!("{}: ok, 1 service, 1 backend\n", file.display())
    );
}

#[test]
fn warnings_are_shown_and_are_no_failure() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(
        &directory,
        "[[service]]\nname = \"web\"\nvip = \"203.0.113.10\"\nport = 80\n",
    );
    let done = check(&file);
    assert_eq!(done.code, 0);
    assert!(done.stderr.contains("has no backend"), "{}", done.stderr);
    assert!(
        done.stderr.contains("lbd will need --iface"),
        "{}",
        done.stderr
    );
}

#[test]
fn every_mistake_is_shown_with_its_place_and_a_caret() {
    let directory = tempfile::tempdir().unwrap();
    let text = GOOD
        .replace("port = 80", "prot = 80")
        .replace("10.0.0.11", "10.0.0");
    let file = write(&directory, &text);
    let done = check(&file);
    assert_eq!((done.code, done.stdout.as_str()), (1, ""));
    for line in ["4:1", "7:1", "10:11"] {
        let place = format!("[{}:{line}]", file.display());
        assert!(done.stderr.contains(&place), "{place}: {}", done.stderr);
    }
    let carets = done
        .stderr
        .lines()
        .filter(|line| line.trim_start().starts_with(": "));
    assert_eq!(
        carets.filter(|line| line.contains("^^^^")).count(),
        3,
        "{}",
        done.stderr
    );
    assert!(
        done.stderr.contains("did you mean `port`?"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.ends_with("3 errors\n"), "{}", done.stderr);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let done = lbd(&["--config", "/nonexistent/lbd.toml"]);
    assert_eq!(done.code, 1);
    assert!(
        done.stderr.contains("cannot read /nonexistent/lbd.toml"),
        "{}",
        done.stderr
    );
}

#[test]
fn without_an_interface_it_says_which_there_are() {
    let done = lbd(&[]);
    assert_eq!(done.code, 1);
    assert!(
        done.stderr.contains("give `--iface NAME`"),
        "{}",
        done.stderr
    );
    assert!(done.stderr.contains("lo"), "{}", done.stderr);
}

#[test]
fn wrong_usage_is_exit_code_2() {
    assert_eq!(lbd(&["--check"]).code, 2);
    assert_eq!(lbd(&["--colour"]).code, 2);
    assert_eq!(lbd(&["--log", "a=b=c", "--iface", "eth0"]).code, 2);
}

/// Each line as JSON: the level and the message.
fn logged(stderr: &str) -> Vec<(String, String)> {
    let lines = stderr.lines().map(|line| {
        let value: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(value["timestamp"].is_string(), "{line}");
        ["level", "message"].map(|key| value[key].as_str().unwrap().to_owned())
    });
    lines.map(|[level, message]| (level, message)).collect()
}

#[test]
fn a_log_for_programs_is_json_in_every_line() {
    let directory = tempfile::tempdir().unwrap();
    let file = write(&directory, &GOOD.replace("port = 80", "prot = 80"));
    let file = file.to_str().unwrap();
    let done = lbd(&["--log-format", "json", "--config", file]);
    assert_eq!(done.code, 1);
    let told = logged(&done.stderr);
    assert!(told.iter().all(|(level, _)| level == "ERROR"), "{told:?}");
    assert!(told[1].1.contains("unknown key `prot`"), "{told:?}");
    assert_eq!(told.last().unwrap().1, "2 errors");

    let empty = write(&directory, "");
    let done = lbd(&["--log-format", "json", "--config", empty.to_str().unwrap()]);
    assert_eq!(done.code, 1);
    let told = logged(&done.stderr);
    assert!(told[0].1.contains("give `--iface NAME`"), "{told:?}");

    let bad = write(&directory, "[nod]\n");
    let checked = lbd(&[
        "--log-format",
        "json",
        "--check",
        "--config",
        bad.to_str().unwrap(),
    ]);
    assert!(checked.stderr.contains("[lbd.toml:1:2]") || checked.stderr.contains("lbd.toml:1:2"));
}

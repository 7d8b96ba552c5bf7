//! With /bin/sh for the programs.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::unistd::Pid;

use super::*;
use crate::health::probe::hostile;
use crate::model::check::CheckKind;

/// For what happens soon.
const PATIENCE: Duration = Duration::from_secs(20);

fn target() -> Target {
    hostile::target(SocketAddr::from(([192, 0, 2, 7], 3306)))
}

fn sh(script: &str) -> CheckKind {
    run("/bin/sh", &["-c", script])
}

fn run(program: &str, args: &[&str]) -> CheckKind {
    CheckKind::Exec(ExecCheck {
        program: program.into(),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
    })
}

async fn ran(kind: &CheckKind) -> Result<(), Failure> {
    hostile::ask(kind, target()).await.0
}

/// Until a condition holds.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn pid_in(file: &Path) -> Option<Pid> {
    let text = std::fs::read_to_string(file).ok()?;
    text.trim().parse().ok().map(Pid::from_raw)
}

/// It neither runs nor waits to be reaped. A grandchild is reaped by init, which may be slow, so that a
/// zombie that is not ours counts as gone.
fn is_gone(pid: Pid) -> bool {
    match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
        Err(_) => true,
        Ok(stat) => {
            let mut rest = stat
                .rsplit(')')
                .next()
                .unwrap_or_default()
                .split_whitespace();
            let (state, parent) = (rest.next(), rest.next());
            state == Some("Z") && parent != Some(&std::process::id().to_string())
        }
    }
}

#[tokio::test]
async fn the_exit_code_decides() {
    assert_eq!(ran(&sh("exit 0")).await, Ok(()));
    let failure = ran(&sh("echo; echo too slow; echo more; exit 3"))
        .await
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::Unexpected);
    assert_eq!(failure.reason, "exit code 3: \"too slow\"");
    let failure = ran(&sh("echo lost >&2; exit 1")).await.unwrap_err();
    assert_eq!(failure.reason, "exit code 1: \"lost\"");
    let failure = ran(&sh("kill -9 $$")).await.unwrap_err();
    assert_eq!(failure.reason, "ended by signal 9");
}

#[tokio::test]
async fn what_cannot_be_run_is_named() {
    let failure = ran(&run("/no/such/program", &[])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Local);
    assert!(failure.reason.contains("/no/such/program"), "{failure}");
    let failure = ran(&run("/etc/passwd", &[])).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Local, "{failure}");
}

#[tokio::test]
async fn the_environment_is_haproxys_and_nothing_else() {
    let script = "export -p | cut -d= -f1 | cut -d' ' -f2 | grep -v -e PWD -e OLDPWD | tr '\\n' ' '; \
                  echo $HAPROXY_SERVER_ADDR $HAPROXY_SERVER_PORT $HAPROXY_PROXY_ADDR; exit 1";
    let failure = ran(&sh(script)).await.unwrap_err();
    // A reason quotes 60 bytes.
    assert!(
        failure
            .reason
            .contains("HAPROXY_PROXY_ADDR HAPROXY_PROXY_PORT"),
        "{failure}"
    );
    let script =
        "echo $HAPROXY_SERVER_ADDR $HAPROXY_SERVER_PORT $HAPROXY_PROXY_ADDR $HOME$USER; exit 1";
    let failure = ran(&sh(script)).await.unwrap_err();
    assert_eq!(failure.reason, "exit code 1: \"192.0.2.7 3306 NOT_USED\"");
}

#[tokio::test]
async fn without_arguments_a_program_gets_haproxys() {
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("check");
    std::fs::write(&program, "#!/bin/sh\necho \"$@\"\nexit 1\n").unwrap();
    let is_executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, is_executable).unwrap();
    let path = program.to_str().unwrap();
    let words = |kind| async move { ran(&kind).await.unwrap_err().reason };
    assert_eq!(
        words(run(path, &[])).await,
        "exit code 1: \"NOT_USED NOT_USED 192.0.2.7 3306\""
    );
    assert_eq!(
        words(run(path, &["-v", "db"])).await,
        "exit code 1: \"-v db\""
    );
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_told() {
    let reason = hostile::timed_out(&sh("sleep 1000"), target()).await;
    assert_eq!(reason, "running: timed out after 100 ms");
}

#[tokio::test]
async fn a_time_out_ends_the_program_and_its_children_without_a_zombie() {
    let dir = tempfile::tempdir().unwrap();
    let (parent, child) = (dir.path().join("parent"), dir.path().join("child"));
    let script = format!(
        "echo $$ > {}; sleep 1000 & echo $! > {}; wait",
        parent.display(),
        child.display()
    );
    let asked = tokio::spawn(async move { ran(&sh(&script)).await });
    until("the child runs", || pid_in(&child).is_some()).await;
    // As the deadline does it.
    asked.abort();
    let (parent, child) = (pid_in(&parent).unwrap(), pid_in(&child).unwrap());
    until("the parent is reaped", || is_gone(parent)).await;
    until("the child is gone", || is_gone(child)).await;
}

#[tokio::test]
async fn what_a_program_leaves_behind_is_not_waited_for_and_ended() {
    let dir = tempfile::tempdir().unwrap();
    let left = dir.path().join("left");
    let begun = Instant::now();
    // The one left behind has inherited the outputs.
    let script = format!(
        "echo gone; sleep 1000 & echo $! > {}; exit 4",
        left.display()
    );
    let failure = ran(&sh(&script)).await.unwrap_err();
    assert_eq!(failure.reason, "exit code 4: \"gone\"");
    assert!(begun.elapsed() < PATIENCE);
    let left = pid_in(&left).unwrap();
    until("what was left is gone", || is_gone(left)).await;
}

#[tokio::test]
async fn words_without_end_cost_nothing() {
    let failure = ran(&sh("exec yes")).await.unwrap_err();
    assert_eq!(failure.reason, "ended by signal 13: \"y\"");
    let failure = ran(&sh("exec yes '' >&2")).await.unwrap_err();
    assert_eq!(failure.reason, "ended by signal 13");
}

#[tokio::test]
async fn the_program_has_no_input_and_no_descriptor_of_ours() {
    let open = tempfile::NamedTempFile::new().unwrap();
    let name = open.path().file_name().unwrap().to_str().unwrap();
    assert_eq!(ran(&sh("read line && exit 1; exit 0")).await, Ok(()));
    let inherits = format!("ls -l /proc/$$/fd | grep {name} && exit 1; exit 0");
    assert_eq!(ran(&sh(&inherits)).await, Ok(()));
}

//! With /bin/sh for the program.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::*;
use crate::config::tests::model;
use crate::events::EVENTS_MAX;
use crate::model::Model;

/// For what happens soon.
const PATIENCE: Duration = Duration::from_secs(20);

fn hook(script: &str) -> Hook {
    Hook {
        command: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
        timeout_s: 10,
    }
}

fn with(hook: Option<Hook>) -> Arc<Model> {
    let mut model = model("");
    model.hooks.on_change = hook;
    Arc::new(model)
}

fn event(to: &str) -> Event {
    Event {
        kind: "health".to_owned(),
        service: Some("web".to_owned()),
        backend: Some("web1".to_owned()),
        from: Some("up".to_owned()),
        to: to.to_owned(),
        reason: "connection refused".to_owned(),
        unix_ms: 1_700_000_000_123,
        ..Event::default()
    }
}

async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_default()
}

#[tokio::test]
async fn a_program_is_told_by_its_environment_and_its_input() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("told");
    let script = format!(
        "(cat; echo \"$0 $LB_NODE|$LB_EVENT_KIND|$LB_SERVICE|$LB_BACKEND|$LB_FROM|$LB_TO|$LB_REASON|\
         $LB_UNIX_MS|$HOME\") > {}",
        file.display()
    );
    let mut hook = hook(&script);
    hook.command.push("argument".to_owned());
    let one = event("down");
    assert_eq!(tell(&hook, "lb1", &one).await, Counted::HookSucceeded);
    let told = read(&file);
    let (json, words) = told.split_once('\n').unwrap();
    assert_eq!(serde_json::from_str::<Event>(json).unwrap(), one);
    assert_eq!(
        words,
        "argument lb1|health|web|web1|up|down|connection refused|1700000000123|\n"
    );
}

#[tokio::test]
async fn each_way_to_fail_is_told_apart() {
    let one = event("down");
    assert_eq!(
        tell(&hook("exit 3"), "lb1", &one).await,
        Counted::HookFailed
    );
    let status = std::os::unix::process::ExitStatusExt::from_raw(3 << 8);
    let (_, reason) = failure(Some(Ok(status)), &hook("")).unwrap();
    assert_eq!(reason, "exit code 3");
    let nowhere = Hook {
        command: vec!["/no/such/program".to_owned()],
        timeout_s: 10,
    };
    assert_eq!(tell(&nowhere, "lb1", &one).await, Counted::HookFailed);
    let (counted, reason) = failure(None, &nowhere).unwrap();
    assert_eq!(
        (counted, reason.as_str()),
        (
            Counted::HookTimedOut,
            "ended by lbd, since it took longer than 10 s"
        )
    );
}

#[tokio::test]
async fn a_program_that_takes_too_long_is_ended_with_its_children() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("pid");
    let mut slow = hook(&format!("sleep 1000 & echo $! > {}; wait", file.display()));
    slow.timeout_s = 1;
    assert_eq!(
        tell(&slow, "lb1", &event("down")).await,
        Counted::HookTimedOut
    );
    let child = read(&file);
    let stat = format!("/proc/{}/stat", child.trim());
    let is_gone = || {
        read(Path::new(&stat))
            .split(' ')
            .nth(2)
            .is_none_or(|state| state == "Z")
    };
    until("the child is ended", is_gone).await;
}

#[tokio::test]
async fn events_are_told_in_their_order_by_the_hook_of_the_model_in_force() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("told");
    let write = |word: &str| hook(&format!("echo {word} $LB_TO >> {}", file.display()));
    let (models, receiver) = watch::channel(with(Some(write("a"))));
    let (events, tally) = (EventLog::default(), Tally::default());
    for number in 0..5 {
        events.push(event(&number.to_string()));
    }
    let _hooks = Hooks::start(receiver, events.clone(), tally.clone());
    let successes = |count| {
        let tally = tally.clone();
        move || tally.get(Counted::HookSucceeded) == count
    };
    until("five were told", successes(5)).await;
    assert_eq!(read(&file), "a 0\na 1\na 2\na 3\na 4\n");

    models.send_replace(with(None));
    events.push(event("unheard"));
    models.send_replace(with(Some(write("b"))));
    events.push(event("last"));
    until("the new one is told", || read(&file).ends_with("b last\n")).await;
    assert_eq!(tally.get(Counted::HookMissed), 0);
}

#[tokio::test]
async fn what_a_slow_program_misses_is_counted() {
    let directory = tempfile::tempdir().unwrap();
    let (begun, go) = (directory.path().join("begun"), directory.path().join("go"));
    let script = format!(
        "[ \"$LB_TO\" = first ] || exit 0; echo > {}; until [ -e {} ]; do sleep 0.01; done",
        begun.display(),
        go.display()
    );
    let (_models, receiver) = watch::channel(with(Some(hook(&script))));
    let (events, tally) = (EventLog::default(), Tally::default());
    let _hooks = Hooks::start(receiver, events.clone(), tally.clone());
    events.push(event("first"));
    until("it runs", || begun.exists()).await;
    for _ in 0..EVENTS_MAX + 7 {
        events.push(event("more"));
    }
    std::fs::write(&go, "").unwrap();
    until("it is told of the rest", || {
        tally.get(Counted::HookSucceeded) > 1
    })
    .await;
    assert_eq!(tally.get(Counted::HookMissed), 7);
}

#[test]
fn what_is_logged_is_plain_text() {
    let told: Vec<String> = lines(b"a\x1b[31mb\r\n\n \xff c\n").collect();
    assert_eq!(told, ["a [31mb", "\u{fffd} c"]);
}

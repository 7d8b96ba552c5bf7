//! Programs that are told of what happens: `[hooks] on_change`.
//!
//! One at a time, in the order of the events. What is to be told waits in the [`EventLog`], which forgets the
//! oldest: so a slow program delays nothing but itself, and what it has missed is counted.

use std::process::ExitStatus;
use std::time::Duration;

use tokio::process::Command;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::engine::Models;
use crate::events::{Event, EventLog};
use crate::model::Hook;
use crate::program::{self, Fault, Words};
use crate::tally::{Counted, Tally};

/// What is logged of each of a program's outputs. Unit: bytes.
const WORDS_MAX_BYTES: usize = 4 * 1024;

/// What passes by puts a backend in doubt: no change of what is known of it.
const DOUBT: &str = "doubt";

/// Tells whatever hook the model in force has. Dropping it ends that; a program that runs is ended.
#[derive(Debug)]
pub struct Hooks {
    task: JoinHandle<()>,
}

impl Hooks {
    /// Tells of every event from the first that the log remembers.
    pub fn start(models: Models, events: EventLog, tally: Tally) -> Self {
        let mut telling = Telling {
            models,
            events,
            tally,
            told: 0,
        };
        Self {
            task: tokio::spawn(async move { telling.run().await }),
        }
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Telling {
    models: Models,
    events: EventLog,
    tally: Tally,
    /// The number of the last event that was told, or missed.
    told: u64,
}

impl Telling {
    async fn run(&mut self) {
        loop {
            self.events.wait_after(self.told).await;
            for event in self.events.after(self.told) {
                self.take(&event).await;
            }
        }
    }

    async fn take(&mut self, event: &Event) {
        let (hook, node) = {
            let model = self.models.borrow();
            (model.hooks.on_change.clone(), model.node.clone())
        };
        let missed = event.sequence.saturating_sub(self.told + 1);
        self.told = event.sequence;
        let Some(hook) = hook.filter(|_| event.kind != DOUBT) else {
            return;
        };
        if missed > 0 {
            warn!("on_change is too slow: it was not told of {missed} events");
            self.tally.add(Counted::HookMissed, missed);
        }
        self.tally.add(tell(&hook, &node, event).await, 1);
    }
}

/// Runs a hook for an event. The log has what it says, and how it failed.
async fn tell(hook: &Hook, node: &str, event: &Event) -> Counted {
    let limit = Duration::from_secs(hook.timeout_s.into());
    let mut words = Words::up_to(WORDS_MAX_BYTES);
    let line = line(event);
    let run = program::run(command(hook, node, event), &line, &mut words);
    let ended = tokio::time::timeout(limit, run).await;
    repeat(&words);
    let failure = failure(ended.ok(), hook);
    let Some((counted, reason)) = failure else {
        return Counted::HookSucceeded;
    };
    warn!(
        event = event.sequence,
        program = hook.program(),
        "on_change: {reason}"
    );
    counted
}

/// What went wrong, if anything. No end = the time was over.
fn failure(ended: Option<Result<ExitStatus, Fault>>, hook: &Hook) -> Option<(Counted, String)> {
    match ended {
        Some(Ok(status)) if status.success() => None,
        Some(Ok(status)) => Some((Counted::HookFailed, program::how(status))),
        Some(Err(fault)) => Some((Counted::HookFailed, fault.to_string())),
        None => {
            let reason = format!(
                "ended by lbd, since it took longer than {} s",
                hook.timeout_s
            );
            Some((Counted::HookTimedOut, reason))
        }
    }
}

fn command(hook: &Hook, node: &str, event: &Event) -> Command {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let mut command = Command::new(hook.program());
    command.args(hook.command.iter().skip(1)).envs([
        ("LB_NODE", node.to_owned()),
        ("LB_EVENT_KIND", event.kind.clone()),
        ("LB_EVENT_SEQUENCE", event.sequence.to_string()),
        ("LB_SERVICE", text(&event.service)),
        ("LB_BACKEND", text(&event.backend)),
        ("LB_GROUP", text(&event.group)),
        ("LB_FAMILY", text(&event.family)),
        ("LB_PEER", text(&event.peer)),
        ("LB_FROM", text(&event.from)),
        ("LB_TO", event.to.clone()),
        ("LB_REASON", event.reason.clone()),
        ("LB_UNIX_MS", event.unix_ms.to_string()),
    ]);
    command
}

/// The event as `lbctl -o json events` prints it.
fn line(event: &Event) -> Vec<u8> {
    // Strings and numbers: there is nothing in it that JSON could not hold.
    let mut line = serde_json::to_vec(event).unwrap_or_default();
    line.push(b'\n');
    line
}

/// Logs what a program has said.
fn repeat(words: &Words) {
    for line in lines(&words.output) {
        info!("on_change: {line}");
    }
    for line in lines(&words.errors) {
        warn!("on_change: {line}");
    }
}

/// Lines that are not empty, of printable text.
fn lines(words: &[u8]) -> impl Iterator<Item = String> {
    let lines = words.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    lines.filter(|line| !line.is_empty()).map(|line| {
        let text = String::from_utf8_lossy(line);
        let plain = |sign: char| if sign.is_control() { ' ' } else { sign };
        text.chars().map(plain).collect()
    })
}

#[cfg(test)]
#[path = "hooks_tests.rs"]
mod tests;

//! A program's exit code.
//!
//! Scripts written for HAProxy's `external-check` and for keepalived's `MISC_CHECK` run as they are. Both
//! find the environment of the former: `HAPROXY_SERVER_ADDR`, `HAPROXY_SERVER_PORT`, `HAPROXY_PROXY_ADDR`,
//! `HAPROXY_PROXY_PORT`, and `PATH`. A program without configured arguments gets HAProxy's four, `proxy
//! address, proxy port, server address, server port`; one with arguments gets those and no others, as with
//! keepalived. One check may be of many services, so that the proxy is `NOT_USED`, as it is in a backend
//! section of HAProxy's.
//!
//! The program ends with the probe, and so does whatever it has left running in its process group
//! ([`crate::program`]); a daemon that it makes, in a session of its own, does not. Exit code 0
//! is a success, all others are failures.

use std::process::ExitStatus;

use tokio::process::Command;

use super::Target;
use super::text::quote;
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::ExecCheck;
use crate::program::{self, Words};

/// What is kept of a program's words. Unit: bytes.
const WORDS_MAX_BYTES: usize = 512;

/// What HAProxy says in place of a proxy's address and port.
const NOT_USED: &str = "NOT_USED";

/// Runs the program.
pub(super) async fn exec(
    check: &ExecCheck,
    target: Target,
    observed: &mut Observed,
) -> Result<(), Failure> {
    observed.doing = "running".into();
    let mut words = Words::up_to(WORDS_MAX_BYTES);
    let ended = program::run(command(check, target), b"", &mut words).await;
    let status = ended.map_err(|fault| Failure::new(FailureKind::Local, fault))?;
    if status.success() {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::Unexpected,
        reason(status, &words),
    ))
}

fn command(check: &ExecCheck, target: Target) -> Command {
    let places = Places::of(target);
    let mut command = Command::new(&check.program);
    if check.args.is_empty() {
        command.args(places.args());
    } else {
        command.args(&check.args);
    }
    command.envs(places.environment());
    command
}

/// Who is asked, in HAProxy's words.
struct Places {
    proxy: [String; 2],
    server: [String; 2],
}

impl Places {
    fn of(target: Target) -> Self {
        let places =
            |address: std::net::SocketAddr| [address.ip().to_string(), address.port().to_string()];
        Self {
            proxy: target
                .vip
                .map_or([NOT_USED, NOT_USED].map(str::to_owned), places),
            server: places(target.address),
        }
    }

    fn args(&self) -> impl Iterator<Item = &String> {
        self.proxy.iter().chain(&self.server)
    }

    fn environment(&self) -> impl Iterator<Item = (&'static str, &String)> {
        [
            "HAPROXY_PROXY_ADDR",
            "HAPROXY_PROXY_PORT",
            "HAPROXY_SERVER_ADDR",
            "HAPROXY_SERVER_PORT",
        ]
        .into_iter()
        .zip(self.args())
    }
}

fn reason(status: ExitStatus, words: &Words) -> String {
    let said = match words.output.as_slice() {
        [] => &words.errors,
        output => output,
    };
    let first_line = said
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty());
    let ended = program::how(status);
    match first_line {
        Some(line) => format!("{ended}: {}", quote(line)),
        None => ended,
    }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;

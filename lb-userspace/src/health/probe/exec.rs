//! A program's exit code.
//!
//! Scripts written for HAProxy's `external-check` and for keepalived's `MISC_CHECK` run as they are. Both
//! find the environment of the former: `HAPROXY_SERVER_ADDR`, `HAPROXY_SERVER_PORT`, `HAPROXY_PROXY_ADDR`,
//! `HAPROXY_PROXY_PORT`, and `PATH`. A program without configured arguments gets HAProxy's four, `proxy
//! address, proxy port, server address, server port`; one with arguments gets those and no others, as with
//! keepalived. One check may be of many services, so that the proxy is `NOT_USED`, as it is in a backend
//! section of HAProxy's.
//!
//! The program runs in a process group of its own, which ends with the probe: on time-out, and also whatever
//! the program has left running behind it. Exit code 0 is a success, all others are failures.

use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::{Child, Command};

use super::Target;
use super::text::quote;
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::ExecCheck;

/// What is kept of a program's words. Unit: bytes.
const WORDS_MAX_BYTES: usize = 512;

/// What is read of each of its two outputs before that is closed, and the program most likely ended by
/// SIGPIPE. Unit: bytes.
const OUTPUT_MAX_BYTES: u64 = 64 * 1024;

/// Where programs are looked for that the program runs, unless lbd has a `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who is not dead so long after SIGKILL hangs in the kernel, and is left to it.
const REAP_PAUSE_MAX: Duration = Duration::from_secs(10);

/// What HAProxy says in place of a proxy's address and port.
const NOT_USED: &str = "NOT_USED";

/// Runs the program.
pub(super) async fn exec(
    check: &ExecCheck,
    target: Target,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let mut child = command(check, target).spawn().map_err(|error| {
        let program = check.program.display();
        Failure::new(
            FailureKind::Local,
            format_args!("cannot run {program}: {error}"),
        )
    })?;
    // Before the child, which is reaped only after it: the group's number is not another's yet.
    let _group = Group::of(&child);
    observed.doing = "running".into();
    let (status, words) = ended(&mut child).await?;
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
    command
        .env_clear()
        .env(
            "PATH",
            std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into()),
        )
        .envs(places.environment())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
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

/// Waits for the program, and for its words as long as it runs: who has inherited its outputs is not
/// waited for.
async fn ended(child: &mut Child) -> Result<(ExitStatus, Vec<u8>), Failure> {
    let (mut output, mut errors) = (Vec::new(), Vec::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let reading = async { tokio::join!(gather(stdout, &mut output), gather(stderr, &mut errors)) };
    let status = {
        let waiting = child.wait();
        tokio::pin!(reading, waiting);
        tokio::select! {
            biased;
            _ = &mut reading => waiting.await,
            status = &mut waiting => {
                // What it wrote last may still lie in the pipes.
                let _ = futures::poll!(&mut reading);
                status
            }
        }
    };
    let status = status.map_err(|error| {
        Failure::new(
            FailureKind::Local,
            format_args!("cannot wait for it: {error}"),
        )
    })?;
    Ok((status, if output.is_empty() { errors } else { output }))
}

/// Reads to the end or the bound, and keeps the begin.
async fn gather<R: AsyncRead + Unpin>(pipe: Option<R>, kept: &mut Vec<u8>) {
    let Some(pipe) = pipe else {
        return;
    };
    let mut pipe = pipe.take(OUTPUT_MAX_BYTES);
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = pipe.read(&mut piece).await {
        let room = WORDS_MAX_BYTES.saturating_sub(kept.len());
        kept.extend(&piece[..length.min(room)]);
    }
}

fn reason(status: ExitStatus, words: &[u8]) -> String {
    let ended = match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended, and nobody knows how".to_owned(),
    };
    let first_line = words
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii)
        .find(|line| !line.is_empty());
    match first_line {
        Some(line) => format!("{ended}: {}", quote(line)),
        None => ended,
    }
}

/// A process group that ends with this.
struct Group(Option<Pid>);

impl Group {
    fn of(leader: &Child) -> Self {
        let pid = leader.id().and_then(|id| i32::try_from(id).ok());
        Self(pid.map(Pid::from_raw))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let Some(group) = self.0 else {
            return;
        };
        // ESRCH: nobody is left in it.
        if killpg(group, Signal::SIGKILL).is_ok()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(reap(group));
        }
    }
}

/// Takes what is left of a group that was ended: the program, and, if lbd is a container's first process,
/// those whom the program has left behind, whom nobody else would take.
async fn reap(group: Pid) {
    let group = Pid::from_raw(-group.as_raw());
    let mut pause = Duration::from_millis(1);
    while pause < REAP_PAUSE_MAX {
        match waitpid(group, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Ok(_) => {}
            // ECHILD: no child of ours is left in it.
            Err(_) => return,
        }
    }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;

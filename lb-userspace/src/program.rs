//! Programs that lbd runs: bounded in time and words, and ended with all that they have left behind.
//!
//! A program runs in a process group of its own, which ends with the future that waits for it: when it is
//! dropped, as at a time-out, and also when the program has ended and left something running.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, Command};

/// What is read of each of its two outputs before that is closed, and the program most likely ended by
/// SIGPIPE. Unit: bytes.
const OUTPUT_MAX_BYTES: u64 = 64 * 1024;

/// Where programs are looked for that the program runs, unless lbd has a `PATH`.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Who is not dead so long after SIGKILL hangs in the kernel, and is left to it.
const REAP_PAUSE_MAX: Duration = Duration::from_secs(10);

/// What a program has said so far.
#[derive(Debug)]
pub(crate) struct Words {
    /// The begin of its standard output.
    pub(crate) output: Vec<u8>,
    /// The begin of its standard error.
    pub(crate) errors: Vec<u8>,
    /// What is kept of each. Unit: bytes.
    kept_max: usize,
}

impl Words {
    /// Nothing yet; so many bytes are kept of each output.
    pub(crate) const fn up_to(kept_max: usize) -> Self {
        Self {
            output: Vec::new(),
            errors: Vec::new(),
            kept_max,
        }
    }
}

/// Why a program has no end that could be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// It is not there, or may not be run.
    #[error("cannot run {program}: {error}")]
    Start {
        /// Its path.
        program: String,
        /// As the kernel says it.
        error: io::Error,
    },
    /// The kernel does not tell how it ended.
    #[error("cannot wait for it: {0}")]
    Wait(io::Error),
}

/// Runs a program with its own arguments and environment (and `PATH`) and no others, `input` being all that
/// it can read; waits for its end, though not for those who have inherited its outputs. What it says is in
/// `words`, also if this is dropped.
///
/// # Errors
/// See [`Fault`]; a program that fails is none.
pub(crate) async fn run(
    mut command: Command,
    input: &[u8],
    words: &mut Words,
) -> Result<ExitStatus, Fault> {
    prepare(&mut command, input);
    let mut child = command.spawn().map_err(|error| Fault::Start {
        program: command.as_std().get_program().display().to_string(),
        error,
    })?;
    // Before the child, which is reaped only after it: the group's number is not another's yet.
    let _group = Group::of(&child);
    ended(&mut child, input, words).await.map_err(Fault::Wait)
}

fn prepare(command: &mut Command, input: &[u8]) {
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let own: Vec<_> = command
        .as_std()
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    command
        .env_clear()
        .env("PATH", path)
        .envs(own)
        .current_dir("/")
        .stdin(match input {
            [] => Stdio::null(),
            _ => Stdio::piped(),
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
}

async fn ended(child: &mut Child, input: &[u8], words: &mut Words) -> io::Result<ExitStatus> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let kept_max = words.kept_max;
    let talk = async {
        tokio::join!(
            feed(stdin, input),
            gather(stdout, &mut words.output, kept_max),
            gather(stderr, &mut words.errors, kept_max)
        )
    };
    let waiting = child.wait();
    tokio::pin!(talk, waiting);
    tokio::select! {
        biased;
        _ = &mut talk => waiting.await,
        status = &mut waiting => {
            // What it wrote last may still lie in the pipes.
            let _ = futures::poll!(&mut talk);
            status
        }
    }
}

/// Writes what the program may read, and the end of it. One that does not want it is free to close it.
async fn feed(pipe: Option<ChildStdin>, input: &[u8]) {
    if let Some(mut pipe) = pipe {
        let _unread = pipe.write_all(input).await;
    }
}

/// Reads to the end or the bound, and keeps the begin.
async fn gather<R: AsyncRead + Unpin>(pipe: Option<R>, kept: &mut Vec<u8>, kept_max: usize) {
    let Some(pipe) = pipe else {
        return;
    };
    let mut pipe = pipe.take(OUTPUT_MAX_BYTES);
    let mut piece = [0; 4096];
    while let Ok(length @ 1..) = pipe.read(&mut piece).await {
        let room = kept_max.saturating_sub(kept.len());
        kept.extend(&piece[..length.min(room)]);
    }
}

/// How a program has ended, in words.
pub(crate) fn how(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended, and nobody knows how".to_owned(),
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

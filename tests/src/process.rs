//! Programs that run beside a test: started with their output in a file, ended by pid, and waited
//! for.

use std::fs::{self, File};
use std::io;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{SigSet, Signal, kill, killpg};
use nix::unistd::Pid;

use crate::wait::wait_until;

/// Lines of a log that an error shows.
const TAIL_LINE_COUNT: usize = 30;
/// How long a program may take to end after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(5);

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    is_kept: bool,
    is_ended: bool,
}

impl Process {
    /// Starts `command` with its output in the file `log`, in a process group of its own, so that a
    /// Ctrl-C on the terminal leaves the order of ending to us. `name` is how errors call it.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> Result<Self> {
        let file = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        // SAFETY: between fork and exec the closure makes one system call, sigprocmask, which is
        // async-signal-safe (signal-safety(7)), and touches no memory but its own.
        unsafe { command.pre_exec(unblock_signals) };
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .process_group(0)
            .spawn()
            .with_context(|| format!("cannot start {name} ({command:?})"))?;
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_path_buf(),
            is_kept: false,
            is_ended: false,
        })
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// All that the program has written so far.
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The last lines of the log, for error messages.
    pub fn log_tail(&self) -> String {
        tail(&self.log(), TAIL_LINE_COUNT)
    }

    /// The exit status, once it has ended.
    pub fn exit_status(&mut self) -> Result<Option<ExitStatus>> {
        self.child
            .try_wait()
            .with_context(|| format!("cannot wait for {}", self.name))
    }

    /// Waits until `is_ready` says so. An early end of the program, or the time-out, is an error
    /// that shows the log.
    pub fn wait_ready(
        &mut self,
        timeout: Duration,
        mut is_ready: impl FnMut() -> Result<bool>,
    ) -> Result<()> {
        let what = format!("{} to be ready", self.name);
        let waited = wait_until(&what, timeout, || {
            if let Some(status) = self.exit_status()? {
                bail!("{} ended ({status})", self.name);
            }
            Ok(is_ready()?.then_some(()))
        });
        waited.with_context(|| format!("log of {}:\n{}", self.name, self.log_tail()))
    }

    /// Sends `signal`.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal)
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Waits for the program's end.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        wait_until(&format!("{} to end", self.name), timeout, || {
            self.child
                .try_wait()
                .with_context(|| format!("cannot wait for {}", self.name))
        })
        .with_context(|| format!("log of {}:\n{}", self.name, self.log_tail()))
    }

    /// SIGTERM, and the wait for its end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGTERM)?;
        self.wait(END_TIMEOUT)
    }

    /// SIGKILL, and the wait for its end.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        self.signal(Signal::SIGKILL)?;
        self.wait(END_TIMEOUT)
    }

    /// Sends `signal` to the program and to what it has started.
    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        let group = Pid::from_raw(self.child.id().cast_signed());
        killpg(group, signal)
            .with_context(|| format!("cannot send {signal} to {} and its children", self.name))
    }

    /// SIGKILL to the program and to what it has started, and the wait for its end.
    pub fn kill9_all(&mut self) -> Result<ExitStatus> {
        self.signal_all(Signal::SIGKILL)?;
        self.wait(END_TIMEOUT)
    }

    /// Leaves the program running.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Ends it as dropping it does: with SIGTERM, or SIGKILL if that does not help. A panic that is under
    /// way shows its log first.
    pub(crate) fn end(&mut self) {
        if self.is_kept || self.is_ended {
            return;
        }
        self.is_ended = true;
        if std::thread::panicking() {
            eprintln!("--- last lines of {}:\n{}", self.name, self.log_tail());
        }
        if let Err(error) = self.try_end() {
            eprintln!("{} is left running: {error:#}", self.name);
        }
    }

    fn try_end(&mut self) -> Result<()> {
        if self.exit_status()?.is_some() {
            return Ok(());
        }
        if self.terminate().is_err() {
            self.kill9()?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

/// A program inherits the mask of the thread that starts it, and [`crate::signals`] blocks some.
fn unblock_signals() -> io::Result<()> {
    Ok(SigSet::empty().thread_set_mask()?)
}

/// Runs a short command to its end; its failure is an error with what it wrote. Returns its
/// standard output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {:?}; is it installed?", command.get_program()))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{command:?} failed ({}): {}",
            output.status,
            stderr.trim_end()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn tail(text: &str, line_count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(line_count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;
    use crate::scratch::ScratchDir;

    #[test]
    fn early_end_is_an_error_that_shows_the_log() {
        let scratch = ScratchDir::new("process").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such interface; exit 3"]);
        let mut process =
            Process::spawn("a failing program", command, &scratch.path().join("log")).unwrap();
        let error = process
            .wait_ready(Duration::from_secs(10), || Ok(false))
            .unwrap_err();
        let text = format!("{error:#}");
        assert!(
            text.contains("no such interface") && text.contains("exit status: 3"),
            "{text}"
        );
    }

    #[test]
    fn program_ends_on_sigterm_although_the_starting_thread_blocks_it() {
        SigSet::from(Signal::SIGTERM).thread_block().unwrap();
        let scratch = ScratchDir::new("process").unwrap();
        let mut command = Command::new("sleep");
        command.arg("60");
        let mut process = Process::spawn("sleep", command, &scratch.path().join("log")).unwrap();
        assert_eq!(process.terminate().unwrap().signal(), Some(libc::SIGTERM));
    }

    #[test]
    fn tail_keeps_the_last_lines() {
        assert_eq!(tail("a\nb\nc\n", 2), "b\nc");
        assert_eq!(tail("a", 2), "a");
    }
}

//! A real program as a backend: how it is started, how it is troubled, and started again after its end.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::netns::Netns;
use crate::process::Process;
use crate::scratch::ScratchDir;
use crate::wait::wait_until;

/// How long a program may take to listen.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// How long its processes may take to be gone after SIGKILL.
const END_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt to connect may take.
const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// The file that tells a program of ours how to behave.
const MODE_FILE: &str = "mode";
/// The mode of a program that behaves well.
const WELL: &str = "well";

/// How a program is started.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// Its name or path, and its arguments.
    pub command: Vec<String>,
    /// It has started when it accepts TCP connections here.
    pub port: u16,
}

/// A running program. Dropping it ends it.
#[derive(Debug)]
pub struct Program {
    name: String,
    recipe: Recipe,
    process: Process,
    scratch: ScratchDir,
}

impl Program {
    /// Starts one in `netns`, with its files in `scratch`, and waits until it listens.
    pub fn start(name: &str, netns: &Netns, scratch: ScratchDir, recipe: Recipe) -> Result<Self> {
        scratch.write(MODE_FILE, WELL)?;
        let process = spawn(name, netns, &scratch, &recipe)?;
        let mut program = Self {
            name: name.to_owned(),
            recipe,
            process,
            scratch,
        };
        program.wait_listening(netns)?;
        Ok(program)
    }

    /// Starts it again after its end, with the files that it had.
    pub fn start_again(&mut self, netns: &Netns) -> Result<()> {
        self.process = spawn(&self.name, netns, &self.scratch, &self.recipe)?;
        self.wait_listening(netns)
    }

    fn wait_listening(&mut self, netns: &Netns) -> Result<()> {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.recipe.port);
        self.process.wait_ready(START_TIMEOUT, || {
            netns.run(|| TcpStream::connect_timeout(&address, PROBE_TIMEOUT).is_ok())
        })
    }

    /// The process that was started first.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// The directory of its files.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
    }

    /// Writes one of its files.
    pub fn write(&self, file: &str, text: &str) -> Result<PathBuf> {
        self.scratch.write(file, text)
    }

    /// Tells a program of ours to behave in a way of its own.
    pub fn misbehave(&self, mode: &str) -> Result<()> {
        self.write(MODE_FILE, mode).map(drop)
    }

    /// Tells a program of ours to behave well again.
    pub fn behave(&self) -> Result<()> {
        self.misbehave(WELL)
    }

    /// Sends `signal` to it and to all that has come from it, also to those that have left its process
    /// group.
    pub fn signal_all(&self, signal: Signal) -> Result<()> {
        self.family()?
            .into_iter()
            .try_for_each(|pid| signal_one(pid, signal))
            .with_context(|| format!("cannot send {signal} to {}", self.name))
    }

    /// Ends it and all that has come from it without a warning, and waits until all of them are gone.
    pub fn kill_all(&mut self) -> Result<()> {
        // Who is stopped has no more children.
        self.signal_all(Signal::SIGSTOP)?;
        let family = self.family()?;
        self.signal_all(Signal::SIGKILL)?;
        self.process.wait(END_TIMEOUT)?;
        wait_until(&format!("the end of {}", self.name), END_TIMEOUT, || {
            Ok(family.iter().all(|pid| is_gone(*pid)).then_some(()))
        })
    }

    fn family(&self) -> Result<Vec<Pid>> {
        family(Pid::from_raw(self.process.pid().cast_signed()))
    }
}

/// A process, and all that has come from it.
pub fn family(first: Pid) -> Result<Vec<Pid>> {
    let parents = parents()?;
    let mut family = vec![first.as_raw()];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        let children = parents.iter().filter(|(_, of)| **of == parent);
        family.extend(children.map(|(pid, _)| *pid));
        next += 1;
    }
    Ok(family.into_iter().map(Pid::from_raw).collect())
}

fn spawn(name: &str, netns: &Netns, scratch: &ScratchDir, recipe: &Recipe) -> Result<Process> {
    let (program, arguments) = recipe.command.split_first().context("an empty command")?;
    let mut command = netns.command(program);
    command.args(arguments).current_dir(scratch.path());
    let log = scratch.path().join("log");
    Process::spawn(name, command, &log)
}

fn signal_one(pid: Pid, signal: Signal) -> Result<()> {
    match kill(pid, signal) {
        // It has ended by itself since.
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Each process, with its parent.
fn parents() -> Result<BTreeMap<i32, i32>> {
    let entries = fs::read_dir("/proc").context("cannot list /proc")?;
    let pids = entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(pids
        .filter_map(|pid| Some((pid, state_of(pid)?.parent)))
        .collect())
}

/// Children of a process that have ended, and that it has not waited for.
pub fn zombies_of(parent: u32) -> Result<Vec<i32>> {
    let children = parents()?.into_iter();
    let children = children.filter(|(_, of)| u32::try_from(*of) == Ok(parent));
    let is_zombie = |pid: &i32| state_of(*pid).is_some_and(|state| state.letter == 'Z');
    Ok(children.map(|(pid, _)| pid).filter(is_zombie).collect())
}

/// What proc_pid_stat(5) says of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    /// `R`, `S`, `Z` …
    letter: char,
    /// Its parent.
    parent: i32,
}

fn state_of(pid: i32) -> Option<State> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// `PID (NAME) STATE PARENT …`, where the name may hold anything.
fn parse_stat(line: &str) -> Option<State> {
    let (_, rest) = line.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    Some(State {
        letter: words.next()?.chars().next()?,
        parent: words.next()?.parse().ok()?,
    })
}

fn is_gone(pid: Pid) -> bool {
    state_of(pid.as_raw()).is_none_or(|state| state.letter == 'Z')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_brackets_does_not_hide_the_parent() {
        let state = State {
            letter: 'S',
            parent: 7,
        };
        assert_eq!(parse_stat("12 (a) b (c) S 7 12 12 0"), Some(state));
        assert_eq!(parse_stat("12 (sleep"), None);
        let own = i32::try_from(std::process::id()).unwrap();
        assert_eq!(
            state_of(own).unwrap().parent,
            nix::unistd::getppid().as_raw()
        );
    }
}

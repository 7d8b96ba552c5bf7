//! The real daemon in a laboratory network, and its client `lbctl`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::netns::Netns;
use crate::process::Process;
use crate::scratch::ScratchDir;

/// How long lbd may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// What `lbctl` said.
#[derive(Clone, Debug)]
pub struct CtlOutput {
    /// Exit code: 0, 1 refused by the daemon, 2 wrong usage, 3 daemon not reachable; -1 where a
    /// signal ended it.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// A running lbd. Dropping it ends it with SIGTERM.
#[derive(Debug)]
pub struct Lbd {
    process: Process,
    socket: PathBuf,
    config: PathBuf,
    scratch: ScratchDir,
}

impl Lbd {
    /// Starts lbd in `netns` with a configuration and waits until `lbctl status` succeeds.
    pub fn start(netns: &Netns, config: &str) -> Result<Self> {
        Self::start_in(ScratchDir::new("lbd")?, netns, config)
    }

    /// As [`Lbd::start`], with its socket, configuration and log in `scratch`.
    pub fn start_in(scratch: ScratchDir, netns: &Netns, config: &str) -> Result<Self> {
        let config = scratch.write("lbd.toml", config)?;
        let process = spawn(&scratch, netns, &config)?;
        let socket = scratch.path().join("lbd.sock");
        let mut lbd = Self {
            process,
            socket,
            config,
            scratch,
        };
        lbd.wait_ready()?;
        Ok(lbd)
    }

    /// Starts it again after [`Lbd::kill9`] or [`Lbd::terminate`], with the same configuration and
    /// socket.
    pub fn restart(&mut self, netns: &Netns) -> Result<()> {
        self.process = spawn(&self.scratch, netns, &self.config)?;
        self.wait_ready()
    }

    fn wait_ready(&mut self) -> Result<()> {
        let socket = self.socket.clone();
        self.process
            .wait_ready(START_TIMEOUT, || Ok(ctl(&socket, &["status"])?.code == 0))
    }

    /// The control socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Everything that lbd has logged since its (last) start.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The last lines of [`Lbd::log`].
    pub fn log_tail(&self) -> String {
        self.process.log_tail()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The process, for what is not foreseen here.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Runs `lbctl ARGS`, whatever its exit code.
    pub fn ctl(&self, args: &[&str]) -> Result<CtlOutput> {
        ctl(&self.socket, args)
    }

    /// Runs `lbctl ARGS`; an exit code other than 0 is an error. Returns the standard output.
    pub fn ctl_ok(&self, args: &[&str]) -> Result<String> {
        let output = self.ctl(args)?;
        ensure!(
            output.code == 0,
            "`lbctl {}` ended with {}: {}\nlog of lbd:\n{}",
            args.join(" "),
            output.code,
            output.stderr.trim_end(),
            self.process.log_tail()
        );
        Ok(output.stdout)
    }

    /// Runs `lbctl -o json ARGS`; an exit code other than 0 is an error.
    #[cfg(feature = "e2e")]
    pub fn ctl_json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let text = self.ctl_ok(&[&["-o", "json"], args].concat())?;
        serde_json::from_str(&text)
            .with_context(|| format!("`lbctl -o json {}` said no JSON: {text}", args.join(" ")))
    }

    /// Replaces the configuration file and has lbd read it (SIGHUP). What it makes of it is in the
    /// log and the status.
    pub fn reload(&self, config: &str) -> Result<()> {
        self.scratch.write("lbd.toml", config)?;
        self.process.signal(Signal::SIGHUP)
    }

    /// SIGTERM, and the wait for its end.
    pub fn terminate(&mut self) -> Result<ExitStatus> {
        self.process.terminate()
    }

    /// SIGKILL, and the wait for its end.
    pub fn kill9(&mut self) -> Result<ExitStatus> {
        self.process.kill9()
    }

    /// Leaves it running, and its files in place.
    pub fn keep(&mut self) {
        self.process.keep();
        self.scratch.keep();
    }
}

fn spawn(scratch: &ScratchDir, netns: &Netns, config: &Path) -> Result<Process> {
    let mut command = netns.command(program("lbd")?);
    command.arg("--config").arg(config);
    command.arg("--socket").arg(scratch.path().join("lbd.sock"));
    Process::spawn("lbd", command, &scratch.path().join("lbd.log"))
}

/// Runs `lbctl` on a socket.
fn ctl(socket: &Path, args: &[&str]) -> Result<CtlOutput> {
    let output = Command::new(program("lbctl")?)
        .arg("--socket")
        .arg(socket)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .context("cannot run lbctl")?;
    Ok(CtlOutput {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    })
}

/// The release build of one of the project's programs. `LB_BIN_DIR` names another directory for
/// them.
pub fn program(name: &str) -> Result<PathBuf> {
    let directory = env::var_os("LB_BIN_DIR").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/release"),
        PathBuf::from,
    );
    let path = directory.join(name);
    ensure!(
        path.is_file(),
        "{} is not built; run `cargo xtask build`",
        path.display()
    );
    Ok(path)
}

//! The real daemon in a laboratory network, and its client `lbctl`.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;

use crate::netns::Netns;
use crate::pins;
use crate::process::Process;
use crate::scratch::ScratchDir;
use crate::wait::wait_until;

/// How long lbd may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// A planned change takes 1.5 s.
const RING_TIMEOUT: Duration = Duration::from_secs(10);

/// What a stop does to the datapath.
const ON_STOP: &str = "--on-stop";

/// Names of its files.
const CONFIG_FILE: &str = "lbd.toml";
const SOCKET_FILE: &str = "lbd.sock";

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

/// How an lbd ended that was not asked to.
#[derive(Clone, Debug)]
pub struct Ended {
    /// Exit code; -1 where a signal ended it.
    pub code: i32,
    /// What it has written.
    pub log: String,
}

/// Which lbd is started, and how. Unless the arguments say otherwise (`--on-stop`), its stop takes
/// everything down.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    /// The directory of the program; by default that of the release build.
    pub directory: Option<PathBuf>,
    /// Variables of its environment.
    pub environment: Vec<(String, String)>,
    /// Arguments besides those that the laboratory gives it.
    pub arguments: Vec<String>,
}

impl Launch {
    /// An lbd whose stop leaves the datapath as it is.
    pub fn keeping() -> Self {
        Self {
            arguments: [ON_STOP, "keep"].map(str::to_owned).into(),
            ..Self::default()
        }
    }
}

/// A running lbd. Dropping it ends it with SIGTERM, and takes off what it, or one before it, has left.
#[derive(Debug)]
pub struct Lbd {
    process: Process,
    socket: PathBuf,
    /// The command line, without the socket.
    arguments: Vec<String>,
    launch: Launch,
    /// The file of its network namespace.
    netns: PathBuf,
    is_kept: bool,
    scratch: ScratchDir,
}

impl Lbd {
    /// Starts lbd in `netns` with a configuration and waits until `lbctl status` succeeds.
    pub fn start(netns: &Netns, config: &str) -> Result<Self> {
        Self::start_in(ScratchDir::new("lbd")?, netns, config)
    }

    /// As [`Lbd::start`], with its socket, configuration and log in `scratch`.
    pub fn start_in(scratch: ScratchDir, netns: &Netns, config: &str) -> Result<Self> {
        Self::launch_in(Launch::default(), scratch, netns, config)
    }

    /// As [`Lbd::start_in`], another lbd, or in another way.
    pub fn launch_in(
        launch: Launch,
        scratch: ScratchDir,
        netns: &Netns,
        config: &str,
    ) -> Result<Self> {
        let config = scratch.write(CONFIG_FILE, config)?;
        let arguments = vec!["--config".to_owned(), config.display().to_string()];
        Self::start_with(launch, scratch, netns, arguments)
    }

    /// As [`Lbd::start`], with no configuration but the interfaces.
    pub fn start_without_config(netns: &Netns, interfaces: &[&str]) -> Result<Self> {
        let arguments = interfaces
            .iter()
            .flat_map(|interface| ["--iface".to_owned(), (*interface).to_owned()])
            .collect();
        Self::start_with(Launch::default(), ScratchDir::new("lbd")?, netns, arguments)
    }

    fn start_with(
        launch: Launch,
        scratch: ScratchDir,
        netns: &Netns,
        arguments: Vec<String>,
    ) -> Result<Self> {
        let process = spawn(&launch, &scratch, netns, &arguments)?;
        let socket = scratch.path().join(SOCKET_FILE);
        let mut lbd = Self {
            process,
            socket,
            arguments,
            launch,
            netns: netns.path(),
            is_kept: false,
            scratch,
        };
        lbd.wait_ready()?;
        Ok(lbd)
    }

    /// Starts it again after [`Lbd::kill9`] or [`Lbd::terminate`], with the same configuration and
    /// socket.
    pub fn restart(&mut self, netns: &Netns) -> Result<()> {
        self.process = spawn(&self.launch, &self.scratch, netns, &self.arguments)?;
        self.wait_ready()
    }

    /// As [`Lbd::restart`], another lbd, or in another way, from now on.
    pub fn restart_as(&mut self, launch: Launch, netns: &Netns) -> Result<()> {
        self.launch = launch;
        self.restart(netns)
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

    /// The directory of its socket, configuration and log.
    pub fn directory(&self) -> &Path {
        self.scratch.path()
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

    /// Waits until the ring of a service is what its backends ask for: a planned change is prepared first,
    /// so that handshakes under way complete.
    pub fn await_ring(&self, service: &str) -> Result<()> {
        wait_until("the change of the ring", RING_TIMEOUT, || {
            let ring = self.ctl_ok(&["-o", "json", "ring", "show", service])?;
            Ok(ring.contains("\"armed_slots\": 0,").then_some(()))
        })
    }

    /// Replaces the configuration file and has lbd read it (SIGHUP). What it makes of it is in the
    /// log and the status.
    pub fn reload(&self, config: &str) -> Result<()> {
        self.scratch.write(CONFIG_FILE, config)?;
        self.process.signal(Signal::SIGHUP)
    }

    /// Replaces the configuration file, for the next start.
    pub fn configure(&self, config: &str) -> Result<()> {
        self.scratch.write(CONFIG_FILE, config).map(drop)
    }

    /// The directory that it pins in.
    #[cfg(feature = "e2e")]
    pub fn pinned(&self) -> Result<PathBuf> {
        let status = self.ctl_json(&["status"])?;
        let pinned = status["datapath"]["pinned"].as_str();
        Ok(pinned.context("lbctl status names no pins")?.into())
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
        self.is_kept = true;
        self.process.keep();
        self.scratch.keep();
    }
}

impl Drop for Lbd {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        self.process.end();
        if !pins::has_any(self.scratch.path()) {
            return;
        }
        if let Err(error) = pins::detach(&self.socket, &self.netns) {
            eprintln!("what lbd has pinned is left behind: {error:#}");
        }
    }
}

fn spawn(
    launch: &Launch,
    scratch: &ScratchDir,
    netns: &Netns,
    arguments: &[String],
) -> Result<Process> {
    pins::remove_orphans();
    let program = match &launch.directory {
        Some(directory) => directory.join("lbd"),
        None => program("lbd")?,
    };
    let mut command = netns.command(program);
    command.args(arguments).args(&launch.arguments);
    if !launch.arguments.iter().any(|argument| argument == ON_STOP) {
        command.args([ON_STOP, "detach"]);
    }
    let environment = launch.environment.iter();
    command.envs(environment.map(|(name, value)| (name, value)));
    command
        .arg("--socket")
        .arg(scratch.path().join(SOCKET_FILE));
    Process::spawn("lbd", command, &scratch.path().join("lbd.log"))
}

/// Whether new flows follow what a backend of `lbctl health show` is said to be: the report is a moment ahead
/// of the ring.
#[cfg(feature = "e2e")]
pub fn is_in_force(record: &serde_json::Value) -> bool {
    let history = record["history"].as_array();
    let last = history.and_then(|history| history.last());
    last.is_none_or(|last| !last["in_force_after_ms"].is_null())
}

/// Runs an lbd that is to end by itself, such as one that refuses to start.
pub fn run_to_end(command: Command) -> Result<Ended> {
    let scratch = ScratchDir::new("lbd-ended")?;
    let mut process = Process::spawn("lbd", command, &scratch.path().join("lbd.log"))?;
    let status = process.wait(START_TIMEOUT)?;
    Ok(Ended {
        code: status.code().unwrap_or(-1),
        log: process.log(),
    })
}

/// Runs `lbctl ARGS` on a socket, whatever its exit code.
pub fn ctl(socket: &Path, args: &[&str]) -> Result<CtlOutput> {
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

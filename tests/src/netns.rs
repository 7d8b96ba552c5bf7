//! Network namespaces: create, enter, delete.
//!
//! The name says who owns it: `lb<pid>x<n>-<role>`. So names never collide between tests or runs,
//! and what a killed process left behind is recognised.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{self, Command, Stdio};
use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::process::run;
use crate::wait::wait_until;

/// Where iproute2 keeps the handles of named namespaces.
const NETNS_DIR: &str = "/run/netns";
/// Where iproute2 looks for files that replace those of `/etc` inside a namespace.
const NETNS_ETC_DIR: &str = "/etc/netns";

/// How long a namespace's processes may take to end after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(5);

static NEXT: AtomicU32 = AtomicU32::new(0);
static CLEANUP: Once = Once::new();

/// A named network namespace. Dropping it ends what runs in it and deletes it.
#[derive(Debug)]
pub struct Netns {
    name: String,
    is_kept: bool,
}

impl Netns {
    /// Creates a namespace with a name of its own. `role` is the readable part of the name. The
    /// first call in a process removes what killed processes left behind.
    pub fn create(role: &str) -> Result<Self> {
        CLEANUP.call_once(remove_orphans);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self::create_named(&format!("lb{}x{number}-{role}", process::id()))
    }

    /// Creates a namespace of exactly this name, with its loopback interface up and with IPv6
    /// addresses usable at once (no duplicate address detection, no router solicitation).
    pub fn create_named(name: &str) -> Result<Self> {
        run(Command::new("ip").args(["netns", "add", name]))?;
        let netns = Self {
            name: name.to_owned(),
            is_kept: false,
        };
        netns.sysctl(&[
            ("net/ipv6/conf/all/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_dad", "0"),
            ("net/ipv6/conf/default/accept_ra", "0"),
            ("net/ipv6/conf/default/router_solicitations", "0"),
        ])?;
        netns.ip("link set lo up")?;
        Ok(netns)
    }

    /// The namespace's name, as `ip netns` lists it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        handle_path(&self.name)
    }

    /// Leaves the namespace standing, and what runs in it running.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Runs `ip` commands in it, one a line, without the word `ip`.
    pub fn ip(&self, script: &str) -> Result<()> {
        let mut ip = Command::new("ip")
            .args(["-n", &self.name, "-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run ip; install iproute2")?;
        ip.stdin
            .take()
            .context("ip takes no input")?
            .write_all(script.as_bytes())?;
        let output = ip.wait_with_output()?;
        ensure!(
            output.status.success(),
            "ip failed in {}: {}\n{script}",
            self.name,
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        Ok(())
    }

    /// What `ip -json ARGS` says in it.
    #[cfg(feature = "e2e")]
    pub fn ip_json(&self, args: &[&str]) -> Result<serde_json::Value> {
        let mut ip = Command::new("ip");
        let text = run(ip.args(["-n", &self.name, "-json"]).args(args))?;
        serde_json::from_str(&text)
            .with_context(|| format!("`ip -json {}` said no JSON: {text}", args.join(" ")))
    }

    /// Writes sysctls, each as (path below `/proc/sys`, value).
    pub fn sysctl(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.run(|| {
            settings.iter().try_for_each(|(name, value)| {
                fs::write(Path::new("/proc/sys").join(name), value)
                    .with_context(|| format!("cannot set {name} to {value} in {}", self.name))
            })
        })?
    }

    /// Gives the namespace a hosts file of its own. It counts inside [`Netns::run_with_hosts`] and
    /// for `ip netns exec`.
    pub fn set_hosts(&self, text: &str) -> Result<()> {
        let directory = etc_dir(&self.name);
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        let hosts = directory.join("hosts");
        fs::write(&hosts, text).with_context(|| format!("cannot write {}", hosts.display()))
    }

    /// A handle for entering the namespace that does not own it.
    pub fn entry(&self) -> Entry {
        Entry {
            name: self.name.clone(),
        }
    }

    /// As [`Entry::run`].
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.entry().run(work)
    }

    /// As [`Entry::run_with_hosts`].
    pub fn run_with_hosts<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.entry().run_with_hosts(work)
    }

    /// A command for `program` inside the namespace. It replaces nsenter, so its pid is the
    /// program's own; unlike `ip netns exec` it sees the machine's `/sys/fs/bpf`.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", self.path().display()))
            .arg("--")
            .arg(program);
        command
    }

    /// The processes in it.
    pub fn pids(&self) -> Result<Vec<Pid>> {
        pids(&self.name)
    }

    /// Kills everything in it, and waits until it is gone.
    pub fn kill_all(&self) -> Result<()> {
        let what = format!("the end of what runs in {}", self.name);
        wait_until(&what, END_TIMEOUT, || {
            // What one of them has started meanwhile is met by the next look.
            Ok((signal_processes(&self.name, Signal::SIGKILL)? == 0).then_some(()))
        })
    }

    /// The index of the interface `name` inside the namespace.
    pub fn interface_index(&self, name: &str) -> Result<u32> {
        self.run(|| {
            nix::net::if_::if_nametoindex(name)
                .with_context(|| format!("no interface {name} in {}", self.name))
        })?
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if self.is_kept {
            return;
        }
        if let Err(error) = remove(&self.name) {
            eprintln!("namespace {} is left behind: {error:#}", self.name);
        }
    }
}

/// A way into a namespace.
#[derive(Clone, Debug)]
pub struct Entry {
    name: String,
}

impl Entry {
    /// Runs `work` on a fresh thread inside the namespace. Only that thread is moved.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.run_after(|| Ok(()), work)
    }

    /// As [`Entry::run`], with the namespace's own hosts file for the resolver
    /// ([`Netns::set_hosts`]).
    pub fn run_with_hosts<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        self.run_after(|| replace_hosts(&etc_dir(&self.name).join("hosts")), work)
    }

    fn run_after<T: Send>(
        &self,
        prepare: impl FnOnce() -> Result<()> + Send,
        work: impl FnOnce() -> T + Send,
    ) -> Result<T> {
        let handle = File::open(handle_path(&self.name))
            .with_context(|| format!("namespace {} is gone", self.name))?;
        thread::scope(|scope| {
            let entered = thread::Builder::new().spawn_scoped(scope, || {
                setns(&handle, CloneFlags::CLONE_NEWNET)
                    .with_context(|| format!("cannot enter namespace {}", self.name))?;
                prepare()?;
                Ok(work())
            })?;
            entered
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

fn handle_path(name: &str) -> PathBuf {
    Path::new(NETNS_DIR).join(name)
}

fn etc_dir(name: &str) -> PathBuf {
    Path::new(NETNS_ETC_DIR).join(name)
}

/// Ends what runs in the namespace `name` and deletes it.
pub fn remove(name: &str) -> Result<()> {
    end_processes(name)?;
    drop(fs::remove_dir_all(etc_dir(name)));
    run(Command::new("ip").args(["netns", "delete", name]))?;
    Ok(())
}

/// Deletes what this process has created, after Ctrl-C. What runs there ends with it.
pub fn remove_own() {
    for name in list(&format!("lb{}x", process::id())) {
        if let Err(error) = remove(&name) {
            eprintln!("namespace {name} is left behind: {error:#}");
        }
    }
}

/// The names of the namespaces that start with `prefix`.
pub fn list(prefix: &str) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(NETNS_DIR)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.starts_with(prefix))
        .collect();
    names.sort();
    names
}

/// SIGTERM, and SIGKILL for what is still there after [`END_TIMEOUT`].
fn end_processes(name: &str) -> Result<()> {
    if signal_processes(name, Signal::SIGTERM)? == 0 {
        return Ok(());
    }
    let ended = wait_until("the end of its processes", END_TIMEOUT, || {
        Ok(pids(name)?.is_empty().then_some(()))
    });
    if ended.is_err() {
        signal_processes(name, Signal::SIGKILL)?;
    }
    Ok(())
}

fn signal_processes(name: &str, signal: Signal) -> Result<usize> {
    let pids = pids(name)?;
    for pid in &pids {
        if pid.as_raw() == process::id().cast_signed() {
            bail!("a thread of this process is still in namespace {name}");
        }
        // It may have ended by itself since.
        let _ = kill(*pid, signal);
    }
    Ok(pids.len())
}

fn pids(name: &str) -> Result<Vec<Pid>> {
    let text = run(Command::new("ip").args(["netns", "pids", name]))?;
    let parse = |pid: &str| {
        pid.parse()
            .with_context(|| format!("`ip netns pids` said {pid:?}"))
    };
    text.split_whitespace()
        .map(|pid| Ok(Pid::from_raw(parse(pid)?)))
        .collect()
}

/// Removes the namespaces whose owner is gone. Two processes may do so at the same time: what is
/// already gone is no error.
fn remove_orphans() {
    for name in list("lb") {
        let is_orphan = owner_pid(&name).is_some_and(|pid| !Path::new("/proc").join(pid).exists());
        if is_orphan {
            drop(remove(&name));
        }
    }
}

/// `lb<pid>x<n>-<role>` → pid.
fn owner_pid(name: &str) -> Option<&str> {
    let (pid, rest) = name.strip_prefix("lb")?.split_once('x')?;
    let (number, _role) = rest.split_once('-')?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    (is_number(pid) && is_number(number)).then_some(pid)
}

/// Puts `hosts` over `/etc/hosts`, for the calling thread only.
fn replace_hosts(hosts: &Path) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("cannot leave the mount namespace")?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("cannot make the mounts private")?;
    mount(Some(hosts), "/etc/hosts", none, MsFlags::MS_BIND, none)
        .with_context(|| format!("cannot put {} over /etc/hosts", hosts.display()))
}

#[cfg(test)]
mod tests {
    use super::owner_pid;

    #[test]
    fn only_names_of_our_own_pattern_have_an_owner() {
        assert_eq!(owner_pid("lb123x0-client"), Some("123"));
        for foreign in ["lbdemo-client", "lb123-client", "lbxx1-a", "lb12x-a", "web"] {
            assert_eq!(owner_pid(foreign), None, "{foreign}");
        }
    }
}

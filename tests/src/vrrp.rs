//! A real `lbd-vrrp` without an lbd: the test says what lbd would say.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Shutdown};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::lbd::program;
use crate::netns::Netns;
use crate::process::Process;
use crate::scratch::ScratchDir;
use crate::wait::wait_until_every;

/// How long it may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);
/// Between two looks at what it has said.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// What it has said.
#[derive(Debug, Default)]
struct Heard {
    status: Value,
    /// Every state of a router, with when it was told.
    states: Vec<(Instant, String, String)>,
    answers: Vec<Value>,
}

/// A running `lbd-vrrp`. Dropping it ends it.
#[derive(Debug)]
pub struct Vrrp {
    name: String,
    process: Process,
    socket: PathBuf,
    stream: UnixStream,
    heard: Arc<Mutex<Heard>>,
    scratch: ScratchDir,
}

impl Vrrp {
    /// Starts it in `netns`.
    pub fn start(netns: &Netns) -> Result<Self> {
        let scratch = ScratchDir::new("vrrp")?;
        let socket = scratch.path().join("lbd.sock.vrrp");
        let process = spawn(netns, &scratch, &socket)?;
        let heard = Arc::new(Mutex::new(Heard::default()));
        let stream = connect(&socket, &heard)?;
        Ok(Self {
            name: netns.name().to_owned(),
            process,
            socket,
            stream,
            heard,
            scratch,
        })
    }

    /// Starts it again, on the same socket, after its process has ended.
    pub fn restart(&mut self, netns: &Netns) -> Result<()> {
        self.process = spawn(netns, &self.scratch, &self.socket)?;
        self.stream = connect(&self.socket, &self.heard)?;
        Ok(())
    }

    /// lbd goes; who listens only goes on listening.
    pub fn hang_up(&mut self) -> Result<()> {
        self.stream.shutdown(Shutdown::Both)?;
        wait_until_every(LOOK_EVERY, "lbd-vrrp to notice", START_TIMEOUT, || {
            let log = self.process.log();
            Ok(log.contains("lbd has gone").then_some(()))
        })?;
        self.stream = connect(&self.socket, &self.heard)?;
        Ok(())
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// SIGKILL, and the wait for its end.
    pub fn kill9(&mut self) -> Result<()> {
        self.process.kill9().map(drop)
    }

    /// SIGTERM, and the wait for its end; what it has left in its directory, besides its log.
    pub fn terminate(&mut self) -> Result<Vec<String>> {
        self.process.terminate()?;
        let mut left = Vec::new();
        for entry in std::fs::read_dir(self.scratch.path())? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            left.extend((name != "log").then_some(name));
        }
        Ok(left)
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.signal(signal)
    }

    /// Says what it is to do. With a key, the groups authenticate.
    pub fn configure(&mut self, groups: &[Value], key: Option<&str>) -> Result<()> {
        self.configure_giving(groups, key, &json!({}))
    }

    /// The same, with VIPs that lbd has added itself: for each one, on which interface with which index.
    pub fn configure_giving(
        &mut self,
        groups: &[Value],
        key: Option<&str>,
        given_vips: &Value,
    ) -> Result<()> {
        let configuration = json!({
            "node": self.name, "groups": groups, "key": key, "pins": null, "given_vips": given_vips,
        });
        self.say(&json!({ "configure": configuration }))
    }

    /// Those of them that it says to have taken over.
    pub fn taken_vips(&self) -> Vec<String> {
        let heard = self.heard();
        let taken = heard.status["taken_vips"].as_array().into_iter().flatten();
        taken
            .filter_map(|vip| vip.as_str().map(str::to_owned))
            .collect()
    }

    /// Says what lbd knows: the peers, as [`Vrrp::facts_about`] tells them.
    pub fn tell(&mut self, peers: &[Value]) -> Result<()> {
        let facts =
            json!({"datapath_trouble": null, "behind": null, "live_backends": {}, "peers": peers});
        self.say(&json!({ "facts": facts }))
    }

    /// What a peer's lbd would say of this node with a heartbeat.
    pub fn facts_about(&self) -> Value {
        let status = self.heard().status.clone();
        let routers: Vec<Value> = status["routers"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|router| {
                json!({
                    "group": router["group"], "family": router["family"], "state": router["state"],
                    "priority": router["priority"], "is_fit": router["priority"] != 0,
                })
            })
            .collect();
        json!({"node": self.name, "heard_ms": 0, "heartbeat_ms": 20, "routers": routers})
    }

    /// Asks for a hand-over, and waits for the answer: what has happened, or why not, in words.
    pub fn failover(&mut self, group: &str) -> Result<Result<String, String>> {
        let number = self.heard().answers.len() as u64 + 1;
        self.say(&json!({"failover": {"group": group, "request": number}}))?;
        let answer = wait_until_every(LOOK_EVERY, "an answer", START_TIMEOUT, || {
            let heard = self.heard();
            let mut answers = heard.answers.iter();
            Ok(answers.find(|answer| answer["request"] == number).cloned())
        })?;
        let text = |key: &str| answer[key].as_str().map(str::to_owned);
        Ok(match text("error") {
            Some(error) => Err(error),
            None => Ok(text("text").unwrap_or_default()),
        })
    }

    fn say(&mut self, message: &Value) -> Result<()> {
        let sent = self.stream.write_all(format!("{message}\n").as_bytes());
        sent.with_context(|| format!("lbd-vrrp of {} does not listen", self.name))
    }

    /// A router, as it has told last.
    pub fn router(&self, group: &str, family: &str) -> Value {
        let heard = self.heard();
        let routers = heard.status["routers"].as_array().into_iter().flatten();
        let mut found =
            routers.filter(|router| router["group"] == group && router["family"] == family);
        found.next().cloned().unwrap_or_default()
    }

    /// Waits until a router is in this state.
    pub fn await_state(
        &self,
        group: &str,
        family: &str,
        state: &str,
        timeout: Duration,
    ) -> Result<()> {
        let what = format!("{} of {group}/{family} on {}", state, self.name);
        let waited = wait_until_every(LOOK_EVERY, &what, timeout, || {
            Ok((self.router(group, family)["state"] == state).then_some(()))
        });
        waited.with_context(|| {
            let router = self.router(group, family);
            format!("it says {router}\n{}", self.process.log_tail())
        })
    }

    /// The states that a router was in since `since`, in their order.
    pub fn states_since(&self, group: &str, family: &str, since: Instant) -> Vec<String> {
        let name = format!("{group}/{family}");
        let heard = self.heard();
        let states = heard.states.iter();
        states
            .filter(|(at, router, _)| *at >= since && *router == name)
            .map(|(_, _, state)| state.clone())
            .collect()
    }

    fn heard(&self) -> MutexGuard<'_, Heard> {
        self.heard.lock().expect("the reader does not panic")
    }
}

fn spawn(netns: &Netns, scratch: &ScratchDir, socket: &std::path::Path) -> Result<Process> {
    let mut command = netns.command(program("lbd-vrrp")?);
    command.args(["--log", "debug", "--socket"]).arg(socket);
    let name = format!("lbd-vrrp of {}", netns.name());
    Process::spawn(&name, command, &scratch.path().join("log"))
}

fn connect(socket: &std::path::Path, heard: &Arc<Mutex<Heard>>) -> Result<UnixStream> {
    let stream = wait_until_every(LOOK_EVERY, "lbd-vrrp's socket", START_TIMEOUT, || {
        Ok(UnixStream::connect(socket).ok())
    })?;
    let (reader, heard) = (BufReader::new(stream.try_clone()?), heard.clone());
    thread::spawn(move || {
        for line in reader.lines().map_while(|line| line.ok()) {
            if let Ok(message) = serde_json::from_str::<Value>(&line) {
                heard.lock().expect("nobody panics with it").take(message);
            }
        }
    });
    Ok(stream)
}

impl Heard {
    fn take(&mut self, mut message: Value) {
        if message.get("answer").is_some() {
            self.answers.push(message["answer"].take());
        } else if message.get("status").is_some() {
            self.status = message["status"].take();
            let now = Instant::now();
            for router in self.status["routers"].as_array().into_iter().flatten() {
                let text = |key: &str| router[key].as_str().unwrap_or_default().to_owned();
                let name = format!("{}/{}", text("group"), text("family"));
                self.states.push((now, name, text("state")));
            }
        }
    }
}

/// A group on `interface` as lbd describes it; `changes` are what differs from the usual.
pub fn group(interface: &str, vips: &[IpAddr], priority: u8, changes: &Value) -> Result<Value> {
    let mut group = json!({
        "name": "web", "interface": interface, "vrid": 51, "vips": vips, "priority": priority,
        "interval_cs": 20, "preempt": true, "preempt_delay_ms": 0, "peers": [], "sources": [],
        "accept": true, "virtual_mac": false, "authenticate": false, "tracks": [],
    });
    let Some(changes) = changes.as_object() else {
        bail!("{changes} is no object");
    };
    for (key, value) in changes {
        group[key] = value.clone();
    }
    Ok(group)
}

//! A real HAProxy, as a TCP proxy.

use std::net::SocketAddr;

use anyhow::Result;

use crate::netns::Netns;
use crate::nginx::wait_listening;
use crate::process::Process;
use crate::scratch::ScratchDir;

/// What it listens on, of every address, and where it connects to from there.
#[derive(Clone, Debug)]
pub struct HaproxyService {
    /// The TCP port.
    pub port: u16,
    /// `roundrobin`, `source` …
    pub balance: &'static str,
    /// Where connections go.
    pub backends: Vec<SocketAddr>,
}

/// A running HAProxy. Dropping it ends it.
#[derive(Debug)]
pub struct Haproxy {
    process: Process,
    _scratch: ScratchDir,
}

impl Haproxy {
    /// Starts it in `netns` with all of its threads, and waits until it listens.
    pub fn start(name: &str, netns: &Netns, services: &[HaproxyService]) -> Result<Self> {
        let scratch = ScratchDir::new(&format!("haproxy-{name}"))?;
        let config = scratch.write("haproxy.cfg", &config(services))?;
        let mut command = netns.command("haproxy");
        command.args(["-db", "-f"]).arg(config);
        let log = scratch.path().join("log");
        let mut process = Process::spawn(&format!("haproxy {name}"), command, &log)?;
        let ports: Vec<u16> = services.iter().map(|service| service.port).collect();
        wait_listening(&mut process, netns, &ports)?;
        Ok(Self {
            process,
            _scratch: scratch,
        })
    }

    /// The process.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn config(services: &[HaproxyService]) -> String {
    let head = "global\n  maxconn 9000\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 1h\n  \
                timeout server 1h\n";
    services.iter().fold(head.to_owned(), |text, service| {
        let HaproxyService {
            port,
            balance,
            backends,
        } = service;
        let servers = backends.iter().enumerate();
        let servers: String = servers
            .map(|(number, backend)| format!("  server s{number} {backend}\n"))
            .collect();
        text + &format!("listen p{port}\n  bind :::{port} v4v6\n  balance {balance}\n{servers}")
    })
}

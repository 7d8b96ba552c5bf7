//! A real DNS server as a UDP backend: dnsmasq, asked with dig.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::netns::Netns;
use crate::process::{Process, run};
use crate::scratch::ScratchDir;

/// The name whose TXT record is the answering backend's own name.
pub const WHOAMI: &str = "whoami.foobar.com";

/// How long dnsmasq may take to answer.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A running dnsmasq. Dropping it ends it.
#[derive(Debug)]
pub struct Dnsmasq {
    process: Process,
    _scratch: ScratchDir,
}

impl Dnsmasq {
    /// Starts dnsmasq in `netns` on port 53 of every address, and waits until it answers.
    pub fn start(name: &str, netns: &Netns) -> Result<Self> {
        let scratch = ScratchDir::new(&format!("dnsmasq-{name}"))?;
        let config = scratch.write("dnsmasq.conf", &config(name))?;
        let mut command = netns.command("dnsmasq");
        command
            .arg("--keep-in-foreground")
            .arg(format!("--conf-file={}", config.display()));
        let log = scratch.path().join("log");
        let mut process = Process::spawn(&format!("dnsmasq {name}"), command, &log)?;
        let own = IpAddr::from([127, 0, 0, 1]);
        process.wait_ready(START_TIMEOUT, || Ok(whoami(netns, own, None).is_ok()))?;
        Ok(Self {
            process,
            _scratch: scratch,
        })
    }

    /// The process, to stop or to kill it.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }
}

fn config(name: &str) -> String {
    format!(
        "no-resolv\nno-hosts\nno-daemon\nuser=root\ngroup=root\npid-file=\nport=53\n\
         address=/www.foobar.com/203.0.113.10\ntxt-record={WHOAMI},{name}\n"
    )
}

/// Asks the server at `address` with dig, from `netns`; up to three times, a second apart, if there is no
/// answer. Returns the answering backend's name.
pub fn whoami(netns: &Netns, address: IpAddr, source_port: Option<u16>) -> Result<String> {
    let mut dig = netns.command("dig");
    dig.arg(format!("@{address}"))
        .args(["+short", "+tries=3", "+time=1", "+nocookie"]);
    if let Some(port) = source_port {
        let any = if address.is_ipv4() { "0.0.0.0" } else { "::" };
        dig.args(["-b", &format!("{any}#{port}")]);
    }
    let answer =
        run(dig.args(["TXT", WHOAMI])).with_context(|| format!("no answer from {address}"))?;
    // Remarks on queries without an answer begin with a semicolon.
    let name = answer.lines().find_map(|line| line.strip_prefix('"'));
    let name = name.with_context(|| format!("{address} has no TXT record {WHOAMI}: {answer}"))?;
    Ok(name.trim_end_matches('"').to_owned())
}

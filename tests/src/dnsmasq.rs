//! dnsmasq whose records change while it runs.

use std::net::IpAddr;

use anyhow::Result;
use nix::sys::signal::Signal;

use crate::netns::Netns;
use crate::program::{Program, Recipe};
use crate::scratch::ScratchDir;

/// Where it listens, over UDP and TCP.
pub const PORT: u16 = 53;
/// The name that it knows.
pub const NAME: &str = "www.foobar.com";
/// Its address.
pub const ADDRESS: &str = "203.0.113.10";

/// What it knows by itself, and whom it asks: lines of a hosts file, and of dnsmasq's servers-file.
const HOSTS_FILE: &str = "hosts";
const SERVERS_FILE: &str = "servers";

/// Starts dnsmasq in `netns`. It knows [`NAME`], and asks nobody.
pub fn start(name: &str, netns: &Netns) -> Result<Program> {
    let scratch = ScratchDir::new(&format!("dnsmasq-{name}"))?;
    let hosts = scratch.write(HOSTS_FILE, &host(ADDRESS))?;
    let servers = scratch.write(SERVERS_FILE, "")?;
    let config = format!(
        "no-resolv\nno-hosts\nuser=root\ngroup=root\npid-file=\nport={PORT}\n\
         addn-hosts={}\nservers-file={}\n",
        hosts.display(),
        servers.display()
    );
    let config = scratch.write("dnsmasq.conf", &config)?;
    let recipe = Recipe {
        command: vec![
            "dnsmasq".to_owned(),
            "--keep-in-foreground".to_owned(),
            "--log-facility=-".to_owned(),
            format!("--conf-file={}", config.display()),
        ],
        port: PORT,
    };
    Program::start(&format!("dnsmasq {name}"), netns, scratch, recipe)
}

/// From now on the name has this address.
pub fn knows(dnsmasq: &mut Program, address: &str) -> Result<()> {
    change(dnsmasq, &host(address), "")
}

/// From now on it asks the server at this address and port, and knows nothing by itself.
pub fn asks(dnsmasq: &mut Program, server: IpAddr, port: u16) -> Result<()> {
    change(dnsmasq, "", &format!("server={server}#{port}\n"))
}

/// From now on it knows that there is no such name.
pub fn denies(dnsmasq: &mut Program) -> Result<()> {
    change(dnsmasq, "", &format!("server=/{NAME}/\n"))
}

/// From now on it neither knows, nor can ask.
pub fn refuses(dnsmasq: &mut Program) -> Result<()> {
    change(dnsmasq, "", "")
}

fn host(address: &str) -> String {
    format!("{address} {NAME}\n")
}

fn change(dnsmasq: &mut Program, hosts: &str, servers: &str) -> Result<()> {
    dnsmasq.write(HOSTS_FILE, hosts)?;
    dnsmasq.write(SERVERS_FILE, servers)?;
    dnsmasq.process().signal(Signal::SIGHUP)
}

//! The demo's network: where it stands, what runs in it, and how it goes away.

use std::fs;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process;

use super::pair;
use anyhow::{Context, Result, bail};
use lb_lab::nginx::{self, Nginx};
use lb_lab::process::Process;
use lb_lab::requirement::find_program;
use lb_lab::scratch::ScratchDir;
use lb_lab::topology::{Backend, VIPS_V4, VIPS_V6};
use lb_lab::{Client, Forward, Interfaces, Lbd, Plan, Topology, netns};

/// Start of the names of the demo's namespaces.
pub(super) const PREFIX: &str = "lbdemo";
/// Configuration, socket and logs of what runs in the demo.
const DIRECTORY: &str = "/run/lbdemo";
/// Holds the pid of the demo that is under way; absent once it only stands (`--keep`).
const OWNER_FILE: &str = "/run/lbdemo/owner";

/// Backends in the services at the start.
pub(super) const BACKENDS: [&str; 3] = ["web1", "web2", "web3"];
/// Every machine with a web server; the last one joins under traffic.
pub(super) const MACHINE_COUNT: u8 = 4;
/// The port of every service.
pub(super) const PORT: u16 = 80;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    fn contains(self, address: IpAddr) -> bool {
        address.is_ipv4() == (self == Self::V4)
    }
}

/// A host name with a service behind it in each family.
#[derive(Clone, Copy)]
pub(super) struct Site {
    /// What the client asks for.
    pub(super) host: &'static str,
    /// The services' scheduler, as lbd calls it.
    pub(super) scheduler: &'static str,
    /// The scheduler in words.
    pub(super) title: &'static str,
    services: [&'static str; 2],
    vip_index: usize,
}

/// What the client can ask for.
pub(super) const SITES: [Site; 2] = [
    Site {
        host: "www.foobar.com",
        scheduler: "maglev",
        title: "consistent hash",
        services: ["www", "www6"],
        vip_index: 0,
    },
    Site {
        host: "rr.foobar.com",
        scheduler: "round-robin",
        title: "round robin",
        services: ["rr", "rr6"],
        vip_index: 1,
    },
];

impl Site {
    /// The name of its service in `family`.
    pub(super) fn service(&self, family: Family) -> &'static str {
        match family {
            Family::V4 => self.services[0],
            Family::V6 => self.services[1],
        }
    }

    /// Its VIP in `family`.
    pub(super) fn vip(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => VIPS_V4[self.vip_index].into(),
            Family::V6 => VIPS_V6[self.vip_index].into(),
        }
    }
}

/// The kind of the demo's web servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServerKind {
    Nginx,
    BuiltIn,
}

impl ServerKind {
    /// nginx where it is installed.
    pub(super) fn choose() -> Self {
        if find_program("nginx").is_some() {
            Self::Nginx
        } else {
            Self::BuiltIn
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::BuiltIn => "built-in HTTP backend",
        }
    }
}

/// A web server of the demo.
pub(super) enum Server {
    Nginx(Nginx),
    BuiltIn(Process),
}

impl Server {
    /// Leaves it running.
    pub(super) fn keep(&mut self) {
        match self {
            Self::Nginx(nginx) => nginx.keep(),
            Self::BuiltIn(process) => process.keep(),
        }
    }
}

/// Everything that the demo has started. Dropping it ends it: the daemon first, the network last.
pub(super) struct Stage {
    lbd: Lbd,
    servers: Vec<Server>,
    net: Topology,
    claim: Claim,
}

impl Stage {
    /// Builds the network and starts everything in it.
    pub(super) fn build(servers: ServerKind) -> Result<Self> {
        let claim = Claim::make()?;
        let plan = Plan::new(Forward::Dsr, Interfaces::One, MACHINE_COUNT);
        let net = Topology::build(Plan {
            prefix: Some(PREFIX.to_owned()),
            ..plan
        })?;
        net.client.netns().set_hosts(&hosts_file())?;
        let servers = net
            .backends
            .iter()
            .map(|backend| start_server(servers, backend))
            .collect::<Result<_>>()?;
        let lbd = Lbd::start_in(scratch("lbd")?, &net.lb, &config(&net))?;
        Ok(Self {
            lbd,
            servers,
            net,
            claim,
        })
    }

    pub(super) fn client(&self) -> &Client {
        &self.net.client
    }

    pub(super) fn lbd(&self) -> &Lbd {
        &self.lbd
    }

    pub(super) fn net(&self) -> &Topology {
        &self.net
    }

    /// The machine `name`.
    pub(super) fn machine(&self, name: &str) -> Result<&Backend> {
        let found = self
            .net
            .backends
            .iter()
            .find(|backend| backend.name == name);
        found.with_context(|| format!("the demo has no machine {name}"))
    }

    /// Asks the client's resolver for a site's address.
    pub(super) fn resolve(&self, site: &Site, family: Family) -> Result<SocketAddr> {
        let host = site.host;
        let found = self
            .client()
            .netns()
            .run_with_hosts(|| {
                (host, PORT)
                    .to_socket_addrs()
                    .map(Iterator::collect::<Vec<_>>)
            })?
            .with_context(|| format!("the client cannot resolve {host}"))?;
        found
            .into_iter()
            .find(|address| family.contains(address.ip()))
            .with_context(|| format!("{host} has no {} address", family.word()))
    }

    /// Kills the daemon, as a fault of its own would.
    pub(super) fn kill_lbd(&mut self) -> Result<()> {
        self.lbd.kill9()?;
        Ok(())
    }

    /// Starts the daemon again.
    pub(super) fn restart_lbd(&mut self) -> Result<()> {
        self.lbd.restart(&self.net.lb)
    }

    /// Ends the daemon, and the rest by being dropped. An error tells what it left behind.
    pub(super) fn end(mut self) -> Result<()> {
        let status = self.lbd.terminate()?;
        if !status.success() {
            bail!(
                "lbd did not end well ({status}); its log:\n{}",
                self.lbd.log()
            );
        }
        let left = lb_lab::process::run(self.net.lb.command("ip").args(["-o", "addr", "show"]))?;
        let vips = SITES
            .iter()
            .flat_map(|site| Family::ALL.map(|family| site.vip(family)));
        for vip in vips {
            if left.contains(&format!(" {vip}/")) {
                bail!("lbd has ended and left the VIP {vip} on its interface");
            }
        }
        Ok(())
    }

    /// Leaves everything standing.
    pub(super) fn keep(mut self) -> Result<()> {
        self.lbd.keep();
        self.net.keep();
        self.servers.iter_mut().for_each(Server::keep);
        self.claim.keep()
    }
}

/// Removes what stands of a demo, whoever started it. Says whether there was anything.
pub(super) fn take_down() -> Result<bool> {
    let mut names = netns::list(&format!("{PREFIX}-"));
    // The balancers first: their daemons take their VIPs and programs along while the network still stands.
    names.sort_by_key(|name| !name.ends_with("-lb") && !pair::is_node(name));
    for name in &names {
        netns::remove(name)?;
    }
    let was_there = !names.is_empty() || Path::new(DIRECTORY).exists();
    remove_directory()?;
    Ok(was_there)
}

/// This process owns the demo's names and its directory. Dropping it removes the directory.
pub(super) struct Claim {
    is_kept: bool,
}

impl Claim {
    /// Leaves everything to whoever takes it down later.
    pub(super) fn keep(mut self) -> Result<()> {
        self.is_kept = true;
        fs::remove_file(OWNER_FILE).with_context(|| format!("cannot remove {OWNER_FILE}"))
    }

    /// Takes what no living process owns; what stands of an earlier demo is taken down.
    pub(super) fn make() -> Result<Self> {
        if let Ok(owner) = fs::read_to_string(OWNER_FILE)
            && Path::new("/proc").join(owner.trim()).exists()
        {
            bail!(
                "another demo is under way (pid {}); wait for its end",
                owner.trim()
            );
        }
        take_down()?;
        fs::create_dir_all(DIRECTORY).with_context(|| format!("cannot create {DIRECTORY}"))?;
        fs::write(OWNER_FILE, process::id().to_string())
            .with_context(|| format!("cannot write {OWNER_FILE}"))?;
        Ok(Self { is_kept: false })
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.is_kept
            && let Err(error) = remove_directory()
        {
            eprintln!("{error:#}");
        }
    }
}

fn remove_directory() -> Result<()> {
    if Path::new(DIRECTORY).exists() {
        fs::remove_dir_all(DIRECTORY).with_context(|| format!("cannot remove {DIRECTORY}"))?;
    }
    Ok(())
}

pub(super) fn scratch(name: &str) -> Result<ScratchDir> {
    ScratchDir::at(PathBuf::from(DIRECTORY).join(name))
}

pub(super) fn start_server(kind: ServerKind, backend: &Backend) -> Result<Server> {
    let Backend { name, netns, .. } = backend;
    if kind == ServerKind::Nginx {
        return Ok(Server::Nginx(Nginx::start_in(
            scratch(name)?,
            name,
            netns,
            &[PORT],
        )?));
    }
    let xtask = std::env::current_exe().context("cannot find xtask's own program file")?;
    let mut command = netns.command(xtask);
    command.args(["http-backend", "--name", name, "--port", &PORT.to_string()]);
    let log = Path::new(DIRECTORY).join(format!("{name}.log"));
    let mut process = Process::spawn(&format!("backend {name}"), command, &log)?;
    nginx::wait_listening(&mut process, netns, &[PORT])?;
    Ok(Server::BuiltIn(process))
}

fn hosts_file() -> String {
    SITES
        .iter()
        .flat_map(|site| Family::ALL.map(|family| format!("{} {}\n", site.vip(family), site.host)))
        .collect()
}

fn config(net: &Topology) -> String {
    net.node_config() + &services_config(net, &SITES)
}

/// The services of `sites` in both families.
pub(super) fn services_config(net: &Topology, sites: &[Site]) -> String {
    let services = sites.iter().flat_map(|site| {
        Family::ALL.map(|family| {
            net.service_config(
                site.service(family),
                site.vip(family),
                site.scheduler,
                &BACKENDS,
            )
        })
    });
    services.collect()
}

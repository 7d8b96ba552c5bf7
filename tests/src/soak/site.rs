//! Three machines with servers of every kind, and lbd that asks them.

use std::net::IpAddr;
use std::path::Path;

use anyhow::Result;

use super::servers::{DEAD_PORT, HTTP_PORT, SILENT_PORT, Servers, UDP_PORT};
use crate::certificates::Authority;
use crate::lbd::Lbd;
use crate::mariadb::{CHECK_PASSWORD, CHECK_USER, Installation, MariaDb};
use crate::scratch::ScratchDir;
use crate::service::{self, ServiceText};
use crate::topology::{Forward, Interfaces, Plan, Topology, VIPS_V4};
use crate::{redis, tls_nginx};

/// Checks of a service; README, "Config file".
const CHECKS_MAX: usize = 8;

/// How often most questions are asked.
const OFTEN: &str = "interval = \"100ms\"\nfast_interval = \"100ms\"\ntimeout = \"100ms\"\n";
/// Questions that take a server some work: a busy machine is not to fail them.
const SELDOM: &str = "interval = \"500ms\"\nfast_interval = \"500ms\"\ntimeout = \"500ms\"\n";
/// Questions that nobody answers.
const IMPATIENT: &str = "interval = \"100ms\"\nfast_interval = \"100ms\"\ntimeout = \"50ms\"\n";

/// The part of a service's name that says that none of its checks succeeds.
pub const HOPELESS: &str = "hopeless";

/// A site. Dropping it ends lbd first, then the servers, then the network.
#[derive(Debug)]
pub struct SoakSite {
    /// The daemon.
    pub lbd: Lbd,
    /// The database, on web1.
    pub database: MariaDb,
    /// The network.
    pub net: Topology,
    /// lbd's configuration with all checks.
    pub config: String,
    /// The same without any.
    pub config_without_checks: String,
    _servers: Vec<Servers>,
    _password: ScratchDir,
}

impl SoakSite {
    /// Starts everything, and lbd without checks.
    pub fn start() -> Result<Self> {
        let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 3))?;
        let identity = Authority::new("soak")?.issue("soak.example", 30)?;
        let servers = net.backends.iter();
        let servers: Vec<Servers> = servers
            .map(|backend| Servers::start(backend, &identity))
            .collect::<Result<_>>()?;
        let host = &net.backends[0];
        let database = MariaDb::start(&Installation::new()?, &host.name, &host.netns, 1)?;
        database.set_up()?;
        let password = ScratchDir::new("soak-password")?;
        let file = password.write("password", CHECK_PASSWORD)?;
        let config = service::config(&net, &services(&net, &file, Checks::All));
        let config_without_checks = service::config(&net, &services(&net, &file, Checks::None));
        let lbd = Lbd::start(&net.lb, &config_without_checks)?;
        Ok(Self {
            lbd,
            database,
            net,
            config,
            config_without_checks,
            _servers: servers,
            _password: password,
        })
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Checks {
    All,
    None,
}

/// Each question differs from all others: equal ones would be asked once.
fn services(net: &Topology, password_file: &Path, checks: Checks) -> Vec<ServiceText> {
    let all = ["web1", "web2", "web3"];
    // It is the same for both of its users.
    assert_eq!(redis::PASSWORD, CHECK_PASSWORD);
    let password = format!("password_file = \"{}\"\n", password_file.display());
    let numbers = |range: std::ops::Range<u32>, text: fn(u32) -> String| range.map(text);
    let tcp = numbers(0..6, |n| {
        format!(
            "type = \"tcp\"\nport = {HTTP_PORT}\nsend = \"GET /{n} HTTP/1.0\\r\\n\\r\\n\"\nexpect = \"web\"\n{OFTEN}"
        )
    });
    let http = numbers(0..5, |n| {
        format!("type = \"http\"\nport = {HTTP_PORT}\npath = \"/{n}\"\n{OFTEN}")
    });
    let https = numbers(0..4, |n| {
        format!(
            "type = \"https\"\nport = {}\npath = \"/{n}\"\n{OFTEN}",
            tls_nginx::PORT
        )
    });
    let exec = numbers(0..2, |n| {
        format!("type = \"exec\"\ncommand = [\"/bin/true\", \"{n}\"]\n{OFTEN}")
    });
    let web = tcp.chain(http).chain(https).chain(exec);
    let web = web.chain([
        format!("type = \"tcp\"\nport = {HTTP_PORT}\n{OFTEN}"),
        format!("type = \"icmp\"\n{OFTEN}"),
        format!(
            "type = \"redis\"\nport = {}\n{password}{OFTEN}",
            redis::PORT
        ),
    ]);
    let database = (0..32).map(|n| {
        format!("type = \"mysql\"\nquery = \"SELECT {n}\"\nport = 3306\nuser = \"{CHECK_USER}\"\n{password}{SELDOM}")
    });
    let hopeless = [
        format!("type = \"tcp\"\nport = {DEAD_PORT}\n{IMPATIENT}"),
        format!("type = \"http\"\nport = {DEAD_PORT}\n{IMPATIENT}"),
        format!("type = \"tcp\"\nport = {SILENT_PORT}\nexpect = \"hello\"\n{IMPATIENT}"),
        format!("type = \"http\"\nport = {SILENT_PORT}\n{IMPATIENT}"),
        format!("type = \"https\"\nport = {SILENT_PORT}\n{IMPATIENT}"),
        format!("type = \"exec\"\ncommand = [\"/bin/sleep\", \"60\"]\n{IMPATIENT}"),
        format!("type = \"exec\"\ncommand = [\"/bin/false\"]\n{IMPATIENT}"),
    ];
    let dns = numbers(0..3, |n| {
        let name = format!("n{n}.www.foobar.com");
        format!("type = \"dns\"\nname = \"{name}\"\nexpect = \"203.0.113.10\"\n{OFTEN}")
    });
    let udp = numbers(0..3, |n| {
        format!(
            "type = \"udp\"\nport = {UDP_PORT}\nsend = \"ping {n}\"\nexpect = \"ping {n}\"\n{OFTEN}"
        )
    });
    let datagrams: Vec<String> = dns.chain(udp).collect();
    let tcp_groups = [
        ("web", web.collect::<Vec<_>>(), &all[..]),
        ("db", database.collect(), &all[..1]),
        (HOPELESS, hopeless.into(), &all[..]),
    ];
    let mut services = Vec::new();
    for (name, texts, backends) in tcp_groups {
        for chunk in texts.chunks(CHECKS_MAX) {
            let number = services.len() as u16;
            let service = ServiceText::new(net, &format!("{name}{number}"), vip());
            let service = with(service.port(8_000 + number), chunk, checks);
            services.push(service.backends(net, backends));
        }
    }
    let service = with(
        ServiceText::new(net, "dns", vip()).udp(53),
        &datagrams,
        checks,
    );
    services.push(service.backends(net, &all));
    services
}

fn with(service: ServiceText, texts: &[String], checks: Checks) -> ServiceText {
    match checks {
        Checks::All => texts
            .iter()
            .fold(service, |service, text| service.check(text)),
        Checks::None => service,
    }
}

fn vip() -> IpAddr {
    VIPS_V4[0].into()
}

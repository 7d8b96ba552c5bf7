//! A replicated MariaDB behind lbd: a primary with two replicas by GTID, and in front of them the services
//! `writer` and `reader`, which follow their roles.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::lbd::Lbd;
use crate::mariadb::{CHECK_PASSWORD, CHECK_USER, Installation, MariaDb, remote};
use crate::process::run;
use crate::scratch::ScratchDir;
use crate::service::{self, ServiceText};
use crate::topology::{Forward, Interfaces, Plan, Topology, VIPS_V4};
use crate::wait::wait_until;

/// How long a change may take on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The backends, in the order of [`Databases::servers`].
const BACKENDS: [&str; 3] = ["web1", "web2", "web3"];
const PORT: u16 = 3306;

/// Time between two checks.
pub const INTERVAL: Duration = Duration::from_millis(500);
/// How long an answer may take.
pub const CHECK_TIMEOUT: Duration = Duration::from_millis(400);
/// A replica that is further behind gets no reads.
pub const MAX_LAG: &str = "5s";

/// How a primary acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replication {
    /// When it has written itself.
    Asynchronous,
    /// When a replica has received it, too: what is acknowledged survives the primary.
    SemiSynchronous,
}

/// A primary (web1 at first) and two replicas, behind lbd. Dropping it ends lbd first, then the servers, then
/// the network.
#[derive(Debug)]
pub struct Databases {
    /// The daemon.
    pub lbd: Lbd,
    /// The servers of web1, web2, web3; their server ids are 1, 2, 3.
    pub servers: Vec<MariaDb>,
    /// The network.
    pub net: Topology,
    replication: Replication,
    _password: ScratchDir,
}

/// The VIP of the service `writer`.
pub fn writer_vip() -> IpAddr {
    VIPS_V4[0].into()
}

/// The VIP of the service `reader`.
pub fn reader_vip() -> IpAddr {
    VIPS_V4[1].into()
}

impl Databases {
    /// Starts everything.
    pub fn start(replication: Replication) -> Result<Self> {
        let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 3))?;
        let installation = Installation::new()?;
        let servers: Vec<MariaDb> = (1..)
            .zip(&net.backends)
            .map(|(id, backend)| MariaDb::start(&installation, &backend.name, &backend.netns, id))
            .collect::<Result<_>>()?;
        servers[0].set_up()?;
        if replication == Replication::SemiSynchronous {
            servers[0].await_replicas()?;
        }
        for replica in &servers[1..] {
            replica.follow(net.backends[0].v4.into())?;
        }
        let password = ScratchDir::new("check-password")?;
        let file = password.write("password", CHECK_PASSWORD)?;
        let check = format!(
            "type = \"mysql\"\nuser = \"{CHECK_USER}\"\npassword_file = \"{}\"\n\
             interval = \"{}ms\"\nfast_interval = \"200ms\"\ntimeout = \"{}ms\"\nfall = 2",
            file.display(),
            INTERVAL.as_millis(),
            CHECK_TIMEOUT.as_millis(),
        );
        let service = |name, vip, role| {
            let service = ServiceText::new(&net, name, vip).port(PORT);
            let service = service.key("role", role).check(&check);
            service.backends(&net, &BACKENDS)
        };
        let services = [
            service("writer", writer_vip(), "writer"),
            service("reader", reader_vip(), "reader").key("max_lag", MAX_LAG),
        ];
        let lbd = Lbd::start(&net.lb, &service::config(&net, &services))?;
        Ok(Self {
            lbd,
            servers,
            net,
            replication,
            _password: password,
        })
    }

    /// Where writers connect.
    pub fn writer(&self) -> SocketAddr {
        SocketAddr::new(writer_vip(), PORT)
    }

    /// Waits until the new flows of a service go to these backends and no other.
    pub fn await_eligible(&self, service: &str, expected: &[&str]) -> Result<()> {
        let what = format!("{expected:?} to be those of {service}");
        let waited = wait_until(&what, TIMEOUT, || {
            let shown = self.lbd.ctl_json(&["service", "show", service])?;
            let backends = shown["backends"].as_array().cloned().unwrap_or_default();
            let eligible = |one: &&Value| one["is_eligible"] == true;
            let names: Vec<_> = backends
                .iter()
                .filter(eligible)
                .map(|one| &one["name"])
                .collect();
            Ok((names == expected).then_some(()))
        });
        waited.with_context(|| {
            let health = self.lbd.ctl(&["health", "list"]);
            let table = health.map_or_else(|error| error.to_string(), |output| output.stdout);
            format!("{table}\nlog of lbd:\n{}", self.lbd.log_tail())
        })
    }

    /// Waits until a backend's last answer, or its last change, is told in these words by `lbctl health
    /// show`; returns all of it.
    pub fn await_words(&self, service: &str, backend: &str, words: &str) -> Result<String> {
        let mut last = String::new();
        let waited = wait_until(&format!("{words:?} about {backend}"), TIMEOUT, || {
            last = self
                .lbd
                .ctl_ok(&["health", "show", backend, "--service", service])?;
            Ok(last.contains(words).then_some(()))
        });
        waited.with_context(|| format!("`lbctl health show` said:\n{last}"))?;
        Ok(last)
    }

    /// Runs a statement over a VIP.
    pub fn ask(&self, vip: IpAddr, statement: &str) -> Result<String> {
        run(remote(self.net.client.netns(), vip).args(["-e", statement]))
    }

    /// The server ids of those who answer over a VIP, from many ports.
    pub fn servers_behind(&self, vip: IpAddr) -> Result<Vec<String>> {
        let ids = (0..20).map(|_| Ok(self.ask(vip, "SELECT @@server_id")?.trim().to_owned()));
        let mut ids: Vec<String> = ids.collect::<Result<_>>()?;
        ids.sort();
        ids.dedup();
        Ok(ids)
    }

    /// What somebody has to look after.
    pub fn alarms(&self) -> Result<Value> {
        Ok(self.lbd.ctl_json(&["health", "list"])?["alarms"].clone())
    }

    /// As a tool for fail-over does it after the primary's death: of `candidates` (indices of replicas), the one
    /// that has received most applies all of it and becomes the primary, the others follow it. Returns its
    /// index, and when it was told to accept writes.
    pub fn fail_over(&self, candidates: &[usize]) -> Result<(usize, Instant)> {
        let mut best = None;
        for index in candidates {
            let server = &self.servers[*index];
            server.sql("STOP SLAVE IO_THREAD")?;
            server.await_applied()?;
            best = best.max(Some((server.position()?, *index)));
        }
        let (_, new) = best.context("no replica is left")?;
        let promoted = self.promote(new, candidates)?;
        Ok((new, promoted))
    }

    /// As a tool for a planned change does it: the primary `old` accepts no writes any more, the replica `new`
    /// applies what is there and becomes the primary, `old` and the others follow it. Returns when writes were
    /// stopped, and when `new` was told to accept them.
    pub fn switch_over(&self, old: usize, new: usize) -> Result<(Instant, Instant)> {
        self.servers[old].sql("SET GLOBAL read_only = 1")?;
        let stopped = Instant::now();
        let position = self.servers[old].position()?;
        wait_until("the replica to catch up", TIMEOUT, || {
            Ok((self.servers[new].position()? >= position).then_some(()))
        })?;
        self.servers[old].sql("SET GLOBAL rpl_semi_sync_master_enabled = 0")?;
        let others: Vec<usize> = (0..self.servers.len())
            .filter(|index| *index != old)
            .collect();
        let promoted = self.promote(new, &others)?;
        self.servers[old].follow_demoted(self.net.backends[new].v4.into())?;
        Ok((stopped, promoted))
    }

    fn promote(&self, new: usize, followers: &[usize]) -> Result<Instant> {
        if self.replication == Replication::SemiSynchronous {
            self.servers[new].await_replicas()?;
        }
        let promoted = Instant::now();
        self.servers[new].promote()?;
        for index in followers.iter().filter(|index| **index != new) {
            self.servers[*index].follow(self.net.backends[new].v4.into())?;
        }
        Ok(promoted)
    }
}

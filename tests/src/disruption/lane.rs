//! Through what flows go: a family and a scheduler, with a service of each kind.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::Serialize;

use crate::service::ServiceText;
use crate::topology::{Forward, Topology, VIP_V4, VIP_V6};

/// How services pick a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scheduler {
    /// By consistent hash.
    Maglev,
    /// In turn.
    RoundRobin,
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Family {
    /// IPv4.
    #[serde(rename = "IPv4")]
    V4,
    /// IPv6.
    #[serde(rename = "IPv6")]
    V6,
}

/// A way through the balancer, with three services of its own: our server's over TCP and over UDP,
/// and nginx's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Lane {
    /// The services' scheduler.
    pub scheduler: Scheduler,
    /// The family of their VIPs and backends.
    pub family: Family,
}

/// What a service carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carries {
    /// Records over TCP.
    Records,
    /// HTTP.
    Http,
    /// Records over UDP.
    Datagrams,
}

/// Ports of nginx on each backend. Under NAT a backend's port belongs to one service, so each
/// scheduler has its own.
pub const HTTP_PORTS: [u16; 2] = [8001, 8002];
/// Ports of our server on each backend, TCP and UDP.
pub const RECORD_PORTS: [u16; 2] = [7001, 7002];

impl Lane {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::new(Scheduler::Maglev, Family::V4),
        Self::new(Scheduler::Maglev, Family::V6),
        Self::new(Scheduler::RoundRobin, Family::V4),
        Self::new(Scheduler::RoundRobin, Family::V6),
    ];

    const fn new(scheduler: Scheduler, family: Family) -> Self {
        Self { scheduler, family }
    }

    /// The VIP of its services.
    pub fn vip(self) -> IpAddr {
        match self.family {
            Family::V4 => VIP_V4,
            Family::V6 => VIP_V6,
        }
    }

    /// Where the service that carries `what` is reached.
    pub fn address(self, what: Carries) -> SocketAddr {
        let ports = match what {
            Carries::Http => HTTP_PORTS,
            Carries::Records | Carries::Datagrams => RECORD_PORTS,
        };
        SocketAddr::new(self.vip(), ports[self.scheduler as usize])
    }

    /// The name of the service that carries `what`.
    pub fn service(self, what: Carries) -> String {
        let kind = match what {
            Carries::Records => "records",
            Carries::Http => "http",
            Carries::Datagrams => "udp",
        };
        let family = match self.family {
            Family::V4 => "v4",
            Family::V6 => "v6",
        };
        format!("{kind}-{}-{family}", self.scheduler.word())
    }
}

impl fmt::Display for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = match self.family {
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        write!(f, "{} {family}", self.scheduler.word())
    }
}

impl Scheduler {
    /// As the configuration says it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Maglev => "maglev",
            Self::RoundRobin => "round-robin",
        }
    }
}

impl Carries {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Records, Self::Http, Self::Datagrams];
}

/// A service of lbd, by what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its lane.
    pub lane: Lane,
    /// What it carries.
    pub carries: Carries,
}

impl Service {
    /// Every service of a laboratory.
    pub fn all() -> impl Iterator<Item = Self> {
        let of_lane = |lane| Carries::ALL.map(|carries| Self { lane, carries });
        Lane::ALL.into_iter().flat_map(of_lane)
    }

    /// Its name.
    pub fn name(self) -> String {
        self.lane.service(self.carries)
    }

    /// Its text in lbd's configuration, with these backends and weights.
    pub fn text(self, net: &Topology, weights: &[(&str, u32)]) -> ServiceText {
        let address = self.lane.address(self.carries);
        let text = ServiceText::new(net, &self.name(), address.ip());
        let text = match self.carries {
            Carries::Datagrams => text.udp(address.port()),
            Carries::Records | Carries::Http => text.port(address.port()),
        };
        text.scheduler(self.lane.scheduler.word())
            .weights(net, weights)
    }
}

/// The word for a forwarding mode.
pub fn forward_word(forward: Forward) -> &'static str {
    match forward {
        Forward::Dsr => "dsr",
        Forward::Nat => "nat",
    }
}

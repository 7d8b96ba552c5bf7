//! A whole site: a network, web servers on its backends, and lbd in front of them.

use anyhow::Result;

use crate::lbd::Lbd;
use crate::nginx::Nginx;
use crate::service::{self, ServiceText};
use crate::topology::{Plan, Topology};

/// A site in service. Dropping it ends lbd first, then the servers, then the network.
#[derive(Debug)]
pub struct Site {
    /// The daemon.
    pub lbd: Lbd,
    /// The web servers of web1 … webN, on port 80.
    pub nginx: Vec<Nginx>,
    /// The network.
    pub net: Topology,
}

impl Site {
    /// Builds the network of `plan` and starts everything, lbd with these services.
    pub fn start(plan: Plan, services: impl FnOnce(&Topology) -> Vec<ServiceText>) -> Result<Self> {
        let net = Topology::build(plan)?;
        let nginx = web_servers(&net)?;
        let lbd = Lbd::start(&net.lb, &service::config(&net, &services(&net)))?;
        Ok(Self { lbd, nginx, net })
    }
}

/// nginx on port 80 of every backend of `net`.
pub fn web_servers(net: &Topology) -> Result<Vec<Nginx>> {
    net.backends
        .iter()
        .map(|backend| Nginx::start(&backend.name, &backend.netns, &[80]))
        .collect()
}

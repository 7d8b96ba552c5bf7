//! What a node's ids of services and backends mean, in words that every node understands.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What a service is known by on every node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ServiceEndpoint {
    /// The VIP.
    pub vip: IpAddr,
    /// The port, host byte order; 0 = all.
    pub port: u16,
    /// The protocol, as IP numbers it.
    pub protocol: u8,
}

/// A backend by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BackendEndpoint {
    /// The id of its service, on the same node.
    pub service_id: u16,
    /// Which of the id's holders it is.
    pub generation: u16,
    /// Where it is.
    pub address: SocketAddr,
}

/// What a node's ids mean.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dictionary {
    /// Services by id.
    pub services: BTreeMap<u16, ServiceEndpoint>,
    /// Backends by id.
    pub backends: BTreeMap<u16, BackendEndpoint>,
}

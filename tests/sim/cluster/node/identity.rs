//! What nodes, the service and its backends are called, and the nodes' clocks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use lb_userspace::cluster::GroupId;
use lb_userspace::cluster::message::ServiceEndpoint;
use lb_userspace::vrrp::protocol::Family;

use crate::packet::{PORT, VIP};

/// The backends' port.
const BACKEND_PORT: u16 = 80;

/// The one service.
pub(in crate::cluster) const SERVICE: ServiceEndpoint = ServiceEndpoint {
    vip: IpAddr::V4(Ipv4Addr::from_bits(VIP)),
    port: PORT,
    protocol: 6,
};

/// Groups: the service's VIP is in the first one. The second one has a VIP without a service, and prefers the nodes in
/// the other order, as where two nodes are active-active.
pub(in crate::cluster) const GROUP_COUNT: usize = 2;

/// The group with this number.
pub(in crate::cluster) fn group(number: usize) -> GroupId {
    (["web", "api"][number].to_owned(), Family::Ipv4)
}

/// A node's name by its number.
pub(in crate::cluster) fn name(number: usize) -> String {
    format!("lb{number}")
}

/// A node's number by its name.
pub(in crate::cluster) fn number(name: &str) -> usize {
    name.trim_start_matches("lb").parse().unwrap_or(usize::MAX)
}

/// Where the backend with this id is.
pub(in crate::cluster) fn address_of(backend_id: u16) -> SocketAddr {
    let [high, low] = backend_id.to_be_bytes();
    SocketAddr::from(([10, 1, high, low], BACKEND_PORT))
}

/// A clock of a node's own: it began at another moment, and is a little fast or slow.
#[derive(Clone, Copy, Debug)]
pub(in crate::cluster) struct Clock {
    pub(in crate::cluster) offset_ms: u64,
    /// Unit: parts per million.
    pub(in crate::cluster) drift_ppm: i64,
}

impl Clock {
    pub(in crate::cluster) fn local_ms(self, now_ms: u64) -> u64 {
        let drift_ms = now_ms as i64 / 1_000 * self.drift_ppm / 1_000;
        (now_ms + self.offset_ms).saturating_add_signed(drift_ms)
    }
}

//! The rings of a node, as its coordinator sees them.

use std::net::{IpAddr, SocketAddr};

use lb_userspace::cluster::message::ServiceEndpoint;
use lb_userspace::cluster::{Rings, SharedService};
use lb_userspace::transition::RingTransition;

use super::identity::{SERVICE, address_of, group};

/// The rings of a node: one.
pub(in crate::cluster) struct OneRing {
    pub(in crate::cluster) machine: RingTransition,
    pub(super) suppressed_ms: Option<u64>,
    pub(super) lag_ms: u64,
    pub(super) has_group: bool,
    /// Backends of peers' rings, whose entries are to be there.
    pub(super) named: Vec<u16>,
}

impl Rings for OneRing {
    fn services(&self) -> Vec<SharedService> {
        vec![SharedService {
            endpoint: SERVICE,
            group: self.has_group.then(|| group(0)),
            slot_count: self.machine.slots().len(),
        }]
    }

    fn transition(&mut self, _service: &ServiceEndpoint) -> Option<&mut RingTransition> {
        Some(&mut self.machine)
    }

    fn transition_to_follow(&mut self, _service: &ServiceEndpoint) -> Option<&mut RingTransition> {
        Some(&mut self.machine)
    }

    fn address_of(&self, _service: &ServiceEndpoint, backend_id: u16) -> Option<SocketAddr> {
        Some(address_of(backend_id))
    }

    fn ids_of(
        &mut self,
        _service: &ServiceEndpoint,
        backends: &[SocketAddr],
    ) -> Result<Vec<u16>, String> {
        let id = |address: &SocketAddr| match address.ip() {
            IpAddr::V4(ip) => Ok(u16::from_be_bytes([ip.octets()[2], ip.octets()[3]])),
            IpAddr::V6(_) => Err("no backend of ours".to_owned()),
        };
        let ids: Vec<u16> = backends.iter().map(id).collect::<Result<_, _>>()?;
        self.named.extend(&ids);
        Ok(ids)
    }

    fn suppressed_ms(&self, _service: &ServiceEndpoint) -> Option<u64> {
        self.suppressed_ms
    }

    fn flow_lag_ms(&self) -> u64 {
        self.lag_ms
    }
}

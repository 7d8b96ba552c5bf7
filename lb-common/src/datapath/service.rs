//! Which service a packet is for.

use super::Headers;
use crate::abi::{EndpointKey, Service};
use crate::kernel::Kernel;

/// Finds the service of the packet's destination: the exact port first, then port 0, which stands
/// for every port.
#[inline(always)]
pub(super) fn find<F, K: Kernel>(kernel: &K, headers: &Headers<F>) -> Option<Service> {
    let mut key = EndpointKey::new(
        headers.l3.destination,
        headers.l4.destination_be,
        headers.l4.protocol,
    );
    if let Some(service) = kernel.service(&key) {
        return Some(service);
    }
    key.port_be = 0;
    kernel.service(&key)
}

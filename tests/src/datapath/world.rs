//! Tables from services and backends, as the control plane would write them.

use std::net::IpAddr;

use lb_common::abi::{
    Address, Backend, EndpointKey, ForwardMode, LinkRewrite, NatReply, Neighbour, NeighbourKey,
    Route, RouteKey, RouteKind, Scheduler, Service,
};
use lb_common::hash;
use lb_common::limits::{BACKEND_ID_MAX, RING_BLOCK_SLOTS, RING_SLOTS_DEFAULT};
use lb_common::maglev::{self, Member};
use lb_common::round_robin;

use super::tables::Tables;

/// The interface that test packets come in on: in the kernel's test run, the loopback device.
pub const INGRESS_IFINDEX: u32 = 1;
/// Another interface; the kernel's test run does not look whether it is there.
pub const EGRESS_IFINDEX: u32 = 77;
/// The Ethernet address of the balancer.
pub const LB_MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A service, in numbers.
#[derive(Clone, Copy, Debug)]
pub struct ServiceSpec {
    /// Id.
    pub id: u16,
    /// The VIP.
    pub vip: IpAddr,
    /// The port; 0 = every port.
    pub port: u16,
    /// IP protocol number.
    pub protocol: u8,
    /// Scheduler.
    pub scheduler: Scheduler,
    /// Forwarding mode of its backends.
    pub forward: ForwardMode,
}

/// A backend, in numbers.
#[derive(Clone, Copy, Debug)]
pub struct BackendSpec {
    /// Id.
    pub id: u16,
    /// Its address.
    pub address: IpAddr,
    /// Its port.
    pub port: u16,
    /// Its share.
    pub weight: u32,
    /// Egress interface; `None`: the next hop is not known.
    pub ifindex: Option<u32>,
}

impl BackendSpec {
    /// A backend on the ingress interface with weight 1.
    pub fn new(id: u16, address: IpAddr, port: u16) -> Self {
        Self {
            id,
            address,
            port,
            weight: 1,
            ifindex: Some(INGRESS_IFINDEX),
        }
    }
}

/// The Ethernet address of the backend with this id.
pub fn backend_mac(id: u16) -> [u8; 6] {
    let [high, low] = id.to_be_bytes();
    [2, 0, 0, 0xbb, high, low]
}

/// Builds tables step by step.
#[derive(Clone, Debug, Default)]
pub struct World {
    tables: Tables,
    next_block: u32,
}

impl World {
    /// An empty world with a fixed hash key.
    pub fn new() -> Self {
        let hash_key = [
            0x0123_4567_89ab_cdef,
            0x0fed_cba9_8765_4321,
            0x1122_3344,
            0x5566_7788_99aa,
        ];
        Self {
            tables: Tables {
                hash_key,
                ..Tables::default()
            },
            next_block: 0,
        }
    }

    /// Adds a service with its backends.
    pub fn service(mut self, spec: ServiceSpec, backends: &[BackendSpec]) -> Self {
        let ring = ring_of(spec.scheduler, backends);
        let is_tracked = spec.scheduler == Scheduler::RoundRobin || spec.protocol == 17;
        let service = Service {
            ring_block: self.next_block,
            ring_len: ring.len() as u32,
            idle_timeout_s: 60,
            id: spec.id,
            generation: 1,
            scheduler: spec.scheduler as u8,
            tracks_flows: u8::from(is_tracked),
            new_flows: 0,
            pad: 0,
        };
        self.tables.put_ring(self.next_block, &ring);
        self.next_block += ring.len().div_ceil(RING_BLOCK_SLOTS) as u32;
        let key = EndpointKey::new(spec.vip.into(), spec.port.to_be(), spec.protocol);
        self.tables.services.insert(key, service);
        let vip = self.tables.vips.entry(spec.vip.into()).or_default();
        *vip = vip.with_service();
        for backend in backends {
            self.put_backend(&spec, backend);
        }
        self
    }

    /// Has the host not answer at a VIP, which need not be a service's.
    pub fn not_accepted(mut self, vip: IpAddr) -> Self {
        let vip = self.tables.vips.entry(vip.into()).or_default();
        *vip = vip.not_accepted();
        self
    }

    fn put_backend(&mut self, service: &ServiceSpec, spec: &BackendSpec) {
        let is_remapped = service.forward == ForwardMode::Nat && service.port != 0;
        let port_be = if is_remapped { spec.port.to_be() } else { 0 };
        let backend = Backend {
            link: LinkRewrite::new(backend_mac(spec.id), LB_MAC),
            ifindex: spec.ifindex.unwrap_or(0),
            address: spec.address.into(),
            service_id: service.id,
            generation: 1,
            port_be,
            forward: service.forward as u8,
            is_resolved: u8::from(spec.ifindex.is_some()),
            delivery: 0,
            is_up: 1,
            pad: [0; 2],
            reserved: [0; 5],
        };
        assert!(spec.id <= BACKEND_ID_MAX);
        self.tables.backends.insert(spec.id, backend);
        if service.forward == ForwardMode::Nat {
            let key = EndpointKey::new(spec.address.into(), port_be, service.protocol);
            let reply = NatReply {
                vip: service.vip.into(),
                port_be: service.port.to_be(),
                service_id: service.id,
                backend_id: spec.id,
                pad: 0,
            };
            self.tables.nat_replies.insert(key, reply);
        }
    }

    /// Adds a route; `gateway_mac` with a gateway that is resolved.
    pub fn route(
        mut self,
        prefix: IpAddr,
        prefix_len: u32,
        kind: RouteKind,
        ifindex: u32,
        gateway: Option<(IpAddr, Option<[u8; 6]>)>,
    ) -> Self {
        let prefix_len = if prefix.is_ipv4() {
            prefix_len + 96
        } else {
            prefix_len
        };
        let key = RouteKey {
            prefix_len,
            octets: Address::from(prefix).octets(),
        };
        let mac = gateway.and_then(|(_, mac)| mac);
        let route = Route {
            link: mac
                .map(|mac| LinkRewrite::new(mac, LB_MAC))
                .unwrap_or_default(),
            ifindex,
            gateway: gateway.map_or(Address::UNSPECIFIED, |(ip, _)| ip.into()),
            kind: kind as u8,
            is_resolved: u8::from(mac.is_some()),
            pad: [0; 2],
        };
        self.tables.routes.insert(key, route);
        self
    }

    /// Adds an on-link host.
    pub fn neighbour(mut self, address: IpAddr, ifindex: u32, mac: [u8; 6]) -> Self {
        let key = NeighbourKey {
            address: address.into(),
            ifindex,
        };
        let link = LinkRewrite::new(mac, LB_MAC);
        self.tables.neighbours.insert(key, Neighbour { link });
        self
    }

    /// The tables.
    pub fn build(self) -> Tables {
        self.tables
    }
}

/// The ring that these backends make.
fn ring_of(scheduler: Scheduler, backends: &[BackendSpec]) -> Vec<u32> {
    let members: Vec<Member> = backends
        .iter()
        .map(|backend| Member {
            id: backend.id,
            identity: hash::identity(&backend.address.into(), backend.port),
            weight: backend.weight,
        })
        .collect();
    if members.is_empty() {
        return Vec::new();
    }
    match scheduler {
        Scheduler::Maglev => {
            let mut ring = vec![0; RING_SLOTS_DEFAULT as usize];
            maglev::fill(
                &mut ring,
                &members,
                &mut vec![Default::default(); members.len()],
            );
            ring
        }
        Scheduler::RoundRobin => {
            let mut ring = vec![0; RING_BLOCK_SLOTS];
            let mut turns = vec![Default::default(); members.len()];
            let slot_count = round_robin::schedule(&mut ring, &members, &mut turns);
            ring.truncate(slot_count);
            ring
        }
    }
}

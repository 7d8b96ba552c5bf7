//! What the maps should hold: a function of the model, the ids and the network. Pure.

pub mod ids;
mod network;
pub mod ring;

use std::collections::BTreeMap;
use std::net::IpAddr;

use bytemuck::Zeroable;
use lb_common::abi::{
    Address, Backend as BackendEntry, Delivery, EndpointKey, LinkRewrite, NatReply, Neighbour,
    NeighbourKey, NewFlows, Route, RouteKey, Service as ServiceEntry,
};
use lb_common::hash;
use lb_common::maglev::Member;

use crate::model::{Backend, ForwardMode, Model, Protocol, Scheduler, Service};
use crate::netlink::next_hop::{Hop, Memory, ResolvedHop};
use crate::netlink::view::View;
use ids::{Id, Ids, ServiceIdentity};
use ring::RingSpec;

/// A service's entry, but for the place of its ring, which the plan decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredService {
    id: Id,
    idle_timeout_s: u32,
    tracks_flows: bool,
    /// What its ring is made of.
    pub ring: RingSpec,
}

impl DesiredService {
    /// The entry with its ring at `ring_block`.
    pub const fn entry(&self, ring_block: u32, ring_len: u32) -> ServiceEntry {
        ServiceEntry {
            ring_block,
            ring_len,
            idle_timeout_s: self.idle_timeout_s,
            id: self.id.id,
            generation: self.id.generation,
            scheduler: self.ring.scheduler as u8,
            tracks_flows: self.tracks_flows as u8,
            new_flows: NewFlows::Schedule as u8,
            pad: 0,
        }
    }
}

/// What the maps should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// `SERVICES` and `RINGS`.
    pub services: BTreeMap<EndpointKey, DesiredService>,
    /// `VIPS`: services by VIP.
    pub vips: BTreeMap<Address, u32>,
    /// `BACKENDS`.
    pub backends: BTreeMap<u16, BackendEntry>,
    /// `NAT_REPLIES`.
    pub nat_replies: BTreeMap<EndpointKey, NatReply>,
    /// `ROUTES`: while there is a NAT service.
    pub routes: BTreeMap<RouteKey, Route>,
    /// `NEIGHBOURS`: while there is a NAT service.
    pub neighbours: BTreeMap<NeighbourKey, Neighbour>,
    /// Routes and neighbours that there is no room for.
    pub left_out: usize,
}

/// What is known of the network.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// The kernel's tables.
    pub view: View,
    /// The ways to the backends.
    pub hops: BTreeMap<IpAddr, Hop>,
    /// Last known Ethernet addresses.
    pub memory: Memory,
}

/// Whether replies come back through this node, so that it needs routes and neighbours.
pub fn has_nat(model: &Model) -> bool {
    model
        .services
        .values()
        .any(|service| service.forward == ForwardMode::Nat)
}

/// What the maps should hold for `model`. What has no id in `ids` is left out: call
/// [`Ids::assign`] first.
pub fn desired(model: &Model, ids: &Ids, network: &Network) -> Desired {
    let mut desired = Desired::default();
    for service in model.services.values() {
        add_service(&mut desired, service, ids, network);
    }
    if has_nat(model) {
        let (routes, routes_left_out) = network::routes(&network.view, &network.memory);
        let (neighbours, neighbours_left_out) = network::neighbours(&network.view);
        desired.routes = routes;
        desired.neighbours = neighbours;
        desired.left_out = routes_left_out + neighbours_left_out;
    }
    desired
}

fn add_service(desired: &mut Desired, service: &Service, ids: &Ids, network: &Network) {
    let identity = ServiceIdentity::of(service);
    let Some(id) = ids.service(&identity) else {
        return;
    };
    let vip = Address::from(service.vip);
    let mut members = Vec::with_capacity(service.backends.len());
    for backend in service.backends.values() {
        let Some(backend_id) = ids.backend(&identity, backend.address, backend.port) else {
            continue;
        };
        let entry = backend_entry(service, backend, id, backend_id, network);
        desired.backends.insert(backend_id.id, entry);
        if service.forward == ForwardMode::Nat {
            let (key, reply) = nat_reply(service, backend, id, backend_id);
            desired.nat_replies.insert(key, reply);
        }
        members.push(Member {
            id: backend_id.id,
            identity: hash::identity(&Address::from(backend.address), backend.port),
            weight: backend.weight,
        });
    }
    members.sort_unstable_by_key(|member| member.identity);
    let key = EndpointKey::new(vip, service.port.to_be(), protocol_number(service.protocol));
    let ring = RingSpec {
        scheduler: service.scheduler,
        maglev_slots: service.ring_slots,
        members,
    };
    let entry = DesiredService {
        id,
        idle_timeout_s: service.idle_timeout_s,
        tracks_flows: tracks_flows(service),
        ring,
    };
    desired.services.insert(key, entry);
    *desired.vips.entry(vip).or_default() += 1;
}

/// Round robin cannot tell from a packet where its flow went, and UDP has no SYN that would tell a
/// new flow from an old one when the ring changes.
fn tracks_flows(service: &Service) -> bool {
    service.scheduler == Scheduler::RoundRobin || service.protocol == Protocol::Udp
}

/// The IP protocol number.
pub const fn protocol_number(protocol: Protocol) -> u8 {
    match protocol {
        Protocol::Tcp => libc::IPPROTO_TCP as u8,
        Protocol::Udp => libc::IPPROTO_UDP as u8,
    }
}

fn backend_entry(
    service: &Service,
    backend: &Backend,
    service_id: Id,
    backend_id: Id,
    network: &Network,
) -> BackendEntry {
    let mut entry = BackendEntry {
        address: Address::from(backend.address),
        service_id: service_id.id,
        generation: backend_id.generation,
        port_be: rewritten_port_be(service, backend.port),
        forward: service.forward as u8,
        delivery: Delivery::Forward as u8,
        is_up: 1,
        ..BackendEntry::zeroed()
    };
    if let Ok(hop) = way_to(service.forward, network.hops.get(&backend.address)) {
        entry.link = hop.link;
        entry.ifindex = hop.ifindex;
        entry.is_resolved = 1;
    }
    entry
}

/// The port that NAT writes, in network byte order; 0 = the port stays as it is.
fn rewritten_port_be(service: &Service, port: u16) -> u16 {
    let stays = service.port == 0 || service.forward == ForwardMode::Dsr;
    if stays { 0 } else { port.to_be() }
}

fn nat_reply(
    service: &Service,
    backend: &Backend,
    service_id: Id,
    backend_id: Id,
) -> (EndpointKey, NatReply) {
    let key = EndpointKey::new(
        Address::from(backend.address),
        rewritten_port_be(service, backend.port),
        protocol_number(service.protocol),
    );
    let reply = NatReply {
        vip: Address::from(service.vip),
        port_be: service.port.to_be(),
        service_id: service_id.id,
        backend_id: backend_id.id,
        pad: 0,
    };
    (key, reply)
}

/// The next hop to a backend under a forwarding mode, or why it cannot be used.
///
/// # Errors
/// The reason, for people.
pub fn way_to(forward: ForwardMode, hop: Option<&Hop>) -> Result<&ResolvedHop, &str> {
    let hop = hop.ok_or("not looked up yet")?;
    if forward == ForwardMode::Dsr && hop.through_gateway {
        return Err("not on link: DSR needs the backend on the same layer-2 network");
    }
    hop.resolved.as_ref().map_err(String::as_str)
}

/// No next hop.
const NO_LINK: LinkRewrite = LinkRewrite([0; 3]);

#[cfg(test)]
mod tests;

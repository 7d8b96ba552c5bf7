//! What the maps should hold: a function of the model, the ids and the network. Pure.

pub mod ids;
mod network;
pub mod ring;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use bytemuck::Zeroable;
use lb_common::abi::{
    Address, Backend as BackendEntry, Delivery, EndpointKey, LinkRewrite, NatReply, Neighbour,
    NeighbourKey, NewFlows, Route, RouteKey, Service as ServiceEntry, Vip,
};
use lb_common::hash;
use lb_common::maglev::Member;

use crate::model::{
    AdminState, Backend, ForwardMode, Health, Model, OnDown, OnRemove, Protocol, Scheduler, Service,
};
use crate::netlink::next_hop::{Hop, Memory, ResolvedHop};
use crate::netlink::view::View;
use ids::{Id, Ids, ServiceIdentity};
use ring::{RingContent, RingSpec};

/// A service's entry, but for the place of its ring, which the plan decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredService {
    id: Id,
    idle_timeout_s: u32,
    tracks_flows: bool,
    scheduler: Scheduler,
    new_flows: NewFlows,
    /// Its ring.
    pub ring: RingContent,
}

/// Where a service's flows go: what health, admin states and time have made of its backends.
#[derive(Clone, Debug)]
pub struct Steering {
    /// The ring to be in force.
    pub ring: RingContent,
    /// What happens to new flows.
    pub new_flows: NewFlows,
    /// Backend ids whose flows are still delivered whatever the policy says: new flows go there, until
    /// another ring is in force or for want of anybody else.
    pub held: BTreeSet<u16>,
    /// Backend ids that the operator's model has no more: where another service has the same NAT
    /// endpoint now, replies are that one's.
    pub leaving: BTreeSet<u16>,
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
            scheduler: self.scheduler as u8,
            tracks_flows: self.tracks_flows as u8,
            new_flows: self.new_flows as u8,
            pad: 0,
        }
    }
}

/// What the maps should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// `SERVICES` and `RINGS`.
    pub services: BTreeMap<EndpointKey, DesiredService>,
    /// `VIPS`: of services, and of groups at which the host does not answer.
    pub vips: BTreeMap<Address, Vip>,
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

/// What the maps should hold for `model`. What has no id in `ids` is left out (call [`Ids::assign`]
/// first), and so is a service without `steering`, by its name.
pub fn desired(
    model: &Model,
    ids: &Ids,
    network: &Network,
    steering: &BTreeMap<String, Steering>,
) -> Desired {
    let mut desired = Desired::default();
    for service in model.services.values() {
        if let Some(steering) = steering.get(&service.name) {
            add_service(&mut desired, service, ids, network, steering);
        }
    }
    refuse_host_traffic(&mut desired, model);
    if has_nat(model) {
        let (routes, routes_left_out) = network::routes(&network.view, &network.memory);
        let (neighbours, neighbours_left_out) = network::neighbours(&network.view);
        desired.routes = routes;
        desired.neighbours = neighbours;
        desired.left_out = routes_left_out + neighbours_left_out;
    }
    desired
}

fn add_service(
    desired: &mut Desired,
    service: &Service,
    ids: &Ids,
    network: &Network,
    steering: &Steering,
) {
    let identity = ServiceIdentity::of(service);
    let Some(id) = ids.service(&identity) else {
        return;
    };
    for backend in service.backends.values() {
        let Some(backend_id) = ids.backend(&identity, backend.address, backend.port) else {
            continue;
        };
        let mut entry = backend_entry(service, backend, id, backend_id, network);
        if steering.held.contains(&backend_id.id) {
            entry.delivery = Delivery::Forward as u8;
        }
        desired.backends.insert(backend_id.id, entry);
        if service.forward == ForwardMode::Nat {
            let (key, reply) = nat_reply(service, backend, id, backend_id);
            if steering.leaving.contains(&backend_id.id) {
                desired.nat_replies.entry(key).or_insert(reply);
            } else {
                desired.nat_replies.insert(key, reply);
            }
        }
    }
    let entry = DesiredService {
        id,
        idle_timeout_s: service.idle_timeout_s,
        tracks_flows: service.tracks_flows(),
        scheduler: service.scheduler,
        new_flows: steering.new_flows,
        ring: steering.ring.clone(),
    };
    desired.services.insert(endpoint_key(service), entry);
    let vip = desired.vips.entry(Address::from(service.vip)).or_default();
    *vip = vip.with_service();
}

/// The VIPs of groups with `accept = false`, without a service too. Whether the group is Active does not
/// matter: a Backup accepts nothing either (RFC 9568 section 6.4.2).
fn refuse_host_traffic(desired: &mut Desired, model: &Model) {
    for group in model.vrrp.values().filter(|group| !group.accept) {
        for vip in &group.vips {
            let vip = desired.vips.entry(Address::from(*vip)).or_default();
            *vip = vip.not_accepted();
        }
    }
}

/// A service's key in `SERVICES`.
pub fn endpoint_key(service: &Service) -> EndpointKey {
    let protocol = protocol_number(service.protocol);
    EndpointKey::new(Address::from(service.vip), service.port.to_be(), protocol)
}

/// The ring of a service whose new flows go to these backends, with their weights for now.
pub fn ring_spec<'b>(
    service: &Service,
    ids: &Ids,
    members: impl Iterator<Item = (&'b Backend, u32)>,
) -> RingSpec {
    let identity = ServiceIdentity::of(service);
    let mut members: Vec<Member> = members
        .filter_map(|(backend, weight)| {
            let id = ids.backend(&identity, backend.address, backend.port)?;
            Some(Member {
                id: id.id,
                identity: hash::identity(&Address::from(backend.address), backend.port),
                weight,
            })
        })
        .collect();
    members.sort_unstable_by_key(|member| member.identity);
    RingSpec {
        scheduler: service.scheduler,
        maglev_slots: service.ring_slots,
        members,
    }
}

/// What happens to the packets of a backend's flows.
fn delivery(service: &Service, backend: &Backend) -> Delivery {
    let policies = &service.policies;
    match (backend.standing(), backend.health) {
        (AdminState::Maint, _) => match policies.on_remove {
            OnRemove::Keep => Delivery::Forward,
            OnRemove::Reset => Delivery::Reset,
            OnRemove::Drop => Delivery::Drop,
        },
        (_, Health::Down) if policies.on_down == OnDown::Reset => Delivery::Reset,
        _ => Delivery::Forward,
    }
}

/// Whether a backend may keep a handshake, and take a new flow for want of room in the flow table.
fn is_up(backend: &Backend) -> bool {
    backend.standing() != AdminState::Maint && backend.health != Health::Down
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
        delivery: delivery(service, backend) as u8,
        is_up: u8::from(is_up(backend)),
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
pub(crate) mod tests;

//! The test services, and what is sent to them.

use std::net::IpAddr;
use std::sync::Arc;

use bytemuck::Zeroable;
use lb_common::abi::{
    Address, Backend, EndpointKey, ForwardMode, LinkRewrite, NatReply, Neighbour, NeighbourKey,
    Route, RouteKey, RouteKind, Scheduler, Service, Slot, Vip,
};
use lb_common::drop_reason::DropReason;
use lb_common::limits::{IDLE_TIMEOUT_TCP_S, RING_SLOTS_DEFAULT};

use super::frame::{ACK, Endpoint, SYN, Segment};
use super::{Outcome, Step};
use crate::maps::{Entry, Write};

/// Frames of a test run seem to come in over the loopback interface of the namespace.
const INGRESS_IFINDEX: u32 = 1;

const TCP: u8 = libc::IPPROTO_TCP as u8;
const PORT: u16 = 80;
const NAT_PORT: u16 = 8_080;

/// Services by id; each has the backend of the same id, and the moving one another.
const V4: u16 = 1;
const V6: u16 = 2;
const MOVING: u16 = 3;
const NAT: u16 = 4;
const EMPTY: u16 = 5;
const PREVIOUS_BACKEND: u16 = 6;

/// Whether the test is to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    None,
    Expected,
}

impl From<bool> for Fault {
    fn from(is_expected: bool) -> Self {
        if is_expected {
            Self::Expected
        } else {
            Self::None
        }
    }
}

/// TEST-NET-1 (RFC 5737), or the discard prefix (RFC 6666).
fn address(service_or_host: u16) -> IpAddr {
    match service_or_host {
        V6 => IpAddr::from([0x100, 0, 0, 0, 0, 0, 0, V6]),
        host => IpAddr::from([192, 0, 2, host as u8]),
    }
}

fn vip(service: u16) -> Endpoint {
    (address(service), PORT)
}

fn client_of(service: u16) -> Endpoint {
    let host = match service {
        V6 => IpAddr::from([0x100, 0, 0, 0, 0, 0, 0, 0x77]),
        _ => address(0x77),
    };
    (host, 40_000)
}

fn backend_address(backend: u16) -> IpAddr {
    match backend {
        V6 => IpAddr::from([0x100, 0, 0, 0, 0, 0, 0, 0x82]),
        backend => address(0x80 + backend),
    }
}

fn link(backend: u16) -> LinkRewrite {
    LinkRewrite::new([2, 0, 0, 0, 1, backend as u8], [2, 0, 0, 0, 2, 0])
}

const fn client_link() -> [[u8; 6]; 2] {
    [[2, 0, 0, 0, 3, 0], [2, 0, 0, 0, 2, 0]]
}

/// What the maps hold during the test.
pub(super) fn writes() -> Vec<Write> {
    let mut writes = Vec::new();
    for id in [V4, V6, MOVING, NAT] {
        writes.push(backend(id, id));
    }
    writes.push(backend(PREVIOUS_BACKEND, MOVING));
    for id in [V4, V6, MOVING, NAT] {
        let slot = match id {
            MOVING => Slot::in_transition(MOVING, PREVIOUS_BACKEND),
            id => Slot::settled(id),
        };
        writes.push(Write::Ring {
            block: u32::from(id),
            slots: Arc::from(vec![slot.0; RING_SLOTS_DEFAULT as usize]),
        });
        writes.push(service(id, RING_SLOTS_DEFAULT));
    }
    writes.push(service(EMPTY, 0));
    for id in [V4, V6, MOVING, NAT, EMPTY] {
        let vip = Vip::default().with_service();
        writes.push(Write::Put(Entry::Vip(address(id).into(), vip)));
    }
    writes.extend(way_back());
    writes
}

fn backend(id: u16, service_id: u16) -> Write {
    let (forward, port) = match service_id {
        NAT => (ForwardMode::Nat, NAT_PORT),
        _ => (ForwardMode::Dsr, 0),
    };
    let entry = Backend {
        link: link(id),
        ifindex: INGRESS_IFINDEX,
        address: backend_address(id).into(),
        service_id,
        generation: 1,
        port_be: port.to_be(),
        forward: forward as u8,
        is_resolved: 1,
        is_up: 1,
        ..Backend::zeroed()
    };
    Write::Put(Entry::Backend(id, entry))
}

fn service(id: u16, ring_len: u32) -> Write {
    let entry = Service {
        ring_block: u32::from(id),
        ring_len,
        idle_timeout_s: IDLE_TIMEOUT_TCP_S,
        id,
        generation: 1,
        scheduler: Scheduler::Maglev as u8,
        ..Service::zeroed()
    };
    let key = EndpointKey::new(address(id).into(), PORT.to_be(), TCP);
    Write::Put(Entry::Service(key, entry))
}

/// What a NAT backend's reply needs.
fn way_back() -> [Write; 3] {
    let client = Address::from(client_of(NAT).0);
    let [to, from] = client_link();
    let reply = NatReply {
        vip: address(NAT).into(),
        port_be: PORT.to_be(),
        service_id: NAT,
        backend_id: NAT,
        pad: 0,
    };
    let endpoint = EndpointKey::new(backend_address(NAT).into(), NAT_PORT.to_be(), TCP);
    let route = Route {
        ifindex: INGRESS_IFINDEX,
        kind: RouteKind::OnLink as u8,
        ..Route::zeroed()
    };
    let destination = RouteKey {
        prefix_len: 128,
        octets: client.octets(),
    };
    let neighbour = Neighbour {
        link: LinkRewrite::new(to, from),
    };
    let host = NeighbourKey {
        address: client,
        ifindex: INGRESS_IFINDEX,
    };
    [
        Write::Put(Entry::NatReply(endpoint, reply)),
        Write::Put(Entry::Route(destination, route)),
        Write::Put(Entry::Neighbour(host, neighbour)),
    ]
}

fn to(service: u16, flags: u8, sequence: u32) -> Segment {
    Segment {
        source: client_of(service),
        destination: vip(service),
        flags,
        sequence,
    }
}

fn step(name: &'static str, packet: Segment, outcome: Outcome) -> Step {
    Step {
        name,
        packet,
        outcome,
    }
}

/// The packets in their order.
pub(super) fn steps(fault: Fault) -> Vec<Step> {
    let by = |backend: u16, packet: Segment| Outcome::Sent(link(backend), packet);
    let (syn, ack) = (|service| to(service, SYN, 1), |service| to(service, ACK, 2));
    let expected_of_v4 = match fault {
        Fault::None => V4,
        Fault::Expected => V6,
    };
    let stranger = Segment {
        source: (client_of(MOVING).0, 50_000),
        ..ack(MOVING)
    };
    let rewritten = Segment {
        destination: (backend_address(NAT), NAT_PORT),
        ..syn(NAT)
    };
    let answer = |source: Endpoint| Segment {
        source,
        destination: client_of(NAT),
        flags: SYN | ACK,
        sequence: 9,
    };
    let [client, balancer] = client_link();
    let foreign = Segment {
        destination: (address(0x70), PORT),
        ..syn(V4)
    };
    vec![
        step(
            "a packet of an IPv4 service",
            ack(V4),
            by(expected_of_v4, ack(V4)),
        ),
        step("a packet of an IPv6 service", ack(V6), by(V6, ack(V6))),
        step(
            "a SYN in a moving slot",
            syn(MOVING),
            by(MOVING, syn(MOVING)),
        ),
        step(
            "the segment after that SYN",
            ack(MOVING),
            by(MOVING, ack(MOVING)),
        ),
        step(
            "a segment of an older flow in a moving slot",
            stranger,
            by(PREVIOUS_BACKEND, stranger),
        ),
        step("a SYN of a NAT service", syn(NAT), by(NAT, rewritten)),
        step(
            "the reply of a NAT backend",
            answer((backend_address(NAT), NAT_PORT)),
            Outcome::Sent(LinkRewrite::new(client, balancer), answer(vip(NAT))),
        ),
        step("a packet for no service", foreign, Outcome::Passed),
        step(
            "a packet of a service without backends",
            syn(EMPTY),
            Outcome::Dropped(EMPTY, DropReason::NoBackend),
        ),
    ]
}

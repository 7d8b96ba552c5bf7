use std::collections::BTreeMap;

use lb_common::abi::RouteKind;
use lb_common::limits::ROUTES_MAX;

use super::*;
use crate::model::cluster::VrrpGroup;
use crate::model::{Fit, Interface, Limits, OnStop, XdpMode};
use crate::netlink::next_hop::{self, RouteAnswer};
use crate::netlink::view::{
    Link, LocalAddress, NeighbourEntry, NeighbourState, RouteEntry, RouteTarget,
};

const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// New flows go to every backend, and rings are built as if there had been none before.
pub(crate) fn all_eligible(model: &Model, ids: &Ids) -> BTreeMap<String, Steering> {
    let steering = |service: &Service| {
        let members = service.backends.values().map(|one| (one, one.weight));
        Steering {
            ring: RingContent::Built(ring_spec(service, ids, members)),
            new_flows: NewFlows::Schedule,
            held: BTreeSet::new(),
            leaving: BTreeSet::new(),
        }
    };
    let services = model.services.values();
    services
        .map(|one| (one.name.clone(), steering(one)))
        .collect()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn address(text: &str) -> Address {
    Address::from(ip(text))
}

fn backend(name: &str, address: &str, port: u16) -> Backend {
    Backend::new(name, ip(address), port)
}

fn service(name: &str, vip: &str, port: u16, forward: ForwardMode) -> Service {
    Service {
        forward,
        ..Service::new(name, ip(vip), port)
    }
}

fn with_backends(mut service: Service, backends: &[Backend]) -> Service {
    for backend in backends {
        service
            .backends
            .insert(backend.name.clone(), backend.clone());
    }
    service
}

fn model(services: &[Service]) -> Model {
    Model {
        node: "lb1".to_owned(),
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            xdp: XdpMode::Auto,
        }],
        manage_vips: true,
        metrics: Default::default(),
        hooks: Default::default(),
        cluster: None,
        vrrp: Default::default(),
        on_stop: OnStop::Keep,
        limits: Limits {
            services: 16,
            backends: 16,
            ring_blocks: 8,
            flows: 1024,
        },
        services: services
            .iter()
            .map(|service| (service.name.clone(), service.clone()))
            .collect(),
    }
}

/// Every backend of the model is a known host on interface 4, unless `answer` says otherwise.
fn network(model: &Model, answer: &RouteAnswer) -> Network {
    let link = Link {
        name: "eth0".to_owned(),
        address: Some(OURS),
        is_up: true,
        has_carrier: true,
    };
    let known = NeighbourEntry {
        address: Some(THEIRS),
        state: NeighbourState::Confirmed,
    };
    let mut network = Network::default();
    network.view.links.insert(4, link);
    network.view.neighbours.insert((4, ip("10.0.0.254")), known);
    for service in model.services.values() {
        for backend in service.backends.values() {
            network.view.neighbours.insert((4, backend.address), known);
            let hop = next_hop::hop(backend.address, answer, &network.view, &network.memory);
            network.hops.insert(backend.address, hop);
        }
    }
    network
}

fn on_link() -> RouteAnswer {
    Ok(RouteTarget::OnLink { ifindex: 4 })
}

fn via_gateway() -> RouteAnswer {
    Ok(RouteTarget::Gateway {
        ifindex: 4,
        gateway: ip("10.0.0.254"),
    })
}

fn desired_of(model: &Model, answer: &RouteAnswer) -> Desired {
    let mut ids = Ids::new(16, 16);
    ids.assign(model).unwrap();
    desired(
        model,
        &ids,
        &network(model, answer),
        &all_eligible(model, &ids),
    )
}

#[test]
fn a_dsr_backend_keeps_the_port_and_needs_no_reply_entry() {
    let web = service("web", "203.0.113.10", 80, ForwardMode::Dsr);
    let web = with_backends(web, &[backend("web1", "10.0.0.11", 80)]);
    let desired = desired_of(&model(&[web]), &on_link());
    let entry = desired.backends[&1];
    assert_eq!(entry.address, address("10.0.0.11"));
    assert_eq!(entry.link, LinkRewrite::new(THEIRS, OURS));
    assert_eq!((entry.ifindex, entry.is_resolved, entry.port_be), (4, 1, 0));
    assert_eq!(entry.forward, ForwardMode::Dsr as u8);
    assert!(desired.nat_replies.is_empty());
    assert!(desired.routes.is_empty() && desired.neighbours.is_empty());
    assert_eq!(
        desired.vips,
        BTreeMap::from([(address("203.0.113.10"), Vip(1))])
    );
}

#[test]
fn the_flows_of_a_backend_without_the_role_are_ended_as_those_of_one_in_maintenance() {
    let entry = |on_remove, one: Backend| {
        let mut db = service("db", "203.0.113.10", 80, ForwardMode::Dsr);
        db.policies.on_remove = on_remove;
        let db = with_backends(db, &[one]);
        let entry = desired_of(&model(&[db]), &on_link()).backends[&1];
        (entry.delivery, entry.is_up)
    };
    let fit = backend("db1", "10.0.0.11", 80);
    let unfit = Backend {
        fit: Fit::Unfit,
        ..fit.clone()
    };
    let mut drained = fit.clone();
    drained.agent.admin = Some(AdminState::Drain);
    let forward = Delivery::Forward as u8;
    let cases = [
        (OnRemove::Reset, &fit, (forward, 1)),
        (OnRemove::Reset, &drained, (forward, 1)),
        (OnRemove::Reset, &unfit, (Delivery::Reset as u8, 0)),
        (OnRemove::Drop, &unfit, (Delivery::Drop as u8, 0)),
        (OnRemove::Keep, &unfit, (forward, 0)),
    ];
    for (on_remove, one, expected) in cases {
        assert_eq!(
            entry(on_remove, one.clone()),
            expected,
            "{on_remove:?} {one:?}"
        );
    }
}

#[test]
fn a_nat_backend_gets_its_port_and_a_reply_entry() {
    let web = service("web", "2001:db8::10", 80, ForwardMode::Nat);
    let web = with_backends(web, &[backend("web1", "2001:db8:1::11", 8080)]);
    let desired = desired_of(&model(&[web]), &via_gateway());
    assert_eq!(desired.backends[&1].port_be, 8080_u16.to_be());
    assert_eq!(desired.backends[&1].is_resolved, 1);
    let key = EndpointKey::new(address("2001:db8:1::11"), 8080_u16.to_be(), 6);
    let reply = desired.nat_replies[&key];
    assert_eq!(reply.vip, address("2001:db8::10"));
    assert_eq!(reply.port_be, 80_u16.to_be());
    assert_eq!((reply.service_id, reply.backend_id), (1, 1));
}

#[test]
fn a_service_on_every_port_leaves_ports_alone() {
    let all = service("all", "203.0.113.10", 0, ForwardMode::Nat);
    let all = with_backends(all, &[backend("b", "10.0.0.11", 0)]);
    let desired = desired_of(&model(&[all]), &on_link());
    assert_eq!(desired.backends[&1].port_be, 0);
    let key = EndpointKey::new(address("10.0.0.11"), 0, 6);
    assert_eq!(desired.nat_replies[&key].port_be, 0);
}

#[test]
fn dsr_through_a_gateway_is_unresolved_and_says_why() {
    let web = service("web", "203.0.113.10", 80, ForwardMode::Dsr);
    let model = model(&[with_backends(web, &[backend("web1", "192.0.2.1", 80)])]);
    let network = network(&model, &via_gateway());
    let reason = way_to(ForwardMode::Dsr, network.hops.get(&ip("192.0.2.1"))).unwrap_err();
    assert_eq!(
        reason,
        "not on link: DSR needs the backend on the same layer-2 network"
    );
    let mut ids = Ids::new(16, 16);
    ids.assign(&model).unwrap();
    let entry = desired(&model, &ids, &network, &all_eligible(&model, &ids)).backends[&1];
    assert_eq!((entry.is_resolved, entry.link), (0, NO_LINK));
    assert_eq!(
        entry.service_id, 1,
        "the entry is there, so drops have a reason"
    );
}

#[test]
fn flows_are_tracked_for_round_robin_and_udp_only() {
    let tcp = service("tcp", "203.0.113.10", 80, ForwardMode::Dsr);
    let mut udp = service("udp", "203.0.113.10", 53, ForwardMode::Dsr);
    udp.protocol = Protocol::Udp;
    let mut rr = service("rr", "203.0.113.10", 81, ForwardMode::Dsr);
    rr.scheduler = Scheduler::RoundRobin;
    let desired = desired_of(&model(&[tcp, udp, rr]), &on_link());
    let tracked: Vec<(u16, u8)> = desired
        .services
        .iter()
        .map(|(key, service)| (u16::from_be(key.port_be), service.entry(0, 0).tracks_flows))
        .collect();
    for (port, tracks_flows) in [(80, 0), (53, 1), (81, 1)] {
        assert!(tracked.contains(&(port, tracks_flows)), "{tracked:?}");
    }
    assert_eq!(
        desired.vips,
        BTreeMap::from([(address("203.0.113.10"), Vip(3))])
    );
}

fn group(name: &str, accept: bool, vips: &[&str]) -> VrrpGroup {
    VrrpGroup {
        name: name.to_owned(),
        interface: "eth0".to_owned(),
        vrid: 51,
        vips: vips.iter().map(|vip| ip(vip)).collect(),
        priority: 100,
        interval_cs: 100,
        preempt: true,
        preempt_delay_ms: 0,
        peers: BTreeSet::new(),
        sources: BTreeSet::new(),
        accept,
        virtual_mac: false,
        authenticate: false,
        tracks: Vec::new(),
    }
}

#[test]
fn the_host_does_not_answer_at_the_vips_of_a_group_that_does_not_accept() {
    let web = service("web", "203.0.113.10", 80, ForwardMode::Dsr);
    let db = service("db", "203.0.113.12", 3306, ForwardMode::Dsr);
    let mut model = model(&[web, db]);
    // One of its VIPs has no service.
    let closed = group(
        "closed",
        false,
        &["203.0.113.10", "203.0.113.11", "2001:db8::10"],
    );
    let open = group("open", true, &["203.0.113.12", "203.0.113.13"]);
    model.vrrp = [closed, open]
        .map(|group| (group.name.clone(), group))
        .into();
    let one = Vip::default().with_service();
    assert_eq!(
        desired_of(&model, &on_link()).vips,
        BTreeMap::from([
            (address("203.0.113.10"), one.not_accepted()),
            (address("203.0.113.11"), Vip::default().not_accepted()),
            (address("2001:db8::10"), Vip::default().not_accepted()),
            (address("203.0.113.12"), one),
        ])
    );
}

#[test]
fn a_ring_does_not_depend_on_names_or_their_order() {
    let web = service("web", "203.0.113.10", 80, ForwardMode::Dsr);
    let one = with_backends(
        web.clone(),
        &[backend("a", "10.0.0.11", 80), backend("b", "10.0.0.12", 80)],
    );
    let other = with_backends(
        web,
        &[backend("z", "10.0.0.11", 80), backend("y", "10.0.0.12", 80)],
    );
    let mut ids = Ids::new(16, 16);
    ids.assign(&model(std::slice::from_ref(&one))).unwrap();
    let of = |service: &Service, ids: &Ids| {
        let model = model(std::slice::from_ref(service));
        desired(
            &model,
            ids,
            &network(&model, &on_link()),
            &all_eligible(&model, ids),
        )
    };
    let before = of(&one, &ids);
    ids.assign(&model(std::slice::from_ref(&other))).unwrap();
    assert_eq!(before.services, of(&other, &ids).services);
    assert_eq!(before.backends, of(&other, &ids).backends);
}

fn nat_view(routes: Vec<RouteEntry>) -> Desired {
    let web = service("web", "203.0.113.10", 80, ForwardMode::Nat);
    let model = model(&[with_backends(web, &[backend("web1", "10.0.0.11", 80)])]);
    let mut network = network(&model, &on_link());
    network.view.routes = routes;
    network.view.addresses.push(LocalAddress {
        ifindex: 4,
        address: ip("10.0.0.1"),
        prefix_len: 24,
    });
    let mut ids = Ids::new(16, 16);
    ids.assign(&model).unwrap();
    desired(&model, &ids, &network, &all_eligible(&model, &ids))
}

fn entry(destination: &str, prefix_len: u8, priority: u32, target: RouteTarget) -> RouteEntry {
    RouteEntry {
        destination: ip(destination),
        prefix_len,
        priority,
        target,
    }
}

fn lookup(desired: &Desired, destination: &str, prefix_len: u32) -> Route {
    let octets = address(destination).octets();
    desired.routes[&RouteKey { prefix_len, octets }]
}

#[test]
fn nat_mirrors_routes_and_neighbours() {
    let desired = nat_view(vec![
        entry("10.0.0.0", 24, 0, on_link().unwrap()),
        entry("0.0.0.0", 0, 100, via_gateway().unwrap()),
        entry("0.0.0.0", 0, 50, RouteTarget::Nowhere),
        entry("fe80::", 64, 256, on_link().unwrap()),
    ]);
    let connected = lookup(&desired, "10.0.0.0", 96 + 24);
    assert_eq!(
        (connected.kind, connected.ifindex),
        (RouteKind::OnLink as u8, 4)
    );
    let own = lookup(&desired, "10.0.0.1", 128);
    assert_eq!(own.kind, RouteKind::Local as u8);
    let default = lookup(&desired, "0.0.0.0", 96);
    assert_eq!(default.is_resolved, 0, "the lower metric wins: nowhere");
    assert_eq!(desired.routes.len(), 3, "no link-local route");
    let known: Vec<Address> = desired.neighbours.keys().map(|key| key.address).collect();
    assert_eq!(known, [address("10.0.0.11"), address("10.0.0.254")]);
}

#[test]
fn a_gateway_route_carries_its_next_hop() {
    let desired = nat_view(vec![entry("0.0.0.0", 0, 0, via_gateway().unwrap())]);
    let default = lookup(&desired, "0.0.0.0", 96);
    assert_eq!((default.is_resolved, default.ifindex), (1, 4));
    assert_eq!(default.link, LinkRewrite::new(THEIRS, OURS));
    assert_eq!(default.gateway, address("10.0.0.254"));
}

#[test]
fn an_ipv6_default_route_does_not_catch_ipv4() {
    let desired = nat_view(vec![entry("::", 0, 0, on_link().unwrap())]);
    let default = lookup(&desired, "0.0.0.0", 96);
    assert_eq!(
        default,
        Route {
            ifindex: 0,
            ..default
        }
    );
    assert_eq!(
        (default.kind, default.is_resolved),
        (RouteKind::Gateway as u8, 0)
    );
}

#[test]
fn of_too_many_routes_the_shortest_prefixes_are_kept() {
    let host = |n: u32| {
        let destination = IpAddr::V4(std::net::Ipv4Addr::from_bits(0x0b00_0000 + n));
        RouteEntry {
            destination,
            ..entry("0.0.0.0", 32, 0, on_link().unwrap())
        }
    };
    let mut routes: Vec<RouteEntry> = (0..ROUTES_MAX).map(host).collect();
    routes.push(entry("0.0.0.0", 0, 0, via_gateway().unwrap()));
    let desired = nat_view(routes);
    assert_eq!(desired.routes.len(), ROUTES_MAX as usize - 1);
    assert_eq!(lookup(&desired, "0.0.0.0", 96).is_resolved, 1);
    assert_eq!(
        desired.left_out, 3,
        "beside the default route and the own address"
    );
}

#[test]
fn a_node_with_more_addresses_than_the_map_holds_keeps_its_default_route() {
    let web = with_backends(
        service("web", "203.0.113.10", 80, ForwardMode::Nat),
        &[backend("web1", "10.0.0.11", 80)],
    );
    let model = model(&[web]);
    let mut network = network(&model, &on_link());
    network.view.routes = vec![entry("0.0.0.0", 0, 0, via_gateway().unwrap())];
    let single = |n: u32| LocalAddress {
        ifindex: 4,
        address: IpAddr::V4(std::net::Ipv4Addr::from_bits(0xcb00_7100 + n)),
        prefix_len: 32,
    };
    network.view.addresses = (0..ROUTES_MAX + 10).map(single).collect();
    network.view.addresses.push(LocalAddress {
        ifindex: 4,
        address: ip("10.0.0.1"),
        prefix_len: 24,
    });
    let mut ids = Ids::new(16, 16);
    ids.assign(&model).unwrap();
    let desired = desired(&model, &ids, &network, &all_eligible(&model, &ids));
    assert_eq!(desired.routes.len(), ROUTES_MAX as usize - 1);
    assert_eq!(desired.left_out, 13);
    assert_eq!(lookup(&desired, "0.0.0.0", 96).is_resolved, 1);
    assert_eq!(
        lookup(&desired, "10.0.0.1", 128).kind,
        RouteKind::Local as u8
    );
}

//! lbd-vrrp on real interfaces.

#[path = "e2e_vrrp/accept.rs"]
mod accept;
#[path = "e2e_vrrp/claims.rs"]
mod claims;
#[path = "e2e_vrrp/mixed.rs"]
mod mixed;
#[path = "e2e_vrrp/vips.rs"]
mod vips;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_lab::link::{self, veth_pair};
use lb_lab::observe::{self, link_address};
use lb_lab::serde_json::{Value, json};
use lb_lab::vrrp::{Vrrp, group};
use lb_lab::wait::wait_until;
use lb_lab::{Netns, require};
use nix::sys::signal::Signal;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two advertisements, as [`group`] has it.
const INTERVAL: Duration = Duration::from_millis(200);
const KEY: &str = "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f";
const VIP_V4: &str = "203.0.113.10";
const VIP_V6: &str = "2001:db8::10";
const FAMILIES: [(&str, &str); 2] = [("ipv4", VIP_V4), ("ipv6", VIP_V6)];

/// Two nodes and a client on one switch.
struct Lan {
    nodes: [Netns; 2],
    client: Netns,
    switch: Netns,
}

impl Lan {
    fn new() -> Self {
        let switch = Netns::create("switch").unwrap();
        link::bridge(&switch, "br0").unwrap();
        let host = |role: &str, number: usize| {
            let host = Netns::create(role).unwrap();
            let port = format!("port{number}");
            veth_pair((&host, "eth0"), (&switch, &port)).unwrap();
            link::add_port(&switch, "br0", &port).unwrap();
            host.ip(&format!(
                "address add 10.0.0.{number}/24 dev eth0\naddress add fd00::{number}/64 dev eth0"
            ))
            .unwrap();
            host
        };
        let (one, two, client) = (host("one", 1), host("two", 2), host("client", 3));
        client
            .ip(&format!(
                "route add {VIP_V4} dev eth0\nroute add {VIP_V6} dev eth0"
            ))
            .unwrap();
        Self {
            nodes: [one, two],
            client,
            switch,
        }
    }

    fn has(&self, node: usize, vip: &str) -> bool {
        let vip: IpAddr = vip.parse().unwrap();
        let links = self.nodes[node].ip_json(&["address", "show"]).unwrap();
        let of_link = |link: &Value| link["addr_info"].as_array().cloned().unwrap_or_default();
        let mut addresses = links.as_array().into_iter().flatten().flat_map(of_link);
        addresses.any(|address| address["local"] == vip.to_string())
    }

    /// The interface that has a VIP, and the length of its prefix.
    fn place_of(&self, node: usize, vip: &str) -> Option<(String, u64)> {
        let links = self.nodes[node].ip_json(&["address", "show"]).unwrap();
        links.as_array().into_iter().flatten().find_map(|link| {
            let addresses = link["addr_info"].as_array()?;
            let found = addresses.iter().find(|one| one["local"] == vip)?;
            Some((
                link["ifname"].as_str()?.to_owned(),
                found["prefixlen"].as_u64()?,
            ))
        })
    }

    fn await_vip(&self, node: usize, vip: &str) {
        let what = format!("{vip} on node {node}");
        wait_until(&what, PATIENCE, || Ok(self.has(node, vip).then_some(()))).unwrap();
    }

    fn await_no_vip(&self, node: usize, vip: &str) {
        let what = format!("the end of {vip} on node {node}");
        wait_until(&what, PATIENCE, || Ok((!self.has(node, vip)).then_some(()))).unwrap();
    }

    /// Whether the client believes the VIP at this Ethernet address.
    fn is_neighbour(&self, vip: &str, address: [u8; 6]) -> anyhow::Result<bool> {
        let address = address.map(|byte| format!("{byte:02x}")).join(":");
        let entries = self.client.ip_json(&["neighbour", "show", vip])?;
        Ok(entries[0]["lladdr"] == address.as_str())
    }

    /// The client reaches the VIP at this Ethernet address.
    fn await_neighbour(&self, vip: &str, address: [u8; 6]) {
        wait_until("the client's neighbour entry", PATIENCE, || {
            observe::ping(&self.client, vip.parse()?)?;
            Ok(self.is_neighbour(vip, address)?.then_some(()))
        })
        .unwrap();
    }

    /// Takes the plug of a node out, or puts it in: `up` or `down`.
    fn plug(&self, node: usize, state: &str) {
        self.switch
            .ip(&format!("link set dev port{} {state}", node + 1))
            .unwrap();
    }

    fn link_local(&self, node: usize) -> String {
        let links = self.nodes[node]
            .ip_json(&["address", "show", "dev", "eth0"])
            .unwrap();
        let addresses = links[0]["addr_info"].as_array().cloned().unwrap();
        let found = addresses.iter().find(|address| address["scope"] == "link");
        found.unwrap()["local"].as_str().unwrap().to_owned()
    }
}

/// Two of ours; the first one has the higher priority.
struct Pair {
    lan: Lan,
    nodes: [Vrrp; 2],
}

impl Pair {
    fn start(changes: &Value) -> Self {
        let lan = Lan::new();
        let nodes = [0, 1].map(|node| {
            let mut vrrp = Vrrp::start(&lan.nodes[node]).unwrap();
            vrrp.tell(&[]).unwrap();
            configure(&mut vrrp, node, changes);
            vrrp
        });
        let mut pair = Self { lan, nodes };
        pair.settle(0);
        pair
    }

    /// The lbds' heartbeats over the sync link, while they are asked for.
    fn heartbeat(&mut self) {
        self.heartbeat_to(&[0, 1]);
    }

    /// The same to these alone: what a stopped process is told waits in its socket, until there is no room.
    fn heartbeat_to(&mut self, nodes: &[usize]) {
        let facts = [0, 1].map(|node| self.nodes[node].facts_about());
        for node in nodes {
            let other = 1 - node;
            self.nodes[*node].tell(&facts[other..=other]).unwrap();
        }
    }

    /// Waits until `active` has everything, and the other one nothing.
    fn settle(&mut self, active: usize) {
        for (family, vip) in FAMILIES {
            self.nodes[active]
                .await_state("web", family, "active", PATIENCE)
                .unwrap();
            self.nodes[1 - active]
                .await_state("web", family, "backup", PATIENCE)
                .unwrap();
            self.lan.await_vip(active, vip);
            self.lan.await_no_vip(1 - active, vip);
        }
    }
}

fn configure(vrrp: &mut Vrrp, node: usize, changes: &Value) {
    let vips = [VIP_V4, VIP_V6].map(|vip| vip.parse().unwrap());
    let priority = [200, 100][node];
    let mut changes = changes.clone();
    changes["authenticate"] = json!(true);
    let group = group("eth0", &vips, priority, &changes).unwrap();
    vrrp.configure(&[group], Some(KEY)).unwrap();
}

#[test]
fn the_vips_move_when_a_node_dies_and_come_back_with_it() {
    if require(&["ip", "ping"]).is_missing() {
        return;
    }
    let mut pair = Pair::start(&json!({}));
    for (_, vip) in FAMILIES {
        pair.lan
            .await_neighbour(vip, link_address(&pair.lan.nodes[0], "eth0").unwrap());
    }
    pair.lan.plug(0, "down");
    pair.nodes[0].kill9().unwrap();
    for (family, vip) in FAMILIES {
        pair.nodes[1]
            .await_state("web", family, "active", PATIENCE)
            .unwrap();
        pair.lan
            .await_neighbour(vip, link_address(&pair.lan.nodes[1], "eth0").unwrap());
    }
    // What the dead process has left on its interface is gone when the new one knows better.
    pair.lan.plug(0, "up");
    pair.nodes[0].restart(&pair.lan.nodes[0]).unwrap();
    pair.nodes[0].tell(&[]).unwrap();
    configure(&mut pair.nodes[0], 0, &json!({}));
    pair.settle(0);
}

#[test]
fn a_process_that_is_restarted_in_time_stays_active() {
    if require(&["ip"]).is_missing() {
        return;
    }
    // A second's interval: a busy machine restarts it within three.
    let mut pair = Pair::start(&json!({"interval_cs": 100}));
    // Killed, and asked to make way for a successor of another version.
    for signal in [Signal::SIGKILL, Signal::SIGUSR1] {
        let since = Instant::now();
        pair.nodes[0].signal(signal).unwrap();
        pair.nodes[0].process().wait(PATIENCE).unwrap();
        for (_, vip) in FAMILIES {
            assert!(
                pair.lan.has(0, vip),
                "the VIPs stay while there is no process"
            );
        }
        pair.nodes[0].restart(&pair.lan.nodes[0]).unwrap();
        pair.settle(0);
        for (family, _) in FAMILIES {
            let reason = pair.nodes[0].router("web", family)["reason"].clone();
            assert_eq!(reason, "it was Active before its process was replaced");
            let states = pair.nodes[1].states_since("web", family, since);
            assert!(states.iter().all(|state| state == "backup"), "{states:?}");
        }
    }
}

#[test]
fn a_stopped_process_moves_no_vip_while_its_node_lives() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let mut pair = Pair::start(&json!({}));
    let since = Instant::now();
    for stopped in [0, 1] {
        pair.nodes[stopped].signal(Signal::SIGSTOP).unwrap();
        let until = Instant::now() + 10 * INTERVAL;
        wait_until("ten intervals", PATIENCE, || {
            pair.heartbeat_to(&[1 - stopped]);
            Ok((Instant::now() >= until).then_some(()))
        })
        .unwrap();
        if stopped == 0 {
            let held = pair.nodes[1].router("web", "ipv4")["held"].clone();
            assert!(
                held.as_str()
                    .is_some_and(|held| held.contains("answers on the link")),
                "{held}"
            );
        }
        pair.nodes[stopped].signal(Signal::SIGCONT).unwrap();
        let until = Instant::now() + 5 * INTERVAL;
        wait_until("five intervals", PATIENCE, || {
            pair.heartbeat();
            Ok((Instant::now() >= until).then_some(()))
        })
        .unwrap();
    }
    for (family, _) in FAMILIES {
        for (node, state) in [(0, "active"), (1, "backup")] {
            let states = pair.nodes[node].states_since("web", family, since);
            assert!(
                states.iter().all(|one| one == state),
                "node {node}: {states:?}"
            );
        }
    }
}

#[test]
fn vips_are_handed_over_on_demand_and_by_a_stop() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let mut pair = Pair::start(&json!({}));
    let told = pair.nodes[0].failover("web").unwrap();
    assert!(
        told.as_ref()
            .is_ok_and(|told| told.contains("handed over to 10.0.0.2")),
        "{told:?}"
    );
    pair.settle(1);
    let refused = pair.nodes[0].failover("web").unwrap();
    assert!(refused.is_err_and(|error| error.contains("not Active")));
    let left = pair.nodes[1].terminate().unwrap();
    assert_eq!(left, [""; 0]);
    for (family, vip) in FAMILIES {
        pair.nodes[0]
            .await_state("web", family, "active", PATIENCE)
            .unwrap();
        assert!(!pair.lan.has(1, vip), "{vip} is left");
    }
}

#[test]
fn a_node_without_its_lbd_takes_nothing_over_while_its_peer_lives() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let mut pair = Pair::start(&json!({}));
    pair.nodes[1].hang_up().unwrap();
    let refused = pair.nodes[0].failover("web").unwrap();
    assert!(
        refused
            .as_ref()
            .is_err_and(|error| error.contains("has not caught up")),
        "{refused:?}"
    );
    pair.settle(0);
    pair.lan.plug(0, "down");
    for (family, vip) in FAMILIES {
        pair.nodes[1]
            .await_state("web", family, "active", PATIENCE)
            .unwrap();
        pair.lan.await_vip(1, vip);
    }
}

#[test]
fn a_lost_link_is_a_fault_and_an_address_of_others_stays() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let mut pair = Pair::start(&json!({}));
    // Somebody else's, on the node that is Backup: it is there before, during and after.
    let node = &pair.lan.nodes[1];
    node.ip(&format!("address add {VIP_V4}/32 dev eth0"))
        .unwrap();
    pair.lan.plug(0, "down");
    for (family, _) in FAMILIES {
        pair.nodes[1]
            .await_state("web", family, "active", PATIENCE)
            .unwrap();
        pair.nodes[0]
            .await_state("web", family, "initialize", PATIENCE)
            .unwrap();
    }
    let troubles = pair.nodes[0].router("web", "ipv4")["troubles"].clone();
    assert_eq!(troubles, json!(["eth0 has no carrier"]));
    pair.lan.await_no_vip(0, VIP_V4);
    pair.lan.plug(0, "up");
    for (family, vip) in FAMILIES {
        pair.nodes[0]
            .await_state("web", family, "active", PATIENCE)
            .unwrap();
        pair.nodes[1]
            .await_state("web", family, "backup", PATIENCE)
            .unwrap();
        pair.lan.await_vip(0, vip);
    }
    pair.lan.await_no_vip(1, VIP_V6);
    pair.nodes[1].terminate().unwrap();
    assert!(
        pair.lan.has(1, VIP_V4),
        "the address of somebody else is gone"
    );
}

#[test]
fn the_virtual_mac_moves_with_the_vips() {
    if require(&["ip", "ping"]).is_missing() {
        return;
    }
    let mut pair = Pair::start(&json!({"virtual_mac": true}));
    let virtual_macs = [
        (VIP_V4, [0, 0, 0x5e, 0, 1, 51]),
        (VIP_V6, [0, 0, 0x5e, 0, 2, 51]),
    ];
    for (vip, address) in virtual_macs {
        pair.lan.await_neighbour(vip, address);
    }
    pair.nodes[0].failover("web").unwrap().unwrap();
    pair.settle(1);
    for (vip, address) in virtual_macs {
        pair.lan.await_neighbour(vip, address);
    }
    for vrrp in &mut pair.nodes {
        assert_eq!(vrrp.terminate().unwrap(), [""; 0]);
    }
    for node in &pair.lan.nodes {
        let links = node.ip_json(&["link", "show", "type", "macvlan"]).unwrap();
        assert_eq!(links.as_array().map(Vec::len), Some(0), "{links}");
        let ignore =
            node.run(|| std::fs::read_to_string("/proc/sys/net/ipv4/conf/eth0/arp_ignore"));
        assert_eq!(ignore.unwrap().unwrap().trim(), "0");
    }
}

#[test]
fn nodes_with_different_secrets_say_so_and_agree_when_they_have_the_same() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let mut pair = Pair::start(&json!({}));
    let other_key = KEY.replace("00", "ff");
    let renew = |pair: &mut Pair, node: usize| {
        let vips = [VIP_V4, VIP_V6].map(|vip| vip.parse().unwrap());
        let changes = json!({"authenticate": true});
        let group = group("eth0", &vips, [200, 100][node], &changes).unwrap();
        pair.nodes[node]
            .configure(&[group], Some(&other_key))
            .unwrap();
    };
    renew(&mut pair, 1);
    // Neither gives way, and both know of whom to complain.
    for (family, source) in [("ipv4", "10.0.0"), ("ipv6", "fe80::")] {
        for node in &pair.nodes {
            wait_until("a complaint", PATIENCE, || {
                let router = node.router("web", family);
                let told = router["distrusted"].as_str().unwrap_or_default();
                let is_told = told.starts_with(source) && told.contains("another secret");
                Ok((router["state"] == "active" && is_told).then_some(()))
            })
            .unwrap();
        }
    }
    renew(&mut pair, 0);
    pair.settle(0);
    for node in [0, 1] {
        wait_until("the end of the complaint", PATIENCE, || {
            let router = pair.nodes[node].router("web", "ipv4");
            Ok(router["distrusted"].is_null().then_some(()))
        })
        .unwrap();
    }
}

//! lbd-vrrp on real interfaces: two of them, and one with a keepalived, both ways round.

#[path = "e2e_vrrp/accept.rs"]
mod accept;
#[path = "e2e_vrrp/claims.rs"]
mod claims;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_lab::keepalived::Keepalived;
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
/// How long a VIP may be gone that somebody has removed.
const BACK_MAX: Duration = Duration::from_secs(1);
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
fn what_lbd_had_added_stays_with_the_active_and_goes_from_the_backup() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let lan = Lan::new();
    let vips = [VIP_V4, VIP_V6].map(|vip| vip.parse().unwrap());
    let nodes = [0, 1].map(|node| {
        let netns = &lan.nodes[node];
        netns
            .ip(&format!(
                "address add {VIP_V4}/32 dev eth0\naddress add {VIP_V6}/128 dev eth0 nodad"
            ))
            .unwrap();
        let place = json!({"interface": "eth0", "ifindex": netns.interface_index("eth0").unwrap()});
        let mut vrrp = Vrrp::start(netns).unwrap();
        vrrp.tell(&[]).unwrap();
        let changes = json!({"authenticate": true});
        let group = group("eth0", &vips, [200, 100][node], &changes).unwrap();
        let given = json!({ VIP_V4: place, VIP_V6: place });
        vrrp.configure_giving(&[group], Some(KEY), &given).unwrap();
        wait_until("the VIPs to be taken over", PATIENCE, || {
            Ok((vrrp.taken_vips() == [VIP_V4, VIP_V6]).then_some(()))
        })
        .unwrap();
        vrrp
    });
    let mut pair = Pair { lan, nodes };
    pair.settle(0);
    pair.nodes[0].failover("web").unwrap().unwrap();
    pair.settle(1);
}

/// A reload moves a VIP from one group to another, and then merges the two: each time the one that has had it
/// removes nothing that the other has now.
#[test]
fn a_vip_that_changes_its_group_stays() {
    if require(&["ip"]).is_missing() {
        return;
    }
    const OTHER: &str = "203.0.113.11";
    let lan = Lan::new();
    let mut vrrp = Vrrp::start(&lan.nodes[0]).unwrap();
    vrrp.tell(&[]).unwrap();
    // With a key, a router that ends and has heard nobody knows that it is alone, and waits for nobody.
    for (virtual_mac, key) in [(false, None), (true, None), (false, Some(KEY))] {
        let group = |name: &str, vrid: u8, vips: &[&str]| {
            let vips: Vec<IpAddr> = vips.iter().map(|vip| vip.parse().unwrap()).collect();
            let changes = json!({
                "name": name, "vrid": vrid, "virtual_mac": virtual_mac, "authenticate": key.is_some(),
            });
            group("eth0", &vips, 200, &changes).unwrap()
        };
        let both = [group("a", 51, &[VIP_V4]), group("b", 52, &[OTHER, VIP_V6])];
        vrrp.configure(&both, key).unwrap();
        for (name, family) in [("a", "ipv4"), ("b", "ipv4"), ("b", "ipv6")] {
            vrrp.await_state(name, family, "active", PATIENCE).unwrap();
        }
        for vip in [VIP_V4, OTHER, VIP_V6] {
            lan.await_vip(0, vip);
        }
        // To the group that comes first, and back.
        let to_a = [group("a", 51, &[VIP_V4, OTHER]), group("b", 52, &[VIP_V6])];
        for groups in [&to_a, &both] {
            vrrp.configure(groups, key).unwrap();
            wait_until("the new configuration", PATIENCE, || {
                let vips = vrrp.router("a", "ipv4")["vips"].clone();
                Ok((vips == groups[0]["vips"]).then_some(()))
            })
            .unwrap();
            for vip in [VIP_V4, OTHER] {
                lan.await_vip(0, vip);
            }
        }
        // All in one. What was another router's until now has three intervals more to wait than its former one has to
        // go: so that one has gone by then.
        let merged = group("a", 51, &[VIP_V4, OTHER, VIP_V6]);
        vrrp.configure(&[merged], key).unwrap();
        wait_until("group a to have all", PATIENCE, || {
            assert!(virtual_mac || lan.has(0, OTHER), "it was Active before");
            assert!(virtual_mac || lan.has(0, VIP_V6), "it stays meanwhile");
            Ok((vrrp.router("a", "ipv6")["state"] == "active").then_some(()))
        })
        .unwrap();
        for vip in [VIP_V4, OTHER, VIP_V6] {
            lan.await_vip(0, vip);
        }
        // Another name and id: nobody is there to have them meanwhile.
        let renamed = group("d", 54, &[VIP_V4, OTHER, VIP_V6]);
        vrrp.configure(&[renamed], key).unwrap();
        wait_until("group d to have all", PATIENCE, || {
            for vip in [VIP_V4, OTHER, VIP_V6] {
                assert!(virtual_mac || lan.has(0, vip), "{vip} stays meanwhile");
            }
            let states = ["ipv4", "ipv6"].map(|family| vrrp.router("d", family)["state"].clone());
            Ok(states.iter().all(|state| state == "active").then_some(()))
        })
        .unwrap();
        vrrp.configure(&[group("c", 53, &["203.0.113.12"])], key)
            .unwrap();
        for vip in [VIP_V4, OTHER, VIP_V6] {
            lan.await_no_vip(0, vip);
        }
    }
}

#[test]
fn a_vip_that_somebody_removes_is_back_within_a_second() {
    if require(&["ip", "ping"]).is_missing() {
        return;
    }
    for virtual_mac in [false, true] {
        let pair = Pair::start(&json!({ "virtual_mac": virtual_mac }));
        let node = &pair.lan.nodes[0];
        let since = Instant::now();
        for (family, vip) in FAMILIES {
            let (interface, length) = pair.lan.place_of(0, vip).expect("the VIP is there");
            // The second time is soon after the first one, and still no longer than that.
            for times in 1..=2 {
                let gone = Instant::now();
                node.ip(&format!("address del {vip}/{length} dev {interface}"))
                    .unwrap();
                pair.lan.await_vip(0, vip);
                assert!(gone.elapsed() < BACK_MAX, "{vip}: {:?}", gone.elapsed());
                wait_until("the count", PATIENCE, || {
                    let counters = pair.nodes[0].router("web", family)["counters"].clone();
                    Ok((counters["vips_restored"] == times).then_some(()))
                })
                .unwrap();
            }
            observe::ping(&pair.lan.client, vip.parse().unwrap()).unwrap();
            for (node, state) in [(0, "active"), (1, "backup")] {
                let states = pair.nodes[node].states_since("web", family, since);
                assert!(states.iter().all(|one| one == state), "{states:?}");
            }
            let other = pair.nodes[1].router("web", family)["counters"].clone();
            assert_eq!(other["vips_restored"], 0);
        }
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

/// What the two sides of a pair with keepalived are.
struct Mixed {
    lan: Lan,
    ours: Vrrp,
    /// `ipv4` or `ipv6`, and the VIP.
    family: &'static str,
    vip: &'static str,
    config: String,
}

impl Mixed {
    /// Every combination of family and of multicast and unicast.
    fn each(our_priority: u8, their_priority: u8, test: impl Fn(&mut Self)) {
        for (family, vip) in FAMILIES {
            for is_unicast in [false, true] {
                eprintln!(
                    "{family}, {}",
                    if is_unicast { "unicast" } else { "multicast" }
                );
                let mut mixed = Self::new(family, vip, is_unicast, (our_priority, their_priority));
                test(&mut mixed);
            }
        }
    }

    fn new(
        family: &'static str,
        vip: &'static str,
        is_unicast: bool,
        (ours, theirs): (u8, u8),
    ) -> Self {
        let lan = Lan::new();
        let address = |node: usize| match family {
            "ipv4" => format!("10.0.0.{}", node + 1),
            _ => lan.link_local(node),
        };
        // keepalived sends IPv6 unicast with a hop limit of 64 unless it is told otherwise, which RFC 9568 section
        // 5.1.2.3 has us refuse.
        let (peers, unicast) = match is_unicast {
            true => (
                vec![address(1)],
                format!(
                    "  unicast_src_ip {}\n  unicast_peer {{\n    {}\n  }}\n  unicast_ttl 255\n",
                    address(1),
                    address(0)
                ),
            ),
            false => (Vec::new(), String::new()),
        };
        let length = if family == "ipv4" { 32 } else { 128 };
        let config = format!(
            "global_defs {{\n  router_id lab\n  vrrp_version 3\n  vrrp_rt_priority 10\n  \
             vrrp_rlimit_rttime 5000000\n}}\n\
             vrrp_instance web {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n  \
             priority {theirs}\n  advert_int 0.1\n{unicast}  \
             virtual_ipaddress {{\n    {vip}/{length} dev eth0\n  }}\n}}\n"
        );
        let mut vrrp = Vrrp::start(&lan.nodes[0]).unwrap();
        vrrp.tell(&[]).unwrap();
        let group = group(
            "eth0",
            &[vip.parse().unwrap()],
            ours,
            &json!({ "peers": peers }),
        );
        vrrp.configure(&[group.unwrap()], None).unwrap();
        Self {
            lan,
            ours: vrrp,
            family,
            vip,
            config,
        }
    }

    fn start_theirs(&self) -> Keepalived {
        Keepalived::start_with("lab", &self.lan.nodes[1], &self.config).unwrap()
    }

    fn await_ours(&self, state: &str) {
        self.ours
            .await_state("web", self.family, state, PATIENCE)
            .unwrap();
    }

    /// Each has heard the other, and all is as it should be: of ours the VIP, and nothing refused.
    fn await_agreement(&self, active: usize) {
        self.lan.await_vip(active, self.vip);
        self.lan.await_no_vip(1 - active, self.vip);
        let router = self.ours.router("web", self.family);
        assert_eq!(router["counters"]["refused"], 0, "{router}");
    }
}

#[test]
fn keepalived_follows_us() {
    if require(&["ip", "keepalived"]).is_missing() {
        return;
    }
    Mixed::each(200, 100, |mixed| {
        let mut theirs = mixed.start_theirs();
        mixed.await_ours("active");
        mixed.await_agreement(0);
        // Ours dies, and comes back.
        mixed.lan.plug(0, "down");
        mixed.lan.await_vip(1, mixed.vip);
        mixed.await_ours("initialize");
        mixed.lan.plug(0, "up");
        mixed.await_ours("active");
        mixed.await_agreement(0);
        // It hands over, and keepalived keeps what it was given.
        let told = mixed.ours.failover("web").unwrap();
        assert!(told.is_ok(), "{told:?}\n{}", theirs.log_tail());
        mixed.await_ours("backup");
        mixed.await_agreement(1);
        theirs.process().terminate().unwrap();
        mixed.await_ours("active");
        mixed.await_agreement(0);
    });
}

#[test]
fn we_follow_keepalived() {
    if require(&["ip", "keepalived"]).is_missing() {
        return;
    }
    Mixed::each(100, 200, |mixed| {
        let mut theirs = mixed.start_theirs();
        mixed.lan.await_vip(1, mixed.vip);
        mixed.await_ours("backup");
        mixed.await_agreement(1);
        // Theirs dies, and leaves the VIP behind, as keepalived does.
        theirs.process().kill9_all().unwrap();
        mixed.await_ours("active");
        mixed.lan.await_vip(0, mixed.vip);
        // It comes back, and preempts us.
        let mut theirs = mixed.start_theirs();
        mixed.await_ours("backup");
        mixed.await_agreement(1);
        // It ends in good order.
        theirs.process().terminate().unwrap();
        mixed.await_ours("active");
        mixed.await_agreement(0);
    });
}

//! VIPs that somebody else has added, moves or removes.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use lb_lab::serde_json::json;
use lb_lab::vrrp::{Vrrp, group};
use lb_lab::wait::wait_until;
use lb_lab::{observe, require};

use super::{FAMILIES, KEY, Lan, PATIENCE, Pair, VIP_V4, VIP_V6};

/// How long a VIP may be gone that somebody has removed.
const BACK_MAX: Duration = Duration::from_secs(1);

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

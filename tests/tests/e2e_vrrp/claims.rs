//! Somebody else says on the link that the VIPs are there.

use std::time::{Duration, Instant};

use lb_lab::observe::link_address;
use lb_lab::require;
use lb_lab::serde_json::json;
use lb_lab::vrrp::{Vrrp, group};
use lb_lab::wait::wait_until;

use super::{FAMILIES, Lan, PATIENCE, Pair, VIP_V4, VIP_V6};

/// Between two advertisements, in centiseconds and as it is: long beside what programs take to begin.
const INTERVAL_CS: u32 = 100;
const INTERVAL: Duration = Duration::from_secs(1);
/// An Active router announces its VIPs again for so long.
const ANNOUNCED_FOR_MS: u64 = 5_500;

fn disputes(vrrp: &Vrrp, family: &str) -> u64 {
    let router = vrrp.router("web", family);
    router["counters"]["disputes"].as_u64().unwrap()
}

#[test]
fn a_stranger_that_claims_the_vips_has_them_for_less_than_an_interval() {
    if require(&["ip", "ping"]).is_missing() {
        return;
    }
    let lan = Lan::new();
    let mut vrrp = Vrrp::start(&lan.nodes[0]).unwrap();
    vrrp.tell(&[]).unwrap();
    let vips = [VIP_V4, VIP_V6].map(|vip| vip.parse().unwrap());
    let group = group("eth0", &vips, 200, &json!({ "interval_cs": INTERVAL_CS }));
    vrrp.configure(&[group.unwrap()], None).unwrap();
    let own = link_address(&lan.nodes[0], "eth0").unwrap();
    for (family, vip) in FAMILIES {
        vrrp.await_state("web", family, "active", PATIENCE).unwrap();
        lan.await_neighbour(vip, own);
    }
    // What is right again must not be so by what is said in the beginning.
    wait_until("the end of the first announcements", PATIENCE, || {
        let is_over = |family| {
            let since_ms = vrrp.router("web", family)["since_ms"].as_u64();
            since_ms > Some(ANNOUNCED_FOR_MS)
        };
        Ok((is_over("ipv4") && is_over("ipv6")).then_some(()))
    })
    .unwrap();

    let stranger = &lan.nodes[1];
    stranger
        .sysctl(&[
            ("net/ipv4/conf/eth0/arp_notify", "1"),
            ("net/ipv6/conf/eth0/ndisc_notify", "1"),
        ])
        .unwrap();
    stranger
        .ip(&format!(
            "address add {VIP_V4}/32 dev eth0\naddress add {VIP_V6}/128 dev eth0 nodad"
        ))
        .unwrap();
    assert_eq!(FAMILIES.map(|(family, _)| disputes(&vrrp, family)), [0, 0]);
    // A kernel whose Ethernet address has changed tells everybody.
    let claimed = Instant::now();
    stranger
        .ip("link set dev eth0 address 02:00:00:00:66:01")
        .unwrap();
    for (family, vip) in FAMILIES {
        wait_until("the answer to the claim", PATIENCE, || {
            Ok((disputes(&vrrp, family) == 1 && lan.is_neighbour(vip, own)?).then_some(()))
        })
        .unwrap();
        let took = claimed.elapsed();
        assert!(took < INTERVAL, "{family}: after {took:?}");
        let router = vrrp.router("web", family);
        assert_eq!(router["dispute"]["vip"], vip, "{router}");
        assert_eq!(router["dispute"]["by"], "02:00:00:00:66:01", "{router}");
        assert_eq!(router["state"], "active");
        lan.await_neighbour(vip, own);
    }
}

#[test]
fn a_peer_that_takes_over_is_no_stranger() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let mut pair = Pair::start(&json!({}));
    for active in [1, 0] {
        pair.nodes[1 - active].failover("web").unwrap().unwrap();
        pair.settle(active);
    }
    for vrrp in &pair.nodes {
        let counted = FAMILIES.map(|(family, _)| disputes(vrrp, family));
        assert_eq!(counted, [0, 0]);
    }
}

//! UDP services: `flow = "pinned"` and `flow = "hash"`.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;

use lb_lab::dns::{self, Dnsmasq};
use lb_lab::topology::{VIPS_V4, VIPS_V6};
use lb_lab::{Forward, Interfaces, Lbd, Plan, ServiceText, Topology, require, service};

use crate::stage::Web;

const ALL: [&str; 2] = ["web1", "web2"];

/// That all of them hash to the same one of two backends happens once in 2^19.
const PORTS: Range<u16> = 40_000..40_020;
const OTHER_PORTS: Range<u16> = 41_000..41_020;

/// The backend that answers each port.
fn ask(net: &Topology, vip: IpAddr, ports: Range<u16>) -> BTreeMap<u16, String> {
    ports
        .map(|port| {
            let name = dns::whoami(net.client.netns(), vip, Some(port));
            (port, name.unwrap())
        })
        .collect()
}

fn drains(forward: Forward, vips: [IpAddr; 2]) {
    if require(&["ip", "dnsmasq", "dig"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(forward, Interfaces::One, 4)).unwrap();
    let _dnsmasq: Vec<Dnsmasq> = net
        .backends
        .iter()
        .map(|backend| Dnsmasq::start(&backend.name, &backend.netns).unwrap())
        .collect();
    let [hash, pinned] = vips;
    let of = |name: &'static str, vip, backends: [&str; 2]| {
        let service = ServiceText::new(&net, name, vip).udp(53);
        service.key("flow", name).backends(&net, &backends)
    };
    // With NAT an answer is told by its backend's endpoint alone.
    let other = match forward {
        Forward::Dsr => ALL,
        Forward::Nat => ["web3", "web4"],
    };
    let services = [of("hash", hash, ALL), of("pinned", pinned, other)];
    let lbd = Lbd::start(&net.lb, &service::config(&net, &services)).unwrap();
    let web = |name| Web { lbd: &lbd, name };

    let before = ask(&net, hash, PORTS);
    assert!(
        ALL.iter()
            .all(|name| before.values().any(|one| one == name))
    );
    web("hash").backend("drain", &["web1"]);
    let after = ask(&net, hash, PORTS);
    assert!(
        after.values().all(|name| name == "web2"),
        "at once: {after:?}"
    );
    let flows = web("hash").flows();
    assert!(flows["flows"].as_array().unwrap().is_empty(), "{flows}");
    web("hash").backend("ready", &["web1"]);
    assert_eq!(ask(&net, hash, PORTS), before);

    let before = ask(&net, pinned, PORTS);
    let [first, second] = other;
    web("pinned").backend("drain", &[first]);
    assert_eq!(ask(&net, pinned, PORTS), before, "a flow has moved");
    let new = ask(&net, pinned, OTHER_PORTS);
    assert!(new.values().all(|name| name == second), "at once: {new:?}");
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for name in before.values() {
        *expected.entry(name.clone()).or_default() += 1;
    }
    // One question makes no established flow, two do.
    assert_eq!(web("pinned").established(), expected);
    let waited = web("pinned").drain_and_wait(first, "1s");
    assert_eq!(waited.code, 4, "{waited:?}");
    web("pinned").backend("remove", &[second]);
    assert_eq!(ask(&net, pinned, PORTS), before, "kept, as on_remove says");
}

#[test]
fn hashed_dsr_flows_move_at_once_and_pinned_ones_stay() {
    drains(Forward::Dsr, [VIPS_V4[0].into(), VIPS_V4[1].into()]);
}

#[test]
fn hashed_nat_flows_move_at_once_and_pinned_ones_stay() {
    drains(Forward::Nat, [VIPS_V6[0].into(), VIPS_V6[1].into()]);
}

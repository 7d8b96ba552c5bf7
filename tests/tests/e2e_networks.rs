//! lbd serves in every network of the laboratory: L2 DSR and NAT, over one interface and two, IPv4 and
//! IPv6, in native mode. Small requests, 3 MB in each direction, and every checksum verified where XDP
//! has sent the packet.

use std::net::{IpAddr, SocketAddr};

use lb_lab::capture::Capture;
use lb_lab::nginx::{BIG_LEN, Nginx};
use lb_lab::topology::{VIP_V4, VIP_V6};
use lb_lab::{Forward, Interfaces, Lbd, Netns, Plan, Topology, require};

const BACKENDS: [&str; 3] = ["web1", "web2", "web3"];

/// Requests whose packets are captured.
const REQUEST_COUNT: u32 = 30;

fn serves(forward: Forward, interfaces: Interfaces) {
    if require(&["ip", "nginx", "tshark"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(forward, interfaces, 3)).unwrap();
    let _nginx: Vec<Nginx> = net
        .backends
        .iter()
        .map(|b| Nginx::start(&b.name, &b.netns, &[80]).unwrap())
        .collect();
    let config = [("v4", VIP_V4), ("v6", VIP_V6)]
        .iter()
        .fold(net.node_config(), |text, (name, vip)| {
            text + &net.service_config(name, *vip, "round-robin", &BACKENDS)
        });
    let _lbd = Lbd::start(&net.lb, &config).unwrap();
    for vip in [VIP_V4, VIP_V6] {
        let address = SocketAddr::new(vip, 80);
        let captures = start_captures(&net, forward, vip);
        let counts = net.client.http_get_many(address, REQUEST_COUNT).unwrap();
        assert_eq!(
            counts.into_iter().collect::<Vec<_>>(),
            BACKENDS.map(|b| (b.to_owned(), 10))
        );
        for capture in captures {
            let checksums = capture.checksums(30).unwrap();
            assert!(
                checksums.bad.is_empty() && checksums.good_count >= 30,
                "{checksums:?}"
            );
        }

        let mut connection = net.client.connect(address).unwrap();
        assert_eq!(connection.get("/big").unwrap().body.len(), BIG_LEN);
        assert_eq!(connection.post("/", &vec![1; BIG_LEN]).unwrap().status, 200);
    }
}

/// Captures what XDP has rewritten: what reaches a backend, and with NAT what comes back to the client.
fn start_captures(net: &Topology, forward: Forward, vip: IpAddr) -> Vec<Capture> {
    let web1 = &net.backends[0];
    let start = |netns: &Netns, filter: String| Capture::start(netns, "eth0", &filter).unwrap();
    match forward {
        Forward::Dsr => vec![start(&web1.netns, format!("tcp and dst host {vip}"))],
        Forward::Nat => vec![
            start(
                &web1.netns,
                format!("tcp and dst host {}", web1.address_like(vip)),
            ),
            start(net.client.netns(), format!("tcp and src host {vip}")),
        ],
    }
}

#[test]
fn dsr_over_one_interface_serves_both_families() {
    serves(Forward::Dsr, Interfaces::One);
}

#[test]
fn dsr_over_two_interfaces_serves_both_families() {
    serves(Forward::Dsr, Interfaces::Two);
}

#[test]
fn nat_over_one_interface_serves_both_families() {
    serves(Forward::Nat, Interfaces::One);
}

#[test]
fn nat_over_two_interfaces_serves_both_families() {
    serves(Forward::Nat, Interfaces::Two);
}

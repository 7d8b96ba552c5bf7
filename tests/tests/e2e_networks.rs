//! lbd serves in every network of the laboratory: L2 DSR and NAT, over one interface and two, IPv4 and
//! IPv6, by hash and in turn, in native mode. Requests are shared out by weight, 3 MB arrive intact in
//! each direction, and every checksum is verified where XDP has sent the packet.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use lb_lab::capture::Capture;
use lb_lab::client::Counts;
use lb_lab::nginx::{UPLOAD_HEADER, big_content};
use lb_lab::process::run;
use lb_lab::scratch::ScratchDir;
use lb_lab::topology::{VIPS_V4, VIPS_V6};
use lb_lab::{
    Forward, Interfaces, Netns, Plan, ServiceText, Site, Topology, observe, require, shares,
};

/// The backends by hash, with their weights.
const HASHED: [(&str, u32); 3] = [("web1", 1), ("web2", 2), ("web3", 3)];

/// The backends in turn. With NAT they must be others: a backend's replies belong to one service.
const IN_TURN: [&str; 3] = ["web4", "web5", "web6"];

/// Requests to a hashed service. Equal shares would be 10 standard deviations from these weights.
const HASHED_REQUEST_COUNT: u32 = 600;

/// Requests to a service in turn: no multiple of the backends, so that one of them has one more.
const TURN_REQUEST_COUNT: u32 = 100;

/// Packets that are captured at least: a backend has had a tenth of the requests by then, of five
/// packets each.
const PACKET_COUNT_MIN: usize = 60;

/// The VIPs of the services by hash, and of those in turn.
fn hashed_vips() -> [IpAddr; 2] {
    [VIPS_V4[0].into(), VIPS_V6[0].into()]
}

fn turn_vips() -> [IpAddr; 2] {
    [VIPS_V4[1].into(), VIPS_V6[1].into()]
}

fn services(net: &Topology) -> Vec<ServiceText> {
    let hashed = ["hash-v4", "hash-v6"].into_iter().zip(hashed_vips());
    let hashed = hashed.map(|(name, vip)| ServiceText::new(net, name, vip).weights(net, &HASHED));
    let in_turn = ["turn-v4", "turn-v6"].into_iter().zip(turn_vips());
    let in_turn = in_turn.map(|(name, vip)| {
        ServiceText::new(net, name, vip)
            .scheduler("round-robin")
            .backends(net, &IN_TURN)
    });
    hashed.chain(in_turn).collect()
}

fn serves(forward: Forward, interfaces: Interfaces) {
    if require(&["ip", "nginx", "curl", "tshark"]).is_missing() {
        return;
    }
    let site = Site::start(Plan::new(forward, interfaces, 6), services).unwrap();
    for interface in site.net.lb_interfaces() {
        let mode = observe::xdp_mode(&site.net.lb, interface).unwrap();
        assert_eq!(mode, Some("native"), "{interface}");
    }
    for vip in hashed_vips() {
        let counts =
            requests_with_good_checksums(&site, forward, vip, "web1", HASHED_REQUEST_COUNT);
        shares::follow_weights(&counts, &HASHED).unwrap();
    }
    for vip in turn_vips() {
        let counts = requests_with_good_checksums(&site, forward, vip, "web4", TURN_REQUEST_COUNT);
        shares::take_turns(&counts, &IN_TURN).unwrap();
    }
    for vip in hashed_vips().into_iter().chain(turn_vips()) {
        download_arrives_intact(&site, vip);
        upload_arrives_intact(&site, vip);
    }
}

/// Sends requests to a VIP, and has tshark verify every checksum of the packets that XDP has sent to
/// one of its backends, and with NAT to the client.
fn requests_with_good_checksums(
    site: &Site,
    forward: Forward,
    vip: IpAddr,
    backend: &str,
    request_count: u32,
) -> Counts {
    let captures = start_captures(&site.net, forward, vip, backend);
    let client = &site.net.client;
    let counts = client.http_get_many(SocketAddr::new(vip, 80), request_count);
    for capture in captures {
        let checksums = capture.checksums(PACKET_COUNT_MIN).unwrap();
        assert!(
            checksums.bad.is_empty() && checksums.good_count >= PACKET_COUNT_MIN,
            "{vip}: {checksums:?}"
        );
    }
    counts.unwrap()
}

fn start_captures(net: &Topology, forward: Forward, vip: IpAddr, backend: &str) -> Vec<Capture> {
    let backend = net.backends.iter().find(|b| b.name == backend).unwrap();
    let start = |netns: &Netns, filter: String| Capture::start(netns, "eth0", &filter).unwrap();
    match forward {
        Forward::Dsr => vec![start(&backend.netns, format!("tcp and dst host {vip}"))],
        Forward::Nat => vec![
            start(
                &backend.netns,
                format!("tcp and dst host {}", backend.address_like(vip)),
            ),
            start(net.client.netns(), format!("tcp and src host {vip}")),
        ],
    }
}

fn url(vip: IpAddr, path: &str) -> String {
    format!("http://{}{path}", SocketAddr::new(vip, 80))
}

fn download_arrives_intact(site: &Site, vip: IpAddr) {
    let scratch = ScratchDir::new("download").unwrap();
    let file = scratch.path().join("big");
    let mut curl = site.net.client.netns().command("curl");
    curl.args(["-sSf", "--max-time", "20", "-o"]).arg(&file);
    run(curl.arg(url(vip, "/big"))).unwrap();
    // Not with assert_eq, which would print megabytes.
    assert!(
        fs::read(&file).unwrap() == big_content(),
        "a download from {vip} is damaged"
    );
}

fn upload_arrives_intact(site: &Site, vip: IpAddr) {
    let scratch = ScratchDir::new("upload").unwrap();
    let file = scratch.path().join("big");
    fs::write(&file, big_content()).unwrap();
    let mut curl = site.net.client.netns().command("curl");
    curl.args(["-sSf", "--max-time", "20", "-o", "/dev/null", "-D", "-"]);
    curl.arg("--data-binary")
        .arg(format!("@{}", file.display()));
    let headers = run(curl.arg(url(vip, "/upload"))).unwrap();
    let stored = headers
        .lines()
        .find_map(|line| line.strip_prefix(UPLOAD_HEADER)?.strip_prefix(": "))
        .unwrap_or_else(|| panic!("nginx names no file: {headers}"));
    assert!(
        fs::read(stored.trim()).unwrap() == big_content(),
        "an upload to {vip} is damaged"
    );
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

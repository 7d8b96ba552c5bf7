//! The laboratory itself: the networks carry requests before any balancer is in them, and vanish
//! afterwards.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use lb_lab::capture::Capture;
use lb_lab::dns::{self, Dnsmasq};
use lb_lab::http::{self, Target};
use lb_lab::nginx::{BIG_LEN, Nginx};
use lb_lab::topology::{VIP_V4, VIP_V6};
use lb_lab::{Forward, Interfaces, Netns, Plan, Topology, require};

/// How long to wait for an answer that is not to come.
const NO_ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// One request from `from` to each address.
fn get_backend(from: &Netns, address: IpAddr) -> String {
    let target = Target::from(SocketAddr::new(address, 80));
    let response = from.run(|| http::get(&target, "/")).unwrap().unwrap();
    response.backend
}

#[test]
fn balancer_reaches_backends_and_client_reaches_balancer_in_every_network() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    for forward in [Forward::Dsr, Forward::Nat] {
        for interfaces in [Interfaces::One, Interfaces::Two] {
            let net = Topology::build(Plan::new(forward, interfaces, 2)).unwrap();
            for backend in &net.backends {
                let _nginx = Nginx::start(&backend.name, &backend.netns, &[80]).unwrap();
                assert_eq!(get_backend(&net.lb, backend.v4.into()), backend.name);
                assert_eq!(get_backend(&net.lb, backend.v6.into()), backend.name);
            }
            let _on_lb = Nginx::start("lb", &net.lb, &[80]).unwrap();
            for vip in [VIP_V4, VIP_V6] {
                let own = net.lb_address_like(vip);
                assert_eq!(
                    get_backend(net.client.netns(), own),
                    "lb",
                    "{forward:?} {interfaces:?}"
                );
            }
        }
    }
}

#[test]
fn vip_of_the_balancer_wins_over_the_backends_own() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 2)).unwrap();
    let _nginx: Vec<Nginx> = net
        .backends
        .iter()
        .map(|b| Nginx::start(&b.name, &b.netns, &[80]).unwrap())
        .collect();
    for vip in [VIP_V4, VIP_V6] {
        let target = Target {
            timeout: NO_ANSWER_TIMEOUT,
            ..SocketAddr::new(vip, 80).into()
        };
        assert!(
            net.client.http_get(target).is_err(),
            "a backend answered ARP"
        );
    }
    let _on_lb = Nginx::start("lb", &net.lb, &[80]).unwrap();
    net.lb
        .ip("addr add 203.0.113.10/32 dev eth0\naddr add 2001:db8:113::10/128 dev eth0 nodad")
        .unwrap();
    for vip in [VIP_V4, VIP_V6] {
        assert_eq!(
            net.client
                .http_get(SocketAddr::new(vip, 80))
                .unwrap()
                .backend,
            "lb"
        );
    }
}

#[test]
fn big_files_uploads_and_load_are_counted() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 1)).unwrap();
    let backend = &net.backends[0];
    let nginx = Nginx::start(&backend.name, &backend.netns, &[80]).unwrap();
    let address = SocketAddr::new(backend.v4.into(), 80);
    let mut connection = net.client.connect(address).unwrap();
    assert_eq!(connection.get("/big").unwrap().body.len(), BIG_LEN);
    assert_eq!(connection.post("/", &vec![1; BIG_LEN]).unwrap().status, 200);
    assert_eq!(net.client.http_get_many(address, 20).unwrap()["web1"], 20);

    let load = net.client.start_load(address);
    lb_lab::wait::wait_until("answers", Duration::from_secs(5), || {
        Ok((load.tally().ok_total() > 10).then_some(()))
    })
    .unwrap();
    let tally = load.stop().unwrap();
    assert_eq!(tally.failed, 0, "{:?}", tally.reasons);
    let logged = nginx.access_log().unwrap().len();
    assert_eq!(logged, 22 + tally.ok["web1"] as usize);
}

#[test]
fn namespaces_are_gone_after_a_panic() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let netns = Netns::create("panics").unwrap();
    let path: PathBuf = netns.path();
    assert!(path.exists());
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let _netns = netns;
        panic!("as planned");
    }));
    assert!(panicked.is_err() && !path.exists());
}

#[test]
fn hosts_file_counts_inside_its_namespace_only() {
    if require(&["ip"]).is_missing() {
        return;
    }
    use std::net::ToSocketAddrs;
    let netns = Netns::create("hosts").unwrap();
    netns
        .set_hosts("203.0.113.10 www.foobar.com\n2001:db8:113::10 www.foobar.com\n")
        .unwrap();
    let resolve = || {
        ("www.foobar.com", 80)
            .to_socket_addrs()
            .map(|found| found.collect::<Vec<_>>())
    };
    let inside = netns.run_with_hosts(resolve).unwrap().unwrap();
    let ips: Vec<IpAddr> = inside.iter().map(|address| address.ip()).collect();
    assert!(ips.contains(&VIP_V4) && ips.contains(&VIP_V6), "{ips:?}");
    assert!(
        !std::fs::read_to_string("/etc/hosts")
            .unwrap()
            .contains("www.foobar.com")
    );
}

#[test]
fn checksums_are_whole_where_the_balancer_receives_and_half_where_it_sends() {
    if require(&["ip", "nginx", "tshark"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 1)).unwrap();
    let _nginx = Nginx::start("lb", &net.lb, &[80]).unwrap();
    for vip in [VIP_V4, VIP_V6] {
        let received = Capture::start(&net.lb, "eth0", "tcp dst port 80").unwrap();
        let sent = Capture::start(&net.lb, "eth0", "tcp src port 80").unwrap();
        net.client
            .http_get_many(SocketAddr::new(net.lb_address_like(vip), 80), 3)
            .unwrap();
        let received = received.checksums(9).unwrap();
        assert!(received.bad.is_empty(), "{received:?}");
        assert!(
            !sent.checksums(9).unwrap().bad.is_empty(),
            "the judge finds nothing"
        );
    }
}

#[test]
fn dns_server_answers_with_the_name_of_its_machine() {
    if require(&["ip", "dnsmasq", "dig"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 2)).unwrap();
    let backend = &net.backends[1];
    let _dnsmasq = Dnsmasq::start(&backend.name, &backend.netns).unwrap();
    for address in [IpAddr::V4(backend.v4), IpAddr::V6(backend.v6)] {
        assert_eq!(
            dns::whoami(net.client.netns(), address, Some(5353)).unwrap(),
            "web2"
        );
    }
    let silent = IpAddr::V4(net.backends[0].v4);
    assert!(dns::whoami(net.client.netns(), silent, None).is_err());
}

/// The balancer's kernel forwards a VIP to the first backend, unchanged: what DSR does, without lbd.
fn forward_vips_to_first_backend(net: &Topology) {
    let first = &net.backends[0];
    net.lb
        .sysctl(&[
            ("net/ipv4/ip_forward", "1"),
            ("net/ipv6/conf/all/forwarding", "1"),
            ("net/ipv4/conf/all/send_redirects", "0"),
            ("net/ipv4/conf/eth0/send_redirects", "0"),
            ("net/ipv4/conf/eth0/proxy_arp_pvlan", "1"),
            ("net/ipv6/conf/eth0/proxy_ndp", "1"),
        ])
        .unwrap();
    net.lb
        .ip(&format!(
            "route add {VIP_V4} via {}\nroute add {VIP_V6} via {}\n\
             neigh add proxy {VIP_V4} dev eth0\nneigh add proxy {VIP_V6} dev eth0",
            first.v4, first.v6
        ))
        .unwrap();
}

#[test]
fn backends_answer_the_client_past_the_balancer() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    for interfaces in [Interfaces::One, Interfaces::Two] {
        let net = Topology::build(Plan::new(Forward::Dsr, interfaces, 2)).unwrap();
        let _nginx: Vec<Nginx> = net
            .backends
            .iter()
            .map(|b| Nginx::start(&b.name, &b.netns, &[80]).unwrap())
            .collect();
        forward_vips_to_first_backend(&net);
        for vip in [VIP_V4, VIP_V6] {
            let mut connection = net.client.connect(SocketAddr::new(vip, 80)).unwrap();
            assert_eq!(
                connection.get("/").unwrap().backend,
                "web1",
                "{interfaces:?} {vip}"
            );
            assert_eq!(connection.get("/big").unwrap().body.len(), BIG_LEN);
            assert_eq!(connection.post("/", &vec![1; BIG_LEN]).unwrap().status, 200);
        }
    }
}

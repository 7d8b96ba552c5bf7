//! Checks that take the way of the traffic: to the VIP, at the backend's Ethernet address. A backend that has
//! lost the VIP is well to whoever asks it at its own address, and dead to every client.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use lb_lab::capture::Capture;
use lb_lab::certificates::Authority;
use lb_lab::lbd::is_in_force;
use lb_lab::mariadb::{CHECK_PASSWORD, CHECK_USER, Installation, MariaDb};
use lb_lab::scratch::ScratchDir;
use lb_lab::serde_json::Value;
use lb_lab::site::web_servers;
use lb_lab::topology::{VIPS_V4, VIPS_V6};
use lb_lab::wait::wait_until;
use lb_lab::{
    Forward, Interfaces, Lbd, Plan, ServiceText, Site, Topology, http, require, service, tls_nginx,
};

/// How long a change of health may take on a busy machine. What it took is printed.
const TIMEOUT: Duration = Duration::from_secs(30);

const BACKENDS: [&str; 3] = ["web1", "web2", "web3"];

const TIMING: &str = "interval = \"300ms\"\nfast_interval = \"100ms\"\ntimeout = \"300ms\"\nrise = 2\n\
                      fall = 3";

/// Hops that a check through the datapath allows its packets; the kernel's have 64.
const CHECK_HOPS: u8 = 2;

/// The services: what is asked directly, and what is asked through the datapath, in both families.
fn vips() -> [(&'static str, IpAddr, &'static str); 4] {
    [
        ("direct", VIPS_V4[0].into(), "direct"),
        ("direct-v6", VIPS_V6[0].into(), "direct"),
        ("through", VIPS_V4[1].into(), "datapath"),
        ("through-v6", VIPS_V6[1].into(), "datapath"),
    ]
}

fn site(interfaces: Interfaces) -> Site {
    site_by(interfaces, "native")
}

/// A site where all backends are up; XDP is in the driver (`native`) or behind it (`generic`).
fn site_by(interfaces: Interfaces, xdp: &str) -> Site {
    let net = Topology::build(Plan::new(Forward::Dsr, interfaces, 3)).unwrap();
    net.lb.ip("link set lo up").unwrap();
    let nginx = web_servers(&net).unwrap();
    let services = vips().map(|(name, vip, via)| {
        let check = format!("type = \"http\"\npath = \"/\"\nvia = \"{via}\"\n{TIMING}");
        ServiceText::new(&net, name, vip)
            .check(&check)
            .backends(&net, &BACKENDS)
    });
    let config =
        service::config(&net, &services).replace("xdp = \"native\"", &format!("xdp = \"{xdp}\""));
    let lbd = Lbd::start(&net.lb, &config).unwrap();
    let site = Site { lbd, nginx, net };
    for (service, _, _) in vips() {
        for backend in BACKENDS {
            await_health(&site, service, backend, "up");
        }
    }
    site
}

fn record(site: &Site, service: &str, backend: &str) -> Value {
    let words = ["health", "show", backend, "--service", service];
    site.lbd.ctl_json(&words).unwrap()["backends"][0].clone()
}

/// Waits until a backend is `health`; returns its record.
fn await_health(site: &Site, service: &str, backend: &str, health: &str) -> Value {
    let began = Instant::now();
    let what = format!("{backend} of {service} to be {health}");
    let record = wait_until(&what, TIMEOUT, || {
        let record = record(site, service, backend);
        let is_so = record["health"] == health && is_in_force(&record);
        Ok(is_so.then_some(record))
    });
    let record = record.unwrap_or_else(|error| {
        let shown = site.lbd.ctl(&["health", "list"]);
        panic!("{error:#}\n{shown:?}\n{}", site.lbd.log_tail())
    });
    println!("{what}: {:?}", began.elapsed());
    record
}

/// Adds web1's VIPs to its loopback, or deletes them.
fn vips_of_web1(site: &Site, what: &str) {
    let commands: String = vips()
        .iter()
        .map(|(_, vip, _)| match vip {
            IpAddr::V4(vip) => format!("addr {what} {vip}/32 dev lo\n"),
            IpAddr::V6(vip) if what == "add" => format!("addr add {vip}/128 dev lo nodad\n"),
            IpAddr::V6(vip) => format!("addr {what} {vip}/128 dev lo\n"),
        })
        .collect();
    site.net.backends[0].netns.ip(&commands).unwrap();
}

/// Requests over a VIP: all of them are answered, by these backends and no other.
fn is_served_by(site: &Site, service: &str, vip: IpAddr, backends: &[&str]) {
    site.lbd.await_ring(service).unwrap();
    let counts = site.net.client.http_get_many(SocketAddr::new(vip, 80), 150);
    let counts = counts.unwrap_or_else(|error| panic!("{service}: {error:#}"));
    assert!(counts.keys().eq(backends), "{service}: {counts:?}");
}

fn a_lost_vip_is_found_out(interfaces: Interfaces) {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = site(interfaces);
    let through = vips().into_iter().filter(|(_, _, via)| *via == "datapath");
    for (service, vip, _) in through.clone() {
        is_served_by(&site, service, vip, &BACKENDS);
    }

    vips_of_web1(&site, "del");
    for (service, vip, _) in through.clone() {
        let record = await_health(&site, service, "web1", "down");
        let failure = &record["checks"][0]["failure"];
        // Linux tells a stranger by ICMPv6 that it does not have the address, though not each time.
        let kinds: &[&str] = match vip {
            IpAddr::V4(_) => &["timeout"],
            IpAddr::V6(_) => &["timeout", "unreachable"],
        };
        assert!(
            kinds.iter().any(|kind| failure["kind"] == *kind),
            "{record}"
        );
        let reason = failure["reason"].as_str().unwrap();
        assert!(
            reason.contains("VIP") && reason.contains("loopback?"),
            "{reason}"
        );
        is_served_by(&site, service, vip, &["web2", "web3"]);
    }
    for service in ["direct", "direct-v6"] {
        assert_eq!(record(&site, service, "web1")["health"], "up", "{service}");
    }

    vips_of_web1(&site, "add");
    for (service, vip, _) in through {
        await_health(&site, service, "web1", "up");
        is_served_by(&site, service, vip, &BACKENDS);
    }
}

#[test]
fn a_backend_that_has_lost_the_vip_gets_no_request() {
    a_lost_vip_is_found_out(Interfaces::One);
}

#[test]
fn so_it_is_where_backends_have_an_interface_of_their_own() {
    a_lost_vip_is_found_out(Interfaces::Two);
}

#[test]
fn generic_mode_passes_the_answers_too() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = site_by(Interfaces::One, "generic");
    let status = site.lbd.ctl_json(&["status"]).unwrap();
    assert_eq!(status["interfaces"][0]["attached"], "generic", "{status}");
    vips_of_web1(&site, "del");
    for service in ["through", "through-v6"] {
        await_health(&site, service, "web1", "down");
    }
}

/// A backend that forwards packets sends those to a VIP that it does not have back to the balancer. There they
/// must not reach another backend, whose answer would pass for its own.
#[test]
fn a_backend_that_forwards_packets_is_found_out_too() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let site = site(Interfaces::One);
    let web1 = &site.net.backends[0].netns;
    web1.sysctl(&[
        ("net/ipv4/conf/all/forwarding", "1"),
        ("net/ipv6/conf/all/forwarding", "1"),
    ])
    .unwrap();
    web1.ip("route add 203.0.113.0/24 dev eth0\nroute add 2001:db8:113::/64 dev eth0")
        .unwrap();
    vips_of_web1(&site, "del");
    for service in ["through", "through-v6"] {
        let record = await_health(&site, service, "web1", "down");
        println!("{}", record["checks"][0]["failure"]);
        // The proof that they have come back.
        let stats = site.lbd.ctl_json(&["stats"]).unwrap();
        let services = stats["services"].as_array().unwrap();
        let its = services.iter().find(|one| one["name"] == service).unwrap();
        let drops = its["drops"].as_array().unwrap();
        let of_hops = drops.iter().find(|drop| drop["reason"] == "ttl_exceeded");
        assert!(
            of_hops.is_some_and(|drop| drop["packets"].as_u64() > Some(0)),
            "{its}"
        );
    }
}

/// Everything that lbd counts as dropped.
fn drops(site: &Site) -> u64 {
    let stats = site.lbd.ctl_json(&["stats"]).unwrap();
    let of_services = stats["services"].as_array().unwrap().iter();
    let lists = of_services
        .map(|service| &service["drops"])
        .chain([&stats["drops"]]);
    let counts = lists.flat_map(|drops| drops.as_array().unwrap());
    counts.map(|drop| drop["packets"].as_u64().unwrap()).sum()
}

/// The kernel knows nothing of these connections, and does not meddle with them; nor does the datapath take
/// them for traffic; nor do they disturb what this node asks by itself.
#[test]
fn nobody_else_is_disturbed() {
    if require(&["ip", "nginx", "tshark"]).is_missing() {
        return;
    }
    let site = site(Interfaces::One);
    // Behind a port without checksum offload, so that checksums are whole.
    let from_us = "tcp and (src host 10.0.0.1 or src host fd00:10::1) and (dst net 203.0.113.0/24 or dst \
                   net 2001:db8:113::/64)";
    let capture = Capture::start(site.net.switch(), "lb", from_us).unwrap();
    for one in 0..90 {
        let backend = &site.net.backends[one % 3];
        let address = match one % 2 {
            0 => IpAddr::from(backend.v4),
            _ => IpAddr::from(backend.v6),
        };
        let asked = site
            .net
            .lb
            .run(|| http::get(&SocketAddr::new(address, 80).into(), "/"));
        assert_eq!(asked.unwrap().unwrap().status, 200, "{address}");
    }
    let reaches = capture.reaches(200).unwrap();
    let resets = reaches.iter().filter(|reach| reach.is_reset).count();
    println!("{} segments to VIPs, {resets} of them RST", reaches.len());
    assert!(resets >= 20, "each check ends by a RST: {resets}");
    for reach in &reaches {
        assert_eq!(reach.hops, CHECK_HOPS, "it is the kernel's: {reach:?}");
        assert!(reach.is_sound, "{reach:?}");
    }
    assert_eq!(drops(&site), 0);
    for (service, _, _) in vips() {
        for backend in BACKENDS {
            let record = record(&site, service, backend);
            assert_eq!(record["health"], "up", "{record}");
            let changes = record["history"].as_array().unwrap().len();
            assert!(changes <= 1, "{record}");
        }
    }
    // What is counted for the services is clients' traffic.
    let stats = site.lbd.ctl_json(&["stats"]).unwrap();
    for service in stats["services"].as_array().unwrap() {
        assert_eq!(service["counters"]["packets"], 0, "{service}");
    }
}

/// Certificates and both versions of HTTP, unchanged over a connection that the kernel knows nothing of.
#[test]
fn tls_is_spoken_at_the_vip() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 1)).unwrap();
    let authority = Authority::new("Authority of the laboratory").unwrap();
    let identity = authority.issue("www.example.com", 90).unwrap();
    let web1 = &net.backends[0];
    let _nginx = tls_nginx::start(&web1.name, &web1.netns, &identity).unwrap();
    let files = ScratchDir::new("authority").unwrap();
    let ca_file = files.write("ca.pem", &authority.pem()).unwrap();
    let services = [
        ("https", IpAddr::from(VIPS_V4[0]), "1.1"),
        ("https-v6", VIPS_V6[0].into(), "1.1"),
        ("h2", VIPS_V4[1].into(), "2"),
        ("h2-v6", VIPS_V6[1].into(), "2"),
    ];
    let texts = services.map(|(name, vip, version)| {
        let check = format!(
            "type = \"https\"\nhost = \"www.example.com\"\nversion = \"{version}\"\nbody = \"ready\"\n\
             ca_file = \"{}\"\nvia = \"datapath\"\n{TIMING}",
            ca_file.display()
        );
        let service = ServiceText::new(&net, name, vip).port(tls_nginx::PORT);
        service.check(&check).backends(&net, &["web1"])
    });
    let lbd = Lbd::start(&net.lb, &service::config(&net, &texts)).unwrap();
    let site = Site {
        lbd,
        nginx: Vec::new(),
        net,
    };
    for (service, _, _) in services {
        await_health(&site, service, "web1", "up");
    }
}

/// The handshake of another protocol over the same way.
#[test]
fn a_database_is_asked_at_the_vip() {
    if require(&["ip", "mariadbd", "mariadb", "mariadb-install-db"]).is_missing() {
        return;
    }
    let net = Topology::build(Plan::new(Forward::Dsr, Interfaces::One, 1)).unwrap();
    let installation = Installation::new().unwrap();
    let web1 = &net.backends[0];
    let database = MariaDb::start(&installation, &web1.name, &web1.netns, 1).unwrap();
    database.set_up().unwrap();
    let password = ScratchDir::new("check-password").unwrap();
    let file = password.write("password", CHECK_PASSWORD).unwrap();
    let check = format!(
        "type = \"mysql\"\nuser = \"{CHECK_USER}\"\npassword_file = \"{}\"\nquery = \"SELECT 1\"\n\
         via = \"datapath\"\n{TIMING}",
        file.display()
    );
    let services = [VIPS_V4[0].into(), VIPS_V6[0].into()].map(|vip: IpAddr| {
        let name = if vip.is_ipv4() { "db" } else { "db-v6" };
        let service = ServiceText::new(&net, name, vip).port(3306);
        service.check(&check).backends(&net, &["web1"])
    });
    let lbd = Lbd::start(&net.lb, &service::config(&net, &services)).unwrap();
    let site = Site {
        lbd,
        nginx: Vec::new(),
        net,
    };
    for service in ["db", "db-v6"] {
        await_health(&site, service, "web1", "up");
    }
    let aborted = database
        .sql("SHOW GLOBAL STATUS LIKE 'Aborted_c%'")
        .unwrap();
    for line in aborted.lines() {
        assert!(line.ends_with("\t0"), "{aborted}");
    }
    let commands = VIPS_V4
        .iter()
        .map(|vip| format!("addr del {vip}/32 dev lo\n"))
        .collect::<String>();
    site.net.backends[0].netns.ip(&commands).unwrap();
    await_health(&site, "db", "web1", "down");
    assert_eq!(record(&site, "db-v6", "web1")["health"], "up");
}

//! The web tier: nginx over TLS, with certificates of all kinds. Without TLS, e2e_health.rs has it.

use std::net::SocketAddr;
use std::rc::Rc;

use lb_lab::certificates::{Authority, Identity};
use lb_lab::scratch::ScratchDir;
use lb_lab::tls_nginx::{self, GOOD, Offer, PORT};
use lb_lab::topology::VIP_V6;
use lb_lab::{ServiceText, http, require};

use crate::tier::{ALL, TIMING, TROUBLED, Tier, network, on_all, service};
use crate::trouble::{Trouble, of_tcp};

/// What the certificates are for.
const NAME: &str = "www.foobar.com";

/// Where metrics are asked for, in the balancer's namespace.
const METRICS: &str = "[metrics]\nlisten = \"127.0.0.1:9180\"\n";

/// nginx presents another certificate.
fn certificate(
    name: &str,
    found: (&'static str, &str),
    bad: Identity,
    good: &Rc<Identity>,
) -> Trouble {
    let good = Rc::clone(good);
    let begin = move |tier: &mut Tier| tls_nginx::present(tier.program(), &bad).unwrap();
    let end = move |tier: &mut Tier| tls_nginx::present(tier.program(), &good).unwrap();
    Trouble::new(name, found, begin, end)
}

/// nginx offers something else.
fn offer(name: &str, found: (&'static str, &str), bad: Offer) -> Trouble {
    let begin = move |tier: &mut Tier| tls_nginx::offer(tier.program(), bad).unwrap();
    let end = |tier: &mut Tier| tls_nginx::offer(tier.program(), GOOD).unwrap();
    Trouble::new(name, found, begin, end)
}

/// The same question over HTTP/1.1 and IPv4, and over HTTP/2 and IPv6.
fn services(net: &lb_lab::Topology, ca_file: &std::path::Path) -> [ServiceText; 2] {
    let check = format!(
        "type = \"https\"\nhost = \"{NAME}\"\nbody = \"ready\"\nca_file = \"{}\"\n",
        ca_file.display()
    );
    let h2 = ServiceText::new(net, "h2", VIP_V6)
        .port(PORT)
        .key("hold_down", "0s")
        .check(&format!("{TIMING}{check}version = \"2\"\n"))
        .backends(net, &ALL);
    [service(net, "https", PORT, &check), h2]
}

fn troubles(ours: &Authority, good: &Rc<Identity>) -> Vec<Trouble> {
    let theirs = Authority::new("Somebody else's authority").unwrap();
    let issue = |by: &Authority, name, days| by.issue(name, days).unwrap();
    let mut troubles = of_tcp(PORT, "TLS handshake", "TLS handshake");
    troubles.extend([
        certificate(
            "expired",
            ("tls", "certificate expired 2 days ago"),
            issue(ours, NAME, -3),
            good,
        ),
        certificate(
            "with a wrong name",
            (
                "tls",
                "certificate is for shop.foobar.com, not for www.foobar.com",
            ),
            issue(ours, "shop.foobar.com", 90),
            good,
        ),
        certificate(
            "untrusted",
            (
                "tls",
                "untrusted certificate: its issuer CN=Somebody else's authority is not in ",
            ),
            issue(&theirs, NAME, 90),
            good,
        ),
        offer(
            "without TLS",
            ("tls", "the server does not speak TLS at this port"),
            Offer { listen: "", ..GOOD },
        ),
        offer(
            "without HTTP/2",
            ("tls", "the server does not choose HTTP/2 (ALPN)"),
            Offer {
                listen: "ssl",
                ..GOOD
            },
        )
        .of(&["h2"]),
        offer(
            "slow (a limit)",
            ("timeout", "waiting for an answer: timed out after 300 ms"),
            Offer {
                location: "limit_req zone=slow burst=10000; empty_gif;",
                ..GOOD
            },
        ),
        offer(
            "broken",
            ("unexpected", "HTTP 500 in place of 200-399"),
            Offer {
                location: "return 500;",
                ..GOOD
            },
        ),
        offer(
            "starting",
            (
                "unexpected",
                "no \"ready\" in the body, which begins with \"starting\"",
            ),
            Offer {
                location: "return 200 \"starting\\n\";",
                ..GOOD
            },
        ),
    ]);
    troubles
}

#[test]
fn nginx_is_asked_over_tls_in_http1_and_http2() {
    if require(&["ip", "nft", "nginx"]).is_missing() {
        return;
    }
    let net = network();
    net.lb.ip("link set lo up").unwrap();
    let ours = Authority::new("Our authority").unwrap();
    let good = Rc::new(ours.issue(NAME, 90).unwrap());
    let scratch = ScratchDir::new("authority").unwrap();
    let ca_file = scratch.write("ca.pem", &ours.pem()).unwrap();
    let programs = on_all(&net, |name, netns| tls_nginx::start(name, netns, &good));
    let services = services(&net, &ca_file);
    let mut tier = Tier::start(net, programs, METRICS, &services);
    tier.walk("nginx over TLS", troubles(&ours, &good));

    // A certificate that soon expires is as good as any, and a warning.
    let soon = ours.issue(NAME, 5).unwrap();
    tls_nginx::present(tier.program(), &soon).unwrap();
    for service in ["https", "h2"] {
        tier.await_that("a warning", || {
            let warning = &tier.record(service)["checks"][0]["warning"];
            warning == "certificate expires in 5 days, fewer than 14"
        });
    }
    tier.print("its certificate soon expires");
    tier.await_well();
    let series =
        format!("lbd_check_certificate_expiry_seconds{{service=\"https\",backend=\"{TROUBLED}\"");
    let metrics = metrics(&tier);
    let mut lines = metrics.lines();
    let line = lines.find(|line| line.starts_with(&series)).unwrap();
    assert!(line.ends_with(" 432000"), "{line}");
}

fn metrics(tier: &Tier) -> String {
    let address: SocketAddr = "127.0.0.1:9180".parse().unwrap();
    let answer = tier.net.lb.run(|| http::get(&address.into(), "/metrics"));
    String::from_utf8(answer.unwrap().unwrap().body).unwrap()
}

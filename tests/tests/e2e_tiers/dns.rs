//! Name servers: dnsmasq.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};

use anyhow::Result;
use lb_lab::program::Program;
use lb_lab::{dnsmasq, require};

use crate::tier::{Tier, network, on_all, service};
use crate::trouble::{Trouble, filter, hung, stopped};

/// Where somebody listens on the troubled machine who never answers.
const SILENT_PORT: u16 = 5399;

/// Other records make a trouble.
fn records(
    name: &str,
    found: (&'static str, &str),
    change: fn(&mut Program) -> Result<()>,
) -> Trouble {
    let begin = move |tier: &mut Tier| change(tier.program()).unwrap();
    let end = |tier: &mut Tier| dnsmasq::knows(tier.program(), dnsmasq::ADDRESS).unwrap();
    Trouble::new(name, found, begin, end)
}

#[test]
fn a_name_server_is_asked_for_a_name() {
    if require(&["ip", "nft", "dnsmasq"]).is_missing() {
        return;
    }
    let net = network();
    let programs = on_all(&net, dnsmasq::start);
    let own = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let machine = &net.backends[0].netns;
    let silent = machine
        .run(|| UdpSocket::bind((own, SILENT_PORT)).unwrap())
        .unwrap();
    let check = format!(
        "type = \"dns\"\nname = \"{}\"\nexpect = \"{}\"\n",
        dnsmasq::NAME,
        dnsmasq::ADDRESS
    );
    let udp = service(&net, "dns", dnsmasq::PORT, &check).udp(dnsmasq::PORT);
    let tcp = service(&net, "dns-tcp", dnsmasq::PORT, &check);
    let mut tier = Tier::start(net, programs, "", &[udp, tcp]);
    let over_udp: &[&str] = &["dns"];
    let over_tcp: &[&str] = &["dns-tcp"];
    let late = "no answer, or it was lost (UDP does not tell): timed out after 300 ms";
    let late_tcp = "waiting for an answer: timed out after 300 ms";
    tier.walk(
        "dnsmasq",
        vec![
            stopped(("refused", "nobody listens (ICMP port unreachable)")).of(over_udp),
            stopped(("refused", "connection refused")).of(over_tcp),
            hung(("timeout", late)).of(over_udp),
            hung(("timeout", late_tcp)).of(over_tcp),
            records("slow (nobody answers it)", ("timeout", late), |dnsmasq| {
                dnsmasq::asks(dnsmasq, IpAddr::V4(Ipv4Addr::LOCALHOST), SILENT_PORT)
            })
            .of(over_udp),
            records(
                "with another address",
                ("unexpected", "answer 192.0.2.1 in place of 203.0.113.10"),
                |dnsmasq| dnsmasq::knows(dnsmasq, "192.0.2.1"),
            ),
            records(
                "without the name",
                (
                    "unexpected",
                    "the server answers NXDOMAIN: there is no such name",
                ),
                dnsmasq::denies,
            ),
            records(
                "refusing",
                ("unexpected", "the server answers REFUSED"),
                dnsmasq::refuses,
            ),
            filter(
                "forbidden",
                "udp dport 53 reject with icmpx admin-prohibited".to_owned(),
                ("unreachable", "host unreachable"),
            )
            .of(over_udp),
            filter(
                "filtered",
                "udp dport 53 drop".to_owned(),
                ("timeout", late),
            )
            .of(over_udp),
            filter(
                "reset",
                "tcp dport 53 tcp flags & psh == psh reject with tcp reset".to_owned(),
                ("closed", "asking over TCP: connection reset by the server"),
            )
            .of(over_tcp),
        ],
    );
    drop(silent);
}

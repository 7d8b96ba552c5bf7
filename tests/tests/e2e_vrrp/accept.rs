//! `accept = false`: what an Active node's own stack answers at its VIPs, and what it does not.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_lab::http::Target;
use lb_lab::site::web_servers;
use lb_lab::topology::{VIPS_V4, VIPS_V6};
use lb_lab::wait::wait_until;
use lb_lab::{Forward, Interfaces, Lbd, Plan, Topology, require};

use super::PATIENCE;

/// How long an answer is waited for that is not to come.
const NO_ANSWER_TIMEOUT: Duration = Duration::from_millis(300);

/// A network with a web server, and a node that is Active for four VIPs.
struct Stage {
    net: Topology,
    lbd: Lbd,
}

/// Of each family, one VIP with a service and one without.
fn vips() -> [[IpAddr; 2]; 2] {
    [
        [VIPS_V4[0].into(), VIPS_V6[0].into()],
        [VIPS_V4[1].into(), VIPS_V6[1].into()],
    ]
}

fn config(net: &Topology, accept: &str) -> String {
    let [with_service, _] = vips();
    let listed: Vec<String> = vips()
        .concat()
        .iter()
        .map(|vip| format!("\"{vip}\""))
        .collect();
    let services = with_service.map(|vip| {
        let name = format!("web-{}", if vip.is_ipv4() { "v4" } else { "v6" });
        net.service_config(&name, vip, "maglev", &["web1"])
    });
    format!(
        "{}[[vrrp]]\nname = \"web\"\ninterface = \"eth0\"\nvrid = 51\nvips = [{}]\n\
         interval = \"100ms\"\naccept = {accept}\n{}",
        net.node_config(),
        listed.join(", "),
        services.concat(),
    )
}

impl Stage {
    /// Whether one echo request is answered.
    fn is_pinged(&self, address: IpAddr) -> bool {
        let mut ping = self.net.client.netns().command("ping");
        ping.args(["-n", "-q", "-c", "1", "-W", "0.5"]);
        ping.arg(address.to_string())
            .output()
            .unwrap()
            .status
            .success()
    }

    /// How a connection to a port fails that no service has.
    fn failure(&self, vip: IpAddr) -> ErrorKind {
        let target = Target {
            timeout: NO_ANSWER_TIMEOUT,
            ..SocketAddr::new(vip, 81).into()
        };
        let error = self.net.client.http_get(target).unwrap_err();
        let cause = error.chain().find_map(|cause| cause.downcast_ref());
        cause.map_or_else(|| panic!("{error:#}"), io::Error::kind)
    }

    fn not_accepted(&self) -> u64 {
        let status = self.lbd.ctl_json(&["status"]).unwrap();
        let mut drops = status["drops"].as_array().unwrap().iter();
        let found = drops.find(|drop| drop["reason"] == "not_accepted");
        found.map_or(0, |drop| drop["packets"].as_u64().unwrap())
    }

    /// The client asks the VIP itself, by a packet to it alone, whether it is still there.
    fn is_found_anew(&self, vip: IpAddr) {
        let client = self.net.client.netns();
        let vip = vip.to_string();
        let entries = client.ip_json(&["neighbour", "show", &vip]).unwrap();
        let link = entries[0]["lladdr"].as_str().unwrap();
        client
            .ip(&format!(
                "neighbour change {vip} dev eth0 lladdr {link} nud probe"
            ))
            .unwrap();
        wait_until("an answer to the neighbour's probe", PATIENCE, || {
            let entries = client.ip_json(&["neighbour", "show", &vip])?;
            let state = entries[0]["state"][0].as_str().unwrap_or_default();
            assert_ne!(state, "FAILED", "{entries}");
            Ok((state == "REACHABLE").then_some(()))
        })
        .unwrap();
    }

    fn serves(&self) {
        let [with_service, _] = vips();
        for vip in with_service {
            for _ in 0..5 {
                let answer = self.net.client.http_get(SocketAddr::new(vip, 80)).unwrap();
                assert_eq!(answer.backend, "web1");
            }
        }
    }

    fn answers(&self) {
        for vip in vips().concat() {
            wait_until("an answer to a ping", PATIENCE, || {
                Ok(self.is_pinged(vip).then_some(()))
            })
            .unwrap();
            assert_eq!(self.failure(vip), ErrorKind::ConnectionRefused, "{vip}");
        }
    }

    fn is_silent(&self) {
        for vip in vips().concat() {
            wait_until("no answer to a ping", PATIENCE, || {
                Ok((!self.is_pinged(vip)).then_some(()))
            })
            .unwrap();
            let before = self.not_accepted();
            assert!(!self.is_pinged(vip), "{vip}");
            assert_eq!(self.failure(vip), ErrorKind::TimedOut, "{vip}");
            // The echo request and the SYN, at least.
            assert!(self.not_accepted() >= before + 2, "{vip}");
            self.is_found_anew(vip);
        }
        let own = self.net.lb_address_like(vips()[0][0]);
        assert!(self.is_pinged(own), "the node's own address");
    }
}

fn goes_through(forward: Forward) {
    let net = Topology::build(Plan::new(forward, Interfaces::One, 1)).unwrap();
    let _servers = web_servers(&net).unwrap();
    let lbd = Lbd::start(&net.lb, &config(&net, "true")).unwrap();
    let stage = Stage { net, lbd };
    stage.answers();
    stage.serves();
    assert_eq!(stage.not_accepted(), 0);
    stage.lbd.reload(&config(&stage.net, "false")).unwrap();
    stage.is_silent();
    stage.serves();
    stage.lbd.reload(&config(&stage.net, "true")).unwrap();
    stage.answers();
    stage.serves();
}

#[test]
fn a_vip_that_is_not_accepted_serves_its_services_and_nothing_else() {
    if require(&["ip", "nginx", "ping"]).is_missing() {
        return;
    }
    goes_through(Forward::Dsr);
    goes_through(Forward::Nat);
}

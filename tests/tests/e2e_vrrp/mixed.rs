//! One of ours and one keepalived, both ways round.

use lb_lab::keepalived::Keepalived;
use lb_lab::require;
use lb_lab::serde_json::json;
use lb_lab::vrrp::{Vrrp, group};

use super::{FAMILIES, Lan, PATIENCE};

/// What the two sides of a pair with keepalived are.
struct Mixed {
    lan: Lan,
    ours: Vrrp,
    /// `ipv4` or `ipv6`, and the VIP.
    family: &'static str,
    vip: &'static str,
    config: String,
}

impl Mixed {
    /// Every combination of family and of multicast and unicast.
    fn each(our_priority: u8, their_priority: u8, test: impl Fn(&mut Self)) {
        for (family, vip) in FAMILIES {
            for is_unicast in [false, true] {
                eprintln!(
                    "{family}, {}",
                    if is_unicast { "unicast" } else { "multicast" }
                );
                let mut mixed = Self::new(family, vip, is_unicast, (our_priority, their_priority));
                test(&mut mixed);
            }
        }
    }

    fn new(
        family: &'static str,
        vip: &'static str,
        is_unicast: bool,
        (ours, theirs): (u8, u8),
    ) -> Self {
        let lan = Lan::new();
        let address = |node: usize| match family {
            "ipv4" => format!("10.0.0.{}", node + 1),
            _ => lan.link_local(node),
        };
        // keepalived sends IPv6 unicast with a hop limit of 64 unless it is told otherwise, which RFC 9568 section
        // 5.1.2.3 has us refuse.
        let (peers, unicast) = match is_unicast {
            true => (
                vec![address(1)],
                format!(
                    "  unicast_src_ip {}\n  unicast_peer {{\n    {}\n  }}\n  unicast_ttl 255\n",
                    address(1),
                    address(0)
                ),
            ),
            false => (Vec::new(), String::new()),
        };
        let length = if family == "ipv4" { 32 } else { 128 };
        let config = format!(
            "global_defs {{\n  router_id lab\n  vrrp_version 3\n  vrrp_rt_priority 10\n  \
             vrrp_rlimit_rttime 5000000\n}}\n\
             vrrp_instance web {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n  \
             priority {theirs}\n  advert_int 0.1\n{unicast}  \
             virtual_ipaddress {{\n    {vip}/{length} dev eth0\n  }}\n}}\n"
        );
        let mut vrrp = Vrrp::start(&lan.nodes[0]).unwrap();
        vrrp.tell(&[]).unwrap();
        let group = group(
            "eth0",
            &[vip.parse().unwrap()],
            ours,
            &json!({ "peers": peers }),
        );
        vrrp.configure(&[group.unwrap()], None).unwrap();
        Self {
            lan,
            ours: vrrp,
            family,
            vip,
            config,
        }
    }

    fn start_theirs(&self) -> Keepalived {
        Keepalived::start_with("lab", &self.lan.nodes[1], &self.config).unwrap()
    }

    fn await_ours(&self, state: &str) {
        self.ours
            .await_state("web", self.family, state, PATIENCE)
            .unwrap();
    }

    /// Each has heard the other, and all is as it should be: of ours the VIP, and nothing refused.
    fn await_agreement(&self, active: usize) {
        self.lan.await_vip(active, self.vip);
        self.lan.await_no_vip(1 - active, self.vip);
        let router = self.ours.router("web", self.family);
        assert_eq!(router["counters"]["refused"], 0, "{router}");
    }
}

#[test]
fn keepalived_follows_us() {
    if require(&["ip", "keepalived"]).is_missing() {
        return;
    }
    Mixed::each(200, 100, |mixed| {
        let mut theirs = mixed.start_theirs();
        mixed.await_ours("active");
        mixed.await_agreement(0);
        // Ours dies, and comes back.
        mixed.lan.plug(0, "down");
        mixed.lan.await_vip(1, mixed.vip);
        mixed.await_ours("initialize");
        mixed.lan.plug(0, "up");
        mixed.await_ours("active");
        mixed.await_agreement(0);
        // It hands over, and keepalived keeps what it was given.
        let told = mixed.ours.failover("web").unwrap();
        assert!(told.is_ok(), "{told:?}\n{}", theirs.log_tail());
        mixed.await_ours("backup");
        mixed.await_agreement(1);
        theirs.process().terminate().unwrap();
        mixed.await_ours("active");
        mixed.await_agreement(0);
    });
}

#[test]
fn we_follow_keepalived() {
    if require(&["ip", "keepalived"]).is_missing() {
        return;
    }
    Mixed::each(100, 200, |mixed| {
        let mut theirs = mixed.start_theirs();
        mixed.lan.await_vip(1, mixed.vip);
        mixed.await_ours("backup");
        mixed.await_agreement(1);
        // Theirs dies, and leaves the VIP behind, as keepalived does.
        theirs.process().kill9_all().unwrap();
        mixed.await_ours("active");
        mixed.lan.await_vip(0, mixed.vip);
        // It comes back, and preempts us.
        let mut theirs = mixed.start_theirs();
        mixed.await_ours("backup");
        mixed.await_agreement(1);
        // It ends in good order.
        theirs.process().terminate().unwrap();
        mixed.await_ours("active");
        mixed.await_agreement(0);
    });
}

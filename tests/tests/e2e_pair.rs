//! A pair of real daemons, and how a node becomes one of it.

#[path = "e2e_pair/groups.rs"]
mod groups;
#[path = "e2e_pair/link.rs"]
mod link;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_lab::client::Load;
use lb_lab::clock::Clock;
use lb_lab::cluster::{ClusterText, GROUP, write_secret};
use lb_lab::http::Connection;
use lb_lab::lbd::Launch;
use lb_lab::nginx::Nginx;
use lb_lab::observe::addresses;
use lb_lab::scratch::ScratchDir;
use lb_lab::serde_json::Value;
use lb_lab::service::ServiceText;
use lb_lab::site::web_servers;
use lb_lab::topology::{Balancers, NodeId, VIP_V4, VIP_V6};
use lb_lab::wait::wait_until;
use lb_lab::{Forward, Lbd, Plan, Topology, require};

/// Maglev's VIP, and round robin's.
const VIPS: [IpAddr; 2] = [VIP_V4, VIP_V6];
/// Connections that stay open, on each VIP.
const HELD_COUNT: usize = 6;
/// How often the VIPs are handed over and back.
const ROUND_TRIPS: usize = 5;
/// How long a node may take to know what the other one knows.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is seen so often in a row lasts.
const STEADY_LOOKS: u32 = 20;
/// An address that lb2 has for itself.
const ADDRESS_OF_LB2: &str = "192.0.2.77";
const DAY_S: i64 = 86_400;

/// Two nodes' network, with clients that must notice nothing.
struct Scene {
    held: Vec<(Connection, String)>,
    loads: Vec<Load>,
    nodes: Vec<Lbd>,
    _nginx: Vec<Nginx>,
    cluster: ClusterText,
    scratch: ScratchDir,
    net: Topology,
}

impl Scene {
    /// Without nodes.
    fn empty() -> Self {
        let net = Topology::build(Plan::pair(Forward::Dsr, Balancers::Pair, 2)).unwrap();
        let ports = [
            ("net/ipv4/ip_local_port_range", "1024 65535"),
            ("net/ipv4/tcp_tw_reuse", "1"),
        ];
        net.client.netns().sysctl(&ports).unwrap();
        let nginx = web_servers(&net).unwrap();
        let scratch = ScratchDir::new("pair").unwrap();
        let cluster = ClusterText {
            vips: VIPS.to_vec(),
            interval: Duration::from_millis(100),
            heartbeat: Duration::from_millis(100),
            secret: write_secret(&scratch).unwrap(),
        };
        Self {
            held: Vec::new(),
            loads: Vec::new(),
            nodes: Vec::new(),
            _nginx: nginx,
            cluster,
            scratch,
            net,
        }
    }

    /// With `lb1` alone, which has added the VIPs itself.
    fn of_one() -> Self {
        let mut scene = Self::empty();
        let alone = scene.net.node_config_of(NodeId::Lb1) + &services(&scene.net);
        scene.start(NodeId::Lb1, &alone, Launch::keeping());
        for vip in VIPS.into_iter().flat_map(|vip| [vip; HELD_COUNT]) {
            let mut connection = scene.net.client.connect(SocketAddr::new(vip, 80)).unwrap();
            let backend = connection.get("/").unwrap().backend;
            scene.held.push((connection, backend));
        }
        scene.loads = VIPS
            .map(|vip| scene.net.client.start_load(SocketAddr::new(vip, 80)))
            .into();
        scene
    }

    fn start(&mut self, node: NodeId, config: &str, launch: Launch) {
        self.nodes
            .push(Self::launch(&self.net, node, config, launch));
    }

    /// With both; lb1 has the VIPs.
    fn of_two() -> Self {
        let mut scene = Self::empty();
        for node in NodeId::ALL {
            let config = scene.of_pair(node);
            scene.start(node, &config, Launch::keeping());
        }
        scene.await_active(NodeId::Lb1);
        scene.await_caught_up();
        scene
    }

    fn launch(net: &Topology, node: NodeId, config: &str, launch: Launch) -> Lbd {
        let scratch = ScratchDir::new(&format!("lbd-{node}")).unwrap();
        Lbd::launch_in(launch, scratch, net.node(node), config).unwrap()
    }

    /// The configuration of one of a pair.
    fn of_pair(&self, node: NodeId) -> String {
        self.cluster.of_node(&self.net, node) + &services(&self.net)
    }

    fn has(&self, node: NodeId, vip: IpAddr) -> bool {
        let found = addresses(self.net.node(node), "eth0").unwrap();
        found.iter().any(|one| one.0 == vip)
    }

    /// Waits until `active` is Active for all VIPs and has them, and nobody else has any.
    fn await_active(&self, active: NodeId) {
        let lbd = &self.nodes[active as usize];
        wait_until(&format!("{active} to have the VIPs"), PATIENCE, || {
            let vips = lbd.ctl_json(&["vip", "list"])?;
            let routers = vips["routers"].as_array().cloned().unwrap_or_default();
            let is_active =
                !routers.is_empty() && routers.iter().all(|one| one["state"] == "active");
            let is_here = VIPS.iter().all(|vip| self.has(active, *vip));
            let is_elsewhere = VIPS.iter().any(|vip| self.has(active.other(), *vip));
            Ok((is_active && is_here && !is_elsewhere).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lbd.log_tail()));
    }

    fn await_caught_up(&self) {
        wait_until("both to know what the other one knows", PATIENCE, || {
            for lbd in &self.nodes {
                // One that takes over the other's flow hash key begins anew, and does not answer meanwhile.
                let Ok(peers) = lbd.ctl_json(&["peer", "status"]) else {
                    return Ok(None);
                };
                let peer = &peers["peers"][0];
                let is_ready = peer["is_up"] == true && peer["behind"].is_null();
                if !is_ready || !peers["behind"].is_null() {
                    return Ok(None);
                }
            }
            Ok(Some(()))
        })
        .unwrap_or_else(|error| {
            let shown = self.nodes.iter().map(|lbd| lbd.ctl(&["peer", "status"]));
            panic!("{error:#}\n{:#?}", shown.collect::<Vec<_>>())
        });
    }

    /// Hands the VIPs over, as soon as the other node has caught up.
    fn hand_over(&self, from: NodeId) {
        self.await_caught_up();
        let lbd = &self.nodes[from as usize];
        wait_until("the VIPs to be taken", PATIENCE, || {
            let told = lbd.ctl(&["vip", "failover", GROUP])?;
            Ok((told.code == 0).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", lbd.log_tail()));
    }

    /// Drains a backend on lb1.
    fn drain(&self, backend: &str) {
        let words = ["backend", "drain", "v4", backend];
        self.nodes[0].ctl_ok(&words).unwrap();
    }

    /// What its operators have set a backend to, as a node knows.
    fn admin(&self, node: NodeId, backend: &str) -> String {
        let words = ["backend", "show", "v4", backend];
        let shown = self.nodes[node as usize].ctl_json(&words).unwrap();
        shown["admin"].as_str().unwrap_or_default().to_owned()
    }

    /// Waits until lb2 knows that.
    fn await_admin(&self, backend: &str, admin: &str) {
        let what = format!("{backend} to be {admin} on lb2");
        wait_until(&what, PATIENCE, || {
            Ok((self.admin(NodeId::Lb2, backend) == admin).then_some(()))
        })
        .unwrap();
    }

    /// Waits until lb2 has service `extra`, and web2 a weight of 7.
    fn await_run_time_changes(&self) {
        wait_until("what was changed at run time on lb2", PATIENCE, || {
            let lb2 = &self.nodes[1];
            let has_extra = lb2.ctl(&["service", "show", "extra"])?.code == 0;
            let web2 = lb2.ctl_json(&["backend", "show", "v4", "web2"])?;
            Ok((has_extra && web2["weight"] == 7).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.nodes[1].log_tail()));
    }

    /// Waits until what lb2 has refused is such, all in one text, and stays so for a moment: while it tries again, it has
    /// refused nothing.
    fn await_refused(&self, is_such: impl Fn(&str) -> bool) {
        let mut looks = 0;
        wait_until("lb2 to say what it has refused", PATIENCE, || {
            let peers = self.nodes[1].ctl_json(&["peer", "status"])?;
            let refused = peers["refused_changes"].as_array().into_iter().flatten();
            let refused: Vec<&str> = refused.filter_map(Value::as_str).collect();
            looks = if is_such(&refused.join("\n")) {
                looks + 1
            } else {
                0
            };
            Ok((looks >= STEADY_LOOKS).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.nodes[1].log_tail()));
    }

    /// Waits until lb2 says why it is behind.
    fn await_behind(&self, why: &str) {
        wait_until(&format!("lb2 to say: {why}"), PATIENCE, || {
            let peers = self.nodes[1].ctl_json(&["peer", "status"])?;
            Ok((peers["behind"] == why).then_some(()))
        })
        .unwrap_or_else(|error| panic!("{error:#}\n{}", self.nodes[1].log_tail()));
    }

    /// A hundred more requests on each VIP are answered, none was in vain, and every held connection still talks to
    /// its backend.
    fn nobody_noticed(&mut self, what: &str) {
        let before: Vec<u32> = self
            .loads
            .iter()
            .map(|one| one.tally().ok_total())
            .collect();
        wait_until("a hundred requests", PATIENCE, || {
            let mut tallies = self.loads.iter().map(Load::tally).zip(&before);
            let is_done =
                tallies.all(|(now, before)| now.ok_total() >= before + 100 || now.failed > 0);
            Ok(is_done.then_some(()))
        })
        .unwrap();
        for tally in self.loads.iter().map(Load::tally) {
            assert_eq!(tally.failed, 0, "{what}: {:?}", tally.reasons);
        }
        for (connection, backend) in &mut self.held {
            let answer = connection.get("/").unwrap_or_else(|error| {
                panic!("{what}: a connection to {backend} is broken: {error:#}")
            });
            assert_eq!(answer.backend, *backend, "{what}");
        }
    }
}

/// Maglev over IPv4, and round robin, whose flows are on record, over IPv6.
fn services(net: &Topology) -> String {
    let web = |name, vip| ServiceText::new(net, name, vip).backends(net, &["web1", "web2"]);
    format!(
        "{}{}",
        web("v4", VIP_V4),
        web("v6", VIP_V6).scheduler("round-robin")
    )
}

#[test]
fn a_single_node_becomes_one_of_a_pair_and_its_vips_move() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let mut scene = Scene::of_one();
    scene.nobody_noticed("alone");
    let pair = scene.of_pair(NodeId::Lb1);
    scene.nodes[0].configure(&pair).unwrap();
    scene.nodes[0].terminate().unwrap();
    for vip in VIPS {
        assert!(
            scene.has(NodeId::Lb1, vip),
            "the VIPs stay while lbd is gone"
        );
    }
    scene.nodes[0].restart(scene.net.node(NodeId::Lb1)).unwrap();
    scene.await_active(NodeId::Lb1);
    scene.nobody_noticed("of a pair, without the other one");
    let listed = scene.nodes[0].directory().join("lbd.sock.vips.json");
    wait_until("lbd to leave the VIPs to lbd-vrrp", PATIENCE, || {
        let list = std::fs::read_to_string(&listed)?;
        let is_any = VIPS.iter().any(|vip| list.contains(&vip.to_string()));
        Ok((!is_any).then_some(()))
    })
    .unwrap();

    let pair = scene.of_pair(NodeId::Lb2);
    scene.start(NodeId::Lb2, &pair, Launch::keeping());
    scene.await_caught_up();
    scene.nobody_noticed("with the other one");
    // Several times: only a flow whose record is under way at that moment shows whether it is waited for.
    for (from, to) in [(NodeId::Lb1, NodeId::Lb2), (NodeId::Lb2, NodeId::Lb1)].repeat(ROUND_TRIPS) {
        scene.hand_over(from);
        scene.await_active(to);
        scene.nobody_noticed(&format!("with {to}"));
    }
}

/// Its changes cannot be ordered among the others'. They are once its clock is right, without anybody's doing.
#[test]
fn a_node_whose_clock_is_days_ahead_is_told_of_until_it_is_right() {
    if require(&["ip", "nginx", "cc"]).is_missing() {
        return;
    }
    let mut scene = Scene::empty();
    let clock = Clock::new(&scene.scratch, NodeId::Lb1).unwrap();
    clock.step(2 * DAY_S).unwrap();
    let ahead = Launch {
        environment: clock.environment(),
        ..Launch::keeping()
    };
    for (node, launch) in [(NodeId::Lb1, ahead), (NodeId::Lb2, Launch::keeping())] {
        let config = scene.of_pair(node);
        scene.start(node, &config, launch);
    }
    scene.await_active(NodeId::Lb1);
    scene.await_caught_up();
    scene.drain("web1");
    scene.await_behind(
        "changes of lb1 are refused: its clock and this node's are more than a day apart",
    );
    assert_eq!(scene.admin(NodeId::Lb2, "web1"), "ready");

    clock.step(0).unwrap();
    scene.await_admin("web1", "drain");
    scene.await_caught_up();
}

/// It would preempt, and cannot know the flows of the node that serves.
#[test]
fn a_node_that_comes_back_without_the_sync_link_leaves_the_vips_to_the_one_that_serves() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let mut scene = Scene::of_two();
    scene.net.cut_links(NodeId::Lb1).unwrap();
    scene.net.node(NodeId::Lb1).kill_all().unwrap();
    scene.net.replace_node(NodeId::Lb1).unwrap();
    scene.await_active(NodeId::Lb2);

    let cut = |state| format!("link set dev {} {state}", NodeId::Lb1.sync_port());
    scene.net.switch().ip(&cut("down")).unwrap();
    // What the old one has left goes before its successor comes.
    drop(scene.nodes.remove(0));
    let config = scene.of_pair(NodeId::Lb1);
    let fresh = Scene::launch(&scene.net, NodeId::Lb1, &config, Launch::keeping());
    scene.nodes.insert(0, fresh);
    // Longer than the barrier would last between two nodes neither of which is Active.
    let mut held_count = 0;
    wait_until("lb1 to have been held for some seconds", PATIENCE, || {
        let vips = scene.nodes[0].ctl_json(&["vip", "list"])?;
        let routers = vips["routers"].as_array().cloned().unwrap_or_default();
        for router in &routers {
            assert_ne!(router["state"], "active", "{router}");
            let held = router["held"].as_str().unwrap_or_default();
            held_count += u32::from(held.contains("no peer is heard on the sync link"));
        }
        let since_ms = routers.iter().filter_map(|one| one["since_ms"].as_u64());
        Ok((since_ms.min() > Some(3_000) && held_count > 0).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scene.nodes[0].log_tail()));

    scene.net.switch().ip(&cut("up")).unwrap();
    scene.await_active(NodeId::Lb1);
}

/// A change made on one node that the other one cannot have: it has the VIP for an address of its own. That is told,
/// and keeps nobody from starting with all that was in force.
#[test]
fn a_change_that_a_node_cannot_have_does_not_keep_it_from_starting() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let mut scene = Scene::of_two();
    let extra = [
        "service",
        "add",
        "extra",
        "--vip",
        "203.0.113.99",
        "--port",
        "80",
    ];
    scene.nodes[0].ctl_ok(&extra).unwrap();
    let weight = ["backend", "weight", "v4", "web2", "7"];
    scene.nodes[0].ctl_ok(&weight).unwrap();
    scene.await_run_time_changes();
    let own = format!("address add {ADDRESS_OF_LB2}/24 dev eth0");
    scene.net.node(NodeId::Lb2).ip(&own).unwrap();
    let everything = [
        "service",
        "add",
        "taken",
        "--vip",
        ADDRESS_OF_LB2,
        "--port",
        "0",
    ];
    scene.nodes[0].ctl_ok(&everything).unwrap();
    scene.await_refused(|refused| refused.contains("is the node's own address on eth0"));

    // Nobody looks after lb2 for a while.
    scene.drain("web1");
    scene.await_admin("web1", "drain");
    scene.nodes[1].kill9().unwrap();
    scene.nodes[1].restart(scene.net.node(NodeId::Lb2)).unwrap();
    scene.await_caught_up();
    scene.await_refused(|refused| refused.contains("is the node's own address on eth0"));
    scene.await_admin("web1", "drain");
    scene.await_run_time_changes();
    scene.hand_over(NodeId::Lb1);
    scene.await_active(NodeId::Lb2);
    // A ring that has got another owner settles before it changes.
    wait_until("no new flow for web1", PATIENCE, || {
        let shown = scene.nodes[1].ctl_json(&["backend", "show", "v4", "web1"])?;
        Ok((shown["slots"] == 0).then_some(()))
    })
    .unwrap();
    scene.nodes[1].await_ring("v4").unwrap();
    let target = SocketAddr::new(VIP_V4, 80);
    let counts = scene.net.client.http_get_many(target, 20).unwrap();
    assert!(counts.keys().eq(["web2"]), "{counts:?}");

    scene.nodes[0]
        .ctl_ok(&["service", "remove", "taken"])
        .unwrap();
    scene.await_refused(str::is_empty);
}

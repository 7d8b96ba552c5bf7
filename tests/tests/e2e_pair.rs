//! A pair of real daemons, and how a node becomes one of it.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_lab::client::Load;
use lb_lab::cluster::{ClusterText, GROUP, write_secret};
use lb_lab::http::Connection;
use lb_lab::lbd::Launch;
use lb_lab::nginx::Nginx;
use lb_lab::observe::addresses;
use lb_lab::scratch::ScratchDir;
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

/// Two nodes' network, with clients that must notice nothing.
struct Scene {
    held: Vec<(Connection, String)>,
    loads: Vec<Load>,
    nodes: Vec<Lbd>,
    _nginx: Vec<Nginx>,
    cluster: ClusterText,
    _scratch: ScratchDir,
    net: Topology,
}

impl Scene {
    /// With `lb1` alone, which has added the VIPs itself.
    fn of_one() -> Self {
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
        let alone = net.node_config_of(NodeId::Lb1) + &services(&net);
        let mut scene = Self {
            held: Vec::new(),
            loads: Vec::new(),
            nodes: Vec::new(),
            _nginx: nginx,
            cluster,
            _scratch: scratch,
            net,
        };
        scene.start(NodeId::Lb1, &alone);
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

    fn start(&mut self, node: NodeId, config: &str) {
        let scratch = ScratchDir::new(&format!("lbd-{node}")).unwrap();
        let netns = self.net.node(node);
        let lbd = Lbd::launch_in(Launch::keeping(), scratch, netns, config).unwrap();
        self.nodes.push(lbd);
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
        .unwrap();
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
    scene.start(NodeId::Lb2, &pair);
    scene.await_caught_up();
    scene.nobody_noticed("with the other one");
    // Several times: only a flow whose record is under way at that moment shows whether it is waited for.
    for (from, to) in [(NodeId::Lb1, NodeId::Lb2), (NodeId::Lb2, NodeId::Lb1)].repeat(ROUND_TRIPS) {
        scene.hand_over(from);
        scene.await_active(to);
        scene.nobody_noticed(&format!("with {to}"));
    }
}

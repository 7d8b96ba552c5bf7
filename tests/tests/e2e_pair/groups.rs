//! Groups: two of them, one each way, and what a group watches.

use std::fs;
use std::net::{IpAddr, SocketAddr};

use lb_lab::lbd::Launch;
use lb_lab::require;
use lb_lab::serde_json::{Value, from_str};
use lb_lab::topology::{NodeId, VIP_V4, VIP_V6};
use lb_lab::wait::wait_until;

use super::{HELD_COUNT, PATIENCE, Scene, VIPS, services};

/// What lb1's priority falls by: below lb2's.
const WEIGHT: u8 = 150;
/// An interface that lb1's group watches, and what is at its other end.
const WATCHED: &str = "up0";
const OTHER_END: &str = "up1";

impl Scene {
    /// Waits until these VIPs are at a node, and not at the other one.
    fn await_vips(&self, node: NodeId, vips: &[IpAddr]) {
        let what = format!("{vips:?} to be at {node} alone");
        wait_until(&what, PATIENCE, || {
            let is_so = |vip: &IpAddr| self.has(node, *vip) && !self.has(node.other(), *vip);
            Ok(vips.iter().all(is_so).then_some(()))
        })
        .unwrap_or_else(|error| {
            let logs = self.nodes.iter().map(|lbd| lbd.log_tail());
            panic!("{error:#}\n{}", logs.collect::<Vec<_>>().join("\n"))
        });
    }

    /// Clients of every VIP, from now on.
    pub(super) fn begin_traffic(&mut self) {
        let client = &self.net.client;
        for vip in VIPS.into_iter().flat_map(|vip| [vip; HELD_COUNT]) {
            let mut connection = client.connect(SocketAddr::new(vip, 80)).unwrap();
            let backend = connection.get("/").unwrap().backend;
            self.held.push((connection, backend));
        }
        self.loads = VIPS
            .map(|vip| client.start_load(SocketAddr::new(vip, 80)))
            .into();
    }

    /// Takes the plug of lb1 in the clients' network out, or puts it in: `up` or `down`.
    fn plug_lb1(&self, state: &str) {
        let port = NodeId::Lb1.lan_port();
        let switch = self.net.switch();
        switch.ip(&format!("link set dev {port} {state}")).unwrap();
    }
}

/// A second group, that prefers lb2.
fn second_group(node: NodeId) -> String {
    let priority = [100, 200][node as usize];
    format!(
        "[[vrrp]]\nname = \"api\"\ninterface = \"eth0\"\nvrid = 52\nvips = [\"{VIP_V6}\"]\n\
         priority = {priority}\ninterval = \"100ms\"\n"
    )
}

#[test]
fn two_groups_are_one_at_each_node_and_both_at_the_one_that_is_left() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let mut scene = Scene::empty();
    scene.cluster.vips = vec![VIP_V4];
    for node in NodeId::ALL {
        let cluster = scene.cluster.of_node(&scene.net, node);
        let config = cluster + &second_group(node) + &services(&scene.net);
        scene.start(node, &config, Launch::keeping());
    }
    let one_each = |scene: &Scene| {
        scene.await_vips(NodeId::Lb1, &[VIP_V4]);
        scene.await_vips(NodeId::Lb2, &[VIP_V6]);
    };
    one_each(&scene);
    scene.await_caught_up();
    scene.begin_traffic();
    scene.nobody_noticed("one each");

    let lb2 = &scene.nodes[1];
    lb2.ctl_ok(&["vip", "failover", "api"]).unwrap();
    scene.await_vips(NodeId::Lb1, &VIPS);
    scene.nobody_noticed("both at lb1, on order");
    let lb1 = &scene.nodes[0];
    lb1.ctl_ok(&["vip", "failover", "api"]).unwrap();
    one_each(&scene);
    scene.nobody_noticed("one each again");

    scene.plug_lb1("down");
    scene.await_vips(NodeId::Lb2, &VIPS);
    scene.nobody_noticed("both at lb2, which is left");
    scene.plug_lb1("up");
    one_each(&scene);
    scene.nobody_noticed("one each in the end");
}

/// lb1 watches a service and an interface; a hook hears of each move.
#[test]
fn what_a_group_watches_moves_its_vips_and_is_told() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let mut scene = Scene::empty();
    let told = scene.scratch.path().join("told");
    let hook = format!(
        "[hooks]\non_change = [\"/bin/sh\", \"-c\", 'cat >> \"$0\"', \"{}\"]\n",
        told.display()
    );
    let tracks = format!(
        "[[vrrp.track]]\nservice = \"v4\"\nlive_backends = 2\nweight = {WEIGHT}\n\
         [[vrrp.track]]\ninterface = \"{WATCHED}\"\nweight = {WEIGHT}\n"
    );
    let lb1 = scene.net.node(NodeId::Lb1);
    lb1.ip(&format!(
        "link add {WATCHED} type veth peer name {OTHER_END}\nlink set dev {WATCHED} up\n\
         link set dev {OTHER_END} up"
    ))
    .unwrap();
    for node in NodeId::ALL {
        let cluster = scene.cluster.of_node(&scene.net, node);
        let config = match node {
            NodeId::Lb1 => hook.clone() + &cluster + &tracks,
            NodeId::Lb2 => cluster,
        };
        scene.start(node, &(config + &services(&scene.net)), Launch::keeping());
    }
    scene.await_active(NodeId::Lb1);
    scene.await_caught_up();
    scene.begin_traffic();
    let set_carrier = |scene: &Scene, state: &str| {
        let netns = scene.net.node(NodeId::Lb1);
        netns
            .ip(&format!("link set dev {OTHER_END} {state}"))
            .unwrap();
    };

    scene.drain("web2");
    scene.await_vips(NodeId::Lb2, &VIPS);
    scene.nobody_noticed("a service of lb1 with one live backend");
    let ready = ["backend", "ready", "v4", "web2"];
    scene.nodes[0].ctl_ok(&ready).unwrap();
    scene.await_vips(NodeId::Lb1, &VIPS);
    scene.nobody_noticed("with both again");
    set_carrier(&scene, "down");
    scene.await_vips(NodeId::Lb2, &VIPS);
    set_carrier(&scene, "up");
    scene.await_vips(NodeId::Lb1, &VIPS);
    scene.nobody_noticed("with its interface again");

    // Each way twice, for each family.
    let moves = |to: &str| {
        let lines = fs::read_to_string(&told).unwrap_or_default();
        let events = lines
            .lines()
            .filter_map(|line| from_str::<Value>(line).ok());
        let is_move = |event: &Value| event["kind"] == "vip" && event["to"] == to;
        events.filter(is_move).count()
    };
    wait_until("the hook to be told of each move", PATIENCE, || {
        Ok((moves("active") >= 6 && moves("backup") >= 4).then_some(()))
    })
    .unwrap_or_else(|error| {
        let lines = fs::read_to_string(&told).unwrap_or_default();
        panic!("{error:#}\n{lines}\n{}", scene.nodes[0].log_tail())
    });
}

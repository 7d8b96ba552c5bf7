//! A sync link that carries some of what it should, and when it ends.

use std::net::SocketAddr;

use lb_lab::lbd::Launch;
use lb_lab::process::run;
use lb_lab::require;
use lb_lab::topology::{NodeId, SYNC_INTERFACE, VIP_V4};
use lb_lab::wait::wait_until;

use super::{PATIENCE, Scene};

/// New connections in a row that show where new connections go.
const LOOKS: usize = 30;

/// Datagrams of lb1 do not arrive, and everything else does: each side acts as if the other were gone, and neither
/// waits for it for ever.
#[test]
fn a_change_does_not_wait_for_a_peer_that_does_not_hear_this_node() {
    if require(&["ip", "nginx", "nft"]).is_missing() {
        return;
    }
    let mut scene = Scene::empty();
    for node in NodeId::ALL {
        let config = scene.of_pair(node);
        let config = config.replacen("heartbeat", "patience = \"3s\"\nheartbeat", 1);
        scene.start(node, &config, Launch::keeping());
    }
    scene.await_active(NodeId::Lb1);
    scene.await_caught_up();
    let rules = format!(
        "add table inet deaf; \
         add chain inet deaf input {{ type filter hook input priority 0; }}; \
         add rule inet deaf input iifname {SYNC_INTERFACE} meta l4proto udp drop"
    );
    let lb2 = scene.net.node(NodeId::Lb2);
    run(lb2.command("nft").arg(rules)).unwrap();
    wait_until("lb1 to notice", PATIENCE, || {
        let log = scene.nodes[0].log_tail();
        Ok(log.contains("hears none of this node").then_some(()))
    })
    .unwrap();
    scene.drain("web2");
    let target = SocketAddr::new(VIP_V4, 80);
    wait_until("web2 to get no new connection", PATIENCE, || {
        let mut answers = (0..LOOKS).map(|_| {
            let mut connection = scene.net.client.connect(target)?;
            Ok(connection.get("/")?.backend)
        });
        let is_drained = answers
            .all(|backend: anyhow::Result<String>| backend.is_ok_and(|backend| backend == "web1"));
        Ok(is_drained.then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scene.nodes[0].log_tail()));
    let delete = "delete table inet deaf";
    run(lb2.command("nft").arg(delete)).unwrap();
    scene.await_caught_up();
    scene.await_admin("web2", "drain");
}

/// All processes of lb1 get SIGTERM, lbd first. Until lb2 has the VIPs, lb1 tells it of the flows that begin there.
#[test]
fn a_node_that_is_shut_down_is_heard_until_its_vips_have_moved() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    let mut scene = Scene::of_two();
    scene.begin_traffic();
    let vips = scene.nodes[0].ctl_json(&["vip", "list"]).unwrap();
    let vrrp_pid = vips["process"]["pid"].to_string();
    let lb1 = scene.net.node(NodeId::Lb1);
    let said_bytes = scene.nodes[1].log().len();
    let kill = format!("kill {}; sleep 0.05; kill {vrrp_pid}", scene.nodes[0].pid());
    run(lb1.command("sh").args(["-c", &kill])).unwrap();
    let lbd = scene.nodes[0].process();
    assert!(lbd.wait(PATIENCE).unwrap().success());
    let order = wait_until("lb2 to have seen both", PATIENCE, || {
        let log = scene.nodes[1].log();
        let is_told = |line: &&str| line.contains("-> Active") || line.contains("the link is down");
        let told: Vec<bool> = log[said_bytes..]
            .lines()
            .filter(is_told)
            .map(|line| line.contains("-> Active"))
            .collect();
        Ok((told.len() == 3).then_some(told))
    })
    .unwrap_or_else(|error| panic!("{error:#}\n{}", scene.nodes[1].log_tail()));
    assert_eq!(order, [true, true, false], "{}", scene.nodes[1].log_tail());
    scene.nobody_noticed("with lb2 alone");
}

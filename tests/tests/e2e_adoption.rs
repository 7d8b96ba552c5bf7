//! Nothing in the daemon is in the packets' way: it is killed, stopped, started again with other limits,
//! refused by its own self-test, and no connection notices.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use lb_lab::client::Load;
use lb_lab::http::Connection;
use lb_lab::lbd::{Launch, program, run_to_end};
use lb_lab::link::veth_pair;
use lb_lab::nginx::Nginx;
use lb_lab::observe::{addresses, xdp_mode, xdp_program};
use lb_lab::pins;
use lb_lab::scratch::ScratchDir;
use lb_lab::service::{self, ServiceText};
use lb_lab::site::web_servers;
use lb_lab::topology::{VIP_V4, VIP_V6};
use lb_lab::wait::wait_until;
use lb_lab::{Forward, Interfaces, Lbd, Netns, Plan, Topology, require};

/// Maglev's VIP, and round robin's.
const VIPS: [IpAddr; 2] = [VIP_V4, VIP_V6];

/// How long a hundred requests may take.
const LOAD_TIMEOUT: Duration = Duration::from_secs(30);

/// Connections that stay open, on each VIP.
const HELD_COUNT: usize = 12;

/// More steps than a start has that exchanges maps.
const STEPS_MAX: u32 = 80;

/// Exit code of `lbctl status` where a datapath goes on without a daemon.
const UNATTENDED: i32 = 6;

/// A connection that stays open, and the backend that it belongs to.
struct Held {
    connection: Connection,
    backend: String,
}

/// A site under load, with connections that must outlive everything.
struct Scene {
    held: Vec<Held>,
    loads: Vec<Load>,
    lbd: Lbd,
    _nginx: Vec<Nginx>,
    net: Topology,
}

impl Scene {
    /// With room for the load: thousands of flows a second that end, and stay on record for a minute.
    fn build(forward: Forward) -> Self {
        Self::build_with(forward, "[limits]\nflows = 1048576\n")
    }

    fn build_with(forward: Forward, more: &str) -> Self {
        let net = Topology::build(Plan::new(forward, Interfaces::One, 2)).unwrap();
        // The load goes through all its ports in seconds: those of the last minute are to be used again.
        let ports = [
            ("net/ipv4/ip_local_port_range", "1024 65535"),
            ("net/ipv4/tcp_tw_reuse", "1"),
        ];
        net.client.netns().sysctl(&ports).unwrap();
        let nginx = web_servers(&net).unwrap();
        let scratch = ScratchDir::new("lbd").unwrap();
        let config = config(&net) + more;
        let lbd = Lbd::launch_in(Launch::keeping(), scratch, &net.lb, &config).unwrap();
        let held = VIPS
            .iter()
            .flat_map(|vip| (0..HELD_COUNT).map(|_| hold(&net, *vip)))
            .collect();
        let loads = VIPS.map(|vip| net.client.start_load(SocketAddr::new(vip, 80)));
        Self {
            held,
            loads: loads.into(),
            lbd,
            _nginx: nginx,
            net,
        }
    }

    /// A hundred more requests on each VIP are answered, none was in vain since the scene began, and every
    /// held connection still talks to its backend.
    fn nobody_noticed(&mut self, what: &str) {
        let before: Vec<u32> = self
            .loads
            .iter()
            .map(|load| load.tally().ok_total())
            .collect();
        wait_until("a hundred requests", LOAD_TIMEOUT, || {
            let mut tallies = self.loads.iter().map(Load::tally).zip(&before);
            let is_done =
                tallies.all(|(now, before)| now.ok_total() >= before + 100 || now.failed > 0);
            Ok(is_done.then_some(()))
        })
        .unwrap();
        for load in &self.loads {
            let tally = load.tally();
            assert_eq!(
                tally.failed,
                0,
                "{what}: {:?}\n{}",
                tally.reasons,
                self.lbd.log_tail()
            );
        }
        for held in &mut self.held {
            let answer = held.connection.get("/").unwrap_or_else(|error| {
                panic!(
                    "{what}: a connection to {} is broken: {error:#}",
                    held.backend
                )
            });
            assert_eq!(answer.backend, held.backend, "{what}");
        }
    }

    fn origin(&self) -> String {
        let status = self.lbd.ctl_json(&["status"]).unwrap();
        status["datapath"]["origin"].as_str().unwrap().to_owned()
    }

    fn program(&self) -> u64 {
        let program = xdp_program(&self.net.lb, "eth0").unwrap();
        program.expect("an XDP program is on eth0")
    }

    /// A start that fails; what it said.
    fn refused_start(&mut self) -> String {
        let refusal = self.lbd.restart(&self.net.lb).unwrap_err();
        format!("{refusal:#}")
    }
}

/// Maglev over IPv4, and round robin, whose flows are on record, over IPv6.
fn config(net: &Topology) -> String {
    let web = |name, vip| ServiceText::new(net, name, vip).backends(net, &["web1", "web2"]);
    let round_robin = web("v6", VIP_V6).scheduler("round-robin");
    service::config(net, &[web("v4", VIP_V4), round_robin])
}

fn hold(net: &Topology, vip: IpAddr) -> Held {
    let mut connection = net.client.connect(SocketAddr::new(vip, 80)).unwrap();
    let backend = connection.get("/").unwrap().backend;
    Held {
        connection,
        backend,
    }
}

fn is_missing() -> bool {
    require(&["ip", "nginx"]).is_missing()
}

fn outlives_its_daemon(forward: Forward) {
    if is_missing() {
        return;
    }
    let mut scene = Scene::build(forward);
    assert_eq!(scene.origin(), "fresh");
    let first = scene.program();

    scene.lbd.kill9().unwrap();
    scene.nobody_noticed("after kill -9");
    let status = scene.lbd.ctl(&["status"]).unwrap();
    assert_eq!(status.code, UNATTENDED, "{status:?}");
    assert!(
        status.stdout.contains("attached to eth0 (native)"),
        "{status:?}"
    );
    scene.lbd.restart(&scene.net.lb).unwrap();
    scene.nobody_noticed("after the next start");
    assert_eq!(scene.origin(), "adopted");
    assert_ne!(scene.program(), first, "each daemon brings its own program");

    assert!(scene.lbd.terminate().unwrap().success());
    assert!(
        scene.lbd.log().contains("goes on forwarding"),
        "{}",
        scene.lbd.log()
    );
    scene.nobody_noticed("after SIGTERM");
    scene.lbd.restart(&scene.net.lb).unwrap();
    scene.nobody_noticed("after a restart");
}

#[test]
fn dsr_connections_outlive_their_daemon() {
    outlives_its_daemon(Forward::Dsr);
}

#[test]
fn nat_connections_outlive_their_daemon() {
    outlives_its_daemon(Forward::Nat);
}

#[test]
fn other_limits_take_the_flows_along() {
    if is_missing() {
        return;
    }
    let mut scene = Scene::build(Forward::Nat);
    let config = config(&scene.net);
    for limits in [
        "services = 2000\nbackends = 100\nring_blocks = 2000\nflows = 500000",
        "services = 8\nbackends = 9\nring_blocks = 8\nflows = 4096",
        "services = 8\nbackends = 9\nring_blocks = 8\nflows = 8192",
    ] {
        scene
            .lbd
            .configure(&format!("{config}[limits]\n{limits}\n"))
            .unwrap();
        assert!(scene.lbd.terminate().unwrap().success());
        scene.lbd.restart(&scene.net.lb).unwrap();
        scene.nobody_noticed(limits);
        assert_eq!(scene.origin(), "migrated", "{limits}");
        let status = scene.lbd.ctl_json(&["status"]).unwrap();
        let maps = status["maps"].as_array().unwrap();
        let services = maps.iter().find(|map| map["map"] == "SERVICES").unwrap();
        assert!(
            limits.contains(&format!("services = {}\n", services["max"])),
            "{services}"
        );
    }

    // The file asks for one service less, and what is in force does not fit.
    let v4 = ServiceText::new(&scene.net, "v4", VIP_V4).backends(&scene.net, &["web1", "web2"]);
    let v4 = service::config(&scene.net, &[v4]);
    let too_small = format!("{v4}[limits]\nservices = 8\nbackends = 3\nring_blocks = 8\n");
    scene.lbd.configure(&too_small).unwrap();
    assert!(scene.lbd.terminate().unwrap().success());
    let refusal = scene.refused_start();
    assert!(
        refusal.contains("`limits.backends` is 3, and the datapath that is in force needs 4"),
        "{refusal}"
    );
    scene.nobody_noticed("after limits that are too small");
}

/// lbd dies after the first step of an exchange of maps, then after the second, and so on, until it lives
/// through all of them. Each time another one finishes what was begun, or does it anew.
#[test]
fn change_of_limits_may_be_interrupted_at_every_step() {
    if is_missing() {
        return;
    }
    let mut scene = Scene::build_with(Forward::Nat, "");
    let config = config(&scene.net);
    for steps in 1..=STEPS_MAX {
        let flows = 100_000 * (steps % 2 + 1);
        let limits = format!(
            "[limits]\nflows = {flows}\nring_blocks = {}\n",
            8 + steps % 2
        );
        scene.lbd.configure(&format!("{config}{limits}")).unwrap();
        scene.lbd.kill9().unwrap();
        let doomed = Launch {
            environment: vec![("LBD_ABORT_AFTER_WRITES".to_owned(), steps.to_string())],
            ..Launch::keeping()
        };
        let has_lived = scene.lbd.restart_as(doomed, &scene.net.lb).is_ok();
        scene.nobody_noticed(&format!("after step {steps}"));
        if has_lived {
            assert!(steps > 20, "the exchange alone has more steps than {steps}");
            return;
        }
        scene
            .lbd
            .restart_as(Launch::keeping(), &scene.net.lb)
            .unwrap();
        scene.nobody_noticed(&format!("with the successor after step {steps}"));
    }
    panic!("no start has {STEPS_MAX} steps");
}

#[test]
fn datapath_of_another_version_is_left_alone() {
    if is_missing() {
        return;
    }
    let mut scene = Scene::build(Forward::Dsr);
    let pinned = scene.lbd.pinned().unwrap();
    let (program, version) = (scene.program(), lb_common::abi::VERSION);
    scene.lbd.kill9().unwrap();
    pins::set_abi_version(&pinned, version + 1).unwrap();
    let refusal = scene.refused_start();
    assert!(
        refusal.contains(&format!("holds a datapath of ABI version {}", version + 1))
            && refusal.contains("lbd --detach"),
        "{refusal}"
    );
    assert_eq!(scene.program(), program);
    scene.nobody_noticed("after the refusal");
    let status = scene.lbd.ctl(&["status"]).unwrap();
    assert_eq!(status.code, UNATTENDED, "{status:?}");

    pins::set_abi_version(&pinned, version).unwrap();
    scene.lbd.restart(&scene.net.lb).unwrap();
    scene.nobody_noticed("with the right version");
}

#[test]
fn program_that_fails_its_self_test_does_not_take_over() {
    if is_missing() {
        return;
    }
    let mut scene = Scene::build(Forward::Dsr);
    let program = scene.program();
    scene.lbd.kill9().unwrap();
    let faulty = Launch {
        environment: vec![("LBD_SELF_TEST_FAULT".to_owned(), "1".to_owned())],
        ..Launch::keeping()
    };
    let refusal = scene.lbd.restart_as(faulty, &scene.net.lb).unwrap_err();
    let refusal = format!("{refusal:#}");
    assert!(
        refusal.contains("fails its self-test") && refusal.contains("a packet of an IPv4 service"),
        "{refusal}"
    );
    assert_eq!(scene.program(), program, "the old one stays");
    scene.nobody_noticed("after the failure");
    scene
        .lbd
        .restart_as(Launch::keeping(), &scene.net.lb)
        .unwrap();
    assert_ne!(scene.program(), program);
    scene.nobody_noticed("with a program that is right");
}

fn has_vips(net: &Topology) -> bool {
    let found = addresses(&net.lb, "eth0").unwrap();
    let vips = VIPS.map(|vip| found.iter().any(|(address, _)| *address == vip));
    vips == [true; 2]
}

/// Nothing is left on the interface, in bpffs and beside the socket.
fn is_clean(scene: &Scene, pinned: &Path) {
    assert_eq!(xdp_mode(&scene.net.lb, "eth0").unwrap(), None);
    let left = addresses(&scene.net.lb, "eth0").unwrap();
    let vips = left.iter().filter(|(address, _)| VIPS.contains(address));
    assert_eq!(vips.count(), 0, "{left:?}");
    assert!(!pinned.exists());
    let files = std::fs::read_dir(scene.lbd.directory()).unwrap();
    let mut names: Vec<_> = files.map(|file| file.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["lbd.log", "lbd.toml"]);
}

#[test]
fn datapath_is_taken_off_with_and_without_its_daemon() {
    if is_missing() {
        return;
    }
    let mut scene = Scene::build(Forward::Dsr);
    let pinned = scene.lbd.pinned().unwrap();
    let detach = |scene: &Scene| {
        let mut command = scene.net.lb.command(program("lbd").unwrap());
        command
            .arg("--detach")
            .arg("--socket")
            .arg(scene.lbd.socket());
        run_to_end(command).unwrap()
    };
    let refused = detach(&scene);
    assert!(
        refused.code == 1 && refused.log.contains("`lbctl datapath detach`"),
        "{refused:?}"
    );
    scene.nobody_noticed("while it is refused");
    scene.loads.clear();

    scene.lbd.ctl_ok(&["datapath", "detach"]).unwrap();
    let status = scene.lbd.process().wait(LOAD_TIMEOUT).unwrap();
    assert!(status.success(), "{}", scene.lbd.log_tail());
    is_clean(&scene, &pinned);

    scene.lbd.restart(&scene.net.lb).unwrap();
    assert_eq!(scene.origin(), "fresh");
    scene.lbd.kill9().unwrap();
    assert!(has_vips(&scene.net));
    let detached = detach(&scene);
    assert!(
        detached.code == 0 && detached.log.contains("datapath taken off, 2 VIPs removed"),
        "{detached:?}"
    );
    is_clean(&scene, &pinned);
    let again = detach(&scene);
    assert!(
        again.code == 0 && again.log.contains("there is no datapath to take off"),
        "{again:?}"
    );
}

/// A node with interfaces of these names, and nothing behind them.
fn node(interfaces: &[&str]) -> (Netns, Netns) {
    let (node, peer) = (Netns::create("lb").unwrap(), Netns::create("peer").unwrap());
    for interface in interfaces {
        veth_pair((&node, interface), (&peer, interface)).unwrap();
    }
    (node, peer)
}

fn interface_config(interfaces: &[&str]) -> String {
    let interface = |name: &&str| format!("[[interface]]\nname = \"{name}\"\n");
    interfaces.iter().map(interface).collect()
}

#[test]
fn interface_that_went_away_meanwhile_is_attached_anew() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let (node, peer) = node(&["eth0", "eth1"]);
    let scratch = ScratchDir::new("lbd").unwrap();
    let config = interface_config(&["eth0", "eth1"]);
    let mut lbd = Lbd::launch_in(Launch::keeping(), scratch, &node, &config).unwrap();
    lbd.kill9().unwrap();
    node.ip("link del eth1").unwrap();
    veth_pair((&node, "eth1"), (&peer, "eth1")).unwrap();
    assert_eq!(xdp_mode(&node, "eth1").unwrap(), None);
    lbd.restart(&node).unwrap();
    assert!(
        lbd.log().contains("the interface has gone"),
        "{}",
        lbd.log()
    );
    for interface in ["eth0", "eth1"] {
        assert_eq!(xdp_mode(&node, interface).unwrap(), Some("native"));
    }

    // One that is not wanted any more is let go.
    lbd.configure(&interface_config(&["eth1"])).unwrap();
    assert!(lbd.terminate().unwrap().success());
    lbd.restart(&node).unwrap();
    assert_eq!(xdp_mode(&node, "eth0").unwrap(), None);
    assert_eq!(xdp_mode(&node, "eth1").unwrap(), Some("native"));
}

#[test]
fn two_daemons_side_by_side_leave_each_other_alone() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let (node, _peer) = node(&["eth0", "eth1"]);
    let start = |interface| {
        let scratch = ScratchDir::new("lbd").unwrap();
        let config = interface_config(&[interface]);
        Lbd::launch_in(Launch::keeping(), scratch, &node, &config).unwrap()
    };
    let (mut first, second) = (start("eth0"), start("eth1"));
    assert_ne!(first.pinned().unwrap(), second.pinned().unwrap());
    let untouched = xdp_program(&node, "eth1").unwrap();
    first.kill9().unwrap();
    first.restart(&node).unwrap();
    first.ctl_ok(&["datapath", "detach"]).unwrap();
    assert_eq!(xdp_mode(&node, "eth0").unwrap(), None);
    assert_eq!(xdp_program(&node, "eth1").unwrap(), untouched);
    second.ctl_ok(&["status"]).unwrap();
}

#[test]
fn datapath_of_another_network_namespace_is_left_alone() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let (node, _peer) = node(&["eth0"]);
    let (other, _other_peer) = self::node(&["eth0"]);
    let scratch = ScratchDir::new("lbd").unwrap();
    let config = interface_config(&["eth0"]);
    let mut lbd = Lbd::launch_in(Launch::keeping(), scratch, &node, &config).unwrap();
    let program = xdp_program(&node, "eth0").unwrap();
    lbd.kill9().unwrap();
    let refusal = format!("{:#}", lbd.restart(&other).unwrap_err());
    assert!(
        refusal.contains("the datapath of another network namespace"),
        "{refusal}"
    );
    assert_eq!(xdp_program(&node, "eth0").unwrap(), program);
    assert_eq!(xdp_mode(&other, "eth0").unwrap(), None);
}

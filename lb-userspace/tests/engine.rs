//! The engine with the real program, in network namespaces of the test's own.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use lb_lab::link::veth_pair;
use lb_lab::{Netns, require};
use lb_userspace::engine::snapshot::{InterfaceState, NextHop, Snapshot};
use lb_userspace::engine::{self, EngineHandle, Options, Started, StateFile};
use lb_userspace::model::{
    AdminState, AgentState, Backend, Change, Fit, Health, Interface, Limits, Model, Observation,
    OnStop, Service, XdpMode,
};
use lb_userspace::netlink::Netlink;
use lb_userspace::netlink::view::View;
use lb_userspace::pins::Pins;
use tempfile::TempDir;
use tokio::task::JoinHandle;

/// How long the engine may take to follow a change of the network.
const PATIENCE: Duration = Duration::from_secs(5);

const VIP: &str = "10.0.0.100";

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn web() -> Service {
    let web1 = Backend {
        weight: 1,
        ..Backend::new("web1", ip("10.0.0.9"), 80)
    };
    Service {
        idle_timeout_s: 60,
        backends: BTreeMap::from([("web1".to_owned(), web1)]),
        ..Service::new("web", ip(VIP), 80)
    }
}

/// The second service, by name.
fn web6() -> Service {
    Service::new("web6", ip("2001:db8::100"), 80)
}

fn model(interfaces: &[&str], services: &[Service]) -> Model {
    let interface = |name: &&str| Interface {
        name: (*name).to_owned(),
        xdp: XdpMode::Auto,
    };
    Model {
        node: "lb1".to_owned(),
        interfaces: interfaces.iter().map(interface).collect(),
        manage_vips: true,
        metrics: Default::default(),
        hooks: Default::default(),
        cluster: None,
        vrrp: Default::default(),
        on_stop: OnStop::Keep,
        limits: Limits {
            services: 8,
            backends: 8,
            ring_blocks: 8,
            flows: 1024,
        },
        services: services
            .iter()
            .map(|service| (service.name.clone(), service.clone()))
            .collect(),
    }
}

/// A node with `eth0` and `eth1`, and a backend behind the former.
struct Lab {
    node: Netns,
    peer: Netns,
}

impl Lab {
    fn build() -> Self {
        let (node, peer) = (
            Netns::create("node").unwrap(),
            Netns::create("peer").unwrap(),
        );
        veth_pair((&node, "eth0"), (&peer, "eth0")).unwrap();
        veth_pair((&node, "eth1"), (&peer, "eth1")).unwrap();
        node.ip("addr add 10.0.0.1/24 dev eth0\nlink set eth0 up")
            .unwrap();
        peer.ip("addr add 10.0.0.9/24 dev eth0\nlink set eth0 up")
            .unwrap();
        Self { node, peer }
    }

    /// Runs `work` in the node's namespace, on a thread that stays there.
    fn run<F: Future<Output = ()>>(&self, work: impl FnOnce() -> F + Send) {
        let block_on = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(work());
        };
        self.node.run(block_on).unwrap();
    }
}

struct Running {
    engine: EngineHandle,
    task: JoinHandle<anyhow::Result<()>>,
    _directory: TempDir,
}

impl Running {
    async fn start(model: Model) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("lbd.sock");
        let options = Options {
            model,
            config_file: None,
            state_file: StateFile::beside(&socket),
            services_file: StateFile::of_services(&socket),
            pins: Pins::of(&socket),
            on_stop: Some(OnStop::Detach),
            membership: None,
        };
        let Started {
            handle: engine,
            task,
            ..
        } = engine::start(options)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"));
        Self {
            engine,
            task,
            _directory: directory,
        }
    }

    async fn snapshot(&self) -> Snapshot {
        self.engine.snapshot().await.unwrap()
    }

    async fn interface(&self, name: &str) -> InterfaceState {
        let interfaces = self.snapshot().await.interfaces;
        let found = interfaces
            .into_iter()
            .find(|state| state.interface.name == name);
        found.unwrap_or_else(|| panic!("no {name}"))
    }

    /// Asks until the snapshot is as it should be.
    async fn wait_until(&self, what: &str, is_so: impl Fn(&Snapshot) -> bool) {
        let wait = async {
            while !is_so(&self.snapshot().await) {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        assert!(waited.is_ok(), "{what}: {:#?}", self.snapshot().await);
    }

    /// Switches IPv6 off: the kernel removes the VIP of [`web6`], and does not take it back.
    async fn lose_vip(&self, lab: &Lab) {
        let no_ipv6 = ("net/ipv6/conf/eth0/disable_ipv6", "1");
        lab.node.sysctl(&[no_ipv6]).unwrap();
        self.wait_until("the VIP is gone", |snapshot| {
            snapshot.services[1].vip_interface.is_none()
        })
        .await;
    }

    async fn stop(self) {
        self.engine.shutdown().await;
        self.task.await.unwrap().unwrap();
    }
}

fn set_weight(weight: u32) -> Change {
    Change::SetBackendWeight {
        service: "web".to_owned(),
        backend: "web1".to_owned(),
        weight,
    }
}

fn link_address(snapshot: &Snapshot) -> Option<[u8; 6]> {
    match &snapshot.services[0].backends[0].next_hop {
        NextHop::Resolved { link_address, .. } => Some(*link_address),
        _ => None,
    }
}

async fn vip_holders() -> Vec<String> {
    let mut view = View::default();
    let netlink = Netlink::open().unwrap();
    netlink.read_links(&mut view).await.unwrap();
    view.holders(ip(VIP))
        .map(|ifindex| view.link_name(ifindex))
        .collect()
}

#[test]
fn a_missing_interface_does_not_keep_the_others_from_changing() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let lab = &Lab::build();
    lab.run(|| async {
        let running = Running::start(model(&["eth0", "eth1"], &[web()])).await;
        lab.node.ip("link del eth1").unwrap();
        running.engine.change(set_weight(7)).await.unwrap();
        let missing = running.interface("eth1").await;
        assert_eq!((missing.ifindex, missing.attached), (None, None));
        let reason = missing.reason.unwrap();
        assert!(reason.starts_with("no interface eth1"), "{reason}");

        // The network is followed, too.
        lab.peer
            .ip("link set eth0 address 02:00:00:00:00:77\nneigh flush all")
            .unwrap();
        lab.node
            .ip("neigh replace 10.0.0.9 lladdr 02:00:00:00:00:77 dev eth0")
            .unwrap();
        let moved = Some([2, 0, 0, 0, 0, 0x77]);
        running
            .wait_until("the backend moved", |snapshot| {
                link_address(snapshot) == moved
            })
            .await;

        veth_pair((&lab.node, "eth1"), (&lab.peer, "eth1")).unwrap();
        running
            .wait_until("eth1 is back", |snapshot| {
                snapshot.interfaces[1].attached == Some("native")
            })
            .await;
        running.stop().await;
        assert_eq!(vip_holders().await, [] as [String; 0]);
    });
}

#[test]
fn an_interface_that_was_never_there_is_refused() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let lab = &Lab::build();
    lab.run(|| async {
        let running = Running::start(model(&["eth0"], &[web()])).await;
        let with_another = model(&["eth0", "eth9"], &[web()]);
        let refusal = running.engine.replace(with_another).await.unwrap_err();
        assert!(
            refusal.to_string().starts_with("no interface eth9"),
            "{refusal}"
        );
        assert_eq!(running.snapshot().await.interfaces.len(), 1);
        running.stop().await;
    });
}

#[test]
fn a_renamed_interface_keeps_the_program_and_its_vips() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let lab = &Lab::build();
    lab.run(|| async {
        let running = Running::start(model(&["eth0"], &[web()])).await;
        let before = running.interface("eth0").await;
        lab.node.ip("link set eth0 name wan0").unwrap();
        running.engine.change(set_weight(7)).await.unwrap();
        let after = running.interface("eth0").await;
        assert_eq!(
            (after.ifindex, after.attached),
            (before.ifindex, before.attached)
        );
        assert_eq!(vip_holders().await, ["wan0"]);
        running.stop().await;
        assert_eq!(vip_holders().await, [] as [String; 0]);
    });
}

#[test]
fn every_port_of_the_nodes_own_address_is_refused() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let lab = &Lab::build();
    lab.run(|| async {
        let running = Running::start(model(&["eth0"], &[])).await;
        let on_the_node = |port| Service {
            vip: ip("10.0.0.1"),
            port,
            backends: BTreeMap::new(),
            ..web()
        };
        let add = |port| running.engine.change(Change::AddService(on_the_node(port)));
        let refusal = add(0).await.unwrap_err().to_string();
        assert!(
            refusal.starts_with("service `web`: VIP 10.0.0.1 is the node's own address on eth0"),
            "{refusal}"
        );
        assert!(running.snapshot().await.services.is_empty());
        let warnings = add(80).await.unwrap().join("\n");
        assert!(warnings.contains("is the node's own address"), "{warnings}");
        running.stop().await;
    });
}

/// The rings are in force all the same: what is to follow them is not held up.
#[test]
fn a_ring_goes_on_while_a_vip_cannot_be_added() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let lab = &Lab::build();
    lab.run(|| async {
        lab.peer.ip("addr add 10.0.0.8/24 dev eth0").unwrap();
        let web2 = Backend::new("web2", ip("10.0.0.8"), 80);
        let mut web = web();
        web.backends.insert("web2".to_owned(), web2);
        let running = Running::start(model(&["eth0"], &[web, web6()])).await;
        running.lose_vip(lab).await;

        let drained = Observation {
            service: "web".to_owned(),
            backend: "web2".to_owned(),
            endpoint: SocketAddr::new(ip("10.0.0.8"), 80),
            health: Health::Up,
            fit: Fit::Fit,
            agent: AgentState {
                admin: Some(AdminState::Drain),
                weight_percent: None,
            },
        };
        let observed = running.engine.observe(vec![drained], 1).await;
        let error = observed.unwrap_err().to_string();
        assert!(error.contains("2001:db8::100"), "{error}");
        running
            .wait_until("new flows go to web1 alone", |snapshot| {
                let phases = snapshot.services[0].phases.as_ref().unwrap();
                phases.moving_count > 0 && phases.armed_count == 0
            })
            .await;
        running.stop().await;
    });
}

#[test]
fn a_vip_that_cannot_be_added_refuses_the_change_that_brings_it_and_no_other() {
    if require(&["ip"]).is_missing() {
        return;
    }
    let lab = &Lab::build();
    lab.run(|| async {
        let running = Running::start(model(&["eth0"], &[web(), web6()])).await;
        running.lose_vip(lab).await;
        running.engine.change(set_weight(7)).await.unwrap();
        for _ in 0..2 {
            let another = Service::new("web7", ip("2001:db8::101"), 80);
            let added = running.engine.change(Change::AddService(another)).await;
            let refusal = added.unwrap_err().to_string();
            assert!(refusal.contains("2001:db8::101"), "{refusal}");
        }
        let services = running.snapshot().await.services;
        let names: Vec<&str> = services
            .iter()
            .map(|state| state.service.name.as_str())
            .collect();
        assert_eq!(names, ["web", "web6"]);
        assert_eq!(services[0].backends[0].backend.weight, 7);
        running.stop().await;
    });
}

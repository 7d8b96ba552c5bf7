//! The engine's contract without a kernel, behind the real server.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytemuck::Zeroable;
use lb_common::abi::{
    Address, BackendSignals, BackendStats, FlowEntry, FlowOrigin, FlowRecord, FlowState,
    Service as ServiceEntry, Slot,
};
use lb_common::drop_reason::DropReason;
use lb_userspace::control::{Monitor, Socket, server};
use lb_userspace::engine::snapshot::{
    BackendState, DatapathOrigin, DatapathState, InterfaceState, MapFill, NextHop, ServiceState,
    Snapshot,
};
use lb_userspace::engine::views::{
    self, DrainView, FlowCounts, FlowOwner, Holder, Owners, PlanQuery, PlanView, RingView,
    TableEntry,
};
use lb_userspace::engine::{EngineError, EngineHandle, Progress, Request};
use lb_userspace::forecast::{Present, forecast};
use lb_userspace::model::cluster::{Cluster, Peer, VrrpGroup};
use lb_userspace::model::diff::takes_restart;
use lb_userspace::model::{
    Backend, Change, Interface, Limits, Model, OnStop, Service, Urgency, XdpMode,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

/// A daemon with a fake engine, on a runtime of its own.
pub(crate) struct Daemon {
    pub(crate) socket: PathBuf,
    /// What the API tells besides.
    pub(crate) monitor: Monitor,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    _directory: TempDir,
}

/// A service whose name makes the engine fail in the way that it says.
pub(crate) const FULL_MAP: &str = "full-map";
/// See [`FULL_MAP`].
pub(crate) const FAILING: &str = "failing-kernel";

/// A backend whose flows on record never end.
pub(crate) const BUSY: &str = "busy";

/// The time of the flow table. Unit: seconds.
const NOW_S: u32 = 1_000;

impl Daemon {
    /// Starts with no service and room for two.
    pub(crate) fn start() -> Self {
        Self::start_with(nothing())
    }

    /// Starts as one of two nodes: `lb1`, with the group `web` of both families and the peer `lb2`.
    pub(crate) fn start_pair() -> Self {
        let peer = Peer {
            name: "lb2".to_owned(),
            address: "10.0.9.2:7946".parse().unwrap(),
        };
        let group = VrrpGroup {
            name: "web".to_owned(),
            interface: "eth0".to_owned(),
            vrid: 51,
            vips: ["203.0.113.10", "2001:db8::10"]
                .map(|vip| vip.parse().unwrap())
                .into(),
            priority: 200,
            interval_cs: 10,
            preempt: true,
            preempt_delay_ms: 0,
            peers: Default::default(),
            sources: Default::default(),
            accept: true,
            virtual_mac: false,
            authenticate: true,
            tracks: vec![],
        };
        let mut model = nothing();
        model.vrrp.insert("web".to_owned(), group);
        model.cluster = Some(Cluster {
            listen: "10.0.9.1:7946".parse().unwrap(),
            secret_file: "/etc/lbd/cluster.key".into(),
            heartbeat_ms: 100,
            patience_s: 120,
            peers: BTreeMap::from([(peer.name.clone(), peer)]),
        });
        Self::start_with(model)
    }

    fn start_with(model: Model) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("lbd.sock");
        let bound = Socket::bind(&socket).unwrap();
        let runtime = Runtime::new().unwrap();
        let (engine, requests) = EngineHandle::new();
        let (stop, stopped) = oneshot::channel();
        let monitor = Monitor::default();
        let told = monitor.clone();
        runtime.spawn(serve_requests(model, requests));
        runtime.spawn(async move {
            let listener = bound.listener().unwrap();
            let stop = async move {
                let _dropped_or_sent = stopped.await;
            };
            server::serve(listener, engine, told, stop).await;
        });
        Self {
            socket,
            monitor,
            runtime: Some(runtime),
            stop: Some(stop),
            _directory: directory,
        }
    }

    /// Runs a future on the daemon's runtime.
    pub(crate) fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.as_ref().unwrap().block_on(future)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// A node without services, and with room for three.
fn nothing() -> Model {
    Model {
        node: "lb1".to_owned(),
        interfaces: vec![],
        manage_vips: true,
        metrics: Default::default(),
        hooks: Default::default(),
        cluster: None,
        vrrp: Default::default(),
        on_stop: OnStop::Keep,
        limits: Limits {
            services: 3,
            ..Limits::default()
        },
        services: BTreeMap::new(),
    }
}

async fn serve_requests(mut model: Model, mut requests: mpsc::Receiver<Request>) {
    let mut drains = 0;
    while let Some(request) = requests.recv().await {
        match request {
            Request::Change(change, reply) => {
                let outcome = apply(&mut model, *change);
                reply.send(outcome).unwrap();
            }
            Request::Replace(new, reply) => {
                model = *new;
                reply.send(Ok(vec![])).unwrap();
            }
            Request::Observe(observations, _services_max, reply) => {
                model.observe(&observations);
                let progress = Progress {
                    left: Vec::new(),
                    in_force_at: Instant::now(),
                };
                reply.send(Ok(progress)).unwrap();
            }
            Request::Snapshot(reply) => reply.send(snapshot(&model)).unwrap(),
            Request::Flows(query, reply) => {
                let view = views::list(&query, &owners(&model), table(), NOW_S);
                reply.send(Ok(view)).unwrap();
            }
            Request::Ring(service, reply) => reply.send(ring(&model, &service)).unwrap(),
            Request::Drain((service, backend), reply) => {
                drains += 1;
                let view = drain(&model, &service, &backend, drains);
                reply.send(view).unwrap();
            }
            Request::Plan(query, reply) => reply.send(plan(&model, *query)).unwrap(),
            Request::Detach(reply) => {
                reply.send(Ok(())).unwrap();
                return;
            }
            Request::Peers(_) => {}
            Request::Shutdown => return,
        }
    }
}

/// The backends by position: id and generation of the n-th are n and 1. Those of a service named `rr`
/// have all their flows on record.
fn owners(model: &Model) -> Owners {
    let services = model.services.values();
    let backends = services.flat_map(|service| {
        let entry = ServiceEntry {
            id: 1,
            idle_timeout_s: service.idle_timeout_s,
            tracks_flows: u8::from(service.tracks_flows()),
            ..ServiceEntry::zeroed()
        };
        service.backends.values().map(move |backend| FlowOwner {
            service: service.name.clone(),
            backend: backend.name.clone(),
            entry,
        })
    });
    let keys = (1..).map(|id| (id, 1));
    keys.zip(backends).collect()
}

/// Two flows of the first backend: one established and silent for 10 s of 900, one half open.
fn table() -> [TableEntry; 2] {
    let entry = |fingerprint, remaining_s, state| {
        let record = FlowRecord::new(1, 1, NOW_S + remaining_s, state);
        let origin = FlowOrigin {
            client: Address::from("192.0.2.7".parse::<IpAddr>().unwrap()),
            client_port_be: 4_000_u16.to_be(),
            port_be: 80_u16.to_be(),
            ..FlowOrigin::zeroed()
        };
        let entry = FlowEntry {
            fingerprint,
            record,
        };
        (entry, origin)
    };
    [
        entry(7, 890, FlowState::OPEN),
        entry(8, 60, FlowState::HALF_OPEN),
    ]
}

/// A ring of the service's own length, of which one slot moves from nobody known.
fn ring(model: &Model, service: &str) -> Result<RingView, EngineError> {
    let service = model.service(service)?;
    let present = Present::settled(service);
    let mut slots: Vec<Slot> = present.ring.iter().map(|id| Slot::settled(*id)).collect();
    if let Some(slot) = slots.first_mut() {
        *slot = Slot::in_transition(slot.current(), 99);
    }
    let backends = service.backends.values();
    let holders = backends.map(|backend| {
        let holder = Holder {
            name: backend.name.clone(),
            is_eligible: service.is_eligible(backend),
            is_leaving: false,
        };
        (present.ids[&(backend.address, backend.port)], holder)
    });
    Ok(views::view(service, &slots, &holders.collect(), Some(75)))
}

/// A backend loses its last flow on record at the third time of asking, and its unknown ones at the
/// fourth, unless its name says otherwise.
fn drain(
    model: &Model,
    service: &str,
    backend: &str,
    asked: u32,
) -> Result<DrainView, EngineError> {
    let found = model.service(service)?.backend(backend)?;
    let has_known = asked < 3 || backend == BUSY;
    let has_unknown = asked < 4 || backend != "web1";
    Ok(DrainView {
        admin: found.admin,
        health: found.health,
        current_count: 0,
        previous_count: 5,
        flows: FlowCounts {
            established_count: u64::from(has_known) * 2,
            ..FlowCounts::default()
        },
        certain_in_s: has_unknown.then_some(90),
    })
}

fn plan(model: &Model, query: PlanQuery) -> Result<PlanView, EngineError> {
    let (after, warnings, urgency) = match query {
        PlanQuery::Change(change) => {
            let urgency = change.urgency();
            let (after, warnings) = model.apply(change)?;
            (after, warnings, urgency)
        }
        PlanQuery::Replace(after) => (after, vec![], Urgency::Planned),
    };
    Ok(PlanView {
        forecast: forecast(model, &after, urgency, Present::settled),
        warnings: warnings.iter().map(ToString::to_string).collect(),
        restart: takes_restart(model, &after),
    })
}

fn apply(model: &mut Model, change: Change) -> Result<Vec<String>, EngineError> {
    if let Change::AddService(service) = &change {
        match service.name.as_str() {
            FULL_MAP => {
                return Err(EngineError::MapFull {
                    map: "RINGS",
                    used: 255,
                    max: 256,
                    needed: 4,
                    leaving: 0,
                    setting: "limits.ring_blocks",
                });
            }
            FAILING => return Err(EngineError::Failed(anyhow::anyhow!("EINVAL"))),
            _ => {}
        }
    }
    let (changed, warnings) = model.apply(change)?;
    *model = changed;
    Ok(warnings.iter().map(ToString::to_string).collect())
}

fn interface(name: &str, xdp: XdpMode) -> Interface {
    Interface {
        name: name.to_owned(),
        xdp,
    }
}

fn snapshot(model: &Model) -> Snapshot {
    Snapshot {
        node: model.node.clone(),
        uptime: Duration::from_millis(61_500),
        config_file: None,
        datapath: DatapathState {
            pinned: "/sys/fs/bpf/lbd/x".into(),
            abi_version: 2,
            origin: DatapathOrigin::Fresh,
            heartbeat_age: Duration::from_millis(250),
        },
        interfaces: vec![
            InterfaceState {
                interface: interface("eth0", XdpMode::Auto),
                ifindex: Some(2),
                attached: Some("generic"),
                reason: None,
            },
            InterfaceState {
                interface: interface("eth1", XdpMode::Native),
                ifindex: None,
                attached: None,
                reason: Some("no interface eth1; there is lo, eth0".to_owned()),
            },
        ],
        cluster: model.cluster.clone(),
        vrrp: model.vrrp.clone(),
        services: model.services.values().map(service_state).collect(),
        maps: vec![
            MapFill {
                map: "SERVICES",
                used: Some(1),
                max: 3,
                setting: "limits.services",
            },
            MapFill {
                map: "FLOWS",
                used: None,
                max: 4096,
                setting: "limits.flows",
            },
        ],
        rings_written_count: 5,
        passed_packets: 7,
        drops: vec![(DropReason::Truncated, 1)],
    }
}

/// Each backend holds slots by its weight, and has got 10 packets of 100 bytes.
fn service_state(service: &Service) -> ServiceState {
    let ring_len = service
        .backends
        .values()
        .map(|backend| backend.weight)
        .sum();
    let backends = service.backends.values().zip(1..);
    ServiceState {
        service: service.clone(),
        id: 1,
        ring_len,
        phases: None,
        vip_interface: Some("eth0".to_owned()),
        backends: backends
            .map(|(backend, id)| backend_state(backend, id))
            .collect(),
        leaving: vec![],
        drops: vec![(DropReason::NoBackend, 3)],
    }
}

fn backend_state(backend: &Backend, id: u16) -> BackendState {
    let next_hop = match id {
        1 => NextHop::Resolved {
            interface: "eth0".to_owned(),
            link_address: [0x02, 0, 0, 0, 0, 0x0b],
        },
        2 => NextHop::LastKnown {
            interface: "eth0".to_owned(),
            link_address: [0x02, 0, 0, 0, 0, 0x0c],
        },
        _ => NextHop::Unresolved("no route to it".to_owned()),
    };
    BackendState {
        backend: backend.clone(),
        id,
        next_hop,
        slots: backend.weight,
        stats: BackendStats {
            packets: 10,
            bytes: 1_000,
            new_flows: 2,
            ..BackendStats::default()
        },
        signals: BackendSignals::default(),
    }
}

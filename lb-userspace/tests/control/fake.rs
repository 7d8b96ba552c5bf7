//! The engine's contract without a kernel, behind the real server.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use lb_common::abi::BackendStats;
use lb_common::drop_reason::DropReason;
use lb_userspace::control::{Socket, server};
use lb_userspace::engine::snapshot::{
    BackendState, InterfaceState, MapFill, NextHop, ServiceState, Snapshot,
};
use lb_userspace::engine::{EngineError, EngineHandle, Request};
use lb_userspace::model::{Backend, Change, Interface, Limits, Model, OnStop, Service, XdpMode};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

/// A daemon with a fake engine, on a runtime of its own.
pub(crate) struct Daemon {
    pub(crate) socket: PathBuf,
    runtime: Option<Runtime>,
    stop: Option<oneshot::Sender<()>>,
    _directory: TempDir,
}

/// A service whose name makes the engine fail in the way that it says.
pub(crate) const FULL_MAP: &str = "full-map";
/// See [`FULL_MAP`].
pub(crate) const FAILING: &str = "failing-kernel";

impl Daemon {
    /// Starts with no service and room for two.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("lbd.sock");
        let bound = Socket::bind(&socket).unwrap();
        let runtime = Runtime::new().unwrap();
        let (engine, requests) = EngineHandle::new();
        let (stop, stopped) = oneshot::channel();
        runtime.spawn(serve_requests(requests));
        runtime.spawn(async move {
            let listener = bound.listener().unwrap();
            let stop = async move {
                let _dropped_or_sent = stopped.await;
            };
            server::serve(listener, engine, stop).await;
        });
        Self {
            socket,
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

async fn serve_requests(mut requests: mpsc::Receiver<Request>) {
    let mut model = Model {
        node: "lb1".to_owned(),
        interfaces: vec![],
        manage_vips: true,
        on_stop: OnStop::Keep,
        limits: Limits {
            services: 3,
            ..Limits::default()
        },
        services: BTreeMap::new(),
    };
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
            Request::Snapshot(reply) => reply.send(snapshot(&model)).unwrap(),
            Request::Shutdown => return,
        }
    }
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
        vip_interface: Some("eth0".to_owned()),
        backends: backends
            .map(|(backend, id)| backend_state(backend, id))
            .collect(),
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
    }
}

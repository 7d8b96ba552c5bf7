//! What the ids in the flow table mean, for the thread that tells flows to peers: it follows what the engine writes.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use lb_common::abi::{Backend, EndpointKey, FlowRecord, Service};
use lb_common::hash;

use super::flow_rule::Lifetime;
use super::{Entry, Key, MapState, Write};
use crate::sync::replicate::dictionary::{BackendEndpoint, Dictionary, ServiceEndpoint};

/// Services and backends in force, between the thread that writes them and the one that reads flows.
#[derive(Clone, Default)]
pub(crate) struct Meanings(Arc<Shared>);

#[derive(Default)]
struct Shared {
    /// Grows with each write; 0 = nobody wants to know.
    version: AtomicU64,
    /// `SERVICES` and `BACKENDS`; nothing else.
    state: Mutex<MapState>,
}

impl Meanings {
    /// Begins to follow, from this state on.
    pub(crate) fn begin(&self, state: &MapState) {
        let mut own = self.lock();
        own.services.clone_from(&state.services);
        own.backends.clone_from(&state.backends);
        self.0.version.fetch_add(1, Ordering::Release);
    }

    /// Follows a write that was done.
    pub(crate) fn follow(&self, write: &Write) {
        let is_of_interest = matches!(
            write,
            Write::Put(Entry::Service(..) | Entry::Backend(..))
                | Write::Delete(Key::Service(_) | Key::Backend(_))
        );
        if is_of_interest && self.version() != 0 {
            self.lock().apply(write);
            self.0.version.fetch_add(1, Ordering::Release);
        }
    }

    /// Another number than before if anything may have changed.
    pub(super) fn version(&self) -> u64 {
        self.0.version.load(Ordering::Acquire)
    }

    /// What is in force.
    pub(super) fn snapshot(&self) -> Snapshot {
        Snapshot::of(&self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, MapState> {
        // Whoever panicked has left a map with or without an entry: nothing half done.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A service, and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownService {
    pub(super) key: EndpointKey,
    pub(super) service: Service,
}

impl KnownService {
    pub(super) fn lifetime(&self) -> Lifetime {
        Lifetime {
            protocol: self.key.protocol,
            idle_timeout_s: self.service.idle_timeout_s,
        }
    }
}

/// A backend by its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KnownBackend {
    pub(super) service_id: u16,
    pub(super) generation: u16,
    /// The same number on every node, never 0.
    pub(super) identity: u64,
}

/// What ids mean, at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Snapshot {
    services: BTreeMap<u16, KnownService>,
    /// By id.
    backends: Vec<Option<KnownBackend>>,
    pub(super) dictionary: Arc<Dictionary>,
}

impl Snapshot {
    fn of(state: &MapState) -> Self {
        let services: BTreeMap<u16, KnownService> = state
            .services
            .iter()
            .map(|(key, service)| {
                let (key, service) = (*key, *service);
                (service.id, KnownService { key, service })
            })
            .collect();
        let mut dictionary = Dictionary::default();
        for (id, known) in &services {
            dictionary
                .services
                .insert(*id, service_endpoint(&known.key));
        }
        let mut backends = Vec::new();
        for (id, backend) in &state.backends {
            // What has no service is left over from a killed daemon: nothing refers to it.
            let Some(service) = services.get(&backend.service_id) else {
                continue;
            };
            let endpoint = backend_endpoint(backend, &service.key);
            let place = usize::from(*id);
            backends.resize(backends.len().max(place + 1), None);
            backends[place] = Some(KnownBackend {
                service_id: backend.service_id,
                generation: backend.generation,
                identity: hash::identity(&backend.address, endpoint.address.port()).max(1),
            });
            dictionary.backends.insert(*id, endpoint);
        }
        Self {
            services,
            backends,
            dictionary: Arc::new(dictionary),
        }
    }

    /// The same, with the dictionary of `former` if that says the same.
    pub(super) fn after(mut self, former: &Self) -> Self {
        if self.dictionary == former.dictionary {
            self.dictionary = Arc::clone(&former.dictionary);
        }
        self
    }

    pub(super) fn service(&self, id: u16) -> Option<&KnownService> {
        self.services.get(&id)
    }

    /// The backend with this id, if it still is the one of this generation.
    pub(super) fn backend(&self, id: u16, generation: u16) -> Option<&KnownBackend> {
        let known = self.backends.get(usize::from(id))?.as_ref()?;
        (known.generation == generation).then_some(known)
    }

    /// The backend of a record, and its service.
    pub(super) fn of_record(&self, record: FlowRecord) -> Option<(&KnownBackend, &KnownService)> {
        let backend = self.backend(record.backend_id(), record.backend_generation())?;
        Some((backend, self.service(backend.service_id)?))
    }
}

fn service_endpoint(key: &EndpointKey) -> ServiceEndpoint {
    ServiceEndpoint {
        vip: key.address.to_ip(),
        port: u16::from_be(key.port_be),
        protocol: key.protocol,
    }
}

/// Where the port stays as it is, it is the service's.
fn backend_endpoint(backend: &Backend, service: &EndpointKey) -> BackendEndpoint {
    let port_be = match backend.port_be {
        0 => service.port_be,
        port_be => port_be,
    };
    BackendEndpoint {
        service_id: backend.service_id,
        generation: backend.generation,
        address: SocketAddr::new(backend.address.to_ip(), u16::from_be(port_be)),
    }
}

//! The maps in the kernel.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::sync::Arc;

use anyhow::{Context, anyhow};
use aya::Ebpf;
use aya::maps::lpm_trie::{Key as LpmKey, LpmTrie};
use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues};
use aya::util::nr_cpus;
use bytemuck::Zeroable;
use lb_common::abi::{
    Address, Backend, BackendSignals, BackendStats, EndpointKey, Instance, NatReply, Neighbour,
    NeighbourKey, Route, RouteKey, Service, Slot, Vip, map_name,
};
use lb_common::drop_reason::DropReason;
use lb_common::limits::{COUNTERS_PER_SERVICE, HASH_KEY_WORDS};

use super::flow_memory::{FlowMaps, FlowMemory};
use super::meanings::Meanings;
use super::ring_memory::RingMemory;
use super::service_lines::ServiceLines;
use super::shared_flows::SharedFlows;
use super::{Entry, Key, MapState, MapStore, ServiceCounters, StoreError, Write, barrier, fault};
use crate::pins::boottime_ns;

/// A type of the map ABI in aya's hands.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Raw<T>(T);

// SAFETY: `T` is plain old data (bytemuck checks that there is no padding), and `Raw` is
// transparent.
unsafe impl<T: bytemuck::Pod> aya::Pod for Raw<T> {}

/// Overwrite or create (`BPF_ANY`).
const ANY: u64 = 0;

/// The maps of a loaded datapath.
pub struct AyaStore {
    services: HashMap<MapData, Raw<EndpointKey>, Raw<Service>>,
    service_lines: ServiceLines,
    vips: HashMap<MapData, Raw<Address>, Raw<Vip>>,
    backends: Array<MapData, Raw<Backend>>,
    nat_replies: HashMap<MapData, Raw<EndpointKey>, Raw<NatReply>>,
    routes: LpmTrie<MapData, [u8; 16], Raw<Route>>,
    neighbours: HashMap<MapData, Raw<NeighbourKey>, Raw<Neighbour>>,
    backend_stats: PerCpuArray<MapData, Raw<BackendStats>>,
    backend_signals: PerCpuArray<MapData, Raw<BackendSignals>>,
    counters: PerCpuArray<MapData, u64>,
    rounds: Array<MapData, u64>,
    rings: RingMemory,
    instance: Array<MapData, Raw<Instance>>,
    flows: Arc<FlowMemory>,
    meanings: Meanings,
}

impl AyaStore {
    /// Takes the maps out of a loaded object.
    ///
    /// # Errors
    /// If a map is missing or is not what the ABI says: the object is of another version.
    pub fn take(ebpf: &mut Ebpf) -> anyhow::Result<Self> {
        Ok(Self {
            services: take(ebpf, map_name::SERVICES)?,
            service_lines: map_service_lines(ebpf)?,
            vips: take(ebpf, map_name::VIPS)?,
            backends: take(ebpf, map_name::BACKENDS)?,
            nat_replies: take(ebpf, map_name::NAT_REPLIES)?,
            routes: take(ebpf, map_name::ROUTES)?,
            neighbours: take(ebpf, map_name::NEIGHBOURS)?,
            backend_stats: take(ebpf, map_name::BACKEND_STATS)?,
            backend_signals: take(ebpf, map_name::BACKEND_SIGNALS)?,
            counters: take(ebpf, map_name::COUNTERS)?,
            rounds: take(ebpf, map_name::ROUNDS)?,
            rings: map_rings(ebpf)?,
            instance: take(ebpf, map_name::INSTANCE)?,
            flows: Arc::new(map_flows(ebpf)?),
            meanings: Meanings::default(),
        })
    }

    /// The flow table.
    pub(crate) fn flows(&self) -> &FlowMemory {
        &self.flows
    }

    /// The flow table for the replication of flows: a handle of its own, for another thread. It follows what this
    /// store writes of services and backends.
    ///
    /// # Errors
    /// [`StoreError`] if `INSTANCE`, `SERVICES` or `BACKENDS` cannot be read.
    pub fn shared_flows(&self) -> Result<SharedFlows, StoreError> {
        let hash_key = self.instance()?.hash_key;
        self.meanings.begin(&self.read()?);
        let flows = Arc::clone(&self.flows);
        Ok(SharedFlows::new(flows, self.meanings.clone(), hash_key))
    }

    /// The secret of the flow hash that is in force.
    ///
    /// # Errors
    /// [`StoreError`] if `INSTANCE` cannot be read.
    pub fn hash_key(&self) -> Result<[u64; HASH_KEY_WORDS], StoreError> {
        Ok(self.instance()?.hash_key)
    }

    /// Notes that a daemon looks after the datapath.
    ///
    /// # Errors
    /// [`StoreError`] if `INSTANCE` cannot be read or written.
    pub(crate) fn beat(&mut self) -> Result<(), StoreError> {
        let beaten = self.instance.get(&0, 0).and_then(|Raw(mut instance)| {
            instance.daemon_pid = std::process::id();
            instance.heartbeat_ns = boottime_ns();
            self.instance.set(0, Raw(instance), ANY)
        });
        beaten.map_err(|error| StoreError {
            map: map_name::INSTANCE,
            action: "write the heartbeat".to_owned(),
            source: error.into(),
        })
    }

    /// What the datapath says of itself.
    ///
    /// # Errors
    /// [`StoreError`] if `INSTANCE` cannot be read.
    pub(crate) fn instance(&self) -> Result<Instance, StoreError> {
        let read = self.instance.get(&0, 0);
        read.map(|Raw(instance)| instance)
            .map_err(unreadable(map_name::INSTANCE))
    }

    /// Puts the lines of services in order after the death of a daemon that may have been writing;
    /// returns the number of lines that were written.
    ///
    /// # Errors
    /// [`StoreError`] if `SERVICES` cannot be read.
    pub(crate) fn repair_lines(&mut self) -> Result<usize, StoreError> {
        let services = read_hash(&self.services).map_err(unreadable(map_name::SERVICES))?;
        Ok(self.service_lines.repair(&services))
    }

    fn put(&mut self, entry: &Entry) -> Result<(), MapError> {
        match *entry {
            Entry::Service(key, value) => {
                self.services.insert(Raw(key), Raw(value), ANY)?;
                self.service_lines.put(&key, &value);
                Ok(())
            }
            Entry::Vip(key, value) => self.vips.insert(Raw(key), Raw(value), ANY),
            Entry::Backend(id, value) => self.backends.set(u32::from(id), Raw(value), ANY),
            Entry::NatReply(key, value) => self.nat_replies.insert(Raw(key), Raw(value), ANY),
            Entry::Route(key, value) => self.routes.insert(&lpm_key(&key), Raw(value), ANY),
            Entry::Neighbour(key, value) => self.neighbours.insert(Raw(key), Raw(value), ANY),
        }
    }

    fn delete(&mut self, key: &Key) -> Result<(), MapError> {
        let deleted = match *key {
            Key::Service(key) => {
                self.service_lines.delete(&key);
                self.services.remove(&Raw(key))
            }
            Key::Vip(key) => self.vips.remove(&Raw(key)),
            Key::Backend(id) => self
                .backends
                .set(u32::from(id), Raw(Backend::zeroed()), ANY),
            Key::NatReply(key) => self.nat_replies.remove(&Raw(key)),
            Key::Route(key) => self.routes.remove(&lpm_key(&key)),
            Key::Neighbour(key) => self.neighbours.remove(&Raw(key)),
        };
        match deleted {
            Err(error) if is_absent(&error) => Ok(()),
            other => other,
        }
    }

    fn zero_backend_stats(&mut self, id: u16) -> anyhow::Result<()> {
        let (stats, signals) = (
            zeros(Raw(BackendStats::zeroed()))?,
            zeros(Raw(BackendSignals::zeroed()))?,
        );
        self.backend_stats.set(u32::from(id), stats, ANY)?;
        Ok(self.backend_signals.set(u32::from(id), signals, ANY)?)
    }

    fn zero_service_counters(&mut self, service_id: u16) -> anyhow::Result<()> {
        for index in counter_indices(service_id) {
            self.counters.set(index, zeros(0)?, ANY)?;
        }
        Ok(self.rounds.set(u32::from(service_id), 0, ANY)?)
    }

    fn read_backends(&self) -> Result<BTreeMap<u16, Backend>, MapError> {
        let mut backends = BTreeMap::new();
        for index in 1..self.backends.len() {
            let Raw(backend) = self.backends.get(&index, 0)?;
            if backend.service_id != 0 {
                backends.insert(index as u16, backend);
            }
        }
        Ok(backends)
    }

    fn read_routes(&self) -> Result<BTreeMap<RouteKey, Route>, MapError> {
        self.routes
            .iter()
            .map(|entry| {
                let (key, Raw(route)) = entry?;
                let key = RouteKey {
                    prefix_len: key.prefix_len(),
                    octets: key.data(),
                };
                Ok((key, route))
            })
            .collect()
    }
}

impl MapStore for AyaStore {
    fn write(&mut self, write: &Write) -> Result<(), StoreError> {
        let done = match write {
            Write::Put(entry) => self.put(entry).map_err(anyhow::Error::from),
            Write::Delete(key) => self.delete(key).map_err(anyhow::Error::from),
            Write::Ring { block, slots } => self.rings.write(*block, slots).map_err(Into::into),
            Write::ZeroBackendStats(id) => self.zero_backend_stats(*id),
            Write::ZeroServiceCounters(id) => self.zero_service_counters(*id),
            Write::WaitForReaders => {
                barrier::wait_for_readers();
                Ok(())
            }
        };
        fault::count_write();
        if done.is_ok() {
            self.meanings.follow(write);
        }
        done.map_err(|source| StoreError {
            map: write.map(),
            action: write.to_string(),
            source,
        })
    }

    fn read(&self) -> Result<MapState, StoreError> {
        Ok(MapState {
            services: read_hash(&self.services).map_err(unreadable(map_name::SERVICES))?,
            vips: read_hash(&self.vips).map_err(unreadable(map_name::VIPS))?,
            backends: self
                .read_backends()
                .map_err(unreadable(map_name::BACKENDS))?,
            nat_replies: read_hash(&self.nat_replies).map_err(unreadable(map_name::NAT_REPLIES))?,
            routes: self.read_routes().map_err(unreadable(map_name::ROUTES))?,
            neighbours: read_hash(&self.neighbours).map_err(unreadable(map_name::NEIGHBOURS))?,
        })
    }

    fn read_ring(&self, service: &Service) -> Result<Vec<Slot>, StoreError> {
        let ring = self.rings.read(service.ring_block, service.ring_len);
        ring.map(|slots| slots.into_iter().map(Slot).collect())
            .map_err(|error| StoreError {
                map: map_name::RINGS,
                action: format!("read the ring at block {}", service.ring_block),
                source: error.into(),
            })
    }

    fn backend_stats(&self, id: u16) -> Result<BackendStats, StoreError> {
        let per_cpu = self
            .backend_stats
            .get(&u32::from(id), 0)
            .map_err(unreadable(map_name::BACKEND_STATS))?;
        let mut sum = BackendStats::default();
        for Raw(stats) in per_cpu.iter() {
            sum.add(stats);
        }
        Ok(sum)
    }

    fn backend_signals(&self, id: u16) -> Result<BackendSignals, StoreError> {
        let per_cpu = self
            .backend_signals
            .get(&u32::from(id), 0)
            .map_err(unreadable(map_name::BACKEND_SIGNALS))?;
        let mut sum = BackendSignals::default();
        for Raw(signals) in per_cpu.iter() {
            sum.add(signals);
        }
        Ok(sum)
    }

    fn service_counters(&self, service_id: u16) -> Result<ServiceCounters, StoreError> {
        let mut counters = [0; COUNTERS_PER_SERVICE as usize];
        let in_use = &mut counters[..=DropReason::ALL.len()];
        for (counter, index) in in_use.iter_mut().zip(counter_indices(service_id)) {
            let per_cpu = self
                .counters
                .get(&index, 0)
                .map_err(unreadable(map_name::COUNTERS))?;
            *counter = per_cpu.iter().sum();
        }
        Ok(counters)
    }
}

/// Takes a map out of the object under the type that the ABI gives it.
fn take<T>(ebpf: &mut Ebpf, name: &'static str) -> anyhow::Result<T>
where
    T: TryFrom<Map, Error = MapError>,
{
    let map = take_untyped(ebpf, name)?;
    T::try_from(map).with_context(|| {
        format!("map {name} is not of the expected type or size; run `cargo xtask build`")
    })
}

fn take_untyped(ebpf: &mut Ebpf, name: &'static str) -> anyhow::Result<Map> {
    ebpf.take_map(name)
        .ok_or_else(|| anyhow!("the datapath has no map {name}; run `cargo xtask build`"))
}

fn take_array(ebpf: &mut Ebpf, name: &'static str) -> anyhow::Result<MapData> {
    match take_untyped(ebpf, name)? {
        Map::Array(data) => Ok(data),
        _ => Err(anyhow!("map {name} is not an array")),
    }
}

fn map_service_lines(ebpf: &mut Ebpf) -> anyhow::Result<ServiceLines> {
    let data = take_array(ebpf, map_name::SERVICE_LINES)?;
    ServiceLines::map(data.fd().as_fd())
        .with_context(|| format!("cannot map {} into memory", map_name::SERVICE_LINES))
}

fn map_rings(ebpf: &mut Ebpf) -> anyhow::Result<RingMemory> {
    let data = take_array(ebpf, map_name::RINGS)?;
    let block_count = data.info()?.max_entries();
    RingMemory::map(data.fd().as_fd(), block_count)
        .with_context(|| format!("cannot map {block_count} blocks of {}", map_name::RINGS))
}

fn map_flows(ebpf: &mut Ebpf) -> anyhow::Result<FlowMemory> {
    let flows = take_array(ebpf, map_name::FLOWS)?;
    let origins = take_array(ebpf, map_name::FLOW_ORIGINS)?;
    let suppressed = take_array(ebpf, map_name::SUPPRESSED)?;
    let changes = take_array(ebpf, map_name::FLOW_CHANGES)?;
    let maps = FlowMaps {
        flows: flows.fd().as_fd(),
        origins: origins.fd().as_fd(),
        suppressed: suppressed.fd().as_fd(),
        changes: changes.fd().as_fd(),
        // Both are as long as the shorter one is, should they ever differ.
        set_count: flows
            .info()?
            .max_entries()
            .min(origins.info()?.max_entries()),
        service_count: suppressed.info()?.max_entries(),
    };
    FlowMemory::map(&maps).with_context(|| format!("cannot map {} into memory", map_name::FLOWS))
}

fn read_hash<K, V>(map: &HashMap<MapData, Raw<K>, Raw<V>>) -> Result<BTreeMap<K, V>, MapError>
where
    K: bytemuck::Pod + Ord,
    V: bytemuck::Pod,
{
    map.iter()
        .map(|entry| entry.map(|(Raw(key), Raw(value))| (key, value)))
        .collect()
}

fn lpm_key(key: &RouteKey) -> LpmKey<[u8; 16]> {
    LpmKey::new(key.prefix_len, key.octets)
}

fn counter_indices(service_id: u16) -> std::ops::Range<u32> {
    let first = u32::from(service_id) * COUNTERS_PER_SERVICE;
    first..first + COUNTERS_PER_SERVICE
}

fn zeros<T: aya::Pod>(zero: T) -> anyhow::Result<PerCpuValues<T>> {
    let cpu_count = nr_cpus().map_err(|(file, error)| anyhow!("cannot read {file}: {error}"))?;
    Ok(PerCpuValues::try_from(vec![zero; cpu_count])?)
}

fn is_absent(error: &MapError) -> bool {
    match error {
        MapError::KeyNotFound | MapError::ElementNotFound => true,
        MapError::SyscallError(error) => error.io_error.raw_os_error() == Some(libc::ENOENT),
        _ => false,
    }
}

fn unreadable(map: &'static str) -> impl FnOnce(MapError) -> StoreError {
    move |error| StoreError {
        map,
        action: "read".to_owned(),
        source: error.into(),
    }
}

//! The datapath's memory: what is in the maps ([`MapState`]), the writes that change it
//! ([`Write`]), and the two places that it can be in: the kernel ([`AyaStore`]) and plain memory
//! (the tests' `FakeStore`).

mod aya;
mod barrier;
#[cfg(test)]
pub(crate) mod fake;
pub(crate) mod fault;
mod flow_memory;
mod flow_merge;
pub mod flow_rule;
mod flow_words;
mod mapping;
mod meanings;
mod ring_memory;
mod service_lines;
mod shared_flows;
mod state;

use lb_common::abi::{BackendSignals, BackendStats, Service, Slot};
use lb_common::limits::COUNTERS_PER_SERVICE;

pub use self::aya::AyaStore;
pub(crate) use barrier::wait_for_readers;
pub use flow_memory::FlowMemory;
pub(crate) use flow_memory::monotonic_ms;
pub(crate) use flow_words::{Flow, FlowWords, ORIGIN_WORDS, Written};
pub(crate) use mapping::Mapping;
pub(crate) use service_lines::ServiceLines;
pub use shared_flows::SharedFlows;
pub use state::{Entry, Key, MapState, Write};

/// The counters of one service: position = drop reason, position 0 = passed packets.
pub type ServiceCounters = [u64; COUNTERS_PER_SERVICE as usize];

/// An access to the datapath's memory failed.
#[derive(Debug, thiserror::Error)]
#[error("map {map}: cannot {action}")]
pub struct StoreError {
    /// The map's name.
    pub map: &'static str,
    /// What was to be done, with the entry's name.
    pub action: String,
    /// What the kernel said.
    #[source]
    pub source: anyhow::Error,
}

/// The datapath's memory.
pub trait MapStore {
    /// Does one write.
    ///
    /// # Errors
    /// [`StoreError`]; the maps are as before then.
    fn write(&mut self, write: &Write) -> Result<(), StoreError>;

    /// Reads what is in the maps.
    ///
    /// # Errors
    /// [`StoreError`] if a map cannot be read.
    fn read(&self) -> Result<MapState, StoreError>;

    /// The ring that a service's entry refers to, slot by slot.
    ///
    /// # Errors
    /// [`StoreError`] if the entry refers to what is beyond the storage.
    fn read_ring(&self, service: &Service) -> Result<Vec<Slot>, StoreError>;

    /// The counters of a backend id, summed over the CPUs.
    ///
    /// # Errors
    /// [`StoreError`] if the map cannot be read.
    fn backend_stats(&self, id: u16) -> Result<BackendStats, StoreError>;

    /// What packets tell of a backend id, summed over the CPUs.
    ///
    /// # Errors
    /// [`StoreError`] if the map cannot be read.
    fn backend_signals(&self, id: u16) -> Result<BackendSignals, StoreError>;

    /// The counters of a service id (0 = no service), summed over the CPUs.
    ///
    /// # Errors
    /// [`StoreError`] if the map cannot be read.
    fn service_counters(&self, service_id: u16) -> Result<ServiceCounters, StoreError>;
}

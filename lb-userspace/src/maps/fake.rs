//! The maps in plain memory, for tests. Stricter than the kernel: after each write it checks that
//! no packet, not even one under way, could find a ring that refers to something not there.

use std::collections::BTreeMap;

use anyhow::anyhow;
use lb_common::abi::{BackendSignals, BackendStats, Service, Slot};
use lb_common::limits::{COUNTERS_PER_SERVICE, RING_BLOCK_SLOTS};

use super::{Entry, Key, MapState, MapStore, ServiceCounters, StoreError, Write};
use crate::desired::ring::blocks_for;

/// A store that can be told to fail.
#[derive(Clone, Debug, Default)]
pub(crate) struct FakeStore {
    state: MapState,
    rings: BTreeMap<u32, Vec<u32>>,
    /// Service entries that packets under way may still hold.
    draining: Vec<Service>,
    writes_left: Option<usize>,
    pub(crate) write_log: Vec<Write>,
}

impl FakeStore {
    /// From now on, `count` writes work and all others fail.
    pub(crate) fn fail_after(&mut self, count: usize) {
        self.writes_left = Some(count);
    }

    /// All writes work again.
    pub(crate) fn heal(&mut self) {
        self.writes_left = None;
    }

    /// The slots of the ring that a service's entry refers to.
    pub(crate) fn ring_of(&self, service: &Service) -> Vec<u32> {
        let blocks = service.ring_block..service.ring_block + blocks_for(service.ring_len);
        let mut slots: Vec<u32> = blocks
            .flat_map(|block| self.rings[&block].iter().copied())
            .collect();
        slots.truncate(service.ring_len as usize);
        slots
    }

    /// Counts a write against those that still work. Waiting always does, as in the kernel.
    fn spend(&mut self, write: &Write) -> Result<(), StoreError> {
        match &mut self.writes_left {
            Some(0) if *write != Write::WaitForReaders => Err(StoreError {
                map: write.map(),
                action: write.to_string(),
                source: anyhow!("injected"),
            }),
            Some(count) => {
                *count = count.saturating_sub(1);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn write_ring(&mut self, first_block: u32, slots: &[u32]) {
        let blocks = first_block..first_block + blocks_for(slots.len() as u32);
        for service in self.state.services.values().chain(&self.draining) {
            let used = service.ring_block..service.ring_block + blocks_for(service.ring_len);
            assert!(
                blocks.end <= used.start || used.end <= blocks.start,
                "ring blocks {blocks:?} are written while packets read {used:?}"
            );
        }
        for (block, chunk) in blocks.zip(slots.chunks(RING_BLOCK_SLOTS)) {
            self.rings.insert(block, chunk.to_vec());
        }
    }

    /// Remembers the service entry that a write takes out of use.
    fn drain(&mut self, write: &Write) {
        if let Write::Put(Entry::Service(key, _)) | Write::Delete(Key::Service(key)) = write {
            self.draining.extend(self.state.services.get(key));
        }
    }

    fn check(&self) {
        for service in self.state.services.values().chain(&self.draining) {
            for slot in self.ring_of(service) {
                let id = Slot(slot).current();
                let backend = self.state.backends.get(&id);
                assert!(
                    backend.is_some_and(|backend| backend.service_id == service.id),
                    "a ring of service {} refers to backend {id}: {backend:?}",
                    service.id
                );
            }
        }
    }
}

impl MapStore for FakeStore {
    fn write(&mut self, write: &Write) -> Result<(), StoreError> {
        self.spend(write)?;
        self.drain(write);
        match write {
            Write::Ring { block, slots } => self.write_ring(*block, slots),
            Write::WaitForReaders => self.draining.clear(),
            other => self.state.apply(other),
        }
        self.write_log.push(write.clone());
        self.check();
        Ok(())
    }

    fn read(&self) -> Result<MapState, StoreError> {
        Ok(self.state.clone())
    }

    fn read_ring(&self, service: &Service) -> Result<Vec<Slot>, StoreError> {
        Ok(self.ring_of(service).into_iter().map(Slot).collect())
    }

    fn backend_stats(&self, _id: u16) -> Result<BackendStats, StoreError> {
        Ok(BackendStats::default())
    }

    fn backend_signals(&self, _id: u16) -> Result<BackendSignals, StoreError> {
        Ok(BackendSignals::default())
    }

    fn service_counters(&self, _service_id: u16) -> Result<ServiceCounters, StoreError> {
        Ok([0; COUNTERS_PER_SERVICE as usize])
    }
}

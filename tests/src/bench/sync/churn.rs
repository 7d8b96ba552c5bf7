//! A flow table whose flows change all the time, and what its thread has used.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use lb_common::abi::{FlowEntry, FlowRecord, FlowSet, FlowState};
use lb_common::datapath::flow::FlowPlace;
use lb_common::hash;
use lb_lab::cpu::thread_time;
use lb_userspace::sync::flow::SharedFlow;
use lb_userspace::sync::replicate::dictionary::{BackendEndpoint, Dictionary, ServiceEndpoint};
use lb_userspace::sync::replicate::memory::MemoryTable;
use lb_userspace::sync::replicate::table::{Merge, Merged, Table};

/// Sets: a million entries.
const SET_COUNT: u32 = 131_072;
/// Flows that change, one after the other.
const FLOW_COUNT: u64 = 250_000;
const BACKEND_COUNT: u16 = 100;
const SERVICE_ID: u16 = 7;
/// A flow's life: as the states follow each other, so do its changes.
const STATES: [FlowState; 3] = [FlowState::HALF_OPEN, FlowState::OPEN, FlowState::FIN];
const LIFE_S: u32 = 900;

/// The table.
pub(super) struct Churn {
    table: MemoryTable,
    first_backend_id: u16,
    rate_per_s: Option<u32>,
    cpu: Option<usize>,
    looked: Option<Instant>,
    /// Parts of a change that are owed.
    owed: f64,
    /// CPU time that the changes took.
    spent: Duration,
    reading: Reading,
    gauge: Gauge,
}

/// What the thread of a table has done so far.
#[derive(Clone, Copy)]
pub(super) struct Reading {
    pub(super) at: Instant,
    /// CPU time, without that of the changes.
    pub(super) cpu: Duration,
    pub(super) changed: u64,
    pub(super) merged: u64,
}

/// Reads it from elsewhere.
#[derive(Clone)]
pub(super) struct Gauge {
    reading: Arc<Mutex<Reading>>,
    goes: Arc<AtomicBool>,
}

impl Gauge {
    /// Lets the changes begin.
    pub(super) fn go(&self) {
        self.goes.store(true, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> Reading {
        *self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Churn {
    /// A table of node 0 or 1, with so many changes a second, on a CPU.
    pub(super) fn new(node: u16, rate_per_s: Option<u32>, cpu: Option<usize>) -> (Self, Gauge) {
        let first_backend_id = 1 + node * 1000;
        let reading = Reading {
            at: Instant::now(),
            cpu: Duration::ZERO,
            changed: 0,
            merged: 0,
        };
        let gauge = Gauge {
            reading: Arc::new(Mutex::new(reading)),
            goes: Arc::default(),
        };
        let churn = Self {
            table: MemoryTable::new(SET_COUNT, dictionary(first_backend_id)),
            first_backend_id,
            rate_per_s,
            cpu,
            looked: None,
            owed: 0.0,
            spent: Duration::ZERO,
            reading,
            gauge: gauge.clone(),
        };
        (churn, gauge)
    }

    fn change(&mut self, now: Instant) {
        let since = self.looked.replace(now).map(|looked| now - looked);
        let (Some(rate_per_s), Some(since)) = (self.rate_per_s, since) else {
            return;
        };
        if !self.gauge.goes.load(Ordering::Relaxed) {
            return;
        }
        self.owed += since.as_secs_f64() * f64::from(rate_per_s);
        let now_s = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)
            .expect("the clock exists")
            .tv_sec() as u32;
        while self.owed >= 1.0 {
            self.owed -= 1.0;
            let (flow, turn) = (
                self.reading.changed % FLOW_COUNT,
                self.reading.changed / FLOW_COUNT,
            );
            let state = STATES[(turn % STATES.len() as u64) as usize];
            let backend = (flow % u64::from(BACKEND_COUNT)) as u16;
            let record = FlowRecord::new(
                self.first_backend_id + backend,
                1,
                now_s + LIFE_S + turn as u32,
                state,
            );
            let has_room = self.table.write(hash::mix(flow + 2), SERVICE_ID, record);
            assert!(has_room, "the table is a quarter full");
            self.reading.changed += 1;
        }
    }
}

/// The same service on both nodes, with other ids of the backends.
fn dictionary(first_backend_id: u16) -> Dictionary {
    let service = ServiceEndpoint {
        vip: IpAddr::from([203, 0, 113, 10]),
        port: 80,
        protocol: 6,
    };
    let backend = |number| {
        let endpoint = BackendEndpoint {
            service_id: SERVICE_ID,
            generation: 1,
            address: SocketAddr::from(([10, 0, 0, 1], 8000 + number)),
        };
        (first_backend_id + number, endpoint)
    };
    Dictionary {
        services: BTreeMap::from([(SERVICE_ID, service)]),
        backends: (0..BACKEND_COUNT).map(backend).collect(),
    }
}

impl Table for Churn {
    fn set_count(&self) -> u32 {
        self.table.set_count()
    }

    fn take_changed(&mut self, sets: &mut Vec<u32>, count_max: usize) {
        let before = thread_time().expect("the clock exists");
        if self.looked.is_none() {
            super::pin(self.cpu);
        }
        let now = Instant::now();
        self.change(now);
        self.spent += thread_time().expect("the clock exists") - before;
        self.reading.at = now;
        self.reading.cpu = before.saturating_sub(self.spent);
        *self
            .gauge
            .reading
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = self.reading;
        self.table.take_changed(sets, count_max);
    }

    fn read_set(&self, set: u32) -> FlowSet {
        self.table.read_set(set)
    }

    fn share(&self, place: FlowPlace, entry: &FlowEntry, now_s: u32) -> Option<SharedFlow> {
        self.table.share(place, entry, now_s)
    }

    fn refresh_s(&self, entry: &FlowEntry) -> u32 {
        self.table.refresh_s(entry)
    }

    fn dictionary(&self) -> Arc<Dictionary> {
        self.table.dictionary()
    }
}

impl Merge for Churn {
    fn merge(&mut self, flow: &SharedFlow, now_s: u32) -> Merged {
        self.reading.merged += 1;
        self.table.merge(flow, now_s)
    }
}

//! One of our balancers: the real datapath core, the real transition machine, the real sweep, and of the
//! engine no more than calls the one after the other.

use std::collections::BTreeSet;

use bytemuck::Zeroable as _;
use lb_common::abi::{Address, Backend, Scheduler, Service, Slot};
use lb_common::datapath::{Verdict, flow, process};
use lb_common::hash::{self, FlowTuple};
use lb_common::kernel::Kernel as _;
use lb_userspace::transition::sweep::{
    Census, Directory, Expired, Fate, Knowledge, Sweep, SweptService,
};
use lb_userspace::transition::{Facts, Phase, RingTransition};

use crate::balancer::{Balancer, LiveFlow, Segment, Vitals};
use crate::config::{Admin, BackendConfig, Config};
use crate::kernel::{FREE_ENTRY, SERVICE_ID, SimKernel};
use crate::packet::{PORT, SimPacket, Source, VIP};
use crate::rng::Rng;
use crate::rules::{Rule, Rules};

/// The most that a ring takes from its content to its being in force. Unit: milliseconds.
const WRITE_MAX_MS: u64 = 50;
/// How often the table is swept for other reasons than quiet slots. Unit: milliseconds.
const SWEEP_PERIOD_MS: u64 = 10_000;

/// What a node is made of.
#[derive(Clone, Debug)]
pub(crate) struct Build {
    pub(crate) set_count: u32,
    pub(crate) idle_timeout_s: u32,
    pub(crate) rules: Rules,
}

/// A node.
pub(crate) struct Node {
    kernel: SimKernel,
    machine: RingTransition,
    rules: Rules,
    rng: Rng,
    urgent: BTreeSet<u16>,
    down: BTreeSet<u16>,
    /// Removed backends of which flows may be left.
    leaving: BTreeSet<u16>,
    expired: Expired,
    write_due_ms: Option<u64>,
    step_due_ms: Option<u64>,
    sweep_due_ms: u64,
    write_count: usize,
    violations: Vec<String>,
}

impl Node {
    pub(crate) fn new(config: &Config, build: &Build, now_ms: u64, rng: Rng) -> Self {
        let service = Service {
            ring_block: 0,
            ring_len: config.target.len() as u32,
            idle_timeout_s: build.idle_timeout_s,
            id: SERVICE_ID,
            generation: 1,
            scheduler: Scheduler::Maglev as u8,
            tracks_flows: 0,
            ..Service::zeroed()
        };
        let rules = build.rules.clone();
        let kernel = SimKernel::new(
            build.set_count,
            config.backends.len(),
            service,
            rules.clone(),
        );
        let mut node = Self {
            kernel,
            machine: RingTransition::settled(&config.target),
            rules,
            rng,
            urgent: BTreeSet::new(),
            down: BTreeSet::new(),
            leaving: BTreeSet::new(),
            expired: Expired::Keep,
            write_due_ms: None,
            step_due_ms: None,
            sweep_due_ms: now_ms + SWEEP_PERIOD_MS,
            write_count: 0,
            violations: Vec::new(),
        };
        node.kernel.ring = node.machine.slots().to_vec();
        node.configure(config);
        node.tick(now_ms);
        node
    }

    fn step(&mut self, now_ms: u64) {
        let suppressed_s = self.kernel.suppressed_s.get();
        let settles_late = self.rules.has(Rule::SettleLate);
        let idle_timeout_s = u64::from(self.kernel.service.idle_timeout_s);
        let facts = Facts {
            // The stamp is the beginning of a second.
            suppressed_ms: (suppressed_s != 0).then(|| u64::from(suppressed_s) * 1_000 + 999),
            idle_timeout_ms: if settles_late {
                idle_timeout_s * 1_000
            } else {
                0
            },
            down: &self.down,
        };
        let step = self.machine.step(now_ms, &facts);
        if step.write && self.write_due_ms.is_none() {
            self.write_due_ms = Some(now_ms + self.rng.within(1, WRITE_MAX_MS));
        }
        if step.sweep || now_ms >= self.sweep_due_ms {
            self.sweep(now_ms);
        }
        self.step_due_ms = step.deadline_ms;
    }

    /// The ring as it is by now takes the old one's place.
    fn put_ring_in_force(&mut self, now_ms: u64) {
        let ring = self.ring_to_write();
        if self.rules.has(Rule::KeepPrevious) {
            self.check_write(&ring);
        }
        self.kernel.ring = ring;
        self.write_count += 1;
        self.machine.in_force(self.machine.revision(), now_ms);
        self.step_due_ms = Some(now_ms);
    }

    fn ring_to_write(&self) -> Vec<Slot> {
        let wanted = self.machine.slots();
        if self.rules.has(Rule::KeepPrevious) {
            return wanted.to_vec();
        }
        let pairs = self.kernel.ring.iter().zip(wanted);
        pairs
            .map(|(old, new)| match Phase::of(*new) {
                Phase::Moving if old.current() != new.current() => {
                    Slot::in_transition(new.current(), old.current())
                }
                Phase::Moving => *old,
                Phase::Settled | Phase::Armed | Phase::Quiet => *new,
            })
            .collect()
    }

    /// I1: the answer for a flow that is not on record changes only by settling. I2: that and the answer
    /// for new flows differ only where the table is consulted.
    fn check_write(&mut self, ring: &[Slot]) {
        for (slot, (old, new)) in self.kernel.ring.iter().zip(ring).enumerate() {
            let is_settling = Phase::of(*old) == Phase::Moving && new.miss() == old.current();
            if old.miss() != new.miss() && old.miss() != 0 && !is_settling {
                let text = format!("I1: slot {slot} from {old:?} to {new:?}");
                self.violations.push(text);
            }
            if new.current() != new.miss() && Phase::of(*new) != Phase::Moving {
                self.violations.push(format!("I2: slot {slot} is {new:?}"));
            }
        }
    }

    fn sweep(&mut self, now_ms: u64) {
        self.sweep_due_ms = now_ms + SWEEP_PERIOD_MS;
        let census = self.visit_all();
        let entry_count = self.kernel.entry_count() as u64;
        self.expired = Expired::by_filling(census.live_count, entry_count);
        if let Some(exceptions) = census.services.get(&SERVICE_ID) {
            let mut exceptions = exceptions.clone();
            if !self.rules.has(Rule::Quiet) {
                exceptions.by_slot.fill(0);
            }
            self.machine.swept(&exceptions, now_ms);
        }
        let machine = &self.machine;
        let is_gone = |id: &u16| !machine.refers_to(*id) && census.of_backend(*id).total() == 0;
        for id in self.leaving.iter().copied().filter(is_gone) {
            self.kernel.backends[usize::from(id)] = Backend::zeroed();
        }
        let kernel = &self.kernel;
        self.leaving
            .retain(|id| kernel.backends[usize::from(*id)].service_id != 0);
    }

    fn visit_all(&self) -> Census {
        let mut sweep = Sweep::begin(
            self.kernel.now_s,
            self.expired,
            Knowledge::Own,
            [(SERVICE_ID, &self.machine)],
        );
        for place in 0..self.kernel.entry_count() {
            let entry = self.kernel.entries[place].get();
            let displaced_id = || self.kernel.origin(place).displaced_id;
            let fate = sweep.visit(&entry, displaced_id, self);
            if fate == Fate::Delete && self.rules.has(Rule::Purge) {
                self.kernel.entries[place].set(FREE_ENTRY);
            }
        }
        sweep.end()
    }

    /// A flow's slot, and its fingerprint.
    fn slot_of(&self, source: Source) -> (Slot, u64) {
        let kernel = &self.kernel;
        let flow_hash = hash::flow(&tuple(source), &kernel.hash_key());
        let slot = hash::index(hash::upper(flow_hash), kernel.service.ring_len) as usize;
        let fingerprint = flow::fingerprint(&kernel.service, flow_hash);
        (kernel.ring[slot], fingerprint)
    }

    /// Where a flow's next segment would go.
    fn would_steer(&self, flow: &LiveFlow) -> u16 {
        let kernel = &self.kernel;
        let (slot, fingerprint) = self.slot_of(flow.source);
        if slot.is_settled() {
            return slot.current();
        }
        let is_there = |id: u16| kernel.backends[usize::from(id)].service_id != 0;
        let unknown = if is_there(slot.miss()) {
            slot.miss()
        } else {
            slot.current()
        };
        let Some((place, record)) = kernel.find(fingerprint) else {
            return unknown;
        };
        if !is_there(record.backend_id()) {
            return unknown;
        }
        let origin = kernel.origin(place);
        let is_its =
            flow.sequence.wrapping_sub(origin.sequence) < lb_common::limits::HANDSHAKE_WINDOW_BYTES;
        if !record.state().is_half_open() || is_its {
            record.backend_id()
        } else if is_there(origin.displaced_id) {
            origin.displaced_id
        } else {
            unknown
        }
    }
}

fn tuple(source: Source) -> FlowTuple {
    FlowTuple {
        source: Address::from_ipv4_be(source.address.to_be()),
        destination: Address::from_ipv4_be(VIP.to_be()),
        ports: u32::from(source.port.to_be()) << 16 | u32::from(PORT.to_be()),
    }
}

impl Directory for Node {
    fn service_of(&self, backend_id: u16, generation: u16) -> Option<SweptService<'_>> {
        let backend = self.kernel.backends.get(usize::from(backend_id))?;
        backend.is_live(generation).then_some(SweptService {
            service: self.kernel.service,
            transition: Some(&self.machine),
        })
    }
}

impl Balancer for Node {
    fn steer(&mut self, segment: &Segment) -> Option<usize> {
        self.kernel.sequence.set(segment.sequence);
        let mut packet = SimPacket::new(segment.source, segment.kind, segment.sequence);
        match process(&mut packet, &self.kernel) {
            Verdict::Transmit => Some(usize::from(self.kernel.forwarded_to.get()) - 1),
            Verdict::Pass | Verdict::Redirect(_) | Verdict::Drop(_) => None,
        }
    }

    fn tick(&mut self, now_ms: u64) {
        self.kernel.now_s = (now_ms / 1_000) as u32;
        if self.write_due_ms.is_some_and(|due_ms| now_ms >= due_ms) {
            self.write_due_ms = None;
            self.put_ring_in_force(now_ms);
        }
        let is_due = self.step_due_ms.is_some_and(|due_ms| now_ms >= due_ms);
        if is_due || now_ms >= self.sweep_due_ms {
            self.step(now_ms);
        }
    }

    fn configure(&mut self, config: &Config) {
        for (id, backend) in (1..).zip(&config.backends) {
            self.put_backend(id, backend);
        }
        self.urgent = config.urgent();
        if !self.rules.has(Rule::Prepare) {
            self.urgent = (1..=config.backends.len() as u16).collect();
        }
        self.down = config.down();
        self.machine
            .want(&config.target, &self.urgent)
            .expect("the ring keeps its length");
        self.step_due_ms = Some(0);
    }

    fn audit(&mut self, flows: &mut dyn Iterator<Item = LiveFlow>) -> Vec<String> {
        let mut found = std::mem::take(&mut self.violations);
        for flow in flows {
            let id = self.would_steer(&flow);
            if usize::from(id) != flow.backend + 1 {
                let Source { address, port } = flow.source;
                found.push(format!(
                    "I3: flow {address:#x}:{port} of backend {} would go to {id}",
                    flow.backend + 1
                ));
            }
        }
        found
    }

    fn explain(&self, source: Source) -> String {
        let (slot, fingerprint) = self.slot_of(source);
        let Some((place, record)) = self.kernel.find(fingerprint) else {
            return format!("slot {slot:?}");
        };
        let origin = self.kernel.origin(place);
        format!(
            "slot {slot:?} entry: backend {} state {:#x} for {} s, sequence {:#x}, displaced {}",
            record.backend_id(),
            record.state().0,
            record.remaining_s(self.kernel.now_s),
            origin.sequence,
            origin.displaced_id
        )
    }

    fn vitals(&self) -> Vitals {
        let is_taken = |place: &usize| self.kernel.entries[*place].get().fingerprint != 0;
        let summary = self.machine.summary();
        Vitals {
            entry_count: (0..self.kernel.entry_count()).filter(is_taken).count(),
            unsettled_count: self.kernel.ring.len() - summary.settled_count,
            quiet_count: summary.quiet_count,
            write_count: self.write_count,
            ring: self.kernel.ring.iter().map(|slot| slot.current()).collect(),
        }
    }
}

impl Node {
    fn put_backend(&mut self, id: u16, backend: &BackendConfig) {
        let old = self.kernel.backends[usize::from(id)];
        let is_down_removed = !backend.is_up && !self.rules.has(Rule::DownIsNotRemoved);
        let entry = if is_down_removed {
            Backend::zeroed()
        } else if backend.admin != Admin::Absent {
            self.leaving.remove(&id);
            SimKernel::backend_entry(id, 1, backend.is_up)
        } else if old.service_id != 0 {
            self.leaving.insert(id);
            SimKernel::backend_entry(id, 1, false)
        } else {
            Backend::zeroed()
        };
        self.kernel.backends[usize::from(id)] = entry;
    }
}

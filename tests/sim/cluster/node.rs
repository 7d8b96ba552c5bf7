//! One node of a cluster: the real datapath core, transition, sweep, coordinator and virtual router, each on the
//! node's own clock.

mod control;
mod identity;
mod replication;
mod ring;

pub(super) use self::identity::{Clock, GROUP_COUNT, SERVICE, address_of, group, name, number};
use self::ring::OneRing;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bytemuck::Zeroable as _;
use lb_common::abi::{Address, Backend, Scheduler, Service, Slot};
use lb_common::datapath::{Verdict, flow, process};
use lb_common::hash::{self, FlowTuple};
use lb_common::kernel::Kernel as _;
use lb_userspace::cluster::{Coordinator, Settings, Start};
use lb_userspace::sync::replicate::replicator::Replicator;
use lb_userspace::sync::replicate::table::Now;
use lb_userspace::transition::{Reach, RingTransition, Timing};

use super::rules::{Rule, Rules};
use super::table::SimTable;
use crate::balancer::{LiveFlow, Segment};
use crate::config::{Admin, BackendConfig, Config};
use crate::kernel::{SERVICE_ID, SimKernel};
use crate::packet::{PORT, SimPacket, Source, VIP};
use crate::rng::Rng;

/// How often the table is swept for other reasons than quiet slots. Unit: milliseconds.
const SWEEP_PERIOD_MS: u64 = 10_000;

/// What `lbd` has in memory.
pub(super) struct Control {
    pub(super) rings: OneRing,
    pub(super) coordinator: Coordinator,
    pub(super) replicator: Replicator<SimTable>,
    /// By peer: the session that is up.
    pub(super) sessions: BTreeMap<usize, u64>,
    write_due_ms: Option<u64>,
    step_due_ms: Option<u64>,
    sweep_due_ms: u64,
    urgent: BTreeSet<u16>,
    down: BTreeSet<u16>,
    leaving: BTreeSet<u16>,
}

impl Control {
    /// The age of the oldest change that any peer has not acknowledged. Unit: milliseconds.
    fn lag_ms(&self, now: Now) -> u64 {
        let sessions = self.sessions.values();
        let status = sessions.filter_map(|session| self.replicator.status(*session, now));
        status
            .map(|status| u64::from(status.lag_ms))
            .max()
            .unwrap_or(0)
    }
}

/// What a node is made of.
#[derive(Clone, Debug)]
pub(super) struct Build {
    pub(super) number: usize,
    pub(super) node_count: usize,
    pub(super) set_count: u32,
    pub(super) idle_timeout_s: u32,
    pub(super) patience_ms: u64,
    /// What a ring takes at least and at most from its content to its being in force. Unit: milliseconds.
    pub(super) write_ms: (u64, u64),
    /// What a death's move waits at most for the peers. Unit: milliseconds.
    pub(super) urgent_wait_ms: u64,
    pub(super) has_group: bool,
    pub(super) rules: Rules,
}

/// A node.
pub(super) struct Node {
    pub(super) build: Build,
    pub(super) clock: Clock,
    pub(super) kernel: SimKernel,
    /// `lbd`, if it runs.
    pub(super) control: Option<Control>,
    /// By fingerprint: when a packet has last changed the flow's record. Unit: milliseconds, the world's.
    changed_ms: HashMap<u64, u64>,
    /// Slots that are quiet here and armed by the rule that is switched off.
    quieted_early: BTreeSet<usize>,
    rng: Rng,
    violations: Vec<String>,
    pub(super) write_count: usize,
}

impl Node {
    pub(super) fn new(build: Build, clock: Clock, config: &Config, now_ms: u64, rng: Rng) -> Self {
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
        let kernel = SimKernel::new(
            build.set_count,
            config.backends.len(),
            service,
            crate::rules::Rules::default(),
        )
        .marking_changes();
        let mut node = Self {
            build,
            clock,
            kernel,
            control: None,
            changed_ms: HashMap::new(),
            quieted_early: BTreeSet::new(),
            rng,
            violations: Vec::new(),
            write_count: 0,
        };
        let machine = RingTransition::settled(&config.target);
        node.kernel.ring = machine.slots().to_vec();
        node.begin(machine, Start::Fresh, config, now_ms);
        node
    }

    /// `lbd` starts, with the ring that is in force.
    pub(super) fn start_control(&mut self, config: &Config, now_ms: u64) {
        let local_ms = self.clock.local_ms(now_ms);
        let machine = RingTransition::adopted(&self.kernel.ring, local_ms);
        self.begin(machine, Start::Adopted, config, now_ms);
    }

    fn begin(&mut self, machine: RingTransition, start: Start, config: &Config, now_ms: u64) {
        let local_ms = self.clock.local_ms(now_ms);
        self.kernel.now_s = (local_ms / 1_000) as u32;
        let others = (0..self.build.node_count).filter(|one| *one != self.build.number);
        let settings = Settings {
            node: name(self.build.number),
            peers: others.map(name).collect(),
            patience_ms: self.build.patience_ms,
        };
        let rules = &self.build.rules;
        let timing = Timing {
            urgent_wait_ms: match (rules.has(Rule::ArmedFirst), rules.has(Rule::Bound)) {
                (false, _) => 0,
                (true, false) => 1 << 40,
                (true, true) => self.build.urgent_wait_ms,
            },
            ..Timing::default()
        };
        self.control = Some(Control {
            rings: OneRing {
                machine: machine.with_timing(timing),
                suppressed_ms: None,
                lag_ms: 0,
                named: Vec::new(),
                has_group: self.build.has_group,
            },
            coordinator: Coordinator::new(settings, start, local_ms),
            replicator: Replicator::new(),
            sessions: BTreeMap::new(),
            write_due_ms: None,
            step_due_ms: Some(local_ms),
            sweep_due_ms: local_ms + SWEEP_PERIOD_MS,
            urgent: BTreeSet::new(),
            down: BTreeSet::new(),
            leaving: BTreeSet::new(),
        });
        self.configure(config);
        let now = self.moment(now_ms);
        if let Some(control) = &mut self.control {
            control.replicator.attach(SimTable::of(&self.kernel), now);
        }
    }

    /// The moment by the node's own clock.
    fn moment(&self, now_ms: u64) -> Now {
        Now {
            us: self.clock.local_ms(now_ms) * 1_000,
        }
    }

    /// What the model says, as this node knows it.
    pub(super) fn configure(&mut self, config: &Config) {
        let Some(mut control) = self.control.take() else {
            return;
        };
        for (id, backend) in (1..).zip(&config.backends) {
            self.put_backend(id, backend, &mut control);
        }
        control.urgent = config.urgent();
        control.down = config.down();
        control
            .rings
            .machine
            .want(&config.target, &control.urgent)
            .expect("the ring keeps its length");
        control.step_due_ms = Some(0);
        self.control = Some(control);
    }

    fn put_backend(&mut self, id: u16, backend: &BackendConfig, control: &mut Control) {
        let old = self.kernel.backends[usize::from(id)];
        let entry = if backend.admin != Admin::Absent {
            control.leaving.remove(&id);
            SimKernel::backend_entry(id, 1, backend.is_up)
        } else if old.service_id != 0 {
            control.leaving.insert(id);
            SimKernel::backend_entry(id, 1, false)
        } else {
            Backend::zeroed()
        };
        self.kernel.backends[usize::from(id)] = entry;
    }

    /// Something has come in: the rings are looked at again.
    pub(super) fn look_soon(&mut self) {
        if let Some(control) = &mut self.control {
            control.step_due_ms = Some(0);
        }
    }

    /// Steers a segment: the position of the backend that gets it.
    pub(super) fn steer(&mut self, segment: &Segment, now_ms: u64) -> Option<usize> {
        self.kernel.now_s = (self.clock.local_ms(now_ms) / 1_000) as u32;
        self.kernel.sequence.set(segment.sequence);
        let mut packet = SimPacket::new(segment.source, segment.kind, segment.sequence);
        let fingerprint = fingerprint_of(&self.kernel, segment.source);
        let before = self.record_of(fingerprint);
        let verdict = process(&mut packet, &self.kernel);
        if self.record_of(fingerprint) != before {
            self.changed_ms.insert(fingerprint, now_ms);
        }
        match verdict {
            Verdict::Transmit => Some(usize::from(self.kernel.forwarded_to.get()) - 1),
            Verdict::Pass | Verdict::Redirect(_) | Verdict::Drop(_) => None,
        }
    }

    /// What of a flow's record is told to peers at once.
    fn record_of(&self, fingerprint: u64) -> Option<(u16, u8)> {
        let (_, record) = self.kernel.find(fingerprint)?;
        Some((record.backend_id(), record.state().0))
    }

    /// The backend that a flow is on record with.
    pub(super) fn backend_on_record(&self, source: Source) -> Option<u16> {
        let fingerprint = fingerprint_of(&self.kernel, source);
        self.record_of(fingerprint)
            .map(|(backend_id, _)| backend_id)
    }

    /// What contradicts the invariants of this node's own ring, in words.
    pub(super) fn take_violations(&mut self) -> Vec<String> {
        std::mem::take(&mut self.violations)
    }

    /// How a flow stands here, for display.
    pub(super) fn explain(&self, source: Source) -> String {
        let flow_hash = hash::flow(&tuple(source), &self.kernel.hash_key());
        let slot = hash::index(hash::upper(flow_hash), self.kernel.service.ring_len) as usize;
        let fingerprint = flow::fingerprint(&self.kernel.service, flow_hash);
        let record = self.kernel.find(fingerprint).map(|(place, record)| {
            let origin = self.kernel.origin(place);
            format!(
                "backend {} state {:#x} for {} s, displaced {}",
                record.backend_id(),
                record.state().0,
                record.remaining_s(self.kernel.now_s),
                origin.displaced_id
            )
        });
        let lead = self.control.as_ref().map(|control| {
            let company = control.rings.machine.company();
            format!("{:?} {:?}", control.rings.machine.lead(), company.reach)
        });
        format!(
            "slot {slot} {:?}, entry: {}, {}",
            self.kernel.ring[slot],
            record.unwrap_or_else(|| "none".to_owned()),
            lead.unwrap_or_else(|| "no lbd".to_owned())
        )
    }

    /// Whether its `lbd` runs, and hears every peer that is not given up.
    pub(super) fn reaches_all(&self) -> bool {
        let reach = |control: &Control| control.rings.machine.company().reach;
        self.control.as_ref().map(reach) == Some(Reach::All)
    }

    /// Whether the record of these ports is of a connection that has ended, and has expired.
    pub(super) fn has_ended_record(&self, source: Source) -> bool {
        let found = self.kernel.find(fingerprint_of(&self.kernel, source));
        found.is_some_and(|(_, record)| {
            record.state().is_closing() && record.remaining_s(self.kernel.now_s) < 0
        })
    }

    /// The slot that a flow's hash names.
    pub(super) fn slot_of(&self, source: Source) -> Slot {
        let flow_hash = hash::flow(&tuple(source), &self.kernel.hash_key());
        let slot = hash::index(hash::upper(flow_hash), self.kernel.service.ring_len);
        self.kernel.ring[slot as usize]
    }

    /// Whether this flow would go to its backend.
    pub(super) fn would_keep(&self, flow: &LiveFlow) -> bool {
        let flow_hash = hash::flow(&tuple(flow.source), &self.kernel.hash_key());
        let slot = self.slot_of(flow.source);
        let fingerprint = flow::fingerprint(&self.kernel.service, flow_hash);
        let record = self.kernel.find(fingerprint).filter(|_| !slot.is_settled());
        let id = record.map_or(slot.miss(), |(_, record)| record.backend_id());
        usize::from(id) == flow.backend + 1
    }
}

fn tuple(source: Source) -> FlowTuple {
    FlowTuple {
        source: Address::from_ipv4_be(source.address.to_be()),
        destination: Address::from_ipv4_be(VIP.to_be()),
        ports: u32::from(source.port.to_be()) << 16 | u32::from(PORT.to_be()),
    }
}

fn fingerprint_of(kernel: &SimKernel, source: Source) -> u64 {
    let flow_hash = hash::flow(&tuple(source), &kernel.hash_key());
    flow::fingerprint(&kernel.service, flow_hash)
}

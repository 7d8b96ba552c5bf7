//! One node of a cluster: the real datapath core, transition, sweep, coordinator and virtual router, each on the
//! node's own clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use bytemuck::Zeroable as _;
use lb_common::abi::{Address, Backend, Scheduler, Service, Slot};
use lb_common::datapath::{Verdict, flow, process};
use lb_common::hash::{self, FlowTuple};
use lb_common::kernel::Kernel as _;
use lb_userspace::cluster::message::{Had, Message, ServiceEndpoint};
use lb_userspace::cluster::{Coordinator, GroupId, Output, Rings, Settings, SharedService, Start};
use lb_userspace::sync::kind;
use lb_userspace::sync::replicate::message::FlowsAck;
use lb_userspace::sync::replicate::replicator::{FlowsStatus, Replicator};
use lb_userspace::sync::replicate::table::Now;
use lb_userspace::transition::sweep::{
    Directory, Exceptions, Expired, Fate, Knowledge, Sweep, SweptService,
};
use lb_userspace::transition::{
    Company, Facts, Members, Phase, Reach, RingTransition, Settling, Timing,
};
use lb_userspace::vrrp::protocol::Family;

use super::flows::{Outbox, Said};
use super::rules::{Rule, Rules};
use super::table::SimTable;
use crate::balancer::{LiveFlow, Segment};
use crate::config::{Admin, BackendConfig, Config};
use crate::kernel::{FREE_ENTRY, SERVICE_ID, SimKernel};
use crate::packet::{PORT, SimPacket, Source, VIP};
use crate::rng::Rng;

/// The most that a ring takes from its content to its being in force. Unit: milliseconds.
const WRITE_MAX_MS: u64 = 30;
/// How often the table is swept for other reasons than quiet slots. Unit: milliseconds.
const SWEEP_PERIOD_MS: u64 = 10_000;
/// Until a mark is looked at, at most. Unit: milliseconds.
const LOOK_MS: u64 = 10;
/// The backends' port.
const BACKEND_PORT: u16 = 80;

/// The one service.
pub(super) const SERVICE: ServiceEndpoint = ServiceEndpoint {
    vip: IpAddr::V4(Ipv4Addr::from_bits(VIP)),
    port: PORT,
    protocol: 6,
};

/// The one group.
pub(super) fn group() -> GroupId {
    ("web".to_owned(), Family::Ipv4)
}

/// A node's name by its number.
pub(super) fn name(number: usize) -> String {
    format!("lb{number}")
}

/// A node's number by its name.
pub(super) fn number(name: &str) -> usize {
    name.trim_start_matches("lb").parse().unwrap_or(usize::MAX)
}

/// Where the backend with this id is.
pub(super) fn address_of(backend_id: u16) -> SocketAddr {
    let [high, low] = backend_id.to_be_bytes();
    SocketAddr::from(([10, 1, high, low], BACKEND_PORT))
}

/// A clock of a node's own: it began at another moment, and is a little fast or slow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    pub(super) offset_ms: u64,
    /// Unit: parts per million.
    pub(super) drift_ppm: i64,
}

impl Clock {
    pub(super) fn local_ms(self, now_ms: u64) -> u64 {
        let drift_ms = now_ms as i64 / 1_000 * self.drift_ppm / 1_000;
        (now_ms + self.offset_ms).saturating_add_signed(drift_ms)
    }
}

/// The rings of a node: one.
pub(super) struct OneRing {
    pub(super) machine: RingTransition,
    suppressed_ms: Option<u64>,
    lag_ms: u64,
    has_group: bool,
    /// Backends of peers' rings, whose entries are to be there.
    named: Vec<u16>,
}

impl Rings for OneRing {
    fn services(&self) -> Vec<SharedService> {
        vec![SharedService {
            endpoint: SERVICE,
            group: self.has_group.then(group),
        }]
    }

    fn transition(&mut self, _service: &ServiceEndpoint) -> Option<&mut RingTransition> {
        Some(&mut self.machine)
    }

    fn transition_to_follow(&mut self, _service: &ServiceEndpoint) -> Option<&mut RingTransition> {
        Some(&mut self.machine)
    }

    fn address_of(&self, _service: &ServiceEndpoint, backend_id: u16) -> Option<SocketAddr> {
        Some(address_of(backend_id))
    }

    fn ids_of(
        &mut self,
        _service: &ServiceEndpoint,
        backends: &[SocketAddr],
    ) -> Result<Vec<u16>, String> {
        let id = |address: &SocketAddr| match address.ip() {
            IpAddr::V4(ip) => Ok(u16::from_be_bytes([ip.octets()[2], ip.octets()[3]])),
            IpAddr::V6(_) => Err("no backend of ours".to_owned()),
        };
        let ids: Vec<u16> = backends.iter().map(id).collect::<Result<_, _>>()?;
        self.named.extend(&ids);
        Ok(ids)
    }

    fn suppressed_ms(&self, _service: &ServiceEndpoint) -> Option<u64> {
        self.suppressed_ms
    }

    fn flow_lag_ms(&self) -> u64 {
        self.lag_ms
    }
}

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
        let default = Timing::default();
        let timing = Timing {
            urgent_wait_ms: match (rules.has(Rule::ArmedFirst), rules.has(Rule::Bound)) {
                (false, _) => 0,
                (true, false) => 1 << 40,
                (true, true) => default.urgent_wait_ms,
            },
            ..default
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

    /// Time passes for the control plane; what it has to say to its peers comes out.
    pub(super) fn tick(&mut self, now_ms: u64) -> Vec<Output> {
        let Some(mut control) = self.control.take() else {
            return Vec::new();
        };
        let local_ms = self.clock.local_ms(now_ms);
        self.kernel.now_s = (local_ms / 1_000) as u32;
        if control
            .write_due_ms
            .is_some_and(|due_ms| local_ms >= due_ms)
        {
            control.write_due_ms = None;
            self.put_ring_in_force(&mut control, local_ms);
        }
        let due_ms = control.coordinator.deadline_ms().into_iter();
        let due_ms = due_ms.chain(control.step_due_ms).min();
        let is_due = due_ms.is_some_and(|due_ms| local_ms >= due_ms);
        if is_due || local_ms >= control.sweep_due_ms {
            self.look(&mut control, now_ms, local_ms);
        }
        let mut outputs = control.coordinator.take_outputs();
        self.control = Some(control);
        self.censor(&mut outputs);
        outputs
    }

    /// Takes out of messages what rules that are switched off would have said.
    fn censor(&self, outputs: &mut [Output]) {
        let rules = &self.build.rules;
        for output in outputs {
            match &mut output.message {
                Message::Report(report) if !rules.has(Rule::Hearsay) => report.suppressed.clear(),
                Message::Standing(standing) if !rules.has(Rule::Standing) => {
                    standing.ring = Had::Nothing;
                }
                _ => {}
            }
        }
    }

    fn look(&mut self, control: &mut Control, now_ms: u64, local_ms: u64) {
        let rules = self.build.rules.clone();
        let suppressed_s = self.kernel.suppressed_s.get();
        let stamp_ms = (suppressed_s != 0).then(|| u64::from(suppressed_s) * 1_000 + 999);
        let now = self.moment(now_ms);
        control.rings.suppressed_ms = stamp_ms;
        control.rings.lag_ms = control.lag_ms(now);
        control
            .coordinator
            .before_look(&mut control.rings, local_ms);
        for id in std::mem::take(&mut control.rings.named) {
            self.be_known(control, id);
        }
        let elsewhere_ms = control.coordinator.suppressed_ms(&SERVICE);
        let machine = &mut control.rings.machine;
        if !rules.has(Rule::Cut) && machine.company().reach == Reach::Cut {
            let company = Company {
                reach: Reach::All,
                settling: Settling::Free,
                ..machine.company()
            };
            machine.keep_company(company, local_ms);
        }
        let facts = Facts {
            suppressed_ms: stamp_ms.max(elsewhere_ms),
            idle_timeout_ms: u64::from(self.kernel.service.idle_timeout_s) * 1_000,
            down: &control.down,
        };
        let step = machine.step(local_ms, &facts);
        control.coordinator.after_look(&mut control.rings);
        let machine = &control.rings.machine;
        let is_written = machine.slots() == self.kernel.ring;
        if is_written {
            self.tell_written(control, local_ms);
        } else if control.write_due_ms.is_none() {
            control.write_due_ms = Some(local_ms + self.rng.within(1, WRITE_MAX_MS));
        }
        if step.sweep || local_ms >= control.sweep_due_ms {
            self.sweep(control, local_ms);
        }
        control.step_due_ms = step.deadline_ms.filter(|due_ms| *due_ms > local_ms);
        if step.deadline_ms.is_some_and(|due_ms| due_ms <= local_ms) {
            control.step_due_ms = Some(local_ms + 10);
        }
    }

    /// A backend that a peer has named, and that the model does not have, stays as long as flows refer to it.
    fn be_known(&mut self, control: &mut Control, id: u16) {
        let entry = &mut self.kernel.backends[usize::from(id)];
        if entry.service_id == 0 {
            *entry = SimKernel::backend_entry(id, 1, false);
            control.leaving.insert(id);
        }
    }

    /// A session with a peer has begun.
    pub(super) fn session_up(&mut self, peer: usize, session: u64, now_ms: u64) -> Vec<Said> {
        let now = self.moment(now_ms);
        let mut outbox = Outbox::default();
        if let Some(control) = &mut self.control {
            control.sessions.insert(peer, session);
            control.replicator.session_up(session, now, &mut outbox);
        }
        outbox.said
    }

    /// It has ended.
    pub(super) fn session_down(&mut self, peer: usize) {
        if let Some(control) = &mut self.control
            && let Some(session) = control.sessions.remove(&peer)
        {
            control.replicator.session_down(session);
        }
    }

    /// Does what is due in the replication of flows; what is to be sent comes out.
    pub(super) fn replicate(&mut self, now_ms: u64) -> Vec<Said> {
        let now = self.moment(now_ms);
        let mut outbox = Outbox::default();
        self.take_in_strangers();
        let Some(control) = &mut self.control else {
            return outbox.said;
        };
        if let Some(table) = control.replicator.table_mut() {
            table.learn_backends(&self.kernel.backends);
        }
        control.replicator.tick(now, &mut outbox);
        let rules = &self.build.rules;
        if !rules.has(Rule::Replication) {
            outbox.said.iter_mut().for_each(Said::leave_out_flows);
        }
        if !rules.has(Rule::Retransmission) {
            for session in control.sessions.values() {
                let sent = outbox.said.iter().filter(|said| said.session == *session);
                if let Some(latest) = sent.filter_map(Said::flows_number).max() {
                    let ack = FlowsAck {
                        latest,
                        earlier: [u64::MAX; 4],
                        dictionary_version: 1,
                        ..FlowsAck::default()
                    };
                    let ack = bytemuck::bytes_of(&ack);
                    let taken =
                        control
                            .replicator
                            .take_datagram(*session, kind::FLOWS_ACK, ack, now);
                    taken.expect("it was sent");
                }
            }
        }
        outbox.said
    }

    /// Makes entries for backends that peers have flows of, and this node nothing.
    fn take_in_strangers(&mut self) {
        let Some(mut control) = self.control.take() else {
            return;
        };
        let sessions = control.sessions.values();
        let strangers: Vec<SocketAddr> = sessions
            .flat_map(|session| control.replicator.take_strangers(*session))
            .map(|(_, address)| address)
            .collect();
        let ids = control.rings.ids_of(&SERVICE, &strangers);
        control.rings.named.clear();
        for id in ids.unwrap_or_default() {
            self.be_known(&mut control, id);
        }
        self.control = Some(control);
    }

    /// Takes a datagram of the replication; what contradicts the protocol is noted.
    pub(super) fn take_flows(&mut self, session: u64, kind: u16, payload: &[u8], now_ms: u64) {
        let now = self.moment(now_ms);
        self.kernel.now_s = now.s();
        if let Some(control) = &mut self.control {
            if let Some(table) = control.replicator.table_mut() {
                table.learn_backends(&self.kernel.backends);
            }
            let taken = control
                .replicator
                .take_datagram(session, kind, payload, now);
            // Without the rule, the peer acknowledges what was taken for acknowledged.
            if let Err(malformed) = taken {
                self.violations.push(malformed.to_string());
            }
        }
    }

    /// Takes a frame of the replication.
    pub(super) fn take_words(&mut self, session: u64, kind: u16, payload: &[u8]) {
        if let Some(control) = &mut self.control
            && let Err(malformed) = control.replicator.take_frame(session, kind, payload)
        {
            self.violations.push(malformed.to_string());
        }
    }

    fn tell_written(&self, control: &mut Control, local_ms: u64) {
        let rings = &mut control.rings;
        let is_any_new = control.coordinator.after_write(rings, local_ms);
        if !self.build.rules.has(Rule::Acknowledgements) {
            let revision = rings.machine.revision();
            rings.machine.in_force(revision, local_ms);
        }
        if is_any_new {
            control.step_due_ms = Some(0);
        }
    }

    fn put_ring_in_force(&mut self, control: &mut Control, local_ms: u64) {
        let ring = self.ring_to_write(&control.rings.machine);
        self.check_write(&ring);
        self.kernel.ring = ring;
        self.write_count += 1;
        self.tell_written(control, local_ms);
        control.step_due_ms = Some(0);
    }

    fn ring_to_write(&self, machine: &RingTransition) -> Vec<Slot> {
        let rules = &self.build.rules;
        let pairs = self.kernel.ring.iter().zip(machine.slots());
        let written = pairs.map(|(old, new)| {
            let is_same = old.current() == new.current();
            match (Phase::of(*old), Phase::of(*new)) {
                (Phase::Settled, Phase::Quiet) if is_same && !rules.has(Rule::Consult) => *old,
                (Phase::Moving, Phase::Armed) if is_same && !rules.has(Rule::Landing) => {
                    new.quieted()
                }
                _ => *new,
            }
        });
        written.collect()
    }

    /// I2: the answer for a flow that is not on record and that for new flows differ only where the table is
    /// consulted.
    fn check_write(&mut self, ring: &[Slot]) {
        for (slot, new) in ring.iter().enumerate() {
            if new.current() != new.miss() && Phase::of(*new) != Phase::Moving {
                self.violations.push(format!("I2: slot {slot} is {new:?}"));
            }
        }
    }

    fn sweep(&mut self, control: &mut Control, local_ms: u64) {
        control.sweep_due_ms = local_ms + SWEEP_PERIOD_MS;
        let directory = Owners {
            kernel: &self.kernel,
            machine: &control.rings.machine,
        };
        let transitions = [(SERVICE_ID, &control.rings.machine)];
        let mut sweep = Sweep::begin(
            self.kernel.now_s,
            Expired::Keep,
            Knowledge::Shared,
            transitions,
        );
        for place in 0..self.kernel.entry_count() {
            let entry = self.kernel.entries[place].get();
            let displaced_id = || self.kernel.origin(place).displaced_id;
            if sweep.visit(&entry, displaced_id, &directory) == Fate::Delete {
                self.kernel.entries[place].set(FREE_ENTRY);
            }
        }
        let census = sweep.end();
        if let Some(exceptions) = census.services.get(&SERVICE_ID) {
            let machine = &mut control.rings.machine;
            machine.swept(exceptions, local_ms);
            if !self.build.rules.has(Rule::ClearEverywhere) {
                let nothing = Exceptions {
                    revision: exceptions.revision,
                    by_slot: vec![0; exceptions.by_slot.len()],
                };
                for peer in 0..Members::PEERS_MAX {
                    machine.swept_by(Members::peer(peer), &nothing, local_ms);
                }
            }
            control
                .coordinator
                .swept(&SERVICE, exceptions, local_ms, local_ms);
        }
        let machine = &control.rings.machine;
        let is_gone = |id: &u16| !machine.refers_to(*id) && !census.has_flows(*id);
        for id in control.leaving.iter().copied().filter(is_gone) {
            self.kernel.backends[usize::from(id)] = Backend::zeroed();
        }
        let kernel = &self.kernel;
        control
            .leaving
            .retain(|id| kernel.backends[usize::from(*id)].service_id != 0);
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

    /// Whether a flow's record may not have reached a peer, by what replication says of itself: the age of the
    /// oldest change that is not acknowledged.
    pub(super) fn is_unsynced(&self, source: Source, peer: usize, now_ms: u64) -> bool {
        let Some(status) = self.flows_status(peer, now_ms) else {
            return true;
        };
        let fingerprint = fingerprint_of(&self.kernel, source);
        let changed_ms = self.changed_ms.get(&fingerprint).copied().unwrap_or(0);
        // Marks that nobody has looked at: `lbd` does not run.
        let (first, second) = flow::sets(fingerprint, self.kernel.flow_set_count());
        let is_marked = [first, second]
            .iter()
            .any(|set| self.kernel.is_marked(*set));
        is_marked
            || !status.has_told_all
            || now_ms <= changed_ms + u64::from(status.lag_ms) + LOOK_MS
    }

    /// How replication with a peer stands; `None`: there is no session.
    fn flows_status(&self, peer: usize, now_ms: u64) -> Option<FlowsStatus> {
        let control = self.control.as_ref()?;
        let session = control.sessions.get(&peer)?;
        control.replicator.status(*session, self.moment(now_ms))
    }

    /// A peer whose flows are not all here.
    pub(super) fn lacks_flows_of(&self, now_ms: u64) -> Option<usize> {
        let peers = self.control.as_ref()?.sessions.keys().copied();
        let mut behind = peers.filter(|peer| {
            let status = self.flows_status(*peer, now_ms);
            status.is_some_and(|status| !status.is_caught_up)
        });
        behind.next()
    }

    /// What contradicts the invariants, in words: I3 for all live flows that this node has to forward.
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

    /// Whether this flow would go to its backend.
    pub(super) fn would_keep(&self, flow: &LiveFlow) -> bool {
        let flow_hash = hash::flow(&tuple(flow.source), &self.kernel.hash_key());
        let slot = hash::index(hash::upper(flow_hash), self.kernel.service.ring_len) as usize;
        let slot = self.kernel.ring[slot];
        let fingerprint = flow::fingerprint(&self.kernel.service, flow_hash);
        let record = self.kernel.find(fingerprint).filter(|_| !slot.is_settled());
        let id = record.map_or(slot.miss(), |(_, record)| record.backend_id());
        usize::from(id) == flow.backend + 1
    }
}

struct Owners<'n> {
    kernel: &'n SimKernel,
    machine: &'n RingTransition,
}

impl Directory for Owners<'_> {
    fn service_of(&self, backend_id: u16, generation: u16) -> Option<SweptService<'_>> {
        let backend = self.kernel.backends.get(usize::from(backend_id))?;
        backend.is_live(generation).then_some(SweptService {
            service: self.kernel.service,
            transition: Some(self.machine),
        })
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

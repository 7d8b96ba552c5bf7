//! What `lbd` does as time passes: it looks at its ring, puts it in force, and sweeps the flow table.

use bytemuck::Zeroable as _;
use lb_common::abi::{Backend, Slot};
use lb_userspace::cluster::Output;
use lb_userspace::cluster::message::{Had, Message};
use lb_userspace::transition::sweep::{
    Directory, Exceptions, Expired, Fate, Knowledge, Sweep, SweptService,
};
use lb_userspace::transition::{Company, Facts, Members, Phase, Reach, RingTransition, Settling};

use super::identity::SERVICE;
use super::{Control, Node, SWEEP_PERIOD_MS};
use crate::cluster::rules::Rule;
use crate::kernel::{FREE_ENTRY, SERVICE_ID, SimKernel};

impl Node {
    /// Time passes for the control plane; what it has to say to its peers comes out.
    pub(in crate::cluster) fn tick(&mut self, now_ms: u64) -> Vec<Output> {
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
            let (least_ms, most_ms) = self.build.write_ms;
            control.write_due_ms = Some(local_ms + self.rng.within(least_ms, most_ms));
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
    pub(super) fn be_known(&mut self, control: &mut Control, id: u16) {
        let entry = &mut self.kernel.backends[usize::from(id)];
        if entry.service_id == 0 {
            *entry = SimKernel::backend_entry(id, 1, false);
            control.leaving.insert(id);
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

    fn ring_to_write(&mut self, machine: &RingTransition) -> Vec<Slot> {
        let rules = &self.build.rules;
        let mut ring = machine.slots().to_vec();
        for (number, (old, new)) in self.kernel.ring.iter().zip(&mut ring).enumerate() {
            let is_same = old.current() == new.current();
            let phases = (Phase::of(*old), Phase::of(*new));
            if !rules.has(Rule::Consult) && is_same && phases == (Phase::Settled, Phase::Quiet) {
                *new = *old;
            }
            if !rules.has(Rule::Landing) {
                let has_moved = phases.0 == Phase::Moving || self.quieted_early.contains(&number);
                if is_same && has_moved && phases.1 == Phase::Armed {
                    *new = new.quieted();
                    self.quieted_early.insert(number);
                } else {
                    self.quieted_early.remove(&number);
                }
            }
        }
        ring
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

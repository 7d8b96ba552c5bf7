//! A test for each rule.

use std::collections::BTreeSet;

use lb_common::abi::Slot;

use super::sweep::Exceptions;
use super::*;

const IDLE_MS: u64 = 60_000;
const NO_BACKENDS: BTreeSet<u16> = BTreeSet::new();

const fn settled(current: u16) -> Slot {
    Slot::settled(current)
}

const fn armed(current: u16) -> Slot {
    Slot::in_transition(current, current)
}

const fn moving(current: u16, previous: u16) -> Slot {
    Slot::in_transition(current, previous)
}

const fn quiet(current: u16) -> Slot {
    armed(current).quieted()
}

/// A machine with its surroundings: a clock, and a kernel that takes every ring at once.
struct Bench {
    machine: RingTransition,
    now_ms: u64,
    suppressed_ms: Option<u64>,
    down: BTreeSet<u16>,
    writes: usize,
}

impl Bench {
    fn new(machine: RingTransition) -> Self {
        Self {
            machine,
            now_ms: 1_000_000,
            suppressed_ms: None,
            down: BTreeSet::new(),
            writes: 0,
        }
    }

    fn settled(backends: &[u16]) -> Self {
        Self::new(RingTransition::settled(backends))
    }

    /// One step, its ring not put in force.
    fn step_only(&mut self) -> Step {
        let facts = Facts {
            suppressed_ms: self.suppressed_ms,
            idle_timeout_ms: IDLE_MS,
            down: &self.down,
        };
        self.machine.step(self.now_ms, &facts)
    }

    fn step(&mut self) -> Step {
        loop {
            let step = self.step_only();
            if !step.write {
                return step;
            }
            self.writes += 1;
            let revision = self.machine.revision();
            self.machine.in_force(revision, self.now_ms);
        }
    }

    fn want(&mut self, target: &[u16]) {
        self.machine.want(target, &NO_BACKENDS).unwrap();
        self.step();
    }

    fn want_urgently(&mut self, target: &[u16], urgent: u16) {
        self.machine
            .want(target, &BTreeSet::from([urgent]))
            .unwrap();
        self.step();
    }

    /// Time passes, step by step as the machine asks for it.
    fn pass(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        loop {
            let deadline_ms = self.step().deadline_ms;
            match deadline_ms.filter(|deadline_ms| *deadline_ms <= until_ms) {
                Some(deadline_ms) if deadline_ms > self.now_ms => self.now_ms = deadline_ms,
                Some(_) => self.now_ms += 10,
                None => break,
            }
            if self.now_ms >= until_ms {
                break;
            }
        }
        self.now_ms = until_ms;
        self.step();
    }

    fn sweep(&mut self, by_slot: &[u32]) {
        let exceptions = Exceptions {
            revision: self.machine.revision(),
            by_slot: by_slot.to_vec(),
        };
        self.machine.swept(&exceptions, self.now_ms);
        self.pass(1_000);
    }

    #[track_caller]
    fn check(&self, slots: &[Slot]) {
        assert_eq!(self.machine.slots(), slots);
    }
}

#[test]
fn a_planned_change_is_prepared_for_as_long_as_a_handshake_takes() {
    let mut bench = Bench::settled(&[1, 1, 2]);
    bench.want(&[1, 3, 3]);
    bench.check(&[settled(1), armed(1), armed(2)]);
    bench.pass(1_499);
    bench.check(&[settled(1), armed(1), armed(2)]);
    bench.pass(1);
    bench.check(&[settled(1), moving(3, 1), moving(3, 2)]);
    assert_eq!(bench.writes, 2);
}

#[test]
fn preparation_counts_from_when_the_armed_ring_is_in_force() {
    let mut bench = Bench::settled(&[1]);
    bench.machine.want(&[2], &NO_BACKENDS).unwrap();
    assert!(bench.step_only().write);
    let revision = bench.machine.revision();
    bench.now_ms += 5_000;
    assert!(bench.step_only().write, "still to be written");
    bench.check(&[armed(1)]);
    bench.machine.in_force(revision, bench.now_ms);
    let step = bench.step();
    assert_eq!(step.deadline_ms, Some(bench.now_ms + 1_500));
    bench.check(&[armed(1)]);
    bench.pass(1_500);
    bench.check(&[moving(2, 1)]);
}

#[test]
fn a_dead_backends_slots_change_at_once_and_no_others_do() {
    let mut bench = Bench::settled(&[1, 2, 3]);
    bench.want_urgently(&[2, 3, 3], 1);
    bench.check(&[moving(2, 1), armed(2), settled(3)]);
    bench.pass(1_500);
    bench.check(&[moving(2, 1), moving(3, 2), settled(3)]);
}

#[test]
fn a_death_cuts_a_preparation_short() {
    let mut bench = Bench::settled(&[1]);
    bench.want(&[2]);
    bench.pass(100);
    bench.check(&[armed(1)]);
    bench.want_urgently(&[2], 1);
    bench.check(&[moving(2, 1)]);
}

#[test]
fn a_moving_slot_changes_at_once_and_keeps_its_previous() {
    let mut bench = Bench::settled(&[1]);
    bench.want(&[2]);
    bench.pass(1_500);
    bench.want(&[3]);
    bench.check(&[moving(3, 1)]);
    bench.want(&[4]);
    bench.check(&[moving(4, 1)]);
}

#[test]
fn another_target_during_preparation_does_not_begin_it_anew() {
    let mut bench = Bench::settled(&[1]);
    bench.want(&[2]);
    bench.pass(1_000);
    bench.want(&[3]);
    bench.pass(500);
    bench.check(&[moving(3, 1)]);
}

#[test]
fn a_change_taken_back_is_quiet_not_settled() {
    let mut bench = Bench::settled(&[1, 1]);
    bench.want(&[2, 1]);
    bench.want(&[1, 1]);
    bench.pass(1_000);
    bench.check(&[quiet(1), settled(1)]);

    let mut flapped = Bench::settled(&[1]);
    flapped.want(&[2]);
    flapped.pass(1_500);
    flapped.check(&[moving(2, 1)]);
    flapped.want(&[1]);
    flapped.pass(1_000);
    flapped.check(&[quiet(1)]);
}

#[test]
fn a_moving_slot_becomes_quiet_an_idle_time_out_after_its_change() {
    let mut bench = Bench::settled(&[1, 1]);
    bench.want(&[2, 1]);
    bench.pass(1_500);
    bench.pass(30_000);
    bench.want(&[2, 3]);
    bench.pass(29_999);
    bench.check(&[moving(2, 1), moving(3, 1)]);
    bench.pass(1);
    bench.check(&[quiet(2), moving(3, 1)]);
    bench.pass(31_500);
    bench.check(&[quiet(2), quiet(3)]);
}

#[test]
fn each_change_of_current_restarts_a_slots_clock() {
    let mut bench = Bench::settled(&[1]);
    bench.want(&[2]);
    bench.pass(1_500 + IDLE_MS - 1);
    bench.want(&[3]);
    bench.pass(IDLE_MS - 1);
    bench.check(&[moving(3, 1)]);
    bench.pass(1);
    bench.check(&[quiet(3)]);
}

#[test]
fn a_suppressed_flow_keeps_every_slot_moving() {
    let mut bench = Bench::settled(&[1]);
    bench.want(&[2]);
    bench.pass(1_500 + 50_000);
    bench.suppressed_ms = Some(bench.now_ms);
    bench.pass(IDLE_MS - 1);
    bench.check(&[moving(2, 1)]);
    bench.pass(1);
    bench.check(&[quiet(2)]);
}

#[test]
fn a_takeover_restarts_all_clocks() {
    let mut bench = Bench::settled(&[1]);
    bench.want(&[2]);
    bench.pass(1_500 + IDLE_MS - 1);
    bench.machine.restart_clocks(bench.now_ms);
    bench.pass(IDLE_MS - 1);
    bench.check(&[moving(2, 1)]);
    bench.pass(1);
    bench.check(&[quiet(2)]);
}

#[test]
fn a_quiet_slot_settles_when_a_sweep_finds_no_exception() {
    let mut bench = Bench::settled(&[1, 1]);
    bench.want(&[2, 2]);
    bench.pass(1_500 + IDLE_MS);
    bench.check(&[quiet(2), quiet(2)]);
    assert!(bench.step().sweep);
    bench.sweep(&[0, 7]);
    bench.check(&[settled(2), quiet(2)]);
    assert_eq!(bench.machine.summary().exception_count, 7);
    bench.sweep(&[0, 0]);
    bench.check(&[settled(2), settled(2)]);
    assert!(bench.machine.is_settled());
    assert_eq!(bench.step().deadline_ms, None);
}

#[test]
fn a_sweep_that_began_before_the_slot_was_quiet_says_nothing() {
    let mut bench = Bench::settled(&[1]);
    bench.want(&[2]);
    bench.pass(1_500);
    let before = Exceptions {
        revision: bench.machine.revision(),
        by_slot: vec![0],
    };
    bench.pass(IDLE_MS);
    bench.check(&[quiet(2)]);
    bench.machine.swept(&before, bench.now_ms);
    bench.pass(1_000);
    bench.check(&[quiet(2)]);
}

#[test]
fn only_quiet_slots_in_force_are_swept() {
    let mut bench = Bench::settled(&[1, 1]);
    bench.want(&[2, 1]);
    assert_eq!(bench.machine.sweepable(0), None, "armed");
    bench.pass(1_500);
    assert_eq!(bench.machine.sweepable(0), None, "moving");
    bench.now_ms += IDLE_MS;
    assert!(bench.step_only().write);
    bench.check(&[quiet(2), settled(1)]);
    assert_eq!(bench.machine.sweepable(0), None, "not in force");
    bench.step();
    assert_eq!(bench.machine.sweepable(0), Some(2));
    assert_eq!(bench.machine.sweepable(1), None, "settled");
}

#[test]
fn a_quiet_slot_is_armed_again_and_a_sweep_before_that_does_not_count() {
    let mut bench = Bench::settled(&[1]);
    bench.want(&[2]);
    bench.pass(1_500 + IDLE_MS);
    let exceptions = Exceptions {
        revision: bench.machine.revision(),
        by_slot: vec![0],
    };
    bench.want(&[3]);
    bench.check(&[armed(2)]);
    bench.machine.swept(&exceptions, bench.now_ms);
    bench.pass(1_500);
    bench.check(&[moving(3, 2)]);
}

#[test]
fn an_urgent_change_of_a_quiet_slot_moves_it_at_once() {
    let mut bench = Bench::settled(&[1]);
    bench.want(&[2]);
    bench.pass(1_500 + IDLE_MS);
    bench.want_urgently(&[3], 2);
    bench.check(&[moving(3, 2)]);
}

#[test]
fn settling_writes_at_most_one_ring_a_second() {
    let slots = 50;
    let mut bench = Bench::settled(&vec![1; slots]);
    for changed in 1..=slots {
        let target: Vec<u16> = (0..slots)
            .map(|slot| 1 + u16::from(slot < changed))
            .collect();
        bench.want(&target);
        bench.pass(100);
    }
    bench.pass(1_500);
    let before = bench.writes;
    bench.pass(IDLE_MS);
    assert_eq!(bench.machine.summary().quiet_count, slots);
    assert!(
        bench.writes - before <= 6,
        "{} writes",
        bench.writes - before
    );
}

#[test]
fn a_dead_previous_is_given_up_when_flows_find_no_room() {
    let mut bench = Bench::settled(&[1, 2]);
    bench.down = BTreeSet::from([1]);
    bench.want_urgently(&[3, 3], 1);
    bench.pass(1_500);
    bench.check(&[moving(3, 1), moving(3, 2)]);
    bench.pass(20_000);
    bench.check(&[moving(3, 1), moving(3, 2)]);
    bench.suppressed_ms = Some(bench.now_ms);
    bench.pass(1_000);
    bench.check(&[quiet(3), moving(3, 2)]);
}

#[test]
fn a_false_alarm_is_waited_for_even_without_room() {
    let mut bench = Bench::settled(&[1]);
    bench.down = BTreeSet::from([1]);
    bench.want_urgently(&[3], 1);
    bench.suppressed_ms = Some(bench.now_ms);
    bench.pass(9_999);
    bench.check(&[moving(3, 1)]);
    bench.down = BTreeSet::new();
    bench.pass(20_000);
    bench.check(&[moving(3, 1)]);
}

#[test]
fn a_slot_without_backend_takes_one_at_once_and_never_settles_on_none() {
    let mut bench = Bench::settled(&[0, 1]);
    bench.want(&[2, 0]);
    bench.check(&[settled(2), armed(1)]);
    bench.pass(1_500);
    bench.check(&[settled(2), moving(0, 1)]);
    bench.pass(2 * IDLE_MS);
    bench.check(&[settled(2), moving(0, 1)]);
    bench.want(&[2, 3]);
    bench.check(&[settled(2), moving(3, 1)]);
}

#[test]
fn an_empty_ring_takes_any_length_and_another_one_keeps_its_own() {
    let mut bench = Bench::settled(&[]);
    bench.want(&[1, 2]);
    bench.check(&[settled(1), settled(2)]);
    let refused = bench.machine.want(&[1, 2, 3], &NO_BACKENDS);
    assert_eq!(
        refused,
        Err(RingLengthChanged {
            actual: 2,
            wanted: 3
        })
    );
    bench.check(&[settled(1), settled(2)]);
}

#[test]
fn an_adopted_ring_starts_its_clocks_anew() {
    let found = [settled(1), armed(1), moving(2, 1), quiet(2)];
    let mut bench = Bench::new(RingTransition::adopted(&found, 1_000_000));
    bench.step();
    bench.check(&[settled(1), quiet(1), moving(2, 1), quiet(2)]);
    bench.pass(IDLE_MS - 1);
    bench.check(&[settled(1), quiet(1), moving(2, 1), quiet(2)]);
    bench.pass(1_000);
    bench.check(&[settled(1), quiet(1), quiet(2), quiet(2)]);
    bench.sweep(&[0; 4]);
    bench.check(&[settled(1), settled(1), settled(2), settled(2)]);
}

#[test]
fn an_adopted_change_under_way_goes_on_if_it_is_still_wanted() {
    let found = [armed(1), moving(2, 1)];
    let mut bench = Bench::new(RingTransition::adopted(&found, 1_000_000));
    bench.want(&[2, 2]);
    bench.check(&[armed(1), moving(2, 1)]);
    bench.pass(1_500);
    bench.check(&[moving(2, 1), moving(2, 1)]);
}

#[test]
fn backends_are_referred_to_until_their_slots_have_settled() {
    let mut bench = Bench::settled(&[1]);
    bench.want(&[2]);
    assert_eq!(bench.machine.backends(), BTreeSet::from([1, 2]));
    bench.pass(1_500 + IDLE_MS - 1);
    assert!(bench.machine.refers_to(1) && bench.machine.refers_to(2));
    bench.pass(1);
    assert!(!bench.machine.refers_to(1) && bench.machine.refers_to(2));
}

#[test]
fn nothing_is_due_where_nothing_changes() {
    let mut bench = Bench::settled(&[1, 2]);
    bench.want(&[1, 2]);
    let step = bench.step();
    let nothing = Step {
        write: false,
        sweep: false,
        deadline_ms: None,
    };
    assert_eq!((step, bench.writes), (nothing, 0));
    assert_eq!(bench.machine.summary().settled_count, 2);
}

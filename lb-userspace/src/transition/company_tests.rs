//! A test for each rule of rings that several nodes have.

use std::collections::BTreeSet;

use lb_common::abi::Slot;

use super::sweep::Exceptions;
use super::*;

const IDLE_MS: u64 = 60_000;
const PEER: Members = Members::peer(0);
const TOGETHER: Company = Company {
    present: PEER,
    reach: Reach::All,
    settling: Settling::Free,
};
const CUT: Company = Company {
    present: Members::NONE,
    reach: Reach::Cut,
    settling: Settling::Free,
};

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

/// A machine in company; acknowledgements come when the test says so.
struct Bench {
    machine: RingTransition,
    now_ms: u64,
    down: BTreeSet<u16>,
}

impl Bench {
    fn new(backends: &[u16], company: Company) -> Self {
        let mut bench = Self {
            machine: RingTransition::settled(backends),
            now_ms: 1_000_000,
            down: BTreeSet::new(),
        };
        bench.machine.keep_company(company, bench.now_ms);
        bench
    }

    fn step(&mut self) -> Step {
        let facts = Facts {
            suppressed_ms: None,
            idle_timeout_ms: IDLE_MS,
            down: &self.down,
        };
        self.machine.step(self.now_ms, &facts)
    }

    /// Everybody has the ring as it is.
    fn acknowledge(&mut self) {
        let revision = self.machine.revision();
        self.machine.in_force(revision, self.now_ms);
        self.step();
    }

    fn want(&mut self, target: &[u16], urgent: &[u16]) {
        let urgent = urgent.iter().copied().collect();
        self.machine.want(target, &urgent).unwrap();
        self.step();
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.step();
    }

    fn sweeps(&mut self, whose: Members, by_slot: &[u32]) {
        let exceptions = Exceptions {
            revision: self.machine.revision(),
            by_slot: by_slot.to_vec(),
        };
        if whose == Members::SELF {
            self.machine.swept(&exceptions, self.now_ms);
        } else {
            self.machine.swept_by(whose, &exceptions, self.now_ms);
        }
        self.step();
    }

    #[track_caller]
    fn check(&self, slots: &[Slot]) {
        assert_eq!(self.machine.slots(), slots);
    }

    /// A moved ring, in force everywhere for an idle time-out and what hearsay takes.
    fn moved() -> Self {
        let mut bench = Self::new(&[1], TOGETHER);
        bench.want(&[2], &[]);
        bench.acknowledge();
        bench.pass(1_500);
        bench.check(&[moving(2, 1)]);
        bench.acknowledge();
        bench.pass(IDLE_MS + Timing::default().hearsay_ms);
        bench
    }

    /// The same, quiet everywhere.
    fn quieted() -> Self {
        let mut bench = Self::moved();
        bench.acknowledge();
        bench.pass(1_000);
        bench.check(&[quiet(2)]);
        bench.acknowledge();
        bench
    }
}

#[test]
fn a_planned_change_waits_for_the_armed_ring_everywhere() {
    let mut bench = Bench::new(&[1], TOGETHER);
    bench.want(&[2], &[]);
    bench.check(&[armed(1)]);
    bench.pass(60_000);
    bench.check(&[armed(1)]);
    bench.acknowledge();
    bench.pass(1_499);
    bench.check(&[armed(1)]);
    bench.pass(1);
    bench.check(&[moving(2, 1)]);
}

#[test]
fn a_dead_backends_slots_are_armed_everywhere_before_they_move() {
    let mut bench = Bench::new(&[1, 2], TOGETHER);
    bench.want(&[2, 2], &[1]);
    bench.check(&[armed(1), settled(2)]);
    bench.pass(20);
    bench.check(&[armed(1), settled(2)]);
    bench.acknowledge();
    bench.check(&[moving(2, 1), settled(2)]);
}

#[test]
fn a_dead_backends_slots_wait_no_longer_than_their_bound() {
    let mut bench = Bench::new(&[1], TOGETHER);
    bench.want(&[2], &[1]);
    let step = bench.step();
    assert_eq!(step.deadline_ms, Some(bench.now_ms + 300));
    bench.pass(299);
    bench.check(&[armed(1)]);
    bench.pass(1);
    bench.check(&[moving(2, 1)]);
}

#[test]
fn a_quiet_slot_that_is_so_everywhere_moves_at_once_when_its_backend_dies() {
    let mut bench = Bench::quieted();
    bench.want(&[3], &[2]);
    bench.check(&[moving(3, 2)]);
}

#[test]
fn a_moving_slot_is_armed_everywhere_before_it_is_quiet_anywhere() {
    let mut bench = Bench::moved();
    bench.check(&[armed(2)]);
    bench.pass(5_000);
    bench.check(&[armed(2)]);
    bench.acknowledge();
    bench.pass(1_000);
    bench.check(&[quiet(2)]);
}

#[test]
fn the_idle_time_out_counts_from_when_the_change_is_in_force_everywhere() {
    let mut bench = Bench::new(&[1], TOGETHER);
    bench.want(&[2], &[]);
    bench.acknowledge();
    bench.pass(1_500);
    bench.pass(2 * IDLE_MS);
    bench.check(&[moving(2, 1)]);
    bench.acknowledge();
    bench.pass(IDLE_MS);
    bench.check(&[moving(2, 1)]);
    bench.pass(Timing::default().hearsay_ms);
    bench.check(&[armed(2)]);
}

#[test]
fn a_slot_settles_when_all_have_found_nothing_twice() {
    let mut bench = Bench::quieted();
    bench.sweeps(Members::SELF, &[0]);
    bench.sweeps(PEER, &[0]);
    bench.pass(2_000);
    bench.sweeps(Members::SELF, &[0]);
    bench.sweeps(PEER, &[0]);
    bench.check(&[quiet(2)]);
    bench.pass(2_000);
    bench.sweeps(Members::SELF, &[0]);
    bench.pass(1_000);
    bench.check(&[quiet(2)]);
    bench.sweeps(PEER, &[0]);
    bench.pass(1_000);
    bench.check(&[settled(2)]);
}

#[test]
fn what_one_node_finds_again_keeps_the_slot_quiet_everywhere() {
    let mut bench = Bench::quieted();
    bench.sweeps(Members::SELF, &[0]);
    bench.sweeps(PEER, &[0]);
    bench.pass(4_000);
    bench.sweeps(Members::SELF, &[0]);
    bench.sweeps(PEER, &[1]);
    bench.pass(4_000);
    bench.sweeps(PEER, &[0]);
    bench.pass(1_000);
    bench.check(&[quiet(2)]);
    bench.pass(4_000);
    bench.sweeps(Members::SELF, &[0]);
    bench.sweeps(PEER, &[0]);
    bench.pass(1_000);
    bench.check(&[settled(2)]);
}

#[test]
fn nothing_settles_while_it_is_not_known_how_peers_fare() {
    let mut bench = Bench::new(&[1], TOGETHER);
    bench.want(&[2], &[]);
    bench.acknowledge();
    bench.pass(1_500);
    bench.acknowledge();
    let ignorant = Company {
        settling: Settling::Withheld,
        ..TOGETHER
    };
    bench.machine.keep_company(ignorant, bench.now_ms);
    bench.pass(2 * IDLE_MS);
    bench.check(&[moving(2, 1)]);
    bench.machine.keep_company(TOGETHER, bench.now_ms);
    bench.pass(0);
    bench.check(&[armed(2)]);
}

#[test]
fn while_a_peer_is_silent_planned_changes_wait_and_nothing_settles() {
    let mut bench = Bench::moved();
    bench.acknowledge();
    bench.pass(1_000);
    bench.check(&[quiet(2)]);
    bench.machine.keep_company(CUT, bench.now_ms);
    bench.acknowledge();
    bench.want(&[3], &[]);
    bench.pass(10 * IDLE_MS);
    bench.check(&[quiet(2)]);
    assert_eq!(bench.machine.sweepable(0), None, "nothing is forgotten");
    assert_eq!(bench.step().deadline_ms, None);
    bench.machine.keep_company(TOGETHER, bench.now_ms);
    bench.pass(0);
    bench.check(&[armed(2)]);
}

#[test]
fn in_a_cut_new_flows_go_where_unknown_ones_go_unless_that_backend_is_dead() {
    let mut bench = Bench::new(&[1, 4], TOGETHER);
    bench.want(&[2, 2], &[]);
    bench.acknowledge();
    bench.pass(1_500);
    bench.acknowledge();
    bench.want(&[2, 2], &[4]);
    bench.check(&[moving(2, 1), moving(2, 4)]);
    bench.machine.keep_company(CUT, bench.now_ms);
    bench.pass(0);
    bench.check(&[armed(1), moving(2, 4)]);
    bench.machine.keep_company(TOGETHER, bench.now_ms);
    bench.acknowledge();
    bench.pass(1_500);
    bench.check(&[moving(2, 1), moving(2, 4)]);
}

#[test]
fn in_a_cut_deaths_go_ahead_at_once() {
    let mut bench = Bench::new(&[1, 2], TOGETHER);
    bench.machine.keep_company(CUT, bench.now_ms);
    bench.want(&[2, 2], &[1]);
    bench.check(&[moving(2, 1), settled(2)]);
}

#[test]
fn a_follower_has_what_its_owner_says_and_nothing_else() {
    let mut bench = Bench::new(&[1, 1], TOGETHER);
    bench.machine.follow(&[moving(3, 1), armed(1)]);
    bench.acknowledge();
    bench.want(&[2, 2], &[1, 3]);
    bench.pass(10 * IDLE_MS);
    bench.check(&[moving(3, 1), armed(1)]);
    assert_eq!(bench.step().deadline_ms, None);
    bench.machine.follow(&[settled(7)]);
    bench.check(&[settled(7)]);
}

#[test]
fn who_takes_the_lead_goes_on_with_what_it_has_once_that_is_in_force_everywhere() {
    let mut bench = Bench::new(&[1, 1, 1], TOGETHER);
    bench.machine.follow(&[moving(3, 1), armed(1), settled(1)]);
    bench.acknowledge();
    bench.machine.take_lead(bench.now_ms);
    bench.want(&[3, 3, 1], &[]);
    bench.pass(10 * IDLE_MS);
    bench.check(&[moving(3, 1), armed(1), settled(1)]);
    bench.acknowledge();
    bench.pass(1_500);
    bench.check(&[moving(3, 1), moving(3, 1), settled(1)]);
}

#[test]
fn settled_slots_that_somebody_may_have_moved_consult_until_nothing_is_found() {
    let mut bench = Bench::new(&[1, 1, 0], Company::default());
    bench.machine.consult(|_| true);
    bench.check(&[quiet(1), quiet(1), settled(0)]);
    bench.acknowledge();
    bench.pass(2_000);
    bench.sweeps(Members::SELF, &[0, 2, 0]);
    bench.pass(1_000);
    bench.check(&[settled(1), quiet(1), settled(0)]);
}

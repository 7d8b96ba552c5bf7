//! Two records of one flow, in two tables: which is the later?
//!
//! Tables are compared where one takes the place of another, and where the nodes of a cluster tell each other
//! their flows. The answer is the same on both sides, whoever asks, so that both tables end with the same.
//!
//! When a record expires says nothing: a flow that has just begun is kept for a minute, one that ended long ago
//! for a quarter of an hour. What counts is when its last packet came, and that follows from both.

use std::cmp::{Ordering, Reverse};

use lb_common::abi::{FlowRecord, FlowState};
use lb_common::datapath::life;

use crate::sync::flow::untold_s;

/// How long a service keeps its flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// IP protocol number.
    pub protocol: u8,
    /// Idle time-out. Unit: seconds.
    pub idle_timeout_s: u32,
}

impl Lifetime {
    /// How long ago the flow's last packet came that has written its record, on the clock of `now_s`. Unit:
    /// seconds. A record that lives longer than its state says counts as written now: the time-out was
    /// longer then, or another CPU's clock is ahead.
    pub fn age_s(&self, record: FlowRecord, now_s: u32) -> u32 {
        let linger_s = life::linger_s(record.state(), self.protocol, self.idle_timeout_s);
        let age_s = i64::from(linger_s) - i64::from(record.remaining_s(now_s));
        u32::try_from(age_s).unwrap_or(0)
    }

    /// Whether the flow of a record that expires in `remaining_s` may live, where peers have had packets of it that
    /// they did not live to tell of ([`untold_s`]). What has begun to end is not kept any longer, and a handshake
    /// is over sooner than that.
    pub fn may_live(&self, state: FlowState, remaining_s: i32) -> bool {
        let is_lasting = !state.is_half_open() && !state.is_closing();
        let untold_s = untold_s(self.idle_timeout_s) as i32;
        remaining_s >= 0 || is_lasting && remaining_s >= -untold_s
    }
}

/// A flow as one table has it, in terms that mean the same in every table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// How long ago its last packet came ([`Lifetime::age_s`]). Unit: seconds.
    pub age_s: u32,
    /// Where it is in its life.
    pub state: FlowState,
    /// The sequence number of its SYN, or of the packet that it was learned from; 0 for UDP.
    pub sequence: u32,
    /// Its backend: any number that no other backend has, in either table. Never 0.
    pub backend: u64,
    /// The backend of the flow that it has displaced; 0 = none.
    pub displaced: u64,
}

/// How exactly ages of two tables compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clocks {
    /// One clock stamps both tables.
    Same,
    /// Each has its own: what is told in whole seconds is off by one.
    Each,
}

impl Clocks {
    const fn slack_s(self) -> u32 {
        match self {
            Self::Same => 0,
            Self::Each => 1,
        }
    }
}

/// Which of two records of a flow is the later: `Greater` if it is `one`. `Equal` only if they tell the same.
///
/// The later packet decides. Within a second it is the further one in the life of the same handshake; of two
/// handshakes the one that has displaced the other; then one that a SYN has opened, before one that was learned;
/// then a half-open one, whose SYN found the other at its end; then the one whose client has counted on
/// (RFC 9293, section 3.4.1: initial sequence numbers grow with time). What is left was decided by nobody, and
/// is decided here.
pub fn compare(one: &Sighting, other: &Sighting, clocks: Clocks) -> Ordering {
    if one.age_s.abs_diff(other.age_s) > clocks.slack_s() {
        return other.age_s.cmp(&one.age_s);
    }
    let decided = if one.sequence == other.sequence {
        progress(one.state).cmp(&progress(other.state))
    } else {
        of_two_handshakes(one, other)
    };
    decided
        .then_with(|| Reverse(one.age_s).cmp(&Reverse(other.age_s)))
        .then_with(|| one.backend.cmp(&other.backend))
        .then_with(|| one.state.cmp(&other.state))
        .then_with(|| one.displaced.cmp(&other.displaced))
}

/// Never `Equal`: the sequence numbers differ.
fn of_two_handshakes(one: &Sighting, other: &Sighting) -> Ordering {
    let is_opened = |sighting: &Sighting| !sighting.state.has(FlowState::LEARNED);
    let is_half_open = |sighting: &Sighting| sighting.state.is_half_open();
    let has_displaced = |later: &Sighting, earlier: &Sighting| later.displaced == earlier.backend;
    has_displaced(one, other)
        .cmp(&has_displaced(other, one))
        .then_with(|| is_opened(one).cmp(&is_opened(other)))
        .then_with(|| is_half_open(one).cmp(&is_half_open(other)))
        .then_with(|| in_sequence(one.sequence, other.sequence))
}

/// Serial number arithmetic (RFC 1982): numbers half the circle apart are ordered by their size.
fn in_sequence(one: u32, other: u32) -> Ordering {
    match one.wrapping_sub(other) as i32 {
        i32::MIN => one.cmp(&other),
        distance => distance.cmp(&0),
    }
}

/// How far a connection has come. What a segment takes back (the end of probation, a RST that was not the
/// client's) can only be told by its time.
fn progress(state: FlowState) -> u8 {
    let ends = [FlowState::FIN, FlowState::FIN_ACKED, FlowState::HALF_CLOSED];
    let ended = ends.iter().filter(|end| state.has(**end)).count() as u8;
    if state.is_half_open() {
        0
    } else if state.has(FlowState::LEARNED) {
        1
    } else {
        2 + ended + 4 * u8::from(state.has(FlowState::RST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lb_common::limits::{FIN_LINGER_S, HALF_OPEN_TIMEOUT_S};
    use lb_common::wire::tcp::PROTOCOL_TCP;
    use proptest::prelude::*;

    const NOW_S: u32 = 10_000;
    const TCP: Lifetime = Lifetime {
        protocol: PROTOCOL_TCP,
        idle_timeout_s: 900,
    };

    fn sighting(age_s: u32, state: FlowState, sequence: u32, backend: u64) -> Sighting {
        Sighting {
            age_s,
            state,
            sequence,
            backend,
            displaced: 0,
        }
    }

    #[track_caller]
    fn is_later(later: &Sighting, earlier: &Sighting) {
        for clocks in [Clocks::Same, Clocks::Each] {
            assert_eq!(compare(later, earlier, clocks), Ordering::Greater);
            assert_eq!(compare(earlier, later, clocks), Ordering::Less);
        }
    }

    #[test]
    fn a_record_is_as_old_as_its_last_packet() {
        let record = |remaining_s, state| FlowRecord::new(1, 1, NOW_S + remaining_s, state);
        let age_s = |remaining_s, state| TCP.age_s(record(remaining_s, state), NOW_S);
        assert_eq!(age_s(890, FlowState::OPEN), 10);
        assert_eq!(age_s(HALF_OPEN_TIMEOUT_S, FlowState::HALF_OPEN), 0);
        assert_eq!(age_s(FIN_LINGER_S - 2, FlowState::FIN), 2);
        assert_eq!(age_s(901, FlowState::OPEN), 0, "another CPU is ahead");
        let expired = FlowRecord::new(1, 1, NOW_S - 5, FlowState::OPEN);
        assert_eq!(TCP.age_s(expired, NOW_S), 905);
        let udp = Lifetime {
            protocol: 17,
            idle_timeout_s: 60,
        };
        let probed = FlowRecord::new(1, 1, NOW_S + 50, FlowState::HALF_OPEN);
        assert_eq!(udp.age_s(probed, NOW_S), 10);
    }

    #[test]
    fn a_port_used_again_is_later_than_its_former_flow_that_lives_longer() {
        is_later(
            &sighting(0, FlowState::HALF_OPEN, 900, 2),
            &sighting(3, FlowState::OPEN, 100, 1),
        );
        is_later(
            &sighting(0, FlowState::OPEN, 100, 2),
            &sighting(3, FlowState::HALF_OPEN, 900, 1),
        );
    }

    #[test]
    fn a_handshake_goes_on_within_a_second() {
        let lives = [
            FlowState::HALF_OPEN,
            FlowState::OPEN,
            FlowState::FIN,
            FlowState::FIN.with(FlowState::FIN_ACKED),
            FlowState::FIN
                .with(FlowState::FIN_ACKED)
                .with(FlowState::HALF_CLOSED),
        ];
        for pair in lives.windows(2) {
            is_later(&sighting(1, pair[1], 100, 1), &sighting(1, pair[0], 100, 1));
        }
        let reset = FlowState::OPEN.with(FlowState::RST);
        is_later(
            &sighting(1, reset, 100, 1),
            &sighting(1, FlowState::OPEN, 100, 1),
        );
    }

    #[test]
    fn of_two_handshakes_in_a_second_the_one_that_found_the_other_is_later() {
        let former = sighting(0, FlowState::FIN, 100, 1);
        is_later(&sighting(0, FlowState::HALF_OPEN, 7, 2), &former);
        let learned = sighting(0, FlowState::LEARNED, 500, 1);
        is_later(&sighting(0, FlowState::OPEN, 7, 2), &learned);
        let displacing = Sighting {
            displaced: 1,
            ..sighting(0, FlowState::OPEN, 7, 2)
        };
        is_later(&displacing, &sighting(0, FlowState::HALF_OPEN, 100, 1));
        // The client counts on, beyond the end of its numbers too.
        is_later(
            &sighting(0, FlowState::OPEN, 5, 1),
            &sighting(0, FlowState::OPEN, u32::MAX - 5, 2),
        );
    }

    #[test]
    fn a_clock_of_its_own_is_a_second_off() {
        let handshake = sighting(1, FlowState::HALF_OPEN, 900, 2);
        let former = sighting(0, FlowState::FIN, 100, 1);
        assert_eq!(compare(&handshake, &former, Clocks::Same), Ordering::Less);
        assert_eq!(
            compare(&handshake, &former, Clocks::Each),
            Ordering::Greater
        );
        let earlier = sighting(2, FlowState::HALF_OPEN, 900, 2);
        assert_eq!(compare(&earlier, &former, Clocks::Each), Ordering::Less);
    }

    fn any_sighting() -> impl Strategy<Value = Sighting> {
        // Few values, so that ties are common.
        let sequences = prop_oneof![Just(0), Just(9), Just(1 << 31), any::<u32>()];
        (0..3_u32, any::<u8>(), sequences, 1..3_u64, 0..3_u64).prop_map(
            |(age_s, state, sequence, backend, displaced)| Sighting {
                age_s,
                state: FlowState(state),
                sequence,
                backend,
                displaced,
            },
        )
    }

    proptest! {
        #[test]
        fn both_sides_decide_the_same(one in any_sighting(), other in any_sighting()) {
            for clocks in [Clocks::Same, Clocks::Each] {
                let order = compare(&one, &other, clocks);
                prop_assert_eq!(order, compare(&other, &one, clocks).reverse());
                prop_assert_eq!(order == Ordering::Equal, one == other);
            }
        }
    }
}

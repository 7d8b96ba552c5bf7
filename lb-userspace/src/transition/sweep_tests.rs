use lb_common::abi::{FlowState, Slot};

use super::*;

const NOW_S: u32 = 1_000;
const RING_LEN: usize = 64;
const SLOT: usize = 5;
const QUIET_BACKEND: u16 = 2;

const SERVICE: Service = Service {
    ring_block: 0,
    ring_len: RING_LEN as u32,
    idle_timeout_s: 60,
    id: 9,
    generation: 4,
    scheduler: 0,
    tracks_flows: 0,
    new_flows: 0,
    pad: 0,
};

/// Backends 1 to 3 belong to the service, in generation 1.
struct OneService(RingTransition);

impl Directory for OneService {
    fn service_of(&self, backend_id: u16, generation: u16) -> Option<SweptService<'_>> {
        ((1..=3).contains(&backend_id) && generation == 1).then_some(SweptService {
            service: SERVICE,
            transition: Some(&self.0),
        })
    }
}

/// A ring of which [`SLOT`] alone is quiet.
fn directory() -> OneService {
    let mut slots = [Slot::in_transition(3, 1); RING_LEN];
    slots[SLOT] = Slot::in_transition(QUIET_BACKEND, QUIET_BACKEND).quieted();
    OneService(RingTransition::adopted(&slots, 0))
}

/// An entry of a flow in this slot.
fn entry(slot: usize, record: FlowRecord) -> FlowEntry {
    let flow_hash = ((slot as u64) << (u64::BITS - RING_LEN.ilog2())) + (1 << 40);
    let fingerprint = flow::fingerprint(&SERVICE, flow_hash);
    assert_eq!(slot_of(&SERVICE, fingerprint, RING_LEN as u32), slot);
    FlowEntry {
        fingerprint,
        record,
    }
}

fn record(backend_id: u16, remaining_s: i32, state: FlowState) -> FlowRecord {
    FlowRecord::new(backend_id, 1, NOW_S.wrapping_add_signed(remaining_s), state)
}

/// A sweep over one entry.
fn visit(expired: Expired, entry: FlowEntry, displaced_id: u16) -> (Fate, Census) {
    visit_knowing(Knowledge::Own, expired, entry, displaced_id)
}

fn visit_knowing(
    knowledge: Knowledge,
    expired: Expired,
    entry: FlowEntry,
    displaced_id: u16,
) -> (Fate, Census) {
    let directory = directory();
    let mut sweep = Sweep::begin(NOW_S, expired, knowledge, [(SERVICE.id, &directory.0)]);
    let fate = sweep.visit(&entry, || displaced_id, &directory);
    (fate, sweep.end())
}

fn exceptions(census: &Census) -> u32 {
    census.services[&SERVICE.id].by_slot.iter().sum()
}

#[test]
fn a_live_flow_of_another_backend_is_an_exception() {
    let found = entry(SLOT, record(1, 10, FlowState::OPEN));
    let (fate, census) = visit(Expired::Delete, found, 0);
    assert_eq!(fate, Fate::Keep);
    assert_eq!(census.services[&SERVICE.id].by_slot[SLOT], 1);
}

#[test]
fn what_a_quiet_slot_says_itself_and_what_has_expired_is_purged() {
    for purged in [
        record(QUIET_BACKEND, 10, FlowState::OPEN),
        record(QUIET_BACKEND, 10, FlowState::HALF_OPEN),
        record(1, -1, FlowState::OPEN),
    ] {
        let (fate, census) = visit(Expired::Keep, entry(SLOT, purged), 0);
        assert_eq!((fate, exceptions(&census)), (Fate::Delete, 0));
    }
}

/// The node that had its last packets may have died before it told of them.
#[test]
fn a_flow_that_a_peer_has_told_of_is_kept_as_long_as_it_may_have_had_packets_since() {
    let visit = |remaining_s| {
        let found = entry(SLOT, record(1, remaining_s, FlowState::OPEN));
        let (fate, census) = visit_knowing(Knowledge::Shared, Expired::Keep, found, 0);
        assert_eq!(census.has_flows(1), fate == Fate::Keep);
        (fate, exceptions(&census))
    };
    let untold_s = untold_s(SERVICE.idle_timeout_s) as i32;
    assert_eq!(visit(-untold_s), (Fate::Keep, 1));
    assert_eq!(visit(-untold_s - 1), (Fate::Delete, 0));
}

#[test]
fn an_expired_record_goes_long_before_its_expiry_is_one_of_the_future() {
    for (expired_s, fate) in [(SPARED_MAX_S, Fate::Keep), (SPARED_MAX_S + 1, Fate::Delete)] {
        let found = entry(SLOT + 1, record(1, -expired_s, FlowState::OPEN));
        assert_eq!(visit(Expired::Keep, found, 0).0, fate);
    }
}

#[test]
fn a_handshake_in_a_live_flows_place_is_an_exception() {
    let found = entry(SLOT, record(QUIET_BACKEND, 10, FlowState::HALF_OPEN));
    let (fate, census) = visit(Expired::Keep, found, 1);
    assert_eq!((fate, exceptions(&census)), (Fate::Keep, 1));
}

/// Anybody can send a RST: a flow that is silent meanwhile is remembered for as long as any.
#[test]
fn a_flow_that_seems_to_have_ended_is_remembered_for_an_idle_time_out() {
    let silent_s = |seconds: i32, linger_s: u32| linger_s as i32 - seconds;
    for (state, linger_s) in [
        (FlowState::RST, RST_LINGER_S),
        (FlowState::FIN, FIN_LINGER_S),
    ] {
        let within = entry(SLOT, record(1, silent_s(60, linger_s), state));
        assert_eq!(visit(Expired::Keep, within, 0).0, Fate::Keep);
        let beyond = entry(SLOT, record(1, silent_s(61, linger_s), state));
        assert_eq!(visit(Expired::Keep, beyond, 0).0, Fate::Delete);
    }
}

/// It may only have been silent; but not if it has ended, and nobody has the ports since.
#[test]
fn what_has_ended_long_ago_is_forgotten_in_every_slot() {
    let fate = |state, remaining_s| {
        let found = entry(SLOT + 1, record(3, remaining_s, state));
        visit(Expired::Keep, found, 0).0
    };
    let over_s = FIN_LINGER_S as i32 - 61;
    assert_eq!(fate(FlowState::FIN, over_s + 1), Fate::Keep);
    assert_eq!(fate(FlowState::FIN, over_s), Fate::Delete);
    assert_eq!(fate(FlowState::OPEN, over_s), Fate::Keep);
}

/// The entry that stays of a flow whose place a handshake has taken is the handshake's.
#[test]
fn a_displaced_flow_counts_for_its_backend() {
    let handshake = entry(SLOT + 1, record(3, 10, FlowState::HALF_OPEN));
    let (_, census) = visit(Expired::Keep, handshake, 1);
    assert_eq!(census.of_backend(1).established_count, 1);
    assert_eq!(census.of_backend(3).half_open_count, 1);
}

#[test]
fn other_slots_entries_are_left_alone_unless_expired_in_a_full_table() {
    let live = entry(SLOT + 1, record(3, 0, FlowState::OPEN));
    let dead = entry(SLOT + 1, record(3, -1, FlowState::OPEN));
    assert_eq!(visit(Expired::Delete, live, 0).0, Fate::Keep);
    assert_eq!(visit(Expired::Keep, dead, 0).0, Fate::Keep);
    assert_eq!(visit(Expired::Delete, dead, 0).0, Fate::Delete);
}

#[test]
fn flows_of_backends_that_are_no_more_go() {
    let unknown = entry(SLOT + 1, record(7, 10, FlowState::OPEN));
    assert_eq!(visit(Expired::Keep, unknown, 0).0, Fate::Delete);
    let older = FlowRecord::new(1, 0, NOW_S + 10, FlowState::OPEN);
    assert_eq!(
        visit(Expired::Keep, entry(SLOT + 1, older), 0).0,
        Fate::Delete
    );
}

#[test]
fn free_and_busy_entries_are_nobodys() {
    for fingerprint in [0, 1] {
        let nobody = FlowEntry {
            fingerprint,
            record: record(7, 10, FlowState::OPEN),
        };
        let (fate, census) = visit(Expired::Delete, nobody, 0);
        assert_eq!((fate, census.live_count), (Fate::Keep, 0));
    }
}

#[test]
fn live_flows_are_counted_by_backend_and_state() {
    let directory = directory();
    let mut sweep = Sweep::begin(
        NOW_S,
        Expired::Keep,
        Knowledge::Own,
        [(SERVICE.id, &directory.0)],
    );
    let half_closed = FlowState::FIN.with(FlowState::HALF_CLOSED);
    for (backend_id, remaining_s, state) in [
        (1, 0, FlowState::OPEN),
        (1, 5, half_closed),
        (1, 5, FlowState::FIN),
        (1, -1, FlowState::OPEN),
        (3, 5, FlowState::HALF_OPEN),
    ] {
        let found = entry(SLOT + 1, record(backend_id, remaining_s, state));
        sweep.visit(&found, || 0, &directory);
    }
    let census = sweep.end();
    let expected = FlowCounts {
        half_open_count: 0,
        established_count: 2,
        closing_count: 1,
    };
    assert_eq!(census.of_backend(1), expected);
    assert_eq!(census.of_backend(3).total(), 1);
    assert_eq!(census.of_backend(2).total(), 0);
    assert_eq!((census.live_count, census.expired_count), (4, 1));
}

#[test]
fn expired_entries_go_above_four_fifths() {
    assert_eq!(Expired::by_filling(80, 100), Expired::Keep);
    assert_eq!(Expired::by_filling(81, 100), Expired::Delete);
}

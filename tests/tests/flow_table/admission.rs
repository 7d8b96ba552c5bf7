//! Who gets into a set, entry by entry. The clients here all have the same one set.

use bytemuck::Zeroable as _;
use lb_common::abi::{Backend, FLOW_SET_ENTRIES, FlowState, Slot};
use lb_common::limits::{
    HALF_OPEN_PROTECTED_S, LEARNED_PER_SET, LEARNING_FILL_MAX, PROBATION_PER_SET,
};

use crate::stage::{
    CURRENT, HALF_OPEN, IDLE_TIMEOUT_S, LEARNED, MOVING, OPEN, PREVIOUS, Stage, clients_of_one_set,
};

const PROBATION: usize = PROBATION_PER_SET as usize;

/// Opens a connection for each of the clients, which is a whole set of them.
fn fill(stage: &Stage, clients: &[u32]) {
    assert_eq!(clients.len(), FLOW_SET_ENTRIES);
    for client in clients {
        stage.open(*client);
    }
}

#[test]
fn probation_takes_its_quota_of_a_set_and_no_more() {
    let clients: [u32; PROBATION + 2] = clients_of_one_set();
    let stage = Stage::new(MOVING);
    let (admitted, [refused, late]) = clients.split_at(PROBATION) else {
        panic!("two more clients");
    };
    for client in admitted {
        assert_eq!(stage.syn(*client), CURRENT);
        assert_eq!(stage.entry(*client), Some((CURRENT, HALF_OPEN)));
    }
    assert!(!stage.is_suppressed());
    assert_eq!(stage.syn(*refused), PREVIOUS, "goes to miss");
    assert_eq!(stage.entry(*refused), None);
    assert!(stage.is_suppressed());
    // An answer leaves probation, and makes room in it.
    assert_eq!(stage.ack(admitted[0]), CURRENT);
    assert_eq!(stage.syn(*late), CURRENT);
    assert_eq!(stage.entry(*late), Some((CURRENT, HALF_OPEN)));
}

#[test]
fn the_oldest_half_open_flow_makes_room_first() {
    let [a, b, c, d, next @ ..]: [u32; 8] = clients_of_one_set();
    let stage = Stage::new(MOVING);
    let by_age = [a, b, c, d];
    // Recorded in another order than their entries stand in.
    for (second, client) in [(0, b), (1, d), (2, a), (3, c)] {
        assert_eq!(stage.at(second).syn(client), CURRENT);
    }
    let is_there = |client: u32| stage.entry(client).is_some();
    let left = || by_age.map(is_there);
    stage.at(2 + HALF_OPEN_PROTECTED_S);
    assert_eq!(stage.syn(next[0]), CURRENT);
    assert_eq!(left(), [true, false, true, true], "b is gone");
    assert_eq!(stage.syn(next[1]), CURRENT);
    assert_eq!(left(), [true, false, true, false], "d is gone");
    assert_eq!(stage.syn(next[2]), CURRENT);
    assert_eq!(left(), [false, false, true, false], "a is gone");
    assert_eq!(stage.syn(next[3]), PREVIOUS, "c is protected still");
    assert!(is_there(c));
}

#[test]
fn a_full_set_takes_no_syn() {
    let clients: [u32; FLOW_SET_ENTRIES + 1] = clients_of_one_set();
    let stage = Stage::new(MOVING);
    let (all, [refused]) = clients.split_at(FLOW_SET_ENTRIES) else {
        panic!("one more client");
    };
    fill(&stage, all);
    stage.at(IDLE_TIMEOUT_S);
    assert_eq!(stage.syn(*refused), PREVIOUS);
    assert!(stage.is_suppressed());
    assert!(
        all.iter()
            .all(|client| stage.entry(*client) == Some((CURRENT, OPEN)))
    );
}

/// A SYN that finds no room, with the previous backend changed.
fn refused_syn(change: impl FnOnce(&mut Backend)) -> u16 {
    let clients: [u32; FLOW_SET_ENTRIES + 1] = clients_of_one_set();
    let stage = Stage::with(MOVING, |tables| {
        change(tables.backends.get_mut(&PREVIOUS).expect("a backend"));
    });
    let (all, [refused]) = clients.split_at(FLOW_SET_ENTRIES) else {
        panic!("one more client");
    };
    fill(&stage, all);
    let backend_id = stage.syn(*refused);
    assert_eq!(stage.entry(*refused), None);
    assert!(stage.is_suppressed());
    backend_id
}

/// Whether that is up or not: the segments that follow go there too.
#[test]
fn a_refused_syn_goes_to_miss_unless_that_is_removed() {
    assert_eq!(refused_syn(|_| ()), PREVIOUS);
    assert_eq!(refused_syn(|backend| backend.is_up = 0), PREVIOUS, "down");
    let removed = |backend: &mut Backend| *backend = Backend::zeroed();
    assert_eq!(refused_syn(removed), CURRENT, "removed");
}

/// Who would go to a dead backend without a record competes with the like, and with nobody else.
#[test]
fn exposed_handshakes_make_room_for_each_other_only() {
    let clients: [u32; PROBATION + 2] = clients_of_one_set();
    let mut stage = Stage::new(MOVING);
    let (sheltered, [first, second]) = clients.split_at(PROBATION) else {
        panic!("two more clients");
    };
    for client in &sheltered[1..] {
        assert_eq!(stage.syn(*client), CURRENT);
    }
    stage.change_backend(PREVIOUS, |backend| backend.is_up = 0);
    assert_eq!(stage.syn(*first), CURRENT);
    let exposed = HALF_OPEN.with(FlowState::EXPOSED);
    assert_eq!(stage.entry(*first), Some((CURRENT, exposed)));
    assert_eq!(stage.syn(*second), CURRENT);
    assert_eq!(stage.entry(*second), Some((CURRENT, exposed)));
    assert_eq!(stage.entry(*first), None);
    assert_eq!(stage.ack(*second), CURRENT);
    assert_eq!(stage.entry(*second), Some((CURRENT, OPEN)));

    stage.change_backend(PREVIOUS, |backend| backend.is_up = 1);
    assert_eq!(stage.syn(sheltered[0]), CURRENT, "the place of `second`");
    assert_eq!(stage.syn(*first), PREVIOUS, "is not exposed any more");
    stage.change_backend(PREVIOUS, |backend| backend.is_up = 0);
    assert_eq!(stage.syn(*first), PREVIOUS, "none of the others is exposed");
    for client in sheltered {
        assert_eq!(stage.entry(*client), Some((CURRENT, HALF_OPEN)));
    }
}

/// The connection of a SYN that was not recorded is one all the same: all of it goes to `miss`.
#[test]
fn a_refused_syn_and_what_follows_go_the_same_way() {
    let clients: [u32; PROBATION + 1] = clients_of_one_set();
    let stage = Stage::new(MOVING);
    for client in &clients {
        stage.syn(*client);
    }
    let refused = clients[PROBATION];
    assert_eq!(stage.ack(refused), PREVIOUS);
    assert_eq!(stage.entry(refused), Some((PREVIOUS, LEARNED)));
    assert_eq!(stage.ack(refused), PREVIOUS);
    assert_eq!(stage.entry(refused), Some((PREVIOUS, OPEN)));
}

#[test]
fn an_armed_slot_refuses_to_where_it_stands() {
    let clients: [u32; PROBATION + 1] = clients_of_one_set();
    let stage = Stage::new(Slot::in_transition(CURRENT, CURRENT));
    for client in &clients {
        assert_eq!(stage.syn(*client), CURRENT);
    }
    assert_eq!(stage.entry(clients[PROBATION]), None);
    assert!(stage.is_suppressed());
    assert_eq!(stage.ack(clients[PROBATION]), CURRENT);
}

#[test]
fn learning_takes_its_quota_of_a_set_and_no_more() {
    const QUOTA: usize = LEARNED_PER_SET as usize;
    let clients: [u32; QUOTA + 1] = clients_of_one_set();
    let stage = Stage::new(MOVING);
    let (learned, [refused]) = clients.split_at(QUOTA) else {
        panic!("one more client");
    };
    for client in learned {
        assert_eq!(stage.ack(*client), PREVIOUS);
        assert_eq!(stage.entry(*client), Some((PREVIOUS, LEARNED)));
    }
    assert!(!stage.is_suppressed());
    assert_eq!(stage.ack(*refused), PREVIOUS, "its way without a record");
    assert_eq!(stage.entry(*refused), None);
    assert!(stage.is_suppressed());
    // A second packet confirms a learned flow, and makes room for another.
    assert_eq!(stage.ack(learned[0]), PREVIOUS);
    assert_eq!(stage.ack(*refused), PREVIOUS);
    assert_eq!(stage.entry(*refused), Some((PREVIOUS, LEARNED)));
}

/// Learns as many flows as a set has room for beside `others`. Returns how many that were.
fn learned_beside(others: &[u32], clients: &[u32], stage: &Stage) -> usize {
    assert!(others.iter().all(|client| stage.entry(*client).is_some()));
    let mut learned = 0;
    for client in clients {
        // Twice, so that the quota of what is not confirmed does not end it.
        stage.ack(*client);
        let is_learned = stage.entry(*client).is_some();
        if !is_learned {
            assert!(stage.is_suppressed());
            break;
        }
        stage.ack(*client);
        learned += 1;
    }
    learned
}

#[test]
fn learning_leaves_a_quarter_of_a_set_to_new_flows() {
    const FILL: usize = LEARNING_FILL_MAX as usize;
    let clients: [u32; 2 * FLOW_SET_ENTRIES] = clients_of_one_set();
    let stage = Stage::new(MOVING);
    assert_eq!(learned_beside(&[], &clients, &stage), FILL);
    let news = &clients[FLOW_SET_ENTRIES..];
    let room = FLOW_SET_ENTRIES - FILL;
    assert!(news[..room].iter().all(|new| stage.syn(*new) == CURRENT));
    assert_eq!(stage.syn(news[room]), PREVIOUS, "the set is full now");

    let stage = Stage::new(MOVING);
    let (half_open, rest) = clients.split_at(PROBATION);
    for client in half_open {
        stage.syn(*client);
    }
    assert_eq!(learned_beside(half_open, rest, &stage), FILL - PROBATION);
}

/// A learned flow takes no half-open flow's place, however old that is.
#[test]
fn learning_evicts_nothing() {
    let clients: [u32; FLOW_SET_ENTRIES] = clients_of_one_set();
    let stage = Stage::new(MOVING);
    let (half_open, rest) = clients.split_at(PROBATION);
    for client in half_open {
        stage.syn(*client);
    }
    stage.at(HALF_OPEN_PROTECTED_S + 1);
    for client in rest {
        stage.ack(*client);
    }
    for client in half_open {
        assert_eq!(stage.entry(*client), Some((CURRENT, HALF_OPEN)));
    }
}

/// A second SYN takes no second place.
#[test]
fn a_repeated_syn_keeps_its_entry() {
    let clients: [u32; PROBATION] = clients_of_one_set();
    let stage = Stage::new(MOVING);
    for second in 0..3 {
        for client in &clients {
            assert_eq!(stage.at(second).syn(*client), CURRENT);
        }
    }
    assert!(!stage.is_suppressed());
    assert_eq!(stage.flows().len(), PROBATION);
}

/// What has expired makes room before what is half open, and what expired first before the rest.
#[test]
fn expired_entries_are_taken_first() {
    let [old, older, half_open, a, b, c, d, e, next, last]: [u32; 10] = clients_of_one_set();
    let stage = Stage::new(MOVING);
    stage.at(1).open(old);
    stage.at(0).open(older);
    stage.at(2);
    for client in [a, b, c, d, e] {
        stage.open(client);
    }
    let late_s = IDLE_TIMEOUT_S + 2;
    stage.at(late_s - 2 * HALF_OPEN_PROTECTED_S).syn(half_open);
    assert_eq!(stage.flows().len(), FLOW_SET_ENTRIES);
    stage.at(late_s);
    assert_eq!(stage.syn(next), CURRENT);
    assert_eq!(
        (stage.entry(older), stage.entry(old).is_some()),
        (None, true)
    );
    assert_eq!(stage.syn(last), CURRENT);
    assert_eq!(stage.entry(old), None);
    let state = |client: u32| stage.entry(client).map(|(_, state)| state);
    assert_eq!(state(half_open), Some(FlowState::HALF_OPEN));
    assert!(
        [a, b, c, d, e]
            .iter()
            .all(|client| state(*client) == Some(OPEN))
    );
}

/// Of a service that keeps every flow on record: segments of flows that found no room do not wait for a peer's word.
#[test]
fn that_flows_find_no_room_is_known_for_an_idle_timeout_and_right_after_a_boot_too() {
    let clients: [u32; FLOW_SET_ENTRIES + 1] = clients_of_one_set();
    let (all, [refused]) = clients.split_at(FLOW_SET_ENTRIES) else {
        panic!("one more client");
    };
    let began_s = 5;
    let stage = Stage::with(Slot::settled(CURRENT), |tables| {
        for service in tables.services.values_mut() {
            service.tracks_flows = 1;
        }
    });
    stage.since_boot(began_s);
    fill(&stage, all);
    assert!(stage.waits(*refused), "there was room for all");
    assert_eq!(stage.syn(*refused), CURRENT);
    assert!(stage.is_suppressed());
    for (since_s, waits) in [
        (0, false),
        (1, false),
        (IDLE_TIMEOUT_S - 1, false),
        (IDLE_TIMEOUT_S, false),
        (IDLE_TIMEOUT_S + 1, true),
    ] {
        let stranger = 1_000_000 + since_s;
        stage.since_boot(began_s + since_s);
        assert_eq!(stage.waits(stranger), waits, "after {since_s} s");
    }
}

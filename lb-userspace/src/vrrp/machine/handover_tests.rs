//! Hand-overs: to nodes of our own and to others.

use super::net::{Net, member};
use super::test_kit::*;
use crate::vrrp::protocol::State;
use crate::vrrp::router::{HandOverError, Input, Output, RouterConfig};

fn authenticated(number: usize, priority: u8) -> RouterConfig {
    RouterConfig {
        key: Some(KEY),
        ..member(number, priority)
    }
}

fn net(configs: Vec<RouterConfig>) -> Net {
    let mut net = Net::new(7, configs);
    net.run_for(5 * SECOND);
    assert_eq!(net.holders(), [0]);
    (net.dark_us, net.dual_us) = (0, 0);
    net
}

fn pair() -> Net {
    net(vec![authenticated(0, 200), authenticated(1, 100)])
}

/// What became of a hand-over.
fn result(net: &mut Net, node: usize) -> Option<Result<(u8, u64), HandOverError>> {
    let said = std::mem::take(&mut net.nodes[node].said);
    said.into_iter().find_map(|said| match said {
        Output::HandedOver(Ok(handed)) => {
            let last = (1..9).find(|last| ip(*last) == handed.to).unwrap();
            Some(Ok((last, handed.after_us)))
        }
        Output::HandedOver(Err(error)) => Some(Err(error)),
        _ => None,
    })
}

fn has_stopped(net: &Net, node: usize) -> bool {
    net.nodes[node].said.contains(&Output::Stopped)
}

#[test]
fn a_hand_over_takes_a_round_trip_and_leaves_no_darkness() {
    let mut net = pair();
    net.tell(0, Input::HandOver);
    net.run_for(10 * MS);
    assert_eq!(net.holders(), [1]);
    let (to, after_us) = result(&mut net, 0).unwrap().unwrap();
    assert_eq!(to, 2);
    assert!(after_us < MS, "{after_us} us");
    assert_eq!(net.dark_us, 0);
    assert!(net.dual_us < MS);
}

#[test]
fn what_was_handed_over_is_not_taken_back_by_priority() {
    let mut net = pair();
    net.tell(0, Input::HandOver);
    net.run_for(60 * SECOND);
    assert_eq!(net.holders(), [1]);
    net.tell(1, Input::HandOver);
    net.run_for(60 * SECOND);
    assert_eq!(net.holders(), [0]);
    assert_eq!(net.dark_us, 0);
}

/// Its process begins anew, long after it was Active last.
#[test]
fn what_was_handed_over_is_not_taken_back_by_a_successor() {
    let mut bench = Bench::new(config(1, 200));
    bench.router.yield_to_others();
    bench.tell(Input::Startup);
    for _ in 0..20 {
        bench.hear(2, 100);
        bench.run_for(SECOND);
        assert_eq!(bench.router.state(), State::Backup);
        assert!(bench.router.saved().yields);
    }
    // The other one dies.
    bench.run_for(4 * SECOND);
    assert_eq!(bench.router.state(), State::Active);
    assert!(!bench.router.saved().yields);
}

/// What ends it besides: another priority.
#[test]
fn what_was_handed_over_is_taken_back_when_the_priority_is_changed() {
    let mut bench = Bench::new(config(1, 200));
    bench.router.yield_to_others();
    bench.tell(Input::Startup);
    let mut out = Vec::new();
    let (now, changed) = (bench.now, config(1, 201));
    bench.router.reconfigure(now, changed, session(9), &mut out);
    let condition = crate::vrrp::priority::Condition::well(201);
    bench.tell(Input::Condition(&condition));
    for _ in 0..5 {
        bench.hear(2, 100);
        bench.run_for(SECOND);
    }
    assert_eq!(bench.router.state(), State::Active);
}

#[test]
fn what_was_handed_over_is_taken_back_from_a_dead_node() {
    let mut net = pair();
    net.tell(0, Input::HandOver);
    net.run_for(SECOND);
    net.power_off(1);
    net.run_for(SECOND);
    assert_eq!(net.holders(), [0]);
    net.start(1);
    net.run_for(5 * SECOND);
    assert_eq!(net.holders(), [0]);
}

#[test]
fn a_hand_over_survives_loss() {
    let mut done = 0;
    for seed in 0..100 {
        let mut net = pair();
        net.dice = super::net::Dice::new(seed);
        net.lost = 300;
        net.tell(0, Input::HandOver);
        net.run_for(300 * MS);
        match result(&mut net, 0) {
            Some(Ok(_)) => done += 1,
            other => assert!(
                matches!(other, Some(Err(HandOverError::Unanswered { .. }))),
                "{other:?}"
            ),
        }
        assert_eq!(net.dark_us, 0, "seed {seed}");
    }
    assert!(done >= 95, "{done} of 100");
}

#[test]
fn of_several_peers_the_one_of_highest_priority_gets_it() {
    let configs = vec![
        authenticated(0, 200),
        authenticated(1, 50),
        authenticated(2, 100),
    ];
    let mut net = net(configs);
    net.tell(0, Input::HandOver);
    net.run_for(SECOND);
    assert_eq!(result(&mut net, 0).unwrap().unwrap().0, 3);
    assert_eq!(net.holders(), [2]);
}

#[test]
fn nobody_is_asked_that_is_not_ready() {
    let mut net = pair();
    net.tell(1, Input::Behind(Some("rings")));
    net.run_for(2 * SECOND);
    net.tell(0, Input::HandOver);
    let why = "10.0.0.2 has not caught up".to_owned();
    assert_eq!(
        result(&mut net, 0),
        Some(Err(HandOverError::NobodyReady(why)))
    );
    net.power_off(1);
    net.run_for(5 * SECOND);
    net.tell(0, Input::HandOver);
    let why = "none was heard lately".to_owned();
    assert_eq!(
        result(&mut net, 0),
        Some(Err(HandOverError::NobodyReady(why)))
    );
    assert_eq!(net.holders(), [0]);
}

#[test]
fn a_peer_that_has_fallen_behind_meanwhile_declines() {
    let mut net = pair();
    net.tell(1, Input::Behind(Some("rings")));
    net.tell(0, Input::HandOver);
    net.run_for(10 * MS);
    let error = HandOverError::Declined {
        peer: ip(2),
        reason: "it has not caught up",
    };
    assert_eq!(result(&mut net, 0), Some(Err(error)));
    net.run_for(SECOND);
    assert_eq!((net.holders(), net.dark_us), (vec![0], 0));
}

#[test]
fn a_peer_that_does_not_answer_leaves_the_vips_here() {
    let mut net = pair();
    net.stop(1);
    net.tell(0, Input::HandOver);
    net.run_for(SECOND);
    let error = HandOverError::Unanswered { waited_ms: 200 };
    assert_eq!(result(&mut net, 0), Some(Err(error)));
    assert_eq!((net.holders(), net.dark_us), (vec![0], 0));
}

#[test]
fn only_an_active_hands_over_and_only_once_at_a_time() {
    let mut net = pair();
    net.tell(1, Input::HandOver);
    let error = HandOverError::NotActive(State::Backup);
    assert_eq!(result(&mut net, 1), Some(Err(error)));
    net.tell(0, Input::HandOver);
    net.tell(0, Input::HandOver);
    assert_eq!(result(&mut net, 0), Some(Err(HandOverError::UnderWay)));
}

#[test]
fn a_graceful_stop_is_a_hand_over() {
    let mut net = pair();
    net.tell(0, Input::Shutdown);
    net.run_for(10 * MS);
    assert!(has_stopped(&net, 0));
    assert_eq!((net.holders(), net.dark_us), (vec![1], 0));
    assert_eq!(net.nodes[0].router.state(), State::Initialize);
    assert_eq!(net.nodes[0].router.deadline(), None);
}

#[test]
fn a_graceful_stop_of_the_last_one_is_done_at_once() {
    let mut net = net(vec![authenticated(0, 200)]);
    net.tell(0, Input::Shutdown);
    assert!(has_stopped(&net, 0));
    assert!(net.holders().is_empty());
}

#[test]
fn a_graceful_stop_before_a_peer_that_does_not_answer_resigns() {
    let mut net = pair();
    net.stop(1);
    net.tell(0, Input::Shutdown);
    net.run_for(SECOND);
    assert!(has_stopped(&net, 0));
    assert!(net.holders().is_empty());
}

#[test]
fn a_fault_is_a_hand_over_without_waiting() {
    let mut net = pair();
    let unwell = crate::vrrp::priority::Unwell {
        what: "no datapath".to_owned(),
        weight: None,
    };
    let condition = crate::vrrp::priority::Condition::of(200, [unwell]);
    net.tell(0, Input::Condition(&condition));
    net.run_for(SECOND);
    assert_eq!(net.holders(), [1]);
    assert!(net.dark_us < MS, "{} us", net.dark_us);
}

/// It was named because it was well when it was heard last.
#[test]
fn one_that_is_behind_takes_over_after_its_skew_when_the_last_one_fails() {
    for has_sync in [true, false] {
        // Whatever was said over the sync link, and when.
        for phase in 0..10 {
            let mut net = pair();
            net.has_sync = has_sync;
            net.run_for(SECOND + phase * 10 * MS);
            net.tell(1, Input::Behind(Some("rings")));
            let unwell = crate::vrrp::priority::Unwell {
                what: "no datapath".to_owned(),
                weight: None,
            };
            let condition = crate::vrrp::priority::Condition::of(200, [unwell]);
            net.tell(0, Input::Condition(&condition));
            net.run_for(SECOND);
            assert_eq!(net.holders(), [1]);
            // Skew_Time: 156 / 256 of 100 ms.
            assert!(
                net.dark_us < 62 * MS,
                "{has_sync} {phase}: {} us",
                net.dark_us
            );
        }
    }
}

/// It leaves the VIPs to one that is not.
#[test]
fn one_that_is_behind_does_not_take_over_from_one_that_is_well() {
    let configs = vec![
        authenticated(0, 200),
        authenticated(1, 150),
        authenticated(2, 100),
    ];
    let mut net = net(configs);
    net.tell(1, Input::Behind(Some("rings")));
    let unwell = crate::vrrp::priority::Unwell {
        what: "no datapath".to_owned(),
        weight: None,
    };
    let condition = crate::vrrp::priority::Condition::of(200, [unwell]);
    net.tell(0, Input::Condition(&condition));
    net.run_for(2 * SECOND);
    assert_eq!(net.holders(), [2]);
}

#[test]
fn a_recorded_request_is_refused() {
    let mut net = pair();
    net.tape.clear();
    net.tell(0, Input::HandOver);
    net.run_for(SECOND);
    net.tell(1, Input::HandOver);
    net.run_for(SECOND);
    assert_eq!(net.holders(), [0]);
    for (source, destination, payload) in std::mem::take(&mut net.tape) {
        net.inject(source, destination, &payload);
        net.run_for(MS);
    }
    assert_eq!(net.holders(), [0]);
    assert_eq!(
        net.nodes[1]
            .router
            .status(net.now, 0)
            .counters
            .became_active,
        1
    );
}

/// Another implementation: this router resigns, and keeps the VIPs until it hears the successor.
#[test]
fn a_hand_over_to_others_keeps_the_vips_until_the_successor_is_heard() {
    let mut net = net(vec![member(0, 200), member(1, 100)]);
    net.has_sync = false;
    net.tell(0, Input::HandOver);
    net.run_for(SECOND);
    let (to, after_us) = result(&mut net, 0).unwrap().unwrap();
    // Skew_Time: 156 / 256 of 100 ms.
    assert_eq!((to, after_us / MS), (2, 61));
    assert_eq!((net.holders(), net.dark_us), (vec![1], 0));
    net.run_for(60 * SECOND);
    assert_eq!(net.holders(), [1]);
}

#[test]
fn a_hand_over_to_others_is_taken_back_if_nobody_comes() {
    let mut bench = Bench::active(config(1, 200));
    let out = bench.tell(Input::HandOver);
    assert_eq!(adverts(1, &out), [0]);
    assert!(!removes_vips(&out));
    let out = bench.run_for(5 * SECOND / 2);
    assert_eq!(bench.router.state(), State::Active);
    let error = HandOverError::Unanswered { waited_ms: 2_500 };
    assert!(out.contains(&Output::HandedOver(Err(error))));
}

#[test]
fn a_graceful_stop_before_others_ends_when_the_successor_is_heard_or_after_two_and_a_half_intervals()
 {
    let mut bench = Bench::active(config(1, 200));
    let out = bench.tell(Input::Shutdown);
    assert!(!removes_vips(&out) && !out.contains(&Output::Stopped));
    let mut other = Bench {
        router: bench.router.clone(),
        now: bench.now,
    };
    let out = bench.hear(2, 100);
    assert!(removes_vips(&out) && out.contains(&Output::Stopped));
    assert_eq!(other.run_for(5 * SECOND / 2 - 1), []);
    let out = other.run_for(1);
    assert!(removes_vips(&out) && out.contains(&Output::Stopped));
    assert_eq!(other.router.deadline(), None);
}

//! The hold, the barrier, preemption, news over the sync link, faults, sleep and resumption.

use super::test_kit::*;
use crate::vrrp::priority::{Condition, Unwell};
use crate::vrrp::protocol::State;
use crate::vrrp::router::{Input, Output, RouterConfig, Saved};

const ACTIVE_DOWN_100: u64 = 3_609_375;

fn probes(out: &[Output]) -> usize {
    let is_probe = |output: &&Output| **output == Output::Probe { address: ip(2) };
    out.iter().filter(is_probe).count()
}

/// A Backup of priority 100 behind 10.0.0.2 of priority 200, whose last advertisement has just come.
fn following() -> Bench {
    let mut bench = Bench::backup(config(1, 100));
    bench.news(&[(2, State::Active, 200, true)]);
    bench.hear(2, 200);
    bench
}

/// The Active is silent from now on; heartbeats come as they should, and so do answers to probes.
fn silence(bench: &mut Bench, us: u64, heartbeats: bool, answers: bool) {
    let end = bench.now + us;
    while bench.now < end {
        let out = bench.run_for(100 * MS);
        if heartbeats {
            bench.news(&[(2, State::Active, 200, true)]);
        }
        if answers && probes(&out) > 0 {
            bench.tell(Input::ProbeAnswered { address: ip(2) });
        }
    }
}

#[test]
fn probes_begin_after_one_and_a_half_intervals_of_silence() {
    let mut bench = following();
    assert_eq!(probes(&bench.run_for(3 * SECOND / 2 - 1)), 0);
    assert_eq!(probes(&bench.run_for(1)), 1);
    assert_eq!(probes(&bench.run_for(SECOND)), 2);
}

#[test]
fn without_a_sync_link_nothing_is_probed() {
    let mut bench = Bench::backup(config(1, 100));
    bench.hear(2, 200);
    assert_eq!(probes(&bench.run_for(3 * SECOND)), 0);
}

#[test]
fn a_silent_process_on_a_living_node_is_no_failover() {
    let mut bench = following();
    silence(&mut bench, 20 * SECOND, true, true);
    assert_eq!(bench.router.state(), State::Backup);
    let held = bench.router.status(bench.now, 0).held.unwrap();
    assert!(
        held.contains("lb2 says over the sync link that it is Active"),
        "{held}"
    );
    bench.hear(2, 200);
    assert_eq!(bench.router.status(bench.now, 0).held, None);
}

#[test]
fn a_dead_node_is_a_failover_without_delay() {
    for (heartbeats, answers) in [(false, false), (true, false), (false, true)] {
        let mut bench = following();
        let heard = bench.now;
        silence(&mut bench, ACTIVE_DOWN_100, heartbeats, answers);
        assert_eq!(
            bench.router.state(),
            State::Active,
            "{heartbeats} {answers}"
        );
        assert_eq!(
            bench.router.status(bench.now, 0).since_ms,
            (bench.now - heard - ACTIVE_DOWN_100) / MS
        );
    }
}

#[test]
fn the_hold_ends_when_the_kernel_or_the_heartbeats_fall_silent() {
    for (heartbeats, answers) in [(true, false), (false, true)] {
        let mut bench = following();
        silence(&mut bench, 10 * SECOND, true, true);
        assert_eq!(bench.router.state(), State::Backup);
        // Two intervals for heartbeats, one for answers.
        silence(&mut bench, 2 * SECOND + 200 * MS, heartbeats, answers);
        assert_eq!(
            bench.router.state(),
            State::Active,
            "{heartbeats} {answers}"
        );
    }
}

#[test]
fn an_unfit_active_is_not_held_for() {
    let mut bench = Bench::backup(config(1, 100));
    bench.news(&[(2, State::Active, 200, false)]);
    bench.hear(2, 200);
    bench.run_for(3 * SECOND);
    bench.tell(Input::ProbeAnswered { address: ip(2) });
    bench.news(&[(2, State::Active, 200, false)]);
    bench.run_for(ACTIVE_DOWN_100 - 3 * SECOND);
    assert_eq!(bench.router.state(), State::Active);
}

#[test]
fn a_sync_link_that_is_cut_moves_nothing() {
    let mut bench = following();
    for _ in 0..60 {
        bench.run_for(SECOND);
        bench.hear(2, 200);
        bench.tell(Input::PeerFacts(&[facts(
            (2, State::Active, 200, true),
            60_000,
        )]));
    }
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn an_active_that_says_it_is_not_any_more_is_replaced_at_once() {
    let ends = [
        (2, State::Active, 200, false),
        (2, State::Active, 0, true),
        (2, State::Initialize, 0, false),
        (2, State::Backup, 200, true),
    ];
    for end in ends {
        let mut bench = following();
        bench.run_for(SECOND / 2);
        bench.news(&[(2, State::Active, 200, true)]);
        let out = bench.news(&[end]);
        assert_eq!(bench.router.state(), State::Active, "{end:?}");
        assert!(adds_vips(&out));
    }
}

/// Less than a heartbeat after it became Active, when what is heard of it may still be of the time before.
#[test]
fn one_that_was_heard_to_become_active_is_replaced_as_soon_as_it_says_it_is_not() {
    for (before, is_replaced) in [(State::Backup, true), (State::Active, false)] {
        let mut bench = Bench::backup(config(1, 100));
        bench.news(&[(2, before, 200, true)]);
        bench.run_for(200 * MS);
        bench.hear(2, 200);
        bench.run_for(2 * MS);
        bench.news(&[(2, State::Active, 200, true)]);
        bench.run_for(50 * MS);
        bench.news(&[(2, State::Initialize, 0, false)]);
        let is_active = bench.router.state() == State::Active;
        assert_eq!(is_active, is_replaced, "it was {before:?}");
    }
}

/// It was Active before, and somebody else in between; its heartbeats are late.
#[test]
fn what_was_heard_of_a_former_reign_is_of_a_former_time() {
    for pause_ms in [50, 200] {
        let mut bench = Bench::backup(config(1, 100));
        bench.news(&[(2, State::Backup, 200, true)]);
        bench.news(&[(2, State::Active, 200, true)]);
        bench.hear(3, 150);
        bench.run_for(pause_ms * MS);
        bench.hear(2, 200);
        bench.news(&[(2, State::Active, 200, true)]);
        bench.news(&[(2, State::Backup, 200, true)]);
        assert_eq!(bench.router.state(), State::Backup, "{pause_ms} ms");
    }
}

/// One that was Active a moment ago says that it is not, and another one is Active.
#[test]
fn what_was_heard_of_one_is_not_said_of_the_next() {
    let mut bench = Bench::backup(config(1, 100));
    bench.news(&[(2, State::Backup, 200, true)]);
    bench.hear(2, 200);
    bench.run_for(2 * MS);
    bench.news(&[(2, State::Active, 200, true)]);
    bench.run_for(50 * MS);
    bench.hear(3, 250);
    bench.news(&[(2, State::Active, 200, true)]);
    bench.news(&[(2, State::Backup, 200, true)]);
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn news_of_a_former_time_are_none() {
    let mut bench = following();
    // Its heartbeats were made before it became Active.
    bench.run_for(10 * MS);
    bench.news(&[(2, State::Backup, 200, true)]);
    assert_eq!(bench.router.state(), State::Backup);
    // They are old.
    bench.run_for(SECOND / 2);
    bench.news(&[(2, State::Active, 200, true)]);
    bench.tell(Input::PeerFacts(&[facts(
        (2, State::Initialize, 0, false),
        2_001,
    )]));
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn news_move_the_vip_once_though_the_active_goes_on() {
    let mut bench = following();
    bench.run_for(SECOND / 2);
    bench.news(&[(2, State::Active, 200, true)]);
    bench.news(&[(2, State::Active, 200, false)]);
    assert_eq!(bench.router.state(), State::Active);
    bench.hear(2, 200);
    assert_eq!(bench.router.state(), State::Backup);
    for _ in 0..10 {
        bench.run_for(SECOND);
        bench.hear(2, 200);
        bench.news(&[(2, State::Active, 200, false)]);
        assert_eq!(bench.router.state(), State::Backup);
    }
}

#[test]
fn of_several_backups_the_first_takes_over_by_news() {
    for (third, is_first) in [
        ((3, State::Backup, 150, true), false),
        ((3, State::Backup, 50, true), true),
    ] {
        let mut bench = following();
        bench.run_for(SECOND / 2);
        bench.news(&[(2, State::Active, 200, true), third]);
        bench.news(&[(2, State::Initialize, 0, false), third]);
        assert_eq!(bench.router.state() == State::Active, is_first, "{third:?}");
    }
}

#[test]
fn a_node_that_is_behind_leaves_the_vips_to_a_living_peer() {
    let mut bench = Bench::backup(config(1, 200));
    bench.tell(Input::Behind(Some("2 of 3 rings")));
    for _ in 0..30 {
        bench.run_for(SECOND);
        bench.hear(2, 100);
    }
    let status = bench.router.status(bench.now, 0);
    let why = "this node has not caught up with 10.0.0.2: 2 of 3 rings";
    assert_eq!(status.held.as_deref(), Some(why));
    assert_eq!(status.state, State::Backup);
    bench.tell(Input::Behind(None));
    bench.hear(2, 100);
    bench.run_for(ACTIVE_DOWN_100);
    assert_eq!(bench.router.state(), State::Active);
}

#[test]
fn a_node_that_is_behind_waits_for_a_peer_that_lives_by_its_heartbeats() {
    let mut bench = Bench::backup(config(1, 200));
    bench.tell(Input::Behind(Some("2 of 3 rings")));
    for _ in 0..200 {
        bench.news(&[(2, State::Active, 100, true)]);
        bench.run_for(100 * MS);
    }
    assert_eq!(bench.router.state(), State::Backup);
    let held = bench.router.status(bench.now, 0).held.unwrap();
    assert_eq!(held, "this node has not caught up with lb2: 2 of 3 rings");
    let out = bench.run_for(4 * SECOND);
    assert_eq!(bench.router.state(), State::Active, "{out:?}");
}

#[test]
fn a_node_that_is_behind_takes_over_when_all_are_silent() {
    let mut bench = Bench::backup(config(1, 100));
    bench.tell(Input::Behind(Some("it has just begun")));
    bench.hear(2, 200);
    bench.run_for(ACTIVE_DOWN_100);
    assert_eq!(bench.router.state(), State::Active);
}

/// Two nodes that both have just begun: without an end, nobody would ever be Active.
#[test]
fn the_barrier_ends_when_nobody_becomes_active() {
    let mut bench = Bench::backup(config(1, 100));
    bench.tell(Input::Behind(Some("it has just begun")));
    let since = bench.now;
    while bench.router.state() != State::Active {
        bench.news(&[(2, State::Backup, 200, true)]);
        bench.run_for(100 * MS);
    }
    let waited = bench.now - since;
    assert!(
        (4 * ACTIVE_DOWN_100..5 * ACTIVE_DOWN_100).contains(&waited),
        "{waited} us"
    );
}

#[test]
fn an_owner_of_the_addresses_that_is_behind_waits() {
    let mut bench = Bench::new(config(1, 255));
    bench.tell(Input::Behind(Some("it has just begun")));
    bench.tell(Input::Startup);
    assert_eq!(bench.router.state(), State::Backup);
}

fn delayed() -> RouterConfig {
    RouterConfig {
        preempt_delay_ms: 10_000,
        ..config(1, 200)
    }
}

#[test]
fn preemption_waits_for_its_delay() {
    let mut bench = Bench::backup(delayed());
    let mut heard = 0;
    while bench.router.state() == State::Backup {
        bench.hear(2, 100);
        bench.run_for(SECOND);
        heard += 1;
    }
    // At seconds 0 to 10.
    assert_eq!(heard, 11);
}

#[test]
fn the_delay_is_for_preemption_only() {
    let mut bench = Bench::backup(delayed());
    bench.hear(2, 100);
    let since = bench.now;
    bench.run_until_active();
    assert_eq!(bench.now - since, 3 * SECOND + 56 * SECOND / 256);
}

#[test]
fn the_delay_begins_anew_with_another_active() {
    let mut bench = Bench::backup(delayed());
    for _ in 0..9 {
        bench.hear(2, 100);
        bench.run_for(SECOND);
    }
    for _ in 0..9 {
        bench.hear(3, 101);
        bench.run_for(SECOND);
    }
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn a_fault_gives_the_vips_up_at_once_and_its_end_begins_anew() {
    let mut bench = Bench::active(config(1, 200));
    let out = bench.fault();
    assert_eq!(bench.router.state(), State::Initialize);
    assert_eq!(adverts(1, &out), [0]);
    assert!(removes_vips(&out));
    let status = bench.router.status(bench.now, 0);
    assert_eq!(
        (status.priority, status.troubles),
        (0, vec!["eth0 is down".to_owned()])
    );
    assert_eq!(status.reason, "in fault: eth0 is down");
    bench.run_for(SECOND);
    bench.tell(Input::Condition(&Condition::well(200)));
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn a_fault_from_the_beginning_keeps_it_in_initialize() {
    let mut bench = Bench::new(config(1, 255));
    bench.fault();
    bench.tell(Input::Startup);
    assert_eq!(bench.router.state(), State::Initialize);
    bench.tell(Input::Condition(&Condition::well(255)));
    assert_eq!(bench.router.state(), State::Active);
}

#[test]
fn a_lowered_priority_is_advertised_at_once() {
    let mut bench = Bench::active(config(1, 200));
    let unwell = Unwell {
        what: "eth1 is down".to_owned(),
        weight: Some(150),
    };
    let out = bench.tell(Input::Condition(&Condition::of(200, [unwell])));
    assert_eq!(adverts(1, &out), [50]);
    bench.hear(2, 100);
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn a_backup_that_overslept_hears_first_and_waits_an_interval() {
    let mut bench = following();
    bench.now += 30 * SECOND;
    bench.tell(Input::Overslept { by_us: 26 * SECOND });
    bench.tell(Input::Timer);
    assert_eq!(bench.router.state(), State::Backup);
    bench.run_for(SECOND - 1);
    assert_eq!(bench.router.state(), State::Backup);
    bench.run_for(1);
    assert_eq!(bench.router.state(), State::Active);
}

#[test]
fn an_active_that_overslept_gives_way_to_any_other() {
    let mut bench = Bench::active(config(1, 200));
    bench.now += 10 * SECOND;
    bench.tell(Input::Overslept { by_us: 9 * SECOND });
    let out = bench.tell(Input::Timer);
    assert_eq!(
        adverts(1, &out),
        Vec::<u8>::new(),
        "it does not assert what it may not be"
    );
    bench.hear(2, 100);
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn an_active_that_overslept_alone_goes_on() {
    let mut bench = Bench::active(config(1, 200));
    bench.now += 10 * SECOND;
    bench.tell(Input::Overslept { by_us: 9 * SECOND });
    let out = bench.run_for(SECOND);
    assert_eq!(adverts(1, &out), [200]);
    bench.hear(2, 100);
    assert_eq!(bench.router.state(), State::Active);
}

#[test]
fn a_short_sleep_changes_nothing() {
    let mut bench = Bench::active(config(1, 200));
    bench.now += 3 * SECOND - 1;
    bench.tell(Input::Overslept {
        by_us: 2 * SECOND - 1,
    });
    assert_eq!(adverts(1, &bench.tell(Input::Timer)), [200]);
}

#[test]
fn a_successor_stays_active_if_nobody_can_have_taken_over() {
    let saved = Bench::active(config(1, 200)).router.saved();
    let resumed = |saved: Saved, age_us: u64| {
        let mut bench = Bench::new(config(1, 200));
        let mut out = Vec::new();
        bench.router.resume(bench.now, saved, age_us, &mut out);
        (bench.router.state(), out)
    };
    let (state, out) = resumed(saved, 3 * SECOND - 1);
    assert_eq!(state, State::Active);
    assert!(adds_vips(&out));
    assert_eq!(adverts(1, &out), [200]);
    let (state, out) = resumed(saved, 3 * SECOND);
    assert_eq!(state, State::Backup);
    assert!(removes_vips(&out), "what the predecessor left");
    let backup = Saved {
        state: State::Backup,
        yields: true,
    };
    assert_eq!(resumed(backup, 0).0, State::Backup);
}

#[test]
fn two_actives_that_hear_each_other_only_over_the_sync_link_are_counted() {
    let mut bench = Bench::active(config(1, 200));
    let mut conflicts = 0;
    for _ in 0..100 {
        let out = bench.news(&[(2, State::Active, 100, true)]);
        let is_conflict = |output: &&Output| matches!(output, Output::Conflict { with: None, .. });
        conflicts += out.iter().filter(is_conflict).count();
        bench.run_for(100 * MS);
    }
    assert_eq!(conflicts, 1);
    let counters = bench.router.status(bench.now, 0).counters;
    assert_eq!(counters.conflicts, 1);
    // From the first heartbeat that cannot be of the time before to the last.
    assert!(
        (7_500..8_000).contains(&counters.dual_active_ms),
        "{counters:?}"
    );
}

#[test]
fn a_new_configuration_moves_nothing() {
    let mut bench = Bench::active(config(1, 200));
    let other = std::net::IpAddr::from([203, 0, 113, 11]);
    let new = RouterConfig {
        vips: vec![vip(), other],
        interval_cs: 10,
        ..config(1, 200)
    };
    let mut out = Vec::new();
    bench
        .router
        .reconfigure(bench.now, new, session(8), &mut out);
    assert_eq!(bench.router.state(), State::Active);
    assert!(out.contains(&Output::AddVips(vec![vip(), other])));
    assert_eq!(adverts(1, &bench.run_for(100 * MS - 1)), Vec::<u8>::new());
    assert_eq!(adverts(1, &bench.run_for(1)), [200]);
    out.clear();
    bench
        .router
        .reconfigure(bench.now, config(1, 200), session(8), &mut out);
    assert!(out.contains(&Output::RemoveVips(vec![other])));
}

//! The steps that a ring makes on several nodes.

use super::*;

#[test]
fn the_active_node_owns_the_ring_and_the_others_have_it() {
    let mut bench = Bench::together(3, &[1, 2]);
    assert_eq!(bench.role(1).0, Role::Owner);
    assert_eq!(
        (bench.role(2).0, bench.role(3).0),
        (Role::Follower, Role::Follower)
    );
    bench.want(1, &[3, 2], &[]);
    bench.pass(100);
    for number in 1..=3 {
        bench.check(number, &[armed(1), settled(2)]);
        assert_eq!(bench.node(number).coordinator.behind(), None);
    }
    bench.pass(1_600);
    for number in 1..=3 {
        bench.check(number, &[moving(3, 1), settled(2)]);
    }
}

#[test]
fn a_node_without_peers_leads_at_once() {
    let mut bench = Bench::new(1, &[1]);
    bench.look();
    assert_eq!(bench.role(1), (Role::Owner, 1));
    bench.want(1, &[2], &[1]);
    bench.pass(10);
    bench.check(1, &[moving(2, 1)]);
    assert_eq!(bench.node(1).coordinator.behind(), None);
}

#[test]
fn a_planned_change_waits_for_the_slowest_follower() {
    let mut bench = Bench::together(3, &[1]);
    bench.slow.insert(name(3));
    bench.want(1, &[2], &[]);
    bench.pass(5_000);
    bench.check(1, &[armed(1)]);
    bench.slow.clear();
    bench.pass(1_600);
    bench.check(1, &[moving(2, 1)]);
}

#[test]
fn a_death_is_armed_everywhere_first_and_waits_no_longer_than_300_ms() {
    let mut bench = Bench::together(2, &[1]);
    bench.want(1, &[2], &[1]);
    bench.look();
    bench.check(1, &[armed(1)]);
    bench.pass(60);
    bench.check(1, &[moving(2, 1)]);
    bench.slow.insert(name(2));
    bench.want(1, &[3], &[2]);
    bench.pass(20);
    bench.check(1, &[moving(3, 1)]);

    let mut bench = Bench::together(2, &[1]);
    bench.slow.insert(name(2));
    bench.want(1, &[2], &[1]);
    bench.pass(290);
    bench.check(1, &[armed(1)]);
    bench.pass(20);
    bench.check(1, &[moving(2, 1)]);
}

#[test]
fn a_ring_settles_when_both_have_found_nothing() {
    let mut bench = Bench::together(2, &[1, 1]);
    bench.want(1, &[2, 1], &[]);
    bench.pass(1_700 + IDLE_MS + 7_000);
    bench.check(1, &[quiet(2), settled(1)]);
    bench.check(2, &[quiet(2), settled(1)]);
    for _ in 0..4 {
        bench.sweep(1);
    }
    bench.check(1, &[quiet(2), settled(1)]);
    for _ in 0..4 {
        bench.sweep(0);
    }
    bench.check(1, &[settled(2), settled(1)]);
    bench.check(2, &[settled(2), settled(1)]);
}

#[test]
fn what_a_follower_could_not_record_delays_settling() {
    let mut bench = Bench::together(2, &[1]);
    bench.want(1, &[2], &[]);
    bench.pass(1_700 + IDLE_MS);
    bench.node(2).rings.suppressed_ms = Some(bench.now_ms);
    bench.pass(IDLE_MS);
    bench.check(1, &[moving(2, 1)]);
    bench.pass(7_000);
    bench.check(1, &[quiet(2)]);
}

#[test]
fn nothing_settles_while_flows_lag() {
    let mut bench = Bench::together(2, &[1]);
    bench.want(1, &[2], &[]);
    bench.node(2).rings.lag_ms = 1_500;
    bench.pass(1_700 + 2 * IDLE_MS);
    bench.check(1, &[moving(2, 1)]);
    bench.node(2).rings.lag_ms = 100;
    bench.pass(3_000);
    bench.check(1, &[quiet(2)]);
}

//! The failover proof in short: no connection breaks through a pair of ours, the proof notices those that
//! do through another, and in a mixed pair each of the two makes takes over from the other.

use std::path::PathBuf;
use std::time::Duration;

use lb_lab::disruption::raise_descriptor_limit;
use lb_lab::failover::event::Event;
use lb_lab::failover::outcome::Row;
use lb_lab::failover::pair::Make;
use lb_lab::failover::run::{RunPlan, run};
use lb_lab::topology::Balancers;
use lb_lab::{Forward, require};

/// Connections in each scheduler and family.
const CONNECTIONS: usize = 20;
/// Between two advertisements.
const INTERVAL: Duration = Duration::from_millis(100);

fn plan(make: Make, forward: Forward, events: &[Event]) -> RunPlan {
    RunPlan {
        make,
        forward,
        interval: INTERVAL,
        events: events.to_vec(),
        balancers: Balancers::Pair,
        cut: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        other_build: None,
        repetitions: 1,
        is_full: false,
        proofs: 1,
        flows: CONNECTIONS,
        newcomer_pause: Duration::from_millis(50),
        server: PathBuf::from(env!("CARGO_BIN_EXE_lb-failover")),
    }
}

/// What our pair needs to be tried.
const PROGRAMS: [&str; 3] = ["ip", "nft", "nginx"];
/// What a pair needs with keepalived in it.
const PROGRAMS_OF_RIVAL: [&str; 5] = ["haproxy", "ip", "keepalived", "nft", "nginx"];

/// Two tests at a time share the machine with others: how long it is dark is the proof's matter, and here only
/// that it does not stay so. Unit: milliseconds.
const DARK_MAX_MS: f64 = 3000.0;

fn assert_unbroken(rows: &[Row]) {
    for row in rows {
        let summary = row.summary();
        let broken = summary.broken + summary.broken_unproved;
        assert_eq!(broken, 0, "{}: {summary:?}", row.phase);
        assert!(
            summary.connections >= 4 * CONNECTIONS,
            "{}: {summary:?}",
            row.phase
        );
        assert_eq!(summary.false_failovers, 0, "{}: {summary:?}", row.phase);
        assert!(
            summary.darkness.max_ms < DARK_MAX_MS,
            "{}: {summary:?}",
            row.phase
        );
    }
}

/// A pair of ours goes through `events`, in a network that is made for them.
fn go_through(forward: Forward, events: &[Event]) -> Vec<Row> {
    raise_descriptor_limit().unwrap();
    let balancers = events[0].balancers();
    let plan = RunPlan {
        balancers,
        ..plan(Make::Ours, forward, events)
    };
    rows_of(&plan)
}

fn rows_of(plan: &RunPlan) -> Vec<Row> {
    let mut rows = Vec::new();
    run(plan, |row| rows.push(row)).unwrap();
    rows
}

#[test]
fn a_node_loses_its_power_and_is_handed_the_vips_back_with_dsr() {
    if require(&PROGRAMS).is_missing() {
        return;
    }
    let rows = go_through(Forward::Dsr, &[Event::PowerLoss, Event::HandOver]);
    assert_unbroken(&rows);
    assert_eq!(rows[0].samples[0].seen.took, [false, true]);
}

#[test]
fn a_node_loses_its_power_right_after_a_change_with_nat() {
    if require(&PROGRAMS).is_missing() {
        return;
    }
    assert_unbroken(&go_through(Forward::Nat, &[Event::ChangeBefore]));
}

#[test]
fn processes_die_and_stand_still_and_the_vips_stay() {
    if require(&PROGRAMS).is_missing() {
        return;
    }
    let events = [Event::DaemonKilled, Event::VrrpKilled, Event::Stalled];
    let rows = go_through(Forward::Dsr, &events);
    assert_unbroken(&rows);
    assert!(rows.iter().all(|row| row.stays));
}

#[test]
fn a_router_spreads_flows_over_both_nodes_and_spreads_them_anew() {
    if require(&PROGRAMS).is_missing() {
        return;
    }
    assert_unbroken(&go_through(Forward::Dsr, &[Event::Ecmp]));
}

#[test]
fn keepalived_moves_the_vips_and_every_connection_through_haproxy_breaks() {
    if require(&PROGRAMS_OF_RIVAL).is_missing() {
        return;
    }
    raise_descriptor_limit().unwrap();
    let plan = plan(Make::Rival, Forward::Dsr, &[Event::PowerLoss]);
    let rows = rows_of(&plan);
    let [lost, back] = &rows[..] else {
        panic!("{} rows", rows.len());
    };
    let summary = lost.summary();
    assert_eq!(summary.broken, summary.connections, "{summary:?}");
    assert!(summary.connections >= 4 * CONNECTIONS, "{summary:?}");
    // Three intervals and a part of one (RFC 9568 section 6.1), less the time since the last advertisement.
    assert!(summary.darkness.max_ms > 200.0, "{summary:?}");
    assert_eq!(lost.samples[0].seen.took, [false, true], "{lost:?}");
    assert!(back.samples[0].seen.took[0], "{back:?}");
}

/// Both nodes of a mixed pair take the VIPs when they have to, and carry connections.
fn assert_taken_over(make: Make) {
    raise_descriptor_limit().unwrap();
    let events = [Event::PowerLoss, Event::LinkDown, Event::Stop];
    let plan = plan(make, Forward::Dsr, &events);
    let rows = rows_of(&plan);
    assert_eq!(rows.len(), 2 * events.len());
    for (number, row) in rows.iter().enumerate() {
        let summary = row.summary();
        // To lb2, and back to lb1.
        let taker = 1 - number % 2;
        let mut samples = row.samples.iter();
        let is_taken = samples.all(|sample| sample.seen.took[taker]);
        assert!(is_taken, "{}: {row:?}", row.phase);
        let longest_ms = summary.darkness.max_ms.max(summary.both_active.max_ms);
        assert!(longest_ms < DARK_MAX_MS, "{}: {summary:?}", row.phase);
        // Those that broke were opened again, through the other one.
        assert!(
            summary.connections >= 4 * CONNECTIONS,
            "{}: {summary:?}",
            row.phase
        );
        assert!(
            summary.new > summary.new_failed,
            "{}: {summary:?}",
            row.phase
        );
    }
}

#[test]
fn keepalived_takes_over_from_a_node_of_ours_and_gives_back() {
    if require(&PROGRAMS_OF_RIVAL).is_missing() {
        return;
    }
    assert_taken_over(Make::OursRival);
}

#[test]
fn a_node_of_ours_takes_over_from_keepalived_and_gives_back() {
    if require(&PROGRAMS_OF_RIVAL).is_missing() {
        return;
    }
    assert_taken_over(Make::RivalOurs);
}

//! The failover proof in short: what it sees of a pair that is known to break connections.

use std::path::PathBuf;
use std::time::Duration;

use lb_lab::disruption::raise_descriptor_limit;
use lb_lab::failover::event::Event;
use lb_lab::failover::run::{Make, RunPlan, run};
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
        proofs: 1,
        flows: CONNECTIONS,
        newcomer_pause: Duration::from_millis(50),
        server: PathBuf::from(env!("CARGO_BIN_EXE_lb-failover")),
    }
}

#[test]
fn keepalived_moves_the_vips_and_every_connection_through_haproxy_breaks() {
    if require(&["haproxy", "ip", "keepalived", "nft", "nginx"]).is_missing() {
        return;
    }
    raise_descriptor_limit().unwrap();
    let plan = plan(Make::Rival, Forward::Dsr, &[Event::PowerLoss]);
    let rows = run(&plan, |_| {}).unwrap();
    let [lost, back] = &rows[..] else {
        panic!("{} rows", rows.len());
    };
    let summary = lost.summary();
    assert_eq!(summary.broken, summary.connections, "{summary:?}");
    assert!(summary.connections >= 4 * CONNECTIONS, "{summary:?}");
    // Three intervals and a part of one (RFC 9568 section 6.1), less the time since the last advertisement.
    assert!(summary.darkness.max_ms > 200.0, "{summary:?}");
    assert_eq!(lost.samples[0].seen.took, [false, true], "{lost:?}");
    assert_eq!(back.samples[0].seen.took, [true, false], "{back:?}");
}

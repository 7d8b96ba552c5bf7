//! The disruption proof in short: connections of all kinds while things change, and that the proof
//! notices what breaks.

use std::path::PathBuf;
use std::time::Duration;

use lb_lab::disruption::lane::Lane;
use lb_lab::disruption::outcome::LaneOutcome;
use lb_lab::disruption::raise_descriptor_limit;
use lb_lab::disruption::stage::{Stage, StagePlan};
use lb_lab::disruption::traffic::{HasDatagrams, Traffic, TrafficPlan};
use lb_lab::lbd::Launch;
use lb_lab::{Forward, require};

/// Connections in each scheduler and family.
const CONNECTIONS: usize = 40;
/// The services' idle time-out: transitions pass in a few times as much.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);

fn stage_plan(forward: Forward) -> StagePlan {
    StagePlan {
        forward,
        idle_timeout: IDLE_TIMEOUT,
        server: PathBuf::from(env!("CARGO_BIN_EXE_lb-disruption")),
        launch: Launch::keeping(),
    }
}

fn traffic_plan() -> TrafficPlan {
    TrafficPlan {
        lanes: Lane::ALL.to_vec(),
        flows: CONNECTIONS,
        has_datagrams: HasDatagrams::Yes,
        silence: IDLE_TIMEOUT.mul_f64(0.6),
        newcomer_pause: Duration::from_millis(40),
    }
}

#[test]
fn connections_of_killed_servers_break_and_are_counted_and_no_others() {
    if require(&["ip", "nginx"]).is_missing() {
        return;
    }
    raise_descriptor_limit().unwrap();
    let mut stage = Stage::start(stage_plan(Forward::Dsr)).unwrap();
    let traffic = Traffic::start(stage.net.client.netns(), traffic_plan()).unwrap();
    traffic.prove().unwrap();
    stage.kill_servers(3).unwrap();
    traffic.prove().unwrap();
    let standing = traffic.standing();
    let counts = traffic.end_event().unwrap();
    for (lane, counts) in counts {
        assert!(!counts.broken.is_empty(), "{lane}: nothing broke");
        assert_eq!(standing[&lane], CONNECTIONS - counts.broken.len(), "{lane}");
        assert!(
            counts.broken.iter().all(|broken| broken.backend == 3),
            "{counts:?}"
        );
        assert!(
            !counts.new_failed.is_empty(),
            "{lane}: nobody met the dead servers"
        );
        let innocent = LaneOutcome::new(CONNECTIONS, &counts, &[]);
        assert_eq!(innocent.broken, counts.broken.len());
        let expected = LaneOutcome::new(CONNECTIONS, &counts, &[3]);
        assert_eq!(
            (expected.broken, expected.died_with_backend),
            (0, counts.broken.len())
        );
    }
}

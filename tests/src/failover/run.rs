//! A run: one pair at one interval, one event after another, each repeated.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::event::{Event, Other, Phase, Scene};
use super::ground::Ground;
use super::ours::{Clocks, OursPlan};
use super::outcome::{Promise, Row, Sample};
use super::pair::{Make, Pair};
use crate::disruption::lane::{Lane, forward_word};
use crate::disruption::outcome::LaneOutcome;
use crate::disruption::record::now_ns;
use crate::disruption::traffic::{Traffic, TrafficPlan};
use crate::topology::{Balancers, Forward, NodeId};

/// How long VIPs may take to be where they belong: they do not go back to a node before it has caught up, and a sync
/// link that loses nine packets of ten has its time for that.
const MOVE_TIMEOUT: Duration = Duration::from_secs(300);
/// How long everything must have been answered before it counts as well again.
const LIGHT_MIN: Duration = Duration::from_millis(300);
/// The same, in intervals: what comes twice comes within these.
const LIGHT_INTERVALS: u32 = 4;

/// After a longer darkness every connection has to have been answered before the next event comes. TCP doubles
/// its time-out with each repetition (RFC 6298, section 5.5): a client that has met two darknesses of three seconds
/// waits for ten, and no balancer can change that.
const REST_AFTER: Duration = Duration::from_secs(1);

/// Idle flows are silent for this part of the services' idle time-out.
const SILENT_PART: f64 = 0.6;

/// Our heartbeats come as often as advertisements do, and by default no seldomer than this.
const HEARTBEAT_MAX: Duration = Duration::from_millis(100);

/// What a run consists of.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// Whose pair.
    pub make: Make,
    /// How packets come back.
    pub forward: Forward,
    /// Between two advertisements.
    pub interval: Duration,
    /// What happens, all in networks of one kind.
    pub events: Vec<Event>,
    /// The network.
    pub balancers: Balancers,
    /// How long the link between the nodes is cut.
    pub cut: Duration,
    /// The services' idle time-out, of ours.
    pub idle_timeout: Duration,
    /// The directory of another build of ours.
    pub other_build: Option<PathBuf>,
    /// How often each.
    pub repetitions: usize,
    /// As often also what takes long: see [`Event::repetitions_max`].
    pub is_full: bool,
    /// Of these, those after which every connection proves that it lives.
    pub proofs: usize,
    /// Connections in each scheduler and family.
    pub flows: usize,
    /// Between two new connections on a lane.
    pub newcomer_pause: Duration,
    /// The program that serves.
    pub server: PathBuf,
}

/// Runs all events; `tell` gets each row as soon as it is there.
pub fn run(plan: &RunPlan, mut tell: impl FnMut(Row)) -> Result<()> {
    let mut ground = Ground::build(plan.forward, plan.balancers, &plan.server)
        .context("cannot build the network")?;
    let mut pair = Pair::start(&ground, plan.make, &ours_plan(plan))?;
    settle(&mut ground, &mut pair, plan.interval)?;
    let traffic_plan = TrafficPlan {
        lanes: Lane::ALL.to_vec(),
        flows: plan.flows,
        has_datagrams: pair.has_datagrams(),
        silence: plan.idle_timeout.mul_f64(SILENT_PART),
        newcomer_pause: plan.newcomer_pause,
    };
    let mut traffic = Traffic::start(ground.net.client.netns(), traffic_plan)?;
    for event in &plan.events {
        let rows = repeat(plan, *event, &mut ground, &mut pair, &mut traffic)
            .with_context(|| format!("{event:?} at {:?}", plan.interval))
            .with_context(|| pair.logs())?;
        rows.into_iter().for_each(&mut tell);
    }
    Ok(())
}

fn ours_plan(plan: &RunPlan) -> OursPlan {
    let has_own_clocks = plan.events.contains(&Event::ClockStep);
    OursPlan {
        interval: plan.interval,
        heartbeat: HEARTBEAT_MAX.min(plan.interval),
        idle_timeout: plan.idle_timeout,
        other_build: plan.other_build.clone(),
        clocks: if has_own_clocks {
            Clocks::Own
        } else {
            Clocks::Shared
        },
    }
}

/// Both balancers stand, lb1 has the VIPs, and the probes are answered.
fn settle(ground: &mut Ground, pair: &mut Pair, interval: Duration) -> Result<()> {
    ground
        .wait_holder(NodeId::Lb1, Other::HasNone, MOVE_TIMEOUT)
        .with_context(|| pair.logs())?;
    pair.wait_ready(ground)?;
    ground.start_probes()?;
    ground.wait_light(light(interval), MOVE_TIMEOUT)
}

fn light(interval: Duration) -> Duration {
    LIGHT_MIN.max(LIGHT_INTERVALS * interval)
}

/// Every repetition of an event: a row for each of its phases.
fn repeat(
    plan: &RunPlan,
    event: Event,
    ground: &mut Ground,
    pair: &mut Pair,
    traffic: &mut Traffic,
) -> Result<Vec<Row>> {
    let (mut holder, mut other) = (NodeId::Lb1, Other::HasNone);
    let mut rows = Vec::new();
    for phase in event.phases() {
        let next = (phase.holder)(pair);
        // Where both may have the VIPs from before, nothing tells how long a move takes.
        let promise = match other {
            Other::HasNone => Promise::of(plan.make, phase, holder, next),
            Other::MayHaveThem | Other::HasThem => Promise::of_stay(plan.make),
        };
        rows.push(Row {
            make: plan.make,
            mode: forward_word(plan.forward),
            interval: plan.interval,
            phase: phase.name,
            promise,
            warning: phase.warning,
            stays: [holder, next] == [NodeId::Lb1; 2] && phase.other != Other::HasThem,
            other: phase.other,
            samples: Vec::new(),
            broken_unproved: BTreeMap::new(),
        });
        (holder, other) = (next, phase.other);
    }
    // Those of the last event.
    stand(traffic, now_ns())?;
    let began_ns = now_ns();
    let repetitions = match plan.is_full {
        true => plan.repetitions,
        false => plan.repetitions.min(event.repetitions_max(plan.interval)),
    };
    for repetition in 0..repetitions {
        for (phase, row) in event.phases().iter().zip(&mut rows) {
            let proof = if repetition < plan.proofs {
                Proof::Asked
            } else {
                Proof::Spared
            };
            let sample = take(plan, phase, ground, pair, traffic, proof)
                .with_context(|| format!("{}, repetition {}", phase.name, repetition + 1))?;
            row.samples.push(sample);
        }
    }
    if let Some(row) = rows.last_mut().filter(|_| repetitions > plan.proofs) {
        row.broken_unproved = stand(traffic, began_ns)?;
    }
    Ok(rows)
}

/// Whether connections have to prove that they live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Proof {
    /// They do.
    Asked,
    /// Not yet.
    Spared,
}

/// Does what a phase is, and sees what it costs.
fn take(
    plan: &RunPlan,
    phase: &Phase,
    ground: &mut Ground,
    pair: &mut Pair,
    traffic: &mut Traffic,
    proof: Proof,
) -> Result<Sample> {
    let standing = traffic.standing();
    ground.begin();
    let mut scene = Scene {
        ground,
        pair,
        traffic,
        interval: plan.interval,
        cut: plan.cut,
    };
    (phase.act)(&mut scene)?;
    let holder = (phase.holder)(pair);
    ground.wait_holder(holder, phase.other, MOVE_TIMEOUT)?;
    ground.wait_light(light(plan.interval), MOVE_TIMEOUT)?;
    let seen = ground.seen();
    pair.wait_ready(ground)?;
    let lanes = match proof {
        Proof::Asked => Some(outcome(traffic, standing)?),
        Proof::Spared => {
            if seen.darkness.longest > REST_AFTER {
                traffic.prove()?;
            }
            None
        }
    };
    Ok(Sample { seen, lanes })
}

/// Has every connection stand. Returns how those broke that had to be replaced, and when since that moment.
fn stand(traffic: &mut Traffic, since_ns: u64) -> Result<BTreeMap<String, usize>> {
    traffic.prove()?;
    let counts = traffic.end_event()?;
    traffic.refill()?;
    let mut how = BTreeMap::new();
    for broken in counts.values().flat_map(|counts| &counts.broken) {
        let after_s = broken.at_ns.saturating_sub(since_ns) / 1_000_000_000;
        let words = format!(
            "{}, {} of web{}: {}, {after_s} s after the first",
            broken.lane, broken.group, broken.backend, broken.breakage
        );
        *how.entry(words).or_default() += 1;
    }
    Ok(how)
}

/// Every connection proves that it lives; those that do not are replaced by others.
fn outcome(
    traffic: &mut Traffic,
    standing: BTreeMap<Lane, usize>,
) -> Result<BTreeMap<Lane, LaneOutcome>> {
    traffic.prove()?;
    let counts = traffic.end_event()?;
    traffic.refill()?;
    let lanes = standing.into_iter().map(|(lane, connections)| {
        let counts = counts.get(&lane).cloned().unwrap_or_default();
        (lane, LaneOutcome::new(connections, &counts, &[]))
    });
    Ok(lanes.collect())
}

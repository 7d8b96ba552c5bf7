//! A run: one pair at one interval, one event after another, each repeated.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};

use super::event::{Event, Other, Phase, Scene};
use super::ground::Ground;
use super::outcome::{Row, Sample};
use super::pair::Pair;
use super::rival::Rival;
use crate::disruption::lane::{Lane, forward_word};
use crate::disruption::outcome::LaneOutcome;
use crate::disruption::traffic::{Traffic, TrafficPlan};
use crate::topology::{Balancers, Forward, NodeId};

/// How long VIPs may take to be where they belong.
const MOVE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long everything must have been answered before it counts as well again.
const LIGHT_MIN: Duration = Duration::from_millis(300);
/// The same, in intervals: what comes twice comes within these.
const LIGHT_INTERVALS: u32 = 4;

/// Whose pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Make {
    /// keepalived with HAProxy.
    Rival,
}

/// What a run consists of.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// Whose pair.
    pub make: Make,
    /// How packets come back.
    pub forward: Forward,
    /// Between two advertisements.
    pub interval: Duration,
    /// What happens.
    pub events: Vec<Event>,
    /// How often each.
    pub repetitions: usize,
    /// Of these, those after which every connection proves that it lives.
    pub proofs: usize,
    /// Connections in each scheduler and family.
    pub flows: usize,
    /// Between two new connections on a lane.
    pub newcomer_pause: Duration,
    /// The program that serves.
    pub server: PathBuf,
}

/// Runs all events; `tell` hears of each row as soon as it is there.
pub fn run(plan: &RunPlan, mut tell: impl FnMut(&Row)) -> Result<Vec<Row>> {
    let mut ground = Ground::build(plan.forward, Balancers::Pair, &plan.server)
        .context("cannot build the network")?;
    let mut pair: Box<dyn Pair> = match plan.make {
        Make::Rival => Box::new(Rival::start(&ground, plan.interval)?),
    };
    settle(&mut ground, pair.as_mut(), plan.interval)?;
    let traffic_plan = TrafficPlan {
        lanes: Lane::ALL.to_vec(),
        flows: plan.flows,
        has_datagrams: pair.has_datagrams(),
        // Flows that say nothing while a VIP moves, and again after it.
        silence: Duration::from_secs(2) + 4 * plan.interval,
        newcomer_pause: plan.newcomer_pause,
    };
    let mut traffic = Traffic::start(ground.net.client.netns(), traffic_plan)?;
    let mut rows = Vec::new();
    for event in &plan.events {
        let fresh = repeat(plan, *event, &mut ground, pair.as_mut(), &mut traffic)
            .with_context(|| format!("{event:?} at {:?}", plan.interval))
            .with_context(|| pair.logs())?;
        fresh.iter().for_each(&mut tell);
        rows.extend(fresh);
    }
    Ok(rows)
}

/// Both balancers stand, lb1 has the VIPs, and the probes are answered.
fn settle(ground: &mut Ground, pair: &mut dyn Pair, interval: Duration) -> Result<()> {
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
    pair: &mut dyn Pair,
    traffic: &mut Traffic,
) -> Result<Vec<Row>> {
    let mut holder = NodeId::Lb1;
    let mut rows = Vec::new();
    for phase in event.phases() {
        rows.push(Row {
            pair: pair.word(),
            mode: forward_word(plan.forward),
            interval: plan.interval,
            phase: phase.name,
            stays: (phase.holder)(pair) == holder && holder == NodeId::Lb1,
            samples: Vec::new(),
            broken_unproved: 0,
        });
        holder = (phase.holder)(pair);
    }
    // Those of the last event.
    stand(traffic)?;
    for repetition in 0..plan.repetitions {
        for (phase, row) in event.phases().iter().zip(&mut rows) {
            let proof = (repetition < plan.proofs).then_some(&mut *traffic);
            let mut scene = Scene { ground, pair };
            let sample = take(phase, &mut scene, plan.interval, proof)
                .with_context(|| format!("{}, repetition {}", phase.name, repetition + 1))?;
            row.samples.push(sample);
        }
    }
    if let Some(row) = rows.last_mut().filter(|_| plan.repetitions > plan.proofs) {
        row.broken_unproved = stand(traffic)?;
    }
    Ok(rows)
}

/// Does what a phase is, and sees what it costs.
fn take(
    phase: &Phase,
    scene: &mut Scene<'_>,
    interval: Duration,
    proof: Option<&mut Traffic>,
) -> Result<Sample> {
    let standing = proof.as_ref().map(|traffic| traffic.standing());
    scene.ground.begin();
    (phase.act)(scene)?;
    let holder = (phase.holder)(scene.pair);
    scene
        .ground
        .wait_holder(holder, phase.other, MOVE_TIMEOUT)?;
    scene.ground.wait_light(light(interval), MOVE_TIMEOUT)?;
    let seen = scene.ground.seen();
    scene.pair.wait_ready(scene.ground)?;
    let lanes = proof.map(|traffic| outcome(traffic, standing.unwrap_or_default()));
    Ok(Sample {
        seen,
        lanes: lanes.transpose()?,
    })
}

/// Has every connection stand. Returns how many had to be replaced.
fn stand(traffic: &mut Traffic) -> Result<usize> {
    traffic.prove()?;
    let counts = traffic.end_event()?;
    traffic.refill()?;
    Ok(counts.values().map(|counts| counts.broken.len()).sum())
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

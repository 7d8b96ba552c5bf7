//! A run: one stage, its traffic, and one event after another.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};

use super::event::{Event, Step};
use super::flood::Flood;
use super::lane::{Lane, forward_word};
use super::outcome::{LaneOutcome, Row, Weather};
use super::scene::Scene;
use super::stage::{Stage, StagePlan};
use super::traffic::{Traffic, TrafficPlan};

/// What a run consists of.
#[derive(Clone, Debug)]
pub struct RunPlan {
    /// The site.
    pub stage: StagePlan,
    /// What goes on.
    pub traffic: TrafficPlan,
    /// What happens.
    pub events: Vec<Event>,
    /// Where random changes begin.
    pub seed: u64,
    /// The directory of another build of lbd.
    pub other_build: Option<PathBuf>,
    /// A SYN flood of so many frames a second, all the time.
    pub flood_pps: Option<u32>,
}

/// What a run has found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// A row for each step.
    pub rows: Vec<Row>,
    /// What is worth a line under the table.
    pub notes: Vec<String>,
}

/// Runs all events; `tell` hears of each row as soon as it is there.
pub fn run(plan: &RunPlan, mut tell: impl FnMut(&Row)) -> Result<Findings> {
    let mut stage = Stage::start(plan.stage.clone()).context("cannot set the stage")?;
    let netns = stage.net.client.netns();
    let mut traffic = Traffic::start(netns, plan.traffic.clone())?;
    let flood = plan
        .flood_pps
        .map(|pps| Flood::start(&stage.net, pps))
        .transpose()?;
    let weather = match flood {
        Some(_) => Weather::Flood,
        None => Weather::Fair,
    };
    let mut findings = Findings::default();
    for step in plan.events.iter().flat_map(|event| event.steps()) {
        let scene = Scene {
            stage: &mut stage,
            traffic: &traffic,
            other_build: plan.other_build.clone(),
            seed: plan.seed,
            dead: Vec::new(),
            notes: Vec::new(),
        };
        let row = take_step(step, scene, weather, &mut findings.notes)
            .with_context(|| format!("{}, {}", forward_word(plan.stage.forward), step.name))
            .with_context(|| format!("log of lbd:\n{}", stage.lbd.log_tail()));
        let row = row?;
        tell(&row);
        findings.rows.push(row);
        traffic.refill()?;
    }
    if let Some(flood) = flood {
        let report = flood.stop(&stage.net)?;
        findings
            .notes
            .push(format!("{}: {report}", forward_word(plan.stage.forward)));
    }
    Ok(findings)
}

/// Every flow proves to be alive, the step happens, everything settles, and they prove it again.
///
/// In a flood nothing settles, since there are SYNs all the time that cannot be recorded: then the next
/// step comes once every idle flow has spoken, upon rings in transition.
fn take_step(
    step: &Step,
    mut scene: Scene<'_>,
    weather: Weather,
    notes: &mut Vec<String>,
) -> Result<Row> {
    let connections = scene.traffic.standing();
    scene.traffic.prove()?;
    let retransmitted_before = scene.stage.retransmitted()?;
    let began = Instant::now();
    (step.act)(&mut scene)?;
    let acted_s = began.elapsed().as_secs_f64();
    match weather {
        Weather::Fair => scene.stage.wait_settled()?,
        Weather::Flood => scene.traffic.wait_silence()?,
    }
    let settled_s = began.elapsed().as_secs_f64();
    scene.traffic.prove()?;
    let counts = scene.traffic.end_event()?;
    let lanes: BTreeMap<Lane, LaneOutcome> = connections
        .into_iter()
        .map(|(lane, connections)| {
            let counts = counts.get(&lane).cloned().unwrap_or_default();
            (lane, LaneOutcome::new(connections, &counts, &scene.dead))
        })
        .collect();
    notes.append(&mut scene.notes);
    Ok(Row {
        step: step.name,
        concerns: step.concerns,
        mode: forward_word(scene.stage.net.forward()),
        weather,
        retransmitted: scene.stage.retransmitted()? - retransmitted_before,
        acted_s,
        settled_s,
        lanes,
    })
}

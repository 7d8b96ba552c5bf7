//! Events in the life of the daemon.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::backends::{PUT_IN, TAKE_OUT};
use super::lane::Service;
use super::scene::Scene;
use super::stage::{Fleet, SERVING_COUNT, Stage, WEIGHT, first_fleet, name};
use crate::lbd::Launch;
use crate::wait::wait_until;

/// How long a reload may take.
const RELOAD_TIMEOUT: Duration = Duration::from_secs(20);
/// How long an lbd that aborts may take to be gone.
const ABORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Newcomers on each lane between two starts of the daemon.
const SOME_NEWCOMERS: u64 = 10;

/// Has lbd abort itself after so many writes to its maps, counted from its start.
const ABORT_VARIABLE: &str = "LBD_ABORT_AFTER_WRITES";
/// No change writes more often than this; a loop that goes on is a fault of its own. Unit: writes.
const ABORT_WRITES_MAX: u32 = 2000;

/// The file's other content: a backend more, one less, and another weight.
fn changed_fleet() -> Fleet {
    let mut fleet = first_fleet();
    fleet.remove(&name(SERVING_COUNT));
    fleet.insert(name(1), 2 * WEIGHT);
    fleet.insert(name(SERVING_COUNT + 1), WEIGHT);
    fleet
}

pub(super) fn reload_changed(scene: &mut Scene<'_>) -> Result<()> {
    reload(scene, &changed_fleet())
}

pub(super) fn reload_first(scene: &mut Scene<'_>) -> Result<()> {
    reload(scene, &first_fleet())
}

fn reload(scene: &Scene<'_>, fleet: &Fleet) -> Result<()> {
    let lbd = &scene.stage.lbd;
    let done = || lbd.log().matches("reloaded").count();
    let before = done();
    lbd.reload(&scene.stage.config(fleet))?;
    let reloaded = wait_until("the reload", RELOAD_TIMEOUT, || {
        Ok((done() > before).then_some(()))
    });
    reloaded.with_context(|| format!("log of lbd:\n{}", lbd.log_tail()))
}

pub(super) fn restart(scene: &mut Scene<'_>) -> Result<()> {
    let status = scene.stage.lbd.terminate()?;
    ensure!(status.success(), "lbd ended with {status}");
    scene.traffic.wait_newcomers(SOME_NEWCOMERS)?;
    scene.stage.start_lbd_again()
}

pub(super) fn kill(scene: &mut Scene<'_>) -> Result<()> {
    scene.stage.lbd.kill9()?;
    scene.traffic.wait_newcomers(SOME_NEWCOMERS)?;
    scene.stage.start_lbd_again()
}

pub(super) fn upgrade(scene: &mut Scene<'_>) -> Result<()> {
    if scene.other_build.is_none() {
        let note = "upgrade and downgrade: to the same build, as no other one was given";
        scene.notes.push(note.to_owned());
    }
    let other = scene.other_build.clone();
    replace_daemon(scene, other)
}

pub(super) fn downgrade(scene: &mut Scene<'_>) -> Result<()> {
    let first = scene.stage.launch().directory.clone();
    replace_daemon(scene, first)
}

/// As a package does it: the old one is stopped, the new one started.
fn replace_daemon(scene: &mut Scene<'_>, directory: Option<PathBuf>) -> Result<()> {
    let launch = Launch {
        directory: directory.or_else(|| scene.stage.launch().directory.clone()),
        ..scene.stage.launch().clone()
    };
    let status = scene.stage.lbd.terminate()?;
    ensure!(status.success(), "lbd ended with {status}");
    scene.stage.lbd.restart_as(launch, &scene.stage.net.lb)
}

/// lbd dies after its first write, then after its second, and so on, until it survives a start and a
/// change (of every service) together. Between two deaths another lbd sets things right.
pub(super) fn interrupt_change(scene: &mut Scene<'_>) -> Result<()> {
    let spare = SERVING_COUNT + 1;
    scene.stage.lbd.terminate()?;
    for writes in 1..=ABORT_WRITES_MAX {
        let survived = change_until_death(scene, spare, writes)?;
        if !survived {
            scene.stage.start_lbd_again()?;
        }
        scene.traffic.wait_newcomers(1)?;
        scene.stage.lbd.terminate()?;
        if survived {
            scene
                .notes
                .push(format!("change interrupted: after each of {writes} writes"));
            return scene.stage.start_lbd_again();
        }
    }
    anyhow::bail!("lbd has not come to the end of a change in {ABORT_WRITES_MAX} writes")
}

/// Starts an lbd that dies after `writes` writes and has it add or remove a backend. Whether it has
/// lived through all of it.
fn change_until_death(scene: &mut Scene<'_>, backend: u8, writes: u32) -> Result<bool> {
    let mut launch = scene.stage.launch().clone();
    launch
        .environment
        .push((ABORT_VARIABLE.to_owned(), writes.to_string()));
    let stage = &mut scene.stage;
    if stage.lbd.restart_as(launch, &stage.net.lb).is_err() {
        return Ok(false);
    }
    let changed = toggle(stage, backend);
    if changed.is_err() {
        // lbctl knows of the end before it is over.
        await_abort(scene)?;
    }
    Ok(changed.is_ok())
}

/// Adds the backend to each service that lacks it, and removes it from each that has it: lbd may have
/// died half-way through the last time.
fn toggle(stage: &Stage, backend: u8) -> Result<()> {
    for service in Service::all() {
        let words: &[&str] = if stage.has_backend(service, backend)? {
            &TAKE_OUT
        } else {
            &PUT_IN
        };
        stage.ctl(service, words, backend)?;
    }
    Ok(())
}

fn await_abort(scene: &mut Scene<'_>) -> Result<()> {
    let status = scene.stage.lbd.process().wait(ABORT_TIMEOUT)?;
    ensure!(!status.success(), "lbd ended with {status}: no abort");
    Ok(())
}

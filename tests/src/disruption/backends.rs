//! Events in the life of backends.

use anyhow::Result;

use super::scene::Scene;
use super::stage::{SERVING_COUNT, WEIGHT};
use super::wild;

/// Adds a backend to a service.
pub(super) const PUT_IN: [&str; 6] = ["backend", "add", "SERVICE", "ADDRESS", "--name", "BACKEND"];
/// Removes a backend from a service.
pub(super) const TAKE_OUT: [&str; 4] = ["backend", "remove", "SERVICE", "BACKEND"];

/// The backend that is added and removed: the first that stands by.
const SPARE: u8 = SERVING_COUNT + 1;
/// The backend that is re-weighted.
const HEAVY: u8 = 1;
/// The backend that is drained.
const DRAINED: u8 = 2;
/// The backend that dies.
const MORTAL: u8 = 3;

/// Newcomers on each lane that make an event without a state of its own long enough to be seen.
const SOME_NEWCOMERS: u64 = 50;

pub(super) fn nothing(scene: &mut Scene<'_>) -> Result<()> {
    scene.traffic.wait_newcomers(SOME_NEWCOMERS)
}

pub(super) fn add(scene: &mut Scene<'_>) -> Result<()> {
    put_in(scene, SPARE)
}

pub(super) fn remove(scene: &mut Scene<'_>) -> Result<()> {
    take_out(scene, SPARE)
}

pub(super) fn put_in(scene: &Scene<'_>, backend: u8) -> Result<()> {
    scene.ctl(&PUT_IN, backend)
}

pub(super) fn take_out(scene: &Scene<'_>, backend: u8) -> Result<()> {
    scene.ctl(&TAKE_OUT, backend)
}

pub(super) fn weigh(scene: &Scene<'_>, backend: u8, weight: u32) -> Result<()> {
    let weight = weight.to_string();
    let set = ["backend", "set", "SERVICE", "BACKEND", "--weight", &weight];
    scene.ctl(&set, backend)
}

pub(super) fn triple_weight(scene: &mut Scene<'_>) -> Result<()> {
    weigh(scene, HEAVY, 3 * WEIGHT)
}

pub(super) fn put_weight_back(scene: &mut Scene<'_>) -> Result<()> {
    weigh(scene, HEAVY, WEIGHT)
}

pub(super) fn drain(scene: &mut Scene<'_>) -> Result<()> {
    scene.ctl(&["backend", "drain", "SERVICE", "BACKEND"], DRAINED)
}

pub(super) fn ready(scene: &mut Scene<'_>) -> Result<()> {
    scene.ctl(&["backend", "ready", "SERVICE", "BACKEND"], DRAINED)
}

/// The servers are killed; then somebody notices.
pub(super) fn die(scene: &mut Scene<'_>) -> Result<()> {
    scene.dead.push(MORTAL);
    scene.stage.kill_servers(MORTAL)?;
    scene.ctl(&["health", "set", "SERVICE", "BACKEND", "down"], MORTAL)
}

pub(super) fn live_again(scene: &mut Scene<'_>) -> Result<()> {
    scene.stage.revive_servers(MORTAL)?;
    scene.ctl(&["health", "set", "SERVICE", "BACKEND", "up"], MORTAL)
}

/// All that is known of lives, at random.
pub(super) fn random_changes(scene: &mut Scene<'_>) -> Result<()> {
    wild::change_at_random(scene)
}

pub(super) fn replace_all(scene: &mut Scene<'_>) -> Result<()> {
    for old in 1..=SERVING_COUNT {
        replace(scene, old, old + SERVING_COUNT)?;
    }
    Ok(())
}

pub(super) fn replace_all_back(scene: &mut Scene<'_>) -> Result<()> {
    for new in 1..=SERVING_COUNT {
        replace(scene, new + SERVING_COUNT, new)?;
    }
    Ok(())
}

/// As an operator does it, without waiting for the old one's last connection.
fn replace(scene: &Scene<'_>, old: u8, new: u8) -> Result<()> {
    put_in(scene, new)?;
    scene.ctl(&["backend", "drain", "SERVICE", "BACKEND"], old)?;
    scene.traffic.wait_newcomers(SOME_NEWCOMERS)?;
    take_out(scene, old)
}

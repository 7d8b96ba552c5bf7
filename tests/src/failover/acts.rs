//! What phases are made of.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use nix::sys::signal::{Signal, kill};

use super::event::{STRUCK, Scene};
use super::ground::Link;
use super::node::{Admin, Build, Part};
use crate::topology::NodeId;

/// Unit: seconds.
pub(super) const HOUR_S: i64 = 3600;
/// New connections on each lane that a change in the backends' state gets before what follows.
const SOME_NEWCOMERS: u64 = 20;
/// Threads for each processor that want all of it.
const HOGS: usize = 4;

/// A node's programs are replaced by those of a build.
pub(super) fn replace(scene: &mut Scene<'_>, node: NodeId, by: Build) -> Result<()> {
    scene.pair.node(node).replace(scene.ground, by)
}

/// Both links of a node go down at once, and its processes die.
pub(super) fn power_off(scene: &mut Scene<'_>, node: NodeId) -> Result<()> {
    scene.ground.cut_off(node)?;
    scene.pair.node(node).kill_all(scene.ground)
}

/// A machine that knows nothing comes in its place.
pub(super) fn power_on(scene: &mut Scene<'_>, node: NodeId) -> Result<()> {
    scene.ground.replace(node)?;
    scene.pair.node(node).start(scene.ground)
}

/// A backend of every service is drained, by an order to one node.
pub(super) fn drain(scene: &mut Scene<'_>, node: NodeId) -> Result<()> {
    scene.pair.node(node).change_backends(Admin::Drain)
}

/// It is readied.
pub(super) fn ready(scene: &mut Scene<'_>, node: NodeId) -> Result<()> {
    scene.pair.node(node).change_backends(Admin::Ready)
}

/// The link between the nodes loses packets, a backend is drained, and there are new connections since.
pub(super) fn lose_and_drain(scene: &mut Scene<'_>, percent: u8) -> Result<()> {
    scene.ground.lose_on_sync(percent)?;
    drain(scene, STRUCK)?;
    scene.traffic.wait_newcomers(SOME_NEWCOMERS)
}

/// The link between the nodes is cut for its time, and a backend is drained meanwhile.
pub(super) fn cut_and_drain(scene: &mut Scene<'_>) -> Result<()> {
    scene.ground.set_sync(Link::Down)?;
    let since = Instant::now();
    drain(scene, STRUCK)?;
    scene.traffic.wait_newcomers(SOME_NEWCOMERS)?;
    thread::sleep(scene.cut.saturating_sub(since.elapsed()));
    Ok(())
}

/// So many intervals pass.
pub(super) fn pass(scene: &Scene<'_>, intervals: u32) -> Result<()> {
    thread::sleep(intervals * scene.interval);
    Ok(())
}

/// The processes that are a part of lb1 are stopped for so many intervals.
pub(super) fn stall(scene: &mut Scene<'_>, part: Part, intervals: u32) -> Result<()> {
    let pids = scene.pair.node(STRUCK).pids(scene.ground, part)?;
    pids.iter()
        .try_for_each(|pid| kill(*pid, Signal::SIGSTOP))?;
    thread::sleep(intervals * scene.interval);
    pids.iter()
        .try_for_each(|pid| kill(*pid, Signal::SIGCONT))?;
    pass(scene, intervals)
}

/// Threads of this process want every processor for so many intervals.
pub(super) fn starve(scene: &mut Scene<'_>, intervals: u32) -> Result<()> {
    let count = HOGS * thread::available_parallelism()?.get();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        thread::sleep(Duration::from_secs(1).max(intervals * scene.interval));
        is_over.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// Neither node hears anything of the other, or both do again.
pub(super) fn part(scene: &mut Scene<'_>, state: Link) -> Result<()> {
    scene.ground.set_sync(state)?;
    let mut nodes = NodeId::ALL.into_iter();
    nodes.try_for_each(|node| scene.ground.set_adverts(node, state))
}

/// The router spreads flows by other weights, and there are new connections since.
pub(super) fn respread(scene: &mut Scene<'_>, weights: [u8; 2]) -> Result<()> {
    scene.ground.spread(weights)?;
    scene.traffic.wait_newcomers(SOME_NEWCOMERS)
}

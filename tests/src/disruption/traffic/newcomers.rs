//! New connections at a constant rate, all the time: does an event turn anybody away?

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::breakage::Breakage;
use super::flow::ANSWER_TIMEOUT;
use super::http::Requests;
use super::records::Words;
use super::world::World;
use crate::disruption::lane::{Carries, Lane};

/// A connection that took so long was begun more than once: Linux repeats a SYN after a second.
const DELAYED_FROM: Duration = Duration::from_millis(900);

/// Opens a connection every `pause`, uses it once, and closes it.
pub(super) async fn keep_coming(lane: Lane, pause: Duration, world: Rc<World>) {
    let mut ticks = interval(pause);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0_u64.. {
        ticks.tick().await;
        let carries = match number % 2 {
            0 => Carries::Records,
            _ => Carries::Http,
        };
        tokio::task::spawn_local(come_once(lane, carries, Rc::clone(&world)));
    }
}

async fn come_once(lane: Lane, carries: Carries, world: Rc<World>) {
    let epoch = world.ledger.epoch();
    world
        .ledger
        .note(epoch, lane, |counts| counts.new_under_way += 1);
    let began = Instant::now();
    let outcome = timeout(ANSWER_TIMEOUT, use_once(lane, carries)).await;
    let outcome = outcome.map_err(Breakage::from).flatten();
    world.ledger.note(epoch, lane, |counts| {
        counts.new_under_way -= 1;
        match outcome {
            Ok(()) => counts.new_ok += 1,
            Err(breakage) => *counts.new_failed.entry(breakage.word()).or_default() += 1,
        }
        if began.elapsed() >= DELAYED_FROM {
            counts.new_delayed += 1;
        }
    });
}

async fn use_once(lane: Lane, carries: Carries) -> Result<(), Breakage> {
    let address = lane.address(carries);
    match carries {
        Carries::Http => drop(Requests::open(address).await?),
        Carries::Records | Carries::Datagrams => drop(Words::open(address, 0).await?),
    }
    Ok(())
}

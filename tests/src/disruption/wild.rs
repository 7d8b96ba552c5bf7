//! Random changes of backends, one upon the other, without waiting for anything to settle.

use anyhow::Result;

use super::backends::{put_in, take_out, weigh};
use super::scene::Scene;
use super::stage::{SERVING_COUNT, SPARE_COUNT, WEIGHT};

/// Changes in a row.
const CHANGE_COUNT: u32 = 30;
/// Newcomers on each lane between two changes, at the most.
const NEWCOMERS_MAX: u64 = 8;

/// What the balancer has been told about a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Life {
    is_present: bool,
    is_drained: bool,
    is_down: bool,
    weight: u32,
}

impl Life {
    const ABSENT: Self = Self {
        is_present: false,
        is_drained: false,
        is_down: false,
        weight: WEIGHT,
    };

    fn is_eligible(self) -> bool {
        self.is_present && !self.is_drained && !self.is_down
    }
}

/// A change of one backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add,
    Remove,
    Weigh(u32),
    Drain,
    Ready,
    Down,
    Up,
}

/// Steele, Lea, Flood, "Fast splittable pseudorandom number generators" (2014).
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (value ^ (value >> 31)) % bound
    }
}

/// web1 …, as they are at the beginning.
fn first_lives() -> Vec<Life> {
    (1..=SERVING_COUNT + SPARE_COUNT)
        .map(|number| Life {
            is_present: number <= SERVING_COUNT,
            ..Life::ABSENT
        })
        .collect()
}

/// Makes the changes, and in the end those that put everything back.
pub(super) fn change_at_random(scene: &mut Scene<'_>) -> Result<()> {
    let mut random = SplitMix(scene.seed);
    let mut lives = first_lives();
    for _ in 0..CHANGE_COUNT {
        let (backend, change) = pick(&mut random, &lives);
        make(scene, &mut lives, backend, change)?;
        scene.traffic.wait_newcomers(random.below(NEWCOMERS_MAX))?;
    }
    for (backend, first) in first_lives().into_iter().enumerate() {
        for change in way_back(lives[backend], first) {
            make(scene, &mut lives, backend, change)?;
        }
    }
    Ok(())
}

/// A change that makes sense and leaves somebody for new connections.
fn pick(random: &mut SplitMix, lives: &[Life]) -> (usize, Change) {
    loop {
        let backend = random.below(lives.len() as u64) as usize;
        let life = lives[backend];
        let kind = random.below(4);
        let change = match (life.is_present, kind) {
            (false, _) => Change::Add,
            (true, 0) => Change::Remove,
            (true, 1) if life.is_drained => Change::Ready,
            (true, 1) => Change::Drain,
            (true, 2) if life.is_down => Change::Up,
            (true, 2) => Change::Down,
            (true, _) => Change::Weigh(20 + random.below(280) as u32),
        };
        let mut after = lives.to_vec();
        after[backend] = apply(life, change);
        if after.iter().any(|life| life.is_eligible()) {
            return (backend, change);
        }
    }
}

fn apply(life: Life, change: Change) -> Life {
    match change {
        Change::Add => Life {
            is_present: true,
            ..Life::ABSENT
        },
        Change::Remove => Life::ABSENT,
        Change::Weigh(weight) => Life { weight, ..life },
        Change::Drain => Life {
            is_drained: true,
            ..life
        },
        Change::Ready => Life {
            is_drained: false,
            ..life
        },
        Change::Down => Life {
            is_down: true,
            ..life
        },
        Change::Up => Life {
            is_down: false,
            ..life
        },
    }
}

/// The changes that make `to` of `from`.
fn way_back(from: Life, to: Life) -> Vec<Change> {
    let mut changes = Vec::new();
    match (from.is_present, to.is_present) {
        (true, false) => return vec![Change::Remove],
        (false, false) => return changes,
        (false, true) => changes.push(Change::Add),
        (true, true) => {}
    }
    if from.is_drained {
        changes.push(Change::Ready);
    }
    if from.is_down {
        changes.push(Change::Up);
    }
    if from.weight != to.weight {
        changes.push(Change::Weigh(to.weight));
    }
    changes
}

fn make(scene: &Scene<'_>, lives: &mut [Life], backend: usize, change: Change) -> Result<()> {
    let number = backend as u8 + 1;
    lives[backend] = apply(lives[backend], change);
    match change {
        Change::Add => put_in(scene, number),
        Change::Remove => take_out(scene, number),
        Change::Weigh(weight) => weigh(scene, number, weight),
        Change::Drain => scene.ctl(&["backend", "drain", "SERVICE", "BACKEND"], number),
        Change::Ready => scene.ctl(&["backend", "ready", "SERVICE", "BACKEND"], number),
        Change::Down => scene.ctl(&["health", "set", "SERVICE", "BACKEND", "down"], number),
        Change::Up => scene.ctl(&["health", "set", "SERVICE", "BACKEND", "up"], number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_leave_somebody_and_can_be_taken_back() {
        for seed in 0..200 {
            let mut random = SplitMix(seed);
            let mut lives = first_lives();
            for _ in 0..CHANGE_COUNT {
                let (backend, change) = pick(&mut random, &lives);
                lives[backend] = apply(lives[backend], change);
                assert!(lives.iter().any(|life| life.is_eligible()), "seed {seed}");
            }
            for (life, first) in lives.into_iter().zip(first_lives()) {
                let back = way_back(life, first).into_iter().fold(life, apply);
                assert_eq!(back, first, "seed {seed}");
            }
        }
    }
}

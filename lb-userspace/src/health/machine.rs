//! What a sequence of answers says about whether a backend is up: hysteresis and flap damping. No clock
//! and no I/O: the caller says when.

use std::collections::VecDeque;

use crate::model::Health;
use crate::model::check::Timing;

/// Deaths within this time are flapping. Unit: milliseconds.
pub const FLAP_WINDOW_MS: u64 = 600_000;
/// So many deaths within [`FLAP_WINDOW_MS`] are nobody's fault: a restart, an upgrade, one accident.
pub const FLAPS_FREE: usize = 2;
/// How long the first flap that counts holds a backend down; each further one doubles it. Unit:
/// milliseconds.
pub const HOLD_DOWN_MIN_MS: u64 = 5_000;

/// The state of one check.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckState {
    health: Health,
    /// Answers in a row that contradict `health`.
    contradictions: u8,
    /// Moments of the last deaths, the latest last.
    deaths_ms: VecDeque<u64>,
    held_until_ms: Option<u64>,
    /// See [`Self::doubt`].
    is_in_doubt: bool,
}

impl CheckState {
    /// A check that was made before, by another daemon or under another configuration.
    pub fn known(health: Health) -> Self {
        Self {
            health,
            ..Self::default()
        }
    }

    /// Whether the backend answers this check, as far as is known.
    pub fn health(&self) -> Health {
        self.health
    }

    /// Answers in a row that contradict [`Self::health`].
    pub fn contradictions(&self) -> u8 {
        self.contradictions
    }

    /// Deaths within the last [`FLAP_WINDOW_MS`].
    pub fn flap_count(&self, now_ms: u64) -> usize {
        let since_ms = now_ms.saturating_sub(FLAP_WINDOW_MS);
        let recent = self.deaths_ms.iter().filter(|ms| **ms >= since_ms);
        recent.count()
    }

    /// Until when the backend stays down however well it answers; `None` = it is not held.
    pub fn held_until_ms(&self, now_ms: u64) -> Option<u64> {
        self.held_until_ms.filter(|until_ms| *until_ms > now_ms)
    }

    /// Takes an answer in. Returns whether [`Self::health`] has changed.
    ///
    /// The first answer of all decides at once: nothing is known that it could contradict. `hold_down_max_ms`
    /// bounds how long a flapping backend is held; 0 = it is not.
    pub fn observe(
        &mut self,
        is_success: bool,
        now_ms: u64,
        timing: &Timing,
        hold_down_max_ms: u64,
    ) -> bool {
        self.is_in_doubt = false;
        let seen = if is_success { Health::Up } else { Health::Down };
        if seen == self.health {
            self.contradictions = 0;
            return false;
        }
        let needed = match (self.health, seen) {
            (Health::Unknown, _) => 1,
            (_, Health::Down) => timing.fall,
            _ => timing.rise,
        };
        self.contradictions = self.contradictions.saturating_add(1).min(needed);
        if self.contradictions < needed {
            return false;
        }
        if is_success && self.held_until_ms(now_ms).is_some() {
            return false;
        }
        self.contradictions = 0;
        self.health = seen;
        if seen == Health::Down {
            self.note_death(now_ms, hold_down_max_ms);
        }
        true
    }

    /// Something else than an answer speaks against the backend: one bad answer is enough now. Returns whether
    /// that is new.
    pub fn doubt(&mut self, timing: &Timing) -> bool {
        if self.health != Health::Up || self.is_in_doubt {
            return false;
        }
        self.is_in_doubt = true;
        self.contradictions = self.contradictions.max(timing.fall.saturating_sub(1));
        true
    }

    /// Time from the begin of one check to that of the next: shorter while answer and state disagree.
    /// Unit: milliseconds.
    pub fn interval_ms(&self, timing: &Timing) -> u32 {
        if self.contradictions > 0 || self.is_in_doubt {
            timing.fast_interval_ms
        } else {
            timing.interval_ms
        }
    }

    fn note_death(&mut self, now_ms: u64, hold_down_max_ms: u64) {
        let since_ms = now_ms.saturating_sub(FLAP_WINDOW_MS);
        self.deaths_ms.retain(|ms| *ms >= since_ms);
        self.deaths_ms.push_back(now_ms);
        let counted = self.deaths_ms.len().saturating_sub(FLAPS_FREE);
        let hold_ms = match u32::try_from(counted) {
            Ok(0) => 0,
            Ok(counted) => HOLD_DOWN_MIN_MS.saturating_mul(1 << (counted - 1).min(32)),
            Err(_) => u64::MAX,
        };
        let hold_ms = hold_ms.min(hold_down_max_ms);
        self.held_until_ms = (hold_ms > 0).then(|| now_ms + hold_ms);
        // Beyond those that reach the longest hold, their number says nothing more.
        while self.deaths_ms.len() > FLAPS_FREE + 32 {
            self.deaths_ms.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMING: Timing = Timing {
        rise: 2,
        fall: 3,
        ..Timing::DEFAULT
    };
    const HOLD_MAX_MS: u64 = 60_000;

    /// Feeds answers a second apart; returns the health after each.
    fn after(state: &mut CheckState, start_ms: u64, answers: &[bool]) -> Vec<Health> {
        let answers = answers.iter().zip(0..);
        let healths = answers.map(|(is_success, second)| {
            state.observe(*is_success, start_ms + second * 1_000, &TIMING, HOLD_MAX_MS);
            state.health()
        });
        healths.collect()
    }

    #[test]
    fn the_first_answer_decides_and_then_rise_and_fall_do() {
        use Health::{Down, Up};
        let mut state = CheckState::default();
        let answers = [
            true, false, false, true, false, false, false, true, false, true, true,
        ];
        let expected = [Up, Up, Up, Up, Up, Up, Down, Down, Down, Down, Up];
        assert_eq!(after(&mut state, 0, &answers), expected);
        let mut dead = CheckState::default();
        assert_eq!(after(&mut dead, 0, &[false]), [Down]);
    }

    #[test]
    fn it_is_asked_more_often_while_in_doubt() {
        let mut state = CheckState::known(Health::Up);
        assert_eq!(state.interval_ms(&TIMING), TIMING.interval_ms);
        state.observe(false, 0, &TIMING, HOLD_MAX_MS);
        assert_eq!(state.interval_ms(&TIMING), TIMING.fast_interval_ms);
        state.observe(true, 1, &TIMING, HOLD_MAX_MS);
        assert_eq!(state.interval_ms(&TIMING), TIMING.interval_ms);
    }

    /// Dies at `ms`, answers again at once; returns when it is up.
    fn flap(state: &mut CheckState, ms: u64) -> u64 {
        for _ in 0..TIMING.fall {
            state.observe(false, ms, &TIMING, HOLD_MAX_MS);
        }
        assert_eq!(state.health(), Health::Down);
        let mut up_ms = ms;
        while state.health() == Health::Down {
            state.observe(true, up_ms, &TIMING, HOLD_MAX_MS);
            up_ms += 100;
        }
        up_ms
    }

    #[test]
    fn who_flaps_is_held_down_longer_each_time_and_not_for_ever() {
        let mut state = CheckState::known(Health::Up);
        let mut now_ms = 1_000_000;
        let mut held_ms = Vec::new();
        for _ in 0..8 {
            let up_ms = flap(&mut state, now_ms);
            held_ms.push((up_ms - now_ms) / 1_000);
            now_ms = up_ms;
        }
        assert_eq!(held_ms, [0, 0, 5, 10, 20, 40, 60, 60]);
        assert_eq!(state.flap_count(now_ms), 8);
        now_ms += FLAP_WINDOW_MS + 1;
        assert_eq!(state.flap_count(now_ms), 0);
        assert!(flap(&mut state, now_ms) - now_ms < 1_000, "forgotten");
    }

    #[test]
    fn in_doubt_one_bad_answer_is_enough_and_a_good_one_ends_the_doubt() {
        let mut state = CheckState::known(Health::Up);
        assert!(state.doubt(&TIMING));
        assert!(!state.doubt(&TIMING), "that is known");
        assert_eq!(state.health(), Health::Up, "doubt alone takes nobody down");
        assert_eq!(state.interval_ms(&TIMING), TIMING.fast_interval_ms);
        assert_eq!(after(&mut state, 0, &[true, false]), [Health::Up; 2]);
        assert!(state.doubt(&TIMING));
        assert_eq!(after(&mut state, 5_000, &[false]), [Health::Down]);
        assert!(!state.doubt(&TIMING), "it is down");
        let mut hasty = CheckState::known(Health::Up);
        let one = Timing { fall: 1, ..TIMING };
        assert!(
            hasty.doubt(&one),
            "also where the first bad answer is the last"
        );
    }

    #[test]
    fn a_hold_is_told_while_it_lasts_and_0_switches_it_off() {
        let mut state = CheckState::known(Health::Up);
        for _ in 0..FLAPS_FREE {
            flap(&mut state, 0);
        }
        for _ in 0..TIMING.fall {
            state.observe(false, 0, &TIMING, HOLD_MAX_MS);
        }
        assert_eq!(state.held_until_ms(0), Some(HOLD_DOWN_MIN_MS));
        assert_eq!(state.held_until_ms(HOLD_DOWN_MIN_MS), None);
        let mut free = CheckState::known(Health::Up);
        for ms in 0..20 {
            for is_success in [false, false, false, true, true] {
                free.observe(is_success, ms, &TIMING, 0);
            }
            assert_eq!(free.health(), Health::Up);
        }
    }
}

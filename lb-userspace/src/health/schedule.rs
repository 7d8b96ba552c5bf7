//! When which question is asked next. No clock of its own.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use super::roster::Question;

/// The next check comes up to this part of the interval sooner, so that checks which began together do
/// not stay together. Never later: the longest a death can go unnoticed is what the intervals say. Unit:
/// per cent.
pub const JITTER_PERCENT: u64 = 10;

/// The first checks of new questions are this far apart: a configuration with a thousand of them takes a
/// second until all were asked. Unit: milliseconds.
const FIRST_SPACING_MS: u64 = 1;

/// The times at which questions are due. All times: milliseconds of one clock.
#[derive(Debug, Default)]
pub struct Schedule {
    due: BinaryHeap<Reverse<(u64, u64)>>,
    /// By ticket, so that what was removed or moved is recognised in `due`.
    tickets: BTreeMap<u64, Arc<Question>>,
    current: BTreeMap<Arc<Question>, u64>,
    next_ticket: u64,
    random: RandomState,
}

impl Schedule {
    /// New questions, from `now_ms` on, one after the other.
    pub fn begin(&mut self, questions: &[Arc<Question>], now_ms: u64) {
        for (position, question) in (0..).zip(questions) {
            let interval_ms = u64::from(question.check.timing.interval_ms);
            // More than the interval has room for are spread over all of it.
            let delay_ms = match questions.len() as u64 {
                count if count * FIRST_SPACING_MS > interval_ms => position * interval_ms / count,
                _ => position * FIRST_SPACING_MS,
            };
            self.put(question, now_ms + delay_ms);
        }
    }

    /// Asks again after a check that began at `began_ms`, `interval_ms` after that or now.
    pub fn again(
        &mut self,
        question: &Arc<Question>,
        began_ms: u64,
        interval_ms: u32,
        now_ms: u64,
    ) {
        let interval_ms = u64::from(interval_ms);
        let jitter_ms = interval_ms * JITTER_PERCENT / 100;
        let sooner_ms = match jitter_ms {
            0 => 0,
            jitter_ms => self.random.hash_one(self.next_ticket) % (jitter_ms + 1),
        };
        self.put(question, (began_ms + interval_ms - sooner_ms).max(now_ms));
    }

    /// Asks it now rather than when it is due; one that is under way is not asked twice.
    pub fn hurry(&mut self, question: &Arc<Question>, now_ms: u64) {
        if self.current.contains_key(question) {
            self.end(question);
            self.put(question, now_ms);
        }
    }

    /// Never asks it again, unless it is put in anew.
    pub fn end(&mut self, question: &Arc<Question>) {
        if let Some(ticket) = self.current.remove(question) {
            self.tickets.remove(&ticket);
        }
    }

    /// The next question that is due, which is then out of the schedule.
    pub fn pop_due(&mut self, now_ms: u64) -> Option<Arc<Question>> {
        while let Some(Reverse((due_ms, ticket))) = self.due.peek().copied() {
            let is_there = self.tickets.contains_key(&ticket);
            if is_there && due_ms > now_ms {
                return None;
            }
            self.due.pop();
            if let Some(question) = self.tickets.remove(&ticket) {
                self.current.remove(&question);
                return Some(question);
            }
        }
        None
    }

    /// When the next question is due at the earliest.
    pub fn next_due_ms(&self) -> Option<u64> {
        self.due.peek().map(|Reverse((due_ms, _))| *due_ms)
    }

    fn put(&mut self, question: &Arc<Question>, due_ms: u64) {
        self.end(question);
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.due.push(Reverse((due_ms, ticket)));
        self.tickets.insert(ticket, Arc::clone(question));
        self.current.insert(Arc::clone(question), ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::health::probe::Target;
    use crate::model::check::{Check, CheckKind, ExchangeCheck, Timing, Via};

    fn questions(count: u16) -> Vec<Arc<Question>> {
        let question = |port| Question {
            target: Target {
                address: SocketAddr::new([10, 0, 0, 1].into(), port),
                source: None,
                vip: None,
            },
            check: Check {
                kind: CheckKind::Tcp(ExchangeCheck::default()),
                timing: Timing::DEFAULT,
                port: None,
                source: None,
                via: Via::Direct,
            },
            hold_down_max_ms: 0,
        };
        (1..=count).map(|port| Arc::new(question(port))).collect()
    }

    #[test]
    fn first_checks_follow_each_other_and_none_waits_longer_than_its_interval() {
        let mut schedule = Schedule::default();
        schedule.begin(&questions(10), 1_000);
        assert!(schedule.pop_due(999).is_none());
        assert!(schedule.pop_due(1_000).is_some());
        assert!(schedule.pop_due(1_000).is_none());
        assert!(schedule.pop_due(1_001).is_some());

        let interval_ms = u64::from(Timing::DEFAULT.interval_ms);
        let mut schedule = Schedule::default();
        schedule.begin(&questions(3_000), 1_000);
        let mut asked = 0;
        for now_ms in 1_000..1_000 + interval_ms {
            let due = std::iter::from_fn(|| schedule.pop_due(now_ms)).count();
            assert!(due <= 2, "{due} at once");
            asked += due;
        }
        assert_eq!(asked, 3_000);
    }

    #[test]
    fn who_is_in_doubt_is_asked_now_and_not_twice() {
        let all = questions(2);
        let mut schedule = Schedule::default();
        schedule.begin(&all, 0);
        let first = schedule.pop_due(1_000).unwrap();
        let second = schedule.pop_due(1_000).unwrap();
        schedule.again(&second, 1_000, 60_000, 1_010);
        // The first is under way: its answer will tell.
        schedule.hurry(&first, 2_000);
        schedule.hurry(&second, 2_000);
        assert_eq!(schedule.pop_due(2_000), Some(second));
        assert_eq!(schedule.pop_due(100_000), None);
    }

    #[test]
    fn jitter_makes_it_sooner_never_later_and_never_past() {
        let all = questions(1_000);
        let mut schedule = Schedule::default();
        for question in &all {
            schedule.again(question, 5_000, 1_000, 5_010);
        }
        assert_eq!(
            schedule.next_due_ms().map(|due_ms| due_ms >= 5_900),
            Some(true)
        );
        let early = std::iter::from_fn(|| schedule.pop_due(5_950)).count();
        assert!((300..700).contains(&early), "{early} of 1000");
        assert_eq!(
            std::iter::from_fn(|| schedule.pop_due(6_000)).count(),
            1_000 - early
        );
        schedule.again(&all[0], 5_000, 1_000, 9_000);
        assert_eq!(
            schedule.next_due_ms(),
            Some(9_000),
            "it took longer than its interval"
        );
    }

    #[test]
    fn what_has_ended_is_not_asked() {
        let all = questions(2);
        let mut schedule = Schedule::default();
        schedule.begin(&all, 0);
        schedule.end(&all[0]);
        assert_eq!(schedule.pop_due(10).as_ref(), Some(&all[1]));
        assert!(schedule.pop_due(10).is_none());
        schedule.begin(&all[..1], 10);
        schedule.begin(&all[..1], 20);
        assert!(schedule.pop_due(10).is_none(), "put in anew");
        assert!(schedule.pop_due(20).is_some());
        assert!(schedule.pop_due(20).is_none());
        assert_eq!(schedule.next_due_ms(), None);
    }
}

//! The datagrams that are under way to a peer: which have arrived, and which are lost. No clock and no I/O.
//!
//! A lost one is not sent again: what it told of is read anew, and told in a later one. So numbers only grow, and
//! each round trip measured is that of one certain datagram.

use std::collections::VecDeque;

use super::message::{ACK_SPAN, FlowsAck, Malformed};

/// Datagrams under way at least, however little is acknowledged: with 9 of 10 lost, fewer would starve the peer.
const LIMIT_MIN: usize = 128;
/// A datagram that was overtaken is lost when it is older than a round trip by so much, at least. Unit:
/// microseconds.
const REORDERING_US: u64 = 1_000;
/// The time-out's bounds. The lower one is above what a busy peer takes; the upper one heals a link soon after
/// it was cut. Unit: microseconds.
const TIMEOUT_MIN_US: u64 = 10_000;
const TIMEOUT_MAX_US: u64 = 300_000;
/// Before the first measurement. Unit: microseconds.
const TIMEOUT_FIRST_US: u64 = 100_000;
/// Doublings of the time-out while nothing is acknowledged at all.
const BACKOFF_MAX: u32 = 4;

/// A datagram under way.
#[derive(Clone, Copy, Debug)]
struct UnderWay<C> {
    sent_us: u64,
    content: C,
}

/// Datagrams under way, with what is to be done again if they are lost.
#[derive(Debug)]
pub struct Window<C> {
    /// The number of the first of `under_way`.
    first: u64,
    /// `None`: arrived, or lost.
    under_way: VecDeque<Option<UnderWay<C>>>,
    count: usize,
    limit: usize,
    /// Smoothed round trip time and its mean deviation; 0 = not measured yet. Unit: microseconds.
    rtt_us: u64,
    deviation_us: u64,
    backoff: u32,
    /// The latest one of which the peer has told, and when it last told of any. Unit of the latter: microseconds.
    latest_arrived: u64,
    arrived_us: u64,
    /// When datagrams were last found to be lost by time, so that one loss does not count many times.
    lost_us: u64,
}

impl<C: Copy> Window<C> {
    /// With nothing under way, before the datagram of this number, at least 1.
    pub fn new(first: u64) -> Self {
        Self {
            first,
            under_way: VecDeque::new(),
            count: 0,
            limit: LIMIT_MIN,
            rtt_us: 0,
            deviation_us: 0,
            backoff: 0,
            latest_arrived: 0,
            arrived_us: 0,
            lost_us: 0,
        }
    }

    /// Whether another datagram may be sent.
    pub fn has_room(&self) -> bool {
        self.count < self.limit && (self.under_way.len() as u64) < ACK_SPAN
    }

    /// Datagrams under way.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Their contents.
    pub fn contents(&self) -> impl Iterator<Item = &C> {
        self.under_way
            .iter()
            .flatten()
            .map(|datagram| &datagram.content)
    }

    /// The round trip time, smoothed; `None` if not yet measured. Unit: microseconds.
    pub fn rtt_us(&self) -> Option<u64> {
        (self.rtt_us > 0).then_some(self.rtt_us)
    }

    /// The number of the next datagram.
    pub fn next(&self) -> u64 {
        self.first + self.under_way.len() as u64
    }

    /// The next datagram was sent.
    pub fn sent(&mut self, content: C, now_us: u64) {
        let sent_us = now_us;
        self.under_way
            .push_back(Some(UnderWay { sent_us, content }));
        self.count += 1;
    }

    /// Takes an acknowledgement. `arrived` gets the contents of those that have.
    ///
    /// # Errors
    /// [`Malformed`] if it acknowledges what was never sent.
    pub fn acknowledged(
        &mut self,
        ack: &FlowsAck,
        now_us: u64,
        mut arrived: impl FnMut(C),
    ) -> Result<(), Malformed> {
        if ack.latest >= self.next() {
            return Err(Malformed::Content(
                "flows are acknowledged that were never sent",
            ));
        }
        let mut arrived_count = 0;
        let mut measured_us = None;
        for (sequence, place) in (self.first..=ack.latest).zip(&mut self.under_way) {
            if let Some(datagram) = place.take_if(|_| ack.has(sequence)) {
                arrived_count += 1;
                if sequence == ack.latest {
                    let passed_us = now_us.saturating_sub(datagram.sent_us);
                    measured_us = Some(passed_us.saturating_sub(ack.held_us.into()));
                }
                arrived(datagram.content);
            }
        }
        self.count -= arrived_count;
        self.latest_arrived = self.latest_arrived.max(ack.latest);
        if let Some(measured_us) = measured_us {
            self.measure(measured_us);
        }
        if arrived_count > 0 {
            self.backoff = 0;
            self.arrived_us = now_us;
            self.limit = (self.limit + arrived_count).min(ACK_SPAN as usize);
        }
        self.shrink();
        Ok(())
    }

    /// Gives up what has been under way for too long: for longer than the time-out, or, if a later one has
    /// arrived, for longer than a round trip takes.
    pub fn expire(&mut self, now_us: u64, mut lost: impl FnMut(C)) {
        let (timeout_us, overtaken_us) = (self.timeout_us(), self.overtaken_us());
        let latest_arrived = self.latest_arrived;
        let mut lost_count = 0;
        for (sequence, place) in (self.first..).zip(&mut self.under_way) {
            let patience_us = if sequence < latest_arrived {
                overtaken_us.min(timeout_us)
            } else {
                timeout_us
            };
            let is_late = |datagram: &mut UnderWay<C>| datagram.sent_us + patience_us <= now_us;
            if let Some(datagram) = place.take_if(is_late) {
                lost(datagram.content);
                lost_count += 1;
            }
        }
        self.count -= lost_count;
        // Something arrives: the network loses datagrams, but it is there.
        let is_silent = self.arrived_us + timeout_us <= now_us;
        if lost_count > 0 && is_silent && self.lost_us + timeout_us <= now_us {
            self.lost_us = now_us;
            self.backoff = (self.backoff + 1).min(BACKOFF_MAX);
            self.limit = (self.limit / 2).max(LIMIT_MIN);
        }
        self.shrink();
    }

    /// When [`Self::expire`] has something to do; `None` while nothing is under way. Unit: microseconds.
    pub fn deadline_us(&self) -> Option<u64> {
        let oldest = self.under_way.iter().flatten().next()?;
        Some(oldest.sent_us + self.timeout_us())
    }

    fn timeout_us(&self) -> u64 {
        let timeout_us = match self.rtt_us {
            0 => TIMEOUT_FIRST_US,
            rtt_us => rtt_us + 4 * self.deviation_us,
        };
        (timeout_us.max(TIMEOUT_MIN_US) << self.backoff).min(TIMEOUT_MAX_US)
    }

    /// For how long a datagram may be under way that a later one has overtaken.
    fn overtaken_us(&self) -> u64 {
        match self.rtt_us {
            0 => TIMEOUT_FIRST_US,
            rtt_us => rtt_us + (rtt_us / 4).max(2 * self.deviation_us) + REORDERING_US,
        }
    }

    /// After RFC 6298 section 2.
    fn measure(&mut self, measured_us: u64) {
        let measured_us = measured_us.max(1);
        if self.rtt_us == 0 {
            (self.rtt_us, self.deviation_us) = (measured_us, measured_us / 2);
            return;
        }
        let deviation_us = self.rtt_us.abs_diff(measured_us);
        self.deviation_us = (3 * self.deviation_us + deviation_us) / 4;
        self.rtt_us = ((7 * self.rtt_us + measured_us) / 8).max(1);
    }

    /// Forgets the first ones that are not under way any more.
    fn shrink(&mut self) {
        while let Some(None) = self.under_way.front() {
            self.under_way.pop_front();
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ack(sequences: &[u64]) -> FlowsAck {
        let mut ack = FlowsAck::default();
        for sequence in sequences {
            ack.note(*sequence);
        }
        ack
    }

    fn sent(count: u32) -> Window<u32> {
        let mut window = Window::new(1);
        (0..count).for_each(|content| window.sent(content, 0));
        window
    }

    /// What arrives by an acknowledgement, and what is lost by then.
    fn take(window: &mut Window<u32>, ack: &FlowsAck, now_us: u64) -> (Vec<u32>, Vec<u32>) {
        let (mut arrived, mut lost) = (Vec::new(), Vec::new());
        let taken = window.acknowledged(ack, now_us, |content| arrived.push(content));
        taken.expect("they were sent");
        window.expire(now_us, |content| lost.push(content));
        (arrived, lost)
    }

    #[test]
    fn what_was_overtaken_is_lost_after_a_round_trip_and_what_was_not_is_not() {
        let mut window = sent(4);
        assert_eq!(take(&mut window, &ack(&[2, 3]), 2000), (vec![1, 2], vec![]));
        assert_eq!(take(&mut window, &ack(&[2, 3]), 4999), (vec![], vec![]));
        assert_eq!(take(&mut window, &ack(&[2, 3]), 5000), (vec![], vec![0]));
        assert_eq!((window.count(), window.next()), (1, 5));
        let lost_us = window.deadline_us().expect("the last one");
        assert_eq!(take(&mut window, &ack(&[2, 3]), lost_us), (vec![], vec![3]));
    }

    #[test]
    fn each_is_lost_or_arrives_once() {
        let mut window = sent(3);
        let mut lost = Vec::new();
        window.expire(TIMEOUT_FIRST_US - 1, |content| lost.push(content));
        assert_eq!(window.deadline_us(), Some(TIMEOUT_FIRST_US));
        assert!(lost.is_empty());
        window.expire(TIMEOUT_FIRST_US, |content| lost.push(content));
        assert_eq!(lost, [0, 1, 2]);
        assert_eq!(
            take(&mut window, &ack(&[1, 2, 3]), TIMEOUT_FIRST_US),
            (vec![], vec![])
        );
        assert_eq!((window.count(), window.deadline_us()), (0, None));
    }

    #[test]
    fn an_acknowledgement_of_what_was_never_sent_is_refused() {
        let mut window = sent(3);
        let refused = window.acknowledged(&ack(&[4]), 0, |_| ());
        assert!(refused.is_err());
        assert_eq!(window.count(), 3);
    }

    #[test]
    fn the_time_out_follows_the_round_trip_and_doubles_while_nothing_arrives() {
        let mut window = sent(1);
        take(&mut window, &ack(&[1]), 40_000);
        assert_eq!(
            (window.rtt_us(), window.timeout_us()),
            (Some(40_000), 120_000)
        );
        let mut now_us = 40_000;
        let mut timeouts = Vec::new();
        for _ in 0..4 {
            window.sent(0, now_us);
            let deadline_us = window.deadline_us().expect("one is under way");
            timeouts.push(deadline_us - now_us);
            now_us = deadline_us;
            window.expire(now_us, |_| ());
        }
        assert_eq!(timeouts, [120_000, 240_000, TIMEOUT_MAX_US, TIMEOUT_MAX_US]);
        window.sent(0, now_us);
        let last = ack(&[window.next() - 1]);
        take(&mut window, &last, now_us + 40_000);
        assert_eq!(window.backoff, 0);
    }

    #[test]
    fn the_window_is_bounded_and_opens_with_what_arrives() {
        let mut window = Window::new(1);
        let fill = |window: &mut Window<u32>| {
            let mut count = 0;
            while window.has_room() {
                window.sent(0, 0);
                count += 1;
            }
            count
        };
        assert_eq!(fill(&mut window), LIMIT_MIN);
        for _ in 0..10 {
            let all: Vec<u64> = (window.first..window.next()).collect();
            take(&mut window, &ack(&all), 1000);
            fill(&mut window);
        }
        assert_eq!(window.count(), ACK_SPAN as usize);
        // The first one is missing: nothing is sent beyond what an acknowledgement can tell of.
        let (first, next) = (window.first, window.next());
        let all: Vec<u64> = (first + 1..next).collect();
        take(&mut window, &ack(&all[..10]), 1000);
        assert!(!window.has_room());
    }
}

//! What one peer is told of this node's flows: by change, by round, and by refresh. No clock and no I/O.
//!
//! - A **change** marks a set; the set is read, and what the peer does not know of it is told.
//! - A **round** tells everything: the shadow is emptied and the table walked once. It is complete when all that
//!   was told in it is acknowledged. The peer asks for it, at first with the session's beginning.
//! - A **refresh** walks the table slowly all the time, without emptying the shadow: flows that live longer than
//!   the peer knows, and whatever was missed otherwise.
//! - **Ages** are told when this node gives its flows up to a peer: one walk without the refresh's patience.

use lb_common::abi::{FINGERPRINT_MIN, FLOW_SET_ENTRIES, FlowSet};
use lb_common::datapath::flow::FlowPlace;

use super::dictionary::Vocabulary;
use super::message::{FLOWS_MAX, FlowsAck, FlowsHeader, Malformed, put_flows};
use super::queue::{Queue, Waiting};
use super::shadow::Shadow;
use super::table::{Now, Table};
use super::window::Window;
use crate::sync::flow::{REFRESH_WALK_S, SharedFlow};

/// A refresh walks the table once in this time. Unit: microseconds.
const REFRESH_US: u64 = REFRESH_WALK_S as u64 * 1_000_000;
/// Sets that one call walks at most, so that it does not last: about 2 ms. Unit: sets.
const WALK_SETS_MAX: u64 = 8192;
/// At least so often something is sent, for the peer to know how this node stands. Unit: microseconds.
const IDLE_MAX_US: u64 = 200_000;
/// Of so many datagrams, one is the walk's while a round lasts, however much changes.
const WALK_SHARE: u64 = 4;

/// What a peer's record of a flow may be early by when this node gives the flow up. A second is no difference: each side
/// counts whole ones. Unit: seconds.
const AGES_S: u32 = 2;

/// Of a datagram under way: what is to be looked at again if it is lost.
#[derive(Clone, Copy, Debug)]
struct Content {
    places: [FlowPlace; FLOWS_MAX],
    count: u8,
    is_owed: bool,
    /// The oldest change in it. Unit: microseconds.
    since_us: u64,
}

/// What has been done for a peer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SenderCounts {
    /// Flows told.
    pub flows: u64,
    /// Datagrams sent, those without flows too.
    pub datagrams: u64,
    /// Datagrams lost.
    pub lost: u64,
}

/// Where the walk through the table is.
#[derive(Clone, Copy, Debug)]
struct Walk {
    next: u32,
    /// Until the end of the table at full speed.
    is_fast: bool,
    /// Until all that was met on the way is told, too: a flow counts that lives longer by [`AGES_S`].
    is_fine: bool,
    /// How far the slow one has been paid for. Unit: microseconds.
    paid_us: u64,
}

/// What one peer is told.
pub struct Sender {
    set_count: u32,
    shadow: Shadow,
    queue: Queue,
    window: Window<Content>,
    walk: Walk,
    /// The round that the peer wants.
    round: u32,
    complete_round: u32,
    /// Whether the walk of the round has come to its end.
    is_walked: bool,
    owed_under_way: u32,
    announced_round: u32,
    /// Whether the peer has this node's dictionary: before, flows mean nothing to it.
    has_listener: bool,
    sent_us: u64,
    batch: Vec<SharedFlow>,
    content: Content,
    payload: Vec<u8>,
    counts: SenderCounts,
}

impl Content {
    const EMPTY: Self = Self {
        places: [FlowPlace(0); FLOWS_MAX],
        count: 0,
        is_owed: false,
        since_us: u64::MAX,
    };

    fn places(&self) -> &[FlowPlace] {
        &self.places[..usize::from(self.count)]
    }

    fn push(&mut self, place: FlowPlace) {
        self.places[usize::from(self.count)] = place;
        self.count += 1;
    }
}

impl Sender {
    /// For a peer that knows nothing, and wants the first round. `first` is the number of the first datagram: 1,
    /// or what [`Self::next`] of the one before was in the same session.
    pub fn new(set_count: u32, first: u64, now: Now) -> Self {
        Self {
            set_count,
            shadow: Shadow::new(set_count),
            queue: Queue::new(set_count),
            window: Window::new(first),
            walk: Walk {
                next: 0,
                is_fast: true,
                is_fine: false,
                paid_us: now.us,
            },
            round: 1,
            complete_round: 0,
            is_walked: false,
            owed_under_way: 0,
            announced_round: 0,
            has_listener: false,
            sent_us: 0,
            batch: Vec::with_capacity(FLOWS_MAX),
            content: Content::EMPTY,
            payload: Vec::new(),
            counts: SenderCounts::default(),
        }
    }

    /// A set has changed, at the earliest then.
    pub fn mark(&mut self, set: u32, since_us: u64) {
        if set < self.set_count {
            self.queue.mark(set, since_us);
        }
    }

    /// The peer's record of a place is this node's, or a later one of its own.
    pub fn shadow(&mut self) -> &mut Shadow {
        &mut self.shadow
    }

    /// What this node has words for has changed: everything is looked at again, but only what the peer does not
    /// know is told.
    pub fn look_again(&mut self) {
        self.walk.is_fast = true;
        self.walk.next = 0;
    }

    /// This node has given its flows up to a peer, and may be gone before the next refresh: every flow's age is told,
    /// now. Else a flow that is silent for long, and has always spoken just before its node was gone, would
    /// be older on record with each change, until nobody knows it.
    pub fn tell_ages(&mut self) {
        self.look_again();
        self.walk.is_fine = true;
    }

    /// Takes an acknowledgement.
    ///
    /// # Errors
    /// [`Malformed`]: nothing has changed.
    pub fn acknowledged(&mut self, ack: &FlowsAck, now: Now) -> Result<(), Malformed> {
        let mut settled_count = 0;
        self.window.acknowledged(ack, now.us, |content| {
            settled_count += u32::from(content.is_owed);
        })?;
        self.owed_under_way -= settled_count;
        self.has_listener |= ack.dictionary_version > 0;
        if ack.wanted_round > self.round {
            self.begin_round(ack.wanted_round);
        }
        self.complete();
        Ok(())
    }

    fn begin_round(&mut self, round: u32) {
        self.round = round;
        self.shadow.clear();
        self.walk.next = 0;
        self.walk.is_fast = true;
        self.is_walked = false;
        self.queue.forgive();
    }

    /// Everything of the round was told and has arrived.
    fn complete(&mut self) {
        if self.is_walked && self.owed_under_way == 0 && !self.queue.owes() {
            self.complete_round = self.round;
        }
    }

    /// Sends what is to be sent, as much as may be under way.
    pub fn poll<T: Table + ?Sized>(
        &mut self,
        table: &T,
        vocabulary: &Vocabulary,
        now: Now,
        mut send: impl FnMut(&[u8]),
    ) {
        if !self.has_listener {
            return;
        }
        self.expire(now);
        let lag_ms = self.lag_ms(now);
        let mut walk_sets = self.walk_allowance(now);
        while self.window.has_room() {
            let version = self.fill(table, vocabulary, now, &mut walk_sets);
            if self.batch.is_empty() {
                self.complete();
                if !self.is_announcement_due(now) {
                    break;
                }
            }
            self.send(version, lag_ms, now, &mut send);
        }
        if !self.walk.is_fast {
            self.walk.paid_us = self.walk.paid_us.saturating_sub(self.walk_us(walk_sets));
            self.walk.is_fine &= !self.queue.is_empty();
        }
    }

    fn expire(&mut self, now: Now) {
        let (queue, shadow) = (&mut self.queue, &mut self.shadow);
        let (mut settled_count, mut lost_count) = (0, 0);
        self.window.expire(now.us, |content| {
            settled_count += u32::from(content.is_owed);
            lost_count += 1;
            take_back(content, queue, shadow);
        });
        self.owed_under_way -= settled_count;
        self.counts.lost += lost_count;
    }

    fn is_announcement_due(&self, now: Now) -> bool {
        self.announced_round != self.complete_round || self.sent_us + IDLE_MAX_US <= now.us
    }

    /// Fills the batch from what waits and from the walk: the version of the dictionary that it needs.
    fn fill<T: Table + ?Sized>(
        &mut self,
        table: &T,
        vocabulary: &Vocabulary,
        now: Now,
        walk_sets: &mut u64,
    ) -> u32 {
        self.content = Content::EMPTY;
        self.batch.clear();
        let mut version = 0;
        let is_walks = !self.is_walked && self.window.next().is_multiple_of(WALK_SHARE);
        while self.batch.len() < FLOWS_MAX {
            let walked = |sender: &mut Self, walk_sets: &mut u64| sender.step(now, walk_sets);
            let next = if is_walks {
                walked(self, walk_sets).or_else(|| self.queue.take())
            } else {
                self.queue.take().or_else(|| walked(self, walk_sets))
            };
            let Some(waiting) = next else { break };
            self.read(table, vocabulary, waiting, now, &mut version);
        }
        version
    }

    /// Sets that the walk may go on by.
    fn walk_allowance(&mut self, now: Now) -> u64 {
        if self.walk.is_fast {
            self.walk.paid_us = now.us;
            return WALK_SETS_MAX;
        }
        let earliest_us = now.us.saturating_sub(REFRESH_US);
        self.walk.paid_us = self.walk.paid_us.clamp(earliest_us, now.us);
        let passed_us = now.us - self.walk.paid_us;
        let sets = passed_us * u64::from(self.set_count) / REFRESH_US;
        let sets = sets.min(WALK_SETS_MAX);
        self.walk.paid_us += self.walk_us(sets);
        sets
    }

    /// What the slow walk takes for so many sets. Unit: microseconds.
    fn walk_us(&self, sets: u64) -> u64 {
        sets * REFRESH_US / u64::from(self.set_count).max(1)
    }

    /// The next set of the walk.
    fn step(&mut self, now: Now, walk_sets: &mut u64) -> Option<Waiting> {
        *walk_sets = walk_sets.checked_sub(1)?;
        let waiting = Waiting {
            set: self.walk.next,
            since_us: now.us,
            is_owed: !self.is_walked,
        };
        self.walk.next += 1;
        if self.walk.next >= self.set_count {
            self.walk.next = 0;
            self.walk.is_fast = false;
            self.is_walked = true;
            // The walk ends here: what is left of the allowance was for this round.
            *walk_sets = 0;
        }
        Some(waiting)
    }

    /// Adds what the peer does not know of a set. What does not fit waits.
    fn read<T: Table + ?Sized>(
        &mut self,
        table: &T,
        vocabulary: &Vocabulary,
        waiting: Waiting,
        now: Now,
        version: &mut u32,
    ) {
        // While the table is walked for a round, all that is told counts for it: the walk finds it told already.
        let is_owed = waiting.is_owed || !self.is_walked;
        let is_fine = self.walk.is_fine;
        let FlowSet { entries } = table.read_set(waiting.set);
        for (number, entry) in entries.iter().enumerate() {
            let place = FlowPlace(waiting.set * FLOW_SET_ENTRIES as u32 + number as u32);
            let is_told = entry.fingerprint < FINGERPRINT_MIN
                || !self.shadow.differs(place, entry, || match is_fine {
                    true => AGES_S,
                    false => table.refresh_s(entry),
                });
            if is_told {
                continue;
            }
            if self.batch.len() == FLOWS_MAX {
                return self.queue.mark_lost(Waiting { is_owed, ..waiting });
            }
            let Some(flow) = table.share(place, entry, now.s()) else {
                continue;
            };
            let Some(needed) = vocabulary.needed(&flow) else {
                continue;
            };
            *version = needed.max(*version);
            self.shadow.set(place, entry);
            self.batch.push(flow);
            self.content.push(place);
            self.content.is_owed |= is_owed;
            self.content.since_us = self.content.since_us.min(waiting.since_us);
        }
    }

    fn send(&mut self, version: u32, lag_ms: u32, now: Now, send: &mut impl FnMut(&[u8])) {
        let header = FlowsHeader {
            sequence: self.window.next(),
            dictionary_version: version,
            complete_round: self.complete_round,
            lag_ms,
            sent_ms: (now.us / 1_000) as u32,
            count: self.batch.len() as u16,
            reserved: [0; 3],
        };
        self.payload.clear();
        put_flows(&header, &self.batch, &mut self.payload);
        send(&self.payload);
        self.owed_under_way += u32::from(self.content.is_owed);
        self.window.sent(self.content, now.us);
        self.announced_round = self.complete_round;
        self.sent_us = now.us;
        self.counts.datagrams += 1;
        self.counts.flows += self.batch.len() as u64;
    }

    /// The age of the oldest change that the peer has not acknowledged. Unit: milliseconds, rounded up.
    pub fn lag_ms(&self, now: Now) -> u32 {
        let under_way = self.window.contents().map(|content| content.since_us).min();
        let oldest_us = [under_way, self.queue.oldest_us()]
            .into_iter()
            .flatten()
            .min();
        let lag_us = oldest_us.map_or(0, |since_us| now.us.saturating_sub(since_us));
        lag_us.div_ceil(1000).min(u32::MAX.into()) as u32
    }

    /// Whether the peer has acknowledged all flows that there were when it last asked for all.
    pub fn has_told_all(&self) -> bool {
        self.complete_round == self.round
    }

    /// Sets that wait to be told of.
    pub fn waiting_count(&self) -> usize {
        self.queue.len()
    }

    /// Datagrams under way.
    pub fn under_way_count(&self) -> usize {
        self.window.count()
    }

    /// To the peer and back, smoothed. Unit: microseconds.
    pub fn rtt_us(&self) -> Option<u64> {
        self.window.rtt_us()
    }

    /// The number of the next datagram.
    pub fn next(&self) -> u64 {
        self.window.next()
    }

    /// What has been done.
    pub fn counts(&self) -> SenderCounts {
        self.counts
    }
}

/// A datagram is lost: the peer does not know what was in it, so its places are looked at again.
fn take_back(content: Content, queue: &mut Queue, shadow: &mut Shadow) {
    for place in content.places() {
        shadow.forget(*place);
        queue.mark_lost(Waiting {
            set: place.set(),
            since_us: content.since_us,
            is_owed: content.is_owed,
        });
    }
}

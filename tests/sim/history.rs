//! Histories: what happens to the backends, and what attackers do meanwhile, drawn from a seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::rng::Rng;

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// No new flows, the old ones stay.
    Drain(usize),
    /// The same without preparation.
    DrainStrictly(usize),
    /// New flows again; also the first time.
    Ready(usize),
    /// Out of the model, its flows stay.
    Remove(usize),
    /// Another weight.
    Weight(usize, u32),
    /// The health checks say down, wrongly.
    FalseDown(usize),
    /// The health checks say up.
    Up(usize),
    /// The backend dies with all its connections; the health checks say so a second later.
    Die(usize),
    /// It is there again, and the health checks say so a second later.
    Revive(usize),
    /// Clients of the first node come by way of the last from now on.
    ChangeBalancer,
}

/// An action and its moment, from the beginning of the history. Unit: milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) at_ms: u64,
    pub(crate) action: Action,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>8.1} s  {:?}",
            self.at_ms as f64 / 1_000.0,
            self.action
        )
    }
}

/// What kind of changes a history is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Changes {
    /// A backend is drained, and made ready again.
    Drain,
    /// As drain, without preparation.
    DrainStrict,
    /// Weights change.
    Weight,
    /// Backends are added and removed.
    AddRemove,
    /// A change is taken back at once, or soon.
    Flap,
    /// Backends die and come back.
    Death,
    /// Backends are said to be down for 1 to 10 s while they are not.
    FalseDeath,
    /// A drain, then a false death of one that has taken its flows.
    DrainTakerDown,
    /// All but one or two are drained.
    DrainMost,
    /// Anything, every 3 s.
    Mix,
    /// Nothing.
    Nothing,
}

impl Changes {
    pub(crate) const ALL: [Self; 11] = [
        Self::Drain,
        Self::DrainStrict,
        Self::Weight,
        Self::AddRemove,
        Self::Flap,
        Self::Death,
        Self::FalseDeath,
        Self::DrainTakerDown,
        Self::DrainMost,
        Self::Mix,
        Self::Nothing,
    ];

    /// Events of this kind among the first `backend_count` of one more backend, for `duration_ms`.
    pub(crate) fn events(
        self,
        rng: &mut Rng,
        backend_count: usize,
        duration_ms: u64,
    ) -> Vec<Event> {
        let mut script = Script {
            rng,
            backend_count,
            events: Vec::new(),
        };
        let mut at_ms = 5_000;
        while at_ms < duration_ms {
            at_ms += script.episode(self, at_ms);
        }
        let mut events = script.events;
        events.retain(|event| event.at_ms < duration_ms);
        events.sort_by_key(|event| event.at_ms);
        without_long_alarms(events)
    }
}

/// How long a false alarm may last: what is longer is a death. Unit: milliseconds.
const ALARM_MAX_MS: u64 = 10_000;
/// Between two false alarms of a backend, or they are one. Unit: milliseconds.
const ALARM_REST_MS: u64 = 2_000;

/// Leaves out false alarms of a backend about which there is one already, or was a moment ago, and
/// those without an end: two of 10 s can make one of 20 s.
pub(crate) fn without_long_alarms(events: Vec<Event>) -> Vec<Event> {
    let mut last_ms: BTreeMap<usize, u64> = BTreeMap::new();
    let mut down = BTreeSet::new();
    let ends = |backend: usize, from_ms: u64| {
        events.iter().any(|event| {
            let after_ms = event.at_ms.saturating_sub(from_ms);
            event.action == Action::Up(backend) && (1..=ALARM_MAX_MS).contains(&after_ms)
        })
    };
    let is_kept = |event: &&Event| match event.action {
        Action::FalseDown(backend) => {
            let is_rested = last_ms
                .get(&backend)
                .is_none_or(|last_ms| event.at_ms > last_ms + ALARM_REST_MS);
            is_rested && ends(backend, event.at_ms) && down.insert(backend)
        }
        Action::Up(backend) => {
            last_ms.insert(backend, event.at_ms);
            down.remove(&backend)
        }
        _ => true,
    };
    events.iter().filter(is_kept).copied().collect()
}

struct Script<'a> {
    rng: &'a mut Rng,
    backend_count: usize,
    events: Vec<Event>,
}

impl Script<'_> {
    fn push(&mut self, at_ms: u64, action: Action) {
        self.events.push(Event { at_ms, action });
    }

    fn any(&mut self) -> usize {
        self.rng.below(self.backend_count as u64) as usize
    }

    /// Notes the events of one episode, and answers how long it is until the next.
    fn episode(&mut self, kind: Changes, at_ms: u64) -> u64 {
        let backend = self.any();
        match kind {
            Changes::Nothing => {}
            Changes::Drain => self.there_and_back(
                at_ms,
                Action::Drain(backend),
                Action::Ready(backend),
                90_000,
            ),
            Changes::DrainStrict => {
                self.there_and_back(
                    at_ms,
                    Action::DrainStrictly(backend),
                    Action::Ready(backend),
                    90_000,
                );
            }
            Changes::Weight => {
                let weight = self.rng.pick(&[10, 50, 100, 200, 400]);
                self.push(at_ms, Action::Weight(backend, weight));
            }
            Changes::AddRemove => {
                let spare = self.backend_count;
                self.there_and_back(at_ms, Action::Ready(spare), Action::Remove(spare), 60_000);
                let back_ms = at_ms + self.rng.within(1_000, 90_000);
                self.there_and_back(
                    back_ms,
                    Action::Remove(backend),
                    Action::Ready(backend),
                    90_000,
                );
            }
            Changes::Flap => {
                self.there_and_back(at_ms, Action::Drain(backend), Action::Ready(backend), 4_000);
            }
            Changes::Death => {
                self.there_and_back(at_ms, Action::Die(backend), Action::Revive(backend), 60_000);
            }
            Changes::FalseDeath => {
                self.there_and_back(
                    at_ms,
                    Action::FalseDown(backend),
                    Action::Up(backend),
                    10_000,
                );
            }
            Changes::DrainTakerDown => {
                self.there_and_back(
                    at_ms,
                    Action::Drain(backend),
                    Action::Ready(backend),
                    120_000,
                );
                for _ in 0..3 {
                    let taker = self.any();
                    let down_ms = at_ms + self.rng.within(1_000, 60_000);
                    self.there_and_back(
                        down_ms,
                        Action::FalseDown(taker),
                        Action::Up(taker),
                        10_000,
                    );
                }
            }
            Changes::DrainMost => {
                let kept_count = self.rng.within(1, 2) as usize;
                for drained in 0..self.backend_count.saturating_sub(kept_count) {
                    let start_ms = at_ms + self.rng.below(3_000);
                    self.there_and_back(
                        start_ms,
                        Action::Drain(drained),
                        Action::Ready(drained),
                        60_000,
                    );
                }
            }
            Changes::Mix => {
                let kinds = &Changes::ALL[..9];
                let part = self.rng.pick(kinds);
                if part != Changes::DrainMost {
                    self.episode(part, at_ms);
                }
                return 3_000;
            }
        }
        self.rng.within(5_000, 60_000)
    }

    /// An event, and the opposite 10 ms to `longest_ms` later.
    fn there_and_back(&mut self, at_ms: u64, there: Action, back: Action, longest_ms: u64) {
        let back_ms = at_ms + self.rng.within(10, longest_ms);
        self.push(at_ms, there);
        self.push(back_ms, back);
    }
}

/// What attackers, and difficult clients, do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Load {
    /// Nothing of the kind.
    Calm,
    /// SYNs from addresses that do not exist.
    SynFlood,
    /// Segments of connections that do not exist.
    AckFlood,
    /// A SYN and a fitting segment, from addresses that do not exist.
    TwoPackets,
    /// SYNs, FINs and RSTs in the name of clients that are connected.
    SpoofedClients,
    /// A table with less room than there are flows.
    FullTable,
    /// Mostly clients that send little more than once in an idle time-out.
    SlowFlows,
    /// Mostly downloads whose client has said that it has no more to send.
    HalfClosed,
    /// Mostly clients that use a port again as soon as they can.
    PortReuse,
    /// Segments overtake each other by seconds, and many are lost.
    BadNetwork,
}

impl Load {
    pub(crate) const ALL: [Self; 10] = [
        Self::Calm,
        Self::SynFlood,
        Self::AckFlood,
        Self::TwoPackets,
        Self::SpoofedClients,
        Self::FullTable,
        Self::SlowFlows,
        Self::HalfClosed,
        Self::PortReuse,
        Self::BadNetwork,
    ];

    /// How many of a million handshakes may break: what was seen, and half as many more. None where there is room
    /// to record them, nobody forges their segments, and none takes longer than the preparation of a change. In a
    /// flood, handshakes are evicted that would go to a backend which is down, or said to be.
    pub(crate) fn broken_handshakes_per_million_max(self) -> u64 {
        match self {
            Self::SynFlood => 500,
            Self::Calm | Self::AckFlood | Self::SlowFlows | Self::HalfClosed | Self::PortReuse => 0,
            Self::TwoPackets | Self::SpoofedClients | Self::FullTable | Self::BadNetwork => 10_000,
        }
    }
}

//! What happens to a cluster, drawn from a seed.

use std::fmt;

use crate::history::{self, Changes};
use crate::rng::Rng;

/// How clients' packets find a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To whoever announced the VIP last.
    Vip,
    /// A router spreads the flows over all nodes, and anew at times.
    Ecmp,
}

/// What befalls nodes and the network between them. Nodes are numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The node is gone, with all that it has in memory.
    PowerLoss(usize),
    /// It is there again, and knows nothing.
    PowerUp(usize),
    /// `lbd` is killed; what is in the kernel stays.
    KillControl(usize),
    /// It is started again, and adopts what it finds.
    StartControl(usize),
    /// The VRRP process is killed, and its successor resumes at once.
    RestartVrrp(usize),
    /// `lbd` and `lbd-vrrp` do not run, for so long. Unit: milliseconds.
    Stop(usize, u64),
    /// The node's leg in the clients' network is down.
    LanDown(usize),
    /// It is up.
    LanUp(usize),
    /// What the first sends to the second in the clients' network is lost.
    LanCut(usize, usize),
    /// The clients' network is whole between these, both ways.
    LanHeal(usize, usize),
    /// What the first sends to the second over the sync link is lost.
    SyncCut(usize, usize),
    /// The sync link between these is whole, both ways.
    SyncHeal(usize, usize),
    /// So much of what is sent over the sync link is lost. Unit: per mille.
    SyncLoss(u64),
    /// So much of what nodes say to each other in the clients' network is lost. Unit: per mille.
    LanLoss(u64),
    /// The VIP is handed to another node on demand.
    HandOver,
    /// The router spreads the flows anew.
    Respread,
    /// What changes about the backends does not reach the node, for so long. Unit: milliseconds.
    Blind(usize, u64),
}

/// Something that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// To a backend.
    Backend(history::Action),
    /// To a node or the network.
    Fault(Fault),
}

/// An action and its moment from the beginning. Unit: milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) at_ms: u64,
    pub(crate) action: Action,
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at_s = self.at_ms as f64 / 1_000.0;
        match self.action {
            Action::Backend(action) => write!(f, "{at_s:>8.1} s  {action:?}"),
            Action::Fault(fault) => write!(f, "{at_s:>8.1} s  {fault:?}"),
        }
    }
}

/// What kind of faults a history has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Faults {
    /// None.
    Nothing,
    /// A node loses its power, and comes back cold.
    PowerLoss,
    /// Processes are killed and start again.
    Restarts,
    /// Processes do not run for a while.
    Stops,
    /// A node's leg in the clients' network goes.
    LanCut,
    /// The sync link is cut, both ways or one, and heals.
    SyncCut,
    /// The sync link loses much.
    SyncLoss,
    /// The VIP is handed over.
    HandOver,
    /// The router spreads flows anew.
    Respread,
    /// A backend is believed to be dead for a moment, and then the node that took its slots away dies.
    Chase,
    /// Two nodes are cut off from each other, and one of them alone believes that a backend is dead.
    Discord,
    /// Nodes do not hear each other in the clients' network, mostly one of them the other; sometimes the sync link
    /// is cut as well.
    LanOneWay,
    /// The nodes fall into two parts, whose nodes hear each other: in the clients' network, over the sync link, or
    /// in both.
    Parts,
    /// Advertisements are lost at random.
    LanLoss,
    /// Any of those that befall nodes and networks everywhere.
    Mix,
}

impl Faults {
    /// What is drawn from.
    pub(crate) const ALL: [Self; 10] = [
        Self::Nothing,
        Self::PowerLoss,
        Self::Restarts,
        Self::Stops,
        Self::LanCut,
        Self::SyncCut,
        Self::SyncLoss,
        Self::HandOver,
        Self::Respread,
        Self::Mix,
    ];
}

/// Where somebody without the secret records, and sends again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Attack {
    /// Nowhere.
    None,
    /// On the sync link.
    Sync,
    /// There and in the clients' network.
    Everywhere,
}

impl Attack {
    pub(crate) const fn has_lan(self) -> bool {
        matches!(self, Self::Everywhere)
    }
}

/// What the nodes live with all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Surroundings {
    /// What takes the reliable channel of the sync link longer than its datagrams. Unit: milliseconds.
    pub(crate) stream_ms: u64,
    /// How often the router spreads flows anew; 0 = when a fault says so. Unit: milliseconds.
    pub(crate) respread_ms: u64,
    /// What a ring takes at least and at most on its way to being in force, at all nodes but the first. Unit:
    /// milliseconds.
    pub(crate) write_ms: (u64, u64),
    /// How long a death's move waits at most until it is prepared everywhere. Unit: milliseconds.
    pub(crate) urgent_wait_ms: u64,
    /// Sets of a node's flow table.
    pub(crate) set_count: u32,
    pub(crate) client_count: usize,
}

impl Surroundings {
    /// A network that is no matter, and tables with room.
    pub(crate) const USUAL: Self = Self {
        stream_ms: 0,
        respread_ms: 0,
        write_ms: (1, 30),
        urgent_wait_ms: 300,
        set_count: 64,
        client_count: 60,
    };
}

/// A plan for one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    pub(crate) changes: Changes,
    pub(crate) faults: Faults,
    pub(crate) way: Way,
    pub(crate) attack: Attack,
    pub(crate) node_count: usize,
    pub(crate) backend_count: usize,
    pub(crate) ring_len: u32,
    pub(crate) idle_timeout_s: u32,
    /// How long a silent peer is waited for. Unit: milliseconds.
    pub(crate) patience_ms: u64,
    /// Between advertisements. Unit: centiseconds.
    pub(crate) interval_cs: u16,
    pub(crate) duration_ms: u64,
    pub(crate) surroundings: Surroundings,
    pub(crate) events: Vec<Event>,
}

/// What a node takes to start, at least: the VIP is elsewhere by then. Unit: milliseconds.
const STARTS_MS: u64 = 6_000;
/// The streams of a seed that draw the plan.
const PLAN_STREAM: u64 = 1 << 50;

impl Plan {
    /// Any plan of a seed.
    pub(crate) fn small(seed: u64) -> Self {
        let mut rng = Rng::new(seed, PLAN_STREAM);
        let changes = rng.pick(&[
            Changes::Drain,
            Changes::Drain,
            Changes::Weight,
            Changes::AddRemove,
            Changes::Flap,
            Changes::Death,
            Changes::FalseDeath,
            Changes::Mix,
            Changes::Nothing,
        ]);
        let mut faults = rng.pick(&Faults::ALL);
        if Rng::new(seed, PLAN_STREAM + 4).happens(100) {
            faults = Faults::LanOneWay;
        }
        match Rng::new(seed, PLAN_STREAM + 5).below(1_000) {
            0..80 => faults = Faults::Parts,
            80..130 => faults = Faults::LanLoss,
            _ => {}
        }
        let plan = Self::of(seed, changes, faults);
        match Rng::new(seed, PLAN_STREAM + 3).below(1_000) {
            0..100 => plan.under(Attack::Sync),
            100..300 => plan.under(Attack::Everywhere),
            _ => plan,
        }
    }

    /// A plan of this kind.
    pub(crate) fn of(seed: u64, changes: Changes, faults: Faults) -> Self {
        let mut rng = Rng::new(seed, PLAN_STREAM + 1);
        let is_many = rng.happens(150);
        let is_spread = rng.happens(350) || faults == Faults::Respread;
        let mut plan = Self {
            seed,
            changes,
            faults,
            way: if is_spread { Way::Ecmp } else { Way::Vip },
            attack: Attack::None,
            node_count: if is_many || faults == Faults::Parts {
                rng.within(3, 5) as usize
            } else {
                2
            },
            backend_count: rng.within(3, 6) as usize,
            ring_len: rng.pick(&[61, 127]),
            idle_timeout_s: rng.pick(&[15, 20]) as u32,
            // A cut that outlasts it is where the promise ends, if both sides forward.
            patience_ms: if is_spread {
                120_000
            } else {
                rng.pick(&[30_000, 120_000])
            },
            interval_cs: rng.pick(&[3, 10, 100]),
            duration_ms: rng.within(90_000, 180_000),
            surroundings: Surroundings::USUAL,
            events: Vec::new(),
        };
        plan.draw_events();
        plan
    }

    /// The same with clients that come this way.
    pub(crate) fn by(mut self, way: Way) -> Self {
        self.way = way;
        self.patience_ms = 120_000;
        self
    }

    /// The same in other surroundings.
    pub(crate) fn amid(mut self, surroundings: Surroundings) -> Self {
        self.surroundings = surroundings;
        self
    }

    /// The same under attack.
    pub(crate) fn under(mut self, attack: Attack) -> Self {
        self.attack = attack;
        self
    }

    fn draw_events(&mut self) {
        let mut rng = Rng::new(self.seed, PLAN_STREAM + 2);
        let changes = self
            .changes
            .events(&mut rng, self.backend_count, self.duration_ms);
        let mut events: Vec<Event> = changes
            .into_iter()
            .map(|event| Event {
                at_ms: event.at_ms + 5_000,
                action: Action::Backend(event.action),
            })
            .collect();
        let mut at_ms = 12_000;
        while at_ms < self.duration_ms {
            let kind = match self.faults {
                Faults::Mix => rng.pick(&Faults::ALL[1..9]),
                kind => kind,
            };
            at_ms += self.episode(kind, at_ms, &mut rng, &mut events);
        }
        let end_ms = self.duration_ms;
        events.retain(|event| match event.action {
            // At the end everything is started again, and no node starts within seconds.
            Action::Fault(Fault::PowerLoss(_)) => event.at_ms + STARTS_MS < end_ms,
            _ => event.at_ms < end_ms,
        });
        events.sort_by_key(|event| event.at_ms);
        self.events = events;
    }

    /// Notes the faults of one episode, all over when it ends; answers how long it is until the next.
    fn episode(&self, kind: Faults, at_ms: u64, rng: &mut Rng, events: &mut Vec<Event>) -> u64 {
        let events = std::cell::RefCell::new(events);
        let put = |at_ms, action| events.borrow_mut().push(Event { at_ms, action });
        let push = |at_ms: u64, fault: Fault| put(at_ms, Action::Fault(fault));
        let push_change = |at_ms: u64, change| put(at_ms, Action::Backend(change));
        // Mostly the node that begins Active.
        let node = if rng.happens(600) {
            0
        } else {
            rng.below(self.node_count as u64) as usize
        };
        let other = (node + 1 + rng.below(self.node_count as u64 - 1) as usize) % self.node_count;
        let lasts_ms = match kind {
            Faults::Nothing => 10_000,
            Faults::PowerLoss => {
                let lasts_ms = rng.within(STARTS_MS, 50_000);
                push(at_ms, Fault::PowerLoss(node));
                push(at_ms + lasts_ms, Fault::PowerUp(node));
                lasts_ms + 8_000
            }
            Faults::Restarts => {
                let lasts_ms = rng.within(50, 3_000);
                push(at_ms, Fault::KillControl(node));
                push(at_ms + lasts_ms, Fault::StartControl(node));
                push(at_ms + rng.below(5_000), Fault::RestartVrrp(other));
                lasts_ms + 2_000
            }
            Faults::Stops => {
                let lasts_ms = rng.within(10, 10 * u64::from(self.interval_cs) * 10);
                push(at_ms, Fault::Stop(node, lasts_ms));
                lasts_ms + 2_000
            }
            Faults::LanCut => {
                let lasts_ms = rng.within(500, 30_000);
                push(at_ms, Fault::LanDown(node));
                push(at_ms + lasts_ms, Fault::LanUp(node));
                lasts_ms + 5_000
            }
            Faults::SyncCut => {
                let lasts_ms = rng.within(300, 2 * self.patience_ms.min(40_000));
                push(at_ms, Fault::SyncCut(node, other));
                if rng.happens(700) {
                    push(at_ms, Fault::SyncCut(other, node));
                }
                push(at_ms + lasts_ms, Fault::SyncHeal(node, other));
                lasts_ms + 5_000
            }
            Faults::SyncLoss => {
                let lasts_ms = rng.within(2_000, 40_000);
                push(at_ms, Fault::SyncLoss(rng.pick(&[100, 500, 900])));
                push(at_ms + lasts_ms / 2, Fault::HandOver);
                push(at_ms + lasts_ms, Fault::SyncLoss(0));
                lasts_ms + 2_000
            }
            Faults::Chase => {
                let backend = rng.below(self.backend_count as u64) as usize;
                let over_ms = at_ms + rng.within(800, 1_100);
                push_change(at_ms, history::Action::FalseDown(backend));
                push_change(over_ms, history::Action::Up(backend));
                push(over_ms + 450, Fault::PowerLoss(0));
                push(over_ms + 450 + STARTS_MS, Fault::PowerUp(0));
                22_000
            }
            Faults::Discord => {
                let backend = rng.below(self.backend_count as u64) as usize;
                let lasts_ms = rng.within(6_000, 12_000);
                push(at_ms, Fault::SyncCut(0, 1));
                push(at_ms, Fault::SyncCut(1, 0));
                push(at_ms, Fault::LanCut(0, 1));
                push(at_ms, Fault::LanCut(1, 0));
                push(at_ms, Fault::Blind(0, lasts_ms));
                push_change(at_ms + 1_500, history::Action::FalseDown(backend));
                push_change(at_ms + lasts_ms - 1_500, history::Action::Up(backend));
                push(at_ms + lasts_ms, Fault::SyncHeal(0, 1));
                push(at_ms + lasts_ms, Fault::LanHeal(0, 1));
                lasts_ms + 10_000
            }
            Faults::LanOneWay => {
                let lasts_ms = rng.within(300, 30_000);
                let (from, to) = rng.pick(&[(node, other), (other, node)]);
                push(at_ms, Fault::LanCut(from, to));
                if rng.happens(200) {
                    push(at_ms, Fault::LanCut(to, from));
                }
                if rng.happens(300) {
                    let later_ms = at_ms + rng.below(lasts_ms);
                    push(later_ms, Fault::SyncCut(from, to));
                    push(at_ms + lasts_ms, Fault::SyncHeal(from, to));
                }
                push(at_ms + lasts_ms, Fault::LanHeal(from, to));
                lasts_ms + 5_000
            }
            Faults::Parts => {
                let lasts_ms = rng.within(300, 25_000);
                let (has_lan, has_sync) = rng.pick(&[(true, false), (false, true), (true, true)]);
                let nodes = || 0..self.node_count;
                let parts = rng.within(1, (1 << self.node_count) - 2);
                let are_parted =
                    |(one, other): &(usize, usize)| parts >> one & 1 > parts >> other & 1;
                let pairs = nodes().flat_map(|one| nodes().map(move |other| (one, other)));
                for (one, other) in pairs.filter(are_parted) {
                    if has_lan {
                        push(at_ms, Fault::LanCut(one, other));
                        push(at_ms, Fault::LanCut(other, one));
                        push(at_ms + lasts_ms, Fault::LanHeal(one, other));
                    }
                    if has_sync {
                        push(at_ms, Fault::SyncCut(one, other));
                        push(at_ms, Fault::SyncCut(other, one));
                        push(at_ms + lasts_ms, Fault::SyncHeal(one, other));
                    }
                }
                lasts_ms + 5_000
            }
            Faults::LanLoss => {
                let lasts_ms = rng.within(2_000, 40_000);
                push(at_ms, Fault::LanLoss(rng.pick(&[100, 300, 500, 900])));
                push(at_ms + lasts_ms / 2, Fault::HandOver);
                push(at_ms + lasts_ms, Fault::LanLoss(0));
                lasts_ms + 5_000
            }
            Faults::HandOver => {
                push(at_ms, Fault::HandOver);
                2_000
            }
            Faults::Respread | Faults::Mix => {
                push(at_ms, Fault::Respread);
                1_000
            }
        };
        lasts_ms + rng.within(500, 20_000)
    }
}

//! What happens to a pair, in phases; a phase is a row of the table.

use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use super::acts;
use super::ground::{Ground, Link};
use super::node::{Build, Part};
use super::pair::Pair;
use crate::disruption::traffic::Traffic;
use crate::topology::{Balancers, NodeId};

/// Something that happens to a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Event {
    /// Both links of lb1 go down at once and its processes die; a machine that knows nothing comes back
    PowerLoss,
    /// The link of lb1 to everybody goes down, and up again
    LinkDown,
    /// The daemon of lb1 is killed (SIGKILL), and started again
    DaemonKilled,
    /// The VRRP process of lb1 is killed (SIGKILL), and started again
    VrrpKilled,
    /// Everything on lb1 is stopped in good order, and started again
    Stop,
    /// The VIPs are handed over on an order, and back
    HandOver,
    /// Both nodes get another build, one after the other
    Upgrade,
    /// A backend is drained, and lb1 loses its power at once
    ChangeBefore,
    /// 10 of 100 packets between the nodes are lost, while a backend is drained and lb1 loses its link
    #[value(name = "sync-loss-10")]
    SyncLoss10,
    /// As before, 50 of 100
    #[value(name = "sync-loss-50")]
    SyncLoss50,
    /// As before, 90 of 100
    #[value(name = "sync-loss-90")]
    SyncLoss90,
    /// The link between the nodes is cut, a backend is drained, the link is healed, and lb1 loses its own
    SyncCut,
    /// lb2 is replaced by a machine that knows nothing, and then lb1 loses its power
    PeerCold,
    /// The advertisements of lb1 do not arrive, and everything else does
    AdvertsLost,
    /// Neither hears the other in any way, and both are heard by everybody
    SplitBrain,
    /// Each process of lb1 is stopped (SIGSTOP) for one to ten intervals
    Stalled,
    /// Everybody wants the processors
    Starved,
    /// The wall clock of lb1 is stepped by an hour, forth and back
    ClockStep,
    /// A router spreads flows over both nodes, and re-spreads them all, also right after a change
    Ecmp,
}

/// From here on, tens of intervals are long.
const LONG_INTERVAL: Duration = Duration::from_secs(1);

/// What a phase acts on.
pub struct Scene<'a> {
    /// The network and its servers.
    pub ground: &'a mut Ground,
    /// The balancers.
    pub pair: &'a mut Pair,
    /// The connections.
    pub traffic: &'a Traffic,
    /// Between two advertisements.
    pub interval: Duration,
    /// How long the link between the nodes is cut.
    pub cut: Duration,
}

/// A part of an event.
#[derive(Clone, Copy)]
pub struct Phase {
    /// What happens, as the table says it.
    pub name: &'static str,
    /// Makes it happen.
    pub act: fn(&mut Scene<'_>) -> Result<()>,
    /// Who has the VIPs in the end.
    pub holder: fn(&Pair) -> NodeId,
    /// What the other one has of them then.
    pub other: Other,
    /// Whether the pair has a warning.
    pub warning: Warning,
    /// Who finds out that VIPs have to move.
    pub found_by: FoundBy,
}

/// What the node has of the VIPs that does not hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// None.
    HasNone,
    /// Perhaps all: who could take them off is dead.
    MayHaveThem,
    /// All: neither hears the other.
    HasThem,
}

/// Whether a pair is told beforehand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Warning {
    /// It is: the VIPs move in good order.
    Given,
    /// It is not.
    None,
}

/// Who finds out that VIPs have to move, where they have to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundBy {
    /// Those who speak VRRP: they are told, or they hear nothing more.
    Vrrp,
    /// Whatever looks after the other process of the struck node, in its own time.
    Tracking,
}

type Act = fn(&mut Scene<'_>) -> Result<()>;

/// The VIPs move to lb2.
const fn moved(name: &'static str, act: Act) -> Phase {
    Phase {
        name,
        act,
        holder: |_| NodeId::Lb2,
        other: Other::HasNone,
        warning: Warning::None,
        found_by: FoundBy::Vrrp,
    }
}

/// The VIPs are at lb1 afterwards. If they were not before, they come back in good order: both nodes live.
const fn back(name: &'static str, act: Act) -> Phase {
    Phase {
        holder: |_| NodeId::Lb1,
        warning: Warning::Given,
        ..moved(name, act)
    }
}

/// The same, in good order.
const fn orderly(phase: Phase) -> Phase {
    Phase {
        warning: Warning::Given,
        ..phase
    }
}

/// The node that things happen to.
pub(super) const STRUCK: NodeId = NodeId::Lb1;

impl Event {
    /// Where it happens.
    pub fn balancers(self) -> Balancers {
        match self {
            Self::Ecmp => Balancers::PairBehindRouter,
            _ => Balancers::Pair,
        }
    }

    /// Whether any pair can be asked for it, or one of ours alone. After a split brain keepalived does not announce the VIPs
    /// again: the network goes on sending to the one that has given up, and nothing follows that could be measured.
    pub fn is_common(self) -> bool {
        matches!(
            self,
            Self::PowerLoss
                | Self::LinkDown
                | Self::DaemonKilled
                | Self::VrrpKilled
                | Self::Stop
                | Self::AdvertsLost
                | Self::Stalled
                | Self::Starved
        )
    }

    /// Whether VIPs move for it, and nothing else makes it special.
    pub fn is_essential(self) -> bool {
        matches!(
            self,
            Self::PowerLoss | Self::LinkDown | Self::Stop | Self::HandOver
        )
    }

    /// Whether nothing is wrong with the VIPs' node but that it is late: no reason for a failover.
    pub fn is_false_alarm(self) -> bool {
        matches!(self, Self::Stalled | Self::Starved | Self::ClockStep)
    }

    /// How often it is repeated at most, if not everything is wanted in full: a minute's cut is not waited for twenty
    /// times, nor are tens of intervals if they are long.
    pub fn repetitions_max(self, interval: Duration) -> usize {
        match self {
            Self::SyncCut => 2,
            Self::Stalled | Self::Starved if interval >= LONG_INTERVAL => 5,
            _ => usize::MAX,
        }
    }

    /// Its parts, in their order. After the last one lb1 has the VIPs, as before the first.
    pub fn phases(self) -> &'static [Phase] {
        match self {
            Self::PowerLoss => const { &[POWER_LOSS, POWER_BACK] },
            Self::LinkDown => const { &[LINK_DOWN, LINK_UP] },
            Self::DaemonKilled => &DAEMON_KILLED,
            Self::VrrpKilled => &VRRP_KILLED,
            Self::Stop => &STOP,
            Self::HandOver => &HAND_OVER,
            Self::Upgrade => &UPGRADE,
            Self::ChangeBefore => &CHANGE_BEFORE,
            Self::SyncLoss10 => &SYNC_LOSS_10,
            Self::SyncLoss50 => &SYNC_LOSS_50,
            Self::SyncLoss90 => &SYNC_LOSS_90,
            Self::SyncCut => &SYNC_CUT,
            Self::PeerCold => &PEER_COLD,
            Self::AdvertsLost => &ADVERTS_LOST,
            Self::SplitBrain => &SPLIT_BRAIN,
            Self::Stalled => &STALLED,
            Self::Starved => &STARVED,
            Self::ClockStep => &CLOCK_STEP,
            Self::Ecmp => &ECMP,
        }
    }
}

const POWER_LOSS: Phase = moved("power loss", |scene| acts::power_off(scene, STRUCK));
const POWER_BACK: Phase = back("power back", |scene| acts::power_on(scene, STRUCK));
const LINK_DOWN: Phase = moved("link down", |scene| {
    scene.ground.set_lan(STRUCK, Link::Down)
});
const LINK_UP: Phase = back("link up", |scene| scene.ground.set_lan(STRUCK, Link::Up));

static DAEMON_KILLED: [Phase; 2] = [
    Phase {
        holder: |pair| pair.without(Part::Daemon),
        found_by: FoundBy::Tracking,
        ..back("daemon killed", |scene| {
            scene.pair.node(STRUCK).kill_daemon(scene.ground)
        })
    },
    back("daemon started", |scene| {
        scene.pair.node(STRUCK).start_daemon(scene.ground)
    }),
];

static VRRP_KILLED: [Phase; 2] = [
    Phase {
        holder: |pair| pair.without(Part::Vrrp),
        other: Other::MayHaveThem,
        ..back("VRRP process killed", |scene| {
            scene.pair.node(STRUCK).kill_vrrp(scene.ground)
        })
    },
    back("VRRP process started", |scene| {
        scene.pair.node(STRUCK).start_vrrp(scene.ground)
    }),
];

static STOP: [Phase; 2] = [
    orderly(moved("graceful stop", |scene| {
        scene.pair.node(STRUCK).stop(scene.ground)
    })),
    back("started again", |scene| {
        scene.pair.node(STRUCK).start(scene.ground)
    }),
];

static HAND_OVER: [Phase; 2] = [
    orderly(moved("lbctl vip failover", |scene| {
        scene.pair.node(STRUCK).hand_over()
    })),
    back("lbctl vip failover, back", |scene| {
        scene.pair.node(STRUCK.other()).hand_over()
    }),
];

/// One node after the other, there and back: what comes after it meets the build that is measured.
static UPGRADE: [Phase; 4] = [
    back("lb2 upgraded", |scene| {
        acts::replace(scene, STRUCK.other(), Build::Other)
    }),
    back("lb1 upgraded", |scene| {
        acts::replace(scene, STRUCK, Build::Other)
    }),
    back("lb2 put back", |scene| {
        acts::replace(scene, STRUCK.other(), Build::Own)
    }),
    back("lb1 put back", |scene| {
        acts::replace(scene, STRUCK, Build::Own)
    }),
];

static CHANGE_BEFORE: [Phase; 3] = [
    moved("backend drained, power loss at once", |scene| {
        acts::drain(scene, STRUCK)?;
        acts::power_off(scene, STRUCK)
    }),
    back("power back, backend drained", |scene| {
        acts::power_on(scene, STRUCK)
    }),
    back("backend readied", |scene| acts::ready(scene, STRUCK)),
];

/// What happens on a link that loses packets: a change, its consequences, and a failover.
const fn under_loss(names: [&'static str; 4], lose: Act) -> [Phase; 4] {
    [
        back(names[0], lose),
        moved(names[1], LINK_DOWN.act),
        back(names[2], LINK_UP.act),
        back(names[3], |scene| {
            scene.ground.lose_on_sync(0)?;
            acts::ready(scene, STRUCK)
        }),
    ]
}

static SYNC_LOSS_10: [Phase; 4] = under_loss(
    [
        "10 % loss on the sync link, backend drained",
        "10 % loss, link down",
        "10 % loss, link up",
        "10 % loss over, backend readied",
    ],
    |scene| acts::lose_and_drain(scene, 10),
);
static SYNC_LOSS_50: [Phase; 4] = under_loss(
    [
        "50 % loss on the sync link, backend drained",
        "50 % loss, link down",
        "50 % loss, link up",
        "50 % loss over, backend readied",
    ],
    |scene| acts::lose_and_drain(scene, 50),
);
static SYNC_LOSS_90: [Phase; 4] = under_loss(
    [
        "90 % loss on the sync link, backend drained",
        "90 % loss, link down",
        "90 % loss, link up",
        "90 % loss over, backend readied",
    ],
    |scene| acts::lose_and_drain(scene, 90),
);

static SYNC_CUT: [Phase; 5] = [
    back("sync link cut, backend drained", acts::cut_and_drain),
    back("sync link healed", |scene| {
        scene.ground.set_sync(Link::Up)?;
        scene.pair.wait_ready(scene.ground)
    }),
    moved("link down after the cut", LINK_DOWN.act),
    back("link up after the cut", LINK_UP.act),
    back("backend readied after the cut", |scene| {
        acts::ready(scene, STRUCK)
    }),
];

static PEER_COLD: [Phase; 3] = [
    back("lb2 replaced by a cold one", |scene| {
        acts::power_off(scene, STRUCK.other())?;
        acts::power_on(scene, STRUCK.other())?;
        scene.pair.wait_ready(scene.ground)
    }),
    moved("power loss, the peer was cold", POWER_LOSS.act),
    POWER_BACK,
];

static ADVERTS_LOST: [Phase; 2] = [
    Phase {
        other: Other::MayHaveThem,
        ..back("adverts lost for 20 intervals", |scene| {
            scene.ground.set_adverts(STRUCK, Link::Down)?;
            acts::pass(scene, 20)
        })
    },
    back("adverts heard again", |scene| {
        scene.ground.set_adverts(STRUCK, Link::Up)
    }),
];

static SPLIT_BRAIN: [Phase; 2] = [
    Phase {
        other: Other::HasThem,
        ..back("both paths cut", |scene| acts::part(scene, Link::Down))
    },
    back("both paths healed", |scene| acts::part(scene, Link::Up)),
];

static STALLED: [Phase; 6] = [
    back("VRRP process stopped for 1 interval", |scene| {
        acts::stall(scene, Part::Vrrp, 1)
    }),
    back("VRRP process stopped for 3 intervals", |scene| {
        acts::stall(scene, Part::Vrrp, 3)
    }),
    back("VRRP process stopped for 5 intervals", |scene| {
        acts::stall(scene, Part::Vrrp, 5)
    }),
    back("VRRP process stopped for 10 intervals", |scene| {
        acts::stall(scene, Part::Vrrp, 10)
    }),
    back("daemon stopped for 3 intervals", |scene| {
        acts::stall(scene, Part::Daemon, 3)
    }),
    back("daemon stopped for 10 intervals", |scene| {
        acts::stall(scene, Part::Daemon, 10)
    }),
];

static STARVED: [Phase; 1] = [back("processors wanted for 20 intervals", |scene| {
    acts::starve(scene, 20)
})];

static CLOCK_STEP: [Phase; 2] = [
    back("clock an hour ahead", |scene| {
        scene.pair.node(STRUCK).step_clock(acts::HOUR_S)?;
        acts::pass(scene, 5)
    }),
    back("clock an hour back", |scene| {
        scene.pair.node(STRUCK).step_clock(0)?;
        acts::pass(scene, 5)
    }),
];

static ECMP: [Phase; 6] = [
    back("spread over both", |scene| scene.ground.spread([1, 1])),
    back("all to lb2", |scene| acts::respread(scene, [0, 1])),
    back("all to lb1", |scene| acts::respread(scene, [1, 0])),
    back("backend drained, spread over both at once", |scene| {
        acts::drain(scene, STRUCK)?;
        acts::respread(scene, [1, 1])
    }),
    back("all to lb2 in the midst of it", |scene| {
        acts::respread(scene, [0, 1])
    }),
    back("backend readied, all to lb1 at once", |scene| {
        acts::ready(scene, STRUCK)?;
        acts::respread(scene, [1, 0])
    }),
];

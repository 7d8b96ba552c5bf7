//! What happens to a pair, in phases; a phase is a row of the table.

use anyhow::Result;
use clap::ValueEnum;
use serde::Serialize;

use super::ground::{Ground, Link};
use super::pair::Pair;
use crate::topology::NodeId;

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
}

/// What a phase acts on.
pub struct Scene<'a> {
    /// The network and its servers.
    pub ground: &'a mut Ground,
    /// The balancers.
    pub pair: &'a mut dyn Pair,
}

/// A part of an event.
#[derive(Clone, Copy)]
pub struct Phase {
    /// What happens, as the table says it.
    pub name: &'static str,
    /// Makes it happen.
    pub act: fn(&mut Scene<'_>) -> Result<()>,
    /// Who has the VIPs in the end.
    pub holder: fn(&dyn Pair) -> NodeId,
    /// What the other one has of them then.
    pub other: Other,
}

/// What the node has of the VIPs that does not hold them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Other {
    /// None.
    HasNone,
    /// Perhaps all: who could take them off is dead.
    MayHaveThem,
}

const fn moved(name: &'static str, act: fn(&mut Scene<'_>) -> Result<()>) -> Phase {
    Phase {
        name,
        act,
        holder: |_| NodeId::Lb2,
        other: Other::HasNone,
    }
}

const fn back(name: &'static str, act: fn(&mut Scene<'_>) -> Result<()>) -> Phase {
    Phase {
        name,
        act,
        holder: |_| NodeId::Lb1,
        other: Other::HasNone,
    }
}

/// The node that things happen to.
const STRUCK: NodeId = NodeId::Lb1;

impl Event {
    /// Its parts, in their order. After the last one lb1 has the VIPs, as before the first.
    pub fn phases(self) -> &'static [Phase] {
        match self {
            Self::PowerLoss => {
                const { &[moved("power loss", power_off), back("power back", power_on)] }
            }
            Self::LinkDown => {
                const {
                    &[
                        moved("link down", |scene| {
                            scene.ground.set_lan(STRUCK, Link::Down)
                        }),
                        back("link up", |scene| scene.ground.set_lan(STRUCK, Link::Up)),
                    ]
                }
            }
            Self::DaemonKilled => {
                const {
                    &[
                        Phase {
                            name: "daemon killed",
                            act: |scene| scene.pair.kill_daemon(scene.ground, STRUCK),
                            holder: |pair| pair.without_daemon(),
                            other: Other::HasNone,
                        },
                        back("daemon started", |scene| {
                            scene.pair.start_daemon(scene.ground, STRUCK)
                        }),
                    ]
                }
            }
            Self::VrrpKilled => {
                const {
                    &[
                        Phase {
                            name: "VRRP process killed",
                            act: |scene| scene.pair.kill_vrrp(scene.ground, STRUCK),
                            holder: |pair| pair.without_vrrp(),
                            other: Other::MayHaveThem,
                        },
                        back("VRRP process started", |scene| {
                            scene.pair.start_vrrp(scene.ground, STRUCK)
                        }),
                    ]
                }
            }
            Self::Stop => {
                const {
                    &[
                        moved("graceful stop", |scene| {
                            scene.pair.stop(scene.ground, STRUCK)
                        }),
                        back("started again", |scene| {
                            scene.pair.start(scene.ground, STRUCK)
                        }),
                    ]
                }
            }
        }
    }
}

fn power_off(scene: &mut Scene<'_>) -> Result<()> {
    scene.ground.cut_off(STRUCK)?;
    scene.pair.kill_all(scene.ground, STRUCK)
}

fn power_on(scene: &mut Scene<'_>) -> Result<()> {
    scene.ground.replace(STRUCK)?;
    scene.pair.start(scene.ground, STRUCK)
}

//! A pair of balancers, of one make or of two.

use anyhow::Result;

use super::ground::Ground;
use super::node::{Maker, Node, Part, PeerIs};
use super::ours::{OurNode, OursPlan, Peer};
use super::rival::RivalNode;
use crate::disruption::traffic::HasDatagrams;
use crate::topology::NodeId;

/// Whose pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Make {
    /// Ours.
    Ours,
    /// keepalived with HAProxy.
    Rival,
    /// lb1 is ours, and lb2 keepalived with HAProxy.
    OursRival,
    /// lb1 is keepalived with HAProxy, and lb2 ours.
    RivalOurs,
}

impl Make {
    /// What it is called in tables.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Rival => "keepalived + HAProxy",
            Self::OursRival => "lb1 ours, lb2 keepalived + HAProxy",
            Self::RivalOurs => "lb1 keepalived + HAProxy, lb2 ours",
        }
    }

    /// Who made lb1 and lb2.
    pub fn makers(self) -> [Maker; 2] {
        match self {
            Self::Ours => [Maker::Ours; 2],
            Self::Rival => [Maker::Rival; 2],
            Self::OursRival => [Maker::Ours, Maker::Rival],
            Self::RivalOurs => [Maker::Rival, Maker::Ours],
        }
    }

    /// Who made that one of the two.
    pub fn maker_of(self, node: NodeId) -> Maker {
        self.makers()[node as usize]
    }

    /// Whether its nodes have nothing in common but VRRP.
    pub fn is_mixed(self) -> bool {
        let [lb1, lb2] = self.makers();
        lb1 != lb2
    }
}

/// Two balancers on a ground, of which lb1 has the VIPs while it can. Dropping it ends both.
pub struct Pair {
    make: Make,
    nodes: [Box<dyn Node>; 2],
}

impl Pair {
    /// Starts both nodes, those of ours by `plan`.
    pub fn start(ground: &Ground, make: Make, plan: &OursPlan) -> Result<Self> {
        let peer = if make == Make::Ours {
            Peer::Linked
        } else {
            Peer::Stranger
        };
        let node = |id| -> Result<Box<dyn Node>> {
            Ok(match make.maker_of(id) {
                Maker::Ours => Box::new(OurNode::start(ground, id, plan.clone(), peer)?),
                Maker::Rival => Box::new(RivalNode::start(ground, id, plan.interval)?),
            })
        };
        Ok(Self {
            make,
            nodes: [node(NodeId::Lb1)?, node(NodeId::Lb2)?],
        })
    }

    /// One of the two.
    pub fn node(&mut self, node: NodeId) -> &mut dyn Node {
        self.nodes[node as usize].as_mut()
    }

    /// Whether both carry UDP.
    pub fn has_datagrams(&self) -> HasDatagrams {
        let mut nodes = self.nodes.iter();
        if nodes.all(|node| node.has_datagrams() == HasDatagrams::Yes) {
            HasDatagrams::Yes
        } else {
            HasDatagrams::No
        }
    }

    /// Who has the VIPs after that part of lb1 has died.
    pub fn without(&self, part: Part) -> NodeId {
        let lb1 = &self.nodes[NodeId::Lb1 as usize];
        if lb1.outlives(part) {
            NodeId::Lb1
        } else {
            NodeId::Lb2
        }
    }

    /// Waits until both nodes know what they need to know to stand in for each other.
    pub fn wait_ready(&mut self, ground: &Ground) -> Result<()> {
        let mut is_off = self.nodes.iter_mut().map(|node| node.is_off());
        let is_alone = is_off.any(|is_off| is_off);
        let peer = if is_alone || self.make.is_mixed() || !ground.sync_works() {
            PeerIs::Away
        } else {
            PeerIs::There
        };
        for node in self.nodes.iter_mut() {
            if !node.is_off() {
                node.wait_ready(peer)?;
            }
        }
        Ok(())
    }

    /// What its processes have said last, for an error.
    pub fn logs(&self) -> String {
        let logs: Vec<String> = self.nodes.iter().map(|node| node.log()).collect();
        logs.join("\n")
    }
}

//! What a node knows of its peers, and whom that makes the owner of a service.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::transition::{Members, Reach};
use crate::vrrp::protocol::Family;

use super::message::Report;
use super::share::Share;

/// A virtual router: a group's name, and the family of its VIPs.
pub type GroupId = (String, Family);

/// How a peer can be reached over the sync link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// It answers.
    Up,
    /// It does not, and may forward all the same.
    Silent {
        /// Since when. Unit: milliseconds.
        since_ms: u64,
        /// From when on it counts as gone. Unit: milliseconds.
        until_ms: u64,
    },
    /// It has been silent for so long that it counts as gone, or has said that it has taken its datapath off.
    Gone,
}

/// A peer.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    pub(super) member: Members,
    pub(super) link: LinkState,
    /// The groups in which it says that it is Active.
    pub(super) active: BTreeSet<GroupId>,
    pub(super) report: Option<Heard>,
    /// This node's reports to it: number, and when.
    pub(super) told: VecDeque<(u64, u64)>,
}

/// A peer's last report.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) report: Report,
    pub(super) at_ms: u64,
    /// It is not older than this.
    pub(super) not_before_ms: u64,
}

/// Reports of which it is remembered when they were sent.
const TOLD_MAX: usize = 16;

impl Peer {
    pub(super) fn new(number: usize, link: LinkState) -> Self {
        Self {
            member: Members::peer(number),
            link,
            active: BTreeSet::new(),
            report: None,
            told: VecDeque::new(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.link == LinkState::Up
    }

    pub(super) fn note_told(&mut self, number: u64, now_ms: u64) {
        self.told.push_back((number, now_ms));
        if self.told.len() > TOLD_MAX {
            self.told.pop_front();
        }
    }

    pub(super) fn hear(&mut self, report: Report, now_ms: u64) {
        let heard = report.heard;
        let told = self.told.iter().find(|(number, _)| *number == heard);
        let not_before_ms = told.map_or(0, |(_, at_ms)| *at_ms);
        self.report = Some(Heard {
            report,
            at_ms: now_ms,
            not_before_ms,
        });
    }
}

/// All nodes, as one sees them.
#[derive(Clone, Debug)]
pub(super) struct View {
    pub(super) name: String,
    pub(super) peers: BTreeMap<String, Peer>,
    /// The groups in which this node is Active.
    pub(super) active: BTreeSet<GroupId>,
}

impl View {
    /// Peers that have been silent for too long count as gone.
    pub(super) fn lose_patience(&mut self, now_ms: u64) {
        for peer in self.peers.values_mut() {
            if matches!(peer.link, LinkState::Silent { until_ms, .. } if now_ms >= until_ms) {
                peer.link = LinkState::Gone;
            }
        }
    }

    /// Whether a node answers: this one does.
    pub(super) fn is_there(&self, name: &str) -> bool {
        name == self.name || self.peers.get(name).is_some_and(Peer::is_up)
    }

    /// Since when a peer is silent, if it is.
    pub(super) fn silent_since_ms(&self, name: &str) -> Option<u64> {
        match self.peers.get(name)?.link {
            LinkState::Silent { since_ms, .. } => Some(since_ms),
            LinkState::Up | LinkState::Gone => None,
        }
    }

    pub(super) fn present(&self) -> Members {
        let up = self.peers.values().filter(|peer| peer.is_up());
        up.fold(Members::NONE, |all, peer| all.and(peer.member))
    }

    pub(super) fn reach(&self) -> Reach {
        let is_silent = |peer: &Peer| matches!(peer.link, LinkState::Silent { .. });
        if self.peers.values().any(is_silent) {
            Reach::Cut
        } else {
            Reach::All
        }
    }

    /// Whether there is a node of this name, here or elsewhere.
    pub(super) fn is_known(&self, name: &str) -> bool {
        name == self.name || self.peers.contains_key(name)
    }

    pub(super) fn is_active(&self, group: &GroupId) -> bool {
        self.active.contains(group)
    }

    /// Who decides a ring that `lackers` do not have: `last` has decided it so far, or nobody has (an empty name).
    pub(super) fn owner<'v>(
        &'v self,
        group: Option<&GroupId>,
        lackers: &BTreeSet<String>,
        last: &'v str,
    ) -> &'v str {
        let peers = self.peers.iter();
        let peers = peers.filter(|(name, peer)| peer.is_up() && !lackers.contains(*name));
        let others = peers.map(|(name, peer)| (name.as_str(), &peer.active));
        let nodes: BTreeMap<&str, _> = others.chain([(self.name.as_str(), &self.active)]).collect();
        let is_active = |active: &BTreeSet<GroupId>| group.is_some_and(|one| active.contains(one));
        let first_active = nodes.iter().find(|(_, active)| is_active(active));
        match first_active {
            Some((first, _)) => first,
            None if nodes.contains_key(last) => last,
            None => nodes.keys().next().copied().unwrap_or(&self.name),
        }
    }

    /// Whether a ring is decided by an Active node that is there and has the service, and `claimant` is another one, that
    /// is not Active: it does not hear the owner. Who followed it would leave the ring that the traffic knows.
    pub(super) fn is_led_by_another(&self, share: &Share, claimant: &str) -> bool {
        let Some(group) = &share.group else {
            return false;
        };
        let is_active = |name: &str| {
            let peer = self.peers.get(name);
            let is_active = peer.is_some_and(|peer| peer.is_up() && peer.active.contains(group));
            is_active && !share.lackers.contains(name)
        };
        let owner = &share.term.owner;
        owner != claimant && is_active(owner) && !is_active(claimant)
    }

    /// Whether this node decides a ring because it is Active, whatever another one claims.
    pub(super) fn is_owner_by_activity(
        &self,
        group: Option<&GroupId>,
        lackers: &BTreeSet<String>,
    ) -> bool {
        let is_active = group.is_some_and(|group| self.is_active(group));
        is_active && self.owner(group, lackers, "") == self.name
    }
}

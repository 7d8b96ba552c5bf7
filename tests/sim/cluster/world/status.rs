//! What a node says of itself with a heartbeat.

use std::collections::BTreeSet;

use lb_userspace::cluster::GroupId;
use lb_userspace::vrrp::protocol::{PeerRouter, State};

use super::super::node::group;

/// How a node's virtual router is.
#[derive(Clone, Debug)]
pub(in crate::cluster) struct NodeStatus {
    pub(in crate::cluster) router: PeerRouter,
}

impl NodeStatus {
    /// The groups in which the node is Active.
    pub(in crate::cluster) fn active(&self) -> BTreeSet<GroupId> {
        let is_active = self.router.state == State::Active;
        is_active.then(group).into_iter().collect()
    }

    /// Whether it says something that is not to wait.
    pub(super) fn is_other_than(&self, other: &Self) -> bool {
        self.router.state != other.router.state || self.router.is_fit != other.router.is_fit
    }

    /// As it is in a heartbeat.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let state = match self.router.state {
            State::Initialize => 0,
            State::Backup => 1,
            State::Active => 2,
        };
        vec![state, self.router.priority, u8::from(self.router.is_fit)]
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[state, priority, is_fit] = bytes else {
            return None;
        };
        let state = match state {
            0 => State::Initialize,
            1 => State::Backup,
            2 => State::Active,
            _ => return None,
        };
        let (group, family) = group();
        Some(Self {
            router: PeerRouter {
                group,
                family,
                state,
                priority,
                is_fit: is_fit != 0,
            },
        })
    }
}

//! What a node says of itself with a heartbeat.

use std::collections::BTreeSet;

use lb_userspace::cluster::GroupId;
use lb_userspace::vrrp::protocol::{PeerRouter, State};

use super::super::node::{GROUP_COUNT, group};

/// How a node's virtual routers are.
#[derive(Clone, Debug)]
pub(in crate::cluster) struct NodeStatus {
    /// By group.
    pub(in crate::cluster) routers: [PeerRouter; GROUP_COUNT],
}

/// Bytes of a router in a heartbeat: state, priority, whether it is fit.
const ROUTER_BYTES: usize = 3;

impl NodeStatus {
    /// The groups in which the node is Active.
    pub(in crate::cluster) fn active(&self) -> BTreeSet<GroupId> {
        let active = self
            .routers
            .iter()
            .filter(|router| router.state == State::Active);
        active
            .map(|router| (router.group.clone(), router.family))
            .collect()
    }

    /// Whether it says something that is not to wait.
    pub(super) fn is_other_than(&self, other: &Self) -> bool {
        let what_counts = |router: &PeerRouter| (router.state, router.is_fit);
        self.routers.each_ref().map(what_counts) != other.routers.each_ref().map(what_counts)
    }

    /// As it is in a heartbeat.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let bytes = |router: &PeerRouter| {
            let state = match router.state {
                State::Initialize => 0,
                State::Backup => 1,
                State::Active => 2,
            };
            [state, router.priority, u8::from(router.is_fit)]
        };
        self.routers.iter().flat_map(bytes).collect()
    }

    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let (routers, rest) = bytes.as_chunks::<ROUTER_BYTES>();
        let routers: [[u8; ROUTER_BYTES]; GROUP_COUNT] = routers.try_into().ok()?;
        let is_whole = rest.is_empty() && routers.iter().all(|[state, ..]| *state <= 2);
        is_whole.then(|| Self {
            routers: std::array::from_fn(|number| parse_router(number, routers[number])),
        })
    }
}

fn parse_router(number: usize, bytes: [u8; ROUTER_BYTES]) -> PeerRouter {
    let [state, priority, is_fit] = bytes;
    let (group, family) = group(number);
    PeerRouter {
        group,
        family,
        state: match state {
            0 => State::Initialize,
            1 => State::Backup,
            _ => State::Active,
        },
        priority,
        is_fit: is_fit != 0,
    }
}

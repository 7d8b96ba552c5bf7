//! What a node says of itself with every heartbeat.

use serde::{Deserialize, Serialize};

use crate::model::cluster::VRRP_GROUPS_MAX;
use crate::vrrp::protocol::{PeerRouter, State, Status};

/// The format of [`NodeStatus`]: another one is not understood, and the heartbeat tells only that its sender lives.
const FORMAT: u8 = 1;

/// Virtual routers that a heartbeat tells of: two families of as many groups as there can be.
pub const ROUTERS_MAX: usize = 2 * VRRP_GROUPS_MAX;

/// Of a version, so much is told. Unit: bytes.
const VERSION_BYTES_MAX: usize = 60;
/// The same of a reason. Unit: bytes.
const REASON_BYTES_MAX: usize = 200;

/// A node, as it sees itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The version of its `lbd`.
    pub version: String,
    /// The version of its `lbd-vrrp`; empty = it has none.
    pub vrrp_version: String,
    /// Why it has not caught up; `None` = it has.
    pub behind: Option<String>,
    /// Its virtual routers.
    pub routers: Vec<PeerRouter>,
    /// [`crate::model::shared::Overlay::digest`] of its changes made at run time.
    pub changes: u64,
}

impl NodeStatus {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![FORMAT];
        // Strings and lists have a form always; should that change, the heartbeat still says that we live.
        bytes.extend(postcard::to_stdvec(&self.bounded()).unwrap_or_default());
        bytes
    }

    /// With texts of a length for which there is room beside [`crate::model::cluster::VRRP_GROUP_BYTES_MAX`].
    fn bounded(&self) -> Self {
        let cut = |text: &str, len_max| text[..text.floor_char_boundary(len_max)].to_owned();
        let behind = self.behind.as_deref();
        Self {
            version: cut(&self.version, VERSION_BYTES_MAX),
            vrrp_version: cut(&self.vrrp_version, VERSION_BYTES_MAX),
            behind: behind.map(|behind| cut(behind, REASON_BYTES_MAX)),
            ..self.clone()
        }
    }

    /// From bytes; `None` = they are of another format, or damaged.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (format, rest) = bytes.split_first()?;
        if *format != FORMAT {
            return None;
        }
        let (status, _later) = postcard::take_from_bytes::<Self>(rest).ok()?;
        (status.routers.len() <= ROUTERS_MAX).then_some(status)
    }
}

/// The virtual routers of this node, as its `lbd-vrrp` last said. A process that does not answer any more has
/// not changed anything: what it did last is so until somebody else does something.
pub fn routers(status: Option<&Status>, unfit: impl Fn(&str) -> bool) -> Vec<PeerRouter> {
    let routers = status.map_or(&[][..], |status| &status.routers);
    let own = routers.iter().take(ROUTERS_MAX).map(|router| PeerRouter {
        group: router.group.clone(),
        family: router.family,
        state: router.state,
        priority: router.priority,
        is_fit: router.state != State::Initialize && router.priority > 0 && !unfit(&router.group),
    });
    own.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cluster::{VRRP_GROUP_BYTES_MAX, VRRP_GROUP_EXTRA_BYTES};
    use crate::sync::link::HEARTBEAT_MAX_BYTES;
    use crate::vrrp::protocol::Family;

    fn status() -> NodeStatus {
        NodeStatus {
            version: "0.1.0".to_owned(),
            vrrp_version: String::new(),
            behind: Some("it has just begun".to_owned()),
            routers: vec![PeerRouter {
                group: "web".to_owned(),
                family: Family::Ipv6,
                state: State::Active,
                priority: 200,
                is_fit: true,
            }],
            changes: 77,
        }
    }

    #[test]
    fn the_longest_groups_and_reasons_have_room() {
        let router = PeerRouter {
            group: "g".repeat(VRRP_GROUP_BYTES_MAX / 16 - VRRP_GROUP_EXTRA_BYTES),
            ..status().routers[0].clone()
        };
        let full = NodeStatus {
            version: "é".repeat(500),
            vrrp_version: "é".repeat(500),
            behind: Some("é".repeat(500)),
            routers: vec![router; 16],
            changes: u64::MAX,
        };
        let bytes = full.encode();
        assert!(bytes.len() <= HEARTBEAT_MAX_BYTES, "{}", bytes.len());
        assert_eq!(NodeStatus::decode(&bytes), Some(full.bounded()));
    }

    #[test]
    fn what_is_said_is_understood_and_what_a_later_version_adds_is_ignored() {
        let mut bytes = status().encode();
        assert_eq!(NodeStatus::decode(&bytes), Some(status()));
        bytes.extend([1, 2, 3]);
        assert_eq!(NodeStatus::decode(&bytes), Some(status()));
        bytes[0] = 2;
        assert_eq!(NodeStatus::decode(&bytes), None);
    }

    #[test]
    fn damaged_and_oversized_words_are_refused() {
        let bytes = status().encode();
        for length in 0..bytes.len() {
            assert_eq!(NodeStatus::decode(&bytes[..length]), None, "{length}");
        }
        let router = status().routers[0].clone();
        let crowd = NodeStatus {
            routers: vec![router; ROUTERS_MAX + 1],
            ..status()
        };
        assert_eq!(NodeStatus::decode(&crowd.encode()), None);
    }
}

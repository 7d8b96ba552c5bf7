//! The one table of drop reasons, shared by the datapath, the API, `lbctl` and the metrics.

use crate::limits::COUNTERS_PER_SERVICE;

/// Index in `COUNTERS` of the packets that were not for a service and went to the host unchanged.
pub const PASSED_INDEX: u32 = 0;

/// Why a packet was dropped. The number is part of the map ABI: append, never reorder; 0 is taken
/// by [`PASSED_INDEX`].
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The service has no backend.
    NoBackend = 1,
    /// The next hop towards the backend is not known.
    BackendUnresolved = 2,
    /// There is no route back to the client.
    NoRoute = 3,
    /// The next hop towards the client is not known; the control plane was asked to resolve it.
    ClientUnresolved = 4,
    /// A fragment: ports are in the first one only, so the others could not be steered.
    Fragment = 5,
    /// A header is shorter than its protocol allows, or than it says.
    Malformed = 6,
    /// The frame ends inside a header.
    Truncated = 7,
    /// More IPv6 extension headers than the datapath walks.
    ExtensionHeaders = 8,
    /// The time to live (hop limit) ran out.
    TtlExceeded = 9,
    /// A VLAN-tagged packet whose backend is behind another interface.
    VlanEgress = 10,
    /// The ring names a backend that the backend table does not have: a bug or a map written by
    /// somebody else.
    BackendMissing = 11,
    /// Answered with RST: the flow's backend is down, in maintenance or removed, or no backend is up,
    /// and the service's policy says `reset`.
    Reset = 12,
    /// The flow's backend is in maintenance or removed, and the service's policy says `drop`.
    BackendRemoved = 13,
    /// No backend is up, and the service's policy says `drop`.
    AllDown = 14,
    /// To a VIP of a group with `accept = false`, and for no service: the host's own stack would
    /// answer.
    NotAccepted = 15,
    /// A segment of a flow that is not on record, on a node with peers, one of which may be about to tell
    /// of it: [`crate::datapath::pending`].
    FlowUnknown = 16,
}

impl DropReason {
    /// Every reason, in the order of its number, which starts at 1.
    pub const ALL: [Self; 16] = [
        Self::NoBackend,
        Self::BackendUnresolved,
        Self::NoRoute,
        Self::ClientUnresolved,
        Self::Fragment,
        Self::Malformed,
        Self::Truncated,
        Self::ExtensionHeaders,
        Self::TtlExceeded,
        Self::VlanEgress,
        Self::BackendMissing,
        Self::Reset,
        Self::BackendRemoved,
        Self::AllDown,
        Self::NotAccepted,
        Self::FlowUnknown,
    ];

    /// The label in the API, in `lbctl` and in metrics: snake case, stable.
    pub const fn label(self) -> &'static str {
        match self {
            Self::NoBackend => "no_backend",
            Self::BackendUnresolved => "backend_unresolved",
            Self::NoRoute => "no_route",
            Self::ClientUnresolved => "client_unresolved",
            Self::Fragment => "fragment",
            Self::Malformed => "malformed",
            Self::Truncated => "truncated",
            Self::ExtensionHeaders => "extension_headers",
            Self::TtlExceeded => "ttl_exceeded",
            Self::VlanEgress => "vlan_egress",
            Self::BackendMissing => "backend_missing",
            Self::Reset => "reset",
            Self::BackendRemoved => "backend_removed",
            Self::AllDown => "all_down",
            Self::NotAccepted => "not_accepted",
            Self::FlowUnknown => "flow_unknown",
        }
    }

    /// What it means and what an operator does about it, in one sentence.
    pub const fn help(self) -> &'static str {
        match self {
            Self::NoBackend => "the service has no backend: add one",
            Self::BackendUnresolved => {
                "the backend's link-layer address is unknown: is it up and on the link?"
            }
            Self::NoRoute => "no route back to the client: check the node's routes",
            Self::ClientUnresolved => "the next hop to the client is being resolved",
            Self::Fragment => "fragments cannot be steered by port: check the path MTU",
            Self::Malformed => "a header contradicts its protocol",
            Self::Truncated => "the frame ends inside a header",
            Self::ExtensionHeaders => "more IPv6 extension headers than are walked",
            Self::TtlExceeded => "the time to live ran out: is there a loop?",
            Self::VlanEgress => "a tagged packet whose backend is behind another interface",
            Self::BackendMissing => "the ring names an unknown backend: please report this",
            Self::Reset => "answered with RST, as `on_down`, `on_remove` or `on_all_down` say",
            Self::BackendRemoved => {
                "a flow of a backend that was taken away with `on_remove = \"drop\"`"
            }
            Self::AllDown => "no backend is up, and `on_all_down = \"drop\"`",
            Self::NotAccepted => {
                "for no service, to a VIP of a [[vrrp]] group with `accept = false`"
            }
            Self::FlowUnknown => {
                "of a flow that no node has told of yet: it is sent again, and goes on then"
            }
        }
    }

    /// Index in `COUNTERS` for a service id (0 = no service).
    #[inline(always)]
    pub const fn index(self, service_id: u16) -> u32 {
        service_id as u32 * COUNTERS_PER_SERVICE + self as u32
    }
}

const _: () = assert!(DropReason::ALL.len() < COUNTERS_PER_SERVICE as usize);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positions_and_labels_are_unique() {
        for (position, reason) in DropReason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, position + 1);
            assert!(!reason.help().is_empty());
            let same = DropReason::ALL
                .iter()
                .filter(|other| other.label() == reason.label());
            assert_eq!(same.count(), 1);
        }
    }
}

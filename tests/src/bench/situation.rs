//! What a packet can meet: a settled slot, or one in transition with a flow table in some state.

use lb_common::abi::{ForwardMode, Scheduler, Slot};
use lb_lab::datapath::frame::{Flags, Transport};

use crate::generator::Order;
use crate::scenario::Mode;

/// The state of slots and of the flow table, and the packets that are measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Situation {
    /// Settled slots.
    Settled,
    /// Moving slots, segments of flows that are on record.
    Hit,
    /// Armed slots, segments of flows that are not on record, which are not learned either.
    Miss,
    /// Moving slots, segments of flows that are not on record yet: each is learned.
    Learn,
    /// Moving slots, SYNs of new flows: each is recorded.
    SynInsert,
    /// As `Hit`, with probation full of a SYN flood.
    FloodHit,
    /// Probation is full of half-open flows that are still protected: each SYN is refused.
    FloodRefused,
    /// Probation is full of half-open flows that are not protected any more: each SYN takes the place
    /// of one.
    FloodEvicting,
}

/// How a run of packets is cut into bursts, before each of which the flow table is prepared.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bursts {
    pub(crate) count: u32,
    /// Packets in each.
    pub(crate) len: u32,
    pub(crate) order: Order,
}

/// Backends of the ring. Each has another one, from which its slots are moving.
pub(crate) const BACKEND_COUNT: u16 = 10;
/// Flows from which on there are enough new ones to measure.
const NEW_FLOWS_MIN: u32 = 1 << 16;

impl Situation {
    /// Those of slots in transition.
    const IN_TRANSITION: [Self; 7] = [
        Self::Hit,
        Self::Miss,
        Self::Learn,
        Self::SynInsert,
        Self::FloodHit,
        Self::FloodRefused,
        Self::FloodEvicting,
    ];

    /// Those that are measured beside `Settled`. What differs between forwarding modes comes after the
    /// flow table: one row shows it.
    pub(crate) fn in_transition(mode: &Mode) -> &'static [Self] {
        let is_hashed_tcp = mode.scheduler == Scheduler::Maglev && mode.transport != Transport::Udp;
        match mode.forward {
            _ if !is_hashed_tcp => &[],
            ForwardMode::Dsr => &Self::IN_TRANSITION,
            _ => &Self::IN_TRANSITION[..1],
        }
    }

    /// As part of a row's name.
    pub(crate) fn label(self) -> Option<&'static str> {
        match self {
            Self::Settled => None,
            Self::Hit => Some("moving: hit"),
            Self::Miss => Some("armed: miss"),
            Self::Learn => Some("moving: learn"),
            Self::SynInsert => Some("moving: SYN insert"),
            Self::FloodHit => Some("flood: hit"),
            Self::FloodRefused => Some("flood: SYN refused"),
            Self::FloodEvicting => Some("flood: SYN evicting"),
        }
    }

    /// The state of a slot whose backend is `current`.
    pub(crate) fn slot(self, current: u16) -> Slot {
        match self {
            Self::Settled => Slot::settled(current),
            Self::Miss => Slot::in_transition(current, current),
            _ => Slot::in_transition(current, current + BACKEND_COUNT),
        }
    }

    /// Whether each measured packet changes the flow table, so that there must be many flows, and the
    /// table be put back to what it was.
    pub(crate) fn takes_entries(self) -> bool {
        matches!(self, Self::Learn | Self::SynInsert | Self::FloodEvicting)
    }

    /// Whether it can be measured with so many flows.
    pub(crate) fn is_possible_with(self, flow_count: u32) -> bool {
        !self.takes_entries() || flow_count >= NEW_FLOWS_MIN
    }

    /// Whether flows are on record before the measurement.
    pub(crate) fn has_established_flows(self) -> bool {
        !matches!(self, Self::Miss | Self::Learn | Self::SynInsert)
    }

    pub(crate) fn is_under_flood(self) -> bool {
        matches!(
            self,
            Self::FloodHit | Self::FloodRefused | Self::FloodEvicting
        )
    }

    /// What the measured packets are, where a service's flows send `transport`.
    pub(crate) fn transport(self, transport: Transport) -> Transport {
        match self {
            Self::SynInsert | Self::FloodRefused | Self::FloodEvicting => {
                Transport::Tcp(Flags::Syn)
            }
            _ => transport,
        }
    }

    /// About `packets` packets in bursts. Where each takes an entry, a burst takes a quarter of a table
    /// of twice the flows, so that the packets find what their row says.
    pub(crate) fn bursts(self, packets: u32, flow_count: u32) -> Bursts {
        if !self.takes_entries() {
            return Bursts {
                count: 1,
                len: packets,
                order: Order::Random,
            };
        }
        let len = packets.min(flow_count / 2);
        Bursts {
            count: packets.div_ceil(len),
            len,
            order: Order::Sequential,
        }
    }

    /// Which part of the measured packets must go to the slots' previous backends: (at least, at most).
    /// A set here and there has met more than its share of flows.
    pub(crate) fn previous_share(self) -> (f64, f64) {
        match self {
            Self::Settled | Self::Miss => (0.0, 0.0),
            Self::Learn => (1.0, 1.0),
            Self::FloodRefused => (0.98, 1.0),
            Self::SynInsert | Self::FloodEvicting => (0.0, 0.02),
            // Flows that were learned during the warm-up are hits as well.
            Self::Hit | Self::FloodHit => (0.0, 1.0),
        }
    }
}

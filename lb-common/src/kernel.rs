//! What the datapath asks of its surroundings: clock, table look-ups, table writes, events.
//!
//! Three implementations: the XDP program's (map calls), the control plane's over the live maps,
//! and the fixtures' in plain memory.

use crate::abi::{
    Address, Backend, EndpointKey, FlowOrigin, FlowRecord, NatReply, Neighbour, NeighbourKey,
    NeighbourWanted, Route, Service, Slot, Vip,
};
use crate::datapath::consult::{self, Consultation};
use crate::datapath::flow::{self, FlowPlace};
use crate::drop_reason::DropReason;
use crate::limits::HASH_KEY_WORDS;

/// A set of the flow table, where it stands. Other CPUs may read and write it at the same time; each
/// word is read and written whole. Entries are numbered from 0 to
/// [`crate::abi::FLOW_SET_ENTRIES`] − 1.
pub trait FlowSetHandle {
    /// An entry's fingerprint; 0 = free.
    fn fingerprint(&self, entry: usize) -> u64;
    /// An entry's record.
    fn record(&self, entry: usize) -> FlowRecord;
    /// Takes an entry that still holds the fingerprint `old` for writing, by marking it as busy.
    /// `false` if another CPU was faster.
    fn claim(&self, entry: usize, old: u64) -> bool;
    /// Fills a claimed entry: first the record, then the fingerprint, so that whoever finds the
    /// fingerprint finds its record.
    fn fill(&self, entry: usize, fingerprint: u64, record: FlowRecord);
    /// Replaces an entry's record if it is still `old`.
    fn replace_record(&self, entry: usize, old: FlowRecord, new: FlowRecord);
}

/// What is remembered of a flow's handshake: a part of its [`FlowOrigin`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// The sequence number of the SYN, host byte order.
    pub sequence: u32,
    /// The backend of the flow that the SYN found in its place; 0 = none.
    pub displaced_id: u16,
    /// That backend's generation.
    pub displaced_generation: u16,
}

/// What a packet tells of its backend: a field of [`crate::abi::BackendSignals`].
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Nothing.
    None,
    /// A SYN was sent once more.
    RepeatedSyn,
    /// The client has sent RST.
    ClientReset,
    /// The backend has sent RST.
    BackendReset,
}

/// Above what else a function of the program returns.
const SIGNAL_SHIFT: u32 = 32;

impl Signal {
    /// Within the number that a function of the program returns.
    #[inline(always)]
    pub(crate) const fn pack(self) -> u64 {
        (self as u64) << SIGNAL_SHIFT
    }

    /// From such a number; of requests only.
    #[inline(always)]
    pub(crate) const fn unpack(packed: u64) -> Self {
        match packed >> SIGNAL_SHIFT {
            signal if signal == Self::ClientReset as u64 => Self::ClientReset,
            signal if signal == Self::RepeatedSyn as u64 => Self::RepeatedSyn,
            _ => Self::None,
        }
    }
}

/// The datapath's surroundings.
pub trait Kernel {
    /// A set of the flow table.
    type FlowSet: FlowSetHandle;

    /// Seconds on a clock that never goes back, coarse: for idle times.
    fn now_s(&self) -> u32;
    /// The cluster's secret for the flow hash.
    fn hash_key(&self) -> [u64; HASH_KEY_WORDS];

    /// The service of a VIP endpoint: a consistent copy, since the entry may be replaced while the
    /// packet is on its way.
    fn service(&self, key: &EndpointKey) -> Option<Service>;
    /// What is known of a VIP; `None` for any other address.
    fn vip(&self, address: &Address) -> Option<Vip>;
    /// Slot `slot` of the ring that starts at `block`; `None` outside the storage.
    fn ring_slot(&self, block: u32, slot: u32) -> Option<Slot>;
    /// A backend by its id; `None` outside the table, a zeroed entry if the id is free.
    fn backend(&self, id: u16) -> Option<&Backend>;
    /// The service's counter of scheduled flows, before it is incremented by this call.
    fn next_round(&self, service_id: u16) -> u64;

    /// Returns `value`. The verifier must not know where it came from: an index that is the outcome
    /// of comparisons would make it walk every combination of them.
    fn opaque(&self, value: u64) -> u64;

    /// Sets in the flow table, at least 1.
    fn flow_set_count(&self) -> u32;
    /// A set of the flow table; `None` outside of it.
    fn flow_set(&self, index: u32) -> Option<Self::FlowSet>;

    /// What is remembered of the handshake of the flow at a place.
    fn handshake(&self, place: FlowPlace) -> Option<Handshake>;
    /// Writes the origin of the flow at a place.
    fn put_flow_origin(&self, place: FlowPlace, origin: &FlowOrigin);
    /// Writes which backend's flow the one at a place has displaced.
    fn put_displaced(&self, place: FlowPlace, backend_id: u16, generation: u16);
    /// Whether there are peers, which tell of their flows.
    fn has_peers(&self) -> bool;
    /// Notes that a flow of this set was put on record, is another than before, or has spoken again after a silence: after
    /// what was written.
    /// For peers, where there are any.
    fn note_change(&self, set: u32);
    /// Notes that a flow of this service should have been recorded now, and was not: slots in
    /// transition settle later for it.
    fn suppress(&self, service_id: u16, now_s: u32);
    /// Whether [`Self::suppress`] was called for this service at `since_s` or later.
    fn is_suppressed(&self, service_id: u16, since_s: u32) -> bool;

    /// Whether a peer may be about to tell of a flow that is not on record, by its keyed hash; never where there
    /// are no peers: [`crate::datapath::pending`].
    fn may_be_told(&self, flow_hash: u64) -> bool;

    /// Chooses the backend of a packet by the flow table: [`consult::consult`]. The XDP program makes a
    /// function of its own of it: what a settled slot needs stays in registers, and the verifier walks it
    /// once.
    fn consult(&self, packet: Consultation) -> u64
    where
        Self: Sized,
    {
        consult::consult(self, &packet)
    }

    /// Whether a segment waits for what a peer may be about to tell: [`consult::waits`]. The XDP program makes a
    /// function of its own of it, for want of room on the stack.
    fn waits(&self, packet: &Consultation, ended: Option<(FlowPlace, FlowRecord)>) -> bool
    where
        Self: Sized,
    {
        consult::waits(self, packet, ended)
    }

    /// Enters a flow into the table: [`flow::record`]. `None` if it has no room for it. The XDP program
    /// makes a function of its own of it, which the verifier walks once and not once for each way that
    /// leads there.
    fn record_flow(&self, fingerprint: u64, record: FlowRecord, now_s: u32) -> Option<FlowPlace>
    where
        Self: Sized,
    {
        flow::record(self, fingerprint, record, now_s)
    }

    /// The service that a backend's endpoint answers for.
    fn nat_reply(&self, key: &EndpointKey) -> Option<&NatReply>;
    /// The route to an address.
    fn route(&self, destination: &Address) -> Option<&Route>;
    /// The link-layer address of an on-link host.
    fn neighbour(&self, key: &NeighbourKey) -> Option<&Neighbour>;
    /// Asks the control plane to resolve a host. May be dropped under load.
    fn want_neighbour(&self, event: &NeighbourWanted);

    /// Counts a packet of `bytes` steered to a backend; `is_new_flow` counts the flow too.
    fn count_forwarded(&self, backend_id: u16, bytes: u64, is_new_flow: bool);
    /// Counts a reply of `bytes` from a backend.
    fn count_reply(&self, backend_id: u16, bytes: u64);
    /// Counts what a packet tells of a backend.
    fn count_signal(&self, backend_id: u16, signal: Signal);
    /// Writes the mark of a SYN to its place (modulo [`crate::limits::RECENT_SYNS`]); returns whether it
    /// stood there.
    fn remember_syn(&self, place: u32, mark: u32) -> bool;
    /// Counts a packet that goes to the host.
    fn count_passed(&self);
    /// Counts a drop; service id 0 = no service.
    fn count_drop(&self, service_id: u16, reason: DropReason);
}

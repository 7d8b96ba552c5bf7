//! What replication needs of a flow table: the mapped one of the datapath, or one in a test's memory.

use std::sync::Arc;

use lb_common::abi::{FlowEntry, FlowSet};
use lb_common::datapath::flow::FlowPlace;

use super::dictionary::Dictionary;
use crate::sync::flow::SharedFlow;

/// A flow table whose flows are told to peers.
pub trait Table {
    /// Sets of the table; it never changes.
    fn set_count(&self) -> u32;

    /// Takes the marks of at most `count_max` sets that have changed, and appends the sets' numbers; what is over
    /// stays marked. A mark is cleared before this returns, and the caller reads the set after: so a change
    /// that comes in between marks it anew.
    fn take_changed(&mut self, sets: &mut Vec<u32>, count_max: usize);

    /// The entries of a set as they are. An entry that is free, or just being written (its mark is still to come),
    /// has fingerprint 0.
    fn read_set(&self, set: u32) -> FlowSet;

    /// What a peer must know of an entry that was read at a place: ids are local ones. `None` if it is not for
    /// sharing: it has expired, or has changed since it was read (its mark is still to come).
    fn share(&self, place: FlowPlace, entry: &FlowEntry, now_s: u32) -> Option<SharedFlow>;

    /// How many seconds longer than a peer knows an entry must live, for the peer to be told again: a quarter of
    /// the idle time-out of its service, at least 1.
    fn refresh_s(&self, entry: &FlowEntry) -> u32;

    /// What the local ids mean. Another `Arc` if and only if it has changed; it names every backend to which an
    /// entry may lead.
    fn dictionary(&self) -> Arc<Dictionary>;
}

/// A flow table that takes what peers tell.
pub trait Merge {
    /// Merges a peer's record of a flow; its ids are translated to local ones already, `displaced_id` is 0 if it
    /// means nothing here. It must not mark the set as changed: the caller knows.
    fn merge(&mut self, flow: &SharedFlow, now_s: u32) -> Merged;
}

/// What the thread of the links owns.
pub trait SharedTable: Table + Merge + Send {}

impl<T: Table + Merge + Send> SharedTable for T {}

impl<T: Table + ?Sized> Table for Box<T> {
    fn set_count(&self) -> u32 {
        (**self).set_count()
    }

    fn take_changed(&mut self, sets: &mut Vec<u32>, count_max: usize) {
        (**self).take_changed(sets, count_max);
    }

    fn read_set(&self, set: u32) -> FlowSet {
        (**self).read_set(set)
    }

    fn share(&self, place: FlowPlace, entry: &FlowEntry, now_s: u32) -> Option<SharedFlow> {
        (**self).share(place, entry, now_s)
    }

    fn refresh_s(&self, entry: &FlowEntry) -> u32 {
        (**self).refresh_s(entry)
    }

    fn dictionary(&self) -> Arc<Dictionary> {
        (**self).dictionary()
    }
}

impl<T: Merge + ?Sized> Merge for Box<T> {
    fn merge(&mut self, flow: &SharedFlow, now_s: u32) -> Merged {
        (**self).merge(flow, now_s)
    }
}

/// What became of a peer's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// The table has what the peer has, written just now or before.
    Agreed {
        /// Where.
        place: FlowPlace,
        /// The entry there.
        entry: FlowEntry,
    },
    /// The table has a later record of this flow, and keeps it.
    Later {
        /// Where.
        place: FlowPlace,
    },
    /// There is no room for it.
    NoRoom,
    /// It is not of a kind that this table keeps, or has expired.
    Refused,
}

/// The moment, on the packet path's clock (`CLOCK_MONOTONIC`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Now {
    /// Unit: microseconds.
    pub us: u64,
}

impl Now {
    /// The same in whole seconds, as [`lb_common::abi::FlowRecord`] counts them.
    pub const fn s(self) -> u32 {
        (self.us / 1_000_000) as u32
    }
}

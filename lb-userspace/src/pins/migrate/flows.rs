//! The flow table into one of another size, while packets use both.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use lb_common::abi::{
    FLOW_SET_ENTRIES, FlowEntry, FlowOriginSet, FlowRecord, FlowSet, FlowState, map_name,
};
use lb_common::datapath::flow;
use lb_common::limits::FIN_LINGER_S;

use super::judge::{Judge, Lifetimes, Precedence};
use crate::maps::{Flow, FlowWords, Mapping, ORIGIN_WORDS, Written, fault};
use crate::pins::clock::flow_now_s;
use crate::pins::{MapSet, PinError, failed};

/// What became of the flows of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Those that the new table did not have.
    pub(crate) count: usize,
    /// Live ones that it has no room for.
    pub(crate) left_out: usize,
}

/// Enters the flows of one set of maps into the table of another.
///
/// While packets use the old table, expired flows stay behind: their entries may be given to others there.
/// Closing ones that the new table has no room for are forgotten in the old one as well: a connection that
/// begins on their ports would follow a record that is missing after the switch.
pub(crate) fn carry(
    from: &MapSet,
    to: &MapSet,
    extent: Extent,
    precedence: Precedence,
) -> Result<Carried, PinError> {
    let (old, new) = (from.require(map_name::FLOWS)?, to.require(map_name::FLOWS)?);
    if old.id == new.id {
        return Ok(Carried::default());
    }
    let (old, new) = (FlowTable::map(from)?, FlowTable::map(to)?);
    let now_s = flow_now_s();
    let judge = Judge {
        precedence,
        lifetimes: Lifetimes::read(from)?,
        now_s,
    };
    let mut carried = Carried::default();
    let worths = match extent {
        Extent::Live => &Worth::ALL[..3],
        Extent::All => &Worth::ALL,
    };
    for worth in worths.iter().copied() {
        for (entry, flow) in old.flows() {
            if Worth::of(flow.record, now_s) != worth {
                continue;
            }
            match new.enter(&flow, &judge) {
                Entered::Yes => carried.count += 1,
                Entered::WasThere => {}
                Entered::NoRoom if worth == Worth::Closing => forget(&entry, &flow),
                Entered::NoRoom => carried.left_out += usize::from(worth <= Worth::HalfOpen),
            }
        }
    }
    fault::count_write();
    Ok(carried)
}

/// Which flows are carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All but those whose time is over.
    Live,
    /// All.
    All,
}

/// Makes half-closed flows of closing ones: a SYN on their ports then keeps their backend, as a flow on
/// record does, and is not scheduled anew. They go as soon as before.
pub(crate) fn keep_closing(maps: &MapSet) -> Result<(), PinError> {
    let (table, now_s) = (FlowTable::map(maps)?, flow_now_s());
    for (set, number) in table.places() {
        let words = table.entry(set, number);
        if let Some(entry) = words.entry()
            && Worth::of(entry.record, now_s) == Worth::Closing
        {
            // Somebody else who writes it at this moment knows better.
            let _other_writer =
                words.replace_record(entry.record, half_closed(entry.record, now_s));
        }
    }
    Ok(())
}

fn half_closed(record: FlowRecord, now_s: u32) -> FlowRecord {
    let state = record.state();
    let ends = if state.has(FlowState::FIN) {
        state.with(FlowState::HALF_CLOSED)
    } else {
        state
    };
    let expires_s = now_s.wrapping_add_signed(record.remaining_s(now_s));
    record.updated(expires_s, ends.without(FlowState::RST))
}

/// Whose place whom may be given, where there is not enough room: the first come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Worth {
    /// Its connection breaks without its record.
    Open,
    /// Its handshake does.
    HalfOpen,
    /// At its end.
    Closing,
    /// Silent for the idle time-out. If it is not over, its record is still followed.
    Expired,
}

impl Worth {
    const ALL: [Self; 4] = [Self::Open, Self::HalfOpen, Self::Closing, Self::Expired];

    fn of(record: FlowRecord, now_s: u32) -> Self {
        let (state, remaining_s) = (record.state(), record.remaining_s(now_s));
        // Those of `keep_closing` among them: thousands may have ended in the last minute, and must not
        // take the places of those that live.
        let is_ending = state.has(FlowState::FIN) && remaining_s <= FIN_LINGER_S as i32;
        if remaining_s < 0 {
            Self::Expired
        } else if state.is_closing() || is_ending {
            Self::Closing
        } else if state.is_half_open() {
            Self::HalfOpen
        } else {
            Self::Open
        }
    }
}

enum Entered {
    Yes,
    WasThere,
    NoRoom,
}

/// `FLOWS` and `FLOW_ORIGINS` as memory.
struct FlowTable {
    flows: Mapping,
    origins: Mapping,
    set_count: u32,
}

impl FlowTable {
    fn map(maps: &MapSet) -> Result<Self, PinError> {
        let set_count = maps.require(map_name::FLOWS)?.shape.entries_max;
        let map = |name, element_bytes: usize| {
            let map = maps.require(name)?;
            // Both maps have one element for each set; a smaller one would be read beyond its end.
            let is_whole = map.shape.entries_max >= set_count
                && map.shape.value_bytes as usize == element_bytes;
            let mapped = if is_whole {
                Mapping::new(map.as_fd(), set_count as usize * element_bytes)
            } else {
                Err(io::Error::other(format!("it is {}", map.shape)))
            };
            mapped.map_err(failed("map into memory", &maps.directory.join(name)))
        };
        Ok(Self {
            flows: map(map_name::FLOWS, size_of::<FlowSet>())?,
            origins: map(map_name::FLOW_ORIGINS, size_of::<FlowOriginSet>())?,
            set_count,
        })
    }

    fn entry(&self, set: u32, entry: usize) -> FlowWords<'_> {
        assert!(set < self.set_count && entry < FLOW_SET_ENTRIES);
        let index = set as usize * FLOW_SET_ENTRIES + entry;
        let flows = self.flows.address().cast::<[AtomicU64; 2]>();
        let origins = self.origins.address().cast::<[AtomicU32; ORIGIN_WORDS]>();
        const { assert!(size_of::<FlowEntry>() == size_of::<[AtomicU64; 2]>()) };
        // SAFETY: the index is below the number of entries of both mappings, and all access to them
        // from here is atomic.
        let ([fingerprint, record], origin) =
            unsafe { (flows.add(index).as_ref(), origins.add(index).as_ref()) };
        FlowWords {
            fingerprint,
            record,
            origin,
        }
    }

    /// Every set and entry.
    fn places(&self) -> impl Iterator<Item = (u32, usize)> + use<> {
        (0..self.set_count).flat_map(|set| (0..FLOW_SET_ENTRIES).map(move |entry| (set, entry)))
    }

    /// Every flow that is not being written at this moment, and where it is.
    fn flows(&self) -> impl Iterator<Item = (FlowWords<'_>, Flow)> {
        self.places().filter_map(|(set, entry)| {
            let words = self.entry(set, entry);
            Some((words, words.read()?))
        })
    }

    fn enter(&self, flow: &Flow, judge: &Judge) -> Entered {
        let (first, second) = flow::sets(flow.fingerprint, self.set_count);
        let places = || {
            [first, second]
                .into_iter()
                .flat_map(|set| (0..FLOW_SET_ENTRIES).map(move |entry| self.entry(set, entry)))
        };
        for entry in places() {
            if entry.fingerprint.load(Ordering::Acquire) == flow.fingerprint {
                follow(&entry, flow, judge);
                return Entered::WasThere;
            }
        }
        if places().any(|entry| entry.take(0, flow) == Written::Yes) {
            return Entered::Yes;
        }
        let worth = Worth::of(flow.record, judge.now_s);
        let is_spared = |entry: &FlowEntry| {
            let least = Worth::of(entry.record, judge.now_s);
            least > worth && least > Worth::HalfOpen
        };
        let has_taken = places().any(|words| {
            let spared = words.entry().filter(is_spared);
            spared.is_some_and(|old| words.take(old.fingerprint, flow) == Written::Yes)
        });
        if has_taken {
            Entered::Yes
        } else {
            Entered::NoRoom
        }
    }
}

/// Removes a flow, unless its record has changed: then it lives.
fn forget(words: &FlowWords<'_>, flow: &Flow) {
    let entry = FlowEntry {
        fingerprint: flow.fingerprint,
        record: flow.record,
    };
    let _lives_on = words.delete(&entry);
}

/// Takes the old table's record of the same flow if that counts. Its origin comes with it: a port that was
/// used again has another handshake, and its segments would not fit the former one.
fn follow(entry: &FlowWords<'_>, old: &Flow, judge: &Judge) {
    // Somebody who writes the entry just now has a packet of the flow.
    let present = entry.read();
    let Some(present) = present.filter(|present| present.fingerprint == old.fingerprint) else {
        return;
    };
    if present != *old && judge.prefers(old, &present) {
        let _other_writer = entry.replace(&present, old);
    }
}

/// The highest generation on record of each backend id.
pub(crate) fn generations(maps: &MapSet) -> Result<BTreeMap<u16, u16>, PinError> {
    let mut highest = BTreeMap::new();
    for (_, flow) in FlowTable::map(maps)?.flows() {
        let generation = highest.entry(flow.record.backend_id()).or_default();
        *generation = flow.record.backend_generation().max(*generation);
    }
    Ok(highest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closing_flows_become_half_closed_and_expire_as_before() {
        let (now_s, expires_s) = (1_000, 1_042);
        for state in [
            FlowState::FIN,
            FlowState::RST,
            FlowState::FIN.with(FlowState::RST),
        ] {
            let kept = half_closed(FlowRecord::new(7, 9, expires_s, state), now_s);
            assert!(!kept.state().is_closing(), "{state:?}");
            assert_eq!((kept.backend_id(), kept.backend_generation()), (7, 9));
            assert_eq!(kept.remaining_s(now_s), 42);
        }
    }

    #[test]
    fn open_flows_come_first_and_expired_ones_last() {
        let now_s = 1_000;
        let worth = |expires_s, state| Worth::of(FlowRecord::new(1, 1, expires_s, state), now_s);
        let worths = [
            worth(1_060, FlowState::OPEN),
            worth(1_060, FlowState::HALF_OPEN),
            worth(1_060, FlowState::FIN),
            worth(999, FlowState::OPEN),
        ];
        assert_eq!(worths, Worth::ALL);
        assert!(worths.is_sorted());
        let half_closed = FlowState::FIN.with(FlowState::HALF_CLOSED);
        assert_eq!(worth(1_061, half_closed), Worth::Open, "a download goes on");
        assert_eq!(
            worth(1_060, half_closed),
            Worth::Closing,
            "it may have ended"
        );
    }
}

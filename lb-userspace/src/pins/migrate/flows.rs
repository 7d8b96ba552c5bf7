//! The flow table into one of another size, while packets use both.

use std::collections::BTreeMap;
use std::io;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};

use lb_common::abi::{
    Backend, FINGERPRINT_BUSY, FINGERPRINT_MIN, FLOW_SET_ENTRIES, FlowEntry, FlowOrigin,
    FlowOriginSet, FlowRecord, FlowSet, FlowState, map_name,
};
use lb_common::datapath::flow;
use lb_common::limits::{FIN_LINGER_S, IDLE_TIMEOUT_TCP_S};
use lb_common::wire::tcp::PROTOCOL_TCP;

use super::{read_backends, read_services};
use crate::maps::flow_rule::{Clocks, Lifetime, Sighting, compare};
use crate::maps::{Mapping, fault};
use crate::pins::clock::flow_now_s;
use crate::pins::{MapSet, PinError, failed};

/// Words of a [`FlowOrigin`].
const ORIGIN_WORDS: usize = size_of::<FlowOrigin>() / size_of::<u32>();

/// What became of the flows of a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    /// Those that the new table did not have.
    pub(crate) count: usize,
    /// Live ones that it has no room for.
    pub(crate) left_out: usize,
}

/// Whose record of a flow stays, where both tables have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Precedence {
    /// The old table's: packets use that one alone.
    Old,
    /// That of the later packet: they use the new one, and have used the old one a moment ago.
    Later,
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
    let judge = Judge {
        precedence,
        lifetimes: Lifetimes::read(from)?,
        now_s: flow_now_s(),
    };
    let now_s = judge.now_s;
    let mut carried = Carried::default();
    let worths = match extent {
        Extent::Live => &Worth::ALL[..3],
        Extent::All => &Worth::ALL,
    };
    for worth in worths.iter().copied() {
        for (fingerprint, record, origin) in old.flows() {
            if Worth::of(record, now_s) != worth {
                continue;
            }
            match new.enter(fingerprint, record, &origin, &judge) {
                Entered::Yes => carried.count += 1,
                Entered::WasThere => {}
                Entered::NoRoom if worth == Worth::Closing => old.forget(fingerprint, record),
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
        let entry = table.entry(set, number);
        if let Some((_, record, _)) = entry.read()
            && Worth::of(record, now_s) == Worth::Closing
        {
            entry.replace(record, half_closed(record, now_s));
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

/// Decides between two records of a flow.
struct Judge {
    precedence: Precedence,
    lifetimes: Lifetimes,
    now_s: u32,
}

impl Judge {
    /// Whether the old table's record takes the place of the present one.
    fn prefers(
        &self,
        (old, old_origin): (FlowRecord, &FlowOrigin),
        (present, present_origin): (FlowRecord, &FlowOrigin),
    ) -> bool {
        let old = self.sighting(old, old_origin);
        let present = self.sighting(present, present_origin);
        match self.precedence {
            Precedence::Old => true,
            Precedence::Later => compare(&old, &present, Clocks::Same).is_gt(),
        }
    }

    fn sighting(&self, record: FlowRecord, origin: &FlowOrigin) -> Sighting {
        let backend = |id: u16, generation: u16| u64::from(id) << 16 | u64::from(generation);
        Sighting {
            age_s: self.lifetimes.of(record).age_s(record, self.now_s),
            state: record.state(),
            sequence: origin.sequence,
            backend: backend(record.backend_id(), record.backend_generation()),
            displaced: backend(origin.displaced_id, origin.displaced_generation),
        }
    }
}

/// How long flows are kept, by their backend's id.
struct Lifetimes(BTreeMap<u16, Lifetime>);

impl Lifetimes {
    /// Of a flow whose backend or service has gone.
    const UNKNOWN: Lifetime = Lifetime {
        protocol: PROTOCOL_TCP,
        idle_timeout_s: IDLE_TIMEOUT_TCP_S,
    };

    fn read(maps: &MapSet) -> Result<Self, PinError> {
        let services: BTreeMap<u16, Lifetime> = read_services(maps)?
            .into_iter()
            .map(|(key, service)| {
                let lifetime = Lifetime {
                    protocol: key.protocol,
                    idle_timeout_s: service.idle_timeout_s,
                };
                (service.id, lifetime)
            })
            .collect();
        let backends = read_backends(maps)?.into_iter();
        let of = |(id, backend): (u16, Backend)| Some((id, *services.get(&backend.service_id)?));
        Ok(Self(backends.filter_map(of).collect()))
    }

    fn of(&self, record: FlowRecord) -> Lifetime {
        let known = self.0.get(&record.backend_id());
        known.copied().unwrap_or(Self::UNKNOWN)
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

/// An entry, word by word: the packet path writes it too.
struct Entry<'t> {
    fingerprint: &'t AtomicU64,
    record: &'t AtomicU64,
    origin: &'t [AtomicU32; ORIGIN_WORDS],
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

    fn entry(&self, set: u32, entry: usize) -> Entry<'_> {
        assert!(set < self.set_count && entry < FLOW_SET_ENTRIES);
        let index = set as usize * FLOW_SET_ENTRIES + entry;
        let flows = self.flows.address().cast::<[AtomicU64; 2]>();
        let origins = self.origins.address().cast::<[AtomicU32; ORIGIN_WORDS]>();
        const { assert!(size_of::<FlowEntry>() == size_of::<[AtomicU64; 2]>()) };
        // SAFETY: the index is below the number of entries of both mappings, and all access to them
        // from here is atomic.
        let ([fingerprint, record], origin) =
            unsafe { (flows.add(index).as_ref(), origins.add(index).as_ref()) };
        Entry {
            fingerprint,
            record,
            origin,
        }
    }

    /// Every set and entry.
    fn places(&self) -> impl Iterator<Item = (u32, usize)> + use<> {
        (0..self.set_count).flat_map(|set| (0..FLOW_SET_ENTRIES).map(move |entry| (set, entry)))
    }

    /// Every flow that is not being written at this moment.
    fn flows(&self) -> impl Iterator<Item = (u64, FlowRecord, FlowOrigin)> {
        self.places()
            .filter_map(|(set, entry)| self.entry(set, entry).read())
    }

    /// Removes a flow, unless its record has changed.
    fn forget(&self, fingerprint: u64, record: FlowRecord) {
        let (first, second) = flow::sets(fingerprint, self.set_count);
        for set in [first, second] {
            for number in 0..FLOW_SET_ENTRIES {
                self.entry(set, number).forget(fingerprint, record);
            }
        }
    }

    fn enter(
        &self,
        fingerprint: u64,
        record: FlowRecord,
        origin: &FlowOrigin,
        judge: &Judge,
    ) -> Entered {
        let (first, second) = flow::sets(fingerprint, self.set_count);
        let places = || {
            [first, second]
                .into_iter()
                .flat_map(|set| (0..FLOW_SET_ENTRIES).map(move |entry| self.entry(set, entry)))
        };
        for entry in places() {
            if entry.fingerprint.load(Ordering::Acquire) == fingerprint {
                entry.follow(fingerprint, record, origin, judge);
                return Entered::WasThere;
            }
        }
        let free = places().try_for_each(|entry| entry.take(0, fingerprint, record, origin));
        if free.is_break() {
            return Entered::Yes;
        }
        let worth = Worth::of(record, judge.now_s);
        let spared = places().try_for_each(|entry| match entry.worth(judge.now_s) {
            Some((old, least)) if least > worth && least > Worth::HalfOpen => {
                entry.take(old, fingerprint, record, origin)
            }
            _ => ControlFlow::Continue(()),
        });
        if spared.is_break() {
            Entered::Yes
        } else {
            Entered::NoRoom
        }
    }
}

impl Entry<'_> {
    fn read(&self) -> Option<(u64, FlowRecord, FlowOrigin)> {
        let fingerprint = self.fingerprint.load(Ordering::Acquire);
        if fingerprint < FINGERPRINT_MIN {
            return None;
        }
        let record = FlowRecord(self.record.load(Ordering::Relaxed));
        let origin = self
            .origin
            .each_ref()
            .map(|word| word.load(Ordering::Relaxed));
        fence(Ordering::Acquire);
        let is_steady = self.fingerprint.load(Ordering::Relaxed) == fingerprint;
        is_steady.then(|| (fingerprint, record, bytemuck::cast(origin)))
    }

    /// The flow's fingerprint, and what its record is worth.
    fn worth(&self, now_s: u32) -> Option<(u64, Worth)> {
        let (fingerprint, record, _) = self.read()?;
        Some((fingerprint, Worth::of(record, now_s)))
    }

    /// Takes the old table's record of the same flow if that counts. Its origin comes with it: a port that
    /// was used again has another handshake, and its segments would not fit the former one.
    fn follow(&self, fingerprint: u64, old: FlowRecord, origin: &FlowOrigin, judge: &Judge) {
        // Somebody who writes the entry just now has a packet of the flow.
        let Some((found, present, present_origin)) = self.read() else {
            return;
        };
        let is_known = present == old && present_origin == *origin;
        if found == fingerprint
            && !is_known
            && judge.prefers((old, origin), (present, &present_origin))
        {
            let _other_writer = self.take(fingerprint, fingerprint, old, origin);
        }
    }

    /// Frees the entry, if it is this flow's and still has this record.
    fn forget(&self, fingerprint: u64, record: FlowRecord) {
        if self.fingerprint.load(Ordering::Relaxed) != fingerprint {
            return;
        }
        let claimed = self.fingerprint.compare_exchange(
            fingerprint,
            FINGERPRINT_BUSY,
            Ordering::SeqCst,
            Ordering::Relaxed,
        );
        if claimed.is_ok() {
            let is_same = self.record.load(Ordering::SeqCst) == record.0;
            let next = if is_same { 0 } else { fingerprint };
            self.fingerprint.store(next, Ordering::Release);
        }
    }

    /// Unless somebody else writes it at this moment, who knows better.
    fn replace(&self, old: FlowRecord, new: FlowRecord) {
        let _other_writer =
            self.record
                .compare_exchange(old.0, new.0, Ordering::SeqCst, Ordering::Relaxed);
    }

    /// Takes the place of `old`, as the packet path does: claimed first, the fingerprint last.
    fn take(
        &self,
        old: u64,
        fingerprint: u64,
        record: FlowRecord,
        origin: &FlowOrigin,
    ) -> ControlFlow<()> {
        let claimed = self.fingerprint.compare_exchange(
            old,
            FINGERPRINT_BUSY,
            Ordering::SeqCst,
            Ordering::Relaxed,
        );
        if claimed.is_err() {
            return ControlFlow::Continue(());
        }
        let words: [u32; ORIGIN_WORDS] = bytemuck::cast(*origin);
        for (target, word) in self.origin.iter().zip(words) {
            target.store(word, Ordering::Relaxed);
        }
        self.record.store(record.0, Ordering::Relaxed);
        self.fingerprint.store(fingerprint, Ordering::Release);
        ControlFlow::Break(())
    }
}

/// The highest generation on record of each backend id.
pub(crate) fn generations(maps: &MapSet) -> Result<BTreeMap<u16, u16>, PinError> {
    let mut highest = BTreeMap::new();
    for (_, record, _) in FlowTable::map(maps)?.flows() {
        let generation = highest.entry(record.backend_id()).or_default();
        *generation = record.backend_generation().max(*generation);
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

    fn judge(precedence: Precedence) -> Judge {
        let lifetime = Lifetime {
            protocol: PROTOCOL_TCP,
            idle_timeout_s: 300,
        };
        Judge {
            precedence,
            lifetimes: Lifetimes(BTreeMap::from([(1, lifetime), (2, lifetime)])),
            now_s: 1_000,
        }
    }

    fn origin(sequence: u32) -> FlowOrigin {
        FlowOrigin {
            sequence,
            ..bytemuck::Zeroable::zeroed()
        }
    }

    #[test]
    fn a_port_used_again_during_the_exchange_takes_its_new_backend_along() {
        // The former flow's last packet came 5 s ago, the SYN of its successor 1 s ago.
        let former = (FlowRecord::new(1, 1, 1_295, FlowState::OPEN), &origin(7));
        let successor = (
            FlowRecord::new(2, 1, 1_062, FlowState::HALF_OPEN),
            &origin(9),
        );
        assert!(judge(Precedence::Old).prefers(successor, former));
        assert!(judge(Precedence::Later).prefers(successor, former));
        assert!(!judge(Precedence::Later).prefers(former, successor));
    }

    #[test]
    fn until_the_switch_no_record_but_the_old_tables_counts() {
        let (now, before) = (
            (FlowRecord::new(1, 1, 1_060, FlowState::FIN), &origin(7)),
            (FlowRecord::new(1, 1, 1_300, FlowState::OPEN), &origin(7)),
        );
        assert!(judge(Precedence::Old).prefers(before, now));
        assert!(!judge(Precedence::Later).prefers(before, now));
    }

    #[test]
    fn a_flow_of_a_backend_that_has_gone_is_compared_by_the_default_time_out() {
        let gone = (FlowRecord::new(9, 1, 1_890, FlowState::OPEN), &origin(7));
        let known = (FlowRecord::new(1, 1, 1_299, FlowState::OPEN), &origin(9));
        assert!(judge(Precedence::Later).prefers(known, gone));
        assert!(!judge(Precedence::Later).prefers(gone, known));
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

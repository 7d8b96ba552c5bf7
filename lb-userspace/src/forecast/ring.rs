//! Rings as they are and as they would be, slot by slot.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use lb_common::abi::{Address, Slot};
use lb_common::hash;
use lb_common::maglev::Member;

use super::pace::Loser;
use crate::desired::ring::RingSpec;
use crate::model::eligible::members;
use crate::model::{Backend, Service};
use crate::transition::sweep::FlowCounts;

/// What makes a backend the same backend in its service.
pub type Endpoint = (IpAddr, u16);

/// What is known of a service as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    /// By slot, the id of the backend that new flows go to; 0 = none.
    pub ring: Vec<u16>,
    /// Ids of the backends, of those that are leaving too.
    pub ids: BTreeMap<Endpoint, u16>,
    /// Live flows on record by slot; may be shorter than the ring.
    pub flows_by_slot: Vec<u32>,
    /// Live flows on record by backend id.
    pub flows: BTreeMap<u16, FlowCounts>,
}

impl Present {
    /// Of a service that is in force and settled, and has no flow on record.
    pub fn settled(service: &Service) -> Self {
        let ids = ids(service, &BTreeMap::new());
        Self {
            ring: wanted(service, &ids).unwrap_or_default(),
            ids,
            ..Self::default()
        }
    }
}

/// A backend's slots, before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotMove {
    /// Its name.
    pub backend: String,
    /// Slots that it has.
    pub before_count: u32,
    /// Slots that it would have.
    pub after_count: u32,
}

fn endpoint(backend: &Backend) -> Endpoint {
    (backend.address, backend.port)
}

/// The ids that are known, and others for the service's backends that have none.
pub(super) fn ids(service: &Service, known: &BTreeMap<Endpoint, u16>) -> BTreeMap<Endpoint, u16> {
    let taken: BTreeSet<u16> = known.values().copied().collect();
    let mut free = (1..=u16::MAX).filter(|id| !taken.contains(id));
    let mut ids = known.clone();
    for backend in service.backends.values() {
        if !ids.contains_key(&endpoint(backend))
            && let Some(id) = free.next()
        {
            ids.insert(endpoint(backend), id);
        }
    }
    ids
}

/// The ring that a service should have: backend ids by slot; `None` = nobody is eligible.
pub(super) fn wanted(service: &Service, known: &BTreeMap<Endpoint, u16>) -> Option<Vec<u16>> {
    let ids = ids(service, known);
    let mut members: Vec<Member> = members(service, |_| None)?
        .iter()
        .filter_map(|one| {
            Some(Member {
                id: *ids.get(&endpoint(one.backend))?,
                identity: hash::identity(&Address::from(one.backend.address), one.backend.port),
                weight: one.weight,
            })
        })
        .collect();
    members.sort_unstable_by_key(|member| member.identity);
    let spec = RingSpec {
        scheduler: service.scheduler,
        maglev_slots: service.ring_slots,
        members,
    };
    let slots = spec.build();
    Some(slots.into_iter().map(|slot| Slot(slot).current()).collect())
}

/// The slots whose backend is another one afterwards. Of rings of different lengths, all: a flow's slot
/// is found by its hash and the length.
pub(super) fn moved(before: &[u16], after: &[u16]) -> Vec<usize> {
    if before.len() != after.len() {
        return (0..before.len()).collect();
    }
    let pairs = before.iter().zip(after).enumerate();
    pairs
        .filter(|(_, (before, after))| before != after)
        .map(|(slot, _)| slot)
        .collect()
}

/// The backends that lose slots. A ring that is not followed by its slots loses those of which it has fewer.
pub(super) fn losers(
    before: &[u16],
    after: &[u16],
    names: &BTreeMap<u16, String>,
    ids: &BTreeMap<Endpoint, u16>,
) -> BTreeSet<Loser> {
    let lost: BTreeSet<u16> = moved(before, after)
        .into_iter()
        .map(|slot| before[slot])
        .collect();
    let loser = |id: u16| {
        let mut known = ids.iter();
        let endpoint = known.find(|(_, known)| **known == id);
        let endpoint = endpoint.map(|(endpoint, _)| *endpoint);
        let name = names.get(&id).cloned().unwrap_or_default();
        (name, endpoint)
    };
    lost.into_iter().map(loser).collect()
}

/// Names by id: as afterwards, where both have one.
pub(super) fn names(
    before: Option<&Service>,
    after: Option<&Service>,
    ids: &BTreeMap<Endpoint, u16>,
) -> BTreeMap<u16, String> {
    let services = before.into_iter().chain(after);
    let backends = services.flat_map(|service| service.backends.values());
    let mut names: BTreeMap<u16, String> = ids
        .iter()
        .map(|((address, _), id)| (*id, address.to_string()))
        .collect();
    for backend in backends {
        if let Some(id) = ids.get(&endpoint(backend)) {
            names.insert(*id, backend.name.clone());
        }
    }
    names
}

/// Slots by backend, before and after, in the order of the names; backends without any left out.
pub(super) fn moves(before: &[u16], after: &[u16], names: &BTreeMap<u16, String>) -> Vec<SlotMove> {
    let mut counts: BTreeMap<u16, (u32, u32)> = BTreeMap::new();
    for id in before {
        counts.entry(*id).or_default().0 += 1;
    }
    for id in after {
        counts.entry(*id).or_default().1 += 1;
    }
    let name = |id: u16| {
        names
            .get(&id)
            .cloned()
            .unwrap_or_else(|| format!("id {id}"))
    };
    let mut moves: Vec<SlotMove> = counts
        .into_iter()
        .filter(|(id, _)| *id != 0)
        .map(|(id, (before_count, after_count))| SlotMove {
            backend: name(id),
            before_count,
            after_count,
        })
        .collect();
    moves.sort_by(|one, other| one.backend.cmp(&other.backend));
    moves
}

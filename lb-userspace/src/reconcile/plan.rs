//! What to write, in which order. Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use lb_common::abi::{EndpointKey, Service, map_name};

use super::blocks::{Blocks, blocks_of};
use super::{Actual, Capacities, InstalledRing, MapFull};
use crate::desired::ring::{blocks_for, shares};
use crate::desired::{Desired, DesiredService};
use crate::maps::{Entry, Key, Write};

/// An ordered list of writes.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The writes.
    pub writes: Vec<Write>,
    /// The rings that are in force once the service entries of the plan are written.
    pub rings: BTreeMap<EndpointKey, InstalledRing>,
}

/// Plans the way from `actual` to `desired`.
///
/// Puts go backends → NAT replies → ring → service → VIPs, deletes in reverse, so nothing ever
/// refers to an entry that is not there. Between the last ring that went out of use and the first
/// backend that is deleted, the plan waits for packets under way, which may have read the old
/// ring. Routes and neighbours stand alone; what the node no longer has goes first.
///
/// # Errors
/// [`MapFull`] if a map cannot hold it, with old and new side by side; or if it takes more ring
/// storage than before and leaves no room for the successor of its largest ring: nothing could be
/// changed any more.
pub fn plan(desired: &Desired, actual: &Actual, capacities: &Capacities) -> Result<Plan, MapFull> {
    check_capacities(desired, actual, capacities)?;
    let mut planner = Planner::new(desired, actual, capacities);
    planner.network();
    planner.put_backends();
    planner.put_services()?;
    planner.put_vips();
    planner.delete_services();
    planner.wait_for_readers();
    planner.delete_backends();
    planner.check_reserve()?;
    Ok(planner.plan)
}

fn check_capacities(
    desired: &Desired,
    actual: &Actual,
    capacities: &Capacities,
) -> Result<(), MapFull> {
    let (wanted, maps) = (desired, &actual.maps);
    let (services, backends) = (capacities.services, capacities.backends);
    check_one(
        map_name::SERVICES,
        &maps.services,
        &wanted.services,
        services,
        "limits.services",
    )?;
    check_one(
        map_name::VIPS,
        &maps.vips,
        &wanted.vips,
        services,
        "limits.services",
    )?;
    check_one(
        map_name::BACKENDS,
        &maps.backends,
        &wanted.backends,
        backends,
        "limits.backends",
    )?;
    let setting = "limits.backends";
    check_one(
        map_name::NAT_REPLIES,
        &maps.nat_replies,
        &wanted.nat_replies,
        backends,
        setting,
    )
}

/// Old and new entries stand side by side until the old ones are deleted.
fn check_one<K: Ord, A, D>(
    map: &'static str,
    actual: &BTreeMap<K, A>,
    desired: &BTreeMap<K, D>,
    max: u32,
    setting: &'static str,
) -> Result<(), MapFull> {
    let used = actual.len() as u32;
    let needed = desired
        .keys()
        .filter(|key| !actual.contains_key(key))
        .count() as u32;
    if used + needed <= max {
        return Ok(());
    }
    Err(MapFull {
        map,
        used,
        max,
        needed,
        setting,
    })
}

/// Entries to write: new ones and changed ones.
fn changed<'a, K: Ord + Copy, V: PartialEq + Copy>(
    desired: &'a BTreeMap<K, V>,
    actual: &'a BTreeMap<K, V>,
) -> impl Iterator<Item = (K, V)> {
    desired
        .iter()
        .filter(|(key, value)| actual.get(key) != Some(value))
        .map(|(key, value)| (*key, *value))
}

/// Keys to delete.
fn surplus<'a, K: Ord + Copy, A, D>(
    desired: &'a BTreeMap<K, D>,
    actual: &'a BTreeMap<K, A>,
) -> impl Iterator<Item = K> {
    actual
        .keys()
        .filter(|key| !desired.contains_key(key))
        .copied()
}

/// Blocks of the largest ring, if it takes several. The length of a round-robin ring is not known
/// before it is built: the former one's has to do.
fn spared(desired: &Desired, actual: &Actual) -> u32 {
    let wanted = desired.services.iter().map(|(key, service)| {
        let former = || {
            let old = actual.maps.services.get(key);
            old.map_or(0, |old| old.ring_len)
        };
        blocks_for(service.ring.slot_count().unwrap_or_else(former))
    });
    wanted.max().filter(|largest| *largest > 1).unwrap_or(0)
}

struct Planner<'a> {
    desired: &'a Desired,
    actual: &'a Actual,
    capacities: &'a Capacities,
    blocks: Blocks,
    /// Adjacent blocks that single ones are kept out of, if possible.
    spared: u32,
    /// Where all rings are in the end.
    rings: Vec<Range<u32>>,
    has_readers: bool,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(desired: &'a Desired, actual: &'a Actual, capacities: &'a Capacities) -> Self {
        let used = actual.maps.services.values().map(blocks_of);
        Self {
            desired,
            actual,
            capacities,
            blocks: Blocks::new(capacities.ring_blocks, used),
            spared: spared(desired, actual),
            rings: Vec::with_capacity(desired.services.len()),
            has_readers: false,
            plan: Plan::default(),
        }
    }

    fn put(&mut self, entry: Entry) {
        self.plan.writes.push(Write::Put(entry));
    }

    fn delete(&mut self, key: Key) {
        self.plan.writes.push(Write::Delete(key));
    }

    fn network(&mut self) {
        let (desired, actual) = (self.desired, &self.actual.maps);
        for key in surplus(&desired.routes, &actual.routes) {
            self.delete(Key::Route(key));
        }
        for key in surplus(&desired.neighbours, &actual.neighbours) {
            self.delete(Key::Neighbour(key));
        }
        for (key, neighbour) in changed(&desired.neighbours, &actual.neighbours) {
            self.put(Entry::Neighbour(key, neighbour));
        }
        for (key, route) in changed(&desired.routes, &actual.routes) {
            self.put(Entry::Route(key, route));
        }
    }

    fn put_backends(&mut self) {
        let (desired, actual) = (self.desired, &self.actual.maps);
        for (id, backend) in changed(&desired.backends, &actual.backends) {
            let is_same = actual.backends.get(&id).is_some_and(|old| {
                (old.generation, old.service_id) == (backend.generation, backend.service_id)
            });
            if !is_same {
                self.plan.writes.push(Write::ZeroBackendStats(id));
            }
            self.put(Entry::Backend(id, backend));
        }
        for (key, reply) in changed(&desired.nat_replies, &actual.nat_replies) {
            self.put(Entry::NatReply(key, reply));
        }
    }

    fn put_services(&mut self) -> Result<(), MapFull> {
        for (key, service) in &self.desired.services {
            self.put_service(key, service)?;
        }
        Ok(())
    }

    fn put_service(&mut self, key: &EndpointKey, wanted: &DesiredService) -> Result<(), MapFull> {
        let old = self.actual.maps.services.get(key).copied();
        let ring = self.actual.rings.get(key);
        let (ring_block, ring_len) = match (old, ring) {
            (Some(old), Some(ring)) if ring.content == wanted.ring => {
                (old.ring_block, old.ring_len)
            }
            _ => self.write_ring(key, wanted)?,
        };
        let service = wanted.entry(ring_block, ring_len);
        self.rings.push(blocks_of(&service));
        if old == Some(service) {
            return Ok(());
        }
        let is_new = self
            .actual
            .maps
            .services
            .values()
            .all(|old| (old.id, old.generation) != (service.id, service.generation));
        if is_new {
            self.plan
                .writes
                .push(Write::ZeroServiceCounters(service.id));
        }
        self.put(Entry::Service(*key, service));
        if let Some(old) = old {
            self.retire_ring(&old, &service);
        }
        Ok(())
    }

    /// Writes a ring into free blocks; returns where it is and how many slots it has.
    fn write_ring(
        &mut self,
        key: &EndpointKey,
        wanted: &DesiredService,
    ) -> Result<(u32, u32), MapFull> {
        let slots = wanted.ring.build();
        let ring = InstalledRing {
            content: wanted.ring.clone(),
            shares: shares(&slots),
        };
        self.plan.rings.insert(*key, ring);
        let slot_count = slots.len() as u32;
        if slot_count == 0 {
            return Ok((0, 0));
        }
        let block = self.take_blocks(blocks_for(slot_count))?;
        self.plan.writes.push(Write::Ring { block, slots });
        Ok((block, slot_count))
    }

    fn take_blocks(&mut self, count: u32) -> Result<u32, MapFull> {
        if let Some(block) = self.blocks.take_sparing(count, self.spared) {
            return Ok(block);
        }
        self.wait_for_readers();
        let sparing = self.blocks.take_sparing(count, self.spared);
        sparing
            .or_else(|| self.blocks.take(count))
            .ok_or_else(|| self.rings_full(count))
    }

    fn rings_full(&self, needed: u32) -> MapFull {
        let used = self.actual.maps.services.values().map(blocks_of);
        MapFull {
            map: map_name::RINGS,
            used: used.map(|ring| ring.len() as u32).sum(),
            max: self.capacities.ring_blocks,
            needed,
            setting: "limits.ring_blocks",
        }
    }

    /// Whether the largest ring can still be replaced in the end. Not asked of what takes no more
    /// than before: that may be the way out.
    fn check_reserve(&self) -> Result<(), MapFull> {
        let used_before = self.actual.maps.services.values().map(blocks_of);
        let before = Blocks::new(self.capacities.ring_blocks, used_before).used_count();
        let after = Blocks::new(self.capacities.ring_blocks, self.rings.iter().cloned());
        let largest = self.rings.iter().map(|ring| ring.len() as u32).max();
        let reserve = largest.unwrap_or(0);
        let growth = after.used_count().saturating_sub(before);
        if growth == 0 || after.largest_gap() >= reserve {
            return Ok(());
        }
        Err(self.rings_full(growth + reserve))
    }

    /// Takes the old ring out of use if the service's new entry refers to another, or to none.
    fn retire_ring(&mut self, old: &Service, new: &Service) {
        if blocks_of(old).is_empty() || blocks_of(old) == blocks_of(new) {
            return;
        }
        self.blocks.give_back(blocks_of(old));
        self.has_readers = true;
    }

    fn put_vips(&mut self) {
        for (address, vip) in changed(&self.desired.vips, &self.actual.maps.vips) {
            self.put(Entry::Vip(address, vip));
        }
    }

    fn delete_services(&mut self) {
        for vip in surplus(&self.desired.vips, &self.actual.maps.vips) {
            self.delete(Key::Vip(vip));
        }
        for key in surplus(&self.desired.services, &self.actual.maps.services) {
            self.delete(Key::Service(key));
            self.has_readers = true;
        }
    }

    fn wait_for_readers(&mut self) {
        if self.has_readers {
            self.plan.writes.push(Write::WaitForReaders);
        }
        self.has_readers = false;
        self.blocks.drained();
    }

    fn delete_backends(&mut self) {
        let (desired, actual) = (self.desired, &self.actual.maps);
        for key in surplus(&desired.nat_replies, &actual.nat_replies) {
            self.delete(Key::NatReply(key));
        }
        for id in surplus(&desired.backends, &actual.backends) {
            self.delete(Key::Backend(id));
        }
    }
}

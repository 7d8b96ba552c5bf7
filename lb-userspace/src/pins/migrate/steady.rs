//! A time in which a flow that is not on record goes where it would go if it were.
//!
//! While a new flow table takes the place of the old one, a flow that has just begun may be on record in
//! the old one only. So for that time every flow begins where a packet without a record goes: a
//! round-robin service goes by its flows' hashes, and the new flows of a moving slot go to `previous`. And
//! a flow that begins on the ports of one that is on record follows that record, although it was closing:
//! it may have been carried over already. Flows that come to their end meanwhile are made to do so once more, right before
//! the last copy. Where both tables have a record of a flow, the old table's counts as long as packets use that
//! one alone, and then the later packet's ([`crate::maps::flow_rule`]). Flows on record are followed as ever.
//! A daemon that is killed meanwhile leaves services that work, and its successor writes them anew.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};

use lb_common::abi::{EndpointKey, Scheduler, Service, Slot, map_name};
use lb_common::limits::RING_BLOCK_SLOTS;

use super::{flows, read_services};
use crate::maps::{Mapping, ServiceLines, fault};
use crate::pins::{MapSet, PinError, failed};

/// What was changed, to be put back.
#[derive(Debug, Default)]
pub(crate) struct Steadied {
    round_robin: Vec<EndpointKey>,
    /// Slots by service: their numbers in the ring, and what they were.
    moving: Vec<(EndpointKey, Vec<(u32, Slot)>)>,
}

impl Steadied {
    /// Begins the time. It has begun for packets under way, too, once readers were waited for.
    pub(crate) fn begin(maps: &MapSet) -> Result<Self, PinError> {
        let mut steadied = Self::default();
        let rings = Rings::map(maps)?;
        for (key, service) in read_services(maps)? {
            if Scheduler::from_byte(service.scheduler) == Scheduler::RoundRobin {
                steadied.round_robin.push(key);
            }
            let moving = rings.moving(&service);
            if !moving.is_empty() {
                steadied.moving.push((key, moving));
            }
        }
        schedule_by(maps, &steadied.round_robin, Scheduler::Maglev)?;
        fault::count_write();
        for (key, slots) in &steadied.moving {
            let steady = |slot: Slot| Slot::in_transition(slot.previous(), slot.previous());
            rings.set(maps, key, slots, steady)?;
        }
        flows::keep_closing(maps)?;
        Ok(steadied)
    }

    /// Ends the time, in these maps.
    pub(crate) fn end(&self, maps: &MapSet) -> Result<(), PinError> {
        schedule_by(maps, &self.round_robin, Scheduler::RoundRobin)?;
        fault::count_write();
        let rings = Rings::map(maps)?;
        for (key, slots) in &self.moving {
            rings.set(maps, key, slots, |slot| slot)?;
        }
        Ok(())
    }
}

/// Writes the scheduler of services, in their entries and lines.
fn schedule_by(
    maps: &MapSet,
    services: &[EndpointKey],
    scheduler: Scheduler,
) -> Result<(), PinError> {
    let map = maps.require(map_name::SERVICES)?;
    let lines = maps.require(map_name::SERVICE_LINES)?;
    let write = || {
        let mut lines = ServiceLines::map(lines.as_fd())?;
        for key in services {
            let Some(mut service) = service(maps, key)? else {
                continue;
            };
            service.scheduler = scheduler as u8;
            map.put(bytemuck::bytes_of(key), bytemuck::bytes_of(&service))?;
            lines.put(key, &service);
        }
        Ok(())
    };
    write().map_err(failed("write", &maps.directory.join(map_name::SERVICES)))
}

fn service(maps: &MapSet, key: &EndpointKey) -> io::Result<Option<Service>> {
    let map = maps.require(map_name::SERVICES).map_err(io::Error::other)?;
    let value = map.get(bytemuck::bytes_of(key))?;
    Ok(value.map(|value| bytemuck::pod_read_unaligned(&value)))
}

/// `RINGS` as memory.
struct Rings {
    mapping: Mapping,
    slot_count: usize,
}

impl Rings {
    fn map(maps: &MapSet) -> Result<Self, PinError> {
        let map = maps.require(map_name::RINGS)?;
        let slot_count = map.shape.entries_max as usize * RING_BLOCK_SLOTS;
        let mapping = Mapping::new(map.as_fd(), slot_count * size_of::<u32>()).map_err(failed(
            "map into memory",
            &maps.directory.join(map_name::RINGS),
        ))?;
        Ok(Self {
            mapping,
            slot_count,
        })
    }

    /// A slot of a service's ring; `None` beyond the storage.
    fn slot(&self, service: &Service, number: u32) -> Option<&AtomicU32> {
        let index = service.ring_block as usize * RING_BLOCK_SLOTS + number as usize;
        if index >= self.slot_count {
            return None;
        }
        let slots = self.mapping.address().cast::<AtomicU32>();
        // SAFETY: the index is below the number of slots that are mapped, and all access to them from
        // here is atomic.
        Some(unsafe { slots.add(index).as_ref() })
    }

    /// The slots whose new flows go elsewhere than the flows that are not on record.
    fn moving(&self, service: &Service) -> Vec<(u32, Slot)> {
        let slots = (0..service.ring_len).filter_map(|number| {
            let slot = Slot(self.slot(service, number)?.load(Ordering::Relaxed));
            (slot.miss() != slot.current()).then_some((number, slot))
        });
        slots.collect()
    }

    fn set(
        &self,
        maps: &MapSet,
        key: &EndpointKey,
        slots: &[(u32, Slot)],
        content: impl Fn(Slot) -> Slot,
    ) -> Result<(), PinError> {
        let path = maps.directory.join(map_name::SERVICES);
        let Some(service) = service(maps, key).map_err(failed("read", &path))? else {
            return Ok(());
        };
        for (number, slot) in slots {
            if let Some(target) = self.slot(&service, *number) {
                target.store(content(*slot).0, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}

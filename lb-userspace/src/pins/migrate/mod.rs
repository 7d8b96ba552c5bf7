//! Maps of other capacities: new ones beside the old ones, with the content carried over.
//!
//! Only what changes its size is made anew; every other map is pinned into the new directory as it is,
//! and both programs use it while the one takes the other's place.

pub(crate) mod flows;
mod judge;
mod rings;
mod steady;

use std::collections::BTreeSet;
use std::io;

use bytemuck::Zeroable;
use lb_common::abi::{Backend, EndpointKey, Service, map_name};

use super::{MapSet, PinError, RawMap, failed};
use crate::model::Limits;
use flows::{Carried, Extent};

pub(crate) use judge::Precedence;
pub(crate) use steady::Steadied;

/// Maps that are made anew.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Renewal {
    maps: BTreeSet<&'static str>,
    relocation: rings::Relocation,
}

impl Renewal {
    /// What is made anew when the maps `resized` get the capacities of `limits`.
    ///
    /// # Errors
    /// [`PinError::TooSmall`]: what is in force does not fit.
    pub(crate) fn plan(
        found: &MapSet,
        resized: BTreeSet<&'static str>,
        limits: &Limits,
    ) -> Result<Self, PinError> {
        let services = read_services(found)?;
        check(found, &services, limits)?;
        let mut renewal = Self {
            maps: resized,
            relocation: rings::Relocation::default(),
        };
        if renewal.maps.contains(map_name::RINGS) {
            renewal.relocation = rings::plan(services.iter().map(|(_, service)| service), limits)?;
        }
        if renewal.relocation.moves_any() {
            renewal
                .maps
                .extend([map_name::SERVICES, map_name::SERVICE_LINES]);
        }
        Ok(renewal)
    }

    /// Whether nothing is.
    pub(crate) fn is_empty(&self) -> bool {
        self.maps.is_empty()
    }

    /// Whether `map` is made anew.
    pub(crate) fn has(&self, map: &str) -> bool {
        self.maps.contains(map)
    }

    /// The names, for people.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = self.maps.iter().copied().collect();
        names.join(", ")
    }

    /// Fills what was made anew in `new` with the content of `old`. The flow table is to be carried
    /// once more when no packet sees the old one any longer. Lines of services that move are left
    /// empty: whoever opens the maps fills them.
    pub(crate) fn carry(&self, old: &MapSet, new: &MapSet) -> Result<Carried, PinError> {
        let mut carried = Carried::default();
        for name in self.maps.iter().copied() {
            let Some(source) = old.get(name) else {
                continue;
            };
            let target = new.require(name)?;
            match name {
                map_name::FLOWS => carried = flows::carry(old, new, Extent::Live, Precedence::Old)?,
                map_name::FLOW_ORIGINS | map_name::SERVICE_LINES => {}
                map_name::RINGS => {
                    let moved = self.relocation.carry(source, target);
                    moved.map_err(failed("carry over", &new.directory.join(name)))?;
                }
                map_name::SERVICES => {
                    let moved = self.carry_services(source, target);
                    moved.map_err(failed("carry over", &new.directory.join(name)))?;
                }
                _ => carry_elements(source, target)
                    .map_err(failed("carry over", &new.directory.join(name)))?,
            }
        }
        Ok(carried)
    }

    fn carry_services(&self, source: &RawMap, target: &RawMap) -> io::Result<()> {
        for key in source.keys()? {
            let Some(value) = source.get(&key)? else {
                continue;
            };
            let mut service: Service = bytemuck::pod_read_unaligned(&value);
            service.ring_block = self.relocation.block(service.ring_block);
            target.put(&key, bytemuck::bytes_of(&service))?;
        }
        Ok(())
    }
}

/// Whether what is in force fits into `limits`.
fn check(
    found: &MapSet,
    services: &[(EndpointKey, Service)],
    limits: &Limits,
) -> Result<(), PinError> {
    let backends = read_backends(found)?;
    let highest_service = services.iter().map(|(_, service)| u32::from(service.id));
    let highest_backend = backends.iter().map(|(id, _)| u32::from(*id));
    let needs = [
        ("limits.services", limits.services, highest_service.max()),
        ("limits.backends", limits.backends, highest_backend.max()),
    ];
    for (setting, max, needed) in needs {
        if let Some(needed) = needed.filter(|needed| *needed > max) {
            return Err(PinError::TooSmall {
                setting,
                max,
                needed,
            });
        }
    }
    Ok(())
}

/// `SERVICES`.
pub(crate) fn read_services(maps: &MapSet) -> Result<Vec<(EndpointKey, Service)>, PinError> {
    let map = maps.require(map_name::SERVICES)?;
    let read = || {
        let mut services = Vec::new();
        for key in map.keys()? {
            if let Some(value) = map.get(&key)? {
                services.push((
                    bytemuck::pod_read_unaligned(&key),
                    bytemuck::pod_read_unaligned(&value),
                ));
            }
        }
        Ok(services)
    };
    read().map_err(failed("read", &maps.directory.join(map_name::SERVICES)))
}

/// `BACKENDS`, without free entries.
fn read_backends(maps: &MapSet) -> Result<Vec<(u16, Backend)>, PinError> {
    let map = maps.require(map_name::BACKENDS)?;
    let read = || {
        let mut backends = Vec::new();
        for id in 1..map.shape.entries_max {
            let value = map.element(id)?;
            let backend: Backend = value.map_or_else(Backend::zeroed, |value| {
                bytemuck::pod_read_unaligned(&value)
            });
            if backend.service_id != 0 {
                backends.push((id as u16, backend));
            }
        }
        Ok(backends)
    };
    read().map_err(failed("read", &maps.directory.join(map_name::BACKENDS)))
}

/// Copies every element; of an array those that both have, except zeros.
fn carry_elements(source: &RawMap, target: &RawMap) -> io::Result<()> {
    if !source.is_array() {
        for key in source.keys()? {
            if let Some(value) = source.get(&key)? {
                target.put(&key, &value)?;
            }
        }
        return Ok(());
    }
    for index in 0..source.shape.entries_max.min(target.shape.entries_max) {
        let Some(value) = source.element(index)? else {
            continue;
        };
        if value.iter().any(|byte| *byte != 0) {
            target.put(&index.to_ne_bytes(), &value)?;
        }
    }
    Ok(())
}

//! A new program in the place of the one that is in force, or the first one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use lb_common::abi::{Instance, map_name};
use tracing::{info, warn};

use super::object::{self, Maps, Opened};
use super::{LoadError, Loaded, self_test};
use crate::maps::wait_for_readers;
use crate::model::Limits;
use crate::pins::migrate::{Renewal, flows};
use crate::pins::{CARRIED, Found, FoundLink, MapSet, PinError, Pins, fresh_instance, switch};

/// What was found, and is this daemon's now.
#[derive(Debug)]
pub(crate) struct Adopted {
    /// How long nobody has looked after it.
    pub(crate) unattended: Duration,
    /// Whether maps were made anew.
    pub(crate) is_migrated: bool,
    /// The interfaces with the new program on them.
    pub(crate) links: Vec<FoundLink>,
    /// The highest generation on record of each backend id.
    pub(crate) generations: BTreeMap<u16, u16>,
}

/// Loads the program and puts it in force wherever another one was. Until the new one has passed its
/// test, and its maps are complete, nothing that packets use is touched.
pub(super) fn load(limits: &Limits, pins: &Pins) -> Result<Loaded, LoadError> {
    pins.prepare()?;
    let found = pins.survey()?;
    let renewal = match &found {
        Some(found) => Some(renewal(found, limits, pins)?),
        None => None,
    };
    let instance = match &found {
        Some(found) => found.instance,
        None => fresh_instance().map_err(LoadError::Refused)?,
    };
    self_test::run(&instance.hash_key)?;
    let loaded = match (found, renewal) {
        (Some(found), Some(renewal)) if renewal.is_empty() => adopt(limits, pins, found)?,
        (Some(found), Some(renewal)) => undoing(pins, || migrate(limits, pins, found, &renewal))?,
        _ => undoing(pins, || begin(limits, pins, &instance))?,
    };
    pins.claim_namespace()?;
    pins.pin_program(loaded.datapath.program.as_fd())?;
    Ok(loaded)
}

/// What must be made anew of what was found.
fn renewal(found: &Found, limits: &Limits, pins: &Pins) -> Result<Renewal, LoadError> {
    let wanted = object::wanted(limits).map_err(LoadError::Refused)?;
    let fit = found.maps.compare(&wanted, pins.socket())?;
    if !fit.missing.is_empty() {
        let missing: Vec<&str> = fit.missing.iter().copied().collect();
        warn!(
            "maps are missing, and are made anew: {}",
            missing.join(", ")
        );
    }
    let changed = fit.resized.union(&fit.missing).copied().collect();
    Ok(Renewal::plan(&found.maps, changed, limits)?)
}

/// Removes what was prepared if it cannot be put in force.
fn undoing(
    pins: &Pins,
    work: impl FnOnce() -> Result<Loaded, LoadError>,
) -> Result<Loaded, LoadError> {
    work().inspect_err(|_| {
        if let Err(error) = pins.drop_next() {
            warn!("{error}");
        }
    })
}

fn begin(limits: &Limits, pins: &Pins, instance: &Instance) -> Result<Loaded, LoadError> {
    let next = pins.prepare_next()?;
    let opened = object::open(limits, &instance.hash_key, Maps::Pinned(&next))?;
    let maps = MapSet::open(&next)?;
    let written = maps.require(map_name::INSTANCE)?.write_instance(instance);
    written.map_err(|error| pin_error("write", &next.join(map_name::INSTANCE), error))?;
    pins.take_next()?;
    info!(pinned = %pins.directory().display(), "datapath loaded");
    Ok(loaded(opened, None))
}

fn adopt(limits: &Limits, pins: &Pins, found: Found) -> Result<Loaded, LoadError> {
    let unattended = found.age();
    let directory = pins.maps();
    let mut opened = object::open(limits, &found.instance.hash_key, Maps::Pinned(&directory))?;
    repair(&mut opened)?;
    let links = switch(found.links, opened.datapath.program.as_fd())?;
    let adopted = Adopted {
        unattended,
        is_migrated: false,
        links,
        generations: flows::generations(&found.maps)?,
    };
    tell(pins, &adopted, "adopted");
    Ok(loaded(opened, Some(adopted)))
}

fn migrate(
    limits: &Limits,
    pins: &Pins,
    found: Found,
    renewal: &Renewal,
) -> Result<Loaded, LoadError> {
    info!(
        maps = renewal.names(),
        "limits have changed: carrying maps over"
    );
    let unattended = found.age();
    let next = pins.prepare_next()?;
    for name in CARRIED {
        if let Some(map) = found.maps.get(name).filter(|_| !renewal.has(name)) {
            map.pin(&next.join(name))?;
        }
    }
    let mut opened = object::open(limits, &found.instance.hash_key, Maps::Pinned(&next))?;
    let new = MapSet::open(&next)?;
    let mut carried = renewal.carry(&found.maps, &new)?;
    repair(&mut opened)?;
    let links = switch(found.links, opened.datapath.program.as_fd())?;
    // From here on there is no way back, and none is needed: the new maps are complete. What began
    // in the old ones meanwhile is added when no packet uses them any more.
    wait_for_readers();
    let late = flows::carry(&found.maps, &new)?;
    carried.count += late.count;
    // The second round meets again what the first one had no room for.
    carried.left_out = late.left_out;
    pins.take_next()?;
    info!(flows = carried.count, "flows carried over");
    if carried.left_out > 0 {
        warn!(
            "{} live flows have no room in the new flow table: those of slots in transition, of round \
             robin and of UDP may change their backend. Raise `limits.flows`",
            carried.left_out
        );
    }
    let adopted = Adopted {
        unattended,
        is_migrated: true,
        links,
        generations: flows::generations(&new)?,
    };
    tell(pins, &adopted, "adopted, with maps of other capacities");
    Ok(loaded(opened, Some(adopted)))
}

/// A daemon may have been killed in the middle of a write.
fn repair(opened: &mut Opened) -> Result<(), LoadError> {
    let repaired = opened
        .store
        .repair_lines()
        .map_err(|error| LoadError::Refused(error.into()))?;
    if repaired > 0 {
        info!(lines = repaired, "lines of services written again");
    }
    Ok(())
}

fn tell(pins: &Pins, adopted: &Adopted, what: &str) {
    let names: Vec<&str> = adopted
        .links
        .iter()
        .map(|link| link.interface.as_str())
        .collect();
    info!(
        pinned = %pins.directory().display(),
        interfaces = names.join(","),
        unattended_s = adopted.unattended.as_secs(),
        "datapath {what}; the program in force is this build's"
    );
}

fn loaded(opened: Opened, adopted: Option<Adopted>) -> Loaded {
    let Opened {
        datapath,
        store,
        events,
    } = opened;
    Loaded {
        datapath,
        store,
        events,
        adopted,
    }
}

fn pin_error(action: &'static str, path: &std::path::Path, source: io::Error) -> PinError {
    PinError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

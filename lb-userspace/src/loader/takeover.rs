//! A new program in the place of the one that is in force, or the first one.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use lb_common::abi::{Instance, map_name};
use tracing::{info, warn};

use super::object::{self, Globals, Maps, Opened};
use super::{LoadError, Loaded, Sharing, self_test};
use crate::maps::{fault, wait_for_readers};
use crate::model::Limits;
use crate::pins::migrate::flows::{self, Carried, Extent};
use crate::pins::migrate::{Precedence, Renewal, Steadied};
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
pub(super) fn load(limits: &Limits, pins: &Pins, sharing: Sharing) -> Result<Loaded, LoadError> {
    pins.prepare()?;
    let found = pins.survey()?;
    let renewal = match &found {
        Some(found) => Some(renewal(found, limits, pins)?),
        None => None,
    };
    let instance = match &found {
        Some(found) => found.instance,
        None => begun_instance(sharing).map_err(LoadError::Refused)?,
    };
    let globals = Globals {
        limits,
        hash_key: &instance.hash_key,
        sharing,
    };
    self_test::run(&globals)?;
    fault::arm();
    let loaded = match (found, renewal) {
        (Some(found), Some(renewal)) if renewal.is_empty() => adopt(&globals, pins, found)?,
        (Some(found), Some(renewal)) => undoing(pins, || migrate(&globals, pins, found, &renewal))?,
        _ => undoing(pins, || begin(&globals, pins, &instance))?,
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

/// The instance of a datapath that begins: with the cluster's key, or one of its own.
fn begun_instance(sharing: Sharing) -> anyhow::Result<Instance> {
    let instance = fresh_instance()?;
    Ok(match sharing {
        Sharing::Off => instance,
        Sharing::On { hash_key } => Instance {
            hash_key,
            ..instance
        },
    })
}

fn begin(globals: &Globals<'_>, pins: &Pins, instance: &Instance) -> Result<Loaded, LoadError> {
    let next = pins.prepare_next()?;
    let opened = object::open(globals, Maps::Pinned(&next))?;
    let maps = MapSet::open(&next)?;
    let written = maps.require(map_name::INSTANCE)?.write_instance(instance);
    written.map_err(|error| pin_error("write", &next.join(map_name::INSTANCE), error))?;
    pins.take_next()?;
    info!(pinned = %pins.directory().display(), "datapath loaded");
    Ok(loaded(opened, None))
}

fn adopt(globals: &Globals<'_>, pins: &Pins, found: Found) -> Result<Loaded, LoadError> {
    let unattended = found.age();
    let directory = pins.maps();
    let mut opened = object::open(globals, Maps::Pinned(&directory))?;
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
    globals: &Globals<'_>,
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
    let mut opened = object::open(globals, Maps::Pinned(&next))?;
    let new = MapSet::open(&next)?;
    let steadied = steady(renewal, &found.maps)?;
    let exchanged = exchange(found.links, &found.maps, &new, renewal, &mut opened);
    // Services are as they were before the new maps are the only ones, or before nothing came of it.
    let of_program = if exchanged.is_ok() { &new } else { &found.maps };
    steadied.end(of_program)?;
    let (links, carried) = exchanged?;
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

/// With a flow table made anew: until it is the only one, no flow depends on being on record in the right
/// one of the two.
fn steady(renewal: &Renewal, maps: &MapSet) -> Result<Steadied, PinError> {
    if !renewal.has(map_name::FLOWS) {
        return Ok(Steadied::default());
    }
    let steadied = Steadied::begin(maps)?;
    wait_for_readers();
    Ok(steadied)
}

/// Fills the new maps and puts the program that uses them in force.
fn exchange(
    links: Vec<FoundLink>,
    old: &MapSet,
    new: &MapSet,
    renewal: &Renewal,
    opened: &mut Opened,
) -> Result<(Vec<FoundLink>, Carried), LoadError> {
    let mut carried = renewal.carry(old, new)?;
    repair(opened)?;
    // What has changed in the meantime, so that as little as possible is to be added afterwards: flows that
    // have ended since are made to keep their backend as well.
    if renewal.has(map_name::FLOWS) {
        flows::keep_closing(old)?;
    }
    carried.count += flows::carry(old, new, Extent::Live, Precedence::Old)?.count;
    let links = switch(links, opened.datapath.program.as_fd())?;
    // From here on there is no way back, and none is needed: the new maps are complete but for the flows
    // that began a moment ago. They are added at once, and again when no packet uses the old ones.
    carried.count += flows::carry(old, new, Extent::Live, Precedence::Later)?.count;
    wait_for_readers();
    let last = flows::carry(old, new, Extent::All, Precedence::Later)?;
    Ok((
        links,
        Carried {
            count: carried.count + last.count,
            // Each round meets again what the ones before had no room for.
            left_out: last.left_out,
        },
    ))
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

//! The object file: what its maps look like, and its way into the kernel.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, anyhow};
use aya::maps::{MapData, RingBuf};
use aya::programs::{ProgramError, Xdp};
use aya::{Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use aya_obj::Object;
use lb_common::abi::{
    FLOW_SET_ENTRIES, FLOW_SETS_GLOBAL, HASH_KEY_GLOBAL, NOTES_CHANGES_GLOBAL, PROGRAM_NAME,
    flow_changes_len, map_name,
};
use lb_common::limits::{COUNTERS_PER_SERVICE, HASH_KEY_WORDS, ROUTES_MAX};
use tokio::task::AbortHandle;
use tracing::{Level, debug};

use super::{Datapath, LoadError, OBJECT, Sharing, readiness, refused};
use crate::maps::AyaStore;
use crate::model::Limits;
use crate::pins::{CARRIED, MapShape};

/// What comes out of the object file.
pub(super) struct Opened {
    pub(super) datapath: Datapath,
    pub(super) store: AyaStore,
    pub(super) events: RingBuf<MapData>,
}

/// What a program is made for.
#[derive(Clone, Copy)]
pub(super) struct Globals<'g> {
    pub(super) limits: &'g Limits,
    /// The key that is in force, or begins to be.
    pub(super) hash_key: &'g [u64; HASH_KEY_WORDS],
    pub(super) sharing: Sharing,
}

/// Which maps a program gets.
#[derive(Clone, Copy)]
pub(super) enum Maps<'p> {
    /// Its own: they go with it.
    Private,
    /// Those that are pinned in this directory, which were compared with [`wanted`]; what is not there
    /// is made, and pinned there.
    Pinned(&'p Path),
}

/// Flow sets for so many flows.
fn flow_sets(limits: &Limits) -> u32 {
    limits.flows.div_ceil(FLOW_SET_ENTRIES as u32)
}

/// The capacities that are not those of the object file.
fn capacities(limits: &Limits) -> [(&'static str, u32); 14] {
    // Ids start at 1: what is indexed by an id has an entry more than there are things.
    [
        (map_name::SERVICES, limits.services),
        (map_name::VIPS, limits.services),
        (map_name::ROUNDS, limits.services + 1),
        (
            map_name::COUNTERS,
            (limits.services + 1) * COUNTERS_PER_SERVICE,
        ),
        (map_name::BACKENDS, limits.backends + 1),
        (map_name::BACKEND_STATS, limits.backends + 1),
        (map_name::BACKEND_SIGNALS, limits.backends + 1),
        (map_name::NAT_REPLIES, limits.backends),
        (map_name::RINGS, limits.ring_blocks),
        (map_name::ROUTES, ROUTES_MAX),
        (map_name::FLOWS, flow_sets(limits)),
        (map_name::FLOW_ORIGINS, flow_sets(limits)),
        (map_name::FLOW_CHANGES, flow_changes_len(flow_sets(limits))),
        (map_name::SUPPRESSED, limits.services + 1),
    ]
}

/// The maps that outlive a daemon as this build wants them.
pub(super) fn wanted(limits: &Limits) -> anyhow::Result<BTreeMap<&'static str, MapShape>> {
    let object = Object::parse(OBJECT).context("the object file cannot be read")?;
    let capacities = BTreeMap::from(capacities(limits));
    let shape = |name: &'static str| {
        let map = object.maps.get(name);
        let map = map.ok_or_else(|| anyhow!("the object has no map {name}"))?;
        let capacity = capacities.get(name).copied();
        let shape = MapShape {
            kind: map.map_type(),
            key_bytes: map.key_size(),
            value_bytes: map.value_size(),
            entries_max: capacity.unwrap_or_else(|| map.max_entries()),
            flags: map.map_flags(),
        };
        Ok((name, shape))
    };
    CARRIED.into_iter().map(shape).collect()
}

/// Loads the program and opens its maps.
pub(super) fn open(globals: &Globals<'_>, maps: Maps<'_>) -> Result<Opened, LoadError> {
    let mut ebpf = load(globals, maps)?;
    let log = follow_log(&mut ebpf)
        .inspect_err(|error| debug!("no log from the datapath: {error:#}"))
        .ok();
    load_program(&mut ebpf)?;
    let store = AyaStore::take(&mut ebpf).map_err(LoadError::Refused)?;
    let events = take_events(&mut ebpf).map_err(LoadError::Refused)?;
    Ok(Opened {
        datapath: Datapath::new(ebpf, log)?,
        store,
        events,
    })
}

fn load(globals: &Globals<'_>, maps: Maps<'_>) -> Result<Ebpf, LoadError> {
    let (log_level, flow_sets) = (log_level() as u8, flow_sets(globals.limits));
    let notes_changes = u32::from(matches!(globals.sharing, Sharing::On { .. }));
    let mut loader = EbpfLoader::new();
    loader.override_global(HASH_KEY_GLOBAL, globals.hash_key, true);
    loader.override_global(FLOW_SETS_GLOBAL, &flow_sets, true);
    loader.override_global(NOTES_CHANGES_GLOBAL, &notes_changes, true);
    loader.override_global(aya_log::LEVEL, &log_level, false);
    for (map, entries) in capacities(globals.limits) {
        loader.map_max_entries(map, entries);
    }
    if let Maps::Pinned(directory) = maps {
        for map in CARRIED {
            loader.map_pin_path(map, directory.join(map));
        }
    }
    loader.load(OBJECT).map_err(refused)
}

/// The level that is compiled into the program. At `debug` each dropped packet is an event, which
/// no busy node wants: only where it is asked for by name (`--log info,lb_ebpf=debug`).
fn log_level() -> aya_log::Level {
    if tracing::enabled!(target: "lb_ebpf", Level::DEBUG) {
        aya_log::Level::Debug
    } else {
        aya_log::Level::Info
    }
}

fn load_program(ebpf: &mut Ebpf) -> Result<(), LoadError> {
    let program = xdp(ebpf).map_err(LoadError::Refused)?;
    program.load().map_err(|error| refused(error.into()))
}

/// The program of the object.
pub(super) fn xdp(ebpf: &mut Ebpf) -> anyhow::Result<&mut Xdp> {
    let program = ebpf
        .program_mut(PROGRAM_NAME)
        .ok_or_else(|| anyhow!("the object has no program {PROGRAM_NAME}"))?;
    program
        .try_into()
        .map_err(|error: ProgramError| error.into())
}

/// Hands what the program logs to this process's log. A program that logs nothing has no log map.
fn follow_log(ebpf: &mut Ebpf) -> anyhow::Result<AbortHandle> {
    let logger = EbpfLogger::init(ebpf)?;
    let mut logger = readiness::readable(logger)?;
    let task = tokio::spawn(async move {
        while let Ok(mut guard) = logger.readable_mut().await {
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    });
    Ok(task.abort_handle())
}

fn take_events(ebpf: &mut Ebpf) -> anyhow::Result<RingBuf<MapData>> {
    let map = ebpf
        .take_map(map_name::EVENTS)
        .with_context(|| format!("the datapath has no map {}", map_name::EVENTS))?;
    RingBuf::try_from(map).with_context(|| format!("cannot open map {}", map_name::EVENTS))
}

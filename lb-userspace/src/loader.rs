//! Loading the XDP program into the kernel, and attaching it to interfaces.

pub mod attach;
mod privilege;
pub(crate) mod readiness;

use std::fs::File;
use std::io::Read;

use anyhow::Context;
use aya::maps::{MapData, MapType, RingBuf};
use aya::programs::{ProgramError, ProgramFd, ProgramType, Xdp};
use aya::sys::{is_map_supported, is_program_supported};
use aya::util::KernelVersion;
use aya::{Ebpf, EbpfError, EbpfLoader};
use aya_log::EbpfLogger;
use lb_common::abi::{FLOW_SET_ENTRIES, FLOW_SETS_GLOBAL, HASH_KEY_GLOBAL, PROGRAM_NAME, map_name};
use lb_common::limits::{COUNTERS_PER_SERVICE, HASH_KEY_WORDS, ROUTES_MAX};
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use tokio::task::AbortHandle;
use tracing::{Level, debug, info};

use crate::maps::AyaStore;
use crate::model::Limits;

/// The oldest kernel that can run the program: atomic operations that return a value (round robin's
/// counter) came with 5.12, XDP links with 5.9, ring buffers with 5.8, arrays that can be
/// memory-mapped with 5.5.
const KERNEL_MIN: (u8, u8) = (5, 12);

/// The XDP program as `cargo xtask build` made it; empty where it was not run.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/lb-ebpf"));

/// Why the datapath cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The daemon was built without the program.
    #[error(
        "this lbd was built without the XDP program: run `cargo xtask build` and start that one"
    )]
    NotBuilt,
    /// The kernel lacks what the program needs.
    #[error("kernel {release} is too old: lbd needs {}.{} or newer", KERNEL_MIN.0, KERNEL_MIN.1)]
    KernelTooOld {
        /// The kernel's release.
        release: String,
    },
    /// The kernel was built without a feature.
    #[error("this kernel has no {feature}; it was built without {config}")]
    MissingFeature {
        /// What is missing.
        feature: &'static str,
        /// The kernel's build option.
        config: &'static str,
    },
    /// The kernel could not even be asked for a feature.
    #[error("cannot find out whether the kernel has {feature}")]
    UnreadableFeature {
        /// What was asked for.
        feature: &'static str,
        /// What the kernel said.
        #[source]
        source: anyhow::Error,
    },
    /// The process may not do it.
    #[error(transparent)]
    Privilege(#[from] privilege::MissingCapabilities),
    /// The kernel refused the program or a map.
    #[error("the kernel does not accept the XDP program")]
    Refused(#[source] anyhow::Error),
}

/// What loading gives.
pub struct Loaded {
    /// The program.
    pub datapath: Datapath,
    /// Its maps.
    pub store: AyaStore,
    /// Events from the packet path.
    pub events: RingBuf<MapData>,
}

/// The loaded program. Nothing is pinned: it goes with the process.
pub struct Datapath {
    /// The program, to be attached.
    pub program: ProgramFd,
    log: Option<AbortHandle>,
    _ebpf: Ebpf,
}

impl Drop for Datapath {
    fn drop(&mut self) {
        if let Some(log) = &self.log {
            log.abort();
        }
    }
}

/// Checks that the process may do what lbd does, so that the lack is named before anything else is
/// tried.
///
/// # Errors
/// [`LoadError::Privilege`].
pub fn check_privilege() -> Result<(), LoadError> {
    Ok(privilege::check()?)
}

/// Loads the program with maps of the capacities in `limits`. Must be called within a tokio runtime.
///
/// # Errors
/// [`LoadError`], before anything is attached.
pub fn load(limits: &Limits) -> Result<Loaded, LoadError> {
    if OBJECT.is_empty() {
        return Err(LoadError::NotBuilt);
    }
    check_privilege()?;
    check_kernel()?;
    check_features()?;
    raise_locked_memory();
    let mut ebpf = load_object(limits)?;
    let log = follow_log(&mut ebpf)
        .inspect_err(|error| debug!("no log from the datapath: {error:#}"))
        .ok();
    let program = load_program(&mut ebpf)?;
    let store = AyaStore::take(&mut ebpf).map_err(LoadError::Refused)?;
    let events = take_events(&mut ebpf).map_err(LoadError::Refused)?;
    info!(
        services = limits.services,
        backends = limits.backends,
        ring_blocks = limits.ring_blocks,
        flows = limits.flows,
        "datapath loaded"
    );
    let datapath = Datapath {
        program,
        log,
        _ebpf: ebpf,
    };
    Ok(Loaded {
        datapath,
        store,
        events,
    })
}

fn check_kernel() -> Result<(), LoadError> {
    let unreadable = |source| LoadError::UnreadableFeature {
        feature: "the version that is needed",
        source,
    };
    let current = KernelVersion::current()
        .map_err(|error| unreadable(anyhow::anyhow!("reading the kernel's version: {error}")))?;
    if current >= KernelVersion::new(KERNEL_MIN.0, KERNEL_MIN.1, 0) {
        return Ok(());
    }
    let release = nix::sys::utsname::uname()
        .map(|names| names.release().to_string_lossy().into_owned())
        .map_err(|error| unreadable(error.into()))?;
    Err(LoadError::KernelTooOld { release })
}

fn check_features() -> Result<(), LoadError> {
    let xdp = is_program_supported(ProgramType::Xdp).map_err(anyhow::Error::from);
    demand("XDP", "CONFIG_BPF_SYSCALL and CONFIG_NET", xdp)?;
    let maps = [
        ("BPF longest-prefix-match tries", MapType::LpmTrie),
        ("BPF ring buffers", MapType::RingBuf),
    ];
    for (feature, map_type) in maps {
        let support = is_map_supported(map_type).map_err(anyhow::Error::from);
        demand(feature, "CONFIG_BPF_SYSCALL", support)?;
    }
    Ok(())
}

fn demand(
    feature: &'static str,
    config: &'static str,
    support: anyhow::Result<bool>,
) -> Result<(), LoadError> {
    match support {
        Ok(true) => Ok(()),
        Ok(false) => Err(LoadError::MissingFeature { feature, config }),
        Err(source) => Err(privilege::or(source, |source| {
            LoadError::UnreadableFeature { feature, source }
        })),
    }
}

/// Kernels before 5.11 charge maps to the locked memory of the process. Where it cannot be raised,
/// a newer kernel does not need it, and an older one says so when a map is created.
fn raise_locked_memory() {
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        debug!("RLIMIT_MEMLOCK stays as it is: {error}");
    }
}

fn load_object(limits: &Limits) -> Result<Ebpf, LoadError> {
    let hash_key = random_key().map_err(LoadError::Refused)?;
    let flow_sets = limits.flows.div_ceil(FLOW_SET_ENTRIES as u32);
    // Ids start at 1: what is indexed by an id has an entry more than there are things.
    let entries = [
        (map_name::SERVICES, limits.services),
        (map_name::VIPS, limits.services),
        (map_name::ROUNDS, limits.services + 1),
        (
            map_name::COUNTERS,
            (limits.services + 1) * COUNTERS_PER_SERVICE,
        ),
        (map_name::BACKENDS, limits.backends + 1),
        (map_name::BACKEND_STATS, limits.backends + 1),
        (map_name::NAT_REPLIES, limits.backends),
        (map_name::RINGS, limits.ring_blocks),
        (map_name::ROUTES, ROUTES_MAX),
        (map_name::FLOWS, flow_sets),
    ];
    let log_level = log_level() as u8;
    let mut loader = EbpfLoader::new();
    loader.override_global(HASH_KEY_GLOBAL, &hash_key, true);
    loader.override_global(FLOW_SETS_GLOBAL, &flow_sets, true);
    loader.override_global(aya_log::LEVEL, &log_level, false);
    for (map, entries) in entries {
        loader.map_max_entries(map, entries);
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

/// 256 random bits for the flow hash: a key that outsiders do not know.
fn random_key() -> anyhow::Result<[u64; HASH_KEY_WORDS]> {
    let mut key = [0; HASH_KEY_WORDS];
    File::open("/dev/urandom")
        .and_then(|mut random| random.read_exact(bytemuck::bytes_of_mut(&mut key)))
        .context("cannot read a hash key from /dev/urandom")?;
    Ok(key)
}

fn load_program(ebpf: &mut Ebpf) -> Result<ProgramFd, LoadError> {
    let program = ebpf.program_mut(PROGRAM_NAME).ok_or_else(|| {
        LoadError::Refused(anyhow::anyhow!("the object has no program {PROGRAM_NAME}"))
    })?;
    let program: &mut Xdp = program
        .try_into()
        .map_err(|error: ProgramError| LoadError::Refused(error.into()))?;
    program.load().map_err(|error| refused(error.into()))?;
    program
        .fd()
        .and_then(|program| Ok(program.try_clone()?))
        .map_err(|error| LoadError::Refused(error.into()))
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

fn refused(error: EbpfError) -> LoadError {
    privilege::or(error.into(), LoadError::Refused)
}

//! Loading the XDP program into the kernel, and attaching it to interfaces.

pub mod attach;
mod object;
mod privilege;
pub(crate) mod readiness;
mod self_test;
mod support;
mod takeover;

use aya::maps::{MapData, RingBuf};
use aya::programs::ProgramFd;
use aya::{Ebpf, EbpfError};
use lb_common::limits::HASH_KEY_WORDS;
use tokio::task::AbortHandle;

use crate::maps::AyaStore;
use crate::model::Limits;
use crate::pins::{PinError, Pins};

pub use self_test::SelfTestError;
pub(crate) use takeover::Adopted;

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
    /// What is pinned cannot be used, or nothing can be pinned.
    #[error(transparent)]
    Pins(#[from] PinError),
    /// The program does not do what it should.
    #[error(transparent)]
    SelfTest(#[from] SelfTestError),
}

/// Whether a datapath's flows are shared with peers.
#[derive(Clone, Copy, Default)]
pub enum Sharing {
    /// There are none: no packet does anything for it.
    #[default]
    Off,
    /// Changes of the flow table are noted (`FLOW_CHANGES`).
    On {
        /// The cluster's key of the flow hash. A datapath that is made anew begins with it; one that is
        /// adopted keeps its own, or every flow would change its slot.
        hash_key: [u64; HASH_KEY_WORDS],
    },
}

impl std::fmt::Debug for Sharing {
    /// Without the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Off => "Off",
            Self::On { .. } => "On",
        })
    }
}

/// What loading gives.
pub struct Loaded {
    /// The program.
    pub datapath: Datapath,
    /// Its maps.
    pub store: AyaStore,
    /// Events from the packet path.
    pub events: RingBuf<MapData>,
    /// What an earlier daemon has left; `None`: nothing was there.
    pub(crate) adopted: Option<Adopted>,
}

/// The loaded program. Pinned, and held by its links: it does not go with the process.
pub struct Datapath {
    /// The program, to be attached.
    pub program: ProgramFd,
    log: Option<AbortHandle>,
    ebpf: Ebpf,
}

impl Datapath {
    fn new(mut ebpf: Ebpf, log: Option<AbortHandle>) -> Result<Self, LoadError> {
        let cloned = object::xdp(&mut ebpf).and_then(|program| Ok(program.fd()?.try_clone()?));
        Ok(Self {
            program: cloned.map_err(LoadError::Refused)?,
            log,
            ebpf,
        })
    }
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

/// Loads the program with maps of the capacities in `limits`, adopts what an earlier daemon has pinned,
/// and puts the program in the place of the one that is in force. Must be called within a tokio
/// runtime.
///
/// # Errors
/// [`LoadError`]; what was in force still is.
pub fn load(limits: &Limits, pins: &Pins, sharing: Sharing) -> Result<Loaded, LoadError> {
    if OBJECT.is_empty() {
        return Err(LoadError::NotBuilt);
    }
    check_privilege()?;
    support::check_kernel()?;
    support::check_features()?;
    support::raise_locked_memory();
    takeover::load(limits, pins, sharing)
}

fn refused(error: EbpfError) -> LoadError {
    privilege::or(error.into(), LoadError::Refused)
}

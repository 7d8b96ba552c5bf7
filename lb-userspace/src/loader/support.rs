//! What the kernel must be able to do.

use aya::maps::MapType;
use aya::programs::ProgramType;
use aya::sys::{is_map_supported, is_program_supported};
use aya::util::KernelVersion;
use nix::sys::resource::{RLIM_INFINITY, Resource, setrlimit};
use tracing::debug;

use super::{KERNEL_MIN, LoadError, privilege};

pub(super) fn check_kernel() -> Result<(), LoadError> {
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

pub(super) fn check_features() -> Result<(), LoadError> {
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
pub(super) fn raise_locked_memory() {
    if let Err(error) = setrlimit(Resource::RLIMIT_MEMLOCK, RLIM_INFINITY, RLIM_INFINITY) {
        debug!("RLIMIT_MEMLOCK stays as it is: {error}");
    }
}

//! The file system that keeps what is pinned: mounted once in a machine's life.

use std::fs::{File, create_dir_all};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::fcntl::{Flock, FlockArg};
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::{FsType, statfs};
use tracing::{info, warn};

use super::PinError;

/// Where every tool expects it.
pub(super) const MOUNT_POINT: &str = "/sys/fs/bpf";

/// `BPF_FS_MAGIC` (`include/uapi/linux/magic.h`).
const MAGIC: FsType = FsType(0xcafe_4a11);

/// Mounts it if it is not there, as bpftool and systemd do.
///
/// # Errors
/// [`PinError::NoFileSystem`].
pub(super) fn ensure() -> Result<(), PinError> {
    if is_there() {
        return Ok(());
    }
    mount_once().map_err(|source| PinError::NoFileSystem { source })?;
    info!("bpffs mounted at {MOUNT_POINT}: what is pinned there outlives lbd");
    if is_private() {
        warn!(
            "lbd runs in a mount namespace of its own: the datapath goes when the last process in it \
             goes. Mount bpffs at {MOUNT_POINT} outside of it (`mount -t bpf bpffs {MOUNT_POINT}`), and \
             use nsenter --net in the place of `ip netns exec`, which makes such a namespace"
        );
    }
    Ok(())
}

/// Whether it is mounted.
pub(super) fn is_there() -> bool {
    statfs(MOUNT_POINT).is_ok_and(|status| status.filesystem_type() == MAGIC)
}

/// Two daemons may start at the same time, and a second mount would hide what the first has pinned:
/// the directory below is locked meanwhile.
fn mount_once() -> io::Result<()> {
    create_dir_all(MOUNT_POINT)?;
    let directory = File::open(MOUNT_POINT)?;
    let _lock = Flock::lock(directory, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
    if is_there() {
        return Ok(());
    }
    let target = Path::new(MOUNT_POINT);
    let options = Some("mode=0700");
    Ok(mount(
        Some("bpffs"),
        target,
        Some("bpf"),
        MsFlags::empty(),
        options,
    )?)
}

/// Whether this process sees other mounts than the first one of its machine or container. Where that
/// cannot be told, it is taken to see the same.
fn is_private() -> bool {
    let namespace = |process: &str| std::fs::metadata(format!("/proc/{process}/ns/mnt"));
    match (namespace("self"), namespace("1")) {
        (Ok(ours), Ok(first)) => ours.ino() != first.ino(),
        _ => false,
    }
}

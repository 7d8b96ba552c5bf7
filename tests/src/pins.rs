//! What an lbd of the laboratory has pinned: gone when its test is, however that ends.

use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

use anyhow::{Context, Result};

use crate::lbd::program;
use crate::process::run;

/// Where lbd pins what outlives it: a directory for each socket.
pub const PINS_DIR: &str = "/sys/fs/bpf/lbd";

static CLEANUP: Once = Once::new();

/// Removes, once in a process, what tests that were killed have left. A link goes with its pin.
pub(crate) fn remove_orphans() {
    CLEANUP.call_once(|| {
        for directory in instances() {
            let is_orphan =
                owner_pid(&directory).is_some_and(|pid| !Path::new("/proc").join(pid).exists());
            if is_orphan {
                // Another process may be at the same.
                drop(fs::remove_dir_all(&directory));
            }
        }
    });
}

fn instances() -> Vec<PathBuf> {
    let entries = fs::read_dir(PINS_DIR).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The process that made the scratch directory of an instance's socket, `…/lb-PURPOSE-PID-NUMBER/`, as
/// lbd writes it in the name of its directory: `_2d` for `-`.
fn owner_pid(instance: &Path) -> Option<String> {
    let (directory, _socket) = instance.file_name()?.to_str()?.rsplit_once('-')?;
    let (rest, number) = directory.rsplit_once("_2d")?;
    let (rest, pid) = rest.rsplit_once("_2d")?;
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_ours = rest.contains("lb_2d") && is_number(pid) && is_number(number);
    is_ours.then(|| pid.to_owned())
}

/// Takes off what the lbd behind `socket` has left, from within its namespace if that is still there.
///
/// # Errors
/// What `lbd --detach` says.
pub fn detach(socket: &Path, netns: &Path) -> Result<()> {
    let lbd = program("lbd")?;
    let mut command = if netns.exists() {
        let mut command = Command::new("nsenter");
        command
            .arg(format!("--net={}", netns.display()))
            .arg("--")
            .arg(lbd);
        command
    } else {
        Command::new(lbd)
    };
    command.arg("--detach").arg("--socket").arg(socket);
    run(&mut command).map(drop).context("lbd --detach")
}

/// Whether anything is pinned by an lbd whose socket is in the directory `scratch`.
pub fn has_any(scratch: &Path) -> bool {
    let name = scratch.file_name().unwrap_or_default().to_string_lossy();
    let escaped = name.replace('-', "_2d");
    instances()
        .iter()
        .any(|instance| instance.to_string_lossy().contains(&escaped))
}

/// `BPF_MAP_LOOKUP_ELEM`, `BPF_MAP_UPDATE_ELEM` and `BPF_OBJ_GET` (`enum bpf_cmd`).
const MAP_LOOKUP: libc::c_long = 1;
const MAP_UPDATE: libc::c_long = 2;
const OBJECT_GET: libc::c_long = 7;

/// Bytes of the element of `INSTANCE`.
const INSTANCE_BYTES: usize = 128;

/// Makes a pinned datapath one of another ABI version: the first word of `INSTANCE`, in whatever version.
///
/// # Errors
/// What the kernel says.
pub fn set_abi_version(instance: &Path, version: u32) -> Result<()> {
    let path = CString::new(instance.join("maps/INSTANCE").as_os_str().as_bytes())?;
    let fd = bpf(OBJECT_GET, &[path.as_ptr() as u64, 0])?;
    // SAFETY: the kernel has just made this descriptor for us.
    let map = unsafe { OwnedFd::from_raw_fd(fd) };
    let (key, mut value) = (0_u32, [0_u8; INSTANCE_BYTES]);
    let element = [
        u64::from(map.as_raw_fd().cast_unsigned()),
        (&raw const key) as u64,
        value.as_mut_ptr() as u64,
        0,
    ];
    bpf(MAP_LOOKUP, &element)?;
    value[..4].copy_from_slice(&version.to_ne_bytes());
    bpf(MAP_UPDATE, &element).map(drop)
}

/// One `bpf()` call; pointers among the words are those of live buffers of the caller.
fn bpf(command: libc::c_long, attr: &[u64]) -> Result<i32> {
    // SAFETY: `attr` lives during the call and its size is given; see above for what it points to.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_ptr(), size_of_val(attr)) };
    if result < 0 {
        return Err(std::io::Error::last_os_error()).context("bpf()");
    }
    Ok(result as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_instances_of_ours_have_an_owner() {
        let owner = |name: &str| owner_pid(&Path::new(PINS_DIR).join(name));
        let ours = "tmp-lb_2dlbd_2d4711_2d0-lbd_2esock";
        assert_eq!(owner(ours).as_deref(), Some("4711"));
        assert_eq!(owner("run-lbd-lbd_2esock"), None);
        assert_eq!(owner("tmp-lb_2dlbd_2dx_2d0-lbd_2esock"), None);
    }
}

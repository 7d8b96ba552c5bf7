//! Starting `lbd-vrrp`, and ending the right process.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use nix::errno::Errno;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use super::Options;

const PROGRAM: &str = "lbd-vrrp";

/// Starts the program in a session of its own: what is sent to `lbd`'s terminal or process group does not reach it.
pub(super) fn spawn(options: &Options, socket: &Path) -> io::Result<Child> {
    let program = options.program.clone().unwrap_or_else(program);
    let mut command = Command::new(&program);
    command
        .arg("--socket")
        .arg(socket)
        .args(["--log", &options.log, "--log-format", &options.log_format])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .kill_on_drop(false);
    // SAFETY: between fork and exec the closure makes one system call, setsid, which is async-signal-safe
    // (signal-safety(7)), and touches no memory.
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            Ok(())
        });
    }
    command
        .spawn()
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", program.display())))
}

/// Beside `lbd`'s own program, or where the shell would find it.
fn program() -> PathBuf {
    let own = std::env::current_exe().ok();
    let beside = own.and_then(|own| Some(own.parent()?.join(PROGRAM)));
    beside
        .filter(|path| path.is_file())
        .unwrap_or_else(|| PROGRAM.into())
}

/// A process, held in a way that no other one can take its place.
pub(super) struct Peer {
    descriptor: OwnedFd,
}

impl Peer {
    /// The process at the other end of a connection; `None` if it cannot be found, or is no `lbd-vrrp`.
    pub(super) fn of(stream: &UnixStream) -> Option<Self> {
        let pid = stream.peer_cred().ok()?.pid()?;
        let descriptor = open(pid).ok()?;
        // Looked at after it is held: it is this one, or has ended.
        let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        (name.trim_end() == PROGRAM).then_some(Self { descriptor })
    }

    /// Sends it a signal; fine if it has ended.
    pub(super) fn signal(&self, signal: i32) -> io::Result<()> {
        let fd = self.descriptor.as_raw_fd();
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: no information goes along, which a null pointer says.
        let result = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, none, 0) };
        match Errno::result(result) {
            Ok(_) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Waits until it has ended.
    pub(super) async fn ended(&self) {
        let Ok(descriptor) = self.descriptor.as_fd().try_clone_to_owned() else {
            return;
        };
        let interest = tokio::io::Interest::READABLE;
        // SAFETY: the descriptor is owned, and closed on drop only.
        let registered = unsafe { AsyncFd::register_with_interest(descriptor, interest) };
        if let Ok(registered) = registered {
            let _ended = registered.readable().await;
        }
    }
}

fn open(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: the system call takes no pointers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us, with close-on-exec set.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

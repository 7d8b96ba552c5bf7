use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::TimeSpec;

use super::control::Wait;

/// Waits until one of the descriptors is ready or the time is over, whichever comes first. What is ready is not told:
/// whoever asks without waiting finds out, and the few system calls are cheaper than a register of descriptors.
///
/// # Errors
/// What the kernel says; a signal is no error.
pub(super) fn wait<'a>(
    descriptors: impl Iterator<Item = (BorrowedFd<'a>, Wait)>,
    timeout_us: u64,
) -> io::Result<()> {
    let mut waiting: Vec<PollFd<'_>> = descriptors
        .map(|(descriptor, wait)| PollFd::new(descriptor, flags(wait)))
        .collect();
    let timeout = TimeSpec::from_duration(Duration::from_micros(timeout_us));
    match ppoll(&mut waiting, Some(timeout), None) {
        Ok(_) | Err(Errno::EINTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn flags(wait: Wait) -> PollFlags {
    match wait {
        Wait::Read => PollFlags::POLLIN,
        Wait::ReadWrite => PollFlags::POLLIN | PollFlags::POLLOUT,
    }
}

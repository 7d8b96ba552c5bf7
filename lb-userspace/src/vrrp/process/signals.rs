use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// The signals that mean something.
pub(super) struct Signals(SignalFd);

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// To hand the VIPs over, and end.
    Stop,
    /// To end, and leave everything to a successor.
    MakeWay,
}

impl Signals {
    /// Has signals wait until they are asked for.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn catch() -> io::Result<Self> {
        let mut set = SigSet::empty();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1] {
            set.add(signal);
        }
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self(SignalFd::with_flags(&set, flags)?))
    }

    /// The next signal that has come.
    pub(super) fn next(&self) -> Option<Order> {
        let info = self.0.read_signal().ok()??;
        match Signal::try_from(info.ssi_signo.cast_signed()) {
            Ok(Signal::SIGUSR1) => Some(Order::MakeWay),
            _ => Some(Order::Stop),
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

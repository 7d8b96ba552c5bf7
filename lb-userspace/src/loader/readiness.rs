//! Waiting in tokio for descriptors that the kernel makes readable.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use aya::maps::{MapData, RingBuf};
use aya_log::EbpfLogger;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Owns a descriptor.
///
/// # Safety
/// `as_raw_fd` returns the same open descriptor as long as the value lives.
pub(crate) unsafe trait OwnsDescriptor: AsRawFd {}

// SAFETY: the descriptor is closed on drop only, and never exchanged.
unsafe impl OwnsDescriptor for OwnedFd {}
// SAFETY: the ring buffer holds its map, and with it the map's descriptor, until it is dropped.
unsafe impl OwnsDescriptor for RingBuf<MapData> {}
// SAFETY: the logger holds a ring buffer, see above.
unsafe impl<T> OwnsDescriptor for EbpfLogger<T> {}

/// Registers a descriptor for reading. Must be called within a tokio runtime.
///
/// # Errors
/// If the descriptor cannot be polled.
pub(crate) fn readable<T: OwnsDescriptor>(inner: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: what tokio asks for is what `OwnsDescriptor` promises.
    let registered = unsafe { AsyncFd::register_with_interest(inner, Interest::READABLE) };
    registered.map_err(Into::into)
}

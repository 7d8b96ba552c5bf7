//! A map's memory, mapped into the daemon.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// The values of an array map with `BPF_F_MMAPABLE`, one after the other.
pub(crate) struct Mapping {
    address: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: the mapping belongs to this value alone and is not tied to a thread.
unsafe impl Send for Mapping {}
// SAFETY: nothing can be read or written through `&self` but a raw address.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the first `len_bytes` bytes of the map behind `fd`.
    pub(crate) fn new(fd: BorrowedFd<'_>, len_bytes: usize) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice; `fd` is open during the call.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len_bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast()).ok_or(io::ErrorKind::AddrNotAvailable)?;
        Ok(Self { address, len_bytes })
    }

    /// Where the memory starts, on a page boundary.
    pub(crate) fn address(&self) -> NonNull<u8> {
        self.address
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `new` with this address and length, and nothing refers
        // to it any more.
        unsafe {
            libc::munmap(self.address.as_ptr().cast(), self.len_bytes);
        }
    }
}

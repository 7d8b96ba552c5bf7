//! The flow table of a datapath under test, as memory: to put it back to what it was before a burst.

use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;

use anyhow::{Context, Result, ensure};
use aya::maps::Map;
use lb_common::abi::{FLOW_SET_ENTRIES, FlowEntry, FlowSet, map_name};
use lb_common::limits::HALF_OPEN_TIMEOUT_S;
use lb_lab::datapath::kernel::LoadedDatapath;
use nix::time::{ClockId, clock_gettime};

/// The entries of `FLOWS`, mapped.
pub(crate) struct FlowMemory {
    address: NonNull<FlowEntry>,
    entry_count: usize,
}

impl FlowMemory {
    /// Maps the table of a datapath that is attached to nothing.
    pub(crate) fn map(datapath: &LoadedDatapath, set_count: u32) -> Result<Self> {
        let (_, map) = datapath
            .maps()
            .find(|(name, _)| *name == map_name::FLOWS)
            .context("the object has no map FLOWS")?;
        let Map::Array(flows) = map else {
            anyhow::bail!("the map FLOWS is no array");
        };
        let entry_count = set_count as usize * FLOW_SET_ENTRIES;
        // SAFETY: a new mapping at an address of the kernel's choice; the map is open during the call.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                entry_count * size_of::<FlowEntry>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                flows.fd().as_fd().as_raw_fd(),
                0,
            )
        };
        ensure!(
            address != libc::MAP_FAILED,
            "cannot map FLOWS: {}",
            std::io::Error::last_os_error()
        );
        let address = NonNull::new(address.cast()).context("FLOWS is mapped at address 0")?;
        Ok(Self {
            address,
            entry_count,
        })
    }

    /// All entries.
    pub(crate) fn entries(&mut self) -> &mut [FlowEntry] {
        // SAFETY: the mapping is as long, is this value's own, and holds plain old data. The program
        // that writes it too is attached to nothing: it runs only in a system call of this thread, which
        // holds no reference across it.
        unsafe { std::slice::from_raw_parts_mut(self.address.as_ptr(), self.entry_count) }
    }

    /// Entries that are taken.
    pub(crate) fn taken_count(&mut self) -> u32 {
        let is_taken = |entry: &&FlowEntry| entry.fingerprint != 0;
        self.entries().iter().filter(is_taken).count() as u32
    }

    /// Makes every half-open flow as old as this. Unit: seconds.
    pub(crate) fn age_half_open(&mut self, age_s: u32) -> Result<()> {
        // The packet path's clock.
        let now_s = clock_gettime(ClockId::CLOCK_MONOTONIC)?.tv_sec() as u32;
        let expires_s = now_s + HALF_OPEN_TIMEOUT_S - age_s;
        for entry in self.entries() {
            let state = entry.record.state();
            if entry.fingerprint != 0 && state.is_half_open() {
                entry.record = entry.record.updated(expires_s, state);
            }
        }
        Ok(())
    }
}

impl Drop for FlowMemory {
    fn drop(&mut self) {
        // SAFETY: the mapping was made in `map` with this address and length, and nothing refers to it
        // any more.
        unsafe {
            libc::munmap(
                self.address.as_ptr().cast(),
                self.entry_count * size_of::<FlowEntry>(),
            );
        }
    }
}

const _: () = assert!(size_of::<FlowSet>() == FLOW_SET_ENTRIES * size_of::<FlowEntry>());

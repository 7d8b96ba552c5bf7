//! The storage of the rings, mapped into the daemon.

use std::io;
use std::os::fd::BorrowedFd;

use lb_common::limits::RING_BLOCK_SLOTS;

use super::mapping::Mapping;

/// `RINGS` as memory. Writing a ring through it takes 5 µs; through the system call it takes 21 ms.
pub(super) struct RingMemory {
    mapping: Mapping,
    slot_count: usize,
}

impl RingMemory {
    /// Maps `block_count` blocks of the map behind `fd`, whose elements are one block each.
    pub(super) fn map(fd: BorrowedFd<'_>, block_count: u32) -> io::Result<Self> {
        let slot_count = block_count as usize * RING_BLOCK_SLOTS;
        let mapping = Mapping::new(fd, slot_count * size_of::<u32>())?;
        Ok(Self {
            mapping,
            slot_count,
        })
    }

    /// A copy of `slot_count` slots from the start of block `block`.
    pub(super) fn read(&self, block: u32, slot_count: u32) -> io::Result<Vec<u32>> {
        let (start, len) = (block as usize * RING_BLOCK_SLOTS, slot_count as usize);
        if start + len > self.slot_count {
            return Err(io::Error::other("the ring is beyond the storage"));
        }
        let mut ring = vec![0; len];
        let slots = self.mapping.address().cast::<u32>();
        // SAFETY: the source lies within the mapping, as was just checked, and does not overlap `ring`;
        // whoever may write a ring through this mapping has it borrowed mutably.
        unsafe {
            std::ptr::copy_nonoverlapping(slots.as_ptr().add(start), ring.as_mut_ptr(), len);
        }
        Ok(ring)
    }

    /// Copies a ring to the start of block `block`. No packet may be reading those blocks.
    pub(super) fn write(&mut self, block: u32, ring: &[u32]) -> io::Result<()> {
        let start = block as usize * RING_BLOCK_SLOTS;
        if start + ring.len() > self.slot_count {
            return Err(io::Error::other("the ring does not fit into the storage"));
        }
        let slots = self.mapping.address().cast::<u32>();
        // SAFETY: the destination lies within the mapping, as was just checked, and does not
        // overlap `ring`, which is memory of this process.
        unsafe {
            std::ptr::copy_nonoverlapping(ring.as_ptr(), slots.as_ptr().add(start), ring.len());
        }
        Ok(())
    }
}

//! Rings into storage of another size.

use std::collections::BTreeMap;
use std::io;

use lb_common::abi::Service;

use crate::desired::ring::blocks_for;
use crate::model::Limits;
use crate::pins::{PinError, RawMap};

/// Where the rings that are in use go: first block → first block, with how many there are.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Relocation {
    rings: BTreeMap<u32, (u32, u32)>,
}

/// Where each ring goes in storage of the size in `limits`: where it is, if all can stay.
///
/// # Errors
/// [`PinError::TooSmall`]: the blocks do not suffice.
pub(super) fn plan<'s>(
    services: impl Iterator<Item = &'s Service>,
    limits: &Limits,
) -> Result<Relocation, PinError> {
    let mut rings: Vec<(u32, u32)> = services
        .map(|service| (service.ring_block, blocks_for(service.ring_len)))
        .filter(|(_, count)| *count > 0)
        .collect();
    rings.sort_unstable();
    rings.dedup();
    let needed: u32 = rings.iter().map(|(_, count)| count).sum();
    if needed > limits.ring_blocks {
        return Err(PinError::TooSmall {
            setting: "limits.ring_blocks",
            max: limits.ring_blocks,
            needed,
        });
    }
    let fits = |(start, count): &(u32, u32)| start + count <= limits.ring_blocks;
    let stays = rings.iter().all(fits);
    let mut free = 0;
    let place = |(start, count): (u32, u32)| {
        let target = if stays { start } else { free };
        free += count;
        (start, (target, count))
    };
    Ok(Relocation {
        rings: rings.into_iter().map(place).collect(),
    })
}

impl Relocation {
    /// Whether any ring is somewhere else afterwards.
    pub(super) fn moves_any(&self) -> bool {
        self.rings
            .iter()
            .any(|(start, (target, _))| start != target)
    }

    /// The new first block of the ring at `block`.
    pub(super) fn block(&self, block: u32) -> u32 {
        self.rings.get(&block).map_or(block, |(target, _)| *target)
    }

    /// Copies the rings.
    pub(super) fn carry(&self, source: &RawMap, target: &RawMap) -> io::Result<()> {
        for (start, (moved, count)) in &self.rings {
            for offset in 0..*count {
                let slots = source.element(start + offset)?;
                let slots = slots.ok_or_else(|| io::Error::other("a ring beyond the storage"))?;
                target.put(&(moved + offset).to_ne_bytes(), &slots)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use bytemuck::Zeroable;
    use lb_common::limits::RING_BLOCK_SLOTS;

    use super::*;

    fn service(ring_block: u32, blocks: u32) -> Service {
        Service {
            ring_block,
            ring_len: blocks * RING_BLOCK_SLOTS as u32,
            ..Service::zeroed()
        }
    }

    fn limits(ring_blocks: u32) -> Limits {
        Limits {
            ring_blocks,
            ..Limits::default()
        }
    }

    #[test]
    fn rings_stay_where_they_are_if_all_can() {
        let services = [service(0, 1), service(5, 0), service(12, 4)];
        let relocation = plan(services.iter(), &limits(16)).unwrap();
        assert!(!relocation.moves_any());
        assert_eq!(relocation.block(12), 12);
    }

    #[test]
    fn in_smaller_storage_they_move_together() {
        let services = [service(1, 1), service(12, 4), service(9, 2)];
        let relocation = plan(services.iter(), &limits(8)).unwrap();
        assert!(relocation.moves_any());
        let moved = services.iter().flat_map(|service| {
            let start = relocation.block(service.ring_block);
            start..start + blocks_for(service.ring_len)
        });
        assert_eq!(moved.collect::<BTreeSet<u32>>(), (0..7).collect());
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let services = [service(0, 4), service(4, 4)];
        let error = plan(services.iter(), &limits(7)).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "`limits.ring_blocks` is 7, and the datapath that is in force needs 8"
            ),
            "{error}"
        );
    }
}

use bytemuck::{Pod, Zeroable};

use crate::limits::BACKEND_ID_MAX;

/// One slot of a ring: `{ current: 16 bits, previous: 15 bits, quiet: 1 bit }` from the least
/// significant bit up. Ids are backend ids, 0 = none.
///
/// | slot | name | meaning |
/// |---|---|---|
/// | `{c, 0}` | settled | every packet goes to c; no flow state is read or written |
/// | `{c, c}` | armed | as settled, but consult and record: a change is being prepared |
/// | `{c, p}` | moving | new flows go to c and are recorded; a flow not in the table goes to p |
/// | `{c, c, quiet}` | quiet | consult only: exceptions to c still live |
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
pub struct Slot(pub u32);

const PREVIOUS_SHIFT: u32 = 16;
const QUIET: u32 = 1 << 31;

impl Slot {
    /// A slot without a backend.
    pub const EMPTY: Self = Self(0);

    /// A settled slot: every packet goes to `current`.
    #[inline(always)]
    pub const fn settled(current: u16) -> Self {
        Self(current as u32)
    }

    /// A slot in transition. `previous` above [`BACKEND_ID_MAX`] loses its top bit.
    #[inline(always)]
    pub const fn in_transition(current: u16, previous: u16) -> Self {
        Self(current as u32 | (((previous & BACKEND_ID_MAX) as u32) << PREVIOUS_SHIFT))
    }

    /// The same slot with the quiet bit set: consult the flow table, record nothing.
    #[inline(always)]
    pub const fn quieted(self) -> Self {
        Self(self.0 | QUIET)
    }

    /// The backend that new flows go to; 0 = none.
    #[inline(always)]
    pub const fn current(self) -> u16 {
        self.0 as u16
    }

    /// The backend of flows that are in no table, while the slot moves; 0 = none.
    #[inline(always)]
    pub const fn previous(self) -> u16 {
        (self.0 >> PREVIOUS_SHIFT) as u16 & BACKEND_ID_MAX
    }

    /// Whether the flow table has nothing to say: every packet goes to `current`.
    #[inline(always)]
    pub const fn is_settled(self) -> bool {
        self.previous() == 0
    }

    /// Whether the slot only consults the flow table.
    #[inline(always)]
    pub const fn is_quiet(self) -> bool {
        self.0 & QUIET != 0
    }

    /// The answer for a flow that is not in the table: `previous` if set, else `current`.
    #[inline(always)]
    pub const fn miss(self) -> u16 {
        if self.previous() != 0 {
            self.previous()
        } else {
            self.current()
        }
    }
}

impl core::fmt::Debug for Slot {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(
            f,
            "{{{}, {}{}}}",
            self.current(),
            self.previous(),
            if self.is_quiet() { ", quiet" } else { "" }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_touch_each_other() {
        let slot = Slot::in_transition(u16::MAX, BACKEND_ID_MAX).quieted();
        assert_eq!(
            (slot.current(), slot.previous(), slot.is_quiet()),
            (u16::MAX, BACKEND_ID_MAX, true)
        );
        let slot = Slot::settled(u16::MAX);
        assert_eq!(
            (slot.current(), slot.previous(), slot.is_quiet()),
            (u16::MAX, 0, false)
        );
        let slot = Slot::in_transition(0, BACKEND_ID_MAX);
        assert_eq!(
            (slot.current(), slot.previous(), slot.is_quiet()),
            (0, BACKEND_ID_MAX, false)
        );
    }

    #[test]
    fn miss_is_previous_while_moving_and_current_otherwise() {
        assert_eq!(Slot::settled(7).miss(), 7);
        assert_eq!(Slot::in_transition(7, 7).miss(), 7);
        assert_eq!(Slot::in_transition(7, 3).miss(), 3);
        assert_eq!(Slot::EMPTY.miss(), 0);
    }
}

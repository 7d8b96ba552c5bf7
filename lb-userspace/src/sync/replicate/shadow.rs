//! What a peer knows of this node's flow table, as far as this node knows: eight bytes for each place.

use lb_common::abi::{FLOW_SET_ENTRIES, FlowEntry};
use lb_common::datapath::flow::FlowPlace;
use lb_common::hash;

/// Bits of an expiry, as [`lb_common::abi::FlowRecord`] has it.
const EXPIRY_BITS: u32 = 24;
const EXPIRY_MASK: u64 = (1 << EXPIRY_BITS) - 1;

/// By place, `{ what the peer knows: 40 bits of a hash, expiry: 24 }`; 0 = nothing. Two records of a place have the
/// same hash once in 10^12; such a change is told when the flow's expiry is.
#[derive(Debug)]
pub struct Shadow {
    words: Vec<u64>,
}

/// What a peer may know of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    /// Nothing, or something else.
    No,
    /// All but the expiry, which is now so much later. Unit: seconds.
    Until { later_s: i32 },
}

impl Shadow {
    /// Of a peer that knows nothing.
    pub fn new(set_count: u32) -> Self {
        Self {
            words: vec![0; set_count as usize * FLOW_SET_ENTRIES],
        }
    }

    /// The peer knows nothing any more.
    pub fn clear(&mut self) {
        self.words.fill(0);
    }

    /// Nothing is known any more of what the peer knows of a place.
    pub fn forget(&mut self, place: FlowPlace) {
        self.words[place.0 as usize] = 0;
    }

    /// The peer knows this entry.
    pub fn set(&mut self, place: FlowPlace, entry: &FlowEntry) {
        self.words[place.0 as usize] = word(entry);
    }

    /// Whether the peer must be told of an entry: it does not know it, or only with an expiry that is earlier by
    /// `refresh_s` or more.
    pub fn differs(
        &self,
        place: FlowPlace,
        entry: &FlowEntry,
        refresh_s: impl FnOnce() -> u32,
    ) -> bool {
        match known(self.words[place.0 as usize], entry) {
            Known::No => true,
            Known::Until { later_s } => later_s > 0 && later_s as u32 >= refresh_s(),
        }
    }
}

fn known(word: u64, entry: &FlowEntry) -> Known {
    if word & !EXPIRY_MASK != self::word(entry) & !EXPIRY_MASK {
        return Known::No;
    }
    Known::Until {
        later_s: entry.record.remaining_s((word & EXPIRY_MASK) as u32),
    }
}

fn word(entry: &FlowEntry) -> u64 {
    let timeless = entry.record.updated(0, entry.record.state()).0;
    let hash = hash::mix(entry.fingerprint ^ hash::mix(timeless)) & !EXPIRY_MASK;
    // Not 0, which is nothing.
    let hash = hash | 1 << (u64::BITS - 1);
    hash | entry.record.remaining_s(0) as u64 & EXPIRY_MASK
}

#[cfg(test)]
mod tests {
    use lb_common::abi::{FlowRecord, FlowState};

    use super::*;

    const PLACE: FlowPlace = FlowPlace(9);

    fn entry(backend_id: u16, expires_s: u32, state: FlowState) -> FlowEntry {
        FlowEntry {
            fingerprint: 77,
            record: FlowRecord::new(backend_id, 1, expires_s, state),
        }
    }

    #[test]
    fn a_peer_is_told_of_what_it_does_not_know_and_of_an_expiry_that_is_much_later() {
        let mut shadow = Shadow::new(2);
        let told = entry(1, 1000, FlowState::OPEN);
        assert!(shadow.differs(PLACE, &told, || 30));
        shadow.set(PLACE, &told);
        assert!(!shadow.differs(PLACE, &told, || 30));
        assert!(!shadow.differs(PLACE, &entry(1, 1029, FlowState::OPEN), || 30));
        assert!(shadow.differs(PLACE, &entry(1, 1030, FlowState::OPEN), || 30));
        assert!(!shadow.differs(PLACE, &entry(1, 900, FlowState::OPEN), || 30));
        assert!(shadow.differs(PLACE, &entry(2, 1000, FlowState::OPEN), || 30));
        assert!(shadow.differs(PLACE, &entry(1, 1000, FlowState::FIN), || 30));
        let other = FlowEntry {
            fingerprint: 78,
            ..told
        };
        assert!(shadow.differs(PLACE, &other, || 30));
        shadow.forget(PLACE);
        assert!(shadow.differs(PLACE, &told, || 30));
        shadow.set(PLACE, &told);
        shadow.clear();
        assert!(shadow.differs(PLACE, &told, || 30));
    }

    #[test]
    fn expiries_compare_across_the_wrap_of_their_bits() {
        let mut shadow = Shadow::new(2);
        shadow.set(PLACE, &entry(1, 0x00ff_fff0, FlowState::OPEN));
        assert!(shadow.differs(PLACE, &entry(1, 0x0100_000e, FlowState::OPEN), || 30));
        assert!(!shadow.differs(PLACE, &entry(1, 0x0100_000d, FlowState::OPEN), || 30));
    }
}

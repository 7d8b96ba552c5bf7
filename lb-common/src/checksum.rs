//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! All words are taken as they stand in the packet: one's complement addition is indifferent to
//! byte order as long as it is the same everywhere (RFC 1071 section 2 (B)).

use crate::abi::Address;

/// What has changed under a checksum: the one's complement sum of new minus old, unfolded.
#[derive(Clone, Copy, Debug, Default)]
pub struct Difference(u64);

impl Difference {
    /// Nothing has changed.
    pub const NONE: Self = Self(0);

    /// A 16-bit word has changed.
    #[inline(always)]
    pub const fn word(self, old: u16, new: u16) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// A 32-bit word has changed.
    #[inline(always)]
    pub const fn long(self, old: u32, new: u32) -> Self {
        Self(self.0 + (!old) as u64 + new as u64)
    }

    /// An address has changed. For IPv4 the three constant words of the mapped form cancel out.
    #[inline(always)]
    pub const fn address(self, old: &Address, new: &Address) -> Self {
        self.long(old.0[0], new.0[0])
            .long(old.0[1], new.0[1])
            .long(old.0[2], new.0[2])
            .long(old.0[3], new.0[3])
    }

    /// The checksum that was `checksum` before the change (RFC 1624, equation 3).
    #[inline(always)]
    pub const fn apply(self, checksum: u16) -> u16 {
        !fold(self.0 + (!checksum) as u64)
    }

    /// As [`Difference::apply`] for UDP, where 0 means "no checksum" (RFC 768): it stays 0, and a
    /// computed 0 is sent as its other representation.
    #[inline(always)]
    pub const fn apply_udp(self, checksum: u16) -> u16 {
        if checksum == 0 {
            return 0;
        }
        let updated = self.apply(checksum);
        if updated == 0 { u16::MAX } else { updated }
    }
}

/// Folds a sum into 16 bits. Branch-free: at most three carries can follow a 64-bit sum.
#[inline(always)]
pub const fn fold(sum: u64) -> u16 {
    let sum = (sum >> 32) + (sum & 0xffff_ffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    let sum = (sum >> 16) + (sum & 0xffff);
    sum as u16
}

/// The checksum of `bytes` (an odd last byte is padded with zero), for headers written from
/// scratch and for tests. In memory order, like everything here.
pub fn of_bytes(bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let sum = words
        .iter()
        .map(|word| u64::from(u16::from_ne_bytes(*word)))
        .sum::<u64>();
    let last = rest
        .first()
        .map_or(0, |byte| u64::from(u16::from_ne_bytes([*byte, 0])));
    !fold(sum + last)
}

#[cfg(test)]
mod tests {
    extern crate std;
    use std::vec::Vec;
    use std::*;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rfc_1071_example() {
        // RFC 1071 section 3: the sum of these bytes is ddf2.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(of_bytes(&bytes), !u16::from_ne_bytes([0xdd, 0xf2]));
    }

    #[test]
    fn rfc_1624_example() {
        // RFC 1624 section 4: 0xdd2f with 0x5555 → 0x3285 gives 0x0000, not 0xffff.
        let be = |word: u16| word.to_be();
        assert_eq!(
            Difference::NONE
                .word(be(0x5555), be(0x3285))
                .apply(be(0xdd2f)),
            0x0000
        );
    }

    #[test]
    fn udp_zero_stays_zero_and_is_never_computed() {
        assert_eq!(Difference::NONE.word(1, 2).apply_udp(0), 0);
        let be = |word: u16| word.to_be();
        assert_eq!(
            Difference::NONE
                .word(be(0x5555), be(0x3285))
                .apply_udp(be(0xdd2f)),
            0xffff
        );
    }

    proptest! {
        /// An incremental update equals the checksum computed anew, for any packet and any change.
        #[test]
        fn incremental_equals_full(
            mut bytes in prop::collection::vec(any::<u8>(), 32..200),
            at in 0_usize..4,
            new in any::<[u32; 4]>(),
        ) {
            let at = at * 4;
            let before = of_bytes(&bytes);
            let old: Vec<u32> =
                (0..4).map(|n| u32::from_ne_bytes(bytes[at + n * 4..at + n * 4 + 4].try_into().unwrap_or_default())).collect();
            for (n, word) in new.iter().enumerate() {
                bytes[at + n * 4..at + n * 4 + 4].copy_from_slice(&word.to_ne_bytes());
            }
            let old = Address([old[0], old[1], old[2], old[3]]);
            let updated = Difference::NONE.address(&old, &Address(new)).apply(before);
            let full = of_bytes(&bytes);
            // +0 and -0 are the same number; a packet of zeros only can tell them apart.
            prop_assert!(updated == full || bytes.iter().all(|&byte| byte == 0));
        }
    }
}

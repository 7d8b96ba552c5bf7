//! Numbers from a seed, and what they do to bytes.

use lb_common::hash;

/// A sequence of numbers that a seed decides.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Self {
        Self(hash::mix(seed))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash::mix(self.0)
    }

    /// Below `end`, which is at least 1.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend(self.next().to_le_bytes());
        }
        bytes.truncate(len);
        bytes
    }

    /// Does harm: the result differs from what it was, or has been cut or prolonged.
    pub(crate) fn spoil(&mut self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        match self.below(6) {
            0 if len > 0 => bytes.truncate(self.below(len)),
            1 => {
                let more = 1 + self.below(300);
                bytes.extend(self.bytes(more));
            }
            2 if len > 0 => {
                let place = self.below(len);
                let piece = self.bytes((len - place).min(8));
                bytes[place..place + piece.len()].copy_from_slice(&piece);
                bytes[place] ^= 1;
            }
            3 => {
                let len = self.below(1300);
                *bytes = self.bytes(len);
            }
            4 if len > 1 => {
                let place = self.below(len);
                bytes.remove(place);
            }
            _ if len > 0 => {
                for _ in 0..=self.below(4) {
                    let bit = self.below(len * 8);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
            }
            _ => bytes.push(0),
        }
    }
}

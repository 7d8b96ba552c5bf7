//! What the disruption proof's clients and servers say to each other, over TCP and UDP: records of
//! one length.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// Length of a record. Unit: bytes.
pub const RECORD_LEN: usize = 40;

/// The first four bytes of every record.
const MAGIC: u32 = 0x6c62_6470;

/// Records that a server sends at once in a download.
pub const DOWNLOAD_BURST_RECORDS: usize = 25;
/// Time between two bursts of a download.
pub const DOWNLOAD_INTERVAL: Duration = Duration::from_millis(100);

/// What a record is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// To be sent back as it is, with the server's number in it.
    Echo,
    /// Asks for records until the client is gone; and each of those.
    Download,
}

/// A record. On the wire: little-endian, in the order of the fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is for.
    pub kind: Kind,
    /// The server's number; 0 from a client.
    pub server: u8,
    /// The client's connection.
    pub flow: u64,
    /// Number of the record within the connection.
    pub sequence: u64,
    /// The event under which it was sent.
    pub epoch: u64,
    /// When it was sent, by [`now_ns`]. One machine, one clock. Unit: nanoseconds.
    pub sent_ns: u64,
}

/// `CLOCK_MONOTONIC`, which client and servers of a laboratory share.
pub fn now_ns() -> u64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from);
    now.map_or(0, |now| now.as_nanos() as u64)
}

impl Record {
    /// The record's bytes.
    pub fn bytes(&self) -> [u8; RECORD_LEN] {
        let mut bytes = [0; RECORD_LEN];
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4] = match self.kind {
            Kind::Echo => 1,
            Kind::Download => 2,
        };
        bytes[5] = self.server;
        let words = [self.flow, self.sequence, self.epoch, self.sent_ns];
        for (place, word) in bytes[8..].chunks_exact_mut(8).zip(words) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Reads a record; `None`: these bytes are none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD_LEN] = bytes.try_into().ok()?;
        let word = |at: usize| {
            let mut word = [0; 8];
            word.copy_from_slice(&bytes[at..at + 8]);
            u64::from_le_bytes(word)
        };
        let is_ours = bytes[..4] == MAGIC.to_le_bytes() && bytes[6..8] == [0, 0];
        let kind = match bytes[4] {
            1 => Kind::Echo,
            2 => Kind::Download,
            _ => return None,
        };
        is_ours.then(|| Self {
            kind,
            server: bytes[5],
            flow: word(8),
            sequence: word(16),
            epoch: word(24),
            sent_ns: word(32),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_and_a_damaged_one_is_noticed() {
        let record = Record {
            kind: Kind::Download,
            server: 3,
            flow: 1 << 40,
            sequence: 7,
            epoch: 2,
            sent_ns: u64::MAX,
        };
        let bytes = record.bytes();
        assert_eq!(Record::parse(&bytes), Some(record));
        for place in [0, 4, 6] {
            let mut damaged = bytes;
            damaged[place] ^= 0x80;
            assert_eq!(Record::parse(&damaged), None, "byte {place}");
        }
        assert_eq!(Record::parse(&bytes[1..]), None);
    }
}

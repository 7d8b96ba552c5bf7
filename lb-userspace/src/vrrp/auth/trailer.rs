//! The trailer as it stands behind the address list.
//!
//! ```text
//! magic 4 | version 1 | kind 1 | flags 1 | echo count 1 | session 8 | counter 8 | challenge 8 | target 8
//! | echoes 8 each | code 16                                                 all in network byte order
//! ```

use crate::vrrp::packet::{Refusal, TRAILER_MAGIC};

const TRAILER_VERSION: u8 = 1;
/// What stands before the echoes. Unit: bytes.
const FIXED_BYTES: usize = 40;
/// The authentication code. Unit: bytes.
pub(super) const CODE_BYTES: usize = 16;
const CHALLENGE_BYTES: usize = 8;
/// Challenges repeated in a packet.
pub(super) const ECHO_MAX: usize = 16;

/// What a packet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::vrrp) enum Kind {
    /// What RFC 9568 knows.
    Advertisement,
    /// "I am here": challenges and the sender's condition.
    Hello,
    /// To `target`: become Active.
    HandOverRequest,
    /// To `target`: no.
    HandOverDeclined,
}

impl Kind {
    const ALL: [Self; 4] = [
        Self::Advertisement,
        Self::Hello,
        Self::HandOverRequest,
        Self::HandOverDeclined,
    ];

    const fn number(self) -> u8 {
        match self {
            Self::Advertisement => 0,
            Self::Hello => 1,
            Self::HandOverRequest => 2,
            Self::HandOverDeclined => 3,
        }
    }
}

/// What a sender says of itself, besides its priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::vrrp) struct Flags {
    /// It does not know somebody yet: answer it.
    pub(in crate::vrrp) wants_echo: bool,
    /// It has not caught up with its peers.
    pub(in crate::vrrp) is_behind: bool,
    /// It cannot have the VIPs.
    pub(in crate::vrrp) is_fault: bool,
    /// It has just become Active: the first advertisement of that time.
    pub(in crate::vrrp) is_first: bool,
}

impl Flags {
    const fn byte(self) -> u8 {
        self.wants_echo as u8
            | (self.is_behind as u8) << 1
            | (self.is_fault as u8) << 2
            | (self.is_first as u8) << 3
    }

    /// Unknown flags are ignored: later versions may have them.
    const fn of(byte: u8) -> Self {
        Self {
            wants_echo: byte & 1 != 0,
            is_behind: byte & 2 != 0,
            is_fault: byte & 4 != 0,
            is_first: byte & 8 != 0,
        }
    }
}

/// A trailer, as it stands in a packet.
#[derive(Debug)]
pub(super) struct Trailer<'a> {
    pub(super) kind: Kind,
    pub(super) flags: Flags,
    pub(super) session: u64,
    pub(super) counter: u64,
    pub(super) challenge: u64,
    /// For whom it is; 0 = everybody.
    pub(super) target: u64,
    /// The challenges that are repeated.
    pub(super) echoes: &'a [[u8; CHALLENGE_BYTES]],
}

impl<'a> Trailer<'a> {
    /// From what is behind the addresses. Its code is not looked at.
    pub(super) fn read(bytes: &'a [u8]) -> Result<Self, Refusal> {
        if bytes.is_empty() {
            return Err(Refusal::NoTrailer);
        }
        let malformed = Refusal::TrailerMalformed;
        let (fixed, rest) = bytes.split_first_chunk::<FIXED_BYTES>().ok_or(malformed)?;
        if !fixed.starts_with(&TRAILER_MAGIC) {
            return Err(malformed);
        }
        if fixed[4] != TRAILER_VERSION {
            return Err(Refusal::TrailerVersion(fixed[4]));
        }
        let echo_count = usize::from(fixed[7]);
        if echo_count > ECHO_MAX || rest.len() != echo_count * CHALLENGE_BYTES + CODE_BYTES {
            return Err(malformed);
        }
        let (echoes, _) = rest[..echo_count * CHALLENGE_BYTES].as_chunks();
        let kind = Kind::ALL
            .into_iter()
            .find(|kind| kind.number() == fixed[5])
            .ok_or(malformed)?;
        Ok(Self {
            kind,
            flags: Flags::of(fixed[6]),
            session: first_u64(&fixed[8..]),
            counter: first_u64(&fixed[16..]),
            challenge: first_u64(&fixed[24..]),
            target: first_u64(&fixed[32..]),
            echoes,
        })
    }

    /// Puts it behind a packet, without its code. There are no more than [`ECHO_MAX`] echoes.
    pub(super) fn write(&self, packet: &mut Vec<u8>) {
        packet.extend(TRAILER_MAGIC);
        packet.extend([
            TRAILER_VERSION,
            self.kind.number(),
            self.flags.byte(),
            self.echoes.len() as u8,
        ]);
        for field in [self.session, self.counter, self.challenge, self.target] {
            packet.extend(field.to_be_bytes());
        }
        for echo in self.echoes {
            packet.extend(echo);
        }
    }

    pub(super) fn echoes(&self) -> impl Iterator<Item = u64> {
        self.echoes.iter().map(|echo| u64::from_be_bytes(*echo))
    }
}

/// The first eight bytes; zeros stand for those that are missing.
pub(super) fn first_u64(bytes: &[u8]) -> u64 {
    let mut first = [0; 8];
    for (to, from) in first.iter_mut().zip(bytes) {
        *to = *from;
    }
    u64::from_be_bytes(first)
}

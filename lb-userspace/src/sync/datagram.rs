//! Datagrams of the peer link: sealed, opened, and each taken once. No clock and no I/O.
//!
//! ```text
//!   magic: u32 | session: u64 | sequence: u64 | ciphertext of { kind: u16, payload } | tag: 16 bytes
//! ```
//!
//! in network byte order. The cipher is ChaCha20-Poly1305 (RFC 8439); the nonce is the sequence number, which
//! counts up and never repeats in a session; what stands before the ciphertext is authenticated with it. The key
//! and the session's number are random, made anew by the sender for each session and told over its stream.

use std::fmt;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use ring::rand::{SecureRandom as _, SystemRandom};

/// The longest datagram: what IPv6 carries everywhere (RFC 8200 section 5) without its header and UDP's. Unit:
/// bytes.
pub const DATAGRAM_MAX_BYTES: usize = 1280 - 40 - 8;
/// The longest payload. Unit: bytes.
pub const PAYLOAD_MAX_BYTES: usize = DATAGRAM_MAX_BYTES - HEADER_BYTES - KIND_BYTES - TAG_BYTES;
/// Datagrams that may overtake one that is still taken.
pub const REPLAY_WINDOW: u64 = 4096;

/// Tells these datagrams from others, and their layout from later ones.
const MAGIC: u32 = u32::from_be_bytes(*b"LBD\x01");
const HEADER_BYTES: usize = 4 + 8 + 8;
const KIND_BYTES: usize = 2;
const TAG_BYTES: usize = 16;
const NONCE_PADDING_BYTES: usize = 4;
const WORD_BITS: u64 = u64::BITS as u64;
/// One more than the window fills: the newest word is rarely full.
const WINDOW_WORDS: usize = (REPLAY_WINDOW / WORD_BITS) as usize + 1;

/// What the receiver must know to open a sender's datagrams. Told over the session's stream.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct DatagramKey {
    /// Says which key it is; random.
    pub session: u64,
    /// The key.
    pub key: [u8; 32],
}

impl DatagramKey {
    /// A new one.
    ///
    /// # Panics
    /// If the system gives no random bytes.
    pub fn random() -> Self {
        let (mut session, mut key) = ([0; 8], [0; 32]);
        let random = SystemRandom::new();
        random
            .fill(&mut session)
            .and_then(|()| random.fill(&mut key))
            .expect("the system gives random bytes");
        Self {
            session: u64::from_be_bytes(session),
            key,
        }
    }

    fn cipher(&self) -> LessSafeKey {
        let key = UnboundKey::new(&CHACHA20_POLY1305, &self.key);
        LessSafeKey::new(key.expect("the key has the cipher's length"))
    }
}

impl fmt::Debug for DatagramKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DatagramKey({:016x})", self.session)
    }
}

/// The sender's end.
pub struct Sealer {
    session: u64,
    cipher: LessSafeKey,
    sequence: u64,
}

impl Sealer {
    /// A sealer with a key that no other one has had.
    pub fn new(key: &DatagramKey) -> Self {
        Self {
            session: key.session,
            cipher: key.cipher(),
            sequence: 0,
        }
    }

    /// Datagrams sealed.
    pub fn count(&self) -> u64 {
        self.sequence
    }

    /// Makes `datagram` the next one, of this content.
    ///
    /// # Panics
    /// If the payload is longer than [`PAYLOAD_MAX_BYTES`].
    pub fn seal(&mut self, kind: u16, payload: &[u8], datagram: &mut Vec<u8>) {
        assert!(
            payload.len() <= PAYLOAD_MAX_BYTES,
            "{} bytes",
            payload.len()
        );
        datagram.clear();
        datagram.extend(MAGIC.to_be_bytes());
        datagram.extend(self.session.to_be_bytes());
        datagram.extend(self.sequence.to_be_bytes());
        datagram.extend(kind.to_be_bytes());
        datagram.extend(payload);
        let (header, clear) = datagram.split_at_mut(HEADER_BYTES);
        let tag = self
            .cipher
            .seal_in_place_separate_tag(nonce(self.sequence), Aad::from(&*header), clear)
            .expect("the payload is far shorter than the cipher's limit");
        datagram.extend(tag.as_ref());
        self.sequence += 1;
    }
}

/// Why a datagram is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// It has another form, or a session that is not this one.
    #[error("it is of no session")]
    Stranger,
    /// It was taken before, or is older than the window.
    #[error("it was taken before, or is too old")]
    Replayed,
    /// The sender has not made it.
    #[error("it is not authentic")]
    Forged,
}

/// The receiver's end.
pub struct Opener {
    session: u64,
    cipher: LessSafeKey,
    window: Window,
    opened_count: u64,
}

impl Opener {
    /// For the datagrams of a sender with this key.
    pub fn new(key: &DatagramKey) -> Self {
        Self {
            session: key.session,
            cipher: key.cipher(),
            window: Window::default(),
            opened_count: 0,
        }
    }

    /// Datagrams opened.
    pub fn count(&self) -> u64 {
        self.opened_count
    }

    /// Datagrams that the sender has sent and that have not arrived, or not yet.
    pub fn missing_count(&self) -> u64 {
        self.window.next - self.opened_count
    }

    /// Opens a datagram in its place: its kind and its payload.
    ///
    /// # Errors
    /// [`Rejected`]: nothing has changed.
    pub fn open<'a>(&mut self, datagram: &'a mut [u8]) -> Result<(u16, &'a [u8]), Rejected> {
        let (session, sequence) = header_of(datagram).ok_or(Rejected::Stranger)?;
        if session != self.session {
            return Err(Rejected::Stranger);
        }
        if !self.window.is_new(sequence) {
            return Err(Rejected::Replayed);
        }
        let (header, sealed) = datagram.split_at_mut(HEADER_BYTES);
        let clear = self
            .cipher
            .open_in_place(nonce(sequence), Aad::from(&*header), sealed)
            .map_err(|_| Rejected::Forged)?;
        let (kind, payload) = clear
            .split_first_chunk::<KIND_BYTES>()
            .ok_or(Rejected::Forged)?;
        self.window.take(sequence);
        self.opened_count += 1;
        Ok((u16::from_be_bytes(*kind), payload))
    }
}

/// The session and the sequence number that a datagram names; `None` if it has another form.
fn header_of(datagram: &[u8]) -> Option<(u64, u64)> {
    let (magic, rest) = datagram.split_first_chunk::<4>()?;
    let (session, rest) = rest.split_first_chunk::<8>()?;
    let (sequence, _) = rest.split_first_chunk::<8>()?;
    (u32::from_be_bytes(*magic) == MAGIC)
        .then(|| (u64::from_be_bytes(*session), u64::from_be_bytes(*sequence)))
}

/// The session that a datagram names; `None` if it is no datagram of the peer link.
pub fn session_of(datagram: &[u8]) -> Option<u64> {
    header_of(datagram).map(|(session, _)| session)
}

fn nonce(sequence: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[NONCE_PADDING_BYTES..].copy_from_slice(&sequence.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}

/// Which of the last sequence numbers were taken (after RFC 6479: a ring of words).
struct Window {
    /// The highest number that was taken, plus one.
    next: u64,
    taken: [u64; WINDOW_WORDS],
}

impl Default for Window {
    fn default() -> Self {
        Self {
            next: 0,
            taken: [0; WINDOW_WORDS],
        }
    }
}

impl Window {
    fn place(sequence: u64) -> (usize, u64) {
        let word = (sequence / WORD_BITS) as usize % WINDOW_WORDS;
        (word, 1 << (sequence % WORD_BITS))
    }

    /// The word of the highest number that was taken.
    fn last_word(&self) -> u64 {
        self.next.saturating_sub(1) / WORD_BITS
    }

    /// Whether a number was not taken, and is not too old to tell.
    fn is_new(&self, sequence: u64) -> bool {
        if sequence == u64::MAX {
            return false;
        }
        let oldest_word = self.last_word().saturating_sub(WINDOW_WORDS as u64 - 1);
        let (word, bit) = Self::place(sequence);
        sequence >= self.next || sequence / WORD_BITS >= oldest_word && self.taken[word] & bit == 0
    }

    /// Takes a number that is new.
    fn take(&mut self, sequence: u64) {
        let new_word = sequence / WORD_BITS;
        let skipped_count = new_word
            .saturating_sub(self.last_word())
            .min(WINDOW_WORDS as u64);
        for skipped in 0..skipped_count {
            self.taken[(new_word - skipped) as usize % WINDOW_WORDS] = 0;
        }
        let (word, bit) = Self::place(sequence);
        self.taken[word] |= bit;
        self.next = self.next.max(sequence + 1);
    }
}

#[cfg(test)]
#[path = "datagram_tests.rs"]
mod tests;

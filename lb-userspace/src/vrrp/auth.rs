//! Authenticated packets, an extension between nodes of one cluster.
//!
//! A trailer behind the address list carries an authentication code (HMAC-SHA256, truncated to 16 bytes, RFC 2104
//! section 5) over the sender's address and the whole message. Against replay, also across restarts:
//!
//! - Each router draws a session id when it is made, and counts its packets.
//! - Each router has a challenge, tells it in every packet, and repeats the others' latest ones in every packet.
//! - A session that is not known is believed from the first packet that repeats the present challenge: it was made
//!   after the challenge was drawn. From then on its counters must grow.
//! - Whenever a session gets known, a new challenge is drawn. So a recording of a forgotten session repeats an old
//!   one, and it is safe to forget sessions at any time.
//!
//! A packet of a known session that has not come yet, since the receiver's link was down or somebody kept it back, is
//! believed until a later one has come: only the time of day would tell that it is late, and clocks are not trusted.

use std::fmt;
use std::net::IpAddr;

use ring::hmac;

use self::trailer::{CODE_BYTES, ECHO_MAX, Trailer, first_u64};
use super::packet::{Parsed, Refusal};
use super::router::Session;

mod trailer;

pub(super) use self::trailer::{Flags, Kind};

/// What is under the code first: a code for this purpose is good for no other.
const PURPOSE: &[u8] = b"lbd vrrp packet 1";
/// The bytes of the checksum, which is not under the code: it differs by destination.
const CHECKSUM: std::ops::Range<usize> = 6..8;

/// Sessions that are known at a time: a virtual router has a few nodes.
const PROVEN_MAX: usize = ECHO_MAX - UNPROVEN_MAX;
/// Sessions that have yet to answer the challenge, at a time. Recordings may fill it: the latest are kept.
const UNPROVEN_MAX: usize = 4;
/// For so long after its last packet the challenge of an unproven session is repeated. Unit: microseconds.
const UNPROVEN_US: u64 = 3_000_000;

/// The key of authenticated packets, derived from the cluster's secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl Key {
    /// A key of these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// A key of 64 hexadecimal digits; `None` if it is anything else.
    pub fn from_hex(text: &str) -> Option<Self> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let pairs: &[[u8; 2]; 32] = pairs.try_into().ok()?;
        let mut key = [0; 32];
        for (byte, pair) in key.iter_mut().zip(pairs) {
            let digit = |digit: u8| char::from(digit).to_digit(16);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        rest.is_empty().then_some(Self(key))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Key(secret)")
    }
}

/// What an authentic packet says in its trailer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Opened {
    pub(super) kind: Kind,
    pub(super) flags: Flags,
    /// Whose it is.
    pub(super) session: u64,
    /// For whom it is; 0 = everybody.
    pub(super) target: u64,
    /// Whether its sender is known: if not, it may be a recording, and nothing in it is to be believed.
    pub(super) is_proven: bool,
    /// Whether its sender waits for its challenge to be repeated.
    pub(super) wants_answer: bool,
}

/// Another router, as its authentic packets show it.
#[derive(Clone, Debug)]
pub(super) struct Sender {
    pub(super) session: u64,
    pub(super) source: IpAddr,
    pub(super) priority: u8,
    pub(super) flags: Flags,
    /// When it was last heard. Unit: microseconds.
    pub(super) heard_us: u64,
    pub(super) is_proven: bool,
    /// Whether its last packet was an advertisement of one that is Active.
    pub(super) is_active: bool,
    counter: u64,
    challenge: u64,
    /// Whether a packet that repeats its challenge was sent.
    is_answered: bool,
}

/// Makes and checks trailers.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    key: hmac::Key,
    session: Session,
    counter: u64,
    challenge: u64,
    challenges: u64,
    /// The latest heard last.
    senders: Vec<Sender>,
}

impl Guard {
    pub(super) fn new(key: Key, session: Session) -> Self {
        let mut guard = Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key.0),
            session,
            counter: 0,
            challenge: 0,
            challenges: 0,
            senders: Vec::new(),
        };
        guard.draw_challenge();
        guard
    }

    /// Nobody can foresee it without the seed.
    fn draw_challenge(&mut self) {
        let seed = hmac::Key::new(hmac::HMAC_SHA256, &self.session.seed);
        let tag = hmac::sign(&seed, &self.challenges.to_be_bytes());
        self.challenges += 1;
        self.challenge = first_u64(tag.as_ref());
    }

    /// The session by which others know this router.
    pub(super) fn session(&self) -> u64 {
        self.session.id
    }

    /// How many packets were made.
    pub(super) fn packets(&self) -> u64 {
        self.counter
    }

    /// The routers whose packets are believed.
    pub(super) fn proven(&self) -> impl Iterator<Item = &Sender> {
        self.senders.iter().filter(|sender| sender.is_proven)
    }

    /// Whether there is anybody whose answer to the challenge is awaited: somebody unknown was heard, or nobody is
    /// known.
    pub(super) fn wants_echo(&self, now_us: u64) -> bool {
        let awaits = |sender: &Sender| {
            !sender.is_proven && now_us.saturating_sub(sender.heard_us) < UNPROVEN_US
        };
        self.proven().next().is_none() || self.senders.iter().any(awaits)
    }

    /// Completes a packet of [`super::packet::Packet::emit`] with a trailer.
    pub(super) fn close(
        &mut self,
        now_us: u64,
        source: IpAddr,
        said: (Kind, Flags, u64),
        packet: &mut Vec<u8>,
    ) {
        let (kind, flags, target) = said;
        self.counter += 1;
        let echoes = self.echoes(now_us);
        let trailer = Trailer {
            kind,
            flags,
            session: self.session.id,
            counter: self.counter,
            challenge: self.challenge,
            target,
            echoes: &echoes,
        };
        trailer.write(packet);
        let code = hmac::sign(&self.key, &covered(source, packet));
        packet.extend(&code.as_ref()[..CODE_BYTES]);
    }

    /// The challenges to be repeated: the latest heard first.
    fn echoes(&mut self, now_us: u64) -> Vec<[u8; 8]> {
        self.senders.retain(|sender| {
            sender.is_proven || now_us.saturating_sub(sender.heard_us) < UNPROVEN_US
        });
        for sender in &mut self.senders {
            sender.is_answered = true;
        }
        let latest_first = self.senders.iter().rev();
        latest_first
            .map(|sender| sender.challenge.to_be_bytes())
            .take(ECHO_MAX)
            .collect()
    }

    /// Checks a packet.
    ///
    /// # Errors
    /// If it is not authentic, or not new.
    pub(super) fn open(
        &mut self,
        now_us: u64,
        source: IpAddr,
        payload: &[u8],
        parsed: &Parsed<'_>,
    ) -> Result<Opened, Refusal> {
        let trailer = Trailer::read(parsed.trailer)?;
        let code_at = payload.len() - CODE_BYTES;
        let (message, code) = payload.split_at(code_at);
        let expected = hmac::sign(&self.key, &covered(source, message));
        if !is_equal(&expected.as_ref()[..CODE_BYTES], code) {
            return Err(Refusal::Code);
        }
        if trailer.session == self.session.id {
            // This router's own, sent back to it.
            return Err(Refusal::Replayed {
                counter: trailer.counter,
                last: self.counter,
            });
        }
        self.note(now_us, source, parsed.packet.priority, &trailer)
    }

    fn note(
        &mut self,
        now_us: u64,
        source: IpAddr,
        priority: u8,
        trailer: &Trailer<'_>,
    ) -> Result<Opened, Refusal> {
        let is_known = |sender: &Sender| sender.session == trailer.session;
        let known = self.senders.iter().position(is_known);
        let former = known.map(|place| self.senders[place].clone());
        if let Some(former) = &former
            && trailer.counter <= former.counter
        {
            return Err(Refusal::Replayed {
                counter: trailer.counter,
                last: former.counter,
            });
        }
        self.senders.retain(|sender| !is_known(sender));
        let is_answer = trailer.echoes().any(|echo| echo == self.challenge);
        let was_proven = former.as_ref().is_some_and(|sender| sender.is_proven);
        let is_answered = former
            .is_some_and(|former| former.is_answered && former.challenge == trailer.challenge);
        let is_proven = was_proven || is_answer;
        if is_answer && !was_proven {
            self.draw_challenge();
            self.senders.retain(|sender| sender.source != source);
        }
        self.senders.push(Sender {
            session: trailer.session,
            source,
            priority,
            flags: trailer.flags,
            heard_us: now_us,
            is_proven,
            is_active: trailer.kind == Kind::Advertisement && priority > 0,
            counter: trailer.counter,
            challenge: trailer.challenge,
            is_answered,
        });
        self.forget_beyond_limits();
        Ok(Opened {
            kind: trailer.kind,
            flags: trailer.flags,
            session: trailer.session,
            target: trailer.target,
            is_proven,
            wants_answer: !is_answered || trailer.flags.wants_echo,
        })
    }

    /// Those that were not heard for longest go first.
    fn forget_beyond_limits(&mut self) {
        for (is_proven, max) in [(true, PROVEN_MAX), (false, UNPROVEN_MAX)] {
            let is_such = |sender: &Sender| sender.is_proven == is_proven;
            let count = self.senders.iter().filter(|sender| is_such(sender)).count();
            if count > max
                && let Some(place) = self.senders.iter().position(is_such)
            {
                self.senders.remove(place);
            }
        }
    }
}

/// What the code is made over: the purpose, the sender's address, and the message without its checksum.
fn covered(source: IpAddr, message: &[u8]) -> Vec<u8> {
    let mut bytes = PURPOSE.to_vec();
    match source {
        IpAddr::V4(source) => {
            bytes.push(4);
            bytes.extend(source.octets());
        }
        IpAddr::V6(source) => {
            bytes.push(6);
            bytes.extend(source.octets());
        }
    }
    let start = bytes.len();
    bytes.extend_from_slice(message);
    bytes[start..][CHECKSUM].fill(0);
    bytes
}

/// In a time that does not tell where they differ.
fn is_equal(left: &[u8], right: &[u8]) -> bool {
    let pairs = left.iter().zip(right);
    left.len() == right.len() && pairs.fold(0, |all, (left, right)| all | (left ^ right)) == 0
}

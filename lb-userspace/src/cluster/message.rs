//! What nodes tell each other of their rings, over a channel that keeps order and loses nothing while it lasts.
//!
//! | message | from | to | says |
//! |---|---|---|---|
//! | [`Message::Claim`] | owner | all | I decide the ring of these services, in this term |
//! | [`Message::Stale`] | anybody | a claimant, or who should be one | the term that I know of is this |
//! | [`Message::Empty`] | owner | a follower | there is no ring yet: nobody has been eligible |
//! | [`Message::Standing`] | follower | owner | which of my slots are not settled |
//! | [`Message::Ring`] | owner | follower | the ring is now this |
//! | [`Message::Ack`] | follower | owner | it is in force here |
//! | [`Message::Refusal`] | follower | owner | it cannot be, because |
//! | [`Message::Swept`] | follower | owner | what a sweep of my flow table has found |
//! | [`Message::Report`] | anybody | all | what I could not record, and how far my flows lag |
//!
//! Clocks are each node's own: a moment is told as its age.

use std::net::SocketAddr;

use miniz_oxide::{deflate, inflate};
use serde::{Deserialize, Serialize};

pub use crate::sync::replicate::dictionary::ServiceEndpoint;

/// Bytes of an encoded message, deflated or not: what the link carries in one frame. Unit: bytes.
pub const MESSAGE_BYTES_MAX: usize = 60_000;
/// The first byte of a message that follows as it is.
const PLAIN: u8 = 0;
/// The same, deflated (RFC 1951).
const DEFLATED: u8 = 1;
/// Shorter messages are not deflated. Unit: bytes.
const DEFLATED_BYTES_MIN: usize = 1_000;
/// The fastest one: 0.2 ms for a ring of 4093 slots in transition, which becomes an eighth. Over a link that loses
/// half of all packets, TCP carries about a packet in half a second.
const DEFLATE_LEVEL: u8 = 1;
/// Services that one message names.
pub const SERVICES_PER_MESSAGE: usize = 512;
/// Backends that one message names: 20 bytes each at most.
pub const BACKENDS_PER_MESSAGE: usize = 1_000;
/// What the slots of one message may take. Unit: bytes.
pub const SLOT_BYTES_PER_MESSAGE: usize = 36_000;
/// Bytes of a reason in words; what is longer is cut.
pub const REASON_BYTES_MAX: usize = 300;

/// When a node became the owner of a service. The number that is ahead is later; of two equal ones, that of the node
/// whose name comes first. Numbers go round: there is none that nobody could overrule, whatever a peer claims that has
/// lost its mind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// Grows with each change of the owner.
    pub number: u64,
    /// The owner's name; empty: there was none yet.
    pub owner: String,
}

impl Term {
    /// Whether this one overrules `other`: by less than half of all numbers (RFC 1982 section 3.2). What is nobody's
    /// overrules nothing.
    pub fn is_later_than(&self, other: &Self) -> bool {
        if self.owner.is_empty() || other.owner.is_empty() {
            return !self.owner.is_empty();
        }
        match self.number.wrapping_sub(other.number).cast_signed() {
            0 => self.owner < other.owner,
            // Half-way round, both could be.
            i64::MIN => self.number > other.number,
            ahead => ahead > 0,
        }
    }

    /// The number of the next one.
    pub(super) const fn next_number(&self) -> u64 {
        self.number.wrapping_add(1)
    }
}

/// A message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Message {
    /// The sender decides these rings. The first that is said of a service in a term, and again when a link
    /// comes up.
    Claim(Vec<Claim>),
    /// A claim came too late, or the receiver should decide and the sender follows another term: if that one is later,
    /// the receiver has to claim anew, in a later term still, or to follow; if not, to say its claim again.
    Stale(Vec<Claim>),
    /// How a ring stands at a node that has accepted a claim.
    Standing(Standing),
    /// A ring, or what of it has changed.
    Ring(RingPart),
    /// A ring is in force at the sender.
    Ack(Version),
    /// A ring cannot be put in force at the sender, or not yet.
    Refusal(Refusal),
    /// The sender has swept its flow table.
    Swept(Swept),
    /// What the owner has to know of the sender's flows.
    Report(Report),
    /// The sender decides this ring, and there is none yet: nobody has been eligible so far.
    Empty(Claim),
}

/// A service's term.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    /// The service.
    pub service: ServiceEndpoint,
    /// The term.
    pub term: Term,
}

/// A state of a service's ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The service.
    pub service: ServiceEndpoint,
    /// The owner's term.
    pub term: Term,
    /// Counts the owner's rings.
    pub revision: u64,
}

/// How a ring stands at a node that is going to follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// The service.
    pub service: ServiceEndpoint,
    /// The term that the sender has accepted.
    pub term: Term,
    /// What it has.
    pub ring: Had,
}

/// What a node has of a ring before it follows another node's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Had {
    /// Nothing that any flow depends on.
    Nothing,
    /// A ring with flows; its slots that are not settled.
    Ring {
        /// By slot.
        unsettled: SlotSet,
    },
}

/// Slots of a ring.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotSet(Vec<u8>);

impl SlotSet {
    /// The slots for which it is so. What it takes on the wire grows with the last one.
    pub fn of(slot_count: usize, is_meant: impl Fn(usize) -> bool) -> Self {
        let mut bytes = Vec::new();
        for slot in (0..slot_count).filter(|slot| is_meant(*slot)) {
            bytes.resize(slot / 8 + 1, 0);
            bytes[slot / 8] |= 1 << (slot % 8);
        }
        Self(bytes)
    }

    /// Whether it has this one.
    pub fn has(&self, slot: usize) -> bool {
        let byte = self.0.get(slot / 8).copied().unwrap_or(0);
        byte & 1 << (slot % 8) != 0
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }
}

/// A part of a ring, or of what has changed in it. The parts of one state follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingPart {
    /// Which ring, and in which state.
    pub version: Version,
    /// The state that it is a change of, which the owner has sent before; `None`: it is the whole ring.
    pub base: Option<u64>,
    /// Slots of the ring.
    pub slot_count: u32,
    /// The number of this part, from 0.
    pub part: u16,
    /// How many there are.
    pub part_count: u16,
    /// What the words of the slots mean: more backends, behind those of the parts before and of `base`. Number n is
    /// the backend at n - 1; 0 is none.
    pub backends: Vec<SocketAddr>,
    /// Slots that follow each other.
    pub pieces: Vec<Piece>,
}

/// Slots of a ring that follow each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Piece {
    /// The first one's number.
    pub first: u32,
    /// As `lb_common::abi::Slot` has them, with numbers of the part's dictionary for ids.
    pub slots: Vec<u32>,
}

/// Why a ring is not in force at the sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// Which one.
    pub version: Version,
    /// Whether it was worth trying.
    pub kind: RefusalKind,
    /// In words, for the operator.
    pub reason: String,
}

/// What the owner has to make of a refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusalKind {
    /// What came does not fit what was there before: the whole ring is to be sent.
    Incomplete,
    /// The sender has no room: it will not forward the service's flows as the owner does, and is not waited for.
    Unable,
    /// The sender does not have the service, or one whose ring is made in another way: nor does it decide the ring.
    Absent,
}

/// What a follower's sweep has found of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Swept {
    /// The ring that was in force when it began.
    pub version: Version,
    /// How long ago that was. Unit: milliseconds.
    pub began_ago_ms: u32,
    /// Quiet slots with exceptions.
    pub exceptions: SlotSet,
}

/// What a node says of its flows, twice a second while a ring that it shares is on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Counts the sender's reports.
    pub number: u64,
    /// The last number that the sender has heard from the receiver: so that one knows that this report is not
    /// older than one's own of that number, however long it was on its way. 0 = none.
    pub heard: u64,
    /// The age of the oldest change of its flow table that any peer has not acknowledged. Unit: milliseconds.
    pub lag_ms: u32,
    /// Services of which a flow was not recorded that should have been, and when last. Unit: milliseconds ago.
    pub suppressed: Vec<(ServiceEndpoint, u32)>,
}

/// A message is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MalformedMessage {
    /// It cannot be read.
    #[error("a message about rings cannot be read: damaged, or of a later version")]
    Unreadable,
    /// It is longer than any.
    #[error("a message about rings has {bytes} bytes; {MESSAGE_BYTES_MAX} are the most")]
    TooLong {
        /// Its length. Unit: bytes.
        bytes: usize,
    },
}

impl Message {
    /// As bytes, at most [`MESSAGE_BYTES_MAX`].
    pub fn encode(&self) -> Vec<u8> {
        // Every part has a form, so there is none without one; and an empty message is refused by its reader.
        let plain = postcard::to_stdvec(self).unwrap_or_default();
        let is_long = plain.len() >= DEFLATED_BYTES_MIN;
        let deflated = is_long.then(|| deflate::compress_to_vec(&plain, DEFLATE_LEVEL));
        let (form, content) = match deflated {
            Some(deflated) if deflated.len() < plain.len() => (DEFLATED, deflated),
            Some(_) | None => (PLAIN, plain),
        };
        let mut bytes = Vec::with_capacity(1 + content.len());
        bytes.push(form);
        bytes.extend(content);
        bytes
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`MalformedMessage`].
    pub fn decode(bytes: &[u8]) -> Result<Self, MalformedMessage> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return Err(MalformedMessage::TooLong { bytes: bytes.len() });
        }
        let inflated;
        let content = match bytes.split_first() {
            Some((&PLAIN, content)) => content,
            Some((&DEFLATED, content)) => {
                inflated = inflate::decompress_to_vec_with_limit(content, MESSAGE_BYTES_MAX)
                    .map_err(|_| MalformedMessage::Unreadable)?;
                &inflated
            }
            Some(_) | None => return Err(MalformedMessage::Unreadable),
        };
        let (message, _later) =
            postcard::take_from_bytes(content).map_err(|_| MalformedMessage::Unreadable)?;
        Ok(message)
    }
}

//! A ring in words that every node understands: backends by address and port, in messages of bounded size.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use lb_common::abi::Slot;
use lb_common::limits::{BACKEND_ID_MAX, RING_SLOTS_MAX, SERVICE_BACKENDS_MAX};

use super::message::{
    BACKENDS_PER_MESSAGE, Piece, RingPart, SLOT_BYTES_PER_MESSAGE, ServiceEndpoint, Term, Version,
};

/// Backends that a ring names, those that have left it since its owner began to count included.
pub const RING_BACKENDS_MAX: usize = 2 * SERVICE_BACKENDS_MAX;
/// What a piece takes besides its slots. Unit: bytes.
const PIECE_BYTES: usize = 6;
/// What a slot takes at most. Unit: bytes.
const SLOT_BYTES: usize = 5;

/// A ring of this node, numbered for its peers.
#[derive(Clone, Debug, Default)]
pub struct SharedRing {
    /// By number - 1. It only grows, so that a slot that has not changed is not sent again.
    backends: Arc<Vec<SocketAddr>>,
    numbers: HashMap<SocketAddr, u16>,
    /// By slot: as [`Slot`], with numbers for ids.
    words: Arc<Vec<u32>>,
    revision: u64,
}

/// A state of a ring that was sent to a peer.
#[derive(Clone, Debug)]
pub struct SentRing {
    /// Its revision.
    pub revision: u64,
    backends: Arc<Vec<SocketAddr>>,
    words: Arc<Vec<u32>>,
}

impl SharedRing {
    /// The revision that it is at.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Takes over the ring as it is now. `address_of` tells a backend by its id.
    pub fn update(
        &mut self,
        revision: u64,
        slots: &[Slot],
        mut address_of: impl FnMut(u16) -> Option<SocketAddr>,
    ) {
        if self.backends.len() > RING_BACKENDS_MAX - SERVICE_BACKENDS_MAX {
            // A peer whose dictionary is not a beginning of this one gets the whole ring.
            self.backends = Arc::default();
            self.numbers.clear();
        }
        let mut by_id: HashMap<u16, u16> = HashMap::new();
        let mut words = Vec::with_capacity(slots.len());
        for slot in slots {
            let current = self.number_of(slot.current(), &mut by_id, &mut address_of);
            let previous = self.number_of(slot.previous(), &mut by_id, &mut address_of);
            words.push(with_ids(*slot, current, previous).0);
        }
        self.words = Arc::new(words);
        self.revision = revision;
    }

    fn number_of(
        &mut self,
        id: u16,
        by_id: &mut HashMap<u16, u16>,
        address_of: &mut impl FnMut(u16) -> Option<SocketAddr>,
    ) -> u16 {
        if id == 0 {
            return 0;
        }
        if let Some(number) = by_id.get(&id) {
            return *number;
        }
        let number = address_of(id).map_or(0, |address| self.number_for(address));
        by_id.insert(id, number);
        number
    }

    fn number_for(&mut self, address: SocketAddr) -> u16 {
        if let Some(number) = self.numbers.get(&address) {
            return *number;
        }
        let backends = Arc::make_mut(&mut self.backends);
        if backends.len() >= RING_BACKENDS_MAX {
            return 0;
        }
        backends.push(address);
        let number = backends.len() as u16;
        self.numbers.insert(address, number);
        number
    }

    /// What was sent, if all of [`Self::parts`] is.
    pub fn sent(&self) -> SentRing {
        SentRing {
            revision: self.revision,
            backends: Arc::clone(&self.backends),
            words: Arc::clone(&self.words),
        }
    }

    /// The messages that bring a peer from what it was sent before to the ring as it is.
    pub fn parts(
        &self,
        service: ServiceEndpoint,
        term: &Term,
        before: Option<&SentRing>,
    ) -> Vec<RingPart> {
        let before = before.filter(|sent| {
            sent.words.len() == self.words.len() && self.backends.starts_with(&sent.backends)
        });
        let known_count = before.map_or(0, |sent| sent.backends.len());
        let mut backends = self.backends[known_count..].chunks(BACKENDS_PER_MESSAGE);
        let mut batches = batches(pieces(
            &self.words,
            before.map(|sent| sent.words.as_slice()),
        ))
        .into_iter();
        let part_count = backends.len().max(batches.len()).max(1);
        let part = |part: usize| RingPart {
            version: Version {
                service,
                term: term.clone(),
                revision: self.revision,
            },
            base: before.map(|sent| sent.revision),
            slot_count: self.words.len() as u32,
            part: part as u16,
            part_count: part_count as u16,
            backends: backends.next().map(<[_]>::to_vec).unwrap_or_default(),
            pieces: batches.next().unwrap_or_default(),
        };
        (0..part_count).map(part).collect()
    }
}

/// Runs of slots that differ from what was before; all slots if there was nothing.
fn pieces(words: &[u32], before: Option<&[u32]>) -> Vec<Piece> {
    let mut pieces: Vec<Piece> = Vec::new();
    for (slot, word) in words.iter().copied().enumerate() {
        if before.is_some_and(|before| before[slot] == word) {
            continue;
        }
        match pieces.last_mut() {
            Some(last) if last.first as usize + last.slots.len() == slot => last.slots.push(word),
            _ => pieces.push(Piece {
                first: slot as u32,
                slots: vec![word],
            }),
        }
    }
    pieces
}

/// The pieces, as many together as a message holds; long ones are split.
fn batches(pieces: Vec<Piece>) -> Vec<Vec<Piece>> {
    let mut batches: Vec<Vec<Piece>> = Vec::new();
    let mut room = 0;
    for piece in pieces {
        let (mut first, mut rest) = (piece.first, piece.slots.as_slice());
        while !rest.is_empty() {
            if room < PIECE_BYTES + SLOT_BYTES {
                batches.push(Vec::new());
                room = SLOT_BYTES_PER_MESSAGE;
            }
            let count = rest.len().min((room - PIECE_BYTES) / SLOT_BYTES);
            let (now, later) = rest.split_at(count);
            room -= PIECE_BYTES + count * SLOT_BYTES;
            if let Some(batch) = batches.last_mut() {
                batch.push(Piece {
                    first,
                    slots: now.to_vec(),
                });
            }
            (first, rest) = (first + count as u32, later);
        }
    }
    batches
}

/// The slot with other ids in it.
const fn with_ids(slot: Slot, current: u16, previous: u16) -> Slot {
    let changed = Slot::in_transition(current, previous);
    if slot.is_quiet() {
        changed.quieted()
    } else {
        changed
    }
}

/// A peer's ring, as it was received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReceivedRing {
    /// The owner's revision.
    pub revision: u64,
    /// By number - 1.
    pub backends: Vec<SocketAddr>,
    words: Vec<u32>,
}

impl ReceivedRing {
    /// The slots, with the ids of this node. `ids` has one for each of [`Self::backends`].
    pub fn slots(&self, ids: &[u16]) -> Vec<Slot> {
        let id_of = |number: u16| {
            let position = usize::from(number).checked_sub(1);
            position.and_then(|position| ids.get(position)).copied()
        };
        let words = self.words.iter().map(|word| Slot(*word));
        let slots = words.map(|slot| {
            let current = id_of(slot.current()).unwrap_or(0);
            let previous = id_of(slot.previous()).unwrap_or(0);
            with_ids(slot, current, previous)
        });
        slots.collect()
    }

    /// The backends that any slot names, as positions in [`Self::backends`].
    pub fn used(&self) -> Vec<bool> {
        let mut used = vec![false; self.backends.len()];
        for word in &self.words {
            for number in [Slot(*word).current(), Slot(*word).previous()] {
                if let Some(position) = usize::from(number).checked_sub(1) {
                    used[position] = true;
                }
            }
        }
        used
    }
}

/// A ring of which not all parts have come.
#[derive(Clone, Debug)]
pub struct Assembly {
    version: Version,
    base: Option<u64>,
    part_count: u16,
    next_part: u16,
    told_count: usize,
    ring: ReceivedRing,
}

/// A part of a ring does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It changes a ring that is not there, or its first parts are missing.
    #[error("what it is a change of has not come")]
    Incomplete,
    /// It names what cannot be.
    #[error("it names slots or backends that it does not have")]
    Nonsense,
}

impl Assembly {
    /// Begins with the first part of a ring; `known` is what was received before, in the same term.
    ///
    /// # Errors
    /// [`Misfit`].
    pub fn begin(part: &RingPart, known: Option<&ReceivedRing>) -> Result<Self, Misfit> {
        if part.part != 0 {
            return Err(Misfit::Incomplete);
        }
        if part.slot_count > RING_SLOTS_MAX || part.part_count == 0 {
            return Err(Misfit::Nonsense);
        }
        let slot_count = part.slot_count as usize;
        let ring = match part.base {
            None => ReceivedRing {
                revision: 0,
                backends: Vec::new(),
                words: vec![0; slot_count],
            },
            Some(base) => known
                .filter(|known| known.revision == base && known.words.len() == slot_count)
                .cloned()
                .ok_or(Misfit::Incomplete)?,
        };
        Ok(Self {
            version: part.version.clone(),
            base: part.base,
            part_count: part.part_count,
            next_part: 0,
            told_count: 0,
            ring,
        })
    }

    /// Takes the next part; returns the ring if it was the last one.
    ///
    /// # Errors
    /// [`Misfit`]; the assembly is of no use any more.
    pub fn take(mut self, part: RingPart) -> Result<Progress, Misfit> {
        let is_next = part.version == self.version
            && part.part == self.next_part
            && part.part_count == self.part_count
            && part.base == self.base;
        if !is_next {
            return Err(Misfit::Incomplete);
        }
        self.next_part += 1;
        if self.ring.backends.len() + part.backends.len() > RING_BACKENDS_MAX {
            return Err(Misfit::Nonsense);
        }
        self.ring.backends.extend(part.backends);
        for piece in part.pieces {
            let first = piece.first as usize;
            let end = first
                .checked_add(piece.slots.len())
                .ok_or(Misfit::Nonsense)?;
            let place = self.ring.words.get_mut(first..end);
            place.ok_or(Misfit::Nonsense)?.copy_from_slice(&piece.slots);
            self.told_count += piece.slots.len();
        }
        if self.next_part < self.part_count {
            return Ok(Progress::Waiting(self));
        }
        self.finish().map(Progress::Done)
    }

    fn finish(mut self) -> Result<ReceivedRing, Misfit> {
        let count = self.ring.backends.len();
        let is_known = |number: u16| usize::from(number) <= count && number <= BACKEND_ID_MAX;
        let words = self.ring.words.iter().map(|word| Slot(*word));
        let is_sound = words
            .clone()
            .all(|slot| is_known(slot.current()) && is_known(slot.previous()));
        let is_whole = self.base.is_some() || self.told_count == self.ring.words.len();
        if !is_sound || !is_whole {
            return Err(Misfit::Nonsense);
        }
        self.ring.revision = self.version.revision;
        Ok(self.ring)
    }
}

/// How far a ring has come.
#[derive(Clone, Debug)]
pub enum Progress {
    /// Parts are missing.
    Waiting(Assembly),
    /// It is there.
    Done(ReceivedRing),
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;

//! What anybody may send to the peer link over UDP.

use std::collections::VecDeque;

use anyhow::{Result, ensure};
use lb_userspace::sync::datagram::{
    DATAGRAM_MAX_BYTES, DatagramKey, Opener, PAYLOAD_MAX_BYTES, REPLAY_WINDOW, Sealer,
};

use crate::Tally;
use crate::rng::Rng;

/// Genuine datagrams that are kept to be replayed.
const KEPT: usize = 256;
/// One in so many is genuine.
const GENUINE_EVERY: usize = 16;
/// Genuine ones that overtake each other.
const HELD: usize = 32;

/// The network between two nodes, and what the attacker has of it.
struct Scene {
    sealer: Sealer,
    opener: Opener,
    /// Another session, whose datagrams are genuine, too.
    other: Sealer,
    /// Genuine ones that have not arrived.
    held: Vec<Vec<u8>>,
    /// Genuine ones that have.
    taken: VecDeque<Vec<u8>>,
    /// The first ever.
    oldest: Vec<u8>,
}

/// Sends so many datagrams.
pub(crate) fn attack(rng: &mut Rng, messages: u64) -> Result<Tally> {
    let key = DatagramKey::random();
    let mut scene = Scene {
        sealer: Sealer::new(&key),
        opener: Opener::new(&key),
        other: Sealer::new(&DatagramKey::random()),
        held: Vec::new(),
        taken: VecDeque::new(),
        oldest: Vec::new(),
    };
    let mut tally = Tally::default();
    while tally.hostile < messages {
        if rng.below(GENUINE_EVERY) == 0 || scene.taken.is_empty() {
            scene.send_genuine(rng, &mut tally)?;
        } else {
            scene.send_hostile(rng, &mut tally)?;
        }
    }
    Ok(tally)
}

impl Scene {
    /// One more is held back, and one of those that are arrives.
    fn send_genuine(&mut self, rng: &mut Rng, tally: &mut Tally) -> Result<()> {
        let len = rng.below(PAYLOAD_MAX_BYTES + 1);
        let mut datagram = Vec::new();
        self.sealer.seal(2000, &rng.bytes(len), &mut datagram);
        self.held.push(datagram);
        if self.held.len() < HELD {
            return Ok(());
        }
        let datagram = self.held.swap_remove(rng.below(HELD));
        let is_taken = self.opener.open(&mut datagram.clone()).is_ok();
        // One that was held back for very long is too old.
        let held_max = self.sealer.count() - self.opener.count();
        ensure!(
            is_taken || held_max > REPLAY_WINDOW,
            "a genuine datagram was refused"
        );
        tally.genuine += u64::from(is_taken);
        if self.oldest.is_empty() {
            self.oldest.clone_from(&datagram);
        }
        self.taken.push_back(datagram);
        if self.taken.len() > KEPT {
            self.taken.pop_front();
        }
        Ok(())
    }

    fn send_hostile(&mut self, rng: &mut Rng, tally: &mut Tally) -> Result<()> {
        let taken = &self.taken[rng.below(self.taken.len())];
        let mut datagram = match rng.below(10) {
            0 => taken.clone(),
            1 => self.oldest.clone(),
            2 => {
                let mut datagram = Vec::new();
                self.other.seal(2000, b"of another session", &mut datagram);
                datagram
            }
            3 => {
                let len = rng.below(2 * DATAGRAM_MAX_BYTES);
                rng.bytes(len)
            }
            // Before the genuine one arrives.
            4 if !self.held.is_empty() => {
                let genuine = &self.held[rng.below(self.held.len())];
                let mut datagram = genuine.clone();
                rng.spoil(&mut datagram);
                if self.held.contains(&datagram) {
                    return Ok(());
                }
                datagram
            }
            _ => {
                let mut datagram = taken.clone();
                rng.spoil(&mut datagram);
                datagram
            }
        };
        let count = self.opener.count();
        match self.opener.open(&mut datagram) {
            Ok(_) => anyhow::bail!("a hostile datagram was taken: {datagram:02x?}"),
            Err(rejected) => tally.refuse(rejected),
        }
        ensure!(
            self.opener.count() == count,
            "a refused datagram was counted"
        );
        Ok(())
    }
}

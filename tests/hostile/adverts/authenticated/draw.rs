//! What an attacker makes of what it has heard.

use lb_userspace::vrrp::protocol::Family;

use super::super::{Advert, VRID, host, multicast};
use super::{Means, Scene};
use crate::rng::Rng;

/// Kinds of attacks; those from here on are recordings.
const RECORDING: usize = 12;

/// What an attacker does.
pub(super) struct Attack {
    pub(super) advert: Advert,
    /// It may be authentic, and of a process that is not known: a former one, or one that was pushed out by those.
    pub(super) is_recording: bool,
}

impl Scene {
    /// What comes next; `None`: there is nothing to make it of yet.
    pub(super) fn draw(&mut self, rng: &mut Rng) -> Option<Attack> {
        let has_recordings = self.means == Means::Recordings;
        let means = match has_recordings && rng.below(4) == 0 {
            true => RECORDING,
            false => rng.below(RECORDING),
        };
        let advert = match means {
            RECORDING => pick(rng, &self.recordings)?.clone(),
            0 => pick(rng, self.taken.make_contiguous())?.clone(),
            1 => self.late(rng)?,
            2 => self.reflected(rng)?,
            3 => self.of_other_secret.next()?,
            4 => self.without_secret.next()?,
            5 => self.of_other_group(rng)?,
            6 => self.by_another_way(rng)?,
            7 => self.in_advance(rng)?,
            8 => self.reworded(rng)?,
            9 => self.noise(rng),
            _ => {
                let taken = pick(rng, self.taken.make_contiguous())?.clone();
                spoilt(rng, taken)
            }
        };
        let is_as_it_was = matches!(means, 0 | 1 | 10..=RECORDING);
        Some(Attack {
            advert,
            is_recording: has_recordings && is_as_it_was,
        })
    }

    /// A genuine one that a later one of the same process has overtaken.
    fn late(&mut self, rng: &mut Rng) -> Option<Advert> {
        let place = rng.below(self.held.len().max(1));
        let held = self.held.get(place)?;
        let is_late = held.number < self.arrived;
        is_late.then(|| self.held.swap_remove(place).advert)
    }

    /// The victim's own words, in its own name or the peer's.
    fn reflected(&mut self, rng: &mut Rng) -> Option<Advert> {
        let mut advert = pick(rng, self.own.make_contiguous())?.clone();
        if rng.below(2) == 0 {
            advert.source = self.peer.config().source;
            advert = advert.sealed(rng);
        }
        Some(advert)
    }

    /// Of another group of the same cluster, as it is or in this one's name.
    fn of_other_group(&mut self, rng: &mut Rng) -> Option<Advert> {
        let mut advert = self.of_other_group.next()?;
        if rng.below(8) > 0 {
            advert.payload[1] = VRID;
            advert = advert.sealed(rng);
        }
        Some(advert)
    }

    /// A genuine one, by its way: from another address, from beyond a router, of another family.
    fn by_another_way(&mut self, rng: &mut Rng) -> Option<Advert> {
        let mut advert = pick(rng, self.taken.make_contiguous())?.clone();
        match rng.below(4) {
            0 => advert.source = host(self.family, 3 + rng.below(250) as u8),
            1 => advert.hop_limit = rng.below(255) as u8,
            2 => advert.destination = multicast(other(self.family)),
            _ => advert.source = host(other(self.family), 1),
        }
        Some(match rng.below(4) {
            0 => advert,
            _ => advert.sealed(rng),
        })
    }

    /// A genuine one, damaged, before it arrives itself.
    fn in_advance(&mut self, rng: &mut Rng) -> Option<Advert> {
        let waiting = self.to_victim.iter().chain(&self.held);
        let genuine: Vec<&Advert> = waiting.map(|genuine| &genuine.advert).collect();
        let genuine = (*pick(rng, &genuine)?).clone();
        let advert = spoilt(rng, genuine.clone());
        let content = |advert: &Advert| {
            let mut payload = advert.payload.clone();
            if let Some(checksum) = payload.get_mut(6..8) {
                checksum.fill(0);
            }
            payload
        };
        // The checksum alone is not the content: that one would be the genuine one.
        (content(&advert) != content(&genuine)).then_some(advert)
    }

    /// A genuine one that says something else.
    fn reworded(&mut self, rng: &mut Rng) -> Option<Advert> {
        let mut advert = pick(rng, self.taken.make_contiguous())?.clone();
        let payload = &mut advert.payload;
        let header = 8 + usize::from(payload[3]) * address_bytes(self.family);
        let value = rng.next() as u8;
        let place = match rng.below(10) {
            // Version and type.
            0 => 0,
            // Priority.
            1 | 2 => 2,
            // How many VIPs.
            3 => 3,
            // Interval.
            4 => 5,
            // A VIP, if there is one.
            5 => 8 + rng.below(16),
            // Kind, flags, and how many challenges.
            6 => header + 5 + rng.below(3),
            // Its process.
            7 => header + 8 + rng.below(8),
            // Its number: a later one.
            8 => header + 16 + rng.below(8),
            // For whom it is.
            _ => header + 32 + rng.below(8),
        };
        let byte = payload.get_mut(place)?;
        if *byte == value {
            return None;
        }
        *byte = value;
        Some(advert.sealed(rng))
    }

    fn noise(&self, rng: &mut Rng) -> Advert {
        let len = rng.below(4608);
        let mut payload = rng.bytes(len);
        if let Some(start) = payload.get_mut(..2) {
            start.copy_from_slice(&[0x31, VRID]);
        }
        let advert = Advert {
            source: self.peer.config().source,
            destination: multicast(self.family),
            hop_limit: 255,
            payload,
        };
        advert.sealed(rng)
    }
}

/// Damaged; with a right checksum more often than not, and of this virtual router.
fn spoilt(rng: &mut Rng, mut advert: Advert) -> Advert {
    rng.spoil(&mut advert.payload);
    if rng.below(8) > 0
        && let Some(vrid) = advert.payload.get_mut(1)
    {
        *vrid = VRID;
    }
    match rng.below(4) {
        0 => advert,
        _ => advert.sealed(rng),
    }
}

fn pick<'a, T>(rng: &mut Rng, all: &'a [T]) -> Option<&'a T> {
    (!all.is_empty()).then(|| &all[rng.below(all.len())])
}

const fn other(family: Family) -> Family {
    match family {
        Family::Ipv4 => Family::Ipv6,
        Family::Ipv6 => Family::Ipv4,
    }
}

const fn address_bytes(family: Family) -> usize {
    match family {
        Family::Ipv4 => 4,
        Family::Ipv6 => 16,
    }
}

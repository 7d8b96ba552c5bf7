//! What the mad one says: of the right form, and absurd; or of no form at all.

use std::net::{IpAddr, SocketAddr};

use lb_common::abi::Slot;
use lb_userspace::cluster::message::{
    Claim, Had, MESSAGE_BYTES_MAX, Message, Piece, Refusal, RefusalKind, Report, RingPart,
    ServiceEndpoint, SlotSet, Standing, Swept, Term, Version,
};

use super::nodes::{SERVICE, address, name};
use crate::rng::Rng;

/// Slots of the rings that it claims: too few, too many, and as many as those that it hears have.
const LENGTHS: [u32; 12] = [0, 1, 1, 3, 13, 13, 64, 64, 251, 65_536, 65_537, u32::MAX];

/// A node that has lost its mind. It remembers what it is told, so that its lies concern those who hear them.
pub(super) struct Liar {
    number: usize,
    /// The last state of a ring that it was told, or has told itself.
    version: Version,
    /// The last ring that it has claimed, by hearer.
    claimed: [Term; 4],
    /// Something genuine, to be damaged.
    sample: Vec<u8>,
    bomb: Vec<u8>,
}

/// A few bytes that become so many slots when they are read.
pub(super) fn bomb(slot_count: usize) -> Vec<u8> {
    let standing = Standing {
        service: SERVICE,
        term: Term::default(),
        ring: Had::Ring {
            unsettled: SlotSet::of(slot_count, |slot| slot + 1 == slot_count),
        },
    };
    Message::Standing(standing).encode()
}

/// A message's kind, for people.
pub(super) const fn kind(message: &Message) -> &'static str {
    match message {
        Message::Claim(_) => "a claim",
        Message::Stale(_) => "a claim called stale",
        Message::Standing(_) => "a standing",
        Message::Ring(_) => "a part of a ring",
        Message::Ack(_) => "an acknowledgement",
        Message::Refusal(_) => "a refusal",
        Message::Swept(_) => "a sweep",
        Message::Report(_) => "a report",
        Message::Empty(_) => "a ring that is not there",
    }
}

impl Liar {
    pub(super) fn new(rng: &mut Rng, number: usize, bomb: Vec<u8>) -> Self {
        Self {
            number,
            version: Version {
                service: SERVICE,
                term: Term {
                    number: 1,
                    owner: name(1 + rng.below(3)),
                },
                revision: 1,
            },
            claimed: std::array::from_fn(|_| Term::default()),
            sample: Message::Report(Report::default()).encode(),
            bomb,
        }
    }

    pub(super) fn is_bomb(&self, bytes: &[u8]) -> bool {
        self.bomb == bytes
    }

    /// Something that was said to it.
    pub(super) fn hear(&mut self, message: &Message) {
        match message {
            Message::Claim(claims) | Message::Stale(claims) => {
                if let Some(claim) = claims.first().filter(|claim| claim.service == SERVICE) {
                    self.version.term = claim.term.clone();
                }
            }
            Message::Ring(part) => self.version = part.version.clone(),
            _ => {}
        }
        self.sample = message.encode();
    }

    /// What it says next, to node number `to`.
    pub(super) fn next(&mut self, rng: &mut Rng, to: usize) -> Vec<u8> {
        match rng.below(32) {
            0..4 => {
                let mut bytes = match rng.below(2) {
                    0 => self.sample.clone(),
                    _ => self.message(rng, to).encode(),
                };
                rng.spoil(&mut bytes);
                bytes
            }
            4 => {
                let most = [70_000, 2_000][rng.below(50).min(1)];
                let len = rng.below(most);
                let mut bytes = rng.bytes(len);
                if let Some(form) = bytes.first_mut() {
                    *form &= 1;
                }
                bytes
            }
            // A message, and far too much behind it.
            5 if rng.below(50) == 0 => {
                let mut bytes = self.sample.clone();
                bytes.resize(MESSAGE_BYTES_MAX + 1 + rng.below(1_000), 0);
                bytes
            }
            6 if rng.below(50) == 0 => {
                let mut bytes = self.bomb.clone();
                if rng.below(2) == 0 {
                    let len = bytes.len();
                    bytes[rng.below(len)] ^= 1 << rng.below(8);
                }
                bytes
            }
            _ => self.message(rng, to).encode(),
        }
    }

    fn message(&mut self, rng: &mut Rng, to: usize) -> Message {
        match rng.below(12) {
            0 => self.claim(rng, to),
            1 => {
                let claims = self.claims(rng);
                Message::Stale(claims)
            }
            2 => Message::Standing(Standing {
                service: service(rng),
                term: self.term(rng),
                ring: match rng.below(3) {
                    0 => Had::Nothing,
                    _ => Had::Ring {
                        unsettled: slots(rng),
                    },
                },
            }),
            3..7 => self.ring(rng, to),
            7 => Message::Ack(self.version(rng)),
            8 => Message::Refusal(Refusal {
                version: self.version(rng),
                kind: [
                    RefusalKind::Incomplete,
                    RefusalKind::Unable,
                    RefusalKind::Absent,
                ][rng.below(3)],
                reason: text(rng),
            }),
            9 => Message::Swept(Swept {
                version: self.version(rng),
                began_ago_ms: number(rng) as u32,
                exceptions: slots(rng),
            }),
            10 => Message::Report(Report {
                number: number(rng),
                heard: number(rng),
                lag_ms: number(rng) as u32,
                suppressed: (0..few(rng, 3_000))
                    .map(|_| (service(rng), number(rng) as u32))
                    .collect(),
            }),
            _ => Message::Empty(Claim {
                service: service(rng),
                term: self.term(rng),
            }),
        }
    }

    /// It decides from now on.
    fn claim(&mut self, rng: &mut Rng, to: usize) -> Message {
        if rng.below(3) == 0 {
            return Message::Claim(self.claims(rng));
        }
        let term = Term {
            number: self.later(rng),
            owner: name(self.number),
        };
        self.claimed[to] = term.clone();
        let claim = Claim {
            service: SERVICE,
            term,
        };
        Message::Claim(vec![claim; 1 + few(rng, 6_000)])
    }

    fn claims(&self, rng: &mut Rng) -> Vec<Claim> {
        (0..few(rng, 3_000))
            .map(|_| Claim {
                service: service(rng),
                term: self.term(rng),
            })
            .collect()
    }

    /// A part of a ring that it has claimed; often it comes whole.
    fn ring(&self, rng: &mut Rng, to: usize) -> Message {
        let version = match rng.below(8) {
            0 => self.version(rng),
            _ => Version {
                service: SERVICE,
                term: self.claimed[to].clone(),
                revision: number(rng),
            },
        };
        let slot_count = LENGTHS[rng.below(LENGTHS.len())];
        let is_whole = rng.below(2) == 0;
        let told_count = match is_whole {
            true => slot_count.min(13_000),
            false => rng.below(100) as u32,
        };
        let piece = Piece {
            first: match is_whole {
                true => 0,
                false => [0, 1, 60, 65_530, u32::MAX][rng.below(5)],
            },
            slots: (0..told_count).map(|_| slot_word(rng)).collect(),
        };
        let more = (0..few(rng, 3_000)).map(|_| Piece {
            first: number(rng) as u32,
            slots: vec![slot_word(rng); rng.below(3)],
        });
        let more: Vec<Piece> = if is_whole { Vec::new() } else { more.collect() };
        Message::Ring(RingPart {
            version,
            base: (!is_whole && rng.below(2) == 0).then(|| number(rng)),
            slot_count,
            part: if is_whole { 0 } else { small(rng) },
            part_count: if is_whole { 1 } else { small(rng) },
            backends: self.backends(rng),
            pieces: [vec![piece], more].concat(),
        })
    }

    fn backends(&self, rng: &mut Rng) -> Vec<SocketAddr> {
        match rng.below(4) {
            0 => (0..few(rng, 3_000))
                .map(|_| SocketAddr::new(any_address(rng), rng.next() as u16))
                .collect(),
            _ => (1..=6).map(address).collect(),
        }
    }

    fn version(&self, rng: &mut Rng) -> Version {
        Version {
            service: service(rng),
            term: self.term(rng),
            revision: match rng.below(3) {
                0 => number(rng),
                _ => self.version.revision.wrapping_add(rng.below(3) as u64),
            },
        }
    }

    fn term(&self, rng: &mut Rng) -> Term {
        if rng.below(2) == 0 {
            return self.version.term.clone();
        }
        Term {
            number: self.later(rng),
            owner: match rng.below(8) {
                0 => String::new(),
                1 => "nobody".to_owned(),
                2 => text(rng),
                _ => name(1 + rng.below(3)),
            },
        }
    }

    /// Later than what it has heard, by a little or by all that there is.
    fn later(&self, rng: &mut Rng) -> u64 {
        match rng.below(16) {
            0 => u64::MAX - rng.below(2) as u64,
            1 => number(rng),
            // As far ahead as there is, or just beyond.
            2 => {
                let ahead = u64::MAX / 2 - 1 + rng.below(3) as u64;
                self.version.term.number.wrapping_add(ahead)
            }
            _ => self.version.term.number.wrapping_add(rng.below(4) as u64),
        }
    }
}

fn service(rng: &mut Rng) -> ServiceEndpoint {
    match rng.below(4) {
        0 => ServiceEndpoint {
            vip: any_address(rng),
            port: rng.next() as u16,
            protocol: rng.next() as u8,
        },
        _ => SERVICE,
    }
}

fn any_address(rng: &mut Rng) -> IpAddr {
    match rng.below(2) {
        0 => IpAddr::from((rng.next() as u32).to_be_bytes()),
        _ => IpAddr::from((u128::from(rng.next()) << 64 | 1).to_be_bytes()),
    }
}

fn slots(rng: &mut Rng) -> SlotSet {
    match rng.below(64) {
        0 => SlotSet::of(400_000, |slot| slot % 8 == 7),
        _ => {
            let bits = rng.next();
            SlotSet::of(1 + rng.below(300), |slot| bits >> (slot % 64) & 1 == 1)
        }
    }
}

/// A slot's word: of known backends more often than not.
fn slot_word(rng: &mut Rng) -> u32 {
    match rng.below(64) {
        0 => rng.next() as u32,
        _ => Slot::in_transition(1 + rng.below(6) as u16, rng.below(7) as u16).0,
    }
}

fn text(rng: &mut Rng) -> String {
    "ä".repeat(few(rng, 20_000))
}

/// Few, or very many now and then.
fn few(rng: &mut Rng, most: usize) -> usize {
    match rng.below(64) {
        0 => rng.below(most + 1),
        _ => rng.below(4),
    }
}

fn small(rng: &mut Rng) -> u16 {
    [0, 0, 1, 1, 2, 3, u16::MAX][rng.below(7)]
}

fn number(rng: &mut Rng) -> u64 {
    [0, 1, 2, 3, u64::from(u32::MAX), u64::MAX, rng.next()][rng.below(7)]
}

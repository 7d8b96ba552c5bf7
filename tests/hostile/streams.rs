//! What anybody may send to the peer link over TCP, in every phase of a session.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use lb_userspace::sync::hello::Hello;
use lb_userspace::sync::session::{Event, Role, Session, Terms};

use crate::Tally;
use crate::rng::Rng;

/// Frames that a genuine session carries.
const FRAMES: u16 = 3;
/// Flights to and fro until a session has carried its frames.
const FLIGHTS: usize = 6;

/// One end.
struct End {
    session: Session,
    out: Vec<u8>,
    events: Vec<Event>,
}

impl End {
    fn new(role: Role, node: &str, peer: &str, key: u8) -> Self {
        let mut out = Vec::new();
        let terms = Terms {
            role,
            hello: Hello::of(node),
            expected: BTreeSet::from([peer.to_owned()]),
            key: [key; 32],
            welcome: node.as_bytes().to_vec(),
        };
        Self {
            session: Session::new(terms, &mut out),
            out,
            events: Vec::new(),
        }
    }

    /// The first refusal, if there is one.
    fn receive(&mut self, bytes: &[u8], piece_bytes: usize) -> Option<String> {
        let mut pieces = bytes.chunks(piece_bytes);
        pieces.find_map(|piece| {
            let received = self.session.receive(piece, &mut self.out, &mut self.events);
            received.err().map(|refusal| refusal.to_string())
        })
    }

    fn send_frames(&mut self) {
        for kind in 2000..2000 + FRAMES {
            // Only while the session is up.
            let _ = self.session.send(kind, &kind.to_be_bytes(), &mut self.out);
        }
    }
}

/// Attacks with so many messages.
pub(crate) fn attack(rng: &mut Rng, messages: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    while tally.hostile < messages {
        // A handshake is dear: most attackers have no genuine one to spoil.
        if rng.below(20) == 0 {
            spoil_a_flight(rng, &mut tally)?;
        } else {
            speak_first(rng, &mut tally)?;
        }
    }
    Ok(tally)
}

/// Somebody without the secret connects, or is connected to.
fn speak_first(rng: &mut Rng, tally: &mut Tally) -> Result<()> {
    let role = if rng.below(2) == 0 {
        Role::Acceptor
    } else {
        Role::Dialler
    };
    let mut victim = End::new(role, "lb2", "lb1", 1);
    let hello = Hello::of("lb1").to_bytes();
    let mut bytes = ((hello.len() + 1) as u16).to_be_bytes().to_vec();
    bytes.push(1);
    bytes.extend(hello);
    if rng.below(2) == 0 {
        // A handshake's message of the right form.
        bytes.extend([0, 49, 3]);
        bytes.extend(rng.bytes(48));
    } else {
        rng.spoil(&mut bytes);
    }
    let refusal = victim.receive(&bytes, 1 + rng.below(200));
    ensure!(
        victim.events.is_empty(),
        "a session came up without the secret"
    );
    tally.refuse(refusal.unwrap_or_else(|| "(waits for more)".to_owned()));
    Ok(())
}

/// A genuine session, one flight of which is spoilt on its way.
fn spoil_a_flight(rng: &mut Rng, tally: &mut Tally) -> Result<()> {
    let mut ends = [
        End::new(Role::Dialler, "lb1", "lb2", 1),
        End::new(Role::Acceptor, "lb2", "lb1", 1),
    ];
    let spoilt = rng.below(FLIGHTS);
    for flight in 0..FLIGHTS {
        let from = flight % 2;
        if flight >= FLIGHTS - 2 {
            ends[from].send_frames();
        }
        let mut bytes = std::mem::take(&mut ends[from].out);
        let to = &mut ends[1 - from];
        if flight != spoilt {
            ensure!(
                to.receive(&bytes, 1000).is_none(),
                "a genuine flight was refused"
            );
            tally.genuine += 1;
            continue;
        }
        let genuine = bytes.clone();
        rng.spoil(&mut bytes);
        if bytes == genuine {
            return Ok(());
        }
        let refusal = to.receive(&bytes, 1 + rng.below(200));
        tally.refuse(refusal.unwrap_or_else(|| "(waits for more)".to_owned()));
        break;
    }
    for (end, peer) in ends.iter().zip(["lb2", "lb1"]) {
        check(&end.events, peer)?;
    }
    Ok(())
}

/// What was taken is what the other end has sent, from the beginning.
fn check(events: &[Event], peer: &str) -> Result<()> {
    for (number, event) in events.iter().enumerate() {
        let is_genuine = match event {
            Event::Up { hello, welcome, .. } => {
                number == 0 && hello.node == peer && welcome == peer.as_bytes()
            }
            Event::Frame { kind, payload } => {
                *kind == 2000 + number as u16 - 1 && *payload == kind.to_be_bytes()
            }
        };
        ensure!(is_genuine, "{event:?} was taken as number {number}");
    }
    Ok(())
}

//! Sessions between two ends in memory, and with what others may send.

use proptest::prelude::*;

use super::*;
use crate::sync::hello::VERSION;

fn terms(role: Role, node: &str, peer: &str, key: u8) -> Terms {
    Terms {
        role,
        hello: Hello::of(node),
        expected: BTreeSet::from([peer.to_owned()]),
        key: [key; 32],
        welcome: format!("welcome from {node}").into_bytes(),
    }
}

/// One end, and what has come of it.
struct End {
    session: Session,
    out: Vec<u8>,
    events: Vec<Event>,
}

impl End {
    fn new(terms: Terms) -> Self {
        let mut out = Vec::new();
        let session = Session::new(terms, &mut out);
        Self {
            session,
            out,
            events: Vec::new(),
        }
    }

    fn receive(&mut self, bytes: &[u8]) -> Result<(), Refusal> {
        self.session.receive(bytes, &mut self.out, &mut self.events)
    }
}

fn pair() -> (End, End) {
    (
        End::new(terms(Role::Dialler, "lb1", "lb2", 1)),
        End::new(terms(Role::Acceptor, "lb2", "lb1", 1)),
    )
}

/// Carries bytes to and fro until nothing is left, in pieces of this length.
fn exchange(one: &mut End, other: &mut End, piece_bytes: usize) -> Result<(), Refusal> {
    while !one.out.is_empty() || !other.out.is_empty() {
        carry(one, other, piece_bytes)?;
        carry(other, one, piece_bytes)?;
    }
    Ok(())
}

fn carry(from: &mut End, to: &mut End, piece_bytes: usize) -> Result<(), Refusal> {
    let bytes = std::mem::take(&mut from.out);
    bytes
        .chunks(piece_bytes)
        .try_for_each(|piece| to.receive(piece))
}

fn is_up_with(end: &End, node: &str) -> bool {
    matches!(&end.events[..], [Event::Up { hello, version, welcome }]
        if hello.node == node && *version == VERSION && *welcome == format!("welcome from {node}").into_bytes())
}

#[test]
fn both_ends_come_up_and_frames_arrive_whatever_the_pieces() {
    for piece_bytes in [1, 2, 7, 100_000] {
        let (mut one, mut other) = pair();
        exchange(&mut one, &mut other, piece_bytes).expect("a session");
        assert!(is_up_with(&one, "lb2") && is_up_with(&other, "lb1"));
        let long = vec![7; FRAME_MAX_BYTES];
        for payload in [&b"short"[..], &[], &long] {
            one.session.send(2000, payload, &mut one.out).expect("up");
            exchange(&mut one, &mut other, piece_bytes).expect("a frame");
            let event = other.events.last().expect("an event");
            let payload = payload.to_vec();
            assert_eq!(
                *event,
                Event::Frame {
                    kind: 2000,
                    payload
                }
            );
        }
        assert_eq!(other.session.received.capacity(), 0, "nothing is kept");
    }
}

#[test]
fn a_frame_that_is_too_long_or_too_early_is_not_sent() {
    let (mut one, mut other) = pair();
    assert_eq!(
        one.session.send(2000, &[], &mut Vec::new()),
        Err(FrameError::NotUp)
    );
    exchange(&mut one, &mut other, 1000).expect("a session");
    let error = one
        .session
        .send(2000, &vec![0; FRAME_MAX_BYTES + 1], &mut one.out)
        .expect_err("too long");
    assert!(error.to_string().contains("65001"), "{error}");
    assert!(one.out.is_empty());
}

#[test]
fn another_secret_is_refused_and_both_ends_say_so() {
    let mut one = End::new(terms(Role::Dialler, "lb1", "lb2", 1));
    let mut other = End::new(terms(Role::Acceptor, "lb2", "lb1", 2));
    let refusal = exchange(&mut one, &mut other, 1000).expect_err("another secret");
    assert_eq!(refusal, Refusal::Secret);
    let bytes = std::mem::take(&mut other.out);
    let refusal = one.receive(&bytes).expect_err("the acceptor refuses");
    let text = refusal.to_string();
    assert!(
        text.contains("lb2: it has another [cluster] secret_file"),
        "{text}"
    );
    assert!(one.events.is_empty() && other.events.is_empty());
}

#[test]
fn an_unknown_node_is_refused_and_both_ends_say_so() {
    let mut one = End::new(terms(Role::Dialler, "lb9", "lb2", 1));
    let mut other = End::new(terms(Role::Acceptor, "lb2", "lb1", 1));
    let refusal = exchange(&mut one, &mut other, 1000).expect_err("an unknown node");
    assert!(matches!(refusal, Refusal::Name { .. }));
    let bytes = std::mem::take(&mut other.out);
    let refusal = one.receive(&bytes).expect_err("the acceptor refuses");
    assert!(
        refusal.to_string().contains("no [[cluster.peer]] \"lb9\""),
        "{refusal}"
    );
}

#[test]
fn another_major_version_is_refused_and_both_ends_say_so_and_a_later_minor_one_is_lowered() {
    let (mut one, mut other) = pair();
    one = End::new(Terms {
        hello: Hello {
            version: Version { major: 2, minor: 0 },
            ..Hello::of("lb1")
        },
        ..one.session.terms
    });
    let refusal = exchange(&mut one, &mut other, 1000).expect_err("another major version");
    assert!(matches!(refusal, Refusal::Version { .. }));
    let bytes = std::mem::take(&mut other.out);
    let refusal = one.receive(&bytes).expect_err("the acceptor refuses");
    assert!(refusal.to_string().contains("2.0"), "{refusal}");

    let (one, mut other) = pair();
    let mut one = End::new(Terms {
        hello: Hello {
            version: Version {
                major: VERSION.major,
                minor: 7,
            },
            ..Hello::of("lb1")
        },
        ..one.session.terms
    });
    exchange(&mut one, &mut other, 1000).expect("a later minor version");
    assert!(is_up_with(&one, "lb2") && is_up_with(&other, "lb1"));
}

#[test]
fn a_hello_that_was_changed_on_the_way_breaks_the_handshake() {
    let (mut one, mut other) = pair();
    // The minor version's last byte.
    one.out[LENGTH_BYTES + 1 + 7] ^= 1;
    let refusal = exchange(&mut one, &mut other, 1000).expect_err("another prologue");
    assert_eq!(refusal, Refusal::Secret);
}

/// What the dialler sends, recorded, does not bring a second session up.
#[test]
fn a_replayed_session_never_comes_up() {
    let (mut one, mut other) = pair();
    let mut recorded = Vec::new();
    while !one.out.is_empty() {
        let bytes = std::mem::take(&mut one.out);
        recorded.extend_from_slice(&bytes);
        other.receive(&bytes).expect("the first time");
        let bytes = std::mem::take(&mut other.out);
        one.receive(&bytes).expect("the first time");
    }
    assert!(is_up_with(&other, "lb1"));
    let mut fresh = End::new(terms(Role::Acceptor, "lb2", "lb1", 1));
    let refusal = fresh.receive(&recorded).expect_err("a replay");
    assert_eq!(refusal, Refusal::Malformed("a frame is not authentic"));
    assert!(fresh.events.is_empty());
}

#[test]
fn a_frame_that_is_repeated_changed_or_out_of_order_ends_the_session() {
    let spoil: [fn(&mut Vec<u8>, usize); 3] = [
        |bytes, _| bytes.extend(bytes.clone()),
        |bytes, _| *bytes.last_mut().expect("bytes") ^= 1,
        |bytes, first_bytes| bytes.rotate_left(first_bytes),
    ];
    for spoil in spoil {
        let (mut one, mut other) = pair();
        exchange(&mut one, &mut other, 1000).expect("a session");
        one.session.send(2000, b"first", &mut one.out).expect("up");
        let first_bytes = one.out.len();
        one.session
            .send(2000, b"second one", &mut one.out)
            .expect("up");
        spoil(&mut one.out, first_bytes);
        let refusal = other.receive(&one.out).expect_err("spoilt");
        assert_eq!(refusal, Refusal::Malformed("a frame is not authentic"));
        assert!(other.receive(b"\0\0").is_err(), "it has ended");
    }
}

#[test]
fn who_claims_a_long_message_in_clear_is_refused_before_it_is_read() {
    let (_, mut other) = pair();
    assert_eq!(other.receive(b"GET / HTTP/1.1\r\n"), Err(Refusal::NotOurs));
}

#[test]
fn a_refusal_is_shown_without_what_would_garble_a_terminal() {
    let (mut one, _) = pair();
    let mut bytes = Vec::new();
    put_clear(TYPE_REFUSAL, b"\x1b[2Jno\n\xff", &mut bytes);
    let refusal = one.receive(&bytes).expect_err("refused");
    assert_eq!(refusal, Refusal::Said("[2Jno\u{fffd}".to_owned()));
}

proptest! {
    /// Whatever is sent, in whatever phase, nobody without the secret brings a session up, and little is kept.
    #[test]
    fn noise_never_comes_up(
        phase in 0..4_usize,
        noise in proptest::collection::vec(any::<u8>(), 0..600),
        place in any::<usize>(),
    ) {
        let (mut one, mut other) = pair();
        for _ in 0..phase {
            let bytes = std::mem::take(&mut one.out);
            other.receive(&bytes).expect("as agreed");
            let bytes = std::mem::take(&mut other.out);
            one.receive(&bytes).expect("as agreed");
        }
        let event_count = other.events.len();
        let mut bytes = std::mem::take(&mut one.out);
        let place = place % (bytes.len() + 1);
        bytes.splice(place..place, noise);
        let mut refused = false;
        for piece in bytes.chunks(100) {
            refused = refused || other.receive(piece).is_err();
            prop_assert!(other.session.received.len() <= usize::from(u16::MAX) + LENGTH_BYTES);
        }
        prop_assert!(other.events.len() <= event_count + 1);
    }
}

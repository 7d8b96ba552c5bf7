use proptest::prelude::*;

use super::samples::{all, answer, conversations, link, undelivered};
use super::*;

#[test]
fn an_answer_is_told_by_its_conversation() {
    for conversation in conversations() {
        let frame = answer(&conversation);
        let family = Family::of(conversation.local.ip());
        let arrival = parse(family, &frame, Checksum::Verify).unwrap();
        assert_eq!(arrival.conversation, conversation);
        let What::Packet { packet, payload } = arrival.what else {
            panic!("{arrival:?}");
        };
        assert_eq!(packet, &frame[LINK_BYTES..]);
        match conversation.transport {
            Transport::Udp => assert_eq!(payload, b"an answer of an odd length"),
            Transport::Echo => assert_eq!(payload.last(), Some(&42)),
            Transport::Tcp => {}
        }
    }
}

#[test]
fn padding_is_no_part_of_a_packet() {
    for conversation in conversations() {
        let frame = answer(&conversation);
        let padded = [frame.clone(), vec![0xaa; 30]].concat();
        let family = Family::of(conversation.local.ip());
        let plain = parse(family, &frame, Checksum::Verify);
        assert!(plain.is_some());
        assert_eq!(parse(family, &padded, Checksum::Verify), plain);
    }
}

#[test]
fn errors_are_told_by_what_they_quote() {
    let v4 = [
        (3, 3, Undelivered::Port),
        (3, 13, Undelivered::Prohibited),
        (3, 1, Undelivered::Address),
        (11, 0, Undelivered::HopLimit),
    ];
    let v6 = [
        (1, 4, Undelivered::Port),
        (1, 1, Undelivered::Prohibited),
        (1, 0, Undelivered::Address),
        (3, 0, Undelivered::HopLimit),
    ];
    for conversation in conversations() {
        let family = Family::of(conversation.local.ip());
        let cases = match family {
            Family::V4 => v4,
            Family::V6 => v6,
        };
        for (kind, code, why) in cases {
            let frame = undelivered(&conversation, kind, code);
            let arrival = parse(family, &frame, Checksum::Verify).unwrap();
            let expected = What::Undelivered(why);
            assert_eq!(
                (arrival.conversation, arrival.what),
                (conversation, expected)
            );
        }
        // "Packet too big" is no end: TCP's segments fit, by the interface.
        let too_big = match family {
            Family::V4 => undelivered(&conversation, 3, 4),
            Family::V6 => undelivered(&conversation, 2, 0),
        };
        assert_eq!(parse(family, &too_big, Checksum::Verify), None);
    }
}

#[test]
fn what_the_filter_keeps_out_is_for_nobody() {
    for sample in all() {
        let arrival = parse(sample.family, &sample.frame, Checksum::Verify);
        let is_its = arrival.is_some_and(|arrival| arrival.conversation == sample.conversation);
        assert_eq!(is_its, sample.is_ours, "{}", sample.name);
    }
}

#[test]
fn a_wrong_checksum_is_no_answer_unless_the_kernel_vouches_for_it() {
    for conversation in conversations() {
        let family = Family::of(conversation.local.ip());
        let mut frame = answer(&conversation);
        *frame.last_mut().unwrap() ^= 0xff;
        assert_eq!(parse(family, &frame, Checksum::Verify), None);
        assert!(parse(family, &frame, Checksum::Trusted).is_some());
    }
}

#[test]
fn a_question_has_its_addresses_hops_and_checksums() {
    for conversation in conversations() {
        let (family, frame) = match conversation.transport {
            Transport::Tcp => continue,
            Transport::Udp => (
                Family::of(conversation.local.ip()),
                udp(&conversation, &link(), b"ping"),
            ),
            Transport::Echo => {
                // A reply's type, so that it is heard.
                let kind = if conversation.local.is_ipv4() { 0 } else { 129 };
                let message = [kind, 0, 0, 0, 0, 0, 0, 1];
                (
                    Family::of(conversation.local.ip()),
                    echo(&conversation, &link(), &message),
                )
            }
        };
        let hops_at = match family {
            Family::V4 => 8,
            Family::V6 => 7,
        };
        assert_eq!(frame[LINK_BYTES + hops_at], HOP_LIMIT);
        assert_eq!(
            frame[..12],
            [link().destination(), link().source()].concat()
        );
        let heard = parse(family, &frame, Checksum::Verify)
            .unwrap()
            .conversation;
        assert_eq!(heard.local.ip(), conversation.remote.ip());
        assert_eq!(heard.remote.ip(), conversation.local.ip());
    }
}

proptest! {
    /// Anybody may send anything.
    #[test]
    fn any_bytes_are_parsed(frame in proptest::collection::vec(any::<u8>(), 0..200), trusted: bool) {
        let checksum = if trusted { Checksum::Trusted } else { Checksum::Verify };
        for family in [Family::V4, Family::V6] {
            let mut frame = frame.clone();
            if frame.len() >= LINK_BYTES {
                write_link(&mut frame, &link(), family);
            }
            let _ = parse(family, &frame, checksum);
        }
    }

    /// What is damaged or cut off is parsed, too; and never does a packet reach beyond its frame.
    #[test]
    fn damaged_answers_are_parsed(
        which in 0..36_usize,
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        is_cut: bool,
    ) {
        let samples = all();
        let sample = &samples[which % samples.len()];
        let mut frame = sample.frame.clone();
        for (place, byte) in damage {
            let place = place.index(frame.len());
            frame[place] = byte;
        }
        if is_cut {
            frame.truncate(cut.index(frame.len()));
        }
        if let Some(arrival) = parse(sample.family, &frame, Checksum::Trusted)
            && let What::Packet { packet, payload } = arrival.what
        {
            prop_assert!(packet.len() + LINK_BYTES <= frame.len());
            prop_assert!(payload.len() <= packet.len());
        }
    }
}

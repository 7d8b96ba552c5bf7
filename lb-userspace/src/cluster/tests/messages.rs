//! Messages that nobody should have sent.

use super::*;

/// A megabyte of zeros in a kilobyte.
#[test]
fn what_would_grow_beyond_a_message_is_refused() {
    let mut bytes = vec![1];
    bytes.extend(miniz_oxide::deflate::compress_to_vec(&[0; 1 << 20], 1));
    assert!(bytes.len() < 10_000);
    assert!(Message::decode(&bytes).is_err());
    assert!(Message::decode(&[2, 0, 0]).is_err());
    assert!(Message::decode(&[]).is_err());
}

#[test]
fn damaged_messages_are_refused_and_harmless() {
    let mut bench = Bench::together(2, &[1, 2, 3]);
    bench.want(1, &[2, 2, 3], &[1]);
    bench.pass(2_000);
    let messages = bench.said.clone();
    assert!(messages.len() > 20);
    let mut random = 7_u64;
    for round in 0..20_000_u64 {
        random = lb_common::hash::mix(random ^ round);
        let mut bytes = messages[(random % messages.len() as u64) as usize].clone();
        for _ in 0..=random % 3 {
            random = lb_common::hash::mix(random);
            let at = (random >> 8) as usize % bytes.len();
            bytes[at] ^= 1 << (random % 8);
        }
        if random.is_multiple_of(5) {
            bytes.truncate(random as usize % bytes.len());
        }
        let now_ms = bench.now_ms;
        if let Ok(message) = Message::decode(&bytes) {
            bench
                .node(2)
                .coordinator
                .receive("lb1", message.clone(), now_ms);
            bench.node(1).coordinator.receive("lb2", message, now_ms);
        }
        if round % 200 == 0 {
            bench.look();
            bench.now_ms += 10;
        }
    }
    // What is still there agrees.
    bench.cut(1, 2);
    bench.pass(10);
    bench.connect_all();
    bench.activate(1);
    bench.pass(3_000);
    assert_eq!(bench.slots(1), bench.slots(2));
}

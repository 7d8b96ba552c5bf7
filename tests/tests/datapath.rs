//! The packet fixtures against the host core, and properties of the parser.

use lb_common::datapath::life::SILENCE_TOLD_S;
use lb_common::datapath::{Verdict, process};
use lb_common::drop_reason::DropReason;
use lb_lab::datapath::fixtures::{self, Step};
use lb_lab::datapath::frame::Flags;
use lb_lab::datapath::memory::{MemoryKernel, MemoryPacket};
use lb_lab::datapath::tables::{Peers, Tables};
use lb_lab::datapath::world::INGRESS_IFINDEX;
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Where records that fixtures bring along were just seen.
const NOW_S: u32 = u32::MAX / 2;

fn run(kernel: &MemoryKernel, frame: &[u8]) -> (Verdict, Vec<u8>) {
    let mut packet = MemoryPacket {
        bytes: frame.to_vec(),
        ingress_ifindex: INGRESS_IFINDEX,
    };
    let verdict = process(&mut packet, kernel);
    (verdict, packet.bytes)
}

#[test]
fn every_fixture_holds_on_the_host() {
    for fixture in fixtures::all() {
        let kernel = MemoryKernel::new(fixture.tables, NOW_S);
        for (number, step) in fixture.steps.iter().enumerate() {
            let (verdict, bytes) = run(&kernel, &step.arrives);
            assert_eq!(verdict, step.verdict, "{}, packet {number}", fixture.name);
            if !matches!(verdict, Verdict::Drop(_)) {
                assert_eq!(bytes, step.leaves, "{}, packet {number}", fixture.name);
            }
        }
        assert_eq!(kernel.traces(), fixture.traces, "{}", fixture.name);
    }
}

/// A record counts as long as its flow was silent for no longer than the idle time-out, and every
/// packet starts the time anew.
#[test]
fn a_silent_flow_is_forgotten_after_the_idle_timeout() {
    let (tables, [first_syn, next_syn]) = fixtures::two_clients_of_a_round_robin_service();
    let first_ack = fixtures::a_segment_of_the_first_client(Flags::Ack, 1);
    let timeout_s = tables
        .services
        .values()
        .next()
        .expect("a service")
        .idle_timeout_s;
    let kernel = MemoryKernel::new(tables, NOW_S);
    let (_, first) = run(&kernel, &first_syn);
    run(&kernel, &first_ack);
    kernel.now_s.set(NOW_S + timeout_s);
    assert_eq!(
        run(&kernel, &first_syn).1,
        first,
        "seen {timeout_s} s ago: still on record"
    );
    kernel.now_s.set(NOW_S + 2 * timeout_s);
    assert_eq!(
        run(&kernel, &first_syn).1,
        first,
        "its last packet started the time anew"
    );
    let (_, second) = run(&kernel, &next_syn);
    assert_ne!(
        first[..6],
        second[..6],
        "the second client's turn is another backend's"
    );
    kernel.now_s.set(NOW_S + 3 * timeout_s + 1);
    assert_ne!(
        run(&kernel, &first_syn).1[..6],
        first[..6],
        "forgotten, and scheduled anew"
    );
}

/// Where every flow is on record, a segment of one that is not waits for a peer to tell of it, and goes on a guess
/// when none does; without peers there is nothing to wait for.
#[test]
fn a_segment_of_a_flow_without_a_record_waits_for_a_peer() {
    let (tables, [syn, _]) = fixtures::two_clients_of_a_round_robin_service();
    let ack = fixtures::a_segment_of_the_first_client(Flags::Ack, 1);
    let waits = Verdict::Drop(DropReason::FlowUnknown);
    let kernel = MemoryKernel::new(tables.clone(), NOW_S);
    assert_eq!(run(&kernel, &ack).0, waits);
    assert_eq!(run(&kernel, &ack).0, waits, "at the same moment");
    kernel.now_s.set(NOW_S + 1);
    assert_eq!(run(&kernel, &ack).0, Verdict::Transmit, "nobody told of it");
    kernel.now_s.set(NOW_S + 100);
    assert_eq!(run(&kernel, &ack).0, waits, "of another connection by then");
    assert_eq!(run(&kernel, &syn).0, Verdict::Transmit);
    assert_eq!(run(&kernel, &ack).0, Verdict::Transmit, "on record");

    let alone = MemoryKernel::with_peers(tables, NOW_S, Peers::None);
    assert_eq!(run(&alone, &ack).0, Verdict::Transmit);
}

/// A node may die right after it: what it had kept to itself would be as long as the silence.
#[test]
fn the_packet_after_a_silence_is_told_of_at_once() {
    let (tables, [syn, _]) = fixtures::two_clients_of_a_round_robin_service();
    let ack = fixtures::a_segment_of_the_first_client(Flags::Ack, 1);
    for (peers, silent_s, is_told) in [
        (Peers::Some, 0, false),
        (Peers::Some, SILENCE_TOLD_S - 1, false),
        (Peers::Some, SILENCE_TOLD_S, true),
        (Peers::Some, 100, true),
        (Peers::None, 100, false),
    ] {
        let kernel = MemoryKernel::with_peers(tables.clone(), NOW_S, peers);
        run(&kernel, &syn);
        run(&kernel, &ack);
        kernel.take_changed_sets();
        kernel.now_s.set(NOW_S + silent_s);
        assert_eq!(run(&kernel, &ack).0, Verdict::Transmit);
        let sets = kernel.take_changed_sets();
        assert_eq!(!sets.is_empty(), is_told, "{peers:?}, {silent_s} s");
        run(&kernel, &ack);
        assert!(kernel.take_changed_sets().is_empty(), "in the same second");
    }
}

/// A client that uses a port again: the SYN went to another node, which has not told of it yet, and the record that
/// is here is of the connection before.
#[test]
fn a_segment_after_its_flows_end_waits_for_a_peer() {
    let (tables, [syn, _]) = fixtures::two_clients_of_a_round_robin_service();
    let [ack, fin] =
        [Flags::Ack, Flags::FinAck].map(|flags| fixtures::a_segment_of_the_first_client(flags, 1));
    let next = fixtures::a_segment_of_the_first_client(Flags::Ack, 1 << 17);
    let waits = Verdict::Drop(DropReason::FlowUnknown);
    for peers in [Peers::Some, Peers::None] {
        let kernel = MemoryKernel::with_peers(tables.clone(), NOW_S, peers);
        for segment in [&syn, &ack, &next, &fin, &next] {
            assert_eq!(run(&kernel, segment).0, Verdict::Transmit, "of one flow");
        }
        kernel.now_s.set(NOW_S + 2);
        assert_eq!(run(&kernel, &fin).0, Verdict::Transmit, "a repeated FIN");
        kernel.now_s.set(NOW_S + 4);
        assert_eq!(
            run(&kernel, &ack).0,
            Verdict::Transmit,
            "the last ACK is late"
        );
    }
    for (peers, verdict) in [(Peers::Some, waits), (Peers::None, Verdict::Transmit)] {
        let kernel = MemoryKernel::with_peers(tables.clone(), NOW_S, peers);
        for segment in [&syn, &ack, &fin, &ack] {
            run(&kernel, segment);
        }
        kernel.now_s.set(NOW_S + 2);
        assert_eq!(run(&kernel, &next).0, verdict, "{peers:?}");
        kernel.now_s.set(NOW_S + 3);
        assert_eq!(run(&kernel, &next).0, Verdict::Transmit, "nobody told");
    }
}

/// Opens a thousand connections; returns where each went.
fn establish(kernel: &MemoryKernel, world: &fixtures::FloodWorld) -> Vec<Vec<u8>> {
    (0..1_000)
        .map(|client| {
            run(kernel, &world.syn(client));
            run(kernel, &world.ack(client)).1[..6].to_vec()
        })
        .collect()
}

/// How many of those connections go elsewhere now.
fn moved(kernel: &MemoryKernel, world: &fixtures::FloodWorld, backends: &[Vec<u8>]) -> usize {
    (0..)
        .zip(backends)
        .filter(|(client, backend)| run(kernel, &world.ack(*client)).1[..6] != backend[..])
        .count()
}

/// Silence does not break a connection whose record nothing else needed.
#[test]
fn a_segment_follows_its_expired_record() {
    let world = fixtures::FloodWorld::new();
    let kernel = MemoryKernel::new(world.tables(), NOW_S);
    let (_, first) = run(&kernel, &world.syn(1));
    run(&kernel, &world.ack(1));
    run(&kernel, &world.syn(2));
    kernel.now_s.set(NOW_S + 100_000);
    assert_eq!(run(&kernel, &world.ack(1)).1[..6], first[..6]);
}

/// The table has room for 4,096 flows. Ten times as many SYNs evict each other, and no established
/// connection, however long it has been silent within its time-out.
#[test]
fn a_syn_flood_evicts_no_established_connection() {
    let world = fixtures::FloodWorld::new();
    let kernel = MemoryKernel::new(world.tables(), NOW_S);
    let backends = establish(&kernel, &world);
    kernel.now_s.set(NOW_S + 30);
    for client in 100_000..140_000 {
        run(&kernel, &world.syn(client));
    }
    assert_eq!(moved(&kernel, &world, &backends), 0);
}

/// Each record expires by its own service's time-out, whoever looks for room.
#[test]
fn a_short_timeout_of_one_service_costs_another_nothing() {
    let world = fixtures::FloodWorld::new();
    let kernel = MemoryKernel::new(world.tables(), NOW_S);
    let backends = establish(&kernel, &world);
    // 200 new UDP flows a second of a service with a time-out of 5 s, for 40 s.
    for second in 0..40_u32 {
        kernel.now_s.set(NOW_S + second);
        for n in 0..200 {
            run(&kernel, &world.query(second * 200 + n));
        }
    }
    assert_eq!(moved(&kernel, &world, &backends), 0);
}

/// A packet of some fixture, in its world, with some bytes changed and its end cut or extended.
fn mutated() -> impl Strategy<Value = (Tables, Vec<u8>)> {
    let all: Vec<(Tables, Step)> = fixtures::all()
        .into_iter()
        .flat_map(|fixture| {
            let tables = fixture.tables;
            fixture
                .steps
                .into_iter()
                .map(move |step| (tables.clone(), step))
        })
        .collect();
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..6);
    (select(all), changes, any::<Option<Index>>()).prop_map(|((tables, step), changes, cut)| {
        let mut bytes = step.arrives;
        for (place, value) in changes {
            let place = place.index(bytes.len());
            bytes[place] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        (tables, bytes)
    })
}

proptest! {
    /// Whatever comes in, the walk ends with a verdict and exactly one count; what is passed is
    /// unchanged, and what is forwarded keeps its length.
    #[test]
    fn any_frame_gets_one_verdict_and_one_count((tables, frame) in mutated()) {
        let kernel = MemoryKernel::new(tables, NOW_S);
        let (verdict, bytes) = run(&kernel, &frame);
        let traces = kernel.traces();
        let forwarded: u64 =
            traces.backends.values().map(|stats| stats.packets + stats.reply_packets).sum();
        let dropped: u64 = traces.drops.values().sum();
        let is_answer = traces.drops.keys().any(|(_, reason)| *reason == DropReason::Reset);
        prop_assert_eq!(traces.passed + forwarded + dropped, 1);
        match verdict {
            Verdict::Pass => {
                prop_assert_eq!(traces.passed, 1);
                prop_assert_eq!(bytes, frame);
            }
            Verdict::Drop(_) => prop_assert_eq!(dropped, 1),
            Verdict::Transmit if is_answer => prop_assert!(bytes.len() <= frame.len()),
            Verdict::Transmit | Verdict::Redirect(_) => {
                prop_assert_eq!(forwarded, 1);
                prop_assert_eq!(bytes.len(), frame.len());
            }
        }
    }

    #[test]
    fn noise_is_the_hosts(frame in prop::collection::vec(any::<u8>(), 0..200)) {
        let tables = fixtures::all().swap_remove(0).tables;
        let kernel = MemoryKernel::new(tables, NOW_S);
        let (verdict, bytes) = run(&kernel, &frame);
        prop_assert_eq!(verdict, Verdict::Pass);
        prop_assert_eq!(bytes, frame);
    }
}

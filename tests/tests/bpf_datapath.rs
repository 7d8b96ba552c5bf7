//! The packet fixtures against the loaded program, packet by packet with `BPF_PROG_TEST_RUN`; and
//! host core and program against each other on damaged packets.

use lb_common::datapath::{Verdict, process};
use lb_lab::datapath::fixtures::{self, Fixture};
use lb_lab::datapath::kernel::{FlowTable, Lines, LoadedDatapath};
use lb_lab::datapath::memory::{MemoryKernel, MemoryPacket};
use lb_lab::datapath::tables::{FLOW_SETS, Peers};
use lb_lab::datapath::world::INGRESS_IFINDEX;

#[test]
fn every_fixture_holds_in_the_kernel() {
    for fixture in fixtures::all() {
        holds(&fixture, Lines::Filled);
    }
}

/// A service whose line is empty, being written, or another's is found in the hash table.
#[test]
fn services_are_found_without_their_lines() {
    for fixture in fixtures::all().iter().step_by(3) {
        for lines in Lines::ALL {
            holds(fixture, lines);
        }
    }
}

fn holds(fixture: &Fixture, lines: Lines) {
    let mut datapath =
        LoadedDatapath::load_with_lines(&fixture.tables, lines).expect("the program loads");
    for (number, step) in fixture.steps.iter().enumerate() {
        let (verdict, bytes) = datapath.run(&step.arrives).expect("the program runs");
        let place = format!("{}, {lines:?}, packet {number}", fixture.name);
        match step.verdict {
            // The action tells that it was dropped; the counters below, why.
            Verdict::Drop(_) => {
                assert!(matches!(verdict, Verdict::Drop(_)), "{place}: {verdict:?}");
            }
            expected => {
                assert_eq!(verdict, expected, "{place}");
                assert_eq!(bytes, step.leaves, "{place}");
            }
        }
    }
    let traces = datapath.traces().expect("readable maps");
    assert_eq!(traces, fixture.traces, "{}, {lines:?}", fixture.name);
}

/// Damaged packets of every fixture: one byte after the other is set to each of a few values, and
/// the frame is cut at every length that the kernel accepts. Program and host core must agree on
/// every verdict, every byte and every counter.
#[test]
fn program_and_host_core_agree_on_damaged_packets() {
    let mut compared = 0;
    for fixture in fixtures::all() {
        // The kernel's clock cannot be set: worlds that bring records along are left to the host.
        if !fixture.tables.flows.is_empty() {
            continue;
        }
        // Nor do flows wait for what a peer tells, which depends on it too.
        let table = FlowTable {
            set_count: FLOW_SETS,
            peers: Peers::None,
        };
        let mut datapath = LoadedDatapath::load_sized(&fixture.tables, table, Lines::Filled)
            .expect("the program loads");
        let kernel = MemoryKernel::with_peers(fixture.tables, 1_000, Peers::None);
        for frame in fixture
            .steps
            .iter()
            .take(2)
            .flat_map(|step| damaged(&step.arrives))
        {
            let mut packet = MemoryPacket {
                bytes: frame.clone(),
                ingress_ifindex: INGRESS_IFINDEX,
            };
            let expected = process(&mut packet, &kernel);
            let (verdict, bytes) = datapath.run(&frame).expect("the program runs");
            let place = || format!("{}: {frame:02x?}", fixture.name);
            match expected {
                Verdict::Drop(_) => assert!(matches!(verdict, Verdict::Drop(_)), "{}", place()),
                _ => {
                    assert_eq!(verdict, expected, "{}", place());
                    assert_eq!(bytes, packet.bytes, "{}", place());
                }
            }
            compared += 1;
        }
        assert_eq!(
            datapath.traces().expect("readable maps"),
            kernel.traces(),
            "{}",
            fixture.name
        );
    }
    assert!(compared > 10_000, "only {compared} packets were compared");
}

/// The kernel's test run takes frames from this length on.
const FRAME_LEN_MIN: usize = 14;
/// Header bytes that are worth damaging: Ethernet, two tags, IPv6 with an extension, TCP.
const HEADER_LEN: usize = 100;

fn damaged(frame: &[u8]) -> Vec<Vec<u8>> {
    let cut = (FRAME_LEN_MIN..frame.len()).map(|len| frame[..len].to_vec());
    let changed = (0..frame.len().min(HEADER_LEN)).flat_map(|place| {
        [0x00, 0x01, 0x06, 0x11, 0x2c, 0x3c, 0x45, 0x60, 0x81, 0xff].map(|value| {
            let mut frame = frame.to_vec();
            frame[place] = value;
            frame
        })
    });
    cut.chain(changed).collect()
}

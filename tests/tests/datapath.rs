//! The packet fixtures against the host core, and properties of the parser.

use lb_common::datapath::{Verdict, process};
use lb_lab::datapath::fixtures;
use lb_lab::datapath::memory::{MemoryKernel, MemoryPacket};
use lb_lab::datapath::world::INGRESS_IFINDEX;

/// Where records with `last_seen_s = u32::MAX / 2` are in the future or just seen.
const NOW_S: u32 = u32::MAX / 2;

#[test]
fn every_fixture_holds_on_the_host() {
    for fixture in fixtures::all() {
        let kernel = MemoryKernel::new(fixture.tables, NOW_S);
        for (number, step) in fixture.steps.iter().enumerate() {
            let mut packet = MemoryPacket {
                bytes: step.arrives.clone(),
                ingress_ifindex: INGRESS_IFINDEX,
            };
            let verdict = process(&mut packet, &kernel);
            assert_eq!(verdict, step.verdict, "{}, packet {number}", fixture.name);
            if !matches!(verdict, Verdict::Drop(_)) {
                assert_eq!(
                    packet.bytes, step.leaves,
                    "{}, packet {number}",
                    fixture.name
                );
            }
        }
        assert_eq!(kernel.traces(), fixture.traces, "{}", fixture.name);
    }
}

//! The packet fixtures against the loaded program, packet by packet with `BPF_PROG_TEST_RUN`.

use lb_common::datapath::Verdict;
use lb_lab::datapath::fixtures;
use lb_lab::datapath::kernel::LoadedDatapath;

#[test]
fn every_fixture_holds_in_the_kernel() {
    for fixture in fixtures::all() {
        let mut datapath = LoadedDatapath::load(&fixture.tables).expect("the program loads");
        for (number, step) in fixture.steps.iter().enumerate() {
            let (verdict, bytes) = datapath.run(&step.arrives).expect("the program runs");
            let place = format!("{}, packet {number}", fixture.name);
            match step.verdict {
                // The action tells that it was dropped; the counters below, why.
                Verdict::Drop(_) => {
                    assert!(matches!(verdict, Verdict::Drop(_)), "{place}: {verdict:?}")
                }
                expected => {
                    assert_eq!(verdict, expected, "{place}");
                    assert_eq!(bytes, step.leaves, "{place}");
                }
            }
        }
        assert_eq!(
            datapath.traces().expect("readable maps"),
            fixture.traces,
            "{}",
            fixture.name
        );
    }
}

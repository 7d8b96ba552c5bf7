//! Claims of others: what is answered, when, and how often.

use super::test_kit::{Bench, MS, SECOND, adverts, announcements, config, vip};
use crate::vrrp::protocol::State;
use crate::vrrp::router::{Claim, Input, Output, RouterConfig};

const STRANGER: [u8; 6] = [2, 0, 0, 0, 0, 0x66];

fn claim() -> Claim {
    Claim {
        vip: vip(),
        by: STRANGER,
    }
}

/// Active for so long that nothing of its beginning is repeated any more.
fn settled(config: RouterConfig) -> Bench {
    let mut bench = Bench::active(config);
    bench.run_for(20 * SECOND);
    bench
}

fn disputes(out: &[Output]) -> usize {
    let disputed = |output: &&Output| **output == Output::Disputed(claim());
    out.iter().filter(disputed).count()
}

#[test]
fn a_claim_is_answered_within_an_interval() {
    for (interval_cs, wait) in [(100, 100 * MS), (10, 50 * MS), (1, 5 * MS)] {
        let mut bench = settled(RouterConfig {
            interval_cs,
            ..config(1, 100)
        });
        let heard = bench.now;
        assert_eq!(bench.tell(Input::Disputed(claim())), []);
        let out = bench.run_for(wait - 1);
        assert_eq!((announcements(&out), disputes(&out)), (0, 0));
        let out = bench.run_for(1);
        assert_eq!((announcements(&out), disputes(&out)), (1, 1));
        // Again, in case that the first one is lost.
        assert_eq!(announcements(&bench.run_for(20 * SECOND)), 5);
        let status = bench.router.status(bench.now, 1_000_000);
        assert_eq!(status.counters.disputes, 1);
        let dispute = status.dispute.unwrap();
        assert_eq!((dispute.vip, &*dispute.by), (vip(), "02:00:00:00:00:66"));
        let ago_ms = (bench.now - heard - wait) / MS;
        assert_eq!(dispute.unix_ms, 1_000_000 - ago_ms);
    }
}

#[test]
fn a_claim_by_one_that_takes_over_is_not_answered() {
    let mut bench = settled(config(1, 100));
    bench.tell(Input::Disputed(claim()));
    bench.run_for(20 * MS);
    let out = bench.hear(2, 200);
    assert_eq!(bench.router.state(), State::Backup);
    assert_eq!(announcements(&out), 0);
    assert_eq!(announcements(&bench.run_for(SECOND)), 0);
    assert_eq!(bench.router.status(bench.now, 0).counters.disputes, 0);
}

#[test]
fn a_claim_that_is_a_conflict_is_answered_as_such() {
    let mut bench = settled(config(1, 100));
    bench.tell(Input::Disputed(claim()));
    bench.run_for(20 * MS);
    assert_eq!(announcements(&bench.hear(2, 50)), 1);
    let out = bench.run_for(10 * SECOND);
    assert_eq!((announcements(&out), disputes(&out)), (3, 0));
}

#[test]
fn only_an_active_router_answers() {
    let mut bench = Bench::backup(config(1, 100));
    bench.hear(2, 200);
    bench.tell(Input::Disputed(claim()));
    let out = bench.run_for(SECOND);
    assert_eq!((announcements(&out), disputes(&out)), (0, 0));
}

#[test]
fn a_claim_during_a_hand_over_is_what_was_asked_for() {
    let mut bench = settled(config(1, 100));
    // Without a key it goes to whoever takes it: the router resigns, and keeps its VIPs for a moment.
    bench.tell(Input::Disputed(claim()));
    bench.tell(Input::HandOver);
    bench.tell(Input::Disputed(claim()));
    let out = bench.run_for(200 * MS);
    assert_eq!(disputes(&out), 0, "{out:?}");
}

#[test]
fn after_oversleeping_the_successor_is_waited_for() {
    let mut bench = settled(config(1, 100));
    bench.tell(Input::Overslept { by_us: 5 * SECOND });
    bench.tell(Input::Disputed(claim()));
    assert_eq!(disputes(&bench.run_for(SECOND - 1)), 0);
    let out = bench.run_for(2);
    assert_eq!((disputes(&out), adverts(1, &out).len()), (1, 1));
}

/// Somebody who claims a VIP ten times a second for an hour, and two routers that take each other for such.
#[test]
fn a_dispute_without_end_costs_a_few_announcements_a_minute() {
    let mut bench = settled(config(1, 100));
    let mut out = Vec::new();
    for _ in 0..36_000 {
        bench.tell(Input::Disputed(claim()));
        out.extend(bench.run_for(SECOND / 10));
    }
    // Six at once, then one in ten seconds; each is repeated five times.
    let defences = disputes(&out);
    assert!((360..=367).contains(&defences), "{defences}");
    assert!(announcements(&out) <= 6 * defences);

    let mut two = [settled(config(1, 100)), settled(config(2, 200))];
    two[0].tell(Input::Disputed(claim()));
    let mut announced = 0;
    for _ in 0..600_000 {
        let said = [0, 1].map(|number| announcements(&two[number].run_for(MS)));
        for (number, said) in said.into_iter().enumerate() {
            announced += said;
            for _ in 0..said {
                two[1 - number].tell(Input::Disputed(claim()));
            }
        }
    }
    let minutes = 10;
    assert!(
        (2 * 6..=2 * 40 * minutes).contains(&announced),
        "{announced}"
    );
    let defences = two.map(|one| one.router.status(one.now, 0).counters.disputes);
    assert!(defences.iter().all(|count| *count <= 66), "{defences:?}");
}

#[test]
fn quick_answers_come_back_when_it_was_quiet() {
    let mut bench = settled(config(1, 100));
    let answer = |bench: &mut Bench| {
        bench.tell(Input::Disputed(claim()));
        disputes(&bench.run_for(200 * MS))
    };
    let answers: usize = (0..20).map(|_| answer(&mut bench)).sum();
    assert_eq!(answers, 6);
    bench.run_for(60 * SECOND);
    let answers: usize = (0..4).map(|_| answer(&mut bench)).sum();
    assert_eq!(answers, 4);
}

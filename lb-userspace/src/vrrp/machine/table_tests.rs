//! RFC 9568 section 6.4, row by row.

use std::net::IpAddr;

use super::test_kit::*;
use crate::vrrp::packet::Refusal;
use crate::vrrp::protocol::State;
use crate::vrrp::router::{Input, MULTICAST_IPV4, Outcome, Output, RouterConfig};

/// 3 * 1 s + (256 - 100) / 256 s.
const ACTIVE_DOWN_100: u64 = 3_609_375;
const SKEW_100: u64 = 609_375;

#[test]
fn s6_4_1_startup_as_owner_goes_to_active() {
    let mut bench = Bench::new(config(1, 255));
    let out = bench.tell(Input::Startup);
    assert_eq!(bench.router.state(), State::Active);
    assert_eq!(adverts(1, &out), [255]);
    assert!(adds_vips(&out));
    assert_eq!(announcements(&out), 1);
    assert_eq!(bench.router.deadline(), Some(START + SECOND));
}

#[test]
fn s6_4_1_startup_as_another_goes_to_backup_and_waits_active_down() {
    let mut bench = Bench::new(config(1, 100));
    let out = bench.tell(Input::Startup);
    assert_eq!(bench.router.state(), State::Backup);
    assert!(!adds_vips(&out));
    assert_eq!(bench.router.deadline(), Some(START + ACTIVE_DOWN_100));
    let changed = Output::Changed {
        from: State::Initialize,
        to: State::Backup,
        reason: "it has begun".to_owned(),
    };
    assert_eq!(out, [changed]);
}

#[test]
fn s6_4_1_initialize_ignores_advertisements_and_timers() {
    let mut bench = Bench::new(config(1, 100));
    assert_eq!(bench.hear(2, 200), []);
    assert_eq!(bench.tell(Input::Timer), []);
    assert_eq!(bench.router.deadline(), None);
}

#[test]
fn s6_4_2_shutdown_goes_to_initialize_silently() {
    let mut bench = Bench::backup(config(1, 100));
    let out = bench.tell(Input::Shutdown);
    assert_eq!(bench.router.state(), State::Initialize);
    assert_eq!(adverts(1, &out), Vec::<u8>::new());
    assert!(out.contains(&Output::Stopped));
    assert_eq!(bench.router.deadline(), None);
}

#[test]
fn s6_4_2_active_down_goes_to_active() {
    let mut bench = Bench::backup(config(1, 100));
    assert_eq!(bench.run_for(ACTIVE_DOWN_100 - 1), []);
    let out = bench.run_for(1);
    assert_eq!(bench.router.state(), State::Active);
    let order: Vec<&Output> = out.iter().take(2).collect();
    let vips = vec![vip()];
    assert_eq!(
        order,
        [&Output::AddVips(vips.clone()), &Output::Announce(vips)]
    );
    assert_eq!(adverts(1, &out), [100]);
    assert_eq!(bench.router.deadline(), Some(bench.now + SECOND));
}

#[test]
fn s6_4_2_priority_zero_sets_the_timer_to_skew_time() {
    let mut bench = Bench::backup(config(1, 100));
    bench.hear(2, 200);
    bench.hear(2, 0);
    assert_eq!(bench.run_for(SKEW_100 - 1), []);
    bench.run_for(1);
    assert_eq!(bench.router.state(), State::Active);
}

#[test]
fn s6_4_2_higher_or_equal_priority_resets_the_timer_and_sets_the_interval() {
    for priority in [100, 101, 255] {
        let mut bench = Bench::backup(config(1, 100));
        bench.run_for(SECOND);
        bench.hear_with(2, priority, 3);
        // 3 * 30 ms + 156 / 256 * 30 ms.
        assert_eq!(bench.router.deadline(), Some(bench.now + 90_000 + 18_281));
    }
}

#[test]
fn s6_4_2_lower_priority_is_discarded_with_preemption() {
    let mut bench = Bench::backup(config(1, 100));
    bench.run_for(SECOND);
    bench.hear(2, 99);
    assert_eq!(bench.router.deadline(), Some(START + ACTIVE_DOWN_100));
    bench.run_for(SECOND);
    bench.hear(2, 99);
    bench.run_for(ACTIVE_DOWN_100 - 2 * SECOND);
    assert_eq!(bench.router.state(), State::Active);
}

#[test]
fn s6_4_2_lower_priority_resets_the_timer_without_preemption() {
    let mut config = config(1, 100);
    config.preempt = false;
    let mut bench = Bench::backup(config);
    bench.run_for(SECOND);
    bench.hear(2, 99);
    assert_eq!(bench.router.deadline(), Some(bench.now + ACTIVE_DOWN_100));
}

#[test]
fn s6_4_3_shutdown_resigns_and_goes_to_initialize() {
    let mut bench = Bench::active(config(1, 100));
    let out = bench.tell(Input::Shutdown);
    assert_eq!(bench.router.state(), State::Initialize);
    assert_eq!(adverts(1, &out), [0]);
}

#[test]
fn s6_4_3_adver_timer_sends_and_resets() {
    let mut bench = Bench::active(config(1, 100));
    let since = bench.now;
    for round in 1..=20 {
        let out = bench.run_to(since + round * SECOND);
        assert_eq!(adverts(1, &out), [100], "round {round}");
    }
}

#[test]
fn s6_4_3_priority_zero_is_answered_and_the_timer_reset() {
    let mut bench = Bench::active(config(1, 100));
    bench.run_for(SECOND / 2);
    let out = bench.hear(2, 0);
    assert_eq!(adverts(1, &out), [100]);
    assert_eq!(bench.router.state(), State::Active);
    assert_eq!(adverts(1, &bench.run_for(SECOND - 1)), Vec::<u8>::new());
    assert_eq!(adverts(1, &bench.run_for(1)), [100]);
}

#[test]
fn s6_4_3_higher_priority_goes_to_backup() {
    let mut bench = Bench::active(config(1, 100));
    let out = bench.hear_with(2, 101, 3);
    assert_eq!(bench.router.state(), State::Backup);
    assert!(removes_vips(&out));
    assert_eq!(adverts(1, &out), Vec::<u8>::new());
    assert_eq!(bench.router.deadline(), Some(bench.now + 90_000 + 18_281));
}

#[test]
fn s6_4_3_equal_priority_and_greater_address_goes_to_backup() {
    let mut bench = Bench::active(config(2, 100));
    bench.hear(3, 100);
    assert_eq!(bench.router.state(), State::Backup);
}

/// Unsigned, in network byte order: 10.0.0.200 is greater than 10.0.0.2 (and would not be, signed).
#[test]
fn s6_4_3_addresses_are_compared_unsigned() {
    let mut bench = Bench::active(config(2, 100));
    bench.hear(200, 100);
    assert_eq!(bench.router.state(), State::Backup);
    let mut bench = Bench::active(config(200, 100));
    bench.hear(2, 100);
    assert_eq!(bench.router.state(), State::Active);
}

#[test]
fn s6_4_3_equal_priority_and_lower_address_is_answered() {
    let mut bench = Bench::active(config(2, 100));
    let out = bench.hear(1, 100);
    assert_eq!(bench.router.state(), State::Active);
    assert_eq!(adverts(2, &out), [100]);
}

#[test]
fn s6_4_3_lower_priority_is_answered_and_the_timer_runs_on() {
    let mut bench = Bench::active(config(1, 100));
    let since = bench.now;
    bench.run_for(SECOND / 2);
    let out = bench.hear(2, 99);
    assert_eq!(adverts(1, &out), [100]);
    assert_eq!(announcements(&out), 1, "the link has heard two");
    let conflict = Output::Conflict {
        with: Some(ip(2)),
        priority: 99,
        outcome: Outcome::Won,
    };
    assert!(out.contains(&conflict));
    assert_eq!(adverts(1, &bench.run_to(since + SECOND)), [100]);
}

#[test]
fn s7_1_refused_packets_change_nothing_and_are_counted() {
    let mut bench = Bench::active(config(1, 100));
    let payload = advertisement(2, 200, 100);
    let out = bench.tell(Input::Received {
        source: ip(2),
        destination: MULTICAST_IPV4.into(),
        hop_limit: 64,
        payload: &payload,
    });
    let reason = Refusal::HopLimit(64);
    assert_eq!(
        out,
        [Output::Refused {
            source: ip(2),
            reason
        }]
    );
    assert_eq!(bench.receive(2, &payload[..9]).len(), 1);
    assert_eq!(bench.router.state(), State::Active);
    let counters = bench.router.status(bench.now, 0).counters;
    assert_eq!(
        (counters.refused, counters.unauthentic, counters.received),
        (2, 0, 0)
    );
}

#[test]
fn s7_1_other_virtual_routers_and_own_packets_are_ignored() {
    let mut bench = Bench::active(config(1, 100));
    let mut payload = advertisement(2, 200, 100);
    payload[1] = 52;
    assert_eq!(bench.receive(2, &payload), []);
    let own = advertisement(1, 255, 100);
    assert_eq!(bench.receive(1, &own), []);
}

#[test]
fn s7_1_another_list_of_addresses_is_told_once() {
    let mut bench = Bench::active(config(1, 100));
    let mut config = config(2, 50);
    config.vips = vec![IpAddr::from([203, 0, 113, 11])];
    let mut other = Bench::active(config);
    let out = other.next();
    let is_differing = |output: &Output| matches!(output, Output::AddressesDiffer { .. });
    for is_told in [true, false] {
        let sent = out.iter().find_map(|output| match output {
            Output::Send { payload, .. } => Some(payload),
            _ => None,
        });
        let heard = bench.receive(2, sent.unwrap());
        assert_eq!(heard.iter().any(is_differing), is_told);
    }
}

/// Two others that do not agree either, or one that lies: it is one word in a minute, not one an advertisement.
#[test]
fn s7_1_several_lists_of_addresses_are_told_now_and_then() {
    let mut bench = Bench::active(config(1, 100));
    let lists = [[203, 0, 113, 11], [203, 0, 113, 12]].map(|vip| vec![IpAddr::from(vip)]);
    let is_differing = |output: &&Output| matches!(output, Output::AddressesDiffer { .. });
    let mut told = 0;
    for second in 0..150 {
        let vips = lists[second % 2].clone();
        let mut other = Bench::new(RouterConfig {
            vips,
            ..config(2, 50)
        });
        other.tell(Input::Startup);
        other.run_until_active();
        let out = other.run_for(SECOND);
        let sent = out.iter().find_map(|output| match output {
            Output::Send { payload, .. } => Some(payload),
            _ => None,
        });
        let heard = bench.receive(2, sent.unwrap());
        told += heard.iter().filter(is_differing).count();
        bench.run_for(SECOND);
    }
    assert_eq!(told, 3, "at 0, 61 and 122 s");
}

#[test]
fn s6_4_3_a_flood_of_resignations_is_answered_no_more_often_than_others() {
    let mut bench = Bench::active(config(1, 100));
    let mut sent = Vec::new();
    for _ in 0..1_000 {
        sent.extend(adverts(1, &bench.hear(2, 0)));
        sent.extend(adverts(1, &bench.run_for(MS / 10)));
    }
    // For a tenth of a second, one in 2 ms.
    assert!((45..=51).contains(&sent.len()), "{} packets", sent.len());
    // The timer has begun anew with the first of them.
    bench.run_for(2 * MS);
    assert_eq!(adverts(1, &bench.run_for(SECOND)).len(), 1);
}

#[test]
fn unicast_goes_to_each_peer_and_is_taken_from_no_one_else() {
    let mut config = config(1, 100);
    config.peers = vec![ip(2), ip(3)];
    let mut bench = Bench::active(config);
    let out = bench.next();
    let to: Vec<IpAddr> = out
        .iter()
        .filter_map(|output| match output {
            Output::Send { to, .. } => Some(*to),
            _ => None,
        })
        .collect();
    assert_eq!(to, [ip(2), ip(3)]);
    let out = bench.hear(4, 200);
    let reason = Refusal::NotAPeer;
    assert_eq!(
        out,
        [Output::Refused {
            source: ip(4),
            reason
        }]
    );
}

#[test]
fn a_link_local_vip_is_listed_first() {
    let mut config = config(1, 100);
    config.family = crate::vrrp::protocol::Family::Ipv6;
    let vips = ["2001:db8::10", "fe80::10", "203.0.113.10"];
    config.vips = vips.iter().map(|vip| vip.parse().unwrap()).collect();
    let listed: Vec<String> = config.listed_vips().iter().map(IpAddr::to_string).collect();
    assert_eq!(listed, ["fe80::10", "2001:db8::10"]);
}

#[test]
fn announcements_are_repeated_five_times() {
    let mut bench = Bench::backup(config(1, 100));
    bench.run_for(ACTIVE_DOWN_100 - 1);
    let out = bench.run_for(20 * SECOND);
    assert_eq!(announcements(&out), 6);
    let out = bench.tell(Input::LinkUp);
    assert_eq!(announcements(&out), 1);
    assert_eq!(
        announcements(&bench.tell(Input::LinkUp)),
        0,
        "not at once again"
    );
    assert_eq!(announcements(&bench.run_for(10 * MS)), 1);
}

#[test]
fn a_conflict_is_announced_again_in_each_of_three_intervals() {
    let mut bench = Bench::active(config(1, 100));
    bench.run_for(20 * SECOND);
    assert_eq!(announcements(&bench.hear(2, 50)), 1);
    assert_eq!(announcements(&bench.run_for(10 * SECOND)), 3);
    assert_eq!(bench.router.status(bench.now, 0).counters.conflicts, 1);
}

#[test]
fn the_length_of_a_conflict_is_counted() {
    let mut bench = Bench::active(config(1, 100));
    for _ in 0..5 {
        bench.hear(2, 50);
        bench.run_for(SECOND);
    }
    let counters = bench.router.status(bench.now, 0).counters;
    assert_eq!((counters.conflicts, counters.dual_active_ms), (1, 4_000));
    bench.run_for(10 * SECOND);
    bench.hear(2, 50);
    let counters = bench.router.status(bench.now, 0).counters;
    assert_eq!((counters.conflicts, counters.dual_active_ms), (2, 4_000));
}

#[test]
fn a_flood_of_lower_priorities_is_not_answered_one_by_one() {
    let mut bench = Bench::active(config(1, 100));
    let mut answers = 0;
    for _ in 0..1000 {
        bench.now += 10;
        answers += adverts(1, &bench.hear(2, 50)).len();
        answers += adverts(1, &bench.tell(Input::Timer)).len();
    }
    assert!((2..=6).contains(&answers), "{answers} in 10 ms");
}

#[test]
fn an_answer_has_the_checksum_that_the_other_one_uses() {
    use crate::vrrp::packet::{Ipv4Checksum, Path, parse, seal};
    let mut bench = Bench::active(config(1, 100));
    let path = |from| Path {
        source: ip(from),
        destination: MULTICAST_IPV4.into(),
    };
    for form in [Ipv4Checksum::MessageAlone, Ipv4Checksum::PseudoHeader] {
        let mut payload = advertisement(2, 50, 100);
        seal(path(2), form, &mut payload);
        bench.now += SECOND / 4;
        let out = bench.receive(2, &payload);
        let sent = out.iter().find_map(|output| match output {
            Output::Send { payload, .. } => Some(payload),
            _ => None,
        });
        assert_eq!(parse(path(1), 255, sent.unwrap()).unwrap().checksum, form);
    }
}

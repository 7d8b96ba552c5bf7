//! Who decides a ring when nodes come, go, and do not hear each other.

use std::collections::VecDeque;

use super::*;

#[test]
fn a_successor_goes_on_where_the_dead_owner_was_and_consults_everything() {
    let mut bench = Bench::together(2, &[1, 2]);
    bench.want(1, &[3, 2], &[]);
    bench.pass(1_700);
    bench.cut(1, 2);
    bench.activate(2);
    bench.pass(20);
    assert_eq!(bench.role(2), (Role::Owner, 2));
    // In a cut, new flows go where unknown ones go.
    bench.check(2, &[armed(1), quiet(2)]);
    bench.want(2, &[3, 2], &[]);
    bench.pass(PATIENCE_MS + 2_000);
    bench.check(2, &[moving(3, 1), quiet(2)]);
    bench.sweep(0);
    bench.check(2, &[moving(3, 1), settled(2)]);
}

#[test]
fn a_backup_waits_a_second_for_an_owner_that_starts_anew() {
    let mut bench = Bench::together(2, &[1]);
    bench.cut(1, 2);
    bench.pass(900);
    assert_eq!(bench.role(2).0, Role::Follower);
    bench.pass(200);
    assert_eq!(bench.role(2).0, Role::Owner);
    bench.connect_all();
    bench.pass(500);
    assert_eq!(
        (bench.role(1).0, bench.role(2).0),
        (Role::Owner, Role::Follower)
    );
    assert_eq!(bench.role(1).1, bench.role(2).1);
}

#[test]
fn after_a_cut_the_owner_consults_what_the_other_has_moved_meanwhile() {
    let mut bench = Bench::together(2, &[1, 2]);
    bench.cut(1, 2);
    bench.pass(PATIENCE_MS + 2_000);
    for _ in 0..3 {
        bench.sweep(0);
    }
    bench.check(1, &[settled(1), settled(2)]);
    bench.check(2, &[settled(1), settled(2)]);
    bench.want(2, &[2, 2], &[1]);
    bench.pass(100);
    bench.check(2, &[moving(2, 1), settled(2)]);
    bench.connect_all();
    bench.pass(500);
    bench.check(1, &[quiet(1), settled(2)]);
    bench.check(2, &[quiet(1), settled(2)]);
}

#[test]
fn a_hand_over_keeps_the_ring_as_it_is() {
    let mut bench = Bench::together(2, &[1, 2]);
    bench.want(1, &[3, 2], &[]);
    bench.want(2, &[3, 2], &[]);
    bench.pass(1_700);
    bench.activate(2);
    bench.pass(200);
    assert_eq!(bench.role(2), (Role::Owner, 2));
    assert_eq!(bench.role(1), (Role::Follower, 2));
    // What the last owner may have done meanwhile is on record, and consulted.
    bench.check(2, &[moving(3, 1), quiet(2)]);
    bench.check(1, &[moving(3, 1), quiet(2)]);
}

#[test]
fn a_node_that_cannot_follow_is_named_and_not_waited_for() {
    let mut bench = Bench::together(2, &[1]);
    bench.node(2).rings.room = 5;
    bench.want(1, &[9], &[]);
    bench.pass(3_400);
    bench.check(1, &[moving(9, 1)]);
    let status = bench.node(1).coordinator.status();
    assert_eq!(status[0].refusals["lb2"], "no room for that backend");
    assert!(bench.node(2).coordinator.behind().is_some());
}

#[test]
fn a_service_that_a_peer_has_not_is_led_without_it_and_with_it_once_it_has() {
    let mut bench = Bench::new(2, &[1]);
    bench.node(2).rings.is_configured = false;
    bench.connect_all();
    bench.activate(1);
    bench.pass(500);
    bench.want(1, &[2], &[]);
    bench.pass(1_700);
    bench.check(1, &[moving(2, 1)]);
    bench.node(2).rings.is_configured = true;
    bench.pass(200);
    bench.check(2, &[moving(2, 1)]);
}

#[test]
fn a_follower_that_had_no_room_is_asked_again_when_there_may_be_some() {
    let mut bench = Bench::together(2, &[1]);
    bench.node(2).rings.room = 5;
    bench.want(1, &[9], &[]);
    bench.pass(3_400);
    assert_eq!(bench.node(1).coordinator.status()[0].refusals.len(), 1);
    bench.pass(40_000);
    assert_eq!(bench.node(1).coordinator.status()[0].refusals.len(), 1);
    bench.want(1, &[8], &[]);
    bench.pass(3_400);
    bench.check(1, &[moving(8, 9)]);
    bench.node(2).rings.room = 99;
    bench.pass(31_000);
    assert_eq!(bench.node(1).coordinator.status()[0].refusals.len(), 0);
    assert_eq!(bench.slots(2), bench.slots(1));
    assert_eq!(bench.node(2).coordinator.behind(), None);
}

/// The Active node's file may be the older one, or the service another node's alone.
#[test]
fn a_service_that_the_active_node_has_not_is_led_by_one_that_has() {
    let mut bench = Bench::new(3, &[1]);
    bench.node(1).rings.is_configured = false;
    bench.connect_all();
    bench.activate(1);
    bench.pass(1_500);
    assert_eq!(bench.role(2).0, Role::Owner);
    assert_eq!(bench.role(3).0, Role::Follower);
    assert_eq!(bench.node(3).coordinator.behind(), None);
    bench.want(2, &[3], &[1]);
    bench.pass(100);
    bench.check(2, &[moving(3, 1)]);
    bench.check(3, &[moving(3, 1)]);
    // Now it gets it, and leads.
    bench.node(1).rings.is_configured = true;
    bench.pass(500);
    assert_eq!(bench.role(1).0, Role::Owner);
    assert_eq!(bench.role(2).0, Role::Follower);
    bench.check(1, &[moving(3, 1)]);
    // And loses it again.
    bench.node(1).rings.is_configured = false;
    bench.pass(500);
    assert_eq!(bench.role(2).0, Role::Owner);
    bench.want(2, &[2], &[3]);
    bench.pass(500);
    bench.check(2, &[moving(2, 1)]);
    bench.check(3, &[moving(2, 1)]);
}

/// Each judges by itself whether the other is silent, and what comes from a silent one is not heard.
#[test]
fn what_was_said_to_a_node_that_did_not_listen_is_said_again() {
    for (deaf, speaker) in [(2, 1), (1, 2)] {
        let mut bench = Bench::together(2, &[1]);
        let now_ms = bench.now_ms;
        bench
            .node(deaf)
            .coordinator
            .link_down(&name(speaker), now_ms);
        bench.want(1, &[3], &[1]);
        bench.pass(500);
        bench.node(deaf).coordinator.link_up(&name(speaker));
        bench.tell_active();
        bench.pass(500);
        bench.check(1, &[moving(3, 1)]);
        bench.check(2, &[moving(3, 1)]);
        // Both notice, and hear each other again one after the other.
        let now_ms = bench.now_ms;
        for (one, other) in [(1, 2), (2, 1)] {
            bench.node(one).coordinator.link_down(&name(other), now_ms);
        }
        bench.pass(500);
        bench.node(speaker).coordinator.link_up(&name(deaf));
        bench.pass(50);
        bench.node(deaf).coordinator.link_up(&name(speaker));
        bench.tell_active();
        bench.pass(200);
        bench.want(1, &[4], &[3]);
        bench.pass(500);
        bench.check(1, &[moving(4, 1)]);
        bench.check(2, &[moving(4, 1)]);
    }
}

/// Within one look, so that nobody's company has changed.
#[test]
fn a_link_that_is_lost_and_back_at_once_leaves_nothing_unacknowledged() {
    let mut bench = Bench::together(2, &[1]);
    let now_ms = bench.now_ms;
    for (one, other) in [(1, 2), (2, 1)] {
        bench.node(one).coordinator.link_down(&name(other), now_ms);
        bench.node(one).coordinator.link_up(&name(other));
    }
    bench.tell_active();
    bench.pass(200);
    bench.want(1, &[3], &[1]);
    bench.pass(200);
    bench.check(1, &[moving(3, 1)]);
    bench.check(2, &[moving(3, 1)]);
}

#[test]
fn a_cold_node_follows_and_has_no_say() {
    let mut bench = Bench::together(2, &[1, 2]);
    bench.want(1, &[2, 2], &[1]);
    bench.pass(100);
    bench.cut(1, 2);
    bench.pass(PATIENCE_MS);
    let mut cold = Bench::new(2, &[1, 2]).nodes.remove("lb2").unwrap();
    let settings = Settings {
        node: name(2),
        peers: BTreeSet::from([name(1)]),
        patience_ms: PATIENCE_MS,
    };
    cold.coordinator = Coordinator::new(settings, Start::Fresh, bench.now_ms);
    assert!(cold.coordinator.behind().is_some());
    bench.nodes.insert(name(2), cold);
    bench.node(1).coordinator.link_up("lb2");
    bench.node(2).coordinator.link_up("lb1");
    bench.cut.clear();
    bench.activate(1);
    bench.look();
    assert!(bench.node(2).coordinator.behind().is_some());
    bench.pass(300);
    assert_eq!(bench.role(2).0, Role::Follower);
    assert_eq!(bench.slots(2), bench.slots(1));
    assert_eq!(bench.node(2).coordinator.behind(), None);
}

#[test]
fn what_is_said_in_an_older_term_or_by_others_changes_nothing() {
    let mut bench = Bench::together(3, &[1]);
    let (now_ms, before) = (bench.now_ms, bench.slots(2));
    let claim = |number: u64, owner: &str| {
        Message::Claim(vec![Claim {
            service: service(),
            term: Term {
                number,
                owner: owner.to_owned(),
            },
        }])
    };
    let status = bench.node(2).coordinator.status();
    let node = bench.node(2);
    node.coordinator.receive("lb3", claim(0, "lb3"), now_ms);
    node.coordinator.receive("lb3", claim(9, "lb1"), now_ms);
    node.coordinator.receive("lb9", claim(9, "lb9"), now_ms);
    assert_eq!(node.coordinator.status(), status);
    bench.pass(500);
    assert_eq!(bench.slots(2), before);
    assert_eq!(bench.role(1).0, Role::Owner);
}

#[test]
fn who_claims_without_being_active_is_overruled() {
    let mut bench = Bench::together(2, &[1]);
    let now_ms = bench.now_ms;
    let claim = Claim {
        service: service(),
        term: Term {
            number: 77,
            owner: "lb2".to_owned(),
        },
    };
    bench
        .node(1)
        .coordinator
        .receive("lb2", Message::Claim(vec![claim]), now_ms);
    bench.pass(50);
    assert_eq!(bench.role(1), (Role::Owner, 78));
    assert_eq!(bench.role(2), (Role::Follower, 78));
}

/// Nobody has been eligible since the service is there.
#[test]
fn a_ring_that_is_not_there_yet_is_waited_for_by_nobody() {
    let mut bench = Bench::new(2, &[]);
    for node in bench.nodes.values_mut() {
        node.rings.transition = None;
    }
    bench.connect_all();
    bench.activate(1);
    bench.pass(1_000);
    assert_eq!(bench.role(2).0, Role::Follower);
    assert_eq!(bench.node(2).coordinator.behind(), None);
    bench.cut(1, 2);
    bench.pass(100);
    bench.connect_all();
    bench.look();
    assert!(bench.node(2).coordinator.behind().is_some());
    bench.pass(1_000);
    assert_eq!(bench.node(2).coordinator.behind(), None);
    bench.node(1).rings.transition = Some(RingTransition::settled(&[101, 102]));
    bench.pass(1_000);
    bench.check(2, &[settled(1), settled(2)]);
    assert_eq!(bench.node(2).coordinator.behind(), None);
}

/// lb2 does not hear lb1, and thinks that it is its turn; lb3 hears both.
#[test]
fn nobody_leaves_an_active_owner_for_one_that_does_not_hear_it() {
    let mut bench = Bench::new(3, &[1, 2]);
    bench.connect_all();
    bench.activate(1);
    bench.pass(500);
    bench.cut(1, 2);
    bench.pass(PATIENCE_MS + 2_000);
    assert_eq!(bench.role(2).0, Role::Owner, "it hears no owner");
    let (_, term) = bench.role(1);
    assert_eq!(bench.role(3), (Role::Follower, term));
    bench.want(1, &[3, 2], &[1]);
    bench.pass(200);
    bench.check(1, &[moving(3, 1), settled(2)]);
    bench.check(3, &[moving(3, 1), settled(2)]);
    let said = bench.said.len();
    bench.pass(60_000);
    // Reports are said twice a second by each to each.
    let chatter = bench.said.len() - said;
    assert!(chatter < 60 * 2 * 4 + 50, "{chatter} messages in a minute");

    // The Active one dies, and lb2 takes the VIPs: now lb3 follows it, and it consults what lb3 has.
    bench.cut(1, 3);
    bench.activate(2);
    bench.pass(500);
    assert_eq!(bench.role(2).0, Role::Owner);
    assert_eq!(bench.role(3), (Role::Follower, bench.role(2).1));
    assert_eq!(bench.slots(2), bench.slots(3));
}

#[test]
fn a_claim_that_was_put_off_is_asked_for_once_the_owner_is_active_no_more() {
    let mut bench = Bench::new(3, &[1]);
    bench.connect_all();
    bench.activate(1);
    bench.pass(500);
    bench.cut(1, 2);
    bench.pass(PATIENCE_MS + 2_000);
    assert_eq!(bench.role(3).1, bench.role(1).1);
    bench.cut(1, 3);
    bench.pass(500);
    assert_eq!(bench.role(2).0, Role::Owner);
    assert_eq!(bench.role(3), (Role::Follower, bench.role(2).1));
    // The owner of before is there again, and Active: its ring is the one that the traffic knows.
    bench.connect_all();
    bench.activate(1);
    bench.pass(500);
    assert_eq!(bench.role(1).0, Role::Owner);
    let (_, term) = bench.role(1);
    assert_eq!(bench.role(2), (Role::Follower, term));
    assert_eq!(bench.role(3), (Role::Follower, term));
}

fn claims(number: u64, owner: &str, count: usize) -> Vec<Claim> {
    let claim = Claim {
        service: service(),
        term: Term {
            number,
            owner: owner.to_owned(),
        },
    };
    vec![claim; count]
}

/// In ten seconds there are two reports a second from each of three to each of two, and few other messages.
fn is_calm(bench: &mut Bench) -> bool {
    bench.pass(5_000);
    let before = bench.said.len();
    bench.pass(10_000);
    let count = bench.said.len() - before;
    count <= 150
}

/// A peer that has lost its mind may claim whatever number there is, up to the last one and beyond: it is overruled all
/// the same, and the others do not call each other's claims stale for ever.
#[test]
fn there_is_no_last_term() {
    let mut bench = Bench::together(3, &[1]);
    bench.activate(3);
    bench.pass(1_000);
    let (mut wanted, mut current) = (2, 1);
    for number in [1 << 62, 1 << 63, 3 << 62, u64::MAX, 5, 5 + (1 << 63)] {
        let now_ms = bench.now_ms;
        for hearer in [2, 3] {
            let message = Message::Claim(claims(number, "lb1", 1));
            let coordinator = &mut bench.node(hearer).coordinator;
            coordinator.receive("lb1", message, now_ms);
        }
        assert!(is_calm(&mut bench), "after a claim of term {number}");
        assert_eq!(bench.role(3), (Role::Owner, number.wrapping_add(1)));
        assert_eq!(bench.role(2), (Role::Follower, number.wrapping_add(1)));
        bench.want(3, &[wanted], &[current]);
        bench.pass(500);
        assert_eq!(bench.slots(3)[0].1, wanted);
        assert_eq!(bench.slots(2), bench.slots(3));
        (wanted, current) = (current, wanted);
    }
}

#[test]
fn of_two_terms_one_is_later() {
    let term = |number: u64, owner: &str| Term {
        number,
        owner: owner.to_owned(),
    };
    let half = 1 << 63;
    for (later, earlier) in [
        (term(2, "lb2"), term(1, "lb1")),
        (term(1, "lb1"), term(1, "lb2")),
        (term(0, "lb2"), term(u64::MAX, "lb1")),
        (term(half, "lb2"), term(1, "lb1")),
        (term(half + 7, "lb2"), term(7, "lb1")),
        (term(1, "lb2"), term(half + 2, "lb1")),
        (term(0, "lb1"), Term::default()),
    ] {
        assert!(later.is_later_than(&earlier), "{later:?}, {earlier:?}");
        assert!(!earlier.is_later_than(&later), "{later:?}, {earlier:?}");
        assert!(!later.is_later_than(&later));
    }
}

/// Two Active nodes that do not hear each other, and a third that hears both: when one dies, the third is the other's.
#[test]
fn who_follows_a_dead_owner_comes_back_to_the_one_that_lives() {
    let mut bench = Bench::together(3, &[1]);
    bench.cut(1, 3);
    bench.node(3).coordinator.note_own_active([group()].into());
    bench.tell_active();
    bench.pass(3_000);
    bench.cut(2, 3);
    bench.pass(3_000);
    assert_eq!(bench.role(2), bench.role_as_follower_of(1));
    bench.want(1, &[2], &[1]);
    bench.pass(PATIENCE_MS + 2_000);
    assert_eq!(bench.slots(2), bench.slots(1));
}

/// A claim that only one node was told of, and one that its owner has never made.
#[test]
fn what_one_node_alone_was_told_is_put_right() {
    // The claim of a node that is not Active is put off while the owner is.
    let lies = [
        (Message::Claim(claims(77, "lb3", 1)), false),
        (Message::Stale(claims(77, "lb1", 1)), true),
        (Message::Stale(claims(77, "lb3", 1)), true),
    ];
    for (lie, is_believed) in lies {
        let mut bench = Bench::together(3, &[1]);
        let now_ms = bench.now_ms;
        bench.node(2).coordinator.receive("lb3", lie, now_ms);
        let behind = bench.node(2).coordinator.behind();
        assert_eq!(behind.is_some(), is_believed, "{behind:?}");
        assert!(is_calm(&mut bench));
        assert_eq!(bench.node(2).coordinator.behind(), None);
        assert_eq!(bench.role(2), bench.role_as_follower_of(1));
        bench.want(1, &[2], &[1]);
        bench.pass(500);
        bench.check(2, &[moving(2, 1)]);
    }
}

/// Led round all numbers, by one lie after the other, to a term before the present one.
#[test]
fn who_was_led_astray_to_an_earlier_term_is_told_the_present_one() {
    let mut bench = Bench::together(3, &[1]);
    let now_ms = bench.now_ms;
    for number in [1 << 62, 1 << 63, 3 << 62, u64::MAX - 3] {
        let message = Message::Stale(claims(number, "lb3", 1));
        bench.node(2).coordinator.receive("lb3", message, now_ms);
    }
    assert_eq!(bench.role(2).1, u64::MAX - 3);
    assert!(is_calm(&mut bench));
    assert_eq!(bench.role(1), (Role::Owner, 1));
    assert_eq!(bench.role(2), bench.role_as_follower_of(1));
    assert_eq!(bench.node(2).coordinator.behind(), None);
}

#[test]
fn no_more_claims_are_answered_than_an_honest_message_has() {
    use crate::cluster::message::SERVICES_PER_MESSAGE;
    let mut bench = Bench::together(2, &[1]);
    let now_ms = bench.now_ms;
    let coordinator = &mut bench.node(1).coordinator;
    let _before = coordinator.take_outputs();
    let message = Message::Claim(claims(0, "lb2", 5_000));
    coordinator.receive("lb2", message, now_ms);
    assert_eq!(coordinator.take_outputs().len(), SERVICES_PER_MESSAGE);
}

/// lb2's file does not have lb3 yet, which has joined: lb1 follows it while it does not hear lb2.
#[test]
fn an_active_owner_overrules_one_that_its_file_does_not_have() {
    let mut bench = Bench::new(3, &[1]);
    let settings = Settings {
        node: name(2),
        peers: BTreeSet::from([name(1)]),
        patience_ms: PATIENCE_MS,
    };
    let now_ms = bench.now_ms;
    bench.node(2).coordinator = Coordinator::new(settings, Start::Fresh, now_ms);
    bench.connect_all();
    bench.cut(2, 3);
    bench.activate(2);
    bench.pass(1_000);
    assert_eq!(bench.role(2).0, Role::Owner);
    bench.cut(1, 2);
    let now_ms = bench.now_ms;
    let claim = Message::Claim(claims(9, "lb3", 1));
    bench.node(1).coordinator.receive("lb3", claim, now_ms);
    assert_eq!(bench.role(1), (Role::Follower, 9));
    bench.connect_all();
    bench.cut(2, 3);
    bench.pass(1_000);
    assert_eq!(bench.role(2), (Role::Owner, 10));
    assert_eq!(bench.role(1), bench.role_as_follower_of(2));
    bench.want(2, &[2], &[1]);
    bench.pass(500);
    bench.check(1, &[moving(2, 1)]);
}

/// Of a service in no group, lb1 decides the ring.
fn without_group() -> Bench {
    let mut bench = Bench::new(3, &[1, 2]);
    for node in bench.nodes.values_mut() {
        node.rings.group = None;
    }
    bench.connect_all();
    bench.pass(1_000);
    assert_eq!(bench.role(1).0, Role::Owner);
    bench
}

fn is_alone(bench: &Bench, number: usize) -> bool {
    bench.nodes[&name(number)].coordinator.status()[0].is_alone
}

/// lb3 does not hear the owner; lb2, whose name comes before lb3's, does. Or lb3 knows by hearsay alone that lb1 decides.
#[test]
fn who_does_not_hear_the_owner_takes_the_dead_out_of_its_ring_by_itself() {
    for hearsay in [None, Some(Message::Stale(claims(77, "lb1", 1)))] {
        let mut bench = without_group();
        bench.cut(1, 3);
        bench.pass(500);
        let now_ms = bench.now_ms;
        if let Some(message) = hearsay {
            bench.node(3).coordinator.receive("lb2", message, now_ms);
        }
        for number in 1..=3 {
            bench.want(number, &[3, 2], &[1]);
        }
        bench.pass(1_000);
        bench.check(1, &[moving(3, 1), settled(2)]);
        bench.check(2, &[moving(3, 1), settled(2)]);
        bench.check(3, &[settled(1), settled(2)]);
        bench.pass(3_000);
        bench.check(3, &[moving(3, 1), settled(2)]);
        assert_eq!(bench.role(1).0, Role::Owner);
        assert_eq!(bench.role(2), bench.role_as_follower_of(1));
        assert!(is_alone(&bench, 3) && !is_alone(&bench, 2));
        assert_eq!(bench.node(3).coordinator.behind(), None, "of no group");

        // What is planned waits until the owner counts as gone. Nothing settles, however long it takes.
        bench.want(3, &[3, 4], &[1]);
        bench.pass(PATIENCE_MS / 2);
        assert_eq!(bench.slots(3)[1].1, 2);
        bench.pass(PATIENCE_MS + 2 * IDLE_MS);
        for _ in 0..3 {
            bench.sweep(0);
        }
        bench.check(3, &[moving(3, 1), moving(4, 2)]);

        bench.connect_all();
        bench.pass(1_000);
        assert_eq!(bench.role(3), bench.role_as_follower_of(1));
        assert!(!is_alone(&bench, 3));
        assert_eq!(bench.slots(3), bench.slots(1));
        assert_eq!(bench.slots(2), bench.slots(1));
        assert_eq!(bench.node(3).coordinator.behind(), None);
        assert!(is_calm(&mut bench));
        bench.want(1, &[5, 5], &[3, 2, 4]);
        bench.pass(1_000);
        assert_eq!(bench.slots(1)[0].1, 5);
        assert_eq!(bench.slots(3), bench.slots(1));
    }
}

#[test]
fn a_ring_of_another_length_or_of_a_group_is_not_gone_on_with_alone() {
    for slot_count in [3, 2] {
        let mut bench = without_group();
        bench.node(3).rings.slot_count = slot_count;
        bench.cut(1, 3);
        bench.pass(5_000);
        assert_eq!(is_alone(&bench, 3), slot_count == 2);
        for node in bench.nodes.values_mut() {
            node.rings.group = Some(group());
        }
        bench.pass(5_000);
        assert!(!is_alone(&bench, 3));
    }
}

/// lb3 decides. lb1, which does not hear it, has claimed the ring, and lb2 follows lb1.
#[test]
fn an_owner_does_not_wait_for_one_that_follows_another() {
    let mut bench = Bench::together(3, &[1, 2]);
    bench.activate(3);
    bench.pass(1_000);
    for node in bench.nodes.values_mut() {
        node.rings.group = None;
    }
    bench.cut(1, 3);
    bench.pass(3_000);
    assert_eq!(bench.role(1).0, Role::Owner);
    assert_eq!(bench.role(2), bench.role_as_follower_of(1));
    assert_eq!(bench.role(3).0, Role::Owner);
    bench.want(3, &[3, 2], &[]);
    bench.pass(PATIENCE_MS + 10_000);
    assert_eq!(bench.slots(3)[0].1, 3);
    let status = bench.node(3).coordinator.status();
    assert_eq!(status[0].refusals[&name(2)], "it follows lb1");
}

/// lb3 does not hear lb1, and has followed lb2, which follows lb1 again: it hears so when that happens, or when it asks.
#[test]
fn who_follows_a_former_owner_hears_that_it_is_not_any_more() {
    for asks in [false, true] {
        let mut bench = without_group();
        bench.cut(1, 2);
        bench.cut(1, 3);
        bench.pass(2_000);
        assert_eq!(bench.role(2).0, Role::Owner);
        assert_eq!(bench.role(3), bench.role_as_follower_of(2));
        bench.connect_all();
        bench.cut(1, 3);
        bench.pass(1_000);
        assert_eq!(bench.role(2).0, Role::Owner);
        bench.cut(1, 2);
        bench.pass(2_000);
        assert_eq!(bench.role(1).0, Role::Owner);
        bench.connect_all();
        bench.cut(1, 3);
        if asks {
            bench.cut(2, 3);
            bench.pass(500);
            bench.connect_all();
            bench.cut(1, 3);
        }
        bench.pass(1_000);
        assert_eq!(bench.role(1).0, Role::Owner);
        assert_eq!(bench.role(2), bench.role_as_follower_of(1));
        assert_eq!(bench.role(3), bench.role_as_follower_of(1));
        bench.pass(4_000);
        for number in 1..=3 {
            bench.want(number, &[3, 2], &[1]);
        }
        bench.pass(1_000);
        for number in 1..=3 {
            assert_eq!(bench.slots(number)[0].1, 3, "of lb{number}");
        }
        assert!(is_alone(&bench, 3));
    }
}

/// What lb2 says to lb1 stands still for ten seconds, and then comes one by one: lb1 asks again and again meanwhile.
#[test]
fn a_slow_link_is_not_filled_with_what_is_on_its_way_already() {
    let mut bench = Bench::together(2, &[1, 2, 3]);
    bench.activate(2);
    let mut held: VecDeque<Message> = VecDeque::new();
    let mut counts = (0, 0);
    let (stands_still_until_ms, end_ms) = (bench.now_ms + 10_000, bench.now_ms + 15_000);
    while bench.now_ms < end_ms {
        let now_ms = bench.now_ms;
        for Output { message, .. } in bench.node(1).look(now_ms, true) {
            bench.node(2).coordinator.receive("lb1", message, now_ms);
        }
        for Output { message, .. } in bench.node(2).look(now_ms, true) {
            counts.0 += u32::from(matches!(message, Message::Claim(_)));
            counts.1 += u32::from(matches!(message, Message::Ring(_)));
            held.push_back(message);
        }
        if now_ms >= stands_still_until_ms
            && let Some(message) = held.pop_front()
        {
            bench.node(1).coordinator.receive("lb2", message, now_ms);
        }
        bench.now_ms += 10;
    }
    assert_eq!(bench.role(1), bench.role_as_follower_of(2));
    assert_eq!(bench.node(1).coordinator.behind(), None);
    let (claim_count, ring_count) = counts;
    assert!(claim_count <= 4, "{claim_count} claims");
    assert!(ring_count <= 2, "{ring_count} rings");
}

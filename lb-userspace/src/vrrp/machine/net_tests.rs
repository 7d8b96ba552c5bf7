//! Several routers and what can go wrong between them: one Active in each connected part once it is quiet.

use super::net::{HEARTBEAT_US, Net, Process, member};
use super::test_kit::{KEY, MS, SECOND, advertisement, ip};
use crate::vrrp::priority::{Condition, Unwell};
use crate::vrrp::router::{Input, MULTICAST_IPV4, Output, RouterConfig};

fn with_key(config: RouterConfig) -> RouterConfig {
    RouterConfig {
        key: Some(KEY),
        ..config
    }
}

fn pair(seed: u64) -> Net {
    let configs = vec![with_key(member(0, 200)), with_key(member(1, 100))];
    let mut net = Net::new(seed, configs);
    net.run_for(5 * SECOND);
    assert_eq!(net.holders(), [0], "seed {seed}");
    (net.dark_us, net.dual_us) = (0, 0);
    net
}

/// One random misfortune.
fn disturb(net: &mut Net) {
    let count = net.nodes.len() as u64;
    let node = net.dice.below(count) as usize;
    let other = net.dice.below(count) as usize;
    match net.dice.below(12) {
        0 => net.stop(node),
        1 => net.go_on(node),
        2 => net.power_off(node),
        3 => net.kill(node),
        4 | 5 => net.start(node),
        6 => net.link_cut[node][other] ^= true,
        7 => {
            net.link_cut[node][other] ^= true;
            net.link_cut[other][node] = net.link_cut[node][other];
        }
        8 => net.sync_cut[node][other] ^= true,
        9 => net.lost = net.dice.below(500),
        10 => net.delay_max_us = 1 + net.dice.below(30_000),
        _ if net.nodes[node].process == Process::Runs => {
            net.tell(node, Input::HandOver);
        }
        _ => {}
    }
}

fn random_net(seed: u64) -> Net {
    let mut dice = super::net::Dice::new(seed ^ 0x5eed);
    let count = 2 + dice.below(4) as usize;
    let is_authenticated = dice.below(2) == 0;
    let configs = (0..count).map(|number| {
        let mut config = member(number, 1 + dice.below(254) as u8);
        config.preempt = dice.below(4) > 0;
        config.key = is_authenticated.then_some(KEY);
        config
    });
    let mut net = Net::new(seed, configs.collect());
    net.has_sync = dice.below(3) > 0;
    net
}

#[test]
fn one_is_active_once_all_is_quiet() {
    for seed in 0..100 {
        let mut net = random_net(seed);
        for _ in 0..60 {
            let pause = 1 + net.dice.below(700 * MS);
            net.run_for(pause);
            disturb(&mut net);
        }
        net.heal();
        net.delay_max_us = 200;
        net.run_for(10 * SECOND);
        assert_eq!(net.actives().len(), 1, "seed {seed}: {:?}", net.actives());
        assert_eq!(net.holders(), net.actives(), "seed {seed}");
    }
}

#[test]
fn each_part_of_a_cut_link_has_one_active() {
    for seed in 0..40 {
        let mut net = random_net(seed);
        net.run_for(5 * SECOND);
        let count = net.nodes.len();
        let mask = 1 + net.dice.below((1 << count) - 2);
        let side = |node: usize| mask >> node & 1;
        for (from, row) in net.link_cut.iter_mut().enumerate() {
            for (to, cut) in row.iter_mut().enumerate() {
                *cut = side(from) != side(to);
            }
        }
        net.run_for(5 * SECOND);
        for part in [0, 1] {
            let in_part: Vec<usize> = net
                .actives()
                .into_iter()
                .filter(|node| side(*node) == part)
                .collect();
            assert_eq!(
                in_part.len(),
                1,
                "seed {seed}, mask {mask:b}: {:?}",
                net.actives()
            );
        }
        net.heal();
        net.dual_us = 0;
        net.run_for(5 * SECOND);
        assert_eq!(net.actives().len(), 1, "seed {seed}");
        assert!(
            net.dual_us < 100 * MS,
            "seed {seed}: dual-Active for {} us after healing",
            net.dual_us
        );
    }
}

#[test]
fn a_node_without_power_is_replaced_within_active_down() {
    let mut worst = 0;
    for seed in 0..50 {
        let mut net = pair(seed);
        let pause = net.dice.below(SECOND);
        net.run_for(pause);
        net.power_off(0);
        net.run_for(2 * SECOND);
        assert_eq!(net.holders(), [1], "seed {seed}");
        worst = worst.max(net.dark_us);
    }
    assert!((260 * MS..362 * MS).contains(&worst), "{worst} us");
}

#[test]
fn a_killed_vrrp_process_that_is_restarted_is_no_failover() {
    for seed in 0..50 {
        let mut net = pair(seed);
        net.kill(0);
        let pause = net.dice.below(250 * MS);
        net.run_for(pause);
        net.start(0);
        net.run_for(3 * SECOND);
        assert_eq!(
            (net.holders(), net.dark_us, net.dual_us),
            (vec![0], 0, 0),
            "seed {seed}"
        );
    }
}

#[test]
fn a_stopped_vrrp_process_is_no_failover() {
    for seed in 0..50 {
        let mut net = pair(seed);
        let node = net.dice.below(2) as usize;
        net.stop(node);
        let pause = net.dice.below(SECOND);
        net.run_for(pause);
        net.go_on(node);
        net.run_for(3 * SECOND);
        assert_eq!(
            (net.holders(), net.dark_us, net.dual_us),
            (vec![0], 0, 0),
            "seed {seed}"
        );
        assert_eq!(
            net.nodes[1]
                .router
                .status(net.now, 0)
                .counters
                .became_active,
            0
        );
    }
}

#[test]
fn a_node_that_comes_back_takes_over_no_sooner_than_it_has_caught_up() {
    for seed in 0..50 {
        let mut net = pair(seed);
        net.power_off(0);
        net.run_for(2 * SECOND);
        net.start(0);
        net.tell(0, Input::Behind(Some("rings")));
        net.run_for(30 * SECOND);
        assert_eq!(net.holders(), [1], "seed {seed}");
        (net.dark_us, net.dual_us) = (0, 0);
        net.tell(0, Input::Behind(None));
        net.run_for(3 * SECOND);
        assert_eq!(net.holders(), [0], "seed {seed}");
        assert_eq!(net.dark_us, 0, "seed {seed}");
        assert!(net.dual_us < MS, "seed {seed}: {} us", net.dual_us);
    }
}

/// Its link is down, which it can say over the sync link only. That its advertisements were heard just now is no
/// reason to leave the VIPs to it.
#[test]
fn a_node_that_is_behind_does_not_wait_for_one_that_is_not_fit() {
    for seed in 0..50 {
        let mut net = pair(seed);
        let pause = net.dice.below(SECOND);
        net.run_for(pause);
        net.tell(1, Input::Behind(Some("rings")));
        (net.link_cut[0][1], net.link_cut[1][0]) = (true, true);
        let unwell = Unwell {
            what: "eth0 is down".to_owned(),
            weight: None,
        };
        net.tell(0, Input::Condition(&Condition::of(200, [unwell])));
        net.run_for(SECOND);
        assert_eq!(net.holders(), [1], "seed {seed}");
        let worst = HEARTBEAT_US + MS;
        assert!(net.dark_us < worst, "seed {seed}: {} us", net.dark_us);
    }
}

/// Three nodes, of which the first comes back while the second is Active, and hears the third alone over the sync link.
fn out_of_touch(seed: u64) -> Net {
    let configs = [200, 100, 50].into_iter().enumerate();
    let configs = configs.map(|(number, priority)| with_key(member(number, priority)));
    let mut net = Net::new(seed, configs.collect());
    net.run_for(5 * SECOND);
    assert_eq!(net.holders(), [0], "seed {seed}");
    net.power_off(0);
    net.run_for(SECOND);
    assert_eq!(net.holders(), [1], "seed {seed}");
    (net.sync_cut[0][1], net.sync_cut[1][0]) = (true, true);
    net.tell(0, Input::Behind(Some("it has just begun")));
    net.start(0);
    net.tell(0, Input::Behind(Some("it has just begun")));
    net.run_for(10 * SECOND);
    assert_eq!(net.holders(), [1], "seed {seed}");
    net.tell(0, Input::Behind(None));
    net
}

#[test]
fn a_node_that_does_not_hear_the_active_one_over_the_sync_link_leaves_the_vips_to_it() {
    for seed in 0..20 {
        let mut net = out_of_touch(seed);
        net.run_for(30 * SECOND);
        assert_eq!(net.holders(), [1], "seed {seed}");
        let held = net.nodes[0].router.status(net.now, 0).held;
        let why = "this node has not caught up with 10.0.0.2: 10.0.0.2 is Active, and no peer says so over the \
                   sync link";
        assert_eq!(held.as_deref(), Some(why), "seed {seed}");
        (net.sync_cut[0][1], net.sync_cut[1][0]) = (false, false);
        net.run_for(SECOND);
        assert_eq!(net.holders(), [0], "seed {seed}");
    }
}

#[test]
fn vips_are_handed_over_to_a_node_that_hears_the_active_one() {
    for seed in 0..20 {
        let mut net = out_of_touch(seed);
        net.run_for(2 * SECOND);
        net.tell(1, Input::HandOver);
        net.run_for(20 * MS);
        assert_eq!(net.holders(), [2], "seed {seed}");
    }
}

#[test]
fn when_the_active_one_dies_a_node_that_heard_it_comes_first() {
    for seed in 0..20 {
        let mut net = out_of_touch(seed);
        net.power_off(1);
        net.run_for(450 * MS);
        assert_eq!(net.holders(), [2], "seed {seed}");
        // And it may know by then what that one knows.
        net.run_for(10 * SECOND);
        assert_eq!(net.holders(), [0], "seed {seed}");
        assert!(net.dual_us < MS, "seed {seed}: {} us", net.dual_us);
    }
}

#[test]
fn recordings_move_nothing() {
    for seed in 0..4 {
        let mut net = pair(seed);
        net.power_off(0);
        net.run_for(3 * SECOND);
        net.start(0);
        net.run_for(3 * SECOND);
        assert_eq!(net.holders(), [0], "seed {seed}");
        let tape = std::mem::take(&mut net.tape);
        let before = [0, 1].map(|node| net.nodes[node].router.status(net.now, 0).counters.received);
        for (source, destination, payload) in tape.iter().cycle().take(4_000) {
            net.inject(*source, *destination, payload);
            net.run_for(MS / 2);
        }
        assert_eq!(
            (net.holders(), net.actives()),
            (vec![0], vec![0]),
            "seed {seed}"
        );
        let counters = net.nodes[1].router.status(net.now, 0).counters;
        // One advertisement each 100 ms, in two seconds, and answers to what looks like a new node.
        assert_eq!(counters.became_active, 1, "seed {seed}");
        assert!(counters.unauthentic > 1_000, "seed {seed}: {counters:?}");
        let sent = net.nodes[0].router.status(net.now, 0).counters.sent;
        let received = counters.received - before[1];
        assert!(received <= sent, "seed {seed}: {received} of {sent}");
    }
}

#[test]
fn forgeries_move_nothing() {
    let mut net = pair(1);
    let before = net.nodes[1].router.status(net.now, 0).counters.received;
    for _ in 0..1000 {
        for from in [1, 7] {
            let forged = advertisement(from, 255, 10);
            net.inject(ip(from), MULTICAST_IPV4.into(), &forged);
        }
        net.run_for(MS);
    }
    assert_eq!((net.holders(), net.dark_us, net.dual_us), (vec![0], 0, 0));
    let counters = net.nodes[1].router.status(net.now, 0).counters;
    assert_eq!(counters.unauthentic, 2000);
    assert_eq!(counters.received - before, 10);
}

#[test]
fn what_is_said_is_little() {
    let mut net = pair(1);
    let before = net.tape.len();
    net.run_for(10 * SECOND);
    let packets = net.tape.len() - before;
    // Ten advertisements and one hello a second.
    assert!((108..=112).contains(&packets), "{packets}");
    let is_refused = |said: &Output| matches!(said, Output::Refused { .. });
    assert!(
        !net.nodes
            .iter()
            .any(|node| node.said.iter().any(is_refused))
    );
}

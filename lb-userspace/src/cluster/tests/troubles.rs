//! A channel that stands still now and then, as TCP does where packets are lost, links that are lost and back, silence
//! that only one side notices, and VIPs that move meanwhile: whatever has happened, in the end all have the owner's ring,
//! and a change that the owner plans then gets to its end on all of them.

use std::collections::VecDeque;

use super::*;

/// How many histories.
const SEEDS: u64 = 120;
/// How often the VIP moves in each.
const MOVES: usize = 6;
/// Between two moves at most. Unit: milliseconds.
const PAUSE_MAX_MS: u64 = 2_000;
/// After the last of all disturbances, everything is in order within this. Unit: milliseconds.
const HEALING_MS: u64 = 3_000;
/// Between two heartbeats. Unit: milliseconds.
const BEAT_MS: u64 = 50;
/// How many sweeps a planned change may take after its flows have had their idle time.
const SWEEPS_MAX: usize = 8;

/// A history's dice.
struct Dice(u64);

impl Dice {
    fn below(&mut self, count: u64) -> u64 {
        self.0 = lb_common::hash::mix(self.0.wrapping_add(0x9e37_79b9_7f4a_7c15));
        self.0 % count
    }

    fn happens(&mut self, of_a_thousand: u64) -> bool {
        self.below(1_000) < of_a_thousand
    }

    fn pick(&mut self, names: &[String]) -> String {
        names[self.below(names.len() as u64) as usize].clone()
    }
}

/// From one node to another.
#[derive(Default)]
struct Channel {
    messages: VecDeque<Message>,
    /// Nothing arrives before.
    stands_until_ms: u64,
    /// What the heartbeats under way say, and when they arrive.
    beats: VecDeque<(u64, BTreeSet<GroupId>)>,
}

/// What a node thinks of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    /// It hears nothing; what was said to it is taken from the connection, and not heeded.
    Silence,
    /// The connection is a new one, which it has not noticed yet: what was said over it waits.
    Reconnected,
}

struct History {
    bench: Bench,
    /// The service's VIP moves.
    has_group: bool,
    /// A silence lasts as long at most: where no VIP moves, so long that a node may be left alone. Unit: milliseconds.
    silence_max_ms: u64,
    channels: BTreeMap<(String, String), Channel>,
    dice: Dice,
    is_disturbed: bool,
    /// Of a node with a peer, and until when.
    troubles: BTreeMap<(String, String), (Trouble, u64)>,
}

impl History {
    fn new(count: usize, has_group: bool, seed: u64) -> Self {
        let mut bench = Bench::new(count, &[1, 2, 3]);
        for node in bench.nodes.values_mut() {
            node.rings.group = has_group.then(group);
        }
        bench.connect_all();
        Self {
            bench,
            has_group,
            silence_max_ms: if has_group { 2_000 } else { 8_000 },
            channels: BTreeMap::new(),
            dice: Dice(seed),
            is_disturbed: true,
            troubles: BTreeMap::new(),
        }
    }

    fn names(&self) -> Vec<String> {
        self.bench.nodes.keys().cloned().collect()
    }

    fn others(&self, one: &str) -> Vec<String> {
        let names = self.names().into_iter();
        names.filter(|name| name != one).collect()
    }

    fn coordinator(&mut self, name: &str) -> &mut Coordinator {
        let node = self.bench.nodes.get_mut(name);
        &mut node.expect("a node").coordinator
    }

    fn channel(&mut self, from: &str, to: &str) -> &mut Channel {
        let key = (from.to_owned(), to.to_owned());
        self.channels.entry(key).or_default()
    }

    fn happens(&mut self, of_a_thousand: u64) -> bool {
        self.is_disturbed && self.dice.happens(of_a_thousand)
    }

    fn disturb(&mut self) {
        let (names, now_ms) = (self.names(), self.bench.now_ms);
        let (one, other) = (self.dice.pick(&names), self.dice.pick(&names));
        if one == other {
            return;
        }
        if self.happens(1) {
            let until_ms = now_ms + self.dice.below(self.silence_max_ms);
            self.lose(&one, &other, Trouble::Silence, until_ms);
        }
        if self.happens(1) {
            for (one, other) in [(&one, &other), (&other, &one)] {
                self.channel(one, other).messages.clear();
                let until_ms = now_ms + self.dice.below(20);
                self.lose(one, other, Trouble::Reconnected, until_ms);
            }
        }
        if self.happens(5) {
            let number = 1 + self.dice.below(names.len() as u64) as usize;
            let target = [[1, 2, 3], [3, 2, 3], [1, 1, 3], [2, 2, 2]][self.dice.below(4) as usize];
            self.bench.want(number, &target, &[]);
        }
    }

    fn lose(&mut self, one: &str, other: &str, trouble: Trouble, until_ms: u64) {
        let now_ms = self.bench.now_ms;
        self.coordinator(one).link_down(other, now_ms);
        let pair = (one.to_owned(), other.to_owned());
        self.troubles.insert(pair, (trouble, until_ms));
    }

    fn recover(&mut self) {
        let now_ms = self.bench.now_ms;
        let is_over = |_: &_, (_, until_ms): &mut (Trouble, u64)| *until_ms <= now_ms;
        let over: Vec<_> = self.troubles.extract_if(.., is_over).collect();
        for ((one, other), _) in over {
            self.coordinator(&one).link_up(&other);
        }
    }

    /// Every node says in which groups it is Active; some of it is lost, and some is late.
    fn beat(&mut self) {
        let now_ms = self.bench.now_ms;
        for from in self.names() {
            let active = self.coordinator(&from).view.active.clone();
            for to in self.others(&from) {
                let late_ms = self.dice.below(20);
                if !self.happens(500) {
                    let beat = (now_ms + late_ms, active.clone());
                    self.channel(&from, &to).beats.push_back(beat);
                }
            }
        }
    }

    fn arrive(&mut self, node: &str) {
        let now_ms = self.bench.now_ms;
        for peer in self.others(node) {
            let is_stalled = self.happens(50);
            let stall_ms = 200 + self.dice.below(1_500);
            let some = 1 + self.dice.below(4) as usize;
            let pair = (node.to_owned(), peer.clone());
            let is_unnoticed = matches!(self.troubles.get(&pair), Some((Trouble::Reconnected, _)));
            let channel = self.channel(&peer, node);
            if is_stalled && now_ms >= channel.stands_until_ms {
                channel.stands_until_ms = now_ms + stall_ms;
            }
            let is_due = |(at_ms, _): &mut (u64, _)| *at_ms <= now_ms;
            let mut beats = Vec::new();
            while let Some((_, active)) = channel.beats.pop_front_if(is_due) {
                beats.push(active);
            }
            let some = match is_unnoticed || now_ms < channel.stands_until_ms {
                true => 0,
                false => some.min(channel.messages.len()),
            };
            let messages: Vec<Message> = channel.messages.drain(..some).collect();
            let coordinator = self.coordinator(node);
            for active in beats {
                coordinator.note_peer_active(&peer, active);
            }
            for message in messages {
                coordinator.receive(&peer, message, now_ms);
            }
        }
    }

    fn look(&mut self, name: &str) {
        let now_ms = self.bench.now_ms;
        let node = self.bench.nodes.get_mut(name).expect("a node");
        for Output { peer, message } in node.look(now_ms, true) {
            self.channel(name, &peer).messages.push_back(message);
        }
    }

    fn pass(&mut self, ms: u64) {
        for _ in 0..ms {
            self.disturb();
            self.recover();
            if self.bench.now_ms.is_multiple_of(BEAT_MS) {
                self.beat();
            }
            for name in self.names() {
                if self.dice.happens(200) {
                    self.arrive(&name);
                    self.look(&name);
                }
            }
            self.bench.now_ms += 1;
        }
    }

    fn set_active(&mut self, name: &str, is_active: bool) {
        let active = is_active.then(group).into_iter().collect();
        self.coordinator(name).note_own_active(active);
    }

    /// The VIP moves: the new Active one begins before the old one has given it up, or after.
    fn hand_over(&mut self, from: &str, to: &str) {
        let mut steps = [(from, false), (to, true)];
        if self.dice.happens(500) {
            steps.reverse();
        }
        for (name, is_active) in steps {
            self.set_active(name, is_active);
            let gap_ms = self.dice.below(8);
            self.pass(gap_ms);
        }
    }

    /// Says what is wrong in the end.
    fn run(mut self) -> Result<(), String> {
        let names = self.names();
        let mut holder = names[0].clone();
        self.set_active(&holder, true);
        for _ in 0..MOVES {
            let pause_ms = 1 + self.dice.below(PAUSE_MAX_MS);
            self.pass(pause_ms);
            let next = self.dice.pick(&names);
            if next != holder {
                self.hand_over(&holder, &next);
                holder = next;
            }
        }
        self.is_disturbed = false;
        // The last disturbances have their time.
        self.pass(self.silence_max_ms + HEALING_MS);
        if !self.has_group {
            let is_owner = |node: &Node| node.coordinator.status()[0].role == Role::Owner;
            let mut nodes = self.bench.nodes.iter();
            let owner = nodes.find(|(_, node)| is_owner(node));
            holder = owner
                .map(|(name, _)| name.clone())
                .ok_or("nobody decides")?;
        }
        self.check_shared(&holder)?;
        self.check_planned_change(&holder)
    }

    fn number(name: &str) -> usize {
        let number = name
            .strip_prefix("lb")
            .and_then(|number| number.parse().ok());
        number.expect("a node's name")
    }

    /// All have the ring of the one that is Active, which owns it; or of the owner, if the VIP does not move.
    fn check_shared(&self, holder: &str) -> Result<(), String> {
        let ring = self.bench.slots(Self::number(holder));
        for (name, node) in &self.bench.nodes {
            let status = node.coordinator.status();
            let is_owner = status[0].role == Role::Owner;
            if let Some(behind) = node.coordinator.behind() {
                return Err(format!("{name} is behind: {behind}, {status:?}"));
            }
            if is_owner != (name == holder) || self.bench.slots(Self::number(name)) != ring {
                return Err(format!("{name} is not with {holder}: {status:?}"));
            }
        }
        Ok(())
    }

    /// What the owner plans now is done everywhere once the flows are gone. Nothing is under way but what is said from here
    /// on: messages arrive at once.
    fn check_planned_change(&mut self, holder: &str) -> Result<(), String> {
        let until_ms = self.bench.now_ms + HEALING_MS;
        while self.channels.values().any(|one| !one.messages.is_empty()) {
            if self.bench.now_ms >= until_ms {
                return Err("messages are always under way".to_owned());
            }
            self.pass(1);
        }
        let target = [4, 5, 6];
        self.bench.want(Self::number(holder), &target, &[]);
        self.bench.pass(2 * IDLE_MS);
        for _ in 0..SWEEPS_MAX {
            self.bench.sweep(0);
        }
        self.check_shared(holder)?;
        let slots = self.bench.slots(Self::number(holder));
        if slots != target.map(settled) {
            return Err(format!("{holder} has {slots:?} and wanted {target:?}"));
        }
        Ok(())
    }
}

#[test]
fn in_the_end_all_have_the_owners_ring_and_its_changes() {
    for seed in 0..SEEDS {
        let count = 2 + seed as usize % 2;
        let ended = History::new(count, seed % 6 < 4, seed).run();
        assert_eq!(ended, Ok(()), "seed {seed}");
    }
}

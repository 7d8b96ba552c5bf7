//! Several routers on a link that loses, delays and is cut, with a sync link beside it: for tests. The same seed
//! makes the same run.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::Router;
use super::test_kit::{START, facts, ip, session};
use crate::vrrp::protocol::{PeerFacts, State};
use crate::vrrp::router::{Input, Output, RouterConfig};

pub(super) const HEARTBEAT_US: u64 = 100_000;
/// What a socket of a stopped process keeps.
const PENDING_MAX: usize = 200;

/// A small generator of numbers (xorshift), good enough to choose what goes wrong.
#[derive(Clone, Debug)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    Runs,
    /// By SIGSTOP; since when.
    Stopped(u64),
    /// The kernel goes on, and so do the VIPs that it has.
    Dead,
    /// The node is without power.
    Off,
}

#[derive(Clone, Debug)]
enum Event {
    Packet {
        source: IpAddr,
        destination: IpAddr,
        payload: Vec<u8>,
    },
    Answer(IpAddr),
    Heard {
        from: usize,
        word: PeerFacts,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) router: Router,
    pub(super) process: Process,
    pub(super) has_vips: bool,
    pub(super) said: Vec<Output>,
    pending: Vec<Event>,
    sessions: u64,
    /// What was heard of the others, and when.
    words: BTreeMap<usize, (u64, PeerFacts)>,
}

#[derive(Clone, Debug)]
pub(super) struct Net {
    pub(super) now: u64,
    pub(super) nodes: Vec<Node>,
    pub(super) dice: Dice,
    /// Of a thousand packets.
    pub(super) lost: u64,
    pub(super) delay_max_us: u64,
    /// From, to: cut.
    pub(super) link_cut: Vec<Vec<bool>>,
    pub(super) sync_cut: Vec<Vec<bool>>,
    pub(super) has_sync: bool,
    /// Packets recorded, for an attacker.
    pub(super) tape: Vec<(IpAddr, IpAddr, Vec<u8>)>,
    /// How long no node, or more than one, had the VIPs.
    pub(super) dark_us: u64,
    pub(super) dual_us: u64,
    events: BTreeMap<(u64, u64), (usize, Event)>,
    count: u64,
    heartbeat_at: u64,
}

impl Net {
    pub(super) fn new(seed: u64, configs: Vec<RouterConfig>) -> Self {
        let count = configs.len();
        let mut net = Self {
            now: START,
            nodes: Vec::new(),
            dice: Dice::new(seed),
            lost: 0,
            delay_max_us: 200,
            link_cut: vec![vec![false; count]; count],
            sync_cut: vec![vec![false; count]; count],
            has_sync: true,
            tape: Vec::new(),
            dark_us: 0,
            dual_us: 0,
            events: BTreeMap::new(),
            count: 0,
            heartbeat_at: START,
        };
        for (number, config) in configs.into_iter().enumerate() {
            net.nodes.push(Node {
                router: Router::new(config, session(100 + number as u64), START),
                process: Process::Runs,
                has_vips: false,
                said: Vec::new(),
                pending: Vec::new(),
                sessions: 0,
                words: BTreeMap::new(),
            });
        }
        for node in 0..count {
            net.tell(node, Input::Startup);
        }
        net
    }

    pub(super) fn tell(&mut self, node: usize, input: Input<'_>) {
        let mut out = Vec::new();
        self.nodes[node].router.handle(self.now, input, &mut out);
        self.perform(node, out);
    }

    fn perform(&mut self, node: usize, out: Vec<Output>) {
        for output in out {
            match output {
                Output::Send { to, payload } => self.send(node, to, payload),
                Output::AddVips(_) => self.nodes[node].has_vips = true,
                Output::RemoveVips(_) => self.nodes[node].has_vips = false,
                Output::Probe { address } => self.probe(node, address),
                said => self.nodes[node].said.push(said),
            }
        }
    }

    fn source(&self, node: usize) -> IpAddr {
        self.nodes[node].router.config().source
    }

    fn send(&mut self, from: usize, to: IpAddr, payload: Vec<u8>) {
        let source = self.source(from);
        if self.tape.len() < 10_000 {
            self.tape.push((source, to, payload.clone()));
        }
        for node in 0..self.nodes.len() {
            let is_its = to.is_multicast() || to == self.source(node);
            if node != from && is_its && !self.link_cut[from][node] {
                let packet = Event::Packet {
                    source,
                    destination: to,
                    payload: payload.clone(),
                };
                self.deliver(node, packet);
            }
        }
    }

    fn deliver(&mut self, to: usize, event: Event) {
        let is_lost = self.dice.below(1000) < self.lost;
        let at = self.now + 50 + self.dice.below(self.delay_max_us);
        if !is_lost {
            self.at(at, to, event);
        }
    }

    fn at(&mut self, at: u64, to: usize, event: Event) {
        self.count += 1;
        self.events.insert((at, self.count), (to, event));
    }

    /// The kernel of a node with power answers.
    fn probe(&mut self, from: usize, address: IpAddr) {
        let asked = (0..self.nodes.len()).find(|node| self.source(*node) == address);
        if let Some(to) = asked {
            let is_there = self.nodes[to].process != Process::Off;
            if is_there && !self.link_cut[from][to] && !self.link_cut[to][from] {
                self.deliver(from, Event::Answer(address));
            }
        }
    }

    /// What an attacker sends, to all.
    pub(super) fn inject(&mut self, source: IpAddr, destination: IpAddr, payload: &[u8]) {
        for node in 0..self.nodes.len() {
            let packet = Event::Packet {
                source,
                destination,
                payload: payload.to_vec(),
            };
            self.deliver(node, packet);
        }
    }

    fn happen(&mut self, node: usize, event: Event) {
        match self.nodes[node].process {
            Process::Off | Process::Dead => return,
            Process::Stopped(_) => {
                let pending = &mut self.nodes[node].pending;
                if pending.len() < PENDING_MAX {
                    pending.push(event);
                }
                return;
            }
            Process::Runs => {}
        }
        match event {
            Event::Packet {
                source,
                destination,
                payload,
            } => self.tell(
                node,
                Input::Received {
                    source,
                    destination,
                    hop_limit: 255,
                    payload: &payload,
                },
            ),
            Event::Answer(address) => self.tell(node, Input::ProbeAnswered { address }),
            Event::Heard { from, word } => {
                self.nodes[node].words.insert(from, (self.now, word));
                self.tell_news(node);
            }
        }
    }

    fn tell_news(&mut self, node: usize) {
        let words = self.nodes[node].words.values();
        let facts: Vec<PeerFacts> = words
            .map(|(heard, word)| PeerFacts {
                heard_ms: (self.now - heard) / 1000,
                ..word.clone()
            })
            .collect();
        self.tell(node, Input::PeerFacts(&facts));
    }

    /// Each `lbd` with power tells what its VRRP process was last.
    fn beat(&mut self) {
        self.heartbeat_at += HEARTBEAT_US;
        for from in 0..self.nodes.len() {
            if !self.has_sync || self.nodes[from].process == Process::Off {
                continue;
            }
            let status = self.nodes[from].router.status(self.now, 0);
            let last = (from + 1) as u8;
            let is_fit = status.state != State::Initialize && status.priority > 0;
            let word = facts((last, status.state, status.priority, is_fit), 0);
            for to in 0..self.nodes.len() {
                if to != from && !self.sync_cut[from][to] {
                    let word = word.clone();
                    self.deliver(to, Event::Heard { from, word });
                }
            }
        }
        for node in 0..self.nodes.len() {
            if self.nodes[node].process == Process::Runs {
                self.tell_news(node);
            }
        }
    }

    pub(super) fn run_for(&mut self, us: u64) {
        let end = self.now + us;
        while let Some(at) = self.next_at().filter(|at| *at <= end) {
            self.pass(at);
            if self.heartbeat_at <= self.now {
                self.beat();
            }
            while let Some(entry) = self.events.first_entry()
                && entry.key().0 <= self.now
            {
                let (node, event) = entry.remove();
                self.happen(node, event);
            }
            for node in 0..self.nodes.len() {
                let deadline = self.nodes[node].router.deadline();
                let is_due = deadline.is_some_and(|at| at <= self.now);
                if is_due && self.nodes[node].process == Process::Runs {
                    self.tell(node, Input::Timer);
                    let next = self.nodes[node].router.deadline();
                    assert!(
                        next.is_none_or(|next| next > self.now),
                        "a timer that stands still"
                    );
                }
            }
        }
        self.pass(end);
    }

    fn pass(&mut self, to: u64) {
        let to = to.max(self.now);
        match self.holders().len() {
            0 => self.dark_us += to - self.now,
            1 => {}
            _ => self.dual_us += to - self.now,
        }
        self.now = to;
    }

    fn next_at(&self) -> Option<u64> {
        let running = self
            .nodes
            .iter()
            .filter(|node| node.process == Process::Runs);
        let deadlines = running.filter_map(|node| node.router.deadline());
        let events = self.events.keys().map(|key| key.0).take(1);
        deadlines.chain(events).chain([self.heartbeat_at]).min()
    }

    /// Who has the VIPs.
    pub(super) fn holders(&self) -> Vec<usize> {
        let has =
            |node: &usize| self.nodes[*node].has_vips && self.nodes[*node].process != Process::Off;
        (0..self.nodes.len()).filter(has).collect()
    }

    /// Which running routers are Active.
    pub(super) fn actives(&self) -> Vec<usize> {
        let is_active = |node: &usize| {
            let node = &self.nodes[*node];
            node.process == Process::Runs && node.router.state() == State::Active
        };
        (0..self.nodes.len()).filter(is_active).collect()
    }

    pub(super) fn stop(&mut self, node: usize) {
        if self.nodes[node].process == Process::Runs {
            self.nodes[node].process = Process::Stopped(self.now);
        }
    }

    /// SIGCONT: as the driver does it.
    pub(super) fn go_on(&mut self, node: usize) {
        let Process::Stopped(_) = self.nodes[node].process else {
            return;
        };
        self.nodes[node].process = Process::Runs;
        let deadline = self.nodes[node].router.deadline();
        if let Some(late_us) = deadline.and_then(|at| self.now.checked_sub(at)) {
            self.tell(node, Input::Overslept { by_us: late_us });
        }
        for event in std::mem::take(&mut self.nodes[node].pending) {
            self.happen(node, event);
        }
        self.tell(node, Input::Timer);
    }

    /// Pulls the plug.
    pub(super) fn power_off(&mut self, node: usize) {
        self.nodes[node].process = Process::Off;
        self.nodes[node].has_vips = false;
    }

    /// SIGKILL for the VRRP process.
    pub(super) fn kill(&mut self, node: usize) {
        if self.nodes[node].process != Process::Off {
            self.nodes[node].process = Process::Dead;
        }
    }

    /// A new process: after SIGKILL the successor of the old one, after a loss of power a fresh one.
    pub(super) fn start(&mut self, node: usize) {
        let former = self.nodes[node].process;
        let subject = &mut self.nodes[node];
        if !matches!(former, Process::Dead | Process::Off) {
            return;
        }
        subject.sessions += 1;
        let session = session(100 + node as u64 + 1000 * subject.sessions);
        let config = subject.router.config().clone();
        let saved = subject.router.saved();
        let overdue = subject.router.deadline().unwrap_or(self.now);
        subject.router = Router::new(config, session, self.now);
        subject.process = Process::Runs;
        subject.pending.clear();
        subject.words.clear();
        let mut out = Vec::new();
        match former {
            // The state was saved no later than the last deadline before the end.
            Process::Dead => {
                let age_us = self.now.saturating_sub(overdue);
                subject.router.resume(self.now, saved, age_us, &mut out);
            }
            _ => subject.router.handle(self.now, Input::Startup, &mut out),
        }
        self.perform(node, out);
    }

    /// All is well from here on.
    pub(super) fn heal(&mut self) {
        self.lost = 0;
        for row in self.link_cut.iter_mut().chain(&mut self.sync_cut) {
            row.fill(false);
        }
        for node in 0..self.nodes.len() {
            self.go_on(node);
            self.start(node);
        }
    }
}

/// Node `number` (from 0), with an interval of 100 ms.
pub(super) fn member(number: usize, priority: u8) -> RouterConfig {
    let last = (number + 1) as u8;
    RouterConfig {
        interval_cs: 10,
        source: ip(last),
        ..super::test_kit::config(last, priority)
    }
}

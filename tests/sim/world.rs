//! The world: clients, backends, the network between them, and the balancers under test.

mod changes;
mod checks;

use crate::agenda::{Agenda, Due, Sent};
use crate::attack::Attacker;
use crate::balancer::{Balancer, Segment};
use crate::client::{Client, Manners, NEVER_MS, Phase, Turn};
use crate::config::{Admin, BackendConfig, Config};
use crate::history::Load;
use crate::outcome::{Break, Outcome};
use crate::packet::{Kind, Source};
use crate::plan::Plan;
use crate::rng::Rng;

/// The clock at the beginning, so that no time is zero. Unit: milliseconds.
const START_MS: u64 = 1_000_000;
/// Between two looks of the control planes. Unit: milliseconds.
const TICK_MS: u64 = 20;
/// Between two audits. Unit: milliseconds.
const AUDIT_MS: u64 = 5_000;
/// A connection made with a backend that has been down for longer, in the balancers' eyes, is not
/// promised to last: it came there by a node that found no room to record it, and a backend that has
/// been down for 15 s is given up then. Unit: milliseconds.
const AT_RISK_MS: u64 = 10_000;
/// What a health check takes to notice. Unit: milliseconds.
const NOTICE_MS: u64 = 1_000;
/// The most that a change of the model takes from one node to the next. Unit: milliseconds.
const LAG_MAX_MS: u64 = 300;
/// How long nothing happens after the history until the clients end. Unit: milliseconds.
const REST_MS: u64 = 60_000;
/// The most that a packet is overtaken by, in a bad network: less than the preparation of a change
/// takes. Unit: milliseconds.
const DETOUR_MAX_MS: u64 = 1_400;
/// More than any lingering of an entry, the idle time-out apart. Unit: milliseconds.
const LINGER_MS: u64 = 90_000;

/// A physical backend.
#[derive(Clone, Copy, Debug)]
struct Host {
    is_alive: bool,
}

/// What makes a balancer of a plan's node, of its number and the model at the beginning.
pub(crate) type Maker<'a> = dyn Fn(&Plan, usize, &Config, u64) -> Box<dyn Balancer> + 'a;

pub(crate) struct World<'p> {
    plan: &'p Plan,
    now_ms: u64,
    agenda: Agenda,
    clients: Vec<Client>,
    hosts: Vec<Host>,
    /// Since when the health checks say that a backend is down.
    down_since_ms: Vec<Option<u64>>,
    /// Until when every node has heard that a backend is up again.
    risky_until_ms: Vec<u64>,
    nodes: Vec<Box<dyn Balancer>>,
    config: Config,
    /// The model after each of its changes.
    configs: Vec<Config>,
    /// The last change that each node has heard of.
    known: Vec<Option<u32>>,
    attacker: Attacker,
    rng: Rng,
    next_audit_ms: u64,
    is_over: bool,
    /// The client whose packets are shown.
    followed: Option<usize>,
    outcome: Outcome,
}

impl<'p> World<'p> {
    pub(crate) fn new(plan: &'p Plan, make: &Maker<'_>) -> Self {
        let present = BackendConfig {
            weight: 100,
            admin: Admin::Ready,
            is_up: true,
        };
        let mut backends = vec![present; plan.backend_count];
        backends.push(BackendConfig {
            admin: Admin::Absent,
            ..present
        });
        let hosts = vec![Host { is_alive: true }; backends.len()];
        let config = Config::new(backends, plan.ring_len);
        let nodes = (0..plan.node_count).map(|node| make(plan, node, &config, START_MS));
        let nodes: Vec<_> = nodes.collect();
        let client = |position: usize| {
            let rng = Rng::new(plan.seed, position as u64);
            Client::new(rng, plan.load, position % plan.node_count)
        };
        let attack_rng = Rng::new(plan.seed, 1 << 42);
        Self {
            plan,
            now_ms: START_MS,
            agenda: Agenda::default(),
            clients: (0..plan.client_count).map(client).collect(),
            down_since_ms: vec![None; hosts.len()],
            risky_until_ms: vec![0; hosts.len()],
            hosts,
            nodes,
            config,
            configs: Vec::new(),
            known: vec![None; plan.node_count],
            attacker: Attacker::new(plan.load, plan.attack_per_s, attack_rng),
            rng: Rng::new(plan.seed, 1 << 43),
            next_audit_ms: START_MS + AUDIT_MS,
            is_over: false,
            followed: None,
            outcome: Outcome::default(),
        }
    }

    /// The same, with each packet of one client shown.
    pub(crate) fn following(mut self, client: Option<usize>) -> Self {
        self.followed = client;
        self
    }

    /// Runs the history, lets everything settle, ends all connections, and lets that settle too.
    pub(crate) fn run(mut self) -> Outcome {
        self.begin();
        let idle_ms = u64::from(self.plan.idle_timeout_s) * 1_000;
        let end_ms = START_MS + self.plan.duration_ms;
        self.run_until(end_ms);
        self.attacker = Attacker::new(Load::Calm, 0, Rng::new(0, 0));
        self.heal();
        self.run_until(end_ms + 2 * idle_ms + REST_MS + LINGER_MS);
        self.check_settled();
        self.is_over = true;
        self.run_until(self.now_ms + 3 * idle_ms + LINGER_MS);
        self.check_empty();
        self.outcome
    }

    fn begin(&mut self) {
        self.agenda.push(START_MS + TICK_MS, Due::Tick);
        for (number, event) in (0..).zip(&self.plan.events) {
            self.agenda
                .push(START_MS + event.at_ms, Due::Happens(number));
        }
        for client in 0..self.clients.len() {
            let wake_ms = self.clients[client].rng.below(10_000);
            self.agenda.push(
                START_MS + wake_ms,
                Due::Wakes {
                    client: client as u32,
                    timer: 0,
                },
            );
        }
    }

    fn run_until(&mut self, end_ms: u64) {
        self.agenda.push(end_ms, Due::Happens(u32::MAX));
        while let Some((at_ms, due)) = self.agenda.pop() {
            self.now_ms = at_ms;
            match due {
                Due::Happens(u32::MAX) => return,
                Due::Tick => self.tick(),
                Due::Happens(number) => self.happen(number),
                Due::Noticed(number) => self.notice(number),
                Due::Configured { node, change } => self.configure(node as usize, change),
                Due::Wakes { client, timer } => self.wake(client, timer),
                Due::Arrives(sent) => self.arrive(&sent),
                Due::SynAck {
                    client,
                    incarnation,
                    backend,
                } => self.take_syn_ack(client, incarnation, backend as usize),
            }
        }
    }

    fn tick(&mut self) {
        for node in &mut self.nodes {
            node.tick(self.now_ms);
        }
        self.outcome.attack_count += self.attacker.send(TICK_MS, &mut self.nodes, &self.clients);
        if self.now_ms >= self.next_audit_ms {
            self.next_audit_ms = self.now_ms + AUDIT_MS;
            self.audit();
        }
        self.agenda.push(self.now_ms + TICK_MS, Due::Tick);
    }

    fn manners(&self) -> Manners {
        Manners {
            idle_timeout_ms: u64::from(self.plan.idle_timeout_s) * 1_000,
            is_over: self.is_over,
        }
    }

    fn wake(&mut self, client: u32, timer: u32) {
        let manners = self.manners();
        let waking = &mut self.clients[client as usize];
        if waking.timer != timer {
            return;
        }
        let was_opening = matches!(waking.phase, Phase::Opening(_));
        let turn = waking.turn(manners);
        self.outcome.opened_count += u64::from(turn.sends == Some(Kind::Syn) && !was_opening);
        self.outcome.unopened_count += u64::from(was_opening && turn.sends.is_none());
        self.act(client, turn);
    }

    fn act(&mut self, client: u32, turn: Turn) {
        let position = client as usize;
        let acting = &mut self.clients[position];
        acting.timer += 1;
        let timer = acting.timer;
        if turn.wake_ms < NEVER_MS {
            let at_ms = self.now_ms + turn.wake_ms;
            self.agenda.push(at_ms, Due::Wakes { client, timer });
        }
        let Some(kind) = turn.sends else {
            return;
        };
        let sent = Sent {
            client,
            incarnation: acting.incarnation,
            sequence: if kind == Kind::Syn {
                acting.initial
            } else {
                acting.sequence()
            },
            port: acting.source(position).port,
            kind: kind.into(),
        };
        if let Some(delay_ms) = self.delay_to_balancer(position, kind) {
            self.agenda.push(self.now_ms + delay_ms, Due::Arrives(sent));
        }
    }

    /// The way of a segment; `None`: it is lost. Data and FINs are sent again soon; SYNs by the client's
    /// timer, and RSTs never.
    fn delay_to_balancer(&mut self, position: usize, kind: Kind) -> Option<u64> {
        let rng = &mut self.clients[position].rng;
        let is_bad = self.plan.load == Load::BadNetwork;
        let mut delay_ms = rng.within(1, 40);
        if is_bad && rng.happens(50) {
            delay_ms += rng.below(DETOUR_MAX_MS);
        }
        if rng.happens(if is_bad { 100 } else { 10 }) {
            if matches!(kind, Kind::Syn | Kind::Rst) {
                return None;
            }
            delay_ms += rng.within(200, 1_200);
        }
        Some(delay_ms)
    }

    fn arrive(&mut self, sent: &Sent) {
        let kind = Kind::from(sent.kind);
        let position = sent.client as usize;
        let client = &self.clients[position];
        let source = Source {
            port: sent.port,
            ..client.source(position)
        };
        let segment = Segment {
            source,
            kind,
            sequence: sent.sequence,
        };
        self.outcome.packet_count += 1;
        let before =
            (self.followed == Some(position)).then(|| self.nodes[client.node].explain(source));
        let went_to = self.nodes[client.node].steer(&segment);
        if let Some(before) = before {
            let at_s = (self.now_ms - START_MS) as f64 / 1_000.0;
            let number = went_to.map_or(0, |backend| backend + 1);
            println!(
                "{at_s:>8.3} s  {kind:?} {:#x} to {number}: {before}",
                sent.sequence
            );
        }
        match went_to {
            Some(backend) if self.hosts[backend].is_alive => self.deliver(sent, kind, backend),
            Some(_) => self.outcome.to_dead_count += 1,
            None => self.outcome.dropped_count += 1,
        }
    }

    /// A backend gets a segment. To one of a connection that it does not know it answers with RST.
    fn deliver(&mut self, sent: &Sent, kind: Kind, backend: usize) {
        let client = &mut self.clients[sent.client as usize];
        if client.incarnation != sent.incarnation || client.phase == Phase::Idle {
            return;
        }
        if kind == Kind::Syn {
            client.is_split |= client.is_confirmed && client.owner != Some(backend);
            let down_ms = self.down_since_ms[backend].map_or(0, |since_ms| self.now_ms - since_ms);
            let is_risky = down_ms >= AT_RISK_MS || self.now_ms < self.risky_until_ms[backend];
            client.risky |= u32::from(is_risky) << backend;
            let is_bad = self.plan.load == Load::BadNetwork;
            let is_slow = is_bad && client.rng.happens(100);
            let detour_ms = if is_slow {
                client.rng.below(DETOUR_MAX_MS)
            } else {
                0
            };
            let delay_ms = detour_ms + client.rng.within(1, 40);
            let is_lost = client.rng.happens(10);
            if !is_lost {
                let due = Due::SynAck {
                    client: sent.client,
                    incarnation: sent.incarnation,
                    backend: backend as u32,
                };
                self.agenda.push(self.now_ms + delay_ms, due);
            }
        } else if client.owner == Some(backend) {
            self.outcome.established_count += u64::from(!client.is_confirmed);
            client.is_confirmed = true;
        } else if client.is_live() {
            self.break_off(sent.client, backend);
        }
    }

    fn break_off(&mut self, client: u32, backend: usize) {
        let position = client as usize;
        let broken = &mut self.clients[position];
        self.outcome.breaks.push(Break {
            at_ms: self.now_ms - START_MS,
            source: broken.source(position),
            habit: broken.habit,
            owner: broken.owner.map_or(0, |owner| owner + 1),
            went_to: backend + 1,
            was_promised: broken.is_promised(),
        });
        self.reset(client);
    }

    /// The connection is over, without a word.
    fn reset(&mut self, client: u32) {
        let reset = &mut self.clients[client as usize];
        reset.phase = Phase::Idle;
        let wake_ms = reset.rng.within(10, 2_000);
        let turn = Turn {
            sends: None,
            wake_ms,
        };
        self.act(client, turn);
    }

    fn take_syn_ack(&mut self, client: u32, incarnation: u32, backend: usize) {
        let manners = self.manners();
        let opening = &mut self.clients[client as usize];
        if opening.incarnation != incarnation || !self.hosts[backend].is_alive {
            return;
        }
        if let Some(turn) = opening.take_syn_ack(backend, manners) {
            self.act(client, turn);
        }
    }
}

//! The world of a cluster: nodes, the networks between them, clients and backends, and what befalls them.

mod attack;
mod clients;
mod faults;
mod routers;
mod status;
mod sync;

use attack::Attacker;
pub(super) use status::NodeStatus;

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::links::Links;
use super::net::{Agenda, Net};
use super::node::{Build, Clock, GROUP_COUNT, Node};
use super::outcome::Outcome;
use super::plan::{Attack, Plan, Surroundings, Way};
use super::rules::Rules;
use super::vips::{Packet, Process};
use crate::agenda::Sent;
use crate::client::{Client, Manners};
use crate::config::{Admin, BackendConfig, Config};
use crate::history::Load;
use crate::rng::Rng;

/// The clock at the beginning. Unit: milliseconds.
pub(super) const START_MS: u64 = 1_000_000;
/// Between two looks of the nodes. Unit: milliseconds.
const TICK_MS: u64 = 5;
/// When clients begin: the cluster is up by then. Unit: milliseconds.
const CLIENTS_MS: u64 = 4_000;
/// How long all is well after the history. Unit: milliseconds.
const REST_MS: u64 = 25_000;

/// Something due.
#[derive(Clone, Debug)]
pub(super) enum Due {
    Tick,
    Over,
    Happens(usize),
    Noticed(usize),
    Configured {
        node: usize,
        change: usize,
    },
    Wakes {
        client: u32,
        timer: u32,
    },
    Arrives(Sent),
    SynAck {
        client: u32,
        incarnation: u32,
        backend: usize,
    },
    /// A connection is closed by its other end.
    Closed {
        from: usize,
        to: usize,
        connection: u64,
    },
    /// A piece of a stream is about to arrive.
    Stream {
        from: usize,
        to: usize,
        connection: u64,
    },
    /// It has.
    Bytes {
        from: usize,
        to: usize,
        connection: u64,
        bytes: Vec<u8>,
    },
    Datagram {
        to: usize,
        bytes: Vec<u8>,
    },
    Advert {
        to: usize,
        packet: Packet,
    },
    Probed {
        node: usize,
        address: IpAddr,
    },
}

/// A node with all its processes.
pub(super) struct Machine {
    pub(super) node: Node,
    pub(super) vrrp: Option<Process>,
    pub(super) is_powered: bool,
    /// When it lost its power. Unit: milliseconds.
    pub(super) died_ms: Option<u64>,
    /// `lbd` does not run until then. Unit: milliseconds.
    pub(super) stopped_until_ms: u64,
    /// What came for it meanwhile.
    pub(super) waiting: Vec<Due>,
    /// By peer: when its last heartbeat came, and what it said.
    pub(super) heard: BTreeMap<usize, (u64, NodeStatus)>,
    pub(super) config_known: usize,
    /// Until then it does not hear what changes about the backends. Unit: milliseconds.
    pub(super) blind_until_ms: u64,
    /// The router spreads flows over it: it has caught up once, or there is nobody else.
    pub(super) is_announced: bool,
}

pub(super) struct World<'p> {
    pub(super) plan: &'p Plan,
    pub(super) rules: Rules,
    pub(super) now_ms: u64,
    pub(super) agenda: Agenda<Due>,
    pub(super) net: Net,
    pub(super) links: Links,
    pub(super) machines: Vec<Machine>,
    pub(super) clients: Vec<Client>,
    /// The node that had the client's last packet.
    pub(super) last_node: Vec<usize>,
    /// By client: the connection that came to another node sooner than its record.
    pub(super) unsynced: Vec<u32>,
    pub(super) is_alive: Vec<bool>,
    pub(super) config: Config,
    pub(super) configs: Vec<Config>,
    /// Who announced the VIP last.
    pub(super) located: usize,
    /// What the router's choice of a node is mixed with.
    pub(super) spread: u64,
    pub(super) rng: Rng,
    pub(super) is_over: bool,
    pub(super) next_heartbeat_ms: u64,
    next_respread_ms: u64,
    pub(super) followed: Option<usize>,
    /// Packets of VRRP sent.
    pub(super) advert_count: u64,
    /// When something has befallen a node or a network last. Unit: milliseconds.
    pub(super) calm_since_ms: u64,
    /// Whether the routers were looked at since.
    pub(super) is_calm_checked: bool,
    attacker: Option<Attacker>,
    pub(super) outcome: Outcome,
}

impl<'p> World<'p> {
    pub(super) fn new(plan: &'p Plan, rules: &Rules) -> Self {
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
        let is_alive = vec![true; backends.len()];
        let config = Config::new(backends, plan.ring_len);
        let mut rng = Rng::new(plan.seed, 1 << 51);
        let machine =
            |number: usize| Self::machine(plan, rules, &config, number, START_MS, &mut rng);
        let machines = (0..plan.node_count).map(machine).collect();
        let client =
            |position: usize| Client::new(Rng::new(plan.seed, position as u64), Load::Calm, 0);
        Self {
            plan,
            rules: rules.clone(),
            now_ms: START_MS,
            agenda: Agenda::new(),
            net: Net::new(Rng::new(plan.seed, 1 << 52)),
            links: Links::new(Rng::new(plan.seed, 1 << 53)),
            machines,
            clients: (0..plan.surroundings.client_count).map(client).collect(),
            last_node: vec![0; plan.surroundings.client_count],
            unsynced: vec![0; plan.surroundings.client_count],
            is_alive,
            configs: vec![config.clone()],
            config,
            located: 0,
            spread: 0,
            rng,
            is_over: false,
            next_heartbeat_ms: START_MS,
            next_respread_ms: START_MS,
            followed: None,
            advert_count: 0,
            calm_since_ms: START_MS,
            is_calm_checked: false,
            attacker: (plan.attack != Attack::None)
                .then(|| Attacker::new(Rng::new(plan.seed, 1 << 54))),
            outcome: Outcome::default(),
        }
    }

    /// The same, with each packet of one client shown.
    pub(super) fn following(mut self, client: Option<usize>) -> Self {
        self.followed = client;
        self
    }

    fn machine(
        plan: &Plan,
        rules: &Rules,
        config: &Config,
        number: usize,
        now_ms: u64,
        rng: &mut Rng,
    ) -> Machine {
        let surroundings = &plan.surroundings;
        let write_ms = match number {
            0 => Surroundings::USUAL.write_ms,
            _ => surroundings.write_ms,
        };
        let build = Build {
            number,
            node_count: plan.node_count,
            set_count: surroundings.set_count,
            write_ms,
            urgent_wait_ms: surroundings.urgent_wait_ms,
            idle_timeout_s: plan.idle_timeout_s,
            patience_ms: plan.patience_ms,
            has_group: plan.way == Way::Vip,
            rules: rules.clone(),
        };
        let clock = Clock {
            offset_ms: rng.within(1_000, 10_000_000),
            drift_ppm: rng.within(0, 400) as i64 - 200,
        };
        let node_rng = Rng::new(rng.next(), 0);
        Machine {
            node: Node::new(build, clock, config, now_ms, node_rng),
            vrrp: None,
            is_powered: true,
            died_ms: None,
            stopped_until_ms: 0,
            waiting: Vec::new(),
            heard: BTreeMap::new(),
            config_known: 0,
            blind_until_ms: 0,
            is_announced: false,
        }
    }

    /// Runs the history, lets all become well, and looks whether it is.
    pub(super) fn run(mut self) -> Outcome {
        for number in 0..self.machines.len() {
            self.start_vrrp(number);
        }
        self.agenda.push(START_MS + TICK_MS, Due::Tick);
        for (number, event) in self.plan.events.iter().enumerate() {
            self.agenda
                .push(START_MS + event.at_ms, Due::Happens(number));
        }
        for client in 0..self.clients.len() {
            let wake_ms = CLIENTS_MS + self.clients[client].rng.below(5_000);
            let due = Due::Wakes {
                client: client as u32,
                timer: 0,
            };
            self.agenda.push(START_MS + wake_ms, due);
        }
        let end_ms = START_MS + self.plan.duration_ms;
        self.run_until(end_ms);
        self.heal();
        let idle_ms = u64::from(self.plan.idle_timeout_s) * 1_000;
        let patience_ms = self.plan.patience_ms;
        self.run_until(end_ms + REST_MS + 2 * idle_ms + patience_ms.min(40_000));
        // A ring may just be on its way.
        let write_max_ms = self.plan.surroundings.write_ms.1;
        for _ in 0..10 + 2 * write_max_ms / 100 {
            if (0..self.machines.len()).all(|number| self.behind(number).is_none()) {
                break;
            }
            self.run_until(self.now_ms + 100);
        }
        self.check();
        self.outcome
    }

    pub(super) fn manners(&self) -> Manners {
        Manners {
            idle_timeout_ms: u64::from(self.plan.idle_timeout_s) * 1_000,
            is_over: self.is_over,
        }
    }

    fn run_until(&mut self, end_ms: u64) {
        self.agenda.push(end_ms, Due::Over);
        while let Some((at_ms, due)) = self.agenda.pop() {
            self.now_ms = at_ms;
            match due {
                Due::Over => return,
                Due::Tick => self.tick(),
                Due::Happens(number) => self.happen(number),
                Due::Noticed(number) => self.notice(number),
                Due::Configured { node, change } => self.configure(node, change),
                Due::Wakes { client, timer } => self.wake(client, timer),
                Due::Arrives(sent) => self.arrive(&sent),
                Due::SynAck {
                    client,
                    incarnation,
                    backend,
                } => self.take_syn_ack(client, incarnation, backend),
                Due::Advert { to, packet } => self.take_advert(to, packet),
                Due::Probed { node, address } => self.take_probe(node, address),
                Due::Stream {
                    from,
                    to,
                    connection,
                } => self.land(from, to, connection),
                due => self.take_sync(due),
            }
        }
    }

    fn tick(&mut self) {
        for number in 0..self.machines.len() {
            self.tick_vrrp(number);
            self.tick_control(number);
        }
        self.connect();
        if self.now_ms >= self.next_heartbeat_ms {
            self.next_heartbeat_ms = self.now_ms + super::links::HEARTBEAT_MS;
            self.beat();
            self.announce_ready();
            self.check_calm();
            self.check_flows_everywhere();
        }
        self.respread();
        self.attack();
        self.count_active();
        self.agenda.push(self.now_ms + TICK_MS, Due::Tick);
    }

    /// A router that does so all the time spreads the flows anew.
    fn respread(&mut self) {
        let every_ms = self.plan.surroundings.respread_ms;
        if every_ms > 0 && self.now_ms >= self.next_respread_ms {
            self.next_respread_ms = self.now_ms + every_ms;
            self.spread = lb_common::hash::mix(self.now_ms);
        }
    }

    /// A node is announced to the router when it has caught up, or nobody else is there.
    fn announce_ready(&mut self) {
        for number in 0..self.machines.len() {
            if self.machines[number].is_announced || !self.machines[number].is_powered {
                continue;
            }
            let has_control = self.machines[number].node.control.is_some();
            let is_ready = has_control && self.behind(number).is_none();
            let mut others = self.machines.iter();
            let is_alone = !others.any(|one| one.is_announced && one.is_powered);
            let needs_none = !self.rules.has(super::rules::Rule::Barrier);
            self.machines[number].is_announced = is_ready || is_alone || needs_none;
        }
    }

    /// All is well again: what holds then.
    fn check(&mut self) {
        let at_ms = self.now_ms - START_MS;
        for group in 0..GROUP_COUNT {
            let active: Vec<usize> = self.active(group).collect();
            if active.len() != 1 {
                let text = format!("Active in group {group} are {active:?}");
                self.outcome.violate(at_ms, text);
            }
        }
        let rings: Vec<Vec<u16>> = self
            .machines
            .iter()
            .map(|machine| {
                let ring = machine.node.kernel.ring.iter();
                ring.map(|slot| slot.miss()).collect()
            })
            .collect();
        if rings.iter().any(|ring| *ring != rings[0]) {
            self.outcome
                .violate(at_ms, "the nodes' rings differ".to_owned());
        }
        for number in 0..self.machines.len() {
            let node = &mut self.machines[number].node;
            for text in node.take_violations() {
                self.outcome
                    .violate(at_ms, format!("node {number}: {text}"));
            }
            let node = &self.machines[number].node;
            self.outcome.write_count += node.write_count;
            let behind = node
                .control
                .as_ref()
                .map(|control| control.coordinator.behind());
            if behind != Some(None) {
                self.outcome
                    .violate(at_ms, format!("node {number} is behind: {behind:?}"));
            }
            let is_reached = node
                .control
                .as_ref()
                .is_some_and(|control| control.rings.machine.summary().moving_count == 0);
            if !is_reached {
                self.outcome
                    .violate(at_ms, format!("node {number}: slots still move"));
            }
        }
    }
}

//! The VRRP process of a node: the real virtual routers, one for each group, and what stands in for their driver.

use std::array;
use std::net::{IpAddr, Ipv4Addr};

use lb_userspace::vrrp::auth::Key;
use lb_userspace::vrrp::machine::Router;
use lb_userspace::vrrp::priority::Condition;
use lb_userspace::vrrp::protocol::{PeerFacts, State};
use lb_userspace::vrrp::router::{Input, Output, RouterConfig, Saved, Session};

use super::node::{GROUP_COUNT, group, name};
use crate::packet::VIP;
use crate::rng::Rng;

/// What is to be done for the routers of a process, by group.
pub(super) type Outputs = [Vec<Output>; GROUP_COUNT];

/// The process.
pub(super) struct Process {
    /// By group.
    pub(super) routers: [Router; GROUP_COUNT],
    /// What others know of them.
    pub(super) states: [State; GROUP_COUNT],
    /// It does not run until then, in the world's time. Unit: milliseconds.
    pub(super) stopped_until_ms: u64,
    /// What came in meanwhile.
    pub(super) waiting: Vec<Packet>,
}

/// A packet of VRRP.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) from: usize,
    pub(super) destination: IpAddr,
    pub(super) payload: Vec<u8>,
    /// Counts what is sent, whoever sends it.
    pub(super) number: u64,
}

/// The priority of a node's condition in a group.
pub(super) const fn priority(number: usize, group: usize) -> u8 {
    let steps = 20 * number as u8;
    if group == 0 { 200 - steps } else { 100 + steps }
}

/// A node's address in the clients' network.
pub(super) const fn address(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1 + number as u8))
}

fn config(number: usize, group_number: usize, interval_cs: u16) -> RouterConfig {
    let (group, family) = group(group_number);
    RouterConfig {
        node: name(number),
        group,
        family,
        vrid: 51 + group_number as u8,
        vips: vec![IpAddr::V4(Ipv4Addr::from_bits(VIP + group_number as u32))],
        priority: priority(number, group_number),
        interval_cs,
        preempt: true,
        preempt_delay_ms: 0,
        peers: Vec::new(),
        source: address(number),
        key: Some(Key::new([7; 32])),
    }
}

impl Process {
    pub(super) fn new(number: usize, interval_cs: u16, rng: &mut Rng, now_us: u64) -> Self {
        let router = |group| {
            let mut seed = [0; 32];
            for bytes in seed.chunks_mut(8) {
                bytes.copy_from_slice(&rng.next().to_le_bytes());
            }
            let session = Session {
                id: rng.next(),
                seed,
            };
            Router::new(config(number, group, interval_cs), session, now_us)
        };
        Self {
            routers: array::from_fn(router),
            states: [State::Initialize; GROUP_COUNT],
            stopped_until_ms: 0,
            waiting: Vec::new(),
        }
    }

    /// Takes part from now on.
    pub(super) fn begin(&mut self, number: usize, now_us: u64, out: &mut Outputs) {
        self.tell_condition(number, now_us, None, out);
        self.handle(now_us, Input::Startup, out);
    }

    /// Takes the place of a process that was killed, whose routers were so.
    pub(super) fn resume(
        &mut self,
        number: usize,
        states: [State; GROUP_COUNT],
        now_us: u64,
        out: &mut Outputs,
    ) {
        self.tell_condition(number, now_us, None, out);
        for ((router, state), out) in self.routers.iter_mut().zip(states).zip(out) {
            let saved = Saved {
                state,
                yields: false,
            };
            router.resume(now_us, saved, 1_000, out);
        }
        self.states = self.routers.each_ref().map(Router::state);
    }

    pub(super) fn is_running(&self, now_ms: u64) -> bool {
        now_ms >= self.stopped_until_ms
    }

    /// When the first router has something to do. Unit: microseconds.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.routers.iter().filter_map(Router::deadline).min()
    }

    /// The same happens to all routers.
    pub(super) fn handle(&mut self, now_us: u64, input: Input<'_>, out: &mut Outputs) {
        for (router, out) in self.routers.iter_mut().zip(out) {
            router.handle(now_us, input, out);
        }
    }

    /// Whether the node is well, or what is not.
    pub(super) fn tell_condition(
        &mut self,
        number: usize,
        now_us: u64,
        fault: Option<&str>,
        out: &mut Outputs,
    ) {
        for (group, (router, out)) in self.routers.iter_mut().zip(out).enumerate() {
            let mut condition = Condition::well(priority(number, group));
            if let Some(fault) = fault {
                condition.faults.push(fault.to_owned());
                condition.priority = 0;
            }
            router.handle(now_us, Input::Condition(&condition), out);
        }
    }

    pub(super) fn tell(
        &mut self,
        now_us: u64,
        facts: &[PeerFacts],
        behind: Option<&str>,
        out: &mut Outputs,
    ) {
        self.handle(now_us, Input::Behind(behind), out);
        self.handle(now_us, Input::PeerFacts(facts), out);
    }
}

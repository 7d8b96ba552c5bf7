//! The VRRP process of a node: the real virtual router, and what stands in for its driver.

use std::net::{IpAddr, Ipv4Addr};

use lb_userspace::vrrp::auth::Key;
use lb_userspace::vrrp::machine::Router;
use lb_userspace::vrrp::priority::Condition;
use lb_userspace::vrrp::protocol::{Family, PeerFacts, State};
use lb_userspace::vrrp::router::{Input, Output, RouterConfig, Saved, Session};

use super::node::{group, name};
use crate::packet::VIP;
use crate::rng::Rng;

/// The process.
pub(super) struct Process {
    pub(super) router: Router,
    pub(super) state: State,
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

/// The priority of a node's condition.
pub(super) const fn priority(number: usize) -> u8 {
    200 - 20 * number as u8
}

/// A node's address in the clients' network.
pub(super) const fn address(number: usize) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1 + number as u8))
}

fn config(number: usize, interval_cs: u16) -> RouterConfig {
    RouterConfig {
        node: name(number),
        group: group().0,
        family: Family::Ipv4,
        vrid: 51,
        vips: vec![IpAddr::V4(Ipv4Addr::from_bits(VIP))],
        priority: priority(number),
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
        let mut seed = [0; 32];
        for bytes in seed.chunks_mut(8) {
            bytes.copy_from_slice(&rng.next().to_le_bytes());
        }
        let session = Session {
            id: rng.next(),
            seed,
        };
        Self {
            router: Router::new(config(number, interval_cs), session, now_us),
            state: State::Initialize,
            stopped_until_ms: 0,
            waiting: Vec::new(),
        }
    }

    /// Takes part from now on.
    pub(super) fn begin(&mut self, number: usize, now_us: u64, out: &mut Vec<Output>) {
        let well = Condition::well(priority(number));
        self.router.handle(now_us, Input::Condition(&well), out);
        self.router.handle(now_us, Input::Startup, out);
    }

    /// Takes the place of a process that was killed.
    pub(super) fn resume(
        &mut self,
        number: usize,
        state: State,
        now_us: u64,
        out: &mut Vec<Output>,
    ) {
        let well = Condition::well(priority(number));
        self.router.handle(now_us, Input::Condition(&well), out);
        let saved = Saved {
            state,
            yields: false,
        };
        self.router.resume(now_us, saved, 1_000, out);
    }

    pub(super) fn is_running(&self, now_ms: u64) -> bool {
        now_ms >= self.stopped_until_ms
    }

    pub(super) fn tell(
        &mut self,
        now_us: u64,
        facts: &[PeerFacts],
        behind: Option<&str>,
        out: &mut Vec<Output>,
    ) {
        self.router.handle(now_us, Input::Behind(behind), out);
        self.router.handle(now_us, Input::PeerFacts(facts), out);
    }
}

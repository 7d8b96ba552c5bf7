//! One router under test, and what it says.

use std::net::IpAddr;

use super::Router;
use crate::vrrp::auth::Key;
use crate::vrrp::packet::{Ipv4Checksum, Packet, PacketType, Path, parse, seal};
use crate::vrrp::priority::{Condition, Unwell};
use crate::vrrp::protocol::{Family, PeerFacts, PeerRouter, State};
use crate::vrrp::router::{Input, MULTICAST_IPV4, Output, RouterConfig, Session};

/// Unit: microseconds.
pub(super) const SECOND: u64 = 1_000_000;
pub(super) const MS: u64 = 1_000;
/// The moment at which routers are made.
pub(super) const START: u64 = 1_000 * SECOND;
pub(super) const KEY: Key = Key::new([9; 32]);

pub(super) fn ip(last: u8) -> IpAddr {
    IpAddr::from([10, 0, 0, last])
}

pub(super) fn vip() -> IpAddr {
    IpAddr::from([203, 0, 113, 10])
}

/// A router at 10.0.0.`last`, with an interval of one second.
pub(super) fn config(last: u8, priority: u8) -> RouterConfig {
    RouterConfig {
        node: format!("lb{last}"),
        group: "web".to_owned(),
        family: Family::Ipv4,
        vrid: 51,
        vips: vec![vip()],
        priority,
        interval_cs: 100,
        preempt: true,
        preempt_delay_ms: 0,
        peers: Vec::new(),
        source: ip(last),
        key: None,
    }
}

pub(super) fn session(number: u64) -> Session {
    Session {
        id: number,
        seed: [number as u8; 32],
    }
}

/// A router and its clock.
pub(super) struct Bench {
    pub(super) router: Router,
    pub(super) now: u64,
}

impl Bench {
    pub(super) fn new(config: RouterConfig) -> Self {
        let number = match config.source {
            IpAddr::V4(source) => u64::from(source.octets()[3]),
            IpAddr::V6(_) => 99,
        };
        Self {
            router: Router::new(config, session(number), START),
            now: START,
        }
    }

    pub(super) fn backup(config: RouterConfig) -> Self {
        let mut bench = Self::new(config);
        bench.tell(Input::Startup);
        assert_eq!(bench.router.state(), State::Backup);
        bench
    }

    pub(super) fn active(config: RouterConfig) -> Self {
        let mut bench = Self::backup(config);
        bench.run_until_active();
        bench
    }

    pub(super) fn run_until_active(&mut self) {
        let limit = self.now + 60 * SECOND;
        while self.router.state() != State::Active {
            let out = self.next();
            assert!(self.now < limit, "never Active: {out:?}");
        }
    }

    pub(super) fn tell(&mut self, input: Input<'_>) -> Vec<Output> {
        let mut out = Vec::new();
        self.router.handle(self.now, input, &mut out);
        out
    }

    /// To the next deadline.
    pub(super) fn next(&mut self) -> Vec<Output> {
        self.now = self.router.deadline().expect("a deadline").max(self.now);
        self.tell(Input::Timer)
    }

    /// All that happens by itself until then.
    pub(super) fn run_to(&mut self, at: u64) -> Vec<Output> {
        let mut out = Vec::new();
        while self
            .router
            .deadline()
            .is_some_and(|deadline| deadline <= at)
        {
            out.extend(self.next());
        }
        self.now = at;
        out
    }

    pub(super) fn run_for(&mut self, us: u64) -> Vec<Output> {
        self.run_to(self.now + us)
    }

    /// A plain advertisement comes in.
    pub(super) fn hear(&mut self, from: u8, priority: u8) -> Vec<Output> {
        self.hear_with(from, priority, 100)
    }

    pub(super) fn hear_with(&mut self, from: u8, priority: u8, interval_cs: u16) -> Vec<Output> {
        let payload = advertisement(from, priority, interval_cs);
        self.receive(from, &payload)
    }

    pub(super) fn receive(&mut self, from: u8, payload: &[u8]) -> Vec<Output> {
        self.tell(Input::Received {
            source: ip(from),
            destination: MULTICAST_IPV4.into(),
            hop_limit: 255,
            payload,
        })
    }

    /// Heard over the sync link just now, with heartbeats every 100 ms.
    pub(super) fn news(&mut self, words: &[(u8, State, u8, bool)]) -> Vec<Output> {
        let facts: Vec<PeerFacts> = words.iter().map(|word| facts(*word, 0)).collect();
        self.tell(Input::PeerFacts(&facts))
    }

    pub(super) fn fault(&mut self) -> Vec<Output> {
        let unwell = Unwell {
            what: "eth0 is down".to_owned(),
            weight: None,
        };
        let priority = self.router.config().priority;
        let condition = Condition::of(priority, [unwell]);
        self.tell(Input::Condition(&condition))
    }
}

/// What node `last` says of its router.
pub(super) fn facts(
    (last, state, priority, is_fit): (u8, State, u8, bool),
    heard_ms: u64,
) -> PeerFacts {
    PeerFacts {
        node: format!("lb{last}"),
        heard_ms,
        heartbeat_ms: 100,
        routers: vec![PeerRouter {
            group: "web".to_owned(),
            family: Family::Ipv4,
            state,
            priority,
            is_fit,
        }],
    }
}

pub(super) fn advertisement(from: u8, priority: u8, interval_cs: u16) -> Vec<u8> {
    let packet = Packet {
        packet_type: PacketType::Advertisement,
        vrid: 51,
        priority,
        interval_cs,
        addresses: vec![vip()],
    };
    let mut payload = packet.emit();
    seal(path(from), Ipv4Checksum::PseudoHeader, &mut payload);
    payload
}

fn path(from: u8) -> Path {
    Path {
        source: ip(from),
        destination: MULTICAST_IPV4.into(),
    }
}

/// The priorities of the advertisements that are sent.
pub(super) fn adverts(from: u8, out: &[Output]) -> Vec<u8> {
    let packets = out.iter().filter_map(|output| match output {
        Output::Send { payload, .. } => Some(parse(path(from), 255, payload).unwrap().packet),
        _ => None,
    });
    packets
        .filter(|packet| packet.packet_type == PacketType::Advertisement)
        .map(|packet| packet.priority)
        .collect()
}

pub(super) fn adds_vips(out: &[Output]) -> bool {
    out.contains(&Output::AddVips(vec![vip()]))
}

pub(super) fn removes_vips(out: &[Output]) -> bool {
    out.contains(&Output::RemoveVips(vec![vip()]))
}

pub(super) fn announcements(out: &[Output]) -> usize {
    let announces = |output: &&Output| **output == Output::Announce(vec![vip()]);
    out.iter().filter(announces).count()
}

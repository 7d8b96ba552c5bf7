//! What anybody may send to a virtual router: advertisements, and what looks like them, over both families. They go
//! the way that `lbd-vrrp` lets them go: those of other virtual routers are left out, and the machine parses and
//! authenticates the others.
//!
//! - [`authenticated`]: to a router that believes only those who have the secret.
//! - [`open`]: to one that believes everybody.

mod authenticated;
mod open;
mod voice;

use std::net::IpAddr;

use anyhow::Result;
use lb_userspace::vrrp::auth::Key;
use lb_userspace::vrrp::machine::Router;
use lb_userspace::vrrp::packet::{Ipv4Checksum, Path, Refusal, seal, vrid_of};
use lb_userspace::vrrp::protocol::Family;
use lb_userspace::vrrp::router::{
    Input, MULTICAST_IPV4, MULTICAST_IPV6, Output, RouterConfig, Session,
};

use crate::Tally;
use crate::rng::Rng;

/// The virtual router under attack.
const VRID: u8 = 51;
/// Between two messages, at most, by scene: a flood, or as many intervals as one needs to do harm. Unit: microseconds.
const STEPS_MAX_US: [usize; 3] = [50, 300, 2_000];
/// When a scene begins. Unit: microseconds.
const START_US: u64 = 1_000_000_000;

/// Sends so many packets: two thirds to routers that authenticate.
pub(crate) fn attack(rng: &mut Rng, messages: u64) -> Result<Tally> {
    let mut tally = Tally::default();
    authenticated::attack(rng, messages * 2 / 3, &mut tally)?;
    open::attack(rng, messages - messages * 2 / 3, &mut tally)?;
    Ok(tally)
}

/// A packet of IP protocol 112, as the socket gives it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Advert {
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
    payload: Vec<u8>,
}

impl Advert {
    fn path(&self) -> Path {
        Path {
            source: self.source,
            destination: self.destination,
        }
    }

    /// With a right checksum, whatever else is wrong.
    fn sealed(mut self, rng: &mut Rng) -> Self {
        let forms = [Ipv4Checksum::PseudoHeader, Ipv4Checksum::MessageAlone];
        seal(self.path(), forms[rng.below(2)], &mut self.payload);
        self
    }

    /// Hands it to a router as `lbd-vrrp` does (`Driver::take_packets`); `None`: it is of another virtual router.
    fn feed(&self, router: &mut Router, now_us: u64) -> Option<Vec<Output>> {
        if vrid_of(&self.payload) != Some(VRID) {
            return None;
        }
        let mut out = Vec::new();
        let input = Input::Received {
            source: self.source,
            destination: self.destination,
            hop_limit: self.hop_limit,
            payload: &self.payload,
        };
        router.handle(now_us, input, &mut out);
        Some(out)
    }
}

/// Why a packet was refused; what it quotes of its checksum is left out.
fn reason(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Checksum(_) => "wrong checksum".to_owned(),
        other => other.to_string(),
    }
}

/// What is due is done, as `lbd-vrrp` does it; `None`: it never ends.
fn fire(router: &mut Router, now_us: u64) -> Option<Vec<Output>> {
    let mut out = Vec::new();
    for _ in 0..8 {
        if router.deadline().is_none_or(|at_us| at_us > now_us) {
            return Some(out);
        }
        router.handle(now_us, Input::Timer, &mut out);
    }
    None
}

fn tell(router: &mut Router, now_us: u64, input: Input<'_>) -> Vec<Output> {
    let mut out = Vec::new();
    router.handle(now_us, input, &mut out);
    out
}

/// What is said, as packets.
fn sent(out: &[Output], source: IpAddr) -> impl Iterator<Item = Advert> {
    out.iter().filter_map(move |output| match output {
        Output::Send { to, payload } => Some(Advert {
            source,
            destination: *to,
            hop_limit: 255,
            payload: payload.clone(),
        }),
        _ => None,
    })
}

/// A node's address.
fn host(family: Family, number: u8) -> IpAddr {
    match family {
        Family::Ipv4 => IpAddr::from([10, 0, 0, number]),
        Family::Ipv6 => IpAddr::from([0xfe80, 0, 0, 0, 0, 0, 0, u16::from(number)]),
    }
}

fn multicast(family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => MULTICAST_IPV4.into(),
        Family::Ipv6 => MULTICAST_IPV6.into(),
    }
}

fn vips(family: Family) -> Vec<IpAddr> {
    match family {
        Family::Ipv4 => vec![[203, 0, 113, 10].into(), [203, 0, 113, 11].into()],
        Family::Ipv6 => vec![
            [0xfe80, 0, 0, 0, 0, 0, 0, 0x100].into(),
            [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10].into(),
        ],
    }
}

/// A router of the group, as it may be configured.
fn config(rng: &mut Rng, family: Family, number: u8, key: Option<Key>) -> RouterConfig {
    RouterConfig {
        node: format!("lb{number}"),
        group: "web".to_owned(),
        family,
        vrid: VRID,
        vips: vips(family),
        priority: [50, 100, 150, 200, 254][rng.below(5)],
        interval_cs: [1, 10, 100][rng.below(3)],
        preempt: rng.below(4) > 0,
        preempt_delay_ms: [0, 0, 500][rng.below(3)],
        peers: Vec::new(),
        source: host(family, number),
        key,
    }
}

fn session(rng: &mut Rng) -> Session {
    let mut seed = [0; 32];
    seed.copy_from_slice(&rng.bytes(32));
    Session {
        id: rng.next(),
        seed,
    }
}

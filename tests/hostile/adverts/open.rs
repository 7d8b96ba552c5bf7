//! To a router that believes everybody: what is malformed is refused with its reason and changes nothing; what is well
//! formed may make it Active or Backup, as in any group without authentication, but neither makes it grow nor say more
//! than it should, and when it is over, the group is as it was.

use anyhow::{Context, Result, ensure};
use lb_userspace::vrrp::auth::Key;
use lb_userspace::vrrp::machine::{ANSWER_SPACING_US, Router};
use lb_userspace::vrrp::packet::{Packet, PacketType, parse};
use lb_userspace::vrrp::protocol::{Family, State};
use lb_userspace::vrrp::router::{Claim, Input, Output};

use super::voice::Voice;
use super::{
    Advert, START_US, STEPS_MAX_US, VRID, config, fire, host, multicast, sent, session, tell, vips,
};
use crate::Tally;
use crate::rng::Rng;

/// Messages to one pair of routers.
const SCENE_MESSAGES: u64 = 5_000;
/// Besides two packets to each destination, the first advertisement and an answer that is due just then: what a takeover,
/// or its end, comes to.
const OUTPUTS_MAX: usize = 6;
/// A router with the longest list of strangers' VIPs, in words. Unit: bytes.
const ROUTER_TEXT_MAX: usize = 40_000;
/// Three of the longest intervals that there are, and more: whom the attacker has named is forgotten. Unit:
/// microseconds.
const CALM_US: u64 = 200_000_000;
/// A complaint about other VIPs, or about one who authenticates, comes no more often. Unit: microseconds.
const COMPLAINT_US: u64 = 2_000_000;
/// A conflict of two Actives ends after two of the shortest intervals without a sign of it, or when this one is Active no
/// more. Unit: microseconds.
const CONFLICT_US: u64 = 20_000;
/// Claims by ARP or neighbour discovery that are answered at once, and after so long once more (RFC 5227). Unit:
/// microseconds.
const DEFENCES: u64 = 6;
const DEFEND_US: u64 = 10_000_000;

/// Sends so many packets.
pub(super) fn attack(rng: &mut Rng, messages: u64, tally: &mut Tally) -> Result<()> {
    let end = tally.hostile + messages;
    while tally.hostile < end {
        let family = [Family::Ipv4, Family::Ipv6][rng.below(2)];
        let mut scene = Scene::new(rng, family);
        let scene_end = end.min(tally.hostile + SCENE_MESSAGES);
        while tally.hostile < scene_end {
            scene
                .step(rng, tally)
                .with_context(|| format!("{family:?}"))?;
        }
        scene.check_sums()?;
        scene.calm_down(tally)?;
    }
    Ok(())
}

/// What strangers pretend to be: anything, one that resigns, one that leaves the VIPs to others, one that does not, and
/// one that comes and goes.
const PRIORITIES: [&[u8]; 5] = [
    &[0, 1, 40, 120, 180, 255],
    &[0],
    &[1, 40],
    &[255],
    &[0, 255],
];

/// What the router has said and done.
#[derive(Debug, Default)]
struct Sums {
    packets: u64,
    takeovers: u64,
    losses: u64,
    conflicts: u64,
    differences: u64,
    complaints: u64,
    disputes: u64,
}

/// A router, its peer, and who else is on the link.
struct Scene {
    family: Family,
    victim: Router,
    peer: Router,
    signed: Voice,
    /// The priorities that strangers pretend to have.
    priorities: &'static [u8],
    step_max_us: usize,
    now_us: u64,
    sums: Sums,
    to_victim: Vec<Advert>,
    to_peer: Vec<Advert>,
}

impl Scene {
    fn new(rng: &mut Rng, family: Family) -> Self {
        let mut of_peer = config(rng, family, 1, None);
        let mut of_victim = config(rng, family, 2, None);
        of_victim.interval_cs = of_peer.interval_cs;
        if rng.below(4) == 0 {
            // Everybody's address, for some.
            of_peer.peers = (2..6).map(|number| host(family, number)).collect();
            of_victim.peers = [1, 3, 4, 5].map(|number| host(family, number)).to_vec();
        }
        let of_signed = config(rng, family, 3, Some(Key::new([9; 32])));
        let mut scene = Self {
            family,
            victim: Router::new(of_victim, session(rng), START_US),
            peer: Router::new(of_peer, session(rng), START_US),
            signed: Voice::new(of_signed, session(rng)),
            priorities: PRIORITIES[rng.below(PRIORITIES.len())],
            step_max_us: STEPS_MAX_US[rng.below(STEPS_MAX_US.len())],
            now_us: START_US,
            sums: Sums::default(),
            to_victim: Vec::new(),
            to_peer: Vec::new(),
        };
        for router in [&mut scene.victim, &mut scene.peer] {
            tell(router, START_US, Input::Startup);
        }
        scene
    }

    fn step(&mut self, rng: &mut Rng, tally: &mut Tally) -> Result<()> {
        self.now_us += 1 + rng.below(self.step_max_us) as u64;
        self.carry(tally)?;
        match rng.below(16) {
            0 => self.claim(rng, tally)?,
            1..6 => self.send_malformed(rng, tally)?,
            _ => self.send_nonsense(rng, tally)?,
        }
        self.pass_time()
    }

    /// What the two say to each other.
    fn carry(&mut self, tally: &mut Tally) -> Result<()> {
        for advert in std::mem::take(&mut self.to_peer) {
            let out = advert.feed(&mut self.peer, self.now_us).unwrap_or_default();
            self.note_peer(&out);
        }
        for advert in std::mem::take(&mut self.to_victim) {
            let out = advert.feed(&mut self.victim, self.now_us);
            let out = out.context("of another router")?;
            let is_taken = !out
                .iter()
                .any(|output| matches!(output, Output::Refused { .. }));
            ensure!(is_taken, "a genuine packet was refused: {out:?}");
            tally.genuine += 1;
            self.note_victim(&out)?;
        }
        Ok(())
    }

    fn pass_time(&mut self) -> Result<()> {
        let out = fire(&mut self.peer, self.now_us).context("the peer's timer")?;
        self.note_peer(&out);
        let out = fire(&mut self.victim, self.now_us).context("a timer without end")?;
        self.note_victim(&out)
    }

    fn note_peer(&mut self, out: &[Output]) {
        let said = sent(out, self.peer.config().source);
        let to_victim = said.filter(|advert| is_for(advert, self.victim.config().source));
        self.to_victim.extend(to_victim);
    }

    fn note_victim(&mut self, out: &[Output]) -> Result<()> {
        let config = self.victim.config();
        let destination_count = config.destinations().len();
        ensure!(
            out.len() <= OUTPUTS_MAX + 2 * destination_count,
            "{} outputs at once: {out:?}",
            out.len()
        );
        let said = sent(out, config.source);
        let to_peer = said.filter(|advert| is_for(advert, self.peer.config().source));
        self.to_peer.extend(to_peer);
        let sums = &mut self.sums;
        let mut packets = 0;
        for output in out {
            match output {
                Output::Send { .. } => packets += 1,
                Output::Changed { to, .. } => match to {
                    State::Active => sums.takeovers += 1,
                    State::Backup | State::Initialize => sums.losses += 1,
                },
                Output::Conflict { .. } => sums.conflicts += 1,
                Output::AddressesDiffer { .. } => sums.differences += 1,
                Output::Distrusted { .. } => sums.complaints += 1,
                Output::Disputed(_) => sums.disputes += 1,
                _ => {}
            }
        }
        sums.packets += packets / destination_count as u64;
        Ok(())
    }

    /// Nobody but the router itself decides how much it says.
    fn check_sums(&self) -> Result<()> {
        let elapsed_us = self.now_us - START_US;
        let sums = &self.sums;
        let regular = elapsed_us / self.victim.config().interval_us();
        let limits = [
            (
                "packets",
                sums.packets,
                regular + elapsed_us / ANSWER_SPACING_US + sums.takeovers + 2,
            ),
            (
                "conflicts",
                sums.conflicts,
                sums.takeovers + sums.losses + elapsed_us / CONFLICT_US + 1,
            ),
            (
                "lists of other VIPs",
                sums.differences,
                1 + elapsed_us / COMPLAINT_US,
            ),
            ("complaints", sums.complaints, 1 + elapsed_us / COMPLAINT_US),
            (
                "disputes",
                sums.disputes,
                DEFENCES + elapsed_us / DEFEND_US + 1,
            ),
        ];
        for (what, count, max) in limits {
            ensure!(
                count <= max,
                "{count} {what} in {elapsed_us} us, {max} at most: {sums:?}"
            );
        }
        let text_bytes = format!("{:?}", self.victim).len();
        ensure!(
            text_bytes <= ROUTER_TEXT_MAX,
            "the router has grown to {text_bytes} bytes"
        );
        Ok(())
    }

    /// The attacker is gone, and the two agree again.
    fn calm_down(&mut self, tally: &mut Tally) -> Result<()> {
        let end_us = self.now_us + CALM_US;
        while self.now_us < end_us {
            self.carry(tally)?;
            self.pass_time()?;
            let deadlines = [self.victim.deadline(), self.peer.deadline()];
            let next_us = deadlines.into_iter().flatten().min();
            let has_mail = !self.to_peer.is_empty() || !self.to_victim.is_empty();
            let next_us = next_us.filter(|_| !has_mail).unwrap_or(0);
            self.now_us = next_us.max(self.now_us + 100).min(end_us);
        }
        let states = [self.victim.state(), self.peer.state()];
        let is_one_active = states[0] != states[1] && states.contains(&State::Active);
        ensure!(is_one_active, "after the attack they are {states:?}");
        Ok(())
    }

    /// Somebody claims a VIP by ARP or neighbour discovery.
    fn claim(&mut self, rng: &mut Rng, tally: &mut Tally) -> Result<()> {
        let all = vips(self.family);
        let claim = Claim {
            vip: all[rng.below(all.len())],
            by: [2, 0, 0, 0, 0, rng.next() as u8],
        };
        let out = tell(&mut self.victim, self.now_us, Input::Disputed(claim));
        ensure!(out.is_empty(), "a claim is answered at once: {out:?}");
        tally.refuse("(a claim to a VIP)");
        Ok(())
    }

    fn send_malformed(&mut self, rng: &mut Rng, tally: &mut Tally) -> Result<()> {
        let advert = self.malformed(rng);
        let (state, deadline) = (self.victim.state(), self.victim.deadline());
        let Some(out) = advert.feed(&mut self.victim, self.now_us) else {
            tally.refuse("(of another virtual router)");
            return Ok(());
        };
        let [Output::Refused { reason, .. }] = out.as_slice() else {
            anyhow::bail!("{advert:02x?} is malformed, and was taken: {out:?}");
        };
        let is_same = (self.victim.state(), self.victim.deadline()) == (state, deadline);
        ensure!(
            is_same,
            "{advert:02x?} was refused, and has moved the router"
        );
        tally.refuse(super::reason(reason));
        Ok(())
    }

    /// What cannot be an advertisement, each for a reason of its own.
    fn malformed(&self, rng: &mut Rng) -> Advert {
        let mut advert = self.well_formed(rng);
        if advert.source == self.victim.config().source {
            advert.source = self.peer.config().source;
        }
        let mut advert = advert.sealed(rng);
        let len = advert.payload.len();
        match rng.below(9) {
            0 => {
                advert.hop_limit = rng.below(255) as u8;
                return advert;
            }
            1 => {
                // One bit, which no checksum overlooks.
                let bit = rng.below(len * 8);
                advert.payload[bit / 8] ^= 1 << (bit % 8);
                return advert;
            }
            2 => advert.payload.truncate(rng.below(8)),
            3 => {
                // A list that is shorter than its count.
                let listed = usize::from(advert.payload[3]);
                advert.payload[3] = listed.saturating_add(1).min(255) as u8;
                let cut = usize::from(listed == 255);
                advert.payload.truncate(len - cut);
            }
            4 => {
                let more = 1 + rng.below(100);
                advert.payload.extend(rng.bytes(more));
                advert.payload[len] = b'X';
            }
            5 => advert.payload[0] = ((rng.below(15) as u8 + 4) % 16) << 4 | 1,
            6 => advert.payload[0] = 0x30 | ((rng.below(15) as u8 + 2) % 16),
            7 => advert.payload[4..6].copy_from_slice(&[0xf0 & rng.next() as u8, 0]),
            _ => {
                let other = match self.family {
                    Family::Ipv4 => Family::Ipv6,
                    Family::Ipv6 => Family::Ipv4,
                };
                advert.destination = multicast(other);
                return advert;
            }
        }
        advert.sealed(rng)
    }

    fn send_nonsense(&mut self, rng: &mut Rng, tally: &mut Tally) -> Result<()> {
        let advert = self.nonsense(rng);
        let parsed = parse(advert.path(), advert.hop_limit, &advert.payload);
        let Some(out) = advert.feed(&mut self.victim, self.now_us) else {
            tally.refuse("(of another virtual router)");
            return Ok(());
        };
        let refusal = out.iter().find_map(|output| match output {
            Output::Refused { reason, .. } => Some(*reason),
            _ => None,
        });
        let is_own = advert.source == self.victim.config().source;
        if parsed.is_err() && !is_own {
            ensure!(
                refusal.is_some() && out.len() == 1,
                "{advert:02x?} was taken: {out:?}"
            );
        }
        self.note_victim(&out)?;
        tally.refuse(match refusal {
            Some(refusal) => super::reason(&refusal),
            None if is_own => "(this router's own address)".to_owned(),
            None => "(well formed: in a group without authentication, it counts)".to_owned(),
        });
        Ok(())
    }

    fn nonsense(&mut self, rng: &mut Rng) -> Advert {
        let voice = (rng.below(12) == 0).then(|| self.signed.next()).flatten();
        let mut advert = voice.unwrap_or_else(|| self.well_formed(rng));
        match rng.below(12) {
            0 => {
                // What looks like a trailer.
                advert.payload.extend(b"LBVR");
                let more = rng.below(200);
                advert.payload.extend(rng.bytes(more));
            }
            1 => rng.spoil(&mut advert.payload),
            2 => advert.payload[0] = 0x3f,
            _ => {}
        }
        if let Some(vrid) = advert.payload.get_mut(1) {
            *vrid = VRID;
        }
        advert.sealed(rng)
    }

    /// An advertisement of anybody, of any priority, at any interval, with any VIPs.
    fn well_formed(&self, rng: &mut Rng) -> Advert {
        let number = [1, 1, 3, 4, 5, 2, rng.below(256) as u8][rng.below(7)];
        let addresses = match rng.below(6) {
            0 => (0..rng.below(256))
                .map(|_| host(self.family, rng.next() as u8))
                .collect(),
            1 => (0..rng.below(3))
                .map(|_| host(self.family, rng.next() as u8))
                .collect(),
            2 => vips(self.family).into_iter().take(1).collect(),
            _ => vips(self.family),
        };
        let packet = Packet {
            packet_type: PacketType::Advertisement,
            vrid: VRID,
            priority: self.priorities[rng.below(self.priorities.len())],
            interval_cs: [1, 10, 100, 4095, 1 + rng.below(4095) as u16][rng.below(5)],
            addresses,
        };
        let is_from_peer = !self.victim.config().peers.is_empty();
        Advert {
            // Whoever is not a configured peer is refused: most pretend to be one.
            source: host(
                self.family,
                if is_from_peer && number > 5 {
                    3
                } else {
                    number
                },
            ),
            destination: multicast(self.family),
            hop_limit: 255,
            payload: packet.emit(),
        }
    }
}

/// Whether it reaches this node.
fn is_for(advert: &Advert, address: std::net::IpAddr) -> bool {
    advert.destination.is_multicast() || advert.destination == address
}

//! To a router that believes only those who have the secret.
//!
//! A twin of it hears the genuine packets alone. What an attacker sends may be refused and told, and nothing else: the
//! two are the same at every moment. Where recordings of former processes are sent, which are authentic, the router
//! asks who that is: what it says differs then, and nothing that it does.

mod draw;

use std::collections::VecDeque;

use anyhow::{Context, Result, bail, ensure};
use lb_userspace::vrrp::auth::Key;
use lb_userspace::vrrp::machine::{ANSWER_SPACING_US, Router};
use lb_userspace::vrrp::packet::Refusal;
use lb_userspace::vrrp::priority::{Condition, Unwell};
use lb_userspace::vrrp::protocol::{Family, RouterStatus};
use lb_userspace::vrrp::router::{Input, Output, RouterConfig};

use self::draw::Attack;
use super::voice::Voice;
use super::{Advert, START_US, STEPS_MAX_US, VRID, config, fire, sent, session, tell};
use crate::Tally;
use crate::rng::Rng;

/// The secret.
const KEY: Key = Key::new([9; 32]);
/// Another cluster's.
const OTHER_KEY: Key = Key::new([8; 32]);
/// Messages to one pair of routers.
const SCENE_MESSAGES: u64 = 5_000;
/// Packets that the attacker keeps of each kind.
const KEPT: usize = 256;
/// Something happens to the routers once in so many steps.
const EVENT_EVERY: usize = 500;
/// One genuine packet in so many gets lost, and one is held back.
const FATE_EVERY: usize = 16;
/// All that is compared of the two is compared once in so many steps, too, in which nothing genuine has come.
const COMPARE_EVERY: usize = 16;
/// A complaint about who is not believed comes no more often: each episode ends by so much silence. Unit:
/// microseconds.
const COMPLAINT_US: u64 = 2_000_000;

const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];
/// Processes of which there are recordings from the beginning: more than a router remembers.
const FORMER_PROCESSES: usize = 64;
/// A router that knows as many processes as it may, in words. Unit: bytes.
const ROUTER_TEXT_MAX: usize = 10_000;
/// What comes of an event besides answers: a takeover, or requests to hand over, of both.
const EVENT_PACKETS: u64 = 20;

/// What the attacker may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Means {
    /// Whatever is made without the secret, and what has arrived since both processes began.
    Own,
    /// Recordings of former processes as well.
    Recordings,
}

/// Sends so many packets.
pub(super) fn attack(rng: &mut Rng, messages: u64, tally: &mut Tally) -> Result<()> {
    let end = tally.hostile + messages;
    let mut recordings = FAMILIES.map(|family| of_former_processes(rng, family));
    while tally.hostile < end {
        let scene_end = end.min(tally.hostile + SCENE_MESSAGES);
        let number = rng.below(2);
        let family = FAMILIES[number];
        let kept = &mut recordings[number];
        let means = [Means::Own, Means::Recordings][rng.below(2)];
        let mut scene = Scene::new(rng, family, means, std::mem::take(kept));
        while tally.hostile < scene_end {
            scene
                .step(rng, tally)
                .with_context(|| format!("{family:?}, {means:?}"))?;
        }
        scene.check_size()?;
        *kept = scene.into_recordings();
    }
    Ok(())
}

/// What many processes of the peer have said once, which were Active.
fn of_former_processes(rng: &mut Rng, family: Family) -> Vec<Advert> {
    let mut recordings = Vec::new();
    for _ in 0..FORMER_PROCESSES {
        let mut voice = Voice::new(config(rng, family, 1, Some(KEY)), session(rng));
        recordings.extend((0..4).filter_map(|_| voice.next()));
    }
    recordings
}

/// A genuine packet, and which one of its process it is.
#[derive(Clone)]
struct Genuine {
    advert: Advert,
    number: u64,
}

/// A router, its twin and its peer, and who is between them.
struct Scene {
    means: Means,
    family: Family,
    victim: Router,
    twin: Router,
    peer: Router,
    step_max_us: usize,
    now_us: u64,
    began_us: u64,
    /// From the peer, on their way.
    to_victim: VecDeque<Genuine>,
    to_peer: VecDeque<Advert>,
    /// Packets of the peer's process so far, and the last one that has arrived.
    peer_count: u64,
    arrived: u64,
    /// Genuine packets that have arrived since both processes began.
    taken: VecDeque<Advert>,
    /// Genuine ones that were kept from arriving.
    held: Vec<Genuine>,
    /// What the victim has said.
    own: VecDeque<Advert>,
    /// Packets of former processes.
    recordings: Vec<Advert>,
    of_other_secret: Voice,
    without_secret: Voice,
    of_other_group: Voice,
    cut_until_us: u64,
    /// What the victim has sent.
    victim_sent: u64,
    events: u64,
    complaints: u64,
    /// The victim's processes so far, each of which complains anew.
    processes: u64,
}

impl Scene {
    fn new(rng: &mut Rng, family: Family, means: Means, recordings: Vec<Advert>) -> Self {
        let mut of_peer = config(rng, family, 1, Some(KEY));
        let mut of_victim = config(rng, family, 2, Some(KEY));
        of_victim.interval_cs = of_peer.interval_cs;
        if rng.below(3) == 0 {
            of_peer.peers = vec![of_victim.source];
            of_victim.peers = vec![of_peer.source];
        }
        let mut voice = |key: Option<Key>, vrid: u8| {
            let config = RouterConfig {
                vrid,
                key,
                priority: 255,
                ..of_peer.clone()
            };
            Voice::new(config, session(rng))
        };
        let (of_other_secret, without_secret) = (voice(Some(OTHER_KEY), VRID), voice(None, VRID));
        let of_other_group = voice(Some(KEY), VRID + 1);
        let of_process = session(rng);
        let victim = Router::new(of_victim, of_process, START_US);
        let mut scene = Self {
            means,
            family,
            twin: victim.clone(),
            victim,
            peer: Router::new(of_peer, session(rng), START_US),
            step_max_us: STEPS_MAX_US[rng.below(STEPS_MAX_US.len())],
            now_us: START_US,
            began_us: START_US,
            to_victim: VecDeque::new(),
            to_peer: VecDeque::new(),
            peer_count: 0,
            arrived: 0,
            taken: VecDeque::new(),
            held: Vec::new(),
            own: VecDeque::new(),
            recordings,
            of_other_secret,
            without_secret,
            of_other_group,
            cut_until_us: 0,
            victim_sent: 0,
            events: 0,
            complaints: 0,
            processes: 1,
        };
        scene.start_peer();
        for router in [&mut scene.victim, &mut scene.twin] {
            tell(router, START_US, Input::Startup);
        }
        scene
    }

    /// What an attacker of the next routers has.
    fn into_recordings(mut self) -> Vec<Advert> {
        self.forget();
        let excess = self.recordings.len().saturating_sub(KEPT);
        self.recordings.drain(..excess);
        self.recordings
    }

    /// A process has ended: what was taken is of the past.
    fn forget(&mut self) {
        self.recordings.extend(self.taken.drain(..));
        let excess = self.recordings.len().saturating_sub(4 * KEPT);
        self.recordings.drain(..excess);
        self.held.clear();
        self.to_victim.clear();
    }

    /// As in a round of `lbd-vrrp`: what has come in, then what is due.
    fn step(&mut self, rng: &mut Rng, tally: &mut Tally) -> Result<()> {
        self.now_us += 1 + rng.below(self.step_max_us) as u64;
        if rng.below(EVENT_EVERY) == 0 {
            self.happen(rng)?;
        }
        self.carry_to_peer(rng);
        let hostile_count = rng.below(3);
        for _ in 0..hostile_count {
            self.attack_once(rng, tally)?;
        }
        self.carry_to_victim(rng, tally)?;
        for _ in hostile_count..2 {
            self.attack_once(rng, tally)?;
        }
        self.pass_time()?;
        if rng.below(COMPARE_EVERY) == 0 {
            self.compare()?;
        }
        Ok(())
    }

    /// The peer hears nothing but the victim.
    fn carry_to_peer(&mut self, rng: &mut Rng) {
        while let Some(advert) = self.to_peer.pop_front() {
            if self.now_us < self.cut_until_us || rng.below(FATE_EVERY) == 0 {
                continue;
            }
            let out = advert.feed(&mut self.peer, self.now_us).unwrap_or_default();
            self.note_peer(&out);
        }
    }

    fn note_peer(&mut self, out: &[Output]) {
        for advert in sent(out, self.peer.config().source) {
            self.peer_count += 1;
            self.to_victim.push_back(Genuine {
                advert,
                number: self.peer_count,
            });
        }
    }

    fn carry_to_victim(&mut self, rng: &mut Rng, tally: &mut Tally) -> Result<()> {
        while let Some(genuine) = self.to_victim.pop_front() {
            match rng.below(FATE_EVERY) {
                _ if self.now_us < self.cut_until_us => {}
                0 => {}
                1 => self.held.push(genuine),
                _ => self.arrive(genuine, tally)?,
            }
        }
        Ok(())
    }

    /// A genuine packet: both take it, once.
    fn arrive(&mut self, genuine: Genuine, tally: &mut Tally) -> Result<()> {
        let before = self.twin.status(self.now_us, 0).counters;
        let advert = &genuine.advert;
        let of_victim = advert.feed(&mut self.victim, self.now_us);
        let of_twin = advert.feed(&mut self.twin, self.now_us);
        let (of_victim, of_twin) = of_victim.zip(of_twin).context("of another router")?;
        let refusals = of_twin.iter().filter_map(|output| match output {
            Output::Refused { reason, .. } => Some(*reason),
            _ => None,
        });
        for reason in refusals {
            ensure!(
                reason == Refusal::Unproven,
                "a genuine packet was refused: {reason}"
            );
        }
        self.note_same(&of_victim, &of_twin)?;
        let after = self.twin.status(self.now_us, 0).counters;
        tally.genuine += u64::from(after.unauthentic == before.unauthentic);
        self.arrived = genuine.number;
        self.taken.push_back(genuine.advert);
        if self.taken.len() > KEPT {
            self.taken.pop_front();
        }
        self.compare()
    }

    /// Something happens to a router, or between the two.
    fn happen(&mut self, rng: &mut Rng) -> Result<()> {
        self.events += 1;
        let (now_us, interval_us) = (self.now_us, self.peer.config().interval_us());
        let priority = 1 + rng.below(254) as u8;
        let unwell = Unwell {
            what: "eth0 is down".to_owned(),
            weight: None,
        };
        let condition = match rng.below(4) {
            0 => Condition::of(priority, [unwell]),
            _ => Condition::well(priority),
        };
        match rng.below(8) {
            0 => {
                let out = tell(&mut self.peer, now_us, Input::Condition(&condition));
                self.note_peer(&out);
            }
            1 => self.tell_both(Input::Condition(&condition))?,
            2 => {
                let out = tell(&mut self.peer, now_us, Input::HandOver);
                self.note_peer(&out);
            }
            3 => self.tell_both(Input::HandOver)?,
            4 => self.cut_until_us = now_us + rng.below(5 * interval_us as usize) as u64,
            5 => {
                let behind = (rng.below(2) == 0).then_some("its flows are not here yet");
                self.tell_both(Input::Behind(behind))?;
            }
            6 => {
                // A new process of the peer's.
                self.forget();
                self.peer = Router::new(self.peer.config().clone(), session(rng), now_us);
                (self.peer_count, self.arrived) = (0, 0);
                self.start_peer();
            }
            _ => {
                self.forget();
                self.processes += 1;
                self.victim = Router::new(self.victim.config().clone(), session(rng), now_us);
                self.twin = self.victim.clone();
                self.tell_both(Input::Startup)?;
            }
        }
        Ok(())
    }

    fn start_peer(&mut self) {
        let out = tell(&mut self.peer, self.now_us, Input::Startup);
        self.note_peer(&out);
    }

    fn tell_both(&mut self, input: Input<'_>) -> Result<()> {
        let of_victim = tell(&mut self.victim, self.now_us, input);
        let of_twin = tell(&mut self.twin, self.now_us, input);
        self.note_same(&of_victim, &of_twin)
    }

    fn pass_time(&mut self) -> Result<()> {
        let out = fire(&mut self.peer, self.now_us).context("the peer's timer")?;
        self.note_peer(&out);
        let of_victim = fire(&mut self.victim, self.now_us).context("a timer without end")?;
        let of_twin = fire(&mut self.twin, self.now_us).context("a timer without end")?;
        self.note_same(&of_victim, &of_twin)
    }

    /// What both say and do; what the victim says goes on its way.
    fn note_same(&mut self, of_victim: &[Output], of_twin: &[Output]) -> Result<()> {
        let is_same = match self.means {
            Means::Own => of_victim == of_twin,
            Means::Recordings => deeds(of_victim).eq(deeds(of_twin)),
        };
        ensure!(is_same, "{of_victim:?}\nwithout attack: {of_twin:?}");
        self.note_victim(of_victim);
        Ok(())
    }

    fn note_victim(&mut self, out: &[Output]) {
        for advert in sent(out, self.victim.config().source) {
            self.victim_sent += 1;
            self.own.push_back(advert.clone());
            self.to_peer.push_back(advert);
        }
        if self.own.len() > KEPT {
            self.own.pop_front();
        }
    }

    /// The two are the same, but for what was refused and told.
    fn compare(&mut self) -> Result<()> {
        let now_us = self.now_us;
        let of_twin = self.twin.status(now_us, 0);
        let of_victim = without_refusals(self.victim.status(now_us, 0), &of_twin, self.means);
        ensure!(
            of_victim == of_twin,
            "{of_victim:?}\nwithout attack: {of_twin:?}"
        );
        ensure!(
            self.victim.saved() == self.twin.saved(),
            "what a successor is told differs"
        );
        let is_same = self.victim.deadline() == self.twin.deadline();
        ensure!(
            is_same || self.means == Means::Recordings,
            "it waits for another moment than without attack"
        );
        let elapsed_us = now_us - self.began_us;
        // At the shortest interval, an advertisement or a greeting is due less often than an answer.
        let packets_max = 2 * (elapsed_us / ANSWER_SPACING_US) + EVENT_PACKETS * (1 + self.events);
        ensure!(
            self.victim_sent <= packets_max,
            "{} packets in {elapsed_us} us",
            self.victim_sent
        );
        ensure!(
            self.complaints <= self.processes + elapsed_us / COMPLAINT_US,
            "{} complaints in {elapsed_us} us",
            self.complaints
        );
        Ok(())
    }

    fn check_size(&self) -> Result<()> {
        let text_bytes = format!("{:?}", self.victim).len();
        ensure!(
            text_bytes <= ROUTER_TEXT_MAX,
            "the router has grown to {text_bytes} bytes"
        );
        Ok(())
    }

    fn attack_once(&mut self, rng: &mut Rng, tally: &mut Tally) -> Result<()> {
        let Some(attack) = self.draw(rng) else {
            return Ok(());
        };
        let Attack {
            advert,
            is_recording,
        } = attack;
        let (state, deadline) = (self.victim.state(), self.victim.deadline());
        let Some(out) = advert.feed(&mut self.victim, self.now_us) else {
            tally.refuse("(of another virtual router)");
            return Ok(());
        };
        let mut reason = "(nobody's: this router's own, or a greeting of the past)".to_owned();
        for output in &out {
            match output {
                Output::Refused { reason: why, .. } => reason = super::reason(why),
                Output::Distrusted { .. } => self.complaints += 1,
                Output::Send { .. } if is_recording => {}
                _ => bail!("{advert:02x?} was taken: {output:?}"),
            }
        }
        let is_refused = matches!(
            out.iter().rev().find(|output| !is_send(output)),
            Some(Output::Refused { .. })
        );
        let is_own = advert.source == self.victim.config().source;
        ensure!(
            is_refused || is_own || is_recording,
            "{advert:02x?} was not refused"
        );
        ensure!(self.victim.state() == state, "{advert:02x?} has moved it");
        let is_timer_kept = match is_recording {
            // What it was about to say anyway, it may have said.
            true => self.victim.deadline() <= deadline || deadline <= Some(self.now_us),
            false => self.victim.deadline() == deadline,
        };
        ensure!(is_timer_kept, "{advert:02x?} has moved a timer");
        tally.refuse(reason);
        self.note_victim(&out);
        Ok(())
    }
}

/// What is not just said.
fn deeds(out: &[Output]) -> impl Iterator<Item = &Output> {
    out.iter().filter(|output| !is_send(output))
}

const fn is_send(output: &Output) -> bool {
    matches!(output, Output::Send { .. })
}

/// A status with the refusals of another one; and what it has said, where recordings made it say more.
fn without_refusals(status: RouterStatus, other: &RouterStatus, means: Means) -> RouterStatus {
    let mut counters = status.counters;
    counters.refused = other.counters.refused;
    counters.unauthentic = other.counters.unauthentic;
    if means == Means::Recordings {
        counters.sent = other.counters.sent;
    }
    RouterStatus {
        distrusted: other.distrusted.clone(),
        counters,
        ..status
    }
}

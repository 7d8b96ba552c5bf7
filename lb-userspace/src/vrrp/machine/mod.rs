//! The machine of one virtual router: RFC 9568 section 6.4 and what we add to it. No clock and no I/O: `now` and
//! inputs go in, outputs come out, and [`Router::deadline`] says when [`Input::Timer`] is due.
//!
//! ```text
//!                       +---------------+
//!            +--------->|               |<-------------+
//!            |          |  Initialize   |              |
//!            |   +------|               |----------+   |
//!            |   |      +---------------+          |   |
//!            |   V                                 V   |
//!    +---------------+                       +---------------+
//!    |               |---------------------->|               |
//!    |    Active     |                       |    Backup     |
//!    |               |<----------------------|               |
//!    +---------------+                       +---------------+
//! ```
//!
//! A router in fault is in Initialize until the fault is over. What we add, each in a file of its own: the hold and
//! the barrier (`takeover`), hand-overs (`handover`), what is counted of two Actives (`dual`), strangers that claim a
//! VIP (`dispute`), news over the sync link (`news`), and authentication ([`super::auth`]).

mod dispute;
mod distrust;
mod dual;
mod handover;
mod news;
mod receive;
mod schedule;
mod send;
mod status;
mod takeover;
mod timers;

#[cfg(test)]
mod dispute_tests;
#[cfg(test)]
mod fuzz_tests;
#[cfg(test)]
mod handover_tests;
#[cfg(test)]
mod net;
#[cfg(test)]
mod net_tests;
#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod takeover_tests;
#[cfg(test)]
mod test_kit;

use std::net::IpAddr;

use self::dispute::Disputes;
use self::dual::Dual;
use self::handover::{HandOver, Linger};
use self::news::News;
use self::receive::Differing;
use self::schedule::Repeats;
pub use self::send::ANSWER_SPACING_US;
use self::takeover::Heard;
use super::auth::Guard;
use super::packet::{Ipv4Checksum, Refusal};
use super::priority::Condition;
use super::protocol::{RouterCounters, State};
use super::router::{Input, Output, RouterConfig, Saved, Session, US_PER_MS};

/// The priority of the owner of the addresses (RFC 9568 section 5.2.4).
const PRIORITY_OWNER: u8 = 255;
/// The priority of one that resigns (RFC 9568 section 5.2.4).
const PRIORITY_RESIGNS: u8 = 0;

/// A change of state to or from Active, at this moment.
#[derive(Clone, Debug)]
struct Move {
    at_us: u64,
    from: State,
    to: State,
    reason: String,
}

/// One virtual router.
#[derive(Clone, Debug)]
pub struct Router {
    config: RouterConfig,
    guard: Option<Guard>,
    state: State,
    since_us: u64,
    reason: String,
    moved: Option<Move>,
    /// Between Startup and Shutdown.
    is_started: bool,
    condition: Condition,
    behind: Option<String>,
    /// Active_Adver_Interval (RFC 9568 section 6.1). Unit: microseconds.
    active_interval_us: u64,
    /// Adver_Timer; `None` unless Active.
    adver_at_us: Option<u64>,
    /// Active_Down_Timer; `None` unless Backup.
    active_down_at_us: Option<u64>,
    /// The other Active, as its advertisements show it.
    active: Option<Heard>,
    /// Since when an Active of lower priority has been heard.
    lower_since_us: Option<u64>,
    /// The VIPs were handed over on demand: not to be taken back by priority.
    yields: bool,
    /// Why the router does not take over, if so; and since when by the barrier, with nobody known to be Active.
    held: Option<String>,
    barred_since_us: Option<u64>,
    probe_at_us: Option<u64>,
    probe_answered_us: Option<u64>,
    news: News,
    /// Active, but overslept: until then it gives way to any other Active.
    doubt_until_us: Option<u64>,
    hand_over: Option<HandOver>,
    linger: Option<Linger>,
    announcements: Repeats,
    hello_at_us: Option<u64>,
    answer_at_us: Option<u64>,
    answered_us: Option<u64>,
    /// The form that others on IPv4 were heard to use last.
    checksum: Ipv4Checksum,
    /// The last list of VIPs that was told as not ours.
    differing: Option<Differing>,
    /// Somebody advertises who is not believed, or does not believe.
    distrust: Option<distrust::Episode>,
    dual: Dual,
    disputes: Disputes,
    counters: RouterCounters,
}

impl Router {
    /// A router that takes no part yet: [`Input::Startup`] or [`Self::resume`] is next.
    pub fn new(config: RouterConfig, session: Session, now_us: u64) -> Self {
        Self {
            guard: config.key.map(|key| Guard::new(key, session)),
            state: State::Initialize,
            since_us: now_us,
            reason: "it has not begun yet".to_owned(),
            moved: None,
            is_started: false,
            condition: Condition::well(config.priority),
            behind: None,
            active_interval_us: config.interval_us(),
            adver_at_us: None,
            active_down_at_us: None,
            active: None,
            lower_since_us: None,
            yields: false,
            held: None,
            barred_since_us: None,
            probe_at_us: None,
            probe_answered_us: None,
            news: News::default(),
            doubt_until_us: None,
            hand_over: None,
            linger: None,
            announcements: Repeats::default(),
            hello_at_us: None,
            answer_at_us: None,
            answered_us: None,
            checksum: Ipv4Checksum::default(),
            differing: None,
            distrust: None,
            dual: Dual::default(),
            disputes: Disputes::default(),
            counters: RouterCounters::default(),
            config,
        }
    }

    /// In place of [`Input::Startup`], in a successor's process: what its predecessor's router was `age_us` ago. An
    /// Active one stays Active if nobody can have taken over since; else it begins like any other. What is known by
    /// [`Input::Condition`] and [`Input::Behind`] comes before this.
    pub fn resume(&mut self, now_us: u64, saved: Saved, age_us: u64, out: &mut Vec<Output>) {
        if self.is_started {
            return;
        }
        self.is_started = true;
        let is_fresh = age_us < 3 * self.config.interval_us();
        if saved.state == State::Active && is_fresh && !self.condition.is_fault() {
            self.become_active(
                now_us,
                "it was Active before its process was replaced",
                0,
                out,
            );
        } else {
            // Whatever the predecessor was, it may have left them.
            out.push(Output::RemoveVips(self.config.listed_vips()));
            self.begin(now_us, out);
            self.yields = saved.yields;
        }
        self.greet(now_us, out);
    }

    /// Before [`Input::Startup`], in a successor's process that has nothing else to resume: its predecessor had handed
    /// the VIPs over on demand.
    pub fn yield_to_others(&mut self) {
        self.yields = true;
    }

    /// What a successor needs to know.
    pub fn saved(&self) -> Saved {
        Saved {
            state: self.state,
            yields: self.yields,
        }
    }

    /// What the router is.
    pub fn config(&self) -> &RouterConfig {
        &self.config
    }

    /// Its state.
    pub fn state(&self) -> State {
        self.state
    }

    /// Another configuration of the same virtual router (node, group, family and VRID are as they were): nothing
    /// moves by that alone. `session` is used if the key is another one. [`Input::Condition`] comes after it.
    pub fn reconfigure(
        &mut self,
        now_us: u64,
        config: RouterConfig,
        session: Session,
        out: &mut Vec<Output>,
    ) {
        let former = std::mem::replace(&mut self.config, config);
        if former.key != self.config.key {
            self.guard = self.config.key.map(|key| Guard::new(key, session));
            self.greet(now_us, out);
        }
        if former.priority != self.config.priority {
            self.yields = false;
        }
        let (old, new) = (former.listed_vips(), self.config.listed_vips());
        let gone: Vec<IpAddr> = old
            .iter()
            .filter(|vip| !new.contains(vip))
            .copied()
            .collect();
        if !gone.is_empty() && (self.state == State::Active || self.linger.is_some()) {
            out.push(Output::RemoveVips(gone));
        }
        if self.state == State::Active {
            if new.iter().any(|vip| !old.contains(vip)) {
                out.push(Output::AddVips(new));
                self.announce_as_new(now_us, out);
            }
            self.advertise_periodically(now_us, out);
        }
    }

    /// Tells the machine what has happened. `now_us` never goes back.
    pub fn handle(&mut self, now_us: u64, input: Input<'_>, out: &mut Vec<Output>) {
        match input {
            Input::Startup => self.startup(now_us, out),
            Input::Shutdown => self.shutdown(now_us, out),
            Input::Received {
                source,
                destination,
                hop_limit,
                payload,
            } => self.receive(now_us, (source, destination), hop_limit, payload, out),
            Input::Condition(condition) => self.set_condition(now_us, condition, out),
            Input::PeerFacts(facts) => self.hear_news(now_us, facts, out),
            Input::Behind(behind) => self.behind = behind.map(str::to_owned),
            Input::ProbeAnswered { address } => self.note_probe_answer(now_us, address),
            Input::LinkUp => {
                if self.state == State::Active {
                    self.announce_as_new(now_us, out);
                }
            }
            Input::Disputed(claim) => self.hear_claim(now_us, claim),
            Input::HandOver => self.begin_hand_over(now_us, out),
            Input::Timer => self.on_timer(now_us, out),
            Input::Overslept { by_us } => self.on_overslept(now_us, by_us),
        }
    }

    /// RFC 9568 section 6.4.1.
    fn startup(&mut self, now_us: u64, out: &mut Vec<Output>) {
        if self.is_started {
            return;
        }
        self.is_started = true;
        self.begin(now_us, out);
        self.greet(now_us, out);
    }

    /// From Initialize, if nothing is against it. An owner of the addresses that is behind its peers waits like
    /// the others.
    fn begin(&mut self, now_us: u64, out: &mut Vec<Output>) {
        if self.condition.is_fault() {
            self.reason = fault_reason(&self.condition);
        } else if self.condition.priority == PRIORITY_OWNER && self.behind.is_none() {
            self.become_active(now_us, "it is the owner of the addresses", 0, out);
        } else {
            self.active_interval_us = self.config.interval_us();
            self.become_backup(now_us, "it has begun", out);
        }
    }

    fn set_condition(&mut self, now_us: u64, condition: &Condition, out: &mut Vec<Output>) {
        let former = std::mem::replace(&mut self.condition, condition.clone());
        if !self.is_started {
            return;
        }
        let is_other_priority = former.priority != condition.priority;
        match (former.is_fault(), condition.is_fault()) {
            (false, true) => self.fail(now_us, out),
            (true, true) => self.reason = fault_reason(condition),
            (true, false) => self.begin(now_us, out),
            (false, false) if is_other_priority && self.state == State::Active => {
                self.advertise_periodically(now_us, out);
            }
            (false, false) => {}
        }
        // One that fails has said so by resigning, and only the order of packets makes them count.
        let has_ended_fault = former.is_fault() && !condition.is_fault();
        if is_other_priority || has_ended_fault {
            self.greet(now_us, out);
        }
    }

    /// The node cannot have the VIPs: whoever can shall have them at once.
    fn fail(&mut self, now_us: u64, out: &mut Vec<Output>) {
        if self.state == State::Active {
            self.resign_at_once(now_us, out);
        }
        let reason = fault_reason(&self.condition);
        self.abandon_hand_over(&reason, out);
        self.become_initialize(now_us, reason, out);
    }

    /// `for_session` is that of the router that has asked for it; 0 = none.
    fn become_active(
        &mut self,
        now_us: u64,
        reason: impl Into<String>,
        for_session: u64,
        out: &mut Vec<Output>,
    ) {
        self.take_back(now_us, out);
        self.yields = false;
        self.stop_waiting();
        self.active = None;
        self.counters.became_active += 1;
        out.push(Output::AddVips(self.config.listed_vips()));
        self.announce_as_new(now_us, out);
        self.advertise_first(now_us, for_session, out);
        self.change(now_us, State::Active, reason.into(), out);
    }

    /// With Active_Down_Timer as it is after an advertisement.
    fn become_backup(&mut self, now_us: u64, reason: impl Into<String>, out: &mut Vec<Output>) {
        self.withdraw(out);
        self.counters.became_backup += 1;
        self.active_down_at_us = Some(now_us + self.active_down_us());
        self.hello_at_us = self.guard.as_ref().map(|_| now_us);
        self.change(now_us, State::Backup, reason.into(), out);
    }

    fn become_initialize(&mut self, now_us: u64, reason: String, out: &mut Vec<Output>) {
        self.withdraw(out);
        self.stop_waiting();
        self.active = None;
        self.change(now_us, State::Initialize, reason, out);
    }

    /// What an Active does that is Active no more. The VIPs stay if they are to linger.
    fn withdraw(&mut self, out: &mut Vec<Output>) {
        if self.state == State::Active && self.linger.is_none() {
            out.push(Output::RemoveVips(self.config.listed_vips()));
        }
        self.adver_at_us = None;
        self.doubt_until_us = None;
        self.announcements = Repeats::default();
        self.disputes.settle();
        self.dual.end();
    }

    /// What a Backup does that is Backup no more.
    fn stop_waiting(&mut self) {
        self.active_down_at_us = None;
        self.lower_since_us = None;
        self.held = None;
        self.barred_since_us = None;
        self.probe_at_us = None;
        self.probe_answered_us = None;
        self.news.forget_active();
    }

    fn change(&mut self, now_us: u64, to: State, reason: String, out: &mut Vec<Output>) {
        let from = std::mem::replace(&mut self.state, to);
        self.reason.clone_from(&reason);
        if from != to {
            self.since_us = now_us;
            if [from, to].contains(&State::Active) {
                self.moved = Some(Move {
                    at_us: now_us,
                    from,
                    to,
                    reason: reason.clone(),
                });
            }
            out.push(Output::Changed { from, to, reason });
        }
    }

    fn refuse(&mut self, source: IpAddr, reason: Refusal, out: &mut Vec<Output>) {
        if reason.is_unauthentic() {
            self.counters.unauthentic += 1;
        } else {
            self.counters.refused += 1;
        }
        out.push(Output::Refused { source, reason });
    }

    /// Skew_Time (RFC 9568 section 6.1). Unit: microseconds.
    fn skew_us(&self) -> u64 {
        (256 - u64::from(self.condition.priority)) * self.active_interval_us / 256
    }

    /// Active_Down_Interval (RFC 9568 section 6.1). Unit: microseconds.
    fn active_down_us(&self) -> u64 {
        3 * self.active_interval_us + self.skew_us()
    }
}

fn fault_reason(condition: &Condition) -> String {
    format!("in fault: {}", condition.faults.join("; "))
}

/// For words: whole milliseconds.
const fn ms(us: u64) -> u64 {
    us / US_PER_MS
}

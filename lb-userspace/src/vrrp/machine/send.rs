//! What a router says, and when it answers.

use super::{PRIORITY_RESIGNS, Router};
use crate::vrrp::auth::{Flags, Kind};
use crate::vrrp::packet::{Packet, PacketType, Path, seal};
use crate::vrrp::protocol::State;
use crate::vrrp::router::Output;

/// Between two answers to the packets of others, at least: whoever sends them must not decide how much this node
/// sends. Unit: microseconds.
pub const ANSWER_SPACING_US: u64 = 2_000;
/// Between two hellos of a router that knows its peers, at least. Unit: microseconds.
const HELLO_US: u64 = 1_000_000;
/// The same of one that has yet to get to know somebody. Unit: microseconds.
const HELLO_MIN_US: u64 = 20_000;

/// What a packet is to say.
#[derive(Clone, Copy)]
struct Saying {
    kind: Kind,
    priority: u8,
    target: u64,
    /// It may ask others to answer. Answers do not: two routers would keep each other busy.
    may_ask: bool,
    is_first: bool,
}

impl Saying {
    const fn new(kind: Kind, priority: u8) -> Self {
        Self {
            kind,
            priority,
            target: 0,
            may_ask: true,
            is_first: false,
        }
    }

    /// It is an answer, or for one router only.
    const fn to(self, target: u64) -> Self {
        Self {
            target,
            may_ask: false,
            ..self
        }
    }
}

impl Router {
    /// The last advertisement of an Active, for `successor` in particular; 0 = for whoever comes.
    pub(super) fn advertise_resignation(
        &mut self,
        now_us: u64,
        successor: u64,
        out: &mut Vec<Output>,
    ) {
        let saying = Saying::new(Kind::Advertisement, PRIORITY_RESIGNS).to(successor);
        self.say(now_us, saying, out);
    }

    /// An advertisement, and Adver_Timer from here. Not during a hand-over, in which silence is part of the request.
    pub(super) fn advertise_periodically(&mut self, now_us: u64, out: &mut Vec<Output>) {
        if self.hand_over.is_none() {
            let saying = Saying::new(Kind::Advertisement, self.condition.priority);
            self.say(now_us, saying, out);
        }
        self.adver_at_us = Some(now_us + self.config.interval_us());
    }

    /// The first advertisement of a new Active.
    pub(super) fn advertise_first(&mut self, now_us: u64, for_session: u64, out: &mut Vec<Output>) {
        let saying = Saying {
            target: for_session,
            is_first: true,
            ..Saying::new(Kind::Advertisement, self.condition.priority)
        };
        self.say(now_us, saying, out);
        self.adver_at_us = Some(now_us + self.config.interval_us());
    }

    /// To one other router.
    pub(super) fn tell(&mut self, now_us: u64, kind: Kind, session: u64, out: &mut Vec<Output>) {
        let saying = Saying::new(kind, self.condition.priority).to(session);
        self.say(now_us, saying, out);
    }

    /// Makes itself known, and plans to do it again.
    pub(super) fn greet(&mut self, now_us: u64, out: &mut Vec<Output>) {
        self.hello_at_us = None;
        let Some(guard) = &self.guard else {
            return;
        };
        if !self.is_started {
            return;
        }
        let interval_us = self.config.interval_us();
        let period_us = match guard.wants_echo(now_us) {
            true => interval_us.max(HELLO_MIN_US),
            false => interval_us.max(HELLO_US),
        };
        self.hello_at_us = Some(now_us + period_us);
        // What an Active has to say is in its advertisements.
        if self.state != State::Active {
            let saying = Saying::new(Kind::Hello, self.condition.priority);
            self.say(now_us, saying, out);
        }
    }

    /// How often each router is heard at least, if nothing gets lost. Unit: microseconds.
    pub(super) fn hello_period_us(&self) -> u64 {
        let interval_us = self.config.interval_us();
        self.active_interval_us.max(interval_us).max(HELLO_US)
    }

    /// Somebody needs to hear from this router: now, or as soon as it is not too often.
    pub(super) fn answer_soon(&mut self, now_us: u64, out: &mut Vec<Output>) {
        let earliest_us = self.answer_from_us();
        if now_us < earliest_us {
            self.answer_at_us.get_or_insert(earliest_us);
        } else {
            self.answer(now_us, out);
        }
    }

    /// To one that resigns, at once, and Adver_Timer from here (RFC 9568 section 6.4.3); but no more often than to
    /// others.
    pub(super) fn answer_resignation(&mut self, now_us: u64, out: &mut Vec<Output>) {
        if now_us < self.answer_from_us() {
            self.answer_soon(now_us, out);
            return;
        }
        self.answer_at_us = None;
        self.answered_us = Some(now_us);
        self.advertise_periodically(now_us, out);
    }

    /// From when on others may make it speak. Unit: microseconds.
    fn answer_from_us(&self) -> u64 {
        self.answered_us
            .map_or(0, |last_us| last_us + ANSWER_SPACING_US)
    }

    /// Says that it is there: with an advertisement, if it is Active for certain.
    pub(super) fn answer(&mut self, now_us: u64, out: &mut Vec<Output>) {
        self.answer_at_us = None;
        self.answered_us = Some(now_us);
        let is_certain = self.hand_over.is_none() && self.doubt_until_us.is_none();
        let kind = match self.state {
            State::Active if is_certain => Kind::Advertisement,
            _ if self.guard.is_some() && self.is_started => Kind::Hello,
            _ => return,
        };
        let saying = Saying::new(kind, self.condition.priority).to(0);
        self.say(now_us, saying, out);
    }

    fn say(&mut self, now_us: u64, saying: Saying, out: &mut Vec<Output>) {
        let (packet_type, addresses) = match saying.kind {
            Kind::Advertisement => (PacketType::Advertisement, self.config.listed_vips()),
            _ => (PacketType::Extension, Vec::new()),
        };
        let packet = Packet {
            packet_type,
            vrid: self.config.vrid,
            priority: saying.priority,
            interval_cs: self.config.interval_cs,
            addresses,
        };
        let source = self.config.source;
        let flags = self.flags(now_us, saying);
        let mut message = packet.emit();
        if let Some(guard) = &mut self.guard {
            let said = (saying.kind, flags, saying.target);
            guard.close(now_us, source, said, &mut message);
        }
        if saying.kind == Kind::Advertisement {
            self.counters.sent += 1;
        }
        for to in self.config.destinations() {
            let path = Path {
                source,
                destination: to,
            };
            let mut payload = message.clone();
            seal(path, self.checksum, &mut payload);
            out.push(Output::Send { to, payload });
        }
    }

    fn flags(&self, now_us: u64, saying: Saying) -> Flags {
        let wants_echo = self
            .guard
            .as_ref()
            .is_some_and(|guard| guard.wants_echo(now_us));
        Flags {
            wants_echo: wants_echo && saying.may_ask,
            is_behind: self.lacks().is_some(),
            is_fault: self.condition.is_fault() || saying.priority == PRIORITY_RESIGNS,
            is_first: saying.is_first,
        }
    }
}

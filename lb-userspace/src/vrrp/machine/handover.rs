//! Giving the VIPs to a peer on demand, so that nobody notices.
//!
//! To a node of our own, by request: it becomes Active at once, and this router withdraws when it hears its
//! advertisement; both forward all the time. To another implementation: this router resigns (an advertisement of
//! priority 0, RFC 9568 section 6.4.3), and keeps the VIPs until it hears a successor, or nobody can come any more.

use std::net::IpAddr;

use super::{Router, ms};
use crate::vrrp::auth::{Kind, Opened};
use crate::vrrp::protocol::State;
use crate::vrrp::router::{HandOverError, Handed, Output};

/// A peer that was asked has so long to answer, but no longer than two intervals: meanwhile this router is silent.
/// Unit: microseconds.
const REQUEST_MAX_US: u64 = 250_000;
/// In that time it is asked so often.
const REQUEST_TIMES: u64 = 8;

/// What comes after a hand-over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Then {
    /// The router goes on, as Backup.
    Stay,
    /// The router takes no part any more.
    Stop,
}

/// A peer was asked to become Active. Times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct HandOver {
    session: u64,
    peer: IpAddr,
    since_us: u64,
    pub(super) until_us: u64,
    pub(super) again_at_us: u64,
    every_us: u64,
    then: Then,
}

/// This router has resigned and keeps the VIPs for a while. Times in microseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linger {
    since_us: u64,
    pub(super) until_us: u64,
    then: Then,
}

impl Router {
    /// [`crate::vrrp::router::Input::HandOver`].
    pub(super) fn begin_hand_over(&mut self, now_us: u64, out: &mut Vec<Output>) {
        let refusal = if self.hand_over.is_some() || self.linger.is_some() {
            Some(HandOverError::UnderWay)
        } else if self.state != State::Active {
            Some(HandOverError::NotActive(self.state))
        } else if self.guard.is_none() {
            self.resign(now_us, Then::Stay, out);
            None
        } else {
            match self.candidate(now_us) {
                Ok(peer) => {
                    self.request(now_us, peer, Then::Stay, out);
                    None
                }
                Err(why) => Some(HandOverError::NobodyReady(why)),
            }
        };
        out.extend(refusal.map(|error| Output::HandedOver(Err(error))));
    }

    /// [`crate::vrrp::router::Input::Shutdown`]. RFC 9568 section 6.4: an Active resigns, and in any case the router is
    /// in Initialize after it.
    pub(super) fn shutdown(&mut self, now_us: u64, out: &mut Vec<Output>) {
        let was_started = std::mem::replace(&mut self.is_started, false);
        self.hello_at_us = None;
        if let Some(hand_over) = &mut self.hand_over {
            out.extend(replaced(&mut hand_over.then));
            return;
        }
        if let Some(linger) = &mut self.linger {
            out.extend(replaced(&mut linger.then));
            self.become_initialize(now_us, "it was stopped".to_owned(), out);
            return;
        }
        if self.state != State::Active {
            if was_started {
                self.become_initialize(now_us, "it was stopped".to_owned(), out);
            }
            out.push(Output::Stopped);
            return;
        }
        match self.candidate(now_us) {
            Ok(peer) => self.request(now_us, peer, Then::Stop, out),
            Err(_) if self.is_alone(now_us) => {
                self.advertise_resignation(now_us, 0, out);
                self.become_initialize(now_us, "it was stopped".to_owned(), out);
                out.push(Output::Stopped);
            }
            Err(_) => self.resign(now_us, Then::Stop, out),
        }
    }

    /// The peer that should take over: of those that were heard lately and are well, the one of the highest priority.
    /// Else why there is none.
    fn candidate(&self, now_us: u64) -> Result<(u64, IpAddr), String> {
        let Some(guard) = &self.guard else {
            return Err("without authentication, peers cannot be asked".to_owned());
        };
        let silence_max_us = 3 * self.hello_period_us();
        let mut why = "none was heard lately".to_owned();
        let mut best = None;
        for sender in guard.proven() {
            if now_us >= sender.heard_us + silence_max_us {
                continue;
            }
            if sender.flags.is_fault {
                why = format!("{} is in fault", sender.source);
            } else if sender.flags.is_behind {
                why = format!("{} has not caught up", sender.source);
            } else {
                best = best.max(Some((sender.priority, sender.source, sender.session)));
            }
        }
        best.map(|(_, source, session)| (session, source))
            .ok_or(why)
    }

    /// Whether it is certain that nobody else is there.
    fn is_alone(&self, now_us: u64) -> bool {
        let silence_max_us = 3 * self.hello_period_us();
        self.guard.as_ref().is_some_and(|guard| {
            guard
                .proven()
                .all(|sender| now_us >= sender.heard_us + silence_max_us)
        })
    }

    fn request(
        &mut self,
        now_us: u64,
        (session, peer): (u64, IpAddr),
        then: Then,
        out: &mut Vec<Output>,
    ) {
        let window_us = REQUEST_MAX_US.min(2 * self.config.interval_us());
        let every_us = window_us / REQUEST_TIMES;
        self.hand_over = Some(HandOver {
            session,
            peer,
            since_us: now_us,
            until_us: now_us + window_us,
            again_at_us: now_us + every_us,
            every_us,
            then,
        });
        self.tell(now_us, Kind::HandOverRequest, session, out);
    }

    /// Resigns without waiting for anybody. The best peer is named: it does not wait for its Skew_Time.
    pub(super) fn resign_at_once(&mut self, now_us: u64, out: &mut Vec<Output>) {
        let session = self.candidate(now_us).map_or(0, |(session, _)| session);
        self.advertise_resignation(now_us, session, out);
    }

    /// Resigns, and keeps the VIPs for as long as a successor may take: its Skew_Time is less than an interval, and its
    /// first advertisement may get lost.
    fn resign(&mut self, now_us: u64, then: Then, out: &mut Vec<Output>) {
        self.advertise_resignation(now_us, 0, out);
        self.linger = Some(Linger {
            since_us: now_us,
            until_us: now_us + self.config.interval_us() * 5 / 2,
            then,
        });
        self.yields = then == Then::Stay;
        match then {
            Then::Stay => {
                self.active_interval_us = self.config.interval_us();
                self.become_backup(now_us, "it hands over on demand", out);
            }
            Then::Stop => self.become_initialize(now_us, "it was stopped".to_owned(), out),
        }
    }

    /// The time of a request has passed.
    pub(super) fn on_request_timer(&mut self, now_us: u64, out: &mut Vec<Output>) {
        let Some(hand_over) = &mut self.hand_over else {
            return;
        };
        if now_us >= hand_over.until_us {
            let waited_ms = ms(now_us - hand_over.since_us);
            self.fail_hand_over(now_us, HandOverError::Unanswered { waited_ms }, out);
        } else if now_us >= hand_over.again_at_us {
            hand_over.again_at_us = now_us + hand_over.every_us;
            let session = hand_over.session;
            self.tell(now_us, Kind::HandOverRequest, session, out);
        }
    }

    /// The peer does not take the VIPs: this router keeps them, or resigns if it is to stop.
    fn fail_hand_over(&mut self, now_us: u64, error: HandOverError, out: &mut Vec<Output>) {
        match self.hand_over.take().map(|hand_over| hand_over.then) {
            Some(Then::Stay) => {
                self.advertise_periodically(now_us, out);
                out.push(Output::HandedOver(Err(error)));
            }
            Some(Then::Stop) => self.resign(now_us, Then::Stop, out),
            None => {}
        }
    }

    /// Another one is Active while a hand-over is under way: that is what was wanted.
    pub(super) fn complete_hand_over(
        &mut self,
        now_us: u64,
        advert: (IpAddr, u8, u64),
        out: &mut Vec<Output>,
    ) {
        let Some(hand_over) = self.hand_over.take() else {
            return;
        };
        let (to, priority, interval_us) = advert;
        let after_us = now_us - hand_over.since_us;
        match hand_over.then {
            Then::Stay => {
                self.become_backup(now_us, format!("handed over to {to} on demand"), out);
                self.yields = true;
                self.follow(now_us, to, priority, interval_us);
                out.push(Output::HandedOver(Ok(Handed { to, after_us })));
            }
            Then::Stop => {
                self.become_initialize(now_us, format!("stopped, and handed over to {to}"), out);
                out.push(Output::Stopped);
            }
        }
    }

    /// A successor was heard: the VIPs go.
    pub(super) fn end_linger(&mut self, now_us: u64, to: IpAddr, out: &mut Vec<Output>) {
        if let Some(linger) = self.linger.take() {
            out.push(Output::RemoveVips(self.config.listed_vips()));
            let after_us = now_us - linger.since_us;
            out.push(match linger.then {
                Then::Stay => Output::HandedOver(Ok(Handed { to, after_us })),
                Then::Stop => Output::Stopped,
            });
        }
    }

    /// No successor has come.
    pub(super) fn on_linger_timer(&mut self, now_us: u64, out: &mut Vec<Output>) {
        match self.linger.map(|linger| linger.then) {
            Some(Then::Stay) => {
                self.become_active(now_us, "nobody took over", 0, out);
            }
            Some(Then::Stop) => {
                self.linger = None;
                out.push(Output::RemoveVips(self.config.listed_vips()));
                out.push(Output::Stopped);
            }
            None => {}
        }
    }

    /// This router becomes Active again although it had resigned.
    pub(super) fn take_back(&mut self, now_us: u64, out: &mut Vec<Output>) {
        if let Some(linger) = self.linger.take()
            && linger.then == Then::Stay
        {
            let waited_ms = ms(now_us - linger.since_us);
            let error = HandOverError::Unanswered { waited_ms };
            out.push(Output::HandedOver(Err(error)));
        }
    }

    /// This router cannot have the VIPs any more, whatever becomes of a hand-over.
    pub(super) fn abandon_hand_over(&mut self, why: &str, out: &mut Vec<Output>) {
        let linger = self.linger.take();
        if linger.is_some() {
            out.push(Output::RemoveVips(self.config.listed_vips()));
        }
        let hand_over = self.hand_over.take().map(|hand_over| hand_over.then);
        if hand_over.or(linger.map(|linger| linger.then)) == Some(Then::Stay) {
            let error = HandOverError::NobodyReady(format!("this node is {why}"));
            out.push(Output::HandedOver(Err(error)));
        }
    }

    /// The Active one resigns, and names this router. One that is behind takes over as well, if nobody better does
    /// before: it waits like those that were not named.
    pub(super) fn on_resignation_to_us(
        &mut self,
        now_us: u64,
        source: IpAddr,
        opened: &Opened,
        out: &mut Vec<Output>,
    ) {
        match self.state {
            State::Backup if self.lacks().is_some() => self.on_resignation(now_us, source),
            State::Active | State::Backup => self.on_request(now_us, source, opened, out),
            State::Initialize => {}
        }
    }

    /// A peer asks this router to become Active.
    pub(super) fn on_request(
        &mut self,
        now_us: u64,
        source: IpAddr,
        opened: &Opened,
        out: &mut Vec<Output>,
    ) {
        let session = opened.session;
        match self.state {
            State::Active => self.tell(now_us, Kind::Advertisement, session, out),
            State::Backup if self.lacks().is_none() => {
                let reason = format!("{source} has handed over");
                self.become_active(now_us, reason, session, out);
            }
            State::Backup | State::Initialize => {
                self.tell(now_us, Kind::HandOverDeclined, session, out);
            }
        }
    }

    /// The peer that was asked does not want to.
    pub(super) fn on_declined(&mut self, now_us: u64, opened: &Opened, out: &mut Vec<Output>) {
        let asked = self
            .hand_over
            .filter(|hand_over| hand_over.session == opened.session);
        if let Some(HandOver { peer, .. }) = asked {
            let reason = match (opened.flags.is_fault, opened.flags.is_behind) {
                (true, _) => "it is in fault",
                (false, true) => "it has not caught up",
                (false, false) => "it takes no part",
            };
            self.fail_hand_over(now_us, HandOverError::Declined { peer, reason }, out);
        }
    }
}

/// A hand-over that was asked for goes on as one of a router that stops; who asked is told so.
fn replaced(then: &mut Then) -> Option<Output> {
    let former = std::mem::replace(then, Then::Stop);
    let error = HandOverError::NobodyReady("this node is stopping".to_owned());
    (former == Then::Stay).then_some(Output::HandedOver(Err(error)))
}

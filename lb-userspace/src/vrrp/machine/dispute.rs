//! Somebody else claims a VIP that is Active here, by ARP or neighbour discovery.
//!
//! Such a claim looks the same whoever makes it. A router that takes over by right makes one, too, and its
//! advertisement comes right behind it: so the claim is left alone for a moment, and only who is still Active then
//! defends the VIPs by announcing them again. Two that claim the same for good, each with an announcement that the
//! other one takes for a claim, would never end: so defences are counted out, as RFC 5227 section 2.4 wants it.

use super::Router;
use crate::vrrp::protocol::State;
use crate::vrrp::router::{Claim, Output};

/// How long the advertisement behind a claim is waited for: half an interval, so that the network is right again
/// within one, and so long at most. Unit: microseconds.
const ADVERT_WAIT_MAX_US: u64 = 100_000;
/// Defences that may follow each other at once.
const DEFENCES_IN_A_ROW: u64 = 6;
/// After those, one each (RFC 5227 section 1.1, DEFEND_INTERVAL). Unit: microseconds.
const DEFEND_INTERVAL_US: u64 = 10_000_000;

/// Claims, and what they have cost so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Disputes {
    /// A claim, and when it is answered if it still stands then. Unit: microseconds.
    pending: Option<(Claim, u64)>,
    /// The last one that was answered, and when.
    last: Option<(Claim, u64)>,
    /// Until when the defences so far are paid for, at one each [`DEFEND_INTERVAL_US`]. Unit: microseconds.
    paid_us: u64,
}

impl Disputes {
    pub(super) fn deadline_us(&self) -> Option<u64> {
        self.pending.map(|(_, at_us)| at_us)
    }

    /// The claim is explained, or concerns this router no more.
    pub(super) fn settle(&mut self) {
        self.pending = None;
    }

    /// The last claim that was answered, and when. Unit: microseconds.
    pub(super) fn last(&self) -> Option<(Claim, u64)> {
        self.last
    }

    /// The next defence at `at_us` or later.
    fn earliest_us(&self, at_us: u64) -> u64 {
        let credit_us = (DEFENCES_IN_A_ROW - 1) * DEFEND_INTERVAL_US;
        at_us.max(self.paid_us.saturating_sub(credit_us))
    }

    fn pay(&mut self, now_us: u64) {
        self.paid_us = self.paid_us.max(now_us) + DEFEND_INTERVAL_US;
    }
}

impl Router {
    /// Claims that come while one is pending are the same dispute.
    pub(super) fn hear_claim(&mut self, now_us: u64, claim: Claim) {
        // Whom the VIPs are handed over to announces them, as it was asked to.
        let is_expected = self.hand_over.is_some();
        if self.state != State::Active || is_expected || self.disputes.pending.is_some() {
            return;
        }
        let wait_us = (self.config.interval_us() / 2).min(ADVERT_WAIT_MAX_US);
        let at_us = self.disputes.earliest_us(now_us + wait_us);
        self.disputes.pending = Some((claim, at_us));
    }

    pub(super) fn defend_if_due(&mut self, now_us: u64, out: &mut Vec<Output>) {
        let Some((claim, at_us)) = self.disputes.pending else {
            return;
        };
        if now_us < at_us {
            return;
        }
        if let Some(until_us) = self.doubt_until_us {
            // It may be the claim of one that became Active while this process did not run.
            self.disputes.pending = Some((claim, until_us.max(now_us + 1)));
            return;
        }
        self.disputes.settle();
        if self.hand_over.is_some() {
            return;
        }
        self.disputes.pay(now_us);
        self.disputes.last = Some((claim, now_us));
        self.counters.disputes += 1;
        out.push(Output::Disputed(claim));
        self.announce_as_new(now_us, out);
    }
}

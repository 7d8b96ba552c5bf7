//! What an owner does with its rings, and a follower with another's.

use std::collections::BTreeMap;

use crate::transition::sweep::Exceptions;
use crate::transition::{Company, Lead, Members, Reach, Settling};

use super::Rings;
use super::coordinator::Coordinator;
use super::message::{
    Claim, Had, Message, REASON_BYTES_MAX, Refusal, RefusalKind, ServiceEndpoint, SlotSet,
    Standing, Swept, Term,
};
use super::ring::ReceivedRing;
use super::share::{Follower, Owned, Role, ServiceStatus, Share, Side};

/// A ring that had no room here is tried again after this. Unit: milliseconds.
const RETRY_MS: u64 = 30_000;

impl Coordinator {
    /// Tells a ring that this node leads, and what the followers have said.
    pub(super) fn lead(&mut self, share: &mut Share, rings: &mut impl Rings, now_ms: u64) {
        let revision = rings.transition(&share.service).map(|one| one.revision());
        if let (Side::Owns(owned), Some(revision)) = (&share.side, revision)
            && revision < owned.written
        {
            // It is another ring than before, and what peers have acknowledged says nothing of it.
            self.claim(share);
        }
        let Side::Owns(owned) = &mut share.side else {
            return;
        };
        let company = self.company(owned, rings, now_ms);
        let Some(transition) = rings.transition(&share.service) else {
            return;
        };
        share.has_history = true;
        let has_company_grown = !transition.company().present.has(company.present);
        transition.keep_company(company, now_ms);
        if !owned.is_leading {
            owned.is_leading = true;
            transition.take_lead(now_ms);
            if owned.consults {
                transition.consult(|_| true);
            }
        } else if has_company_grown {
            transition.announce_anew();
        }
        for (name, follower) in &mut owned.peers {
            if let Some(unsettled) = follower.standing.take() {
                transition.consult(|slot| unsettled.has(slot));
            }
            let member = self.view.peers.get(name).map(|peer| peer.member);
            if let Some((swept, began_ms)) = follower.swept.take()
                && let Some(member) = member
            {
                let slots = 0..transition.slots().len();
                let exceptions = Exceptions {
                    revision: swept.version.revision,
                    by_slot: slots
                        .map(|slot| u32::from(swept.exceptions.has(slot)))
                        .collect(),
                };
                transition.swept_by(member, &exceptions, began_ms);
            }
        }
    }

    /// Sends what has changed to the followers. One state is under way to each at a time: what changes meanwhile
    /// goes together when it has been acknowledged.
    pub(super) fn publish(&mut self, share: &mut Share, rings: &mut impl Rings) {
        let (service, claim) = (share.service, share.claim());
        let Side::Owns(owned) = &mut share.side else {
            return;
        };
        let transition = rings.transition(&service);
        let Some(transition) = transition.filter(|one| !one.slots().is_empty()) else {
            return self.tell_empty(owned, &claim);
        };
        let revision = transition.revision();
        if revision != owned.ring.revision() {
            let slots = transition.slots().to_vec();
            let address_of = |id| rings.address_of(&service, id);
            owned.ring.update(revision, &slots, address_of);
        }
        let mut messages = Vec::new();
        for (name, follower) in &mut owned.peers {
            if !follower.wants(revision) || !self.view.is_there(name) {
                continue;
            }
            let parts = owned
                .ring
                .parts(service, &share.term, follower.sent.as_ref());
            follower.sent = Some(owned.ring.sent());
            messages.extend(parts.into_iter().map(|part| (name.clone(), part)));
        }
        for (peer, part) in messages {
            self.say(&peer, Message::Ring(part));
        }
    }

    /// Who waits for a ring that is not there yet would never have caught up.
    fn tell_empty(&mut self, owned: &mut Owned, claim: &Claim) {
        for (name, follower) in &mut owned.peers {
            if follower.has_stood && !follower.knows_empty && self.view.is_there(name) {
                follower.knows_empty = true;
                self.say(name, Message::Empty(claim.clone()));
            }
        }
    }

    /// A ring that this node leads is in force here; returns whether it is so everywhere, and was not.
    pub(super) fn note_own_written(
        &mut self,
        share: &mut Share,
        rings: &mut impl Rings,
        now_ms: u64,
    ) -> bool {
        let Side::Owns(owned) = &mut share.side else {
            return false;
        };
        let Some(transition) = rings.transition(&share.service) else {
            return false;
        };
        if !owned.is_leading {
            return false;
        }
        owned.written = transition.revision();
        let present = self.view.peers.iter().filter(|(_, peer)| peer.is_up());
        let acked = present.filter_map(|(name, _)| match owned.peers.get(name) {
            Some(follower) if follower.refusal.is_some() => None,
            Some(follower) => Some(follower.acked),
            None => Some(0),
        });
        let everywhere = acked.fold(owned.written, u64::min);
        if everywhere <= owned.in_force {
            return false;
        }
        owned.in_force = everywhere;
        transition.in_force(everywhere, now_ms);
        true
    }

    /// Answers the owner's claim, and brings its ring to this node's transition.
    pub(super) fn follow(&mut self, share: &mut Share, rings: &mut impl Rings, now_ms: u64) {
        let company = Company {
            present: self.view.present(),
            reach: self.view.reach(),
            settling: Settling::Withheld,
        };
        let Some(transition) = rings.transition_to_follow(&share.service) else {
            return;
        };
        if transition.lead() == Lead::Own {
            transition.yield_lead();
        }
        transition.keep_company(company, now_ms);
        let owner = share.term.owner.clone();
        let had = || match share.has_history {
            false => Had::Nothing,
            true => Had::Ring {
                unsettled: SlotSet::of(transition.slots().len(), |slot| {
                    !transition.slots()[slot].is_settled()
                }),
            },
        };
        let Side::Follows(followed) = &mut share.side else {
            return;
        };
        if followed.owes_standing && self.view.is_there(&owner) {
            followed.owes_standing = false;
            let standing = Standing {
                service: share.service,
                term: share.term.clone(),
                ring: had(),
            };
            self.say(&owner, Message::Standing(standing));
        }
        if followed.refused.is_some() && now_ms >= followed.retry_ms && self.view.is_there(&owner) {
            // There may be room by now: the owner says it again.
            followed.retry_ms = now_ms + RETRY_MS;
            let question = Claim {
                service: share.service,
                term: Term::default(),
            };
            self.say(&owner, Message::Claim(vec![question]));
        }
        if let Some((version, kind, reason)) = followed.misfit.take() {
            let refusal = Refusal {
                version,
                kind,
                reason,
            };
            self.say(&owner, Message::Refusal(refusal));
        }
        let Some(ring) = followed.pending().cloned() else {
            return;
        };
        let revision = ring.revision;
        match translated(&ring, &share.service, rings) {
            Ok(slots) => {
                if let Some(transition) = rings.transition_to_follow(&share.service) {
                    transition.follow(&slots);
                    followed.applied = Some((revision, transition.revision()));
                    share.has_history = true;
                }
            }
            Err(reason) => {
                followed.refused = Some(revision);
                followed.retry_ms = now_ms + RETRY_MS;
                let refusal = Refusal {
                    version: share.version(revision),
                    kind: RefusalKind::Unable,
                    reason: cut(reason),
                };
                self.say(&owner, Message::Refusal(refusal));
            }
        }
    }

    /// Goes on as in a cut, for this node alone: until the owner counts as gone, deaths move slots, and nothing else does;
    /// then planned changes are made too, and nothing ever settles. Nobody is told, and what the owner says holds as soon
    /// as it is heard.
    pub(super) fn lead_alone(&self, share: &Share, rings: &mut impl Rings, now_ms: u64) {
        let Some(transition) = rings.transition(&share.service) else {
            return;
        };
        let company = Company {
            present: Members::NONE,
            reach: self.view.reach(),
            settling: Settling::Withheld,
        };
        transition.keep_company(company, now_ms);
        if transition.lead() == Lead::Peer {
            transition.take_lead(now_ms);
        }
    }

    /// A ring that this node follows is in force here.
    pub(super) fn note_followed_written(
        &mut self,
        share: &mut Share,
        rings: &mut impl Rings,
        now_ms: u64,
    ) -> bool {
        let Some(transition) = rings.transition(&share.service) else {
            return false;
        };
        let is_new = !transition.is_in_force();
        if is_new {
            transition.in_force(transition.revision(), now_ms);
        }
        let Side::Follows(followed) = &mut share.side else {
            return is_new;
        };
        if let Some((revision, _)) = followed.applied
            && followed.acked != Some(revision)
        {
            followed.acked = Some(revision);
            let (owner, version) = (share.term.owner.clone(), share.version(revision));
            self.say(&owner, Message::Ack(version));
        }
        is_new
    }

    /// A sweep of this node's flow table has ended that began then; `exceptions` is what it found of the
    /// service's ring. The owner hears of it, if that is another node.
    pub fn swept(
        &mut self,
        service: &ServiceEndpoint,
        exceptions: &Exceptions,
        began_ms: u64,
        now_ms: u64,
    ) {
        if self.view.reach() == Reach::Cut {
            // Nothing was purged, and nothing counted.
            return;
        }
        let Some(share) = self.shares.get(service) else {
            return;
        };
        let Side::Follows(followed) = &share.side else {
            return;
        };
        let Some((revision, own_revision)) = followed.applied else {
            return;
        };
        if exceptions.revision != own_revision {
            return;
        }
        let by_slot = &exceptions.by_slot;
        let swept = Swept {
            version: share.version(revision),
            began_ago_ms: u32::try_from(now_ms.saturating_sub(began_ms)).unwrap_or(u32::MAX),
            exceptions: SlotSet::of(by_slot.len(), |slot| by_slot[slot] > 0),
        };
        let owner = share.term.owner.clone();
        self.say(&owner, Message::Swept(swept));
    }
}

impl Follower {
    /// Whether the ring of this revision is to be sent now.
    fn wants(&self, revision: u64) -> bool {
        let sent = self.sent.as_ref().map(|sent| sent.revision);
        let is_idle = sent.is_none_or(|sent| self.acked >= sent);
        let may_be_sent = self.has_stood && self.standing.is_none() && self.refusal.is_none();
        may_be_sent && is_idle && sent != Some(revision)
    }
}

/// A peer's ring with the ids of this node.
fn translated(
    ring: &ReceivedRing,
    service: &ServiceEndpoint,
    rings: &mut impl Rings,
) -> Result<Vec<lb_common::abi::Slot>, String> {
    let used = ring.used();
    let positions = || (0..used.len()).filter(|position| used[*position]);
    let addresses: Vec<_> = positions()
        .map(|position| ring.backends[position])
        .collect();
    let found = rings.ids_of(service, &addresses)?;
    let mut ids = vec![0; used.len()];
    for (position, id) in positions().zip(found) {
        ids[position] = id;
    }
    Ok(ring.slots(&ids))
}

/// A reason, as long as a message holds.
pub(super) fn cut(mut reason: String) -> String {
    let end = (0..=REASON_BYTES_MAX.min(reason.len()))
        .rev()
        .find(|end| reason.is_char_boundary(*end));
    reason.truncate(end.unwrap_or(0));
    reason
}

/// How a service's ring is shared.
pub(super) fn status(share: &Share) -> ServiceStatus {
    let (revision, refusals) = match &share.side {
        Side::Owns(Owned {
            in_force, peers, ..
        }) => {
            let refused = peers.iter().filter_map(|(name, follower)| {
                let reason = follower.refusal.clone()?;
                Some((name.clone(), reason))
            });
            (Some(*in_force), refused.collect())
        }
        Side::Follows(followed) => (followed.acked, BTreeMap::new()),
    };
    ServiceStatus {
        service: share.service,
        role: match share.side {
            Side::Owns(_) => Role::Owner,
            Side::Follows(_) => Role::Follower,
        },
        term: share.term.clone(),
        revision,
        refusals,
        is_alone: share.is_alone(),
    }
}

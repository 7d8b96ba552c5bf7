//! What a message changes. Only its sender's word counts for what the sender is; nothing that a peer says may
//! overrule a later term.

use super::coordinator::{Coordinator, Output};
use super::message::{
    Claim, Had, Message, Refusal, RefusalKind, RingPart, SERVICES_PER_MESSAGE, ServiceEndpoint,
    Standing, Swept, Term, Version,
};
use super::own::cut;
use super::share::{Follower, Owned, Role, Share, Side};

/// Before a peer that goes by another term is told of this one again. Unit: milliseconds.
const RECLAIM_MS: u64 = 5_000;

impl Coordinator {
    /// Takes what a peer has said. What does not concern this node, or is out of date, is ignored.
    pub fn receive(&mut self, peer: &str, message: Message, now_ms: u64) {
        if !self.view.peers.get(peer).is_some_and(|peer| peer.is_up()) {
            return;
        }
        match message {
            // Each may be answered, so there are no more than an honest peer puts into one.
            Message::Claim(claims) => {
                for claim in claims.into_iter().take(SERVICES_PER_MESSAGE) {
                    self.hear_claim(peer, claim);
                }
            }
            Message::Stale(claims) => {
                for claim in claims.into_iter().take(SERVICES_PER_MESSAGE) {
                    self.hear_stale(peer, claim, now_ms);
                }
            }
            Message::Standing(standing) => self.hear_standing(peer, standing),
            Message::Ring(part) => self.hear_ring(peer, part),
            Message::Ack(version) => self.hear_ack(peer, &version),
            Message::Refusal(refusal) => self.hear_refusal(peer, refusal),
            Message::Swept(swept) => self.hear_swept(peer, swept, now_ms),
            Message::Empty(claim) => self.hear_empty(peer, &claim),
            Message::Report(report) => {
                if let Some(known) = self.view.peers.get_mut(peer) {
                    known.hear(report, now_ms);
                }
            }
        }
    }

    fn hear_claim(&mut self, peer: &str, claim: Claim) {
        let is_question = claim.term.owner.is_empty();
        if !is_question && claim.term.owner != peer {
            return;
        }
        let Some(share) = self.shares.get_mut(&claim.service) else {
            self.unknown_count += 1;
            return self.say_absent(peer, claim);
        };
        share.lackers.remove(peer);
        if is_question {
            let answer = share.claim();
            match &mut share.side {
                Side::Owns(owned) => {
                    owned.peers.remove(peer);
                    self.say_claims(peer, vec![answer]);
                }
                // Whoever asks may take this node for the owner, which it was, and not hear the one that is.
                Side::Follows(_) if !["", peer].contains(&answer.term.owner.as_str()) => {
                    self.say_stale(peer, answer);
                }
                Side::Follows(_) => {}
            }
        } else if share.term.is_later_than(&claim.term) {
            let answer = vec![share.claim()];
            self.say(peer, Message::Stale(answer));
        } else if share.role() == Role::Owner
            && self
                .view
                .is_owner_by_activity(share.group.as_ref(), &share.lackers)
        {
            self.overrule(&claim);
        } else if self.view.is_led_by_another(share, peer) {
            share.put_off.insert(peer.to_owned());
        } else {
            share.put_off.remove(peer);
            let was_owner = share.role() == Role::Owner;
            share.follow(claim.term);
            if was_owner {
                self.tell_who_followed(&claim.service, peer);
            }
        }
    }

    /// Those that have followed this node have to know that it does not decide any more: they may not hear who does.
    fn tell_who_followed(&mut self, service: &ServiceEndpoint, teller: &str) {
        let Some(share) = self.shares.get(service) else {
            return;
        };
        let claim = share.claim();
        let mut peers = self.names_up();
        peers.retain(|peer| peer != teller && *peer != claim.term.owner);
        for peer in peers {
            self.say_stale(&peer, claim.clone());
        }
    }

    /// Tells a peer of a term. What is said to it of several services, one after the other, goes together.
    fn say_stale(&mut self, peer: &str, claim: Claim) {
        let mut latest = self.outputs.iter_mut().rev();
        match latest.find(|output| output.peer == peer) {
            Some(Output {
                message: Message::Stale(claims),
                ..
            }) if claims.len() < SERVICES_PER_MESSAGE => claims.push(claim),
            _ => self.say(peer, Message::Stale(vec![claim])),
        }
    }

    /// Tells a peer that this node does not have the service.
    pub(super) fn say_absent(&mut self, peer: &str, claim: Claim) {
        let refusal = Refusal {
            version: Version {
                service: claim.service,
                term: claim.term,
                revision: 0,
            },
            kind: RefusalKind::Absent,
            reason: "it has no such service, or one whose ring is made in another way".to_owned(),
        };
        self.say(peer, Message::Refusal(refusal));
    }

    fn hear_stale(&mut self, peer: &str, claim: Claim, now_ms: u64) {
        let Some(share) = self.shares.get_mut(&claim.service) else {
            return;
        };
        if claim.term == share.term || share.term.is_later_than(&claim.term) {
            if let Side::Owns(owned) = &mut share.side
                && owned.is_claim_due(peer, claim.term == share.term, now_ms)
            {
                owned.peers.remove(peer);
                owned.reclaimed_ms.insert(peer.to_owned(), now_ms);
                let answer = share.claim();
                self.say_claims(peer, vec![answer]);
            }
            return;
        }
        let is_owner = self
            .view
            .is_owner_by_activity(share.group.as_ref(), &share.lackers);
        if share.role() == Role::Owner && is_owner {
            self.overrule(&claim);
        } else if self.view.is_known(&claim.term.owner) {
            let was_owner = share.role() == Role::Owner;
            Self::step_back(share, claim.term);
            if was_owner {
                self.tell_who_followed(&claim.service, peer);
            }
        }
    }

    /// Goes on leading, in a later term than another one's: the other side of a cut has led meanwhile, and its ring
    /// is not the one that the traffic knows.
    fn overrule(&mut self, other: &Claim) {
        let Some(share) = self.shares.get_mut(&other.service) else {
            return;
        };
        let claim = share.overrule(&other.term);
        for peer in self.names_up() {
            self.say_claims(&peer, vec![claim.clone()]);
        }
    }

    fn hear_standing(&mut self, peer: &str, standing: Standing) {
        let share = self.shares.get_mut(&standing.service);
        let Some(owned) = share.and_then(|share| share.owned_in(&standing.term)) else {
            return;
        };
        // Who was told of the term twice stands twice, and still has what it was sent.
        let is_repeated = |follower: &Follower| follower.has_stood && follower.refusal.is_none();
        let known = owned.peers.remove(peer).filter(is_repeated);
        owned.peers.insert(
            peer.to_owned(),
            Follower {
                has_stood: true,
                standing: match standing.ring {
                    Had::Nothing => None,
                    Had::Ring { unsettled } => Some(unsettled),
                },
                ..known.unwrap_or_default()
            },
        );
    }

    fn hear_ring(&mut self, peer: &str, part: RingPart) {
        let Some(share) = self.shares.get_mut(&part.version.service) else {
            return;
        };
        if share.term != part.version.term || share.term.owner != peer {
            let owner = share.term.owner.clone();
            let is_later = share.term.is_later_than(&part.version.term);
            if part.part == 0 && is_later && !["", peer, &self.view.name].contains(&owner.as_str())
            {
                // It may not hear the one that this node follows, and would wait for this one for ever.
                let refusal = Refusal {
                    version: part.version,
                    kind: RefusalKind::Unable,
                    reason: format!("it follows {owner}"),
                };
                self.say(peer, Message::Refusal(refusal));
            }
            return;
        }
        if let Side::Follows(followed) = &mut share.side {
            followed.take(part);
        }
    }

    fn hear_empty(&mut self, peer: &str, claim: &Claim) {
        let Some(share) = self.shares.get_mut(&claim.service) else {
            return;
        };
        if share.term == claim.term
            && share.term.owner == peer
            && let Side::Follows(followed) = &mut share.side
        {
            followed.is_empty = true;
        }
    }

    fn hear_ack(&mut self, peer: &str, version: &Version) {
        if let Some(follower) = self.follower(peer, version)
            && let Some(sent) = &follower.sent
            && version.revision <= sent.revision
        {
            follower.acked = follower.acked.max(version.revision);
        }
    }

    fn hear_refusal(&mut self, peer: &str, refusal: Refusal) {
        self.refused_count += 1;
        let Some(share) = self.shares.get_mut(&refusal.version.service) else {
            return;
        };
        if refusal.kind == RefusalKind::Absent {
            share.lackers.insert(peer.to_owned());
        }
        let is_absent = refusal.kind == RefusalKind::Absent;
        let Side::Owns(owned) = &mut share.side else {
            return;
        };
        // Whoever does not have the service does not know the term either.
        if share.term != refusal.version.term && !is_absent {
            return;
        }
        let follower = owned.peers.entry(peer.to_owned()).or_default();
        match refusal.kind {
            RefusalKind::Incomplete => follower.sent = None,
            RefusalKind::Unable | RefusalKind::Absent => {
                follower.refusal = Some(cut(refusal.reason));
            }
        }
    }

    fn hear_swept(&mut self, peer: &str, swept: Swept, now_ms: u64) {
        if let Some(follower) = self.follower(peer, &swept.version) {
            let began_ms = now_ms.saturating_sub(u64::from(swept.began_ago_ms));
            follower.swept = Some((swept, began_ms));
        }
    }

    /// A follower of a ring that this node leads in this very term.
    fn follower(&mut self, peer: &str, version: &Version) -> Option<&mut Follower> {
        let share = self.shares.get_mut(&version.service)?;
        share.owned_in(&version.term)?.peers.get_mut(peer)
    }
}

impl Owned {
    /// Whether the term is to be claimed anew from a peer that says by which it goes. In another one, it has not heard of
    /// this one, or was told of others since. In this one, and if it has not stood, it knows of it by hearsay: it did not
    /// listen when it was claimed. The link may be slow, and the answer to the last claim on its way.
    fn is_claim_due(&self, peer: &str, is_same_term: bool, now_ms: u64) -> bool {
        if self.has_stood(peer) {
            return !is_same_term;
        }
        let last_ms = self.reclaimed_ms.get(peer);
        last_ms.is_none_or(|last_ms| now_ms >= last_ms + RECLAIM_MS)
    }

    /// Whether a peer has accepted the term and said what it had.
    fn has_stood(&self, peer: &str) -> bool {
        self.peers
            .get(peer)
            .is_some_and(|follower| follower.has_stood)
    }
}

impl Share {
    /// Goes on leading, in a term that is later than `other`: every follower begins anew.
    fn overrule(&mut self, other: &Term) -> Claim {
        self.term.number = other.next_number();
        if let Side::Owns(owned) = &mut self.side {
            owned.peers.clear();
            owned.reclaimed_ms.clear();
        }
        self.claim()
    }

    fn owned_in(&mut self, term: &Term) -> Option<&mut Owned> {
        match &mut self.side {
            Side::Owns(owned) if self.term == *term => Some(owned),
            Side::Owns(_) | Side::Follows(_) => None,
        }
    }
}

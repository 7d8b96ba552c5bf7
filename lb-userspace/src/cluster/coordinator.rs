//! The machine: roles, terms, and what each ring has to wait for.

use std::collections::{BTreeMap, BTreeSet};

use crate::transition::{Company, Settling};

use super::message::{Claim, Message, Report, SERVICES_PER_MESSAGE, ServiceEndpoint};
use super::share::{Followed, Owned, Role, ServiceStatus, Share, Side};
use super::view::{GroupId, LinkState, Peer, View};
use super::{Rings, own};

/// What a node has to know of its cluster.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This node's name.
    pub node: String,
    /// The peers' names, at most [`crate::transition::Members::PEERS_MAX`].
    pub peers: BTreeSet<String>,
    /// A peer that is silent for longer counts as gone. Unit: milliseconds.
    pub patience_ms: u64,
}

/// What a node begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// Nothing: its datapath is new.
    Fresh,
    /// The rings that a former daemon has left in force.
    Adopted,
}

/// Something to be said to a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// Its name.
    pub peer: String,
    /// What.
    pub message: Message,
}

/// For how long a node must think that it is the owner before it says so, while the last owner answers: what it
/// knows of who is Active may be a heartbeat old. Unit: milliseconds.
const CLAIM_DELAY_MS: u64 = 100;
/// For how long an owner may be silent before a node that is not Active decides in its place: as long as a
/// daemon takes to start anew. Unit: milliseconds.
const SILENT_OWNER_MS: u64 = 1_000;
/// For how long nobody who is heard may claim a ring of no group whose owner is silent, before a node decides for itself
/// alone. Whoever goes before it has had its [`SILENT_OWNER_MS`] by then. Unit: milliseconds.
const LEFT_ALONE_MS: u64 = 3_000;
/// How long a node with a new datapath waits for peers that it has never heard. Unit: milliseconds.
const FIRST_WORD_MS: u64 = 3_000;
/// Between two reports. Unit: milliseconds.
const REPORT_MS: u64 = 500;
/// A report that may be older says nothing. Unit: milliseconds.
const REPORT_AGE_MAX_MS: u64 = 2_000;
/// While a node's flows lag by more, nothing settles. Unit: milliseconds.
const FLOW_LAG_MAX_MS: u64 = 1_000;

/// One node's part in the agreement on the rings.
#[derive(Clone, Debug)]
pub struct Coordinator {
    pub(super) view: View,
    pub(super) shares: BTreeMap<ServiceEndpoint, Share>,
    pub(super) outputs: Vec<Output>,
    patience_ms: u64,
    start: Start,
    /// Groups in which this node has become Active since the last look.
    newly_active: BTreeSet<GroupId>,
    has_met_anybody: bool,
    report_number: u64,
    report_due_ms: u64,
    /// Services that peers want to be followed in and that are not here, so that each is refused once.
    pub(super) unknown_count: u64,
    pub(super) refused_count: u64,
}

impl Coordinator {
    /// A node that has not heard of any peer yet.
    pub fn new(settings: Settings, start: Start, now_ms: u64) -> Self {
        let patience_ms = match start {
            Start::Adopted => settings.patience_ms,
            Start::Fresh => settings.patience_ms.min(FIRST_WORD_MS),
        };
        let silent = LinkState::Silent {
            since_ms: now_ms,
            until_ms: now_ms + patience_ms,
        };
        let peers = settings.peers.into_iter().enumerate();
        let peers = peers.map(|(number, name)| (name, Peer::new(number, silent)));
        Self {
            view: View {
                name: settings.node,
                peers: peers.collect(),
                active: BTreeSet::new(),
            },
            shares: BTreeMap::new(),
            outputs: Vec::new(),
            patience_ms: settings.patience_ms,
            start,
            newly_active: BTreeSet::new(),
            has_met_anybody: false,
            report_number: 0,
            report_due_ms: now_ms,
            unknown_count: 0,
            refused_count: 0,
        }
    }

    /// The link to a peer is up: it answers, and what was said before may be lost.
    pub fn link_up(&mut self, peer: &str) {
        let Some(known) = self.view.peers.get_mut(peer) else {
            return;
        };
        known.link = LinkState::Up;
        known.report = None;
        known.told.clear();
        self.has_met_anybody = true;
        let mut claims = Vec::new();
        for share in self.shares.values_mut() {
            share.lackers.remove(peer);
            claims.push(match &mut share.side {
                Side::Owns(owned) => {
                    owned.peers.remove(peer);
                    owned.reclaimed_ms.remove(peer);
                    share.claim()
                }
                // This node may not have listened when it was said.
                Side::Follows(_) => share.question(),
            });
        }
        self.say_claims(peer, claims);
    }

    /// The link to a peer is lost.
    pub fn link_down(&mut self, peer: &str, now_ms: u64) {
        if let Some(known) = self.view.peers.get_mut(peer)
            && known.link == LinkState::Up
        {
            known.link = LinkState::Silent {
                since_ms: now_ms,
                until_ms: now_ms + self.patience_ms,
            };
            known.active.clear();
            known.report = None;
        }
    }

    /// A peer has said, before its link went, that it has taken its datapath off: nothing is forwarded there.
    pub fn note_detached(&mut self, peer: &str) {
        if let Some(known) = self.view.peers.get_mut(peer) {
            known.link = LinkState::Gone;
            known.active.clear();
        }
    }

    /// In which groups a peer is Active, by its last heartbeat.
    pub fn note_peer_active(&mut self, peer: &str, active: BTreeSet<GroupId>) {
        if let Some(known) = self.view.peers.get_mut(peer)
            && known.is_up()
        {
            known.active = active;
        }
    }

    /// In which groups this node is Active.
    pub fn note_own_active(&mut self, active: BTreeSet<GroupId>) {
        let old = std::mem::replace(&mut self.view.active, active);
        let new = self.view.active.difference(&old);
        self.newly_active.extend(new.cloned());
    }

    /// To be called before the transitions step: tells them who leads and who is there, and brings them what the
    /// owners have said.
    pub fn before_look(&mut self, rings: &mut impl Rings, now_ms: u64) {
        self.view.lose_patience(now_ms);
        self.meet_services(rings);
        let mut shares = std::mem::take(&mut self.shares);
        for share in shares.values_mut() {
            self.take_up(share);
            self.decide(share, rings, now_ms);
            match &share.side {
                Side::Owns(_) => self.lead(share, rings, now_ms),
                Side::Follows(followed) if followed.is_alone => {
                    self.lead_alone(share, rings, now_ms);
                }
                Side::Follows(_) => self.follow(share, rings, now_ms),
            }
        }
        self.shares = shares;
        self.newly_active.clear();
        self.report(rings, now_ms);
    }

    /// To be called after the transitions have stepped, and before their rings are written: what has changed
    /// goes to the peers meanwhile.
    pub fn after_look(&mut self, rings: &mut impl Rings) {
        let mut shares = std::mem::take(&mut self.shares);
        for share in shares.values_mut() {
            self.publish(share, rings);
        }
        self.shares = shares;
    }

    /// To be called when all transitions' slots are in force on this node, in place of
    /// `RingTransition::in_force`; returns whether more is in force than before, so that another look is worth it.
    pub fn after_write(&mut self, rings: &mut impl Rings, now_ms: u64) -> bool {
        let mut shares = std::mem::take(&mut self.shares);
        let mut is_any_new = false;
        for share in shares.values_mut() {
            is_any_new |= match share.role() {
                Role::Owner => self.note_own_written(share, rings, now_ms),
                Role::Follower => self.note_followed_written(share, rings, now_ms),
            };
        }
        self.shares = shares;
        is_any_new
    }

    /// When to look at the rings again at the latest, for the cluster's sake.
    pub fn deadline_ms(&self) -> Option<u64> {
        let silent = self.view.peers.values().filter_map(|peer| match peer.link {
            LinkState::Silent { until_ms, .. } => Some(until_ms),
            LinkState::Up | LinkState::Gone => None,
        });
        let claims = self.shares.values().filter_map(|share| {
            let since_ms = share.due_since_ms?;
            Some(since_ms + self.claim_wait_ms(share, since_ms))
        });
        silent.chain(claims).chain([self.report_due_ms]).min()
    }

    /// What is to be said to the peers, in this order.
    pub fn take_outputs(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    /// When a flow of a service was last not recorded on any other node that should have been: with this node's
    /// own the fact that the transition is to be told. Unit: milliseconds, on the clock of `now_ms`.
    pub fn suppressed_ms(&self, service: &ServiceEndpoint) -> Option<u64> {
        let heard = self.view.peers.values().filter_map(|peer| {
            let heard = peer.report.as_ref()?;
            let mut suppressed = heard.report.suppressed.iter();
            let (_, ago_ms) = suppressed.find(|(one, _)| one == service)?;
            Some(heard.at_ms.saturating_sub(u64::from(*ago_ms)))
        });
        heard.max()
    }

    /// Why this node does not know what its peers know; `None`: it has caught up, or is on its own.
    pub fn behind(&self) -> Option<String> {
        let is_any_up = self.view.peers.values().any(Peer::is_up);
        let is_any_silent = !is_any_up && self.view.reach() == crate::transition::Reach::Cut;
        if is_any_silent && !self.has_met_anybody {
            return Some("no peer has answered yet".to_owned());
        }
        if !is_any_up {
            return None;
        }
        // A ring of no group that this node was left alone with is no matter of who is Active.
        let mut shares = self.shares.values();
        let behind = shares.find(|share| !share.is_current() && !share.is_alone())?;
        let ServiceEndpoint { vip, port, .. } = behind.service;
        let owner = &behind.term.owner;
        Some(if owner.is_empty() {
            format!("nobody has said yet what the ring of {vip} port {port} is")
        } else {
            format!("the ring of {vip} port {port} is not yet in force as {owner} has it")
        })
    }

    /// How each service's ring is shared.
    pub fn status(&self) -> Vec<ServiceStatus> {
        let shares = self.shares.values();
        shares.map(own::status).collect()
    }

    /// How a peer can be reached.
    pub fn link_state(&self, peer: &str) -> Option<LinkState> {
        self.view.peers.get(peer).map(|peer| peer.link)
    }

    fn meet_services(&mut self, rings: &impl Rings) {
        let services = rings.services();
        let known: BTreeSet<ServiceEndpoint> = services.iter().map(|one| one.endpoint).collect();
        let gone = self
            .shares
            .extract_if(.., |service, _| !known.contains(service));
        let gone: Vec<Share> = gone.map(|(_, share)| share).collect();
        for peer in self.names_up() {
            gone.iter()
                .for_each(|share| self.say_absent(&peer, share.claim()));
        }
        let mut questions = Vec::new();
        for service in services {
            let share = self.shares.entry(service.endpoint).or_insert_with(|| {
                let has_history = self.start == Start::Adopted;
                let share = Share::new(service.endpoint, None, has_history);
                questions.push(share.question());
                share
            });
            share.group = service.group;
            share.slot_count = service.slot_count;
        }
        if questions.is_empty() {
            return;
        }
        for peer in self.names_up() {
            self.say_claims(&peer, questions.clone());
        }
    }

    /// Asks those again whose claims were put off, once nothing is against them.
    fn take_up(&mut self, share: &mut Share) {
        for peer in std::mem::take(&mut share.put_off) {
            if self.view.is_led_by_another(share, &peer) {
                share.put_off.insert(peer);
            } else {
                self.say_claims(&peer, vec![share.question()]);
            }
        }
    }

    /// Takes the lead, if it is this node's turn. To yield it takes another's claim.
    fn decide(&mut self, share: &mut Share, rings: &mut impl Rings, now_ms: u64) {
        if self.has_taken_over(share) {
            self.claim(share);
            return;
        }
        let group = share.group.as_ref();
        let owner = self.view.owner(group, &share.lackers, &share.term.owner);
        let is_turn = owner == self.view.name && share.role() == Role::Follower;
        if !is_turn {
            share.due_since_ms = None;
            self.note_left_alone(share, rings, now_ms);
            return;
        }
        let since_ms = *share.due_since_ms.get_or_insert(now_ms);
        if now_ms >= since_ms + self.claim_wait_ms(share, since_ms) {
            self.claim(share);
        }
    }

    /// A node may follow one that it does not hear, and another one go before it that does, and so does not claim. A ring
    /// of no group, which every node may forward by, would stay as it is for as long as that link is missing, with the dead
    /// in it. One whose length is not what this node's configuration says stays all the same: no other one could be made
    /// of it.
    fn note_left_alone(&self, share: &mut Share, rings: &mut impl Rings, now_ms: u64) {
        let last = &share.term.owner;
        let is_left = !last.is_empty() && !self.view.is_there(last);
        if share.group.is_some() && share.is_alone() {
            // The VIP moves now: packets go to the Active node.
            share.side = Side::Follows(Box::default());
        }
        if !is_left || share.group.is_some() || !share.has_history {
            share.left_since_ms = None;
            return;
        }
        let since_ms = *share.left_since_ms.get_or_insert(now_ms);
        if share.is_alone() || now_ms < since_ms + LEFT_ALONE_MS {
            return;
        }
        let ring = rings.transition(&share.service);
        if ring.is_some_and(|ring| ring.slots().len() == share.slot_count) {
            share.side = Side::Follows(Box::new(Followed::alone()));
        }
    }

    /// Whether the VIP has just come here from another node that has decided so far. That one may have died
    /// without the link having noticed, and is not waited for.
    fn has_taken_over(&self, share: &Share) -> bool {
        let is_new = |group| self.newly_active.contains(group);
        let had_owner = !share.term.owner.is_empty();
        share.role() == Role::Follower && had_owner && share.group.as_ref().is_some_and(is_new)
    }

    /// How long after that moment a node that should lead waits for whoever led last.
    fn claim_wait_ms(&self, share: &Share, since_ms: u64) -> u64 {
        let (view, last) = (&self.view, &share.term.owner);
        let is_active = share
            .group
            .as_ref()
            .is_some_and(|group| view.is_active(group));
        if *last == view.name {
            return 0;
        }
        match view.silent_since_ms(last) {
            Some(_) if is_active => 0,
            Some(silent_ms) => (silent_ms + SILENT_OWNER_MS).saturating_sub(since_ms),
            // Somebody may be about to say that there is an owner.
            None if view.is_there(last) || !view.present().is_empty() => CLAIM_DELAY_MS,
            None => 0,
        }
    }

    pub(super) fn claim(&mut self, share: &mut Share) {
        let last = &share.term.owner;
        let is_own = *last == self.view.name;
        let is_first = last.is_empty() && !share.has_history;
        let may_be_behind = self.has_taken_over(share) || !self.view.is_there(last);
        share.term.number = share.term.next_number();
        share.term.owner.clone_from(&self.view.name);
        share.due_since_ms = None;
        share.left_since_ms = None;
        share.side = Side::Owns(Owned {
            consults: !is_own && !is_first && may_be_behind,
            ..Owned::default()
        });
        for peer in self.names_up() {
            self.say_claims(&peer, vec![share.claim()]);
        }
    }

    /// In whose company a ring is that this node leads.
    pub(super) fn company(&self, owned: &Owned, rings: &impl Rings, now_ms: u64) -> Company {
        let mut company = Company {
            present: self.view.present(),
            reach: self.view.reach(),
            settling: Settling::Free,
        };
        if rings.flow_lag_ms() > FLOW_LAG_MAX_MS && !company.present.is_empty() {
            company.settling = Settling::Withheld;
        }
        for (name, peer) in self.view.peers.iter().filter(|(_, peer)| peer.is_up()) {
            let follower = owned.peers.get(name);
            if follower.is_some_and(|follower| follower.refusal.is_some()) {
                company.present = company.present.without(peer.member);
            } else if !knows_enough(peer, now_ms) {
                company.settling = Settling::Withheld;
            }
        }
        company
    }

    fn report(&mut self, rings: &impl Rings, now_ms: u64) {
        if now_ms < self.report_due_ms {
            return;
        }
        self.report_due_ms = now_ms + REPORT_MS;
        self.remind_owners();
        let suppressed = self.shares.keys().filter_map(|service| {
            let stamp_ms = rings.suppressed_ms(service)?;
            let ago_ms = u32::try_from(now_ms.saturating_sub(stamp_ms)).ok()?;
            Some((*service, ago_ms))
        });
        let suppressed: Vec<_> = suppressed.take(SERVICES_PER_MESSAGE).collect();
        let lag_ms = u32::try_from(rings.flow_lag_ms()).unwrap_or(u32::MAX);
        self.report_number += 1;
        for (name, peer) in self.view.peers.iter_mut().filter(|(_, peer)| peer.is_up()) {
            peer.note_told(self.report_number, now_ms);
            let heard = peer.report.as_ref().map_or(0, |heard| heard.report.number);
            let report = Report {
                number: self.report_number,
                heard,
                lag_ms,
                suppressed: suppressed.clone(),
            };
            self.outputs.push(Output {
                peer: name.clone(),
                message: Message::Report(report),
            });
        }
    }

    /// Whoever decides a ring may not know of the term that this node follows: a claim that only this node has heard, or
    /// that nobody has made but in the words of a third one. It is told, and claims the ring again.
    fn remind_owners(&mut self) {
        let mut terms: BTreeMap<String, Vec<Claim>> = BTreeMap::new();
        for share in self.shares.values() {
            let last = &share.term.owner;
            let owner = self.view.owner(share.group.as_ref(), &share.lackers, last);
            let is_followed = owner == last && share.is_current();
            if !is_followed && !last.is_empty() && owner != self.view.name {
                terms
                    .entry(owner.to_owned())
                    .or_default()
                    .push(share.claim());
            }
        }
        for (owner, claims) in terms {
            for some in claims.chunks(SERVICES_PER_MESSAGE) {
                self.say(&owner, Message::Stale(some.to_vec()));
            }
        }
    }

    pub(super) fn say(&mut self, peer: &str, message: Message) {
        if self.view.is_there(peer) && peer != self.view.name {
            self.outputs.push(Output {
                peer: peer.to_owned(),
                message,
            });
        }
    }

    pub(super) fn say_claims(&mut self, peer: &str, claims: Vec<Claim>) {
        for some in claims.chunks(SERVICES_PER_MESSAGE) {
            self.say(peer, Message::Claim(some.to_vec()));
        }
    }

    pub(super) fn names_up(&self) -> Vec<String> {
        let up = self.view.peers.iter().filter(|(_, peer)| peer.is_up());
        up.map(|(name, _)| name.clone()).collect()
    }

    /// A later term than this node's own: it decides again whether to lead.
    pub(super) fn step_back(share: &mut Share, term: super::message::Term) {
        share.term = term;
        share.due_since_ms = None;
        share.side = Side::Follows(Box::default());
    }
}

/// Whether what a peer has said last is fresh, and its flows are known elsewhere.
fn knows_enough(peer: &Peer, now_ms: u64) -> bool {
    peer.report.as_ref().is_some_and(|heard| {
        now_ms <= heard.not_before_ms + REPORT_AGE_MAX_MS
            && u64::from(heard.report.lag_ms) <= FLOW_LAG_MAX_MS
    })
}

//! One service's ring, as this node shares it.

use std::collections::{BTreeMap, BTreeSet};

use super::message::{Claim, RefusalKind, RingPart, ServiceEndpoint, Swept, Term, Version};
use super::ring::{Assembly, Misfit, Progress, ReceivedRing, SentRing, SharedRing};
use super::view::GroupId;

/// What a node is for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It decides the ring.
    Owner,
    /// It puts in force what the owner says.
    Follower,
}

/// How a service's ring is shared, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceStatus {
    /// The service.
    pub service: ServiceEndpoint,
    /// What this node is for it.
    pub role: Role,
    /// The term that is in force here.
    pub term: Term,
    /// The owner's revision that is in force here.
    pub revision: Option<u64>,
    /// Peers that do not follow, and why.
    pub refusals: BTreeMap<String, String>,
    /// The owner is not heard, nobody decides in its place, and this node goes on with its copy by itself.
    pub is_alone: bool,
}

/// A service's ring.
#[derive(Clone, Debug)]
pub(super) struct Share {
    pub(super) service: ServiceEndpoint,
    pub(super) group: Option<GroupId>,
    /// Slots of the ring as this node would make it.
    pub(super) slot_count: usize,
    /// Peers that have said that they do not have the service, or not with a ring to be shared.
    pub(super) lackers: BTreeSet<String>,
    /// The latest term that this node goes by.
    pub(super) term: Term,
    /// Peers that have claimed the ring while its owner was Active: they do not hear it.
    pub(super) put_off: BTreeSet<String>,
    pub(super) side: Side,
    /// Since when this node should take the lead, by what it knows.
    pub(super) due_since_ms: Option<u64>,
    /// Since when the owner is not heard, and no claim of another's either. Unit: milliseconds.
    pub(super) left_since_ms: Option<u64>,
    /// Flows of this node depend on the ring: it has been in force, and not been made from nothing.
    pub(super) has_history: bool,
}

/// What belongs to a role.
#[derive(Clone, Debug)]
pub(super) enum Side {
    /// This node decides.
    Owns(Owned),
    /// A peer does.
    Follows(Box<Followed>),
}

/// What an owner keeps.
#[derive(Clone, Debug, Default)]
pub(super) struct Owned {
    pub(super) ring: SharedRing,
    pub(super) peers: BTreeMap<String, Follower>,
    /// When each peer was last told of the term because it went by another one. Unit: milliseconds.
    pub(super) reclaimed_ms: BTreeMap<String, u64>,
    /// This node's own ring is in force up to this revision.
    pub(super) written: u64,
    /// So is everybody's, as far as the transition was told.
    pub(super) in_force: u64,
    /// The transition has been told that this node leads.
    pub(super) is_leading: bool,
    /// Whoever led before may have been a step ahead, and may not answer any more: all slots are to consult
    /// the flow table.
    pub(super) consults: bool,
}

/// A follower, as its owner sees it.
#[derive(Clone, Debug, Default)]
pub(super) struct Follower {
    /// It has accepted this term, and said what it had.
    pub(super) has_stood: bool,
    /// Slots of it that are not settled, to be consulted here.
    pub(super) standing: Option<super::message::SlotSet>,
    pub(super) sent: Option<SentRing>,
    pub(super) acked: u64,
    /// Why it does not follow.
    pub(super) refusal: Option<String>,
    /// What its last sweep has found, and when that began by this node's clock.
    pub(super) swept: Option<(Swept, u64)>,
    /// It was told that there is no ring yet.
    pub(super) knows_empty: bool,
}

/// What a follower keeps.
#[derive(Clone, Debug, Default)]
pub(super) struct Followed {
    /// The owner was not heard for long, and nobody who is heard decides in its place: this node does so for itself alone,
    /// until it hears a claim.
    pub(super) is_alone: bool,
    /// The owner's claim is still to be answered.
    pub(super) owes_standing: bool,
    assembly: Option<Assembly>,
    /// The owner has no ring yet.
    pub(super) is_empty: bool,
    /// What came last, whole.
    pub(super) received: Option<ReceivedRing>,
    /// The owner's revision that the transition has, and the transition's own.
    pub(super) applied: Option<(u64, u64)>,
    pub(super) acked: Option<u64>,
    /// The revision that cannot be put in force here.
    pub(super) refused: Option<u64>,
    /// When that is tried again. Unit: milliseconds.
    pub(super) retry_ms: u64,
    pub(super) misfit: Option<(Version, RefusalKind, String)>,
}

impl Share {
    pub(super) fn new(service: ServiceEndpoint, group: Option<GroupId>, has_history: bool) -> Self {
        Self {
            service,
            group,
            slot_count: 0,
            lackers: BTreeSet::new(),
            term: Term::default(),
            put_off: BTreeSet::new(),
            side: Side::Follows(Box::default()),
            due_since_ms: None,
            left_since_ms: None,
            has_history,
        }
    }

    pub(super) fn role(&self) -> Role {
        match self.side {
            Side::Owns(_) => Role::Owner,
            Side::Follows(_) => Role::Follower,
        }
    }

    /// Whether what its owner said last is in force here.
    pub(super) fn is_current(&self) -> bool {
        match &self.side {
            Side::Owns(_) => true,
            Side::Follows(followed) => followed.is_current(),
        }
    }

    /// Whether this node goes on with its copy by itself.
    pub(super) fn is_alone(&self) -> bool {
        matches!(&self.side, Side::Follows(followed) if followed.is_alone)
    }

    pub(super) fn claim(&self) -> Claim {
        Claim {
            service: self.service,
            term: self.term.clone(),
        }
    }

    /// Who decides the ring? Whoever does claims it anew, and begins anew with who asks.
    pub(super) fn question(&self) -> Claim {
        Claim {
            service: self.service,
            term: Term::default(),
        }
    }

    pub(super) fn version(&self, revision: u64) -> Version {
        Version {
            service: self.service,
            term: self.term.clone(),
            revision,
        }
    }

    /// Begins to follow, if it does not yet, in a term that may be new.
    pub(super) fn follow(&mut self, term: Term) {
        let is_new = self.term != term;
        self.term = term;
        self.due_since_ms = None;
        match &mut self.side {
            Side::Follows(followed) if !is_new => {
                followed.owes_standing = true;
                followed.is_empty = false;
                followed.is_alone = false;
            }
            Side::Follows(_) | Side::Owns(_) => {
                self.side = Side::Follows(Box::new(Followed {
                    owes_standing: true,
                    ..Followed::default()
                }));
            }
        }
    }
}

impl Followed {
    /// What a node keeps that has been left alone: nothing that the owner has said.
    pub(super) fn alone() -> Self {
        Self {
            is_alone: true,
            ..Self::default()
        }
    }

    /// Takes a part of the owner's ring.
    pub(super) fn take(&mut self, part: RingPart) {
        let version = part.version.clone();
        let assembly = match self.assembly.take() {
            Some(assembly) if part.part > 0 => Ok(assembly),
            _ => Assembly::begin(&part, self.received.as_ref()),
        };
        match assembly.and_then(|assembly| assembly.take(part)) {
            Ok(Progress::Waiting(assembly)) => self.assembly = Some(assembly),
            Ok(Progress::Done(ring)) => {
                // Who says it again has not heard that it is in force, or cannot be.
                self.acked = self.acked.filter(|acked| *acked != ring.revision);
                self.refused = None;
                self.received = Some(ring);
            }
            Err(misfit) => {
                let kind = match misfit {
                    Misfit::Incomplete => RefusalKind::Incomplete,
                    Misfit::Nonsense => RefusalKind::Unable,
                };
                self.misfit = Some((version, kind, misfit.to_string()));
            }
        }
    }

    /// The owner's revision that is still to be put in force.
    pub(super) fn pending(&self) -> Option<&ReceivedRing> {
        let received = self.received.as_ref()?;
        let is_applied = self
            .applied
            .is_some_and(|(revision, _)| revision == received.revision);
        let is_refused = self.refused == Some(received.revision);
        (!is_applied && !is_refused).then_some(received)
    }

    /// Whether what the owner said last is in force here.
    fn is_current(&self) -> bool {
        match &self.received {
            Some(ring) => self.acked == Some(ring.revision),
            None => self.is_empty,
        }
    }
}

//! The rules of the agreement, each of which can be switched off here to show the hole that it closes. Production
//! code knows nothing of this: what is switched off is what its surroundings do.

use std::collections::BTreeSet;
use std::fmt;

/// A rule of rings on several nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rule {
    /// The owner of a VIP decides its ring, and the others follow.
    OneOwner,
    /// A ring is in force when every node that answers says so.
    Acknowledgements,
    /// A dead backend's slots are armed everywhere before they move.
    ArmedFirst,
    /// That takes no longer than 300 ms.
    Bound,
    /// A moving slot becomes armed everywhere before it is quiet anywhere.
    Landing,
    /// A slot settles when no node's table has anything of it.
    ClearEverywhere,
    /// What a peer could not record delays settling.
    Hearsay,
    /// Flows are sent to the peers.
    Replication,
    /// What was lost on the way is sent again.
    Retransmission,
    /// Who takes over consults the table in every slot.
    Consult,
    /// While a peer is silent, planned changes wait and nothing settles.
    Cut,
    /// After a cut, the owner consults the table where the other has moved slots.
    Standing,
    /// A node that has not caught up does not become Active while a peer lives.
    Barrier,
}

impl Rule {
    /// All of them.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 13] = [
        Self::OneOwner,
        Self::Acknowledgements,
        Self::ArmedFirst,
        Self::Bound,
        Self::Landing,
        Self::ClearEverywhere,
        Self::Hearsay,
        Self::Replication,
        Self::Retransmission,
        Self::Consult,
        Self::Cut,
        Self::Standing,
        Self::Barrier,
    ];
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::OneOwner => "one owner decides",
            Self::Acknowledgements => "acknowledged before the next step",
            Self::ArmedFirst => "armed before a death's move",
            Self::Bound => "no longer than 300 ms",
            Self::Landing => "armed before quiet",
            Self::ClearEverywhere => "clear everywhere",
            Self::Hearsay => "peers' suppressed stamps",
            Self::Replication => "flows sent to peers",
            Self::Retransmission => "lost flows sent again",
            Self::Consult => "consult on takeover",
            Self::Cut => "planned changes wait in a cut",
            Self::Standing => "merge after a cut",
            Self::Barrier => "failback barrier",
        };
        f.write_str(text)
    }
}

/// The rules in force.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rules {
    off: BTreeSet<Rule>,
}

impl Rules {
    pub(crate) fn without(rule: Rule) -> Self {
        Self {
            off: BTreeSet::from([rule]),
        }
    }

    pub(crate) fn has(&self, rule: Rule) -> bool {
        !self.off.contains(&rule)
    }
}

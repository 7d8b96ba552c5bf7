//! Where every frame of a run went, by the kernel's counters and the far end's.

use std::fmt;

use super::wire::WireCounters;

/// What a program under test does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// `XDP_DROP`.
    Drop,
    /// `XDP_TX`.
    Transmit,
}

/// The frames of one run, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ledger {
    /// Put to the sender's end.
    pub(crate) sent_count: u64,
    /// Taken in, or lost, by the two ends.
    pub(crate) wire: WireCounters,
    /// Seen by the sender's end: answers.
    pub(crate) answered_count: u64,
}

impl Ledger {
    /// Whether each frame is accounted for: nothing is under way any more, nothing is missing, and
    /// nothing came from elsewhere.
    pub(crate) fn is_balanced(&self, action: Action) -> bool {
        let is_taken = self.sent_count == self.wire.received_count + self.wire.lost_there_count;
        let answers = self.answered_count + self.wire.lost_back_count;
        let is_answered = match action {
            Action::Drop => answers == 0,
            Action::Transmit => answers == self.wire.received_count,
        };
        is_taken && is_answered
    }

    /// Frames that went all the way.
    pub(crate) fn through_count(&self, action: Action) -> u64 {
        match action {
            Action::Drop => self.wire.received_count,
            Action::Transmit => self.answered_count,
        }
    }

    /// Frames that an end had no room for.
    pub(crate) fn lost_count(&self) -> u64 {
        self.wire.lost_there_count + self.wire.lost_back_count
    }

    /// Both together.
    pub(crate) fn plus(self, other: &Self) -> Self {
        let (wire, more) = (self.wire, other.wire);
        Self {
            sent_count: self.sent_count + other.sent_count,
            wire: WireCounters {
                received_count: wire.received_count + more.received_count,
                lost_there_count: wire.lost_there_count + more.lost_there_count,
                lost_back_count: wire.lost_back_count + more.lost_back_count,
            },
            answered_count: self.answered_count + other.answered_count,
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} frames sent, {} received ({} found no room), {} answers seen ({} found no room)",
            self.sent_count,
            self.wire.received_count,
            self.wire.lost_there_count,
            self.answered_count,
            self.wire.lost_back_count
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(received: u64, lost_there: u64, answered: u64, lost_back: u64) -> Ledger {
        Ledger {
            sent_count: 100,
            wire: WireCounters {
                received_count: received,
                lost_there_count: lost_there,
                lost_back_count: lost_back,
            },
            answered_count: answered,
        }
    }

    #[test]
    fn every_frame_is_either_through_or_lost() {
        assert!(ledger(90, 10, 85, 5).is_balanced(Action::Transmit));
        assert!(ledger(90, 10, 0, 0).is_balanced(Action::Drop));
    }

    #[test]
    fn a_missing_or_a_foreign_frame_is_noticed() {
        for (ledger, action) in [
            (ledger(99, 0, 99, 0), Action::Transmit),
            (ledger(101, 0, 101, 0), Action::Transmit),
            (ledger(100, 0, 99, 0), Action::Transmit),
            (ledger(100, 0, 100, 1), Action::Transmit),
            (ledger(99, 0, 0, 0), Action::Drop),
            (ledger(100, 0, 1, 0), Action::Drop),
        ] {
            assert!(!ledger.is_balanced(action), "{ledger}");
        }
    }

    #[test]
    fn only_whole_journeys_count() {
        let ledger = ledger(90, 10, 85, 5);
        assert_eq!(ledger.through_count(Action::Transmit), 85);
        assert_eq!(ledger.through_count(Action::Drop), 90);
        assert_eq!(ledger.lost_count(), 15);
    }
}

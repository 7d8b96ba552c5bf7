//! When what passes by puts a backend in doubt, without anybody having asked it.

use serde::{Deserialize, Serialize};

/// The shares from which on a backend is in doubt. It is asked at once then, and the next bad answer
/// counts as its last: what passes by does not take a backend down alone, since anybody can send a SYN
/// twice, or an RST.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doubt {
    /// SYNs that were sent once more, of all SYNs; `None` = never. Unit: per cent.
    pub repeated_syns_percent: Option<u8>,
    /// RSTs, of the clients and, with NAT, of the backend, for each new flow; `None` = never. Unit: per cent.
    pub resets_percent: Option<u8>,
}

/// What has passed by of one backend between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// SYNs.
    pub new_flows: u64,
    /// Those among them that had come before.
    pub repeated_syns: u64,
    /// RSTs, of either side.
    pub resets: u64,
}

impl Passed {
    /// What has passed since `before`. Counts that fall began anew: then nothing has.
    pub fn since(&self, before: &Self) -> Self {
        Self {
            new_flows: self.new_flows.saturating_sub(before.new_flows),
            repeated_syns: self.repeated_syns.saturating_sub(before.repeated_syns),
            resets: self.resets.saturating_sub(before.resets),
        }
    }
}

/// Of fewer new flows nothing is concluded.
pub const NEW_FLOWS_MIN: u64 = 10;

impl Doubt {
    /// Whether anything can lead to doubt.
    pub fn is_on(&self) -> bool {
        self.repeated_syns_percent.is_some() || self.resets_percent.is_some()
    }

    /// Why the backend is in doubt, by what has passed between two looks; `None` = it is not.
    pub fn reason(&self, passed: &Passed) -> Option<String> {
        if passed.new_flows < NEW_FLOWS_MIN {
            return None;
        }
        let new_flows = passed.new_flows;
        let is_reached = |count: u64, percent: Option<u8>| {
            percent.is_some_and(|percent| count * 100 >= new_flows * u64::from(percent))
        };
        let (repeated, resets) = (passed.repeated_syns, passed.resets);
        if is_reached(repeated, self.repeated_syns_percent) {
            return Some(format!(
                "{repeated} of {new_flows} SYNs within a second were repeated ones"
            ));
        }
        is_reached(resets, self.resets_percent)
            .then(|| format!("{resets} resets for {new_flows} new connections within a second"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOUBT: Doubt = Doubt {
        repeated_syns_percent: Some(20),
        resets_percent: Some(50),
    };

    fn passed(new_flows: u64, repeated_syns: u64, resets: u64) -> Passed {
        Passed {
            new_flows,
            repeated_syns,
            resets,
        }
    }

    #[test]
    fn a_share_is_reached_or_not() {
        assert_eq!(DOUBT.reason(&passed(100, 19, 49)), None);
        let repeated = DOUBT.reason(&passed(100, 20, 0));
        assert_eq!(
            repeated.as_deref(),
            Some("20 of 100 SYNs within a second were repeated ones")
        );
        let reset = DOUBT.reason(&passed(10, 0, 5));
        assert_eq!(
            reset.as_deref(),
            Some("5 resets for 10 new connections within a second")
        );
    }

    #[test]
    fn of_a_few_flows_nothing_is_concluded() {
        assert_eq!(DOUBT.reason(&passed(NEW_FLOWS_MIN - 1, 9, 9)), None);
    }

    #[test]
    fn without_shares_there_is_no_doubt() {
        assert!(!Doubt::default().is_on());
        assert_eq!(Doubt::default().reason(&passed(100, 100, 100)), None);
    }
}

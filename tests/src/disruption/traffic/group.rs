//! What flows do.

use std::fmt;

use serde::Serialize;

/// What a flow does. Each kind breaks, and is noticed to break, in its own way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// A record there and back every 100 to 200 ms.
    Active,
    /// As active, but silent for most of the services' idle time-out.
    Idle,
    /// HTTP requests to nginx over one connection.
    Requests,
    /// A slow download from nginx.
    Download,
    /// A slow chunked upload to nginx.
    Upload,
    /// A download whose client has sent its last byte long ago.
    HalfClosed,
    /// Datagrams there and back at a constant rate.
    Datagrams,
    /// Records there and back at a constant rate.
    Stream,
}

/// Out of a hundred flows. What is missing is [`Group::Active`].
const SHARES: [(Group, usize); 7] = [
    (Group::Idle, 25),
    (Group::Requests, 10),
    (Group::Download, 8),
    (Group::Upload, 6),
    (Group::HalfClosed, 8),
    (Group::Datagrams, 4),
    (Group::Stream, 2),
];

impl Group {
    /// Flows of each kind out of `total`; at least one of each.
    pub fn shares(total: usize, has_datagrams: HasDatagrams) -> Vec<(Self, usize)> {
        let kinds = SHARES
            .iter()
            .filter(|(group, _)| *group != Self::Datagrams || has_datagrams == HasDatagrams::Yes);
        let mut shares: Vec<(Self, usize)> = kinds
            .map(|(group, percent)| (*group, (total * percent / 100).max(1)))
            .collect();
        let rest = total.saturating_sub(shares.iter().map(|(_, count)| count).sum());
        shares.push((Self::Active, rest.max(1)));
        shares
    }
}

/// Whether the balancer under test carries UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HasDatagrams {
    /// It does.
    Yes,
    /// It does not.
    No,
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Idle => "idle",
            Self::Requests => "requests",
            Self::Download => "download",
            Self::Upload => "upload",
            Self::HalfClosed => "half-closed",
            Self::Datagrams => "datagrams",
            Self::Stream => "stream",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_add_up_and_no_kind_is_missing() {
        for (has_datagrams, kinds) in [(HasDatagrams::Yes, 8), (HasDatagrams::No, 7)] {
            for total in [20, 50, 1000] {
                let shares = Group::shares(total, has_datagrams);
                assert_eq!(shares.iter().map(|(_, count)| count).sum::<usize>(), total);
                assert!(shares.len() == kinds && shares.iter().all(|(_, count)| *count > 0));
            }
        }
    }
}

//! Whether requests were shared out as they should be.

use anyhow::{Result, ensure};

use crate::client::Counts;

/// How many standard deviations a count may be from its expectation.
///
/// With Maglev every connection is sent by a keyed hash of its addresses and ports, with a key drawn at
/// the daemon's start: so the requests of a backend with the share p of the ring are binomially
/// distributed, with the standard deviation √(n·p·(1−p)). Beyond five of them lies less than one count in
/// a million. Some 100 counts are looked at in a run of the suite, so one run in 10,000 fails by chance.
const DEVIATIONS_MAX: f64 = 5.0;

/// How far a backend's share of a ring may be from its share of the weights: 1 %, see the property tests
/// of the ring.
const RING_ERROR_MAX: f64 = 0.01;

/// Checks that the requests are spread by chance, in proportion to the weights.
pub fn follow_weights(counts: &Counts, weights: &[(&str, u32)]) -> Result<()> {
    let (total, request_count) = totals(counts, weights)?;
    for (backend, weight) in weights {
        let share = f64::from(*weight) / total;
        let deviation = (request_count * share * (1.0 - share)).sqrt();
        let expected = request_count * share;
        let tolerance = DEVIATIONS_MAX * deviation + RING_ERROR_MAX * expected;
        let found = f64::from(counts.get(*backend).copied().unwrap_or(0));
        ensure!(
            (found - expected).abs() <= tolerance,
            "{backend}: {found} requests of {request_count}; {expected:.0} ± {tolerance:.0} would do: \
             {counts:?}"
        );
    }
    Ok(())
}

/// Checks that equal backends have had the same number of requests, but for one.
pub fn take_turns(counts: &Counts, backends: &[&str]) -> Result<()> {
    let equal: Vec<(&str, u32)> = backends.iter().map(|backend| (*backend, 1)).collect();
    totals(counts, &equal)?;
    let of = |backend: &&str| counts.get(*backend).copied().unwrap_or(0);
    let most = backends.iter().map(of).max().unwrap_or(0);
    let least = backends.iter().map(of).min().unwrap_or(0);
    ensure!(
        most - least <= 1,
        "requests differ by {}, not by one at the most: {counts:?}",
        most - least
    );
    Ok(())
}

/// The sum of the weights, and of the requests; no request went anywhere else.
fn totals(counts: &Counts, weights: &[(&str, u32)]) -> Result<(f64, f64)> {
    let request_count: u32 = counts.values().sum();
    ensure!(request_count > 0, "there were no requests");
    for backend in counts.keys() {
        ensure!(
            weights.iter().any(|(known, _)| known == backend),
            "{backend:?} should have had no request: {counts:?}"
        );
    }
    let total: u32 = weights.iter().map(|(_, weight)| weight).sum();
    Ok((f64::from(total), f64::from(request_count)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(entries: &[(&str, u32)]) -> Counts {
        let owned = |(name, count): &(&str, u32)| ((*name).to_owned(), *count);
        entries.iter().map(owned).collect()
    }

    #[test]
    fn wrong_weights_are_told_from_chance() {
        let weights = [("web1", 1), ("web2", 2), ("web3", 3)];
        let by_weight = counts(&[("web1", 88), ("web2", 211), ("web3", 301)]);
        follow_weights(&by_weight, &weights).unwrap();
        let equal = counts(&[("web1", 200), ("web2", 200), ("web3", 200)]);
        assert!(follow_weights(&equal, &weights).is_err());
        let missing = counts(&[("web2", 220), ("web3", 380)]);
        assert!(follow_weights(&missing, &weights).is_err());
        assert!(follow_weights(&counts(&[("web9", 600)]), &weights).is_err());
        assert!(follow_weights(&counts(&[]), &weights).is_err());
    }

    #[test]
    fn turns_differ_by_one_at_the_most() {
        let all = ["web1", "web2"];
        take_turns(&counts(&[("web1", 5), ("web2", 6)]), &all).unwrap();
        assert!(take_turns(&counts(&[("web1", 5), ("web2", 7)]), &all).is_err());
        assert!(take_turns(&counts(&[("web1", 5)]), &all).is_err());
        assert!(take_turns(&counts(&[("web1", 1), ("web3", 1)]), &all).is_err());
    }
}

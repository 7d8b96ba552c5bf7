//! Whether a database is what a check requires: writable, replicating, close behind.

use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::Replication;

/// What a server says of where its data come from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Replica {
    /// `None` = this server replicates from nobody.
    pub(super) is_running: Option<bool>,
    /// How far it is behind; `None` = unknown, or no replica. Unit: seconds.
    pub(super) lag_s: Option<u32>,
    /// In words what does not run, if something does not.
    pub(super) trouble: String,
}

impl Replica {
    pub(super) fn observed(&self, observed: &mut Observed) {
        observed.replication_running = self.is_running;
        observed.lag_s = self.lag_s;
    }
}

/// Whether running and lag have to be found out.
pub(super) fn is_about_replicas(wanted: &Replication) -> bool {
    wanted.observe || wanted.must_run || wanted.max_lag_s.is_some()
}

/// Whether anything has to be found out.
pub(super) fn is_about_role(wanted: &Replication) -> bool {
    is_about_replicas(wanted) || wanted.writable.is_some()
}

/// Whether what was found is what is required.
///
/// A server that replicates from nobody and accepts writes is a primary, and nothing is required of its
/// replication; one that accepts none is a replica that has lost its source.
pub(super) fn judge(
    wanted: &Replication,
    observed: &Observed,
    replica: &Replica,
) -> Result<(), Failure> {
    let is_writable = observed.writable.unwrap_or(false);
    match wanted.writable {
        Some(true) if !is_writable => return Err(unexpected("the server is read-only")),
        Some(false) if is_writable => return Err(unexpected("the server accepts writes")),
        _ => {}
    }
    if !wanted.must_run && wanted.max_lag_s.is_none() {
        return Ok(());
    }
    match replica.is_running {
        None if is_writable => Ok(()),
        None => Err(unexpected(
            "the server is read-only, and replicates from nobody",
        )),
        Some(false) => Err(unexpected(&replica.trouble)),
        Some(true) => judge_lag(wanted.max_lag_s, replica.lag_s),
    }
}

fn judge_lag(lag_max_s: Option<u32>, lag_s: Option<u32>) -> Result<(), Failure> {
    match (lag_max_s, lag_s) {
        (None, _) => Ok(()),
        (Some(_), None) => Err(unexpected("the replica does not know how far it is behind")),
        (Some(max), Some(lag)) if lag > max => Err(unexpected(&format!(
            "replica is {lag} s behind, more than max_lag {max} s"
        ))),
        _ => Ok(()),
    }
}

/// A server that answers, and is not what is wanted.
pub(super) fn unexpected(reason: &str) -> Failure {
    Failure::new(FailureKind::Unexpected, reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(
        wanted: &Replication,
        is_writable: bool,
        is_running: Option<bool>,
        lag_s: Option<u32>,
    ) -> Result<(), String> {
        let observed = Observed {
            writable: Some(is_writable),
            ..Observed::default()
        };
        let replica = Replica {
            is_running,
            lag_s,
            trouble: "the replica is not fetching".to_owned(),
        };
        judge(wanted, &observed, &replica).map_err(|failure| failure.reason)
    }

    fn following() -> Replication {
        Replication {
            must_run: true,
            max_lag_s: Some(10),
            ..Replication::default()
        }
    }

    #[test]
    fn a_replica_is_well_up_to_its_lag() {
        let lag = |lag_s| judged(&following(), false, Some(true), lag_s);
        assert_eq!(lag(Some(10)), Ok(()));
        assert_eq!(
            lag(Some(11)).unwrap_err(),
            "replica is 11 s behind, more than max_lag 10 s"
        );
        assert_eq!(
            lag(None).unwrap_err(),
            "the replica does not know how far it is behind"
        );
    }

    #[test]
    fn a_replica_that_does_not_run_is_not_well_whatever_its_lag() {
        assert_eq!(
            judged(&following(), false, Some(false), Some(0)).unwrap_err(),
            "the replica is not fetching"
        );
    }

    #[test]
    fn a_primary_needs_no_replication_and_a_lost_replica_does() {
        assert_eq!(judged(&following(), true, None, None), Ok(()));
        assert_eq!(
            judged(&following(), false, None, None).unwrap_err(),
            "the server is read-only, and replicates from nobody"
        );
    }

    #[test]
    fn the_role_is_judged() {
        let role = |writable| Replication {
            writable: Some(writable),
            ..Replication::default()
        };
        assert_eq!(judged(&role(true), true, None, None), Ok(()));
        assert_eq!(judged(&role(false), false, None, None), Ok(()));
        assert_eq!(
            judged(&role(true), false, Some(true), Some(0)).unwrap_err(),
            "the server is read-only"
        );
        assert_eq!(
            judged(&role(false), true, None, None).unwrap_err(),
            "the server accepts writes"
        );
    }

    #[test]
    fn where_nothing_is_required_all_is_well() {
        let nothing = Replication::default();
        assert!(!is_about_role(&nothing));
        assert_eq!(judged(&nothing, false, Some(false), None), Ok(()));
    }
}

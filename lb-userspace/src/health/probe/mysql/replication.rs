//! Whether a server is what a check requires: writable, replicating, close behind, past a position.

use std::collections::BTreeMap;

use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::Replication;

use super::result::{Row, Table};

/// Whether writes are accepted, from a row of read-only variables: each must be off.
pub(super) fn is_writable(read_only: &Table) -> Option<bool> {
    let row = read_only.rows().next()?;
    Some(row.values().all(|value| matches!(value, Some("0" | "OFF"))))
}

/// What SHOW REPLICA STATUS says, of all channels together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Replica {
    /// `None` = this server replicates from nobody.
    pub(super) is_running: Option<bool>,
    /// Of the channel that is furthest behind; `None` = unknown. Unit: seconds.
    pub(super) lag_s: Option<u32>,
    /// Which thread of which channel does not run, and what it said last.
    pub(super) trouble: String,
}

impl Replica {
    pub(super) fn of(status: &Table) -> Self {
        let channels: Vec<Channel> = status.rows().map(Channel::of).collect();
        if channels.is_empty() {
            return Self::default();
        }
        let lags: Option<Vec<u32>> = channels.iter().map(|channel| channel.lag_s).collect();
        Self {
            is_running: Some(channels.iter().all(|channel| channel.trouble.is_none())),
            lag_s: lags.and_then(|lags| lags.into_iter().max()),
            trouble: channels
                .into_iter()
                .find_map(|channel| channel.trouble)
                .unwrap_or_default(),
        }
    }
}

/// One source of a replica.
struct Channel {
    lag_s: Option<u32>,
    trouble: Option<String>,
}

impl Channel {
    /// The names of MySQL 8.0.22 and later, and those of MariaDB and of before.
    fn of(row: Row<'_>) -> Self {
        let fetching = ["Replica_IO_Running", "Slave_IO_Running"];
        let applying = ["Replica_SQL_Running", "Slave_SQL_Running"];
        let lag = row.get(&["Seconds_Behind_Source", "Seconds_Behind_Master"]);
        let trouble = thread_trouble(row, &fetching, "Last_IO_Error", "fetching")
            .or_else(|| thread_trouble(row, &applying, "Last_SQL_Error", "applying"));
        Self {
            lag_s: lag.and_then(|seconds| seconds.parse().ok()),
            trouble,
        }
    }
}

fn thread_trouble(row: Row<'_>, state: &[&str], error: &str, doing: &str) -> Option<String> {
    let state = row.get(state).unwrap_or("unknown");
    if state == "Yes" {
        return None;
    }
    let what = match state {
        "No" => format!("the replica is not {doing}"),
        other => format!("the replica is not {doing} ({other})"),
    };
    Some(
        match without_statement(row.get(&[error]).unwrap_or_default()) {
            "" => what,
            error => format!("{what}: {error}"),
        },
    )
}

/// A server's error quotes the statement that failed last. That may be a CREATE USER with its password,
/// and has no place in a log.
fn without_statement(error: &str) -> &str {
    [" on query.", "Query:"]
        .iter()
        .filter_map(|begin| error.find(begin))
        .min()
        .map_or(error, |end| &error[..end])
        .trim_end()
}

/// Whether what was observed is what is required, GTID aside.
///
/// A server that replicates from nobody and accepts writes is a primary, and nothing is required of its
/// replication; one that does not is a replica that has lost its source.
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

pub(super) fn unexpected(reason: &str) -> Failure {
    Failure::new(FailureKind::Unexpected, reason)
}

/// The GTID position that a check waits for, in the words of either product.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum GtidWanted {
    /// MariaDB: `domain-server-sequence`, separated by commas.
    Mariadb(BTreeMap<u32, u64>),
    /// MySQL: `uuid:1-100`, which the server compares itself. Safe between quotes.
    Mysql(String),
}

impl GtidWanted {
    /// # Errors
    /// [`FailureKind::Local`] if it is of the other product, or of none.
    pub(super) fn parse(text: &str, is_mariadb: bool) -> Result<Self, Failure> {
        let (parsed, form) = if is_mariadb {
            (
                positions(text).map(Self::Mariadb),
                "MariaDB, where it is domain-server-sequence",
            )
        } else {
            let set: String = text.chars().filter(|one| !one.is_whitespace()).collect();
            let is_safe = |one: char| one.is_ascii_alphanumeric() || "-:,_".contains(one);
            let is_set = set.contains(':') && set.chars().all(is_safe);
            (
                is_set.then_some(Self::Mysql(set)),
                "MySQL, where it is uuid:first-last",
            )
        };
        parsed.ok_or_else(|| {
            Failure::new(
                FailureKind::Local,
                format!("gtid = {text:?} is no position of {form}"),
            )
        })
    }
}

/// MariaDB's position: the last sequence number of each domain.
pub(super) fn positions(text: &str) -> Option<BTreeMap<u32, u64>> {
    text.split(',')
        .map(str::trim)
        .filter(|one| !one.is_empty())
        .map(|one| {
            let mut parts = one.split('-');
            let domain = parts.next()?.parse().ok()?;
            let _server: u32 = parts.next()?.parse().ok()?;
            let sequence = parts.next()?.parse().ok()?;
            parts.next().is_none().then_some((domain, sequence))
        })
        .collect()
}

/// Whether a position lies at or behind another in each of its domains.
pub(super) fn has_reached(is_at: &BTreeMap<u32, u64>, wanted: &BTreeMap<u32, u64>) -> bool {
    wanted
        .iter()
        .all(|(domain, sequence)| is_at.get(domain).is_some_and(|at| at >= sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARIADB: [&str; 5] = [
        "Slave_IO_Running",
        "Slave_SQL_Running",
        "Seconds_Behind_Master",
        "Last_IO_Error",
        "Last_SQL_Error",
    ];

    fn judged(
        wanted: &Replication,
        writable: bool,
        rows: &[&[Option<&str>]],
    ) -> Result<(), String> {
        let observed = Observed {
            writable: Some(writable),
            ..Observed::default()
        };
        judge(wanted, &observed, &Replica::of(&Table::of(&MARIADB, rows)))
            .map_err(|failure| failure.reason)
    }

    fn following() -> Replication {
        Replication {
            must_run: true,
            max_lag_s: Some(10),
            ..Replication::default()
        }
    }

    #[test]
    fn writable_means_that_no_variable_says_otherwise() {
        let is_writable_at =
            |values: &[Option<&str>]| is_writable(&Table::of(&["a", "b"], &[values]));
        assert_eq!(is_writable_at(&[Some("0"), Some("OFF")]), Some(true));
        assert_eq!(is_writable_at(&[Some("0"), Some("1")]), Some(false));
        assert_eq!(is_writable_at(&[Some("NO_LOCK"), Some("0")]), Some(false));
        assert_eq!(is_writable_at(&[None, Some("0")]), Some(false));
        assert_eq!(is_writable(&Table::default()), None);
    }

    #[test]
    fn a_replica_within_its_lag_is_well() {
        let row = [Some("Yes"), Some("Yes"), Some("10"), Some(""), Some("")];
        assert_eq!(judged(&following(), false, &[&row]), Ok(()));
    }

    #[test]
    fn the_channel_that_is_furthest_behind_counts() {
        let near = [Some("Yes"), Some("Yes"), Some("0"), Some(""), Some("")];
        let far = [Some("Yes"), Some("Yes"), Some("42"), Some(""), Some("")];
        assert_eq!(
            judged(&following(), false, &[&near, &far]).unwrap_err(),
            "replica is 42 s behind, more than max_lag 10 s"
        );
    }

    #[test]
    fn a_stopped_thread_is_named_with_its_error() {
        let stopped = [
            Some("Yes"),
            Some("No"),
            None,
            Some(""),
            Some("Duplicate entry"),
        ];
        assert_eq!(
            judged(&following(), false, &[&stopped]).unwrap_err(),
            "the replica is not applying: Duplicate entry"
        );
        let connecting = [Some("Connecting"), Some("Yes"), None, Some(""), Some("")];
        assert_eq!(
            judged(&following(), false, &[&connecting]).unwrap_err(),
            "the replica is not fetching (Connecting)"
        );
    }

    #[test]
    fn the_statement_that_failed_is_not_repeated() {
        let error = "Error 'Plugin is not loaded' on query. Default database: ''. Query: 'create user \
                     a identified by 's3cret''";
        let stopped = [Some("Yes"), Some("No"), None, Some(""), Some(error)];
        assert_eq!(
            judged(&following(), false, &[&stopped]).unwrap_err(),
            "the replica is not applying: Error 'Plugin is not loaded'"
        );
    }

    #[test]
    fn a_primary_needs_no_replication_and_a_lost_replica_does() {
        assert_eq!(judged(&following(), true, &[]), Ok(()));
        assert_eq!(
            judged(&following(), false, &[]).unwrap_err(),
            "the server is read-only, and replicates from nobody"
        );
    }

    #[test]
    fn the_role_is_judged() {
        let role = |writable| Replication {
            writable: Some(writable),
            ..Replication::default()
        };
        assert_eq!(judged(&role(true), true, &[]), Ok(()));
        assert_eq!(judged(&role(false), false, &[]), Ok(()));
        assert_eq!(
            judged(&role(true), false, &[]).unwrap_err(),
            "the server is read-only"
        );
        assert_eq!(
            judged(&role(false), true, &[]).unwrap_err(),
            "the server accepts writes"
        );
    }

    #[test]
    fn mariadbs_positions_are_compared_by_domain() {
        let at = |text| positions(text).unwrap();
        assert!(has_reached(&at("0-1-100,1-2-5"), &at("0-7-100")));
        assert!(!has_reached(&at("0-1-99,1-2-5"), &at("0-1-100")));
        assert!(!has_reached(&at("0-1-100"), &at("0-1-1,2-1-1")));
        assert!(has_reached(&at(""), &at("")));
        for malformed in ["0-1", "a-b-c", "0-1-2-3", "uuid:1-5"] {
            assert_eq!(positions(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn a_position_of_the_other_product_is_refused_and_so_is_a_quote() {
        assert!(GtidWanted::parse("0-1-100", true).is_ok());
        assert!(GtidWanted::parse("3E11FA47-71CA-11E1-9E33-C80AA9429562:1-5", false).is_ok());
        for (text, is_mariadb) in [
            ("3E11FA47:1-5", true),
            ("0-1-100", false),
            ("a:1') OR ('", false),
        ] {
            let failure = GtidWanted::parse(text, is_mariadb).unwrap_err();
            assert_eq!(failure.kind, FailureKind::Local, "{failure}");
        }
    }
}

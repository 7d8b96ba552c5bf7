//! What a server says of itself: writable, replicating, close behind, past a position.

use std::collections::BTreeMap;

use crate::health::outcome::{Failure, FailureKind};
use crate::health::probe::replication::Replica;

use super::result::{Row, Table};

/// Whether writes are accepted, from a row of read-only variables: each must be off.
pub(super) fn is_writable(read_only: &Table) -> Option<bool> {
    let row = read_only.rows().next()?;
    Some(row.values().all(|value| matches!(value, Some("0" | "OFF"))))
}

/// What SHOW REPLICA STATUS says, of all channels together.
pub(super) fn replica(status: &Table) -> Replica {
    let channels: Vec<Channel> = status.rows().map(Channel::of).collect();
    if channels.is_empty() {
        return Replica::default();
    }
    let lags: Option<Vec<u32>> = channels.iter().map(|channel| channel.lag_s).collect();
    Replica {
        is_running: Some(channels.iter().all(|channel| channel.trouble.is_none())),
        lag_s: lags.and_then(|lags| lags.into_iter().max()),
        trouble: channels
            .into_iter()
            .find_map(|channel| channel.trouble)
            .unwrap_or_default(),
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

    fn said(rows: &[&[Option<&str>]]) -> Replica {
        replica(&Table::of(&MARIADB, rows))
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
    fn the_channel_that_is_furthest_behind_counts() {
        let near = [Some("Yes"), Some("Yes"), Some("0"), Some(""), Some("")];
        let far = [Some("Yes"), Some("Yes"), Some("42"), Some(""), Some("")];
        let both = said(&[&near, &far]);
        assert_eq!((both.is_running, both.lag_s), (Some(true), Some(42)));
    }

    #[test]
    fn one_stopped_channel_stops_the_replica_and_its_lag_is_unknown() {
        let near = [Some("Yes"), Some("Yes"), Some("0"), Some(""), Some("")];
        let stopped = [Some("No"), Some("Yes"), None, Some(""), Some("")];
        let both = said(&[&near, &stopped]);
        assert_eq!((both.is_running, both.lag_s), (Some(false), None));
        assert_eq!(both.trouble, "the replica is not fetching");
    }

    #[test]
    fn who_has_no_channel_is_no_replica() {
        assert_eq!(said(&[]), Replica::default());
    }

    #[test]
    fn a_stopped_thread_is_named_with_its_error() {
        let error = Some("Duplicate entry");
        let stopped = [Some("Yes"), Some("No"), None, Some(""), error];
        assert_eq!(
            said(&[&stopped]).trouble,
            "the replica is not applying: Duplicate entry"
        );
        let connecting = [Some("Connecting"), Some("Yes"), None, Some(""), Some("")];
        assert_eq!(
            said(&[&connecting]).trouble,
            "the replica is not fetching (Connecting)"
        );
    }

    #[test]
    fn the_statement_that_failed_is_not_repeated() {
        let error = "Error 'Plugin is not loaded' on query. Default database: ''. Query: 'create user \
                     a identified by 's3cret''";
        let stopped = [Some("Yes"), Some("No"), None, Some(""), Some(error)];
        assert_eq!(
            said(&[&stopped]).trouble,
            "the replica is not applying: Error 'Plugin is not loaded'"
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

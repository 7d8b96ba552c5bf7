//! PostgreSQL: a client that signs in, asks what it was told to ask, and says farewell.
//!
//! The messages are postgres-protocol's; the conversation is this module's own, so that each message is
//! bounded before it is read, no task outlives the probe, and the server's close is waited for.

mod session;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::session::{Rows, Session};
use super::replication::{Replica, is_about_role, judge};
use super::{Target, connect, secret};
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::PostgresCheck;

/// How long a server may take to close before it is left without more ado. The result is known by then.
const FAREWELL_MAX: Duration = Duration::from_millis(200);

/// One row: is it a standby; does a transaction begin as one that may write; is WAL being received; is
/// its replay paused; how long ago was the transaction that was replayed last, in seconds; up to where has
/// WAL been received, unless it is replayed up to there.
///
/// What has been received and replayed to its end is 0 seconds behind, however long ago the last
/// transaction was. The columns of `pg_stat_wal_receiver` but the process are NULL for a user without
/// `pg_read_all_stats`.
const STATE: &str = "\
    SELECT standby, current_setting('transaction_read_only') = 'off', \
    standby AND EXISTS (SELECT FROM pg_catalog.pg_stat_wal_receiver \
    WHERE pid IS NOT NULL AND coalesce(status, 'streaming') = 'streaming'), \
    CASE WHEN standby THEN pg_catalog.pg_is_wal_replay_paused() END, \
    CASE WHEN standby AND pg_catalog.pg_last_wal_receive_lsn() = pg_catalog.pg_last_wal_replay_lsn() \
    THEN 0 WHEN standby THEN greatest(0, floor(extract(epoch FROM \
    pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp())))::bigint END, \
    CASE WHEN standby THEN nullif(pg_catalog.pg_last_wal_receive_lsn(), \
    pg_catalog.pg_last_wal_replay_lsn()) END \
    FROM (SELECT pg_catalog.pg_is_in_recovery() AS standby) AS role";

/// How often, and how far apart, a standby is asked whether it has caught up with what it had received.
/// With a primary that was idle for an hour, a standby that has yet to replay the first transaction after
/// it says that it is an hour behind, and is not a moment later.
const CATCH_UP_TRIES: usize = 3;
const CATCH_UP_PAUSE: Duration = Duration::from_millis(20);

/// Signs in and examines the server.
pub(super) async fn postgres(
    check: &PostgresCheck,
    target: Target,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let password = secret::read(check.password.as_ref()).await?;
    let stream = connect::open(target, observed).await?;
    let mut session = Session::over(stream, password.as_ref());
    observed.doing = "signing in".into();
    let result = examine(&mut session, check, observed).await;
    observed.doing = "quitting".into();
    // The time-out is the server's loss: its connection is reset.
    let _ = tokio::time::timeout(FAREWELL_MAX, session.terminate()).await;
    result
}

async fn examine(
    session: &mut Session<'_>,
    check: &PostgresCheck,
    observed: &mut Observed,
) -> Result<(), Failure> {
    session.sign_in(&check.user, &check.database).await?;
    if !check.query.is_empty() {
        observed.doing = "waiting for the query's answer".into();
        session.query(&check.query, "the check's query").await?;
    }
    if !is_about_role(&check.replication) {
        return Ok(());
    }
    observed.doing = "asking for replication".into();
    let rows = session.query(STATE, "asking for replication").await?;
    let mut state = State::of(&rows)?;
    if state.is_behind() && catches_up(session, &state.received).await? {
        state.lag_s = Some(0);
    }
    let replica = state.replica();
    observed.writable = Some(state.is_writable);
    replica.observed(observed);
    judge(&check.replication, observed, &replica)
}

/// Whether a standby soon has replayed what it had received when it was asked first.
async fn catches_up(session: &mut Session<'_>, received: &str) -> Result<bool, Failure> {
    let sql = format!("SELECT pg_catalog.pg_last_wal_replay_lsn() >= '{received}'");
    for _ in 0..CATCH_UP_TRIES {
        tokio::time::sleep(CATCH_UP_PAUSE).await;
        let rows = session.query(&sql, "asking for replication").await?;
        if rows == [[Some("t".to_owned())]] {
            return Ok(true);
        }
    }
    Ok(false)
}

/// What [`STATE`] answers.
#[derive(Debug, PartialEq, Eq)]
struct State {
    is_standby: bool,
    is_writable: bool,
    is_receiving: bool,
    is_paused: bool,
    lag_s: Option<u32>,
    /// A position of WAL (two hexadecimal numbers and a slash), or empty.
    received: String,
}

impl State {
    fn of(rows: &Rows) -> Result<Self, Failure> {
        let [row] = rows.as_slice() else {
            return Err(malformed());
        };
        let [standby, writable, receiving, paused, lag_s, received] = row.as_slice() else {
            return Err(malformed());
        };
        let is_position = |text: &&str| {
            text.chars()
                .all(|one| one.is_ascii_hexdigit() || one == '/')
        };
        let is = |value: &Option<String>| value.as_deref() == Some("t");
        Ok(Self {
            is_standby: is(standby),
            is_writable: !is(standby) && is(writable),
            is_receiving: is(receiving),
            is_paused: is(paused),
            lag_s: lag_s.as_ref().and_then(|seconds| seconds.parse().ok()),
            received: received
                .as_deref()
                .filter(is_position)
                .unwrap_or_default()
                .to_owned(),
        })
    }

    /// It replays, and there is something left to replay.
    fn is_behind(&self) -> bool {
        self.is_standby && !self.is_paused && self.lag_s != Some(0) && !self.received.is_empty()
    }

    fn replica(&self) -> Replica {
        if !self.is_standby {
            return Replica::default();
        }
        let trouble = match (self.is_receiving, self.is_paused) {
            (false, _) => "the standby receives no WAL from a primary",
            (true, true) => "the standby's replay is paused",
            (true, false) => "",
        };
        Replica {
            is_running: Some(trouble.is_empty()),
            lag_s: self.lag_s,
            trouble: trouble.to_owned(),
        }
    }
}

fn malformed() -> Failure {
    Failure::new(
        FailureKind::Protocol,
        "the answer about replication has other rows and columns than were asked for",
    )
}

//! MySQL and MariaDB: a client that signs in, asks what it was told to ask, and says farewell, so that
//! the server counts no aborted connection.
//!
//! The client is this module's own. A health check must survive any bytes (bounded packets, no panic on
//! a malformed key), speak over any stream and wait for the server's close: general clients promise none
//! of it.
//!
//! The connection is not encrypted. `caching_sha2_password` then has the server's RSA key sent first, and
//! whoever can change what the connection carries can put another in its place and read the password. So a
//! check deserves a user of its own, who may do no more than it asks: `REPLICATION CLIENT` (MySQL) or `REPLICA
//! MONITOR, BINLOG MONITOR` (MariaDB) for replication, nothing for the rest.

mod login;
mod packet;
mod replication;
mod result;
mod scramble;
#[cfg(test)]
mod tests;

use std::time::Duration;

use self::packet::{Packets, Refusal};
use self::replication::GtidWanted;
use self::result::Table;
use super::replication::{Replica, is_about_replicas, is_about_role, judge, unexpected};
use super::{Target, connect, secret};
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::{MysqlCheck, Replication};

/// How long a server may take to close after COM_QUIT before it is left without more ado. The result is
/// known by then.
const FAREWELL_MAX: Duration = Duration::from_millis(200);

/// Signs in and examines the server.
pub(super) async fn mysql(
    check: &MysqlCheck,
    target: Target,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let password = secret::read(check.password.as_ref()).await?;
    let mut packets = Packets::over(connect::open(target, observed).await?);
    observed.doing = "connected, and waiting for the greeting".into();
    let greeting = login::greeting(&mut packets).await?;
    observed.doing = "signing in".into();
    login::sign_in(&mut packets, &greeting, &check.user, password.as_ref()).await?;
    let mut session = Session {
        packets,
        is_mariadb: greeting.version.contains("MariaDB"),
    };
    let result = session.examine(check, observed).await;
    observed.doing = "quitting".into();
    session.quit().await;
    result
}

/// A server that has let us in.
struct Session {
    packets: Packets,
    is_mariadb: bool,
}

impl Session {
    async fn examine(
        &mut self,
        check: &MysqlCheck,
        observed: &mut Observed,
    ) -> Result<(), Failure> {
        observed.doing = "signed in, and waiting for an answer".into();
        if check.query.is_empty() {
            // COM_PING: also a server that lets clients in may be unable to answer.
            self.packets
                .command(&[PING], "asking for an answer")
                .await?;
            let answer = self
                .packets
                .expect("waiting for the answer to a ping")
                .await;
            answer.map_err(|refusal| not_answered(refusal, "ping"))?;
        } else {
            self.ask(&check.query, "the check's query").await?;
        }
        let wanted = &check.replication;
        let replica = self.observe(wanted, observed).await?;
        judge(wanted, observed, &replica)?;
        match wanted.gtid.as_str() {
            "" => Ok(()),
            gtid => self.has_applied(gtid).await,
        }
    }

    /// Finds out what is required or wanted to be known, and nothing else.
    async fn observe(
        &mut self,
        wanted: &Replication,
        observed: &mut Observed,
    ) -> Result<Replica, Failure> {
        observed.doing = "asking for replication".into();
        if is_about_role(wanted) {
            let read_only = self.read_only().await?;
            observed.writable = replication::is_writable(&read_only);
        }
        if !is_about_replicas(wanted) {
            return Ok(Replica::default());
        }
        let replica = replication::replica(&self.replica_status().await?);
        replica.observed(observed);
        Ok(replica)
    }

    /// The variables that make a server read-only. `super_read_only` is MySQL's; `innodb_read_only`
    /// tells the readers of a shared storage. What a server does not know is not asked again.
    async fn read_only(&mut self) -> Result<Table, Failure> {
        let all = if self.is_mariadb {
            "SELECT @@global.read_only, @@global.innodb_read_only"
        } else {
            "SELECT @@global.read_only, @@global.super_read_only, @@global.innodb_read_only"
        };
        let least = "SELECT @@global.read_only";
        self.ask_or(all, UNKNOWN_VARIABLE, least, "asking for read_only")
            .await
    }

    async fn replica_status(&mut self) -> Result<Table, Failure> {
        if self.is_mariadb {
            return self
                .ask("SHOW ALL SLAVES STATUS", "SHOW ALL SLAVES STATUS")
                .await;
        }
        let (newer, older) = ("SHOW REPLICA STATUS", "SHOW SLAVE STATUS");
        self.ask_or(newer, PARSE_ERROR, older, newer).await
    }

    async fn has_applied(&mut self, gtid: &str) -> Result<(), Failure> {
        let doing = "asking for the GTID position";
        let (has_reached, at) = match GtidWanted::parse(gtid, self.is_mariadb)? {
            GtidWanted::Mariadb(wanted) => {
                let answer = self.ask("SELECT @@global.gtid_current_pos", doing).await?;
                let at = first_value(&answer).unwrap_or_default().to_owned();
                let is_at = replication::positions(&at)
                    .ok_or_else(|| packet::garbage(format!("{doing}: {at:?} is none")))?;
                (replication::has_reached(&is_at, &wanted), at)
            }
            GtidWanted::Mysql(wanted) => {
                let sql = format!(
                    "SELECT GTID_SUBSET('{wanted}', @@global.gtid_executed), @@global.gtid_executed"
                );
                let answer = self.ask(&sql, doing).await?;
                let at = answer.rows().next().and_then(|row| row.values().nth(1)?);
                let at = at.unwrap_or_default().to_owned();
                (first_value(&answer) == Some("1"), at)
            }
        };
        if has_reached {
            return Ok(());
        }
        Err(unexpected(&format!(
            "GTID {gtid} is not applied yet (it is at {at:?})"
        )))
    }

    async fn ask(&mut self, sql: &str, doing: &str) -> Result<Table, Failure> {
        result::query(&mut self.packets, sql, doing)
            .await
            .map_err(|refusal| not_answered(refusal, doing))
    }

    /// Asks in other words if the server does not understand the first ones.
    async fn ask_or(
        &mut self,
        sql: &str,
        not_understood: u16,
        other: &str,
        doing: &str,
    ) -> Result<Table, Failure> {
        match result::query(&mut self.packets, sql, doing).await {
            Err(Refusal::Words(error)) if error.code == not_understood => {
                self.ask(other, doing).await
            }
            answer => answer.map_err(|refusal| not_answered(refusal, doing)),
        }
    }

    /// COM_QUIT, and waiting until the server has closed: it then has counted an orderly end.
    async fn quit(mut self) {
        let farewell = async {
            if self.packets.command(&[QUIT], "quitting").await.is_ok() {
                self.packets.closed().await;
            }
        };
        // The time-out is the server's loss: its connection is reset.
        let _ = tokio::time::timeout(FAREWELL_MAX, farewell).await;
    }
}

/// COM_QUIT.
const QUIT: u8 = 1;
/// COM_PING.
const PING: u8 = 14;
/// ER_UNKNOWN_SYSTEM_VARIABLE.
const UNKNOWN_VARIABLE: u16 = 1193;
/// ER_PARSE_ERROR.
const PARSE_ERROR: u16 = 1064;
/// ER_SPECIFIC_ACCESS_DENIED_ERROR and its kin: the user lacks a privilege.
const NO_PRIVILEGE: [u16; 3] = [1044, 1142, 1227];

fn not_answered(refusal: Refusal, doing: &str) -> Failure {
    match refusal {
        Refusal::Broken(failure) => failure,
        Refusal::Words(error) if NO_PRIVILEGE.contains(&error.code) => {
            error.failure(FailureKind::Access, doing)
        }
        Refusal::Words(error) => error.failure(FailureKind::Unexpected, doing),
    }
}

fn first_value(table: &Table) -> Option<&str> {
    table.rows().next()?.values().next()?
}

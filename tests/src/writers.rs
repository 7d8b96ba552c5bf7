//! Clients that write to a database one row after another, reconnect when they have to, and keep a record of
//! what was acknowledged.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use crate::mariadb::{APP_USER, DATABASE};
use crate::netns::Netns;
use crate::sql_client::{SqlConnection, SqlError};
use crate::wait::wait_until;

/// The table that is written to.
pub const CREATE_TABLE: &str = "CREATE TABLE shop.writes \
     (writer INT, number INT, server INT, PRIMARY KEY (writer, number))";

/// ER_OPTION_PREVENTS_STATEMENT: the server is read-only.
pub const READ_ONLY: u16 = 1290;

/// How long a writer waits for an answer: longer than a primary waits for a replica that comes back, shorter
/// than a test.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause of a writer after a failure, so that refused ones do not keep the machine busy.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// How long waiting for writes may take on a busy machine.
const WAIT_TIMEOUT: Duration = Duration::from_secs(60);

/// A row: whose, and the how manyth.
pub type Row = (u32, u32);

/// What became of the writes.
#[derive(Clone, Debug, Default)]
pub struct Record {
    /// Rows that were acknowledged, and when, in this order.
    pub acknowledged: Vec<(Row, Instant)>,
    /// What failed, and when, in this order.
    pub failed: Vec<(SqlError, Instant)>,
}

impl Record {
    /// When the first row was acknowledged that was begun after `since` at the earliest.
    pub fn first_after(&self, since: Instant) -> Option<Instant> {
        let moments = self.acknowledged.iter().map(|(_, at)| *at);
        moments.filter(|at| *at > since).min()
    }

    /// When writes were refused because the server was read-only.
    pub fn refused_as_read_only(&self) -> Vec<Instant> {
        let failed = self.failed.iter();
        let refused = failed.filter(
            |(error, _)| matches!(error, SqlError::Said { code, .. } if *code == READ_ONLY),
        );
        refused.map(|(_, at)| *at).collect()
    }

    /// Failures by what was said.
    pub fn failures(&self) -> BTreeMap<String, usize> {
        let mut failures = BTreeMap::new();
        for (error, _) in &self.failed {
            *failures.entry(error.to_string()).or_default() += 1;
        }
        failures
    }
}

/// Writers at work. Dropping them ends them.
#[derive(Debug)]
pub struct Writers {
    record: Arc<Mutex<Record>>,
    is_stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Writers {
    /// Starts `count` writers in `netns`.
    pub fn start(netns: &Netns, address: SocketAddr, count: u32) -> Self {
        let record = Arc::new(Mutex::new(Record::default()));
        let is_stopped = Arc::new(AtomicBool::new(false));
        let threads = (1..=count).map(|writer| {
            let (entry, record) = (netns.entry(), Arc::clone(&record));
            let is_stopped = Arc::clone(&is_stopped);
            thread::spawn(move || entry.run(|| write(writer, address, &record, &is_stopped)))
        });
        Self {
            threads: threads.collect(),
            record,
            is_stopped,
        }
    }

    /// Waits until `count` writes that ended after `since` were acknowledged; returns when the first one was.
    pub fn wait_acknowledged(&self, since: Instant, count: usize) -> Result<Instant> {
        wait_until("acknowledged writes", WAIT_TIMEOUT, || {
            let has_ended = self.threads.iter().any(JoinHandle::is_finished);
            ensure!(!has_ended, "a writer has ended by itself");
            let record = lock(&self.record);
            let latest = record.acknowledged.iter().rev();
            let done = latest.take_while(|(_, at)| *at > since).count();
            Ok((done >= count).then(|| record.first_after(since)).flatten())
        })
    }

    /// Ends the writers, each after the write that is under way, and returns what became of all.
    pub fn stop(mut self) -> Result<Record> {
        self.is_stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(ended) => ended?,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
        Ok(lock(&self.record).clone())
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.is_stopped.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
    }
}

fn lock(record: &Mutex<Record>) -> MutexGuard<'_, Record> {
    record.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One writer. A connection on which the server has said no is used on: who is sent elsewhere is not to owe it
/// to himself.
fn write(writer: u32, address: SocketAddr, record: &Mutex<Record>, is_stopped: &AtomicBool) {
    let mut connection: Option<SqlConnection> = None;
    let mut number = 0;
    while !is_stopped.load(Ordering::Relaxed) {
        number += 1;
        match write_one(&mut connection, address, (writer, number)) {
            Ok(()) => {
                let row = ((writer, number), Instant::now());
                lock(record).acknowledged.push(row);
            }
            Err(error) => {
                if matches!(error, SqlError::Broken(_)) {
                    connection = None;
                }
                lock(record).failed.push((error, Instant::now()));
                thread::sleep(RETRY_PAUSE);
            }
        }
    }
    if let Some(connection) = connection {
        // The writes are over; whether the server closes in time changes nothing.
        let _late = connection.quit();
    }
}

fn write_one(
    connection: &mut Option<SqlConnection>,
    address: SocketAddr,
    (writer, number): Row,
) -> Result<(), SqlError> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(SqlConnection::open(
            address,
            APP_USER,
            DATABASE,
            ANSWER_TIMEOUT,
        )?),
    };
    connection.execute(&format!(
        "INSERT INTO writes VALUES ({writer}, {number}, @@server_id)"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_tells_refusals_from_breaks_and_when_writes_go_on() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let read_only = SqlError::Said {
            code: READ_ONLY,
            message: "--read-only".to_owned(),
        };
        let reset = SqlError::Broken(crate::disruption::traffic::Breakage::Reset);
        let record = Record {
            acknowledged: vec![((1, 1), at(1)), ((1, 4), at(9)), ((2, 1), at(8))],
            failed: vec![(read_only, at(3)), (reset, at(4))],
        };
        assert_eq!(record.refused_as_read_only(), [at(3)]);
        assert_eq!(record.first_after(at(1)), Some(at(8)));
        assert_eq!(record.first_after(at(9)), None);
        let failures = record.failures();
        assert_eq!(failures["1290 --read-only"], 1);
        assert_eq!(failures["reset"], 1);
    }
}

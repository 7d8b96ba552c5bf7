//! Clients write to a replicated MariaDB through the service `writer` while its primary dies, or is replaced:
//! every row that was acknowledged is there afterwards, and no server that was read-only has taken one.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lb_lab::databases::{CHECK_TIMEOUT, Databases, INTERVAL, Replication};
use lb_lab::require;
use lb_lab::wait::wait_until;
use lb_lab::writers::{CREATE_TABLE, Record, Row, Writers};
use nix::sys::signal::Signal;

const WRITER_COUNT: u32 = 6;
/// Writes before something happens, and after it.
const WRITE_COUNT: usize = 300;
/// What a busy machine may add to a check's interval and time-out.
const SLACK: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(30);

fn start() -> (Databases, Writers) {
    let databases = Databases::start(Replication::SemiSynchronous).unwrap();
    databases.servers[0].sql(CREATE_TABLE).unwrap();
    databases.await_eligible("writer", &["web1"]).unwrap();
    databases
        .await_eligible("reader", &["web2", "web3"])
        .unwrap();
    let client = databases.net.client.netns();
    let writers = Writers::start(client, databases.writer(), WRITER_COUNT);
    writers
        .wait_acknowledged(Instant::now(), WRITE_COUNT)
        .unwrap();
    (databases, writers)
}

/// The rows that a server has.
fn rows(databases: &Databases, index: usize) -> BTreeSet<Row> {
    let text = databases.servers[index]
        .sql("SELECT writer, number FROM shop.writes")
        .unwrap();
    let parse = |line: &str| {
        let (writer, number) = line.split_once('\t')?;
        Some((writer.parse().ok()?, number.parse().ok()?))
    };
    text.lines().map(|line| parse(line).unwrap()).collect()
}

/// Every acknowledged row is on each of these servers, which have the same rows and transactions of no
/// other servers than those that were primaries.
fn nothing_is_lost(databases: &Databases, record: &Record, servers: &[usize], primaries: &[&str]) {
    let latest = databases.servers[servers[0]].position().unwrap();
    let first = rows(databases, servers[0]);
    let acknowledged: BTreeSet<Row> = record.acknowledged.iter().map(|(row, _)| *row).collect();
    let lost: Vec<&Row> = acknowledged.difference(&first).collect();
    assert!(lost.is_empty(), "lost: {lost:?}");
    println!(
        "{} writes acknowledged, all of them there, and {} that were not; failed: {:?}",
        acknowledged.len(),
        first.len() - acknowledged.len(),
        record.failures()
    );
    for index in servers {
        let server = &databases.servers[*index];
        wait_until("the replicas to catch up", TIMEOUT, || {
            Ok((server.position()? >= latest).then_some(()))
        })
        .unwrap();
        assert!(rows(databases, *index) == first, "server {index} differs");
        assert_eq!(server.writers().unwrap(), primaries, "server {index}");
    }
}

#[test]
fn acknowledged_writes_survive_the_death_of_the_primary() {
    if require(&["ip", "mariadbd", "mariadb", "mariadb-install-db"]).is_missing() {
        return;
    }
    let (mut databases, writers) = start();
    let died = Instant::now();
    databases.servers[0]
        .process()
        .signal(Signal::SIGKILL)
        .unwrap();
    let (new, promoted) = databases.fail_over(&[1, 2]).unwrap();
    let again = writers.wait_acknowledged(promoted, WRITE_COUNT).unwrap();
    let name = ["web1", "web2", "web3"][new];
    databases.await_eligible("writer", &[name]).unwrap();
    let record = writers.stop().unwrap();
    println!(
        "first write on the new primary {} ms after the death of the old one, {} ms after the promotion",
        (again - died).as_millis(),
        (again - promoted).as_millis(),
    );
    let refused = record.refused_as_read_only().len();
    assert_eq!(refused, 0, "writes reached a replica");
    let new_id = (new + 1).to_string();
    nothing_is_lost(&databases, &record, &[new, 3 - new], &["1", &new_id]);
}

#[test]
fn no_write_goes_to_a_demoted_primary() {
    if require(&["ip", "mariadbd", "mariadb", "mariadb-install-db"]).is_missing() {
        return;
    }
    let (databases, writers) = start();
    let (stopped, promoted) = databases.switch_over(0, 1).unwrap();
    let again = writers.wait_acknowledged(promoted, WRITE_COUNT).unwrap();
    databases.await_eligible("writer", &["web2"]).unwrap();
    databases
        .await_eligible("reader", &["web1", "web3"])
        .unwrap();
    let record = writers.stop().unwrap();
    let refused = record.refused_as_read_only();
    let last = refused.last().map(|last| *last - stopped);
    println!(
        "{} writes refused by the demoted primary, the last {:?} ms after its demotion; first write on \
         the new one {} ms after it, {} ms after the promotion",
        refused.len(),
        last.map(|last| last.as_millis()),
        (again - stopped).as_millis(),
        (again - promoted).as_millis(),
    );
    // Until the next check says so, nobody can know that it is read-only.
    let limit = INTERVAL + CHECK_TIMEOUT + SLACK;
    assert!(last.is_none_or(|last| last <= limit), "{last:?}");
    nothing_is_lost(&databases, &record, &[1, 0, 2], &["1", "2"]);
}

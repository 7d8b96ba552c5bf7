//! What checks could leave behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::mariadb::MariaDb;
use crate::netns::Netns;
use crate::process::run;

/// TCP_TIME_WAIT as `/proc/net/tcp` writes it (include/net/tcp_states.h).
const TIME_WAIT: &str = "06";

/// 127.0.0.1, also as the end of an IPv6 address.
const LOCALHOST: &str = "0100007F:";

/// What a server counts that was treated badly.
const COMPLAINTS: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN \
                          ('Aborted_connects', 'Aborted_clients') \
                          OR Variable_name LIKE 'Connection\\_errors\\_%'";

/// Open descriptors of a process.
pub fn descriptors(pid: u32) -> Result<usize> {
    let directory = format!("/proc/{pid}/fd");
    let entries = fs::read_dir(&directory).with_context(|| format!("cannot list {directory}"))?;
    Ok(entries.count())
}

/// Memory of a process that is in use (`VmRSS`). Unit: KiB.
pub fn resident_kib(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    number.with_context(|| format!("{path} has no VmRSS"))
}

/// The children of a process: how many live, and how many are dead and not taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Children {
    /// Those that live.
    pub living: usize,
    /// Zombies.
    pub zombies: usize,
}

/// See [`Children`].
pub fn children(pid: u32) -> Result<Children> {
    let mut children = Children::default();
    for entry in fs::read_dir("/proc")
        .context("cannot list /proc")?
        .flatten()
    {
        // Whoever has ended since is nobody's child any more.
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            continue;
        };
        match state_and_parent(&stat) {
            Some(("Z", parent)) if parent == pid => children.zombies += 1,
            Some((_, parent)) if parent == pid => children.living += 1,
            _ => {}
        }
    }
    Ok(children)
}

/// proc(5): `PID (NAME) STATE PPID …`, where the name may hold anything.
fn state_and_parent(stat: &str) -> Option<(&str, u32)> {
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut words = rest.split(' ');
    Some((words.next()?, words.next()?.parse().ok()?))
}

/// Processes in a namespace other than `pid`: what a program of a check has left behind.
pub fn strangers(netns: &Netns, pid: u32) -> Result<Vec<String>> {
    let pids = run(std::process::Command::new("ip").args(["netns", "pids", netns.name()]))?;
    let pids = pids
        .split_whitespace()
        .filter(|one| **one != pid.to_string());
    let name = |pid: &str| {
        let name = fs::read_to_string(Path::new("/proc").join(pid).join("comm"));
        format!("{pid} {}", name.unwrap_or_default().trim_end())
    };
    Ok(pids.map(name).collect())
}

/// Sockets of a namespace in TIME_WAIT, without those between its own processes.
pub fn time_waits(netns: &Netns) -> Result<usize> {
    let tables = ["tcp", "tcp6"].map(|name| format!("/proc/thread-self/net/{name}"));
    let texts = netns.run(|| tables.map(fs::read_to_string))?;
    let mut count = 0;
    for text in texts {
        let text = text.context("cannot read the sockets of a namespace")?;
        count += text.lines().filter(|line| is_time_wait(line)).count();
    }
    Ok(count)
}

/// `NUMBER: LOCAL REMOTE STATE …`, the addresses in hexadecimal digits of little-endian words.
fn is_time_wait(line: &str) -> bool {
    let mut words = line.split_whitespace().skip(2);
    let (remote, state) = (words.next().unwrap_or_default(), words.next());
    state == Some(TIME_WAIT) && !remote.contains(LOCALHOST)
}

/// What the database has to complain about: the counters that are not zero.
pub fn complaints(database: &MariaDb) -> Result<BTreeMap<String, u64>> {
    let text = database.sql(COMPLAINTS)?;
    let mut complaints = BTreeMap::new();
    for line in text.lines() {
        let (name, count) = line.split_once('\t').context("a status without a value")?;
        complaints.insert(name.to_owned(), count.parse()?);
    }
    complaints.retain(|_, count| *count > 0);
    Ok(complaints)
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::wait::wait_until;

    #[test]
    fn state_and_parent_are_found_behind_any_name() {
        assert_eq!(state_and_parent("7 (a) b) Z 3 7 7 0"), Some(("Z", 3)));
        assert_eq!(state_and_parent("7 sh"), None);
    }

    #[test]
    fn sockets_in_time_wait_are_told_from_others_and_from_local_ones() {
        let line = |remote: &str, state: &str| format!("0: 0B00000A:0050 {remote}:C350 {state} 00");
        assert!(is_time_wait(&line("0100000A", "06")));
        assert!(!is_time_wait(&line("0100000A", "01")));
        assert!(!is_time_wait(&line("0100007F", "06")));
        let mapped = "0000000000000000FFFF00000100007F";
        assert!(!is_time_wait(&line(mapped, "06")));
        assert!(!is_time_wait(
            "  sl  local_address rem_address   st tx_queue"
        ));
    }

    #[test]
    fn a_child_that_nobody_takes_is_a_zombie() {
        let own = std::process::id();
        let mut child = Command::new("true").stdin(Stdio::null()).spawn().unwrap();
        let seen = wait_until("a zombie", std::time::Duration::from_secs(10), || {
            Ok((children(own)?.zombies > 0).then_some(()))
        });
        child.wait().unwrap();
        seen.unwrap();
    }

    #[test]
    fn descriptors_and_memory_are_those_of_the_process() {
        let own = std::process::id();
        assert!(descriptors(own).unwrap() >= 3);
        assert!(resident_kib(own).unwrap() > 100);
    }
}

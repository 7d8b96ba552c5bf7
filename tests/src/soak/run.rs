//! The course of a soak, and the judgement.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::site::{HOPELESS, SoakSite};
use super::traces::{
    Children, children, complaints, descriptors, resident_kib, strangers, time_waits,
};
use crate::wait::{wait_until, wait_until_every};

/// Checks before the first look: until then lbd makes what it keeps (the pipe that tells of children's ends,
/// the buffers of its allocator).
const WARM_UP_CHECKS: u64 = 2_000;
/// So much more memory may be in use after the soak: a hundred bytes that each of 100,000 checks left behind
/// would be more. Unit: KiB.
const GROWTH_MAX_KIB: u64 = 8 * 1024;
/// Sockets in TIME_WAIT that may be left in a namespace; checks of a minute would leave tens of thousands.
const TIME_WAITS_MAX: usize = 10;
/// Failures of checks that have no reason to fail, in parts of all of theirs.
const FAILURES_MAX: f64 = 0.01;

/// Time between two looks at the counts: each is a program to start.
const LOOK_PAUSE: Duration = Duration::from_millis(250);
/// The rate that there has to be at least, on a busy machine. Unit: checks a second.
const RATE_MIN: u64 = 50;
/// How long what is under way may take to come to an end.
const CALM_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers, good and bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Those that were as they have to be.
    pub good: u64,
    /// The others.
    pub bad: u64,
}

/// What a soak has found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// By the check's type; those that nobody answers have a type of their own (`hopeless tcp`).
    pub counts: BTreeMap<String, Count>,
    /// How long it took.
    pub took: Duration,
    /// Open descriptors while nothing is asked, before and after.
    pub descriptors: [usize; 2],
    /// Memory in use, before and after. Unit: KiB.
    pub resident_kib: [u64; 2],
    /// Children of lbd at the end.
    pub zombies: usize,
    /// Processes that are left in lbd's namespace.
    pub strangers: Vec<String>,
    /// Sockets in TIME_WAIT right at the end, by namespace: the balancer's and the backends'.
    pub time_waits: BTreeMap<String, usize>,
    /// Counters of what the database has to complain about, without those that have not risen.
    pub complaints: BTreeMap<String, u64>,
}

/// Asks `checks` times or a little more often; `tell` hears how far it is.
pub fn run(checks: u64, tell: impl Fn(u64)) -> Result<Findings> {
    let site = SoakSite::start().context("cannot set up the site")?;
    let findings = course(&site, checks, tell);
    findings.with_context(|| format!("log of lbd:\n{}", site.lbd.log_tail()))
}

fn course(site: &SoakSite, checks: u64, tell: impl Fn(u64)) -> Result<Findings> {
    let pid = site.lbd.pid();
    ask(site, WARM_UP_CHECKS, |_| {})?;
    stop_asking(site)?;
    let before = (descriptors(pid)?, resident_kib(pid)?);
    // Who stops asking cuts off what is under way, and a server may see that: it is not what is looked for.
    let complaints_before = complaints(&site.database)?;

    let began = Instant::now();
    let counts = ask(site, checks, tell)?;
    let took = began.elapsed();
    let mut time_waits_at = BTreeMap::new();
    time_waits_at.insert("balancer".to_owned(), time_waits(&site.net.lb)?);
    for backend in &site.net.backends {
        time_waits_at.insert(backend.name.clone(), time_waits(&backend.netns)?);
    }
    let mut complaints = complaints(&site.database)?;
    for (name, count) in &mut complaints {
        *count -= complaints_before.get(name).copied().unwrap_or(0);
    }
    complaints.retain(|_, count| *count > 0);
    stop_asking(site)?;
    // What is not back in time is there for good, and counted.
    let _leaking = wait_until("the descriptors to be closed", CALM_TIMEOUT, || {
        Ok((descriptors(pid)? <= before.0).then_some(()))
    });
    Ok(Findings {
        counts,
        took,
        descriptors: [before.0, descriptors(pid)?],
        resident_kib: [before.1, resident_kib(pid)?],
        zombies: children(pid)?.zombies,
        strangers: strangers(&site.net.lb, pid)?,
        time_waits: time_waits_at,
        complaints,
    })
}

/// Has lbd ask until `checks` answers are there.
fn ask(site: &SoakSite, checks: u64, tell: impl Fn(u64)) -> Result<BTreeMap<String, Count>> {
    site.lbd.reload(&site.config)?;
    let timeout = Duration::from_secs(60 + checks / RATE_MIN);
    wait_until_every(LOOK_PAUSE, "the answers", timeout, || {
        let counts = counts(&site.lbd.ctl_json(&["health", "list"])?)?;
        let total = counts.values().map(|count| count.good + count.bad).sum();
        tell(total);
        Ok((total >= checks).then_some(counts))
    })
}

/// Has lbd ask nobody any more, and waits until nothing is under way.
fn stop_asking(site: &SoakSite) -> Result<()> {
    site.lbd.reload(&site.config_without_checks)?;
    let pid = site.lbd.pid();
    wait_until("the checks to end", CALM_TIMEOUT, || {
        let health = site.lbd.ctl_json(&["health", "list"])?;
        let is_calm = health["backends"].as_array().is_some_and(Vec::is_empty);
        let has_children = children(pid)? != Children::default();
        Ok((is_calm && !has_children).then_some(()))
    })
}

/// Answers by type.
fn counts(health: &Value) -> Result<BTreeMap<String, Count>> {
    let mut counts: BTreeMap<String, Count> = BTreeMap::new();
    let backends = health["backends"].as_array();
    for backend in backends.context("`lbctl health list` without backends")? {
        let service = backend["service"].as_str().unwrap_or_default();
        for check in backend["checks"].as_array().into_iter().flatten() {
            let check_type = check["check"].as_str().unwrap_or_default();
            let check_type = check_type.split([' ', ',']).next().unwrap_or_default();
            let key = match service.starts_with(HOPELESS) {
                true => format!("{HOPELESS} {check_type}"),
                false => check_type.to_owned(),
            };
            let count = counts.entry(key).or_default();
            count.good += check["success_count"].as_u64().unwrap_or(0);
            count.bad += check["failure_count"].as_u64().unwrap_or(0);
        }
    }
    Ok(counts)
}

impl Findings {
    /// All answers.
    pub fn total(&self) -> u64 {
        let all = self.counts.values();
        all.map(|count| count.good + count.bad).sum()
    }

    /// What is not as it has to be.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        for (check_type, count) in &self.counts {
            let all = count.good + count.bad;
            if check_type.starts_with(HOPELESS) {
                if count.good > 0 {
                    faults.push(format!("{} {check_type} checks succeeded", count.good));
                }
            } else if count.bad as f64 > all as f64 * FAILURES_MAX {
                faults.push(format!("{} of {all} {check_type} checks failed", count.bad));
            }
        }
        let [before, after] = self.descriptors;
        if after > before {
            faults.push(format!("{after} descriptors are open, and {before} were"));
        }
        let [before, after] = self.resident_kib;
        if after > before + GROWTH_MAX_KIB {
            faults.push(format!(
                "{after} KiB of memory are in use, and {before} were"
            ));
        }
        if self.zombies > 0 {
            faults.push(format!("{} zombies", self.zombies));
        }
        if !self.strangers.is_empty() {
            faults.push(format!("left running: {}", self.strangers.join(", ")));
        }
        for (name, count) in &self.time_waits {
            if *count > TIME_WAITS_MAX {
                faults.push(format!("{count} sockets of {name} are in TIME_WAIT"));
            }
        }
        // A check that was cut off by its time-out is one that the server saw break.
        let cut_off = self.counts.get("mysql").map_or(0, |count| count.bad);
        for (name, count) in &self.complaints {
            if *count > cut_off {
                faults.push(format!("MariaDB: {name} = {count}"));
            }
        }
        faults
    }

    /// Everything that was counted.
    pub fn json(&self) -> Value {
        let counts = self.counts.iter().map(|(check_type, count)| {
            let count = json!({ "good": count.good, "bad": count.bad });
            (check_type.clone(), count)
        });
        json!({
            "checks": counts.collect::<serde_json::Map<_, _>>(),
            "total": self.total(),
            "took_s": self.took.as_secs_f64(),
            "descriptors": self.descriptors,
            "resident_kib": self.resident_kib,
            "zombies": self.zombies,
            "strangers": self.strangers,
            "time_wait": self.time_waits,
            "mariadb": self.complaints,
            "faults": self.faults(),
        })
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<16} {:>8} {:>8}", "checks", "good", "bad")?;
        for (check_type, count) in &self.counts {
            writeln!(f, "{check_type:<16} {:>8} {:>8}", count.good, count.bad)?;
        }
        let seconds = self.took.as_secs_f64();
        let rate = self.total() as f64 / seconds.max(f64::EPSILON);
        writeln!(f, "{} in {seconds:.0} s, {rate:.0} a second", self.total())?;
        let [before, after] = self.descriptors;
        writeln!(f, "descriptors of lbd: {before} before, {after} after")?;
        let [before, after] = self.resident_kib;
        writeln!(f, "memory of lbd: {before} KiB before, {after} KiB after")?;
        writeln!(
            f,
            "zombies: {}; processes left: {}; sockets in TIME_WAIT: {:?}; MariaDB's complaints: {:?}",
            self.zombies,
            self.strangers.len(),
            self.time_waits,
            self.complaints
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clean() -> Findings {
        let count = |good, bad| Count { good, bad };
        Findings {
            counts: BTreeMap::from([
                ("tcp".to_owned(), count(1_000, 1)),
                ("mysql".to_owned(), count(1_000, 0)),
                (format!("{HOPELESS} tcp"), count(0, 1_000)),
            ]),
            descriptors: [20, 20],
            resident_kib: [40_000, 41_000],
            ..Findings::default()
        }
    }

    #[test]
    fn nothing_left_behind_is_no_fault_and_each_trace_is_one() {
        assert_eq!(clean().faults(), Vec::<String>::new());
        let changes: [fn(&mut Findings); 8] = [
            |findings| findings.descriptors[1] = 21,
            |findings| findings.resident_kib[1] += GROWTH_MAX_KIB,
            |findings| findings.zombies = 1,
            |findings| findings.strangers.push("7 sleep".to_owned()),
            |findings| *findings.time_waits.entry("web1".to_owned()).or_default() = 11,
            |findings| findings.complaints = BTreeMap::from([("Aborted_connects".to_owned(), 1)]),
            |findings| findings.counts.get_mut("tcp").unwrap().bad = 11,
            |findings| findings.counts.get_mut("hopeless tcp").unwrap().good = 1,
        ];
        for change in changes {
            let mut findings = clean();
            change(&mut findings);
            assert_eq!(findings.faults().len(), 1, "{findings}");
        }
    }

    #[test]
    fn answers_are_counted_by_type() {
        let check = |words: &str| json!({ "check": words, "success_count": 2, "failure_count": 1 });
        let health = json!({ "backends": [
            { "service": "web0", "checks": [check("http GET /1"), check("http GET /2"), check("tcp, send")] },
            { "service": "hopeless3", "checks": [check("tcp")] },
        ] });
        let counts = counts(&health).unwrap();
        let names: Vec<&String> = counts.keys().collect();
        assert_eq!(names, ["hopeless tcp", "http", "tcp"]);
        assert_eq!(counts["http"], Count { good: 4, bad: 2 });
    }
}

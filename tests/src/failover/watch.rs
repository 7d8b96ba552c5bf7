//! Who has the VIPs, seen from outside: the addresses of each balancer, looked at again and again.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result};
use nix::ifaddrs::getifaddrs;

use crate::disruption::record::now_ns;
use crate::netns::Netns;

/// Between two looks.
pub const INTERVAL: Duration = Duration::from_millis(2);

/// From this moment on, a balancer had these of the VIPs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Since when. Unit: nanoseconds of `CLOCK_MONOTONIC`.
    pub since_ns: u64,
    /// Of the VIPs, those that it had.
    pub vips: BTreeSet<IpAddr>,
}

/// A watch on one balancer. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    log: Arc<Mutex<Vec<Held>>>,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Watch {
    /// Starts looking at `netns`.
    pub fn start(netns: &Netns, vips: &BTreeSet<IpAddr>) -> Result<Self> {
        let is_over = Arc::new(AtomicBool::new(false));
        let first = netns.run(|| look(vips))??;
        let log = Arc::new(Mutex::new(vec![first]));
        let (entry, vips) = (netns.entry(), vips.clone());
        let (own_log, over) = (Arc::clone(&log), Arc::clone(&is_over));
        let thread = thread::spawn(move || {
            entry.run(|| {
                while !over.load(Ordering::Relaxed) {
                    note(&own_log, look(&vips)?);
                    thread::sleep(INTERVAL);
                }
                Ok(())
            })?
        });
        Ok(Self {
            log,
            is_over,
            thread: Some(thread),
        })
    }

    /// VIPs that it has now.
    pub fn held(&self) -> usize {
        self.lock().last().map_or(0, |held| held.vips.len())
    }

    /// Forgets what has been.
    pub fn begin(&self) {
        let mut log = self.lock();
        let Some(last) = log.pop() else {
            return;
        };
        *log = vec![Held {
            since_ns: now_ns(),
            ..last
        }];
    }

    /// What has been since [`Watch::begin`], the oldest first.
    pub fn log(&self) -> Vec<Held> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Held>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(Err(error))) => eprintln!("the watch on the VIPs: {error:#}"),
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            _ => {}
        }
    }
}

fn note(log: &Mutex<Vec<Held>>, now: Held) {
    let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
    if log.last().is_none_or(|last| last.vips != now.vips) {
        log.push(now);
    }
}

fn look(vips: &BTreeSet<IpAddr>) -> Result<Held> {
    let addresses = getifaddrs().context("cannot list addresses")?;
    let ips = addresses.filter_map(|interface| {
        let address = interface.address?;
        let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
    });
    Ok(Held {
        vips: ips.filter(|ip| vips.contains(ip)).collect(),
        since_ns: now_ns(),
    })
}

/// How long two balancers had the same VIP, up to `end_ns`.
pub fn both(one: &[Held], other: &[Held], end_ns: u64) -> Duration {
    let spans = |log: &[Held]| -> Vec<(u64, u64, BTreeSet<IpAddr>)> {
        let ends = log.iter().skip(1).map(|held| held.since_ns).chain([end_ns]);
        let spans = log.iter().zip(ends);
        spans
            .map(|(held, end)| (held.since_ns, end, held.vips.clone()))
            .collect()
    };
    let others = spans(other);
    let mut both_ns = 0;
    for (from, to, vips) in spans(one) {
        for (since, until, others) in &others {
            if !vips.is_disjoint(others) {
                both_ns += to.min(*until).saturating_sub(from.max(*since));
            }
        }
    }
    Duration::from_nanos(both_ns)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_in_which_both_have_a_vip_is_added_up() {
        let log = |changes: &[(u64, &[u8])]| -> Vec<Held> {
            let held = |(since_ns, vips): &(u64, &[u8])| Held {
                since_ns: *since_ns,
                vips: vips
                    .iter()
                    .map(|vip| IpAddr::from([203, 0, 113, *vip]))
                    .collect(),
            };
            changes.iter().map(held).collect()
        };
        let one = log(&[(0, &[1, 2]), (50, &[]), (80, &[1])]);
        let other = log(&[(0, &[]), (40, &[1]), (45, &[1, 2]), (90, &[])]);
        assert_eq!(both(&one, &other, 100), Duration::from_nanos(10 + 10));
        assert_eq!(both(&one, &log(&[(0, &[])]), 100), Duration::ZERO);
        assert_eq!(
            both(&one, &log(&[(95, &[1])]), 100),
            Duration::from_nanos(5)
        );
        // One after the other goes from one to the other: no VIP is at both.
        let from = log(&[(0, &[1, 2]), (40, &[2]), (60, &[])]);
        let to = log(&[(0, &[]), (41, &[1]), (61, &[1, 2])]);
        assert_eq!(both(&from, &to, 100), Duration::ZERO);
    }
}

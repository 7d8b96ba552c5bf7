//! Clocks and random numbers.

use std::fs;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use ring::rand::{SecureRandom, SystemRandom};

use crate::vrrp::router::Session;

const US_PER_S: u64 = 1_000_000;
const NS_PER_US: i64 = 1_000;

/// The clock of the machines: it neither jumps nor goes on while the node sleeps. Unit: microseconds.
pub(super) fn monotonic_us() -> u64 {
    now_us(ClockId::CLOCK_MONOTONIC)
}

/// Since the node's start, its sleep included: what two processes of one boot compare. Unit: microseconds.
pub(super) fn boottime_us() -> u64 {
    now_us(ClockId::CLOCK_BOOTTIME)
}

/// For people only. Unit: milliseconds since 1970, UTC.
pub(super) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_millis() as u64)
}

/// Names this boot of the node; empty where the kernel does not tell: no two boots are equal then.
pub(super) fn boot_id() -> String {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    id.map(|id| id.trim().to_owned()).unwrap_or_default()
}

/// What is random about a router.
///
/// # Errors
/// If the kernel gives no random numbers.
pub(super) fn session() -> io::Result<Session> {
    let random = SystemRandom::new();
    let refused = |_| io::Error::other("the kernel gives no random numbers");
    let (mut id, mut seed) = ([0; 8], [0; 32]);
    random.fill(&mut id).map_err(refused)?;
    random.fill(&mut seed).map_err(refused)?;
    Ok(Session {
        id: u64::from_ne_bytes(id),
        seed,
    })
}

/// Every Linux has these clocks.
fn now_us(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("the clock exists");
    now.tv_sec() as u64 * US_PER_S + (now.tv_nsec() / NS_PER_US) as u64
}

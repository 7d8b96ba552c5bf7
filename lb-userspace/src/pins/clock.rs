//! Clocks of the kernel.

use nix::time::{ClockId, clock_gettime};

const NS_PER_S: u64 = 1_000_000_000;

/// Nanoseconds since the machine's start, those that it slept included.
pub(crate) fn boottime_ns() -> u64 {
    now_ns(ClockId::CLOCK_BOOTTIME)
}

/// The clock of the flow table ([`lb_common::kernel::Kernel::now_s`]): `bpf_ktime_get_coarse_ns` is
/// `CLOCK_MONOTONIC_COARSE`.
pub(super) fn flow_now_s() -> u32 {
    (now_ns(ClockId::CLOCK_MONOTONIC_COARSE) / NS_PER_S) as u32
}

/// Every Linux has these clocks.
fn now_ns(clock: ClockId) -> u64 {
    let now = clock_gettime(clock).expect("the clock exists");
    now.tv_sec() as u64 * NS_PER_S + now.tv_nsec() as u64
}

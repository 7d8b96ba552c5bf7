//! This thread's CPU time, its CPU, and its place behind others.

use std::time::Duration;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;

/// Keeps this thread on one CPU.
///
/// # Errors
/// If the machine has no such CPU, or this process may not use it.
pub fn pin(cpu: usize) -> Result<()> {
    let mut cpus = CpuSet::new();
    cpus.set(cpu).with_context(|| format!("CPU {cpu}"))?;
    sched_setaffinity(Pid::from_raw(0), &cpus).with_context(|| format!("cannot run on CPU {cpu}"))
}

/// CPU time that this thread has used so far.
///
/// # Errors
/// If the kernel has no such clock.
pub fn thread_time() -> Result<Duration> {
    Ok(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?.into())
}

/// Lets everybody else go first on this thread's CPU, the kernel's own threads included.
///
/// # Errors
/// If the kernel refuses it.
pub fn be_nice() -> Result<()> {
    const LEAST: libc::c_int = 19;
    // SAFETY: a system call without pointers; 0 is the calling thread (setpriority(2), "C library/kernel
    // differences").
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, LEAST) };
    nix::errno::Errno::result(result).context("cannot lower the priority")?;
    Ok(())
}

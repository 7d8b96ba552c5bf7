//! Waiting for packets under way.

use std::time::Duration;

/// From `include/uapi/linux/membarrier.h`. In the kernel this is one `synchronize_rcu()`, and an
/// XDP program runs inside one RCU read-side section.
const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;

/// How long one run of the program could take at the very most, where the kernel has no such
/// barrier (`nohz_full` CPUs, kernel commit 907565337ebf): a packet takes a microsecond, an
/// interrupted one a few milliseconds more.
const READER_TIME_MAX: Duration = Duration::from_millis(500);

/// Returns when no XDP program runs any more that ran when this was called. Takes ~8 ms.
pub(crate) fn wait_for_readers() {
    // SAFETY: the system call takes no pointers.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if result != 0 {
        std::thread::sleep(READER_TIME_MAX);
    }
}

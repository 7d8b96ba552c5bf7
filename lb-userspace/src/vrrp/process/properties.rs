//! What makes the kernel treat this process as one that must not wait. Each is a gain, none is needed.

use std::fs;
use std::io;

use nix::errno::Errno;
use tracing::{debug, info};

/// Above all that is not real-time, below what drives the hardware (its threads have 50). 1 to 99.
const REALTIME_PRIORITY: libc::c_int = 5;

/// The last one to be killed when memory runs out, -1000 to 1000.
const OOM_SCORE: &str = "-900";

/// What was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Granted {
    /// Whether the process runs before all others that want the CPU.
    pub(super) is_realtime: bool,
}

/// Asks for all of it.
pub(super) fn claim() -> Granted {
    let realtime = set_realtime();
    match &realtime {
        Ok(()) => debug!("real-time priority {REALTIME_PRIORITY}"),
        Err(error) => {
            info!("no real-time priority ({error}): a busy node may delay advertisements");
        }
    }
    if let Err(error) = lock_memory() {
        info!("memory is not locked ({error}): a node short of memory may delay advertisements");
    }
    if let Err(error) = fs::write("/proc/self/oom_score_adj", OOM_SCORE) {
        debug!("the OOM score stays as it is: {error}");
    }
    Granted {
        is_realtime: realtime.is_ok(),
    }
}

fn set_realtime() -> io::Result<()> {
    let parameters = libc::sched_param {
        sched_priority: REALTIME_PRIORITY,
    };
    // SAFETY: the pointer is to a structure that lives during the call.
    let result = unsafe {
        libc::sched_setscheduler(
            0,
            libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK,
            &raw const parameters,
        )
    };
    Errno::result(result)?;
    Ok(())
}

/// Pages are locked as they are touched: the parts of the program that are never used stay out.
fn lock_memory() -> io::Result<()> {
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: the system call takes no pointers.
    Errno::result(unsafe { libc::mlockall(flags) })?;
    Ok(())
}

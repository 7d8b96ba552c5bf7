//! A wall clock of a node's own, that can be stepped. All nodes of a laboratory share the machine's: so their
//! processes are started with a library before the C library, which adds what a file says.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::process::run;
use crate::scratch::ScratchDir;
use crate::topology::NodeId;

/// The library: clock_gettime(2) and its elders, for the wall clock only.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long *offset_s;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("LAB_CLOCK");
    int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd < 0) return;
    void *page = mmap(0, sizeof(long), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
    if (page != MAP_FAILED) offset_s = page;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    long result = syscall(SYS_clock_gettime, clock, now);
    if (result == 0 && offset_s && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += *offset_s;
    return (int)result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    struct timespec precise;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &precise)) return -1;
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *to) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    if (to) *to = now.tv_sec;
    return now.tv_sec;
}
"#;

/// The clock of a node.
#[derive(Debug)]
pub struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// A clock that shows the machine's time, with its files in `scratch`.
    pub fn new(scratch: &ScratchDir, node: NodeId) -> Result<Self> {
        let library = scratch.path().join("clock.so");
        if !library.exists() {
            let source = scratch.write("clock.c", SOURCE)?;
            let mut compiler = Command::new("cc");
            compiler
                .args(["-shared", "-fPIC", "-O1", "-o"])
                .arg(&library)
                .arg(source);
            run(&mut compiler).context("cannot build the clock's library")?;
        }
        let clock = Self {
            library,
            offset: scratch.path().join(format!("{node}-clock")),
        };
        clock.step(0)?;
        Ok(clock)
    }

    /// Variables of the environment with which a process has this clock.
    pub fn environment(&self) -> Vec<(String, String)> {
        vec![
            ("LD_PRELOAD".to_owned(), self.library.display().to_string()),
            ("LAB_CLOCK".to_owned(), self.offset.display().to_string()),
        ]
    }

    /// Has it show a time so many seconds from the machine's.
    pub fn step(&self, by_s: i64) -> Result<()> {
        // In place: whoever runs by it has mapped the file.
        let mut file = fs::OpenOptions::new();
        let file = file
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.offset);
        let file = file.with_context(|| format!("cannot write {}", self.offset.display()))?;
        std::os::unix::fs::FileExt::write_all_at(&file, &by_s.to_ne_bytes(), 0)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `date`, by a clock.
    fn seconds(clock: &Clock) -> i64 {
        let mut date = Command::new("date");
        let text = run(date.arg("+%s").envs(clock.environment())).unwrap();
        text.trim_end().parse().unwrap()
    }

    #[test]
    fn a_stepped_clock_is_an_hour_ahead() {
        let scratch = ScratchDir::new("clock").unwrap();
        let clock = Clock::new(&scratch, NodeId::Lb1).unwrap();
        let before = seconds(&clock);
        clock.step(3600).unwrap();
        let ahead = seconds(&clock) - before;
        assert!((3600..3660).contains(&ahead), "{ahead} s");
        clock.step(0).unwrap();
        assert!(seconds(&clock) - before < 60);
    }
}

//! A log that never makes the process wait: whoever reads it may be stuck.

use std::io::{self, IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

use super::args::{Args, LogFormat};

/// Lines that wait for their reader; what comes on top is counted and dropped.
const WAITING_MAX: usize = 1024;

/// How long the end of the process waits for the last lines to be written.
const FLUSH_TIMEOUT: Duration = Duration::from_millis(200);

/// Lines on their way to standard error.
#[derive(Clone)]
struct Queue {
    lines: SyncSender<Note>,
    dropped: Arc<AtomicU64>,
}

enum Note {
    Line(Vec<u8>),
    /// Everything before it is written.
    Flush(SyncSender<()>),
}

/// The log, until the process ends.
pub(super) struct Log(Queue);

impl Log {
    /// Starts the log, on a thread that does nothing else.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(super) fn start(args: &Args) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(WAITING_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let counter = dropped.clone();
        thread::Builder::new()
            .name("log".to_owned())
            .spawn(move || write_out(&waiting, &counter))?;
        let queue = Queue { lines, dropped };
        let log = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(&args.log))
            .with_writer(queue.clone())
            .with_target(false);
        match args.log_format {
            LogFormat::Text => {
                let is_coloured =
                    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                log.with_ansi(is_coloured).init();
            }
            LogFormat::Json => log
                .json()
                .flatten_event(true)
                .with_current_span(false)
                .with_span_list(false)
                .init(),
        }
        Ok(Self(queue))
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        let (done, flushed) = sync_channel(1);
        if self.0.lines.try_send(Note::Flush(done)).is_ok() {
            // A reader that is stuck is not waited for.
            let _late = flushed.recv_timeout(FLUSH_TIMEOUT);
        }
    }
}

fn write_out(waiting: &Receiver<Note>, dropped: &AtomicU64) {
    let mut out = io::stderr();
    for note in waiting {
        // Where standard error is closed, there is nobody to tell.
        match note {
            Note::Line(line) => drop(out.write_all(&line)),
            Note::Flush(done) => drop(done.try_send(())),
        }
        let lost = dropped.swap(0, Ordering::Relaxed);
        if lost > 0 {
            drop(writeln!(
                out,
                "{lost} lines of this log were dropped: its reader is slow"
            ));
        }
    }
}

impl Write for Queue {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.lines.try_send(Note::Line(line.to_vec())).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Queue {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

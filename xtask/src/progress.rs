//! What a task shows while it works: one line for each step, and a sign of life on the long ones.

use std::io::{BufRead, BufReader, IsTerminal, Write, stderr};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// On a terminal the line is drawn again this often.
const REDRAW_INTERVAL: Duration = Duration::from_millis(500);
/// Where there is no terminal, a line is written this often.
const LINE_INTERVAL: Duration = Duration::from_secs(15);
/// Steps shorter than this are not worth their duration.
const DURATION_SHOWN_FROM: Duration = Duration::from_millis(1500);

/// Lines of a failed command's output that are shown.
const FAILURE_LINE_COUNT: usize = 30;

/// The first words of the lines in which cargo tells of its progress. Everything else (warnings,
/// errors) is passed on.
const STATUS_WORDS: [&str; 20] = [
    "Adding",
    "Blocking",
    "Building",
    "Checking",
    "Compiling",
    "Dirty",
    "Downloaded",
    "Downloading",
    "Finished",
    "Fresh",
    "Ignored",
    "Installed",
    "Installing",
    "Locking",
    "Removing",
    "Replaced",
    "Replacing",
    "Running",
    "Updating",
    "Waiting",
];

/// Says in one line what happens now, and why where that is not plain.
pub(crate) fn step(text: &str) {
    eprintln!("▸ {text}");
}

/// Runs a cargo command; one changing line stands for its many. `doing` reads like "building the XDP
/// program". Compiler messages pass through.
pub(crate) fn run_cargo(command: &mut Command, doing: &str) -> Result<()> {
    follow(command, doing, Reader::Cargo { crate_count: 0 })
}

/// Runs any other command; what it writes is shown when it fails.
pub(crate) fn run_quietly(command: &mut Command, doing: &str) -> Result<()> {
    follow(command, doing, Reader::Quiet { lines: Vec::new() })
}

fn follow(command: &mut Command, doing: &str, reader: Reader) -> Result<()> {
    let started = Instant::now();
    let (output, output_in) = std::io::pipe().context("cannot create a pipe")?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output_in.try_clone()?)
        .stderr(output_in)
        .spawn()
        .with_context(|| format!("{doing}: cannot start {:?}", command.get_program()))?;
    // The command holds the pipe's writing end; without this, the output would never end.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let (sender, lines) = mpsc::channel();
    let forwarder = thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut ticker = Ticker::new(doing, started, reader);
    ticker.follow(&lines);
    let status = child
        .wait()
        .with_context(|| format!("{doing}: cannot wait for its end"))?;
    if let Err(panic) = forwarder.join() {
        std::panic::resume_unwind(panic);
    }
    ticker.reader.finish(status);
    finish(doing, started, status)
}

fn finish(doing: &str, started: Instant, status: ExitStatus) -> Result<()> {
    if !status.success() {
        bail!("{doing} failed ({status}); the messages above say why");
    }
    let elapsed = started.elapsed();
    if elapsed < DURATION_SHOWN_FROM {
        eprintln!("▸ {doing}: done");
    } else {
        eprintln!("▸ {doing}: done in {:.0} s", elapsed.as_secs_f64());
    }
    Ok(())
}

/// What is made of a command's lines.
enum Reader {
    /// Progress is counted; everything else passes through.
    Cargo { crate_count: u32 },
    /// Everything is kept for the case of failure.
    Quiet { lines: Vec<String> },
}

impl Reader {
    /// Takes a line in; gives back what is to be shown of it.
    fn take(&mut self, line: String) -> Option<String> {
        match self {
            Self::Quiet { lines } => {
                lines.push(line);
                None
            }
            Self::Cargo { crate_count } => match status_word(&line) {
                Some("Compiling") => {
                    *crate_count += 1;
                    None
                }
                Some("Blocking") => Some(format!("  {} (another cargo is at work)", line.trim())),
                Some(_) => None,
                None => Some(line),
            },
        }
    }

    fn progress(&self) -> String {
        match self {
            Self::Cargo { crate_count } => format!("{crate_count} crates, "),
            Self::Quiet { .. } => String::new(),
        }
    }

    fn finish(&self, status: ExitStatus) {
        if let Self::Quiet { lines } = self
            && !status.success()
        {
            for line in &lines[lines.len().saturating_sub(FAILURE_LINE_COUNT)..] {
                eprintln!("  {line}");
            }
        }
    }
}

/// The changing line of one running command.
struct Ticker<'a> {
    doing: &'a str,
    started: Instant,
    reader: Reader,
    on_terminal: bool,
}

impl<'a> Ticker<'a> {
    fn new(doing: &'a str, started: Instant, reader: Reader) -> Self {
        Self {
            doing,
            started,
            reader,
            on_terminal: stderr().is_terminal(),
        }
    }

    /// Consumes the command's lines until it closes its output.
    fn follow(&mut self, lines: &Receiver<String>) {
        let interval = if self.on_terminal {
            REDRAW_INTERVAL
        } else {
            LINE_INTERVAL
        };
        let mut due = self.started + interval;
        loop {
            match lines.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(line) => self.take(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.draw();
                    due = Instant::now() + interval;
                }
            }
        }
        self.erase();
    }

    fn take(&mut self, line: String) {
        if let Some(shown) = self.reader.take(line) {
            self.erase();
            eprintln!("{shown}");
        }
    }

    fn draw(&self) {
        let (doing, seconds) = (self.doing, self.started.elapsed().as_secs());
        let text = format!("▸ {doing} … {}{seconds} s", self.reader.progress());
        if self.on_terminal {
            eprint!("\r\x1b[2K{text}");
            drop(stderr().flush());
        } else {
            eprintln!("{text}");
        }
    }

    fn erase(&self) {
        if self.on_terminal {
            eprint!("\r\x1b[2K");
            drop(stderr().flush());
        }
    }
}

/// The first word of a line in which cargo tells of its progress.
fn status_word(line: &str) -> Option<&str> {
    let word = line.split_whitespace().next()?;
    (line.starts_with(' ') && STATUS_WORDS.contains(&word)).then_some(word)
}

#[cfg(test)]
mod tests {
    use super::status_word;

    #[test]
    fn status_lines_are_told_from_compiler_messages() {
        assert_eq!(status_word("   Compiling libc v0.2.1"), Some("Compiling"));
        assert_eq!(status_word("warning: unused variable: `x`"), None);
        assert_eq!(status_word("Compiling is what it says"), None);
        assert_eq!(status_word("    |     ^^^ Compiling"), None);
    }
}

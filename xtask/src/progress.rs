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

/// Runs a cargo command; one changing line stands for its many. `doing` reads like "building the
/// XDP program". Compiler messages pass through.
pub(crate) fn run_cargo(command: &mut Command, doing: &str) -> Result<()> {
    let started = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{doing}: cannot start {:?}", command.get_program()))?;
    let stderr = child.stderr.take().context("cargo's output is not piped")?;
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    Ticker::new(doing, started).follow(&lines);
    let status = child
        .wait()
        .with_context(|| format!("{doing}: cannot wait for cargo"))?;
    drop(reader.join());
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

/// The changing line of one running command.
struct Ticker<'a> {
    doing: &'a str,
    started: Instant,
    crate_count: u32,
    on_terminal: bool,
}

impl<'a> Ticker<'a> {
    fn new(doing: &'a str, started: Instant) -> Self {
        Self {
            doing,
            started,
            crate_count: 0,
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
                Ok(line) => self.take(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    self.draw();
                    due = Instant::now() + interval;
                }
            }
        }
        self.erase();
    }

    fn take(&mut self, line: &str) {
        match status_word(line) {
            Some("Compiling") => self.crate_count += 1,
            Some("Blocking") => {
                self.erase();
                eprintln!("  {} (another cargo is at work)", line.trim());
            }
            Some(_) => {}
            None => {
                self.erase();
                eprintln!("{line}");
            }
        }
    }

    fn draw(&self) {
        let (doing, seconds) = (self.doing, self.started.elapsed().as_secs());
        let text = format!("▸ {doing} … {} crates, {seconds} s", self.crate_count);
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

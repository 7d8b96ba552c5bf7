//! `lb-hostile`: millions of messages from peers that lie, and from those who are none. Run by `cargo xtask test
//! hostile`; its short form is a test like others.
//!
//! - [`datagrams`]: what anybody may send to the peer link over UDP: forged, damaged, replayed, of other sessions.
//! - [`streams`]: the same over TCP, in every phase of a session.
//! - [`adverts`]: what anybody may send to a virtual router, with authentication and without.
//! - [`payloads`]: what a peer may say of flows that has the secret and has lost its mind.
//! - [`rings`]: what such a peer may say of rings.
//!
//! Nothing that its sender has not made may be taken, nothing may be taken twice, nothing may panic, memory may not
//! grow, and nobody may be made to say more than a message deserves.

mod adverts;
mod datagrams;
mod payloads;
mod rings;
mod rng;
mod streams;

use std::collections::BTreeMap;
use std::process::ExitCode;

use anyhow::{Result, ensure};
use clap::Parser;

use crate::rng::Rng;

/// What the process may have allocated more than after the first tenth. Unit: bytes.
const GROWTH_MAX_BYTES: u64 = 1 << 20;

#[derive(Parser)]
#[command(
    name = "lb-hostile",
    about = "Messages to the peer link and to virtual routers from those who lie: none is taken, nothing grows"
)]
struct Args {
    /// How many messages in all
    #[arg(long, default_value_t = 12_000_000, value_parser = clap::value_parser!(u64).range(1_000..))]
    messages: u64,
    /// What the messages are drawn from
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// What has become of hostile messages.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Hostile messages.
    pub(crate) hostile: u64,
    /// Of these, by what became of them.
    pub(crate) refused: BTreeMap<String, u64>,
    /// Genuine messages between them, all of which were taken once.
    pub(crate) genuine: u64,
}

impl Tally {
    /// One more. What a reason quotes of the message, and numbers, are left out: there are as many as messages.
    pub(crate) fn refuse(&mut self, reason: impl ToString) {
        self.hostile += 1;
        let text = reason.to_string();
        let own_words = match text.split_once("refuses this node") {
            Some((before, _theirs)) => format!("{before}refuses this node"),
            None => text,
        };
        let unquoted: String = own_words.split('"').step_by(2).collect();
        let reason = unquoted.replace(|char: char| char.is_ascii_digit(), "");
        *self.refused.entry(reason).or_default() += 1;
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<()> {
    let mut rng = Rng::new(args.seed);
    let tenth = args.messages / 10;
    let mut outsiders = attack(&mut rng, tenth)?;
    let before_bytes = allocated_bytes();
    outsiders += attack(&mut rng, args.messages - tenth)?;
    let after_bytes = allocated_bytes();
    let growth_bytes = after_bytes.saturating_sub(before_bytes);
    println!("{outsiders} hostile messages of those without the secret");
    println!(
        "memory has grown by {} KiB, to {} KiB",
        growth_bytes / 1024,
        after_bytes / 1024
    );
    ensure!(
        growth_bytes <= GROWTH_MAX_BYTES,
        "memory has grown by {growth_bytes} bytes in {} messages",
        args.messages - tenth
    );
    Ok(())
}

/// So many messages: most of them datagrams, which are the cheapest to send; five sixths and more of those who do not have
/// the secret. How many there were of these.
fn attack(rng: &mut Rng, messages: u64) -> Result<u64> {
    let percent = |percent: u64| messages * percent / 100;
    let outsiders = [
        ("datagrams", datagrams::attack(rng, percent(60))?),
        ("streams", streams::attack(rng, percent(4))?),
        ("adverts", adverts::attack(rng, percent(20))?),
    ];
    let peers = [
        (
            "flows, by a peer that has lost its mind",
            payloads::attack(rng, percent(10))?,
        ),
        (
            "rings, by a peer that has lost its mind",
            rings::attack(rng, percent(6))?,
        ),
    ];
    for (what, tally) in outsiders.iter().chain(&peers) {
        report(what, tally);
    }
    Ok(outsiders.iter().map(|(_, tally)| tally.hostile).sum())
}

fn report(what: &str, tally: &Tally) {
    println!(
        "{what}: {} hostile messages, {} genuine ones between them",
        tally.hostile, tally.genuine
    );
    for (reason, count) in &tally.refused {
        println!("    {count:>12}  {reason}");
    }
}

/// What the process has allocated. Not what it has resident: what an allocator keeps for later depends on how freed
/// blocks happen to lie. Unit: bytes.
fn allocated_bytes() -> u64 {
    // SAFETY: it has no argument, and reads the allocator's own books under its locks.
    let books = unsafe { libc::mallinfo2() };
    (books.uordblks + books.hblkhd) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_hundred_thousand_hostile_messages_are_refused() {
        run(&Args {
            messages: 200_000,
            seed: 7,
        })
        .expect("none is taken");
    }
}

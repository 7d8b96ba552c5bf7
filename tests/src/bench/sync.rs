//! `lb-bench sync`: how many flow changes a second go from one node to another, and what each costs.
//!
//! Two nodes in network namespaces with a cable between them, each with the real link: sockets, encryption, the
//! thread of the datagrams. The flow table is one in plain memory, whose flows the thread itself changes between
//! two looks; what that takes is not counted. CPU time is that of each node's thread alone, user and system.

mod churn;
mod node;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lb_lab::link::veth_pair;
use lb_lab::netns::Netns;
use lb_lab::{cpu, firewall};
use serde::Serialize;

use self::churn::{Churn, Reading};
use self::node::{Node, PORT};
use crate::default_json;
use crate::report::write_json;

/// Between two looks at the lag.
const SAMPLE_INTERVAL: Duration = Duration::from_millis(20);
/// What a figure is taken from begins this long after the changes.
const WARM_UP: Duration = Duration::from_millis(500);

/// Options of `lb-bench sync`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Flow changes a second, in one run each
    #[arg(long, default_values_t = [20_000, 200_000, 400_000], value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    rates: Vec<u32>,
    /// Datagrams that are lost, each way, in percent; in one run each
    #[arg(long, default_values_t = [0, 10, 50], value_delimiter = ',', value_parser = clap::value_parser!(u8).range(0..=99))]
    losses: Vec<u8>,
    /// How long each run is measured, in seconds
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// Keep the two threads on CPUs 0 and 1
    #[arg(long)]
    pin: bool,
    /// Where the figures go [default: target/bench/sync.json]
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What one run has shown.
#[derive(Clone, Debug, Serialize)]
struct Figures {
    loss_percent: u8,
    /// Flow changes a second that were made.
    changed_per_s: f64,
    /// Flows a second that were merged at the other node. A flow that changes again before it is told is told once.
    merged_per_s: f64,
    /// CPU time for each merged flow at the node that tells. Unit: nanoseconds.
    sender_cpu_each_ns: f64,
    /// The same at the other one. Unit: nanoseconds.
    receiver_cpu_each_ns: f64,
    /// Parts of a core, from 0 to 1.
    sender_core: f64,
    /// See `sender_core`.
    receiver_core: f64,
    /// The age of the oldest change that was not acknowledged. Unit: milliseconds.
    lag_p50_ms: u32,
    /// See `lag_p50_ms`.
    lag_p99_ms: u32,
    /// See `lag_p50_ms`.
    lag_max_ms: u32,
}

/// Measures, and prints what was found.
pub(crate) fn run(args: &Args) -> Result<()> {
    let mut all = Vec::new();
    for loss_percent in &args.losses {
        for rate_per_s in &args.rates {
            eprintln!("measuring {rate_per_s} changes a second with {loss_percent} % loss");
            all.push(measure(args, *rate_per_s, *loss_percent)?);
        }
    }
    println!("{}", table(&all));
    let path = args.json.clone();
    let path = path.unwrap_or_else(|| default_json("sync.json"));
    write_json(&path, &all)?;
    println!("figures in {}", path.display());
    Ok(())
}

fn table(all: &[Figures]) -> String {
    let mut text = format!(
        "{:>6}{:>14}{:>14}{:>16}{:>16}{:>10}{:>10}{:>8}{:>8}{:>8}\n",
        "loss",
        "changes / s",
        "merged / s",
        "send ns / flow",
        "take ns / flow",
        "send core",
        "take core",
        "lag p50",
        "p99",
        "max ms"
    );
    for figures in all {
        text += &format!(
            "{:>5}%{:>14.0}{:>14.0}{:>16.0}{:>16.0}{:>10.2}{:>10.2}{:>8}{:>8}{:>8}\n",
            figures.loss_percent,
            figures.changed_per_s,
            figures.merged_per_s,
            figures.sender_cpu_each_ns,
            figures.receiver_cpu_each_ns,
            figures.sender_core,
            figures.receiver_core,
            figures.lag_p50_ms,
            figures.lag_p99_ms,
            figures.lag_max_ms
        );
    }
    text
}

fn measure(args: &Args, rate_per_s: u32, loss_percent: u8) -> Result<Figures> {
    let nets = [Netns::create("sync1")?, Netns::create("sync2")?];
    veth_pair((&nets[0], "eth0"), (&nets[1], "eth0"))?;
    for (number, net) in (1..).zip(&nets) {
        net.ip(&format!("addr add 10.90.0.{number}/24 dev eth0"))?;
    }
    let (sending, sent) = Churn::new(0, Some(rate_per_s), args.pin.then_some(0));
    let (taking, taken) = Churn::new(1, None, args.pin.then_some(1));
    let nodes = [
        Node::start(&nets[0], 1, sending)?,
        Node::start(&nets[1], 2, taking)?,
    ];
    let within = Duration::from_secs(20);
    nodes[1].wait(within, |status| status.flows.is_caught_up)?;
    if loss_percent > 0 {
        let rule = format!("udp dport {PORT} numgen random mod 100 < {loss_percent} drop");
        for net in &nets {
            firewall::close(net, &rule)?;
        }
    }
    sent.go();
    std::thread::sleep(WARM_UP);
    let before = [sent.read(), taken.read()];
    let mut lags = Vec::new();
    let end = std::time::Instant::now() + Duration::from_secs(args.seconds);
    while std::time::Instant::now() < end {
        std::thread::sleep(SAMPLE_INTERVAL);
        lags.push(nodes[0].status()?.flows.lag_ms);
    }
    let after = [sent.read(), taken.read()];
    nodes.into_iter().try_for_each(Node::stop)?;
    figures(loss_percent, before, after, lags)
}

fn figures(
    loss_percent: u8,
    before: [Reading; 2],
    after: [Reading; 2],
    mut lags: Vec<u32>,
) -> Result<Figures> {
    lags.sort_unstable();
    let at = |percent: usize| lags[(lags.len() - 1) * percent / 100];
    let spent = |node: usize| {
        let cpu = after[node].cpu - before[node].cpu;
        let time = after[node].at - before[node].at;
        (cpu.as_secs_f64(), time.as_secs_f64())
    };
    let merged = after[1].merged - before[1].merged;
    ensure!(merged > 0, "no flow has arrived");
    let changed = after[0].changed - before[0].changed;
    let [(send_cpu_s, send_s), (take_cpu_s, take_s)] = [spent(0), spent(1)];
    Ok(Figures {
        loss_percent,
        changed_per_s: changed as f64 / send_s,
        merged_per_s: merged as f64 / take_s,
        sender_cpu_each_ns: send_cpu_s * 1e9 / merged as f64,
        receiver_cpu_each_ns: take_cpu_s * 1e9 / merged as f64,
        sender_core: send_cpu_s / send_s,
        receiver_core: take_cpu_s / take_s,
        lag_p50_ms: at(50),
        lag_p99_ms: at(99),
        lag_max_ms: *lags.last().context("no lag was seen")?,
    })
}

/// Keeps the calling thread on a CPU, if one is named.
fn pin(cpu: Option<usize>) {
    if let Some(Err(error)) = cpu.map(cpu::pin) {
        eprintln!("the figures are of a thread that moves: {error:#}");
    }
}

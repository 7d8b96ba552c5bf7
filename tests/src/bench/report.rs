//! Medians, ranges, tables and JSON.

use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

/// Median and range over the rounds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle one; of an even number of rounds, the upper of the two.
    pub(crate) median: f64,
    /// Least of the rounds.
    pub(crate) min: f64,
    /// Most of the rounds.
    pub(crate) max: f64,
}

impl Spread {
    /// From the rounds' values, at least one.
    pub(crate) fn of(mut rounds: Vec<f64>) -> Self {
        rounds.sort_by(f64::total_cmp);
        Self {
            median: rounds[rounds.len() / 2],
            min: rounds[0],
            max: rounds[rounds.len() - 1],
        }
    }
}

/// What was measured of one scenario, net of the baseline in the same round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// Scheduler, forwarding mode, family.
    pub(crate) scenario: String,
    /// Flows.
    pub(crate) flows: u32,
    /// Median over the rounds. Unit: nanoseconds for each packet.
    pub(crate) median_ns: f64,
    /// Least of the rounds.
    pub(crate) min_ns: f64,
    /// Most of the rounds.
    pub(crate) max_ns: f64,
}

impl Figure {
    /// From the rounds' figures.
    pub(crate) fn new(scenario: String, flows: u32, rounds_ns: Vec<f64>) -> Self {
        let spread = Spread::of(rounds_ns);
        Self {
            scenario,
            flows,
            median_ns: spread.median,
            min_ns: spread.min,
            max_ns: spread.max,
        }
    }

    fn cell(&self) -> String {
        format!(
            "{:.1} ({:.0}–{:.0})",
            self.median_ns, self.min_ns, self.max_ns
        )
    }
}

/// What the kernel says about the loaded program.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ProgramFacts {
    /// Instructions that the verifier walked.
    pub(crate) verified_instructions: u32,
    /// Stack of the function that needs most. (The verifier allows 512 bytes for a chain of calls.)
    /// Unit: bytes.
    pub(crate) deepest_frame_bytes: u32,
    /// Instructions in the program.
    pub(crate) instructions: u32,
    /// Size after the JIT. Unit: bytes.
    pub(crate) jited_bytes: u32,
    /// Memory of each map at default capacities. Unit: bytes.
    pub(crate) map_bytes: Vec<(String, u64)>,
}

/// Flow counts as people say them.
pub(crate) fn flow_label(flows: u32) -> String {
    match flows {
        1 => "1 flow".into(),
        flows if flows >= 1 << 20 => format!("{}M flows", flows >> 20),
        flows if flows >= 1 << 10 => format!("{}k flows", flows >> 10),
        flows => format!("{flows} flows"),
    }
}

/// One row for each scenario, one column for each flow count.
pub(crate) fn print_figures(figures: &[Figure], flow_counts: &[u32]) {
    let width = figures.iter().map(|figure| figure.scenario.len()).max();
    let width = width.unwrap_or_default();
    print!("{:<width$}", "");
    flow_counts
        .iter()
        .for_each(|flows| print!("{:>18}", flow_label(*flows)));
    println!();
    let mut scenarios: Vec<&str> = figures
        .iter()
        .map(|figure| figure.scenario.as_str())
        .collect();
    scenarios.dedup();
    for scenario in scenarios {
        print!("{scenario:<width$}");
        for flows in flow_counts {
            let figure = figures
                .iter()
                .find(|f| f.scenario == scenario && f.flows == *flows);
            print!("{:>18}", figure.map(Figure::cell).unwrap_or_default());
        }
        println!();
    }
}

/// The program's cost besides time.
pub(crate) fn print_facts(facts: &ProgramFacts) {
    println!(
        "verified instructions {}, program {} instructions, {} B after the JIT, deepest stack frame {} B",
        facts.verified_instructions,
        facts.instructions,
        facts.jited_bytes,
        facts.deepest_frame_bytes
    );
    let total: u64 = facts.map_bytes.iter().map(|(_, bytes)| bytes).sum();
    println!(
        "map memory at default capacities: {:.1} MiB",
        total as f64 / f64::from(1 << 20)
    );
    for (name, bytes) in &facts.map_bytes {
        println!("  {name:<14} {:>10.1} KiB", *bytes as f64 / 1024.0);
    }
}

/// The running kernel, as `uname -r` says it.
pub(crate) fn kernel_release() -> Result<String> {
    let name = nix::sys::utsname::uname().context("cannot ask for the kernel's release")?;
    Ok(name.release().to_string_lossy().into_owned())
}

/// Writes a report, and says where.
pub(crate) fn write_json(path: &Path, report: &impl Serialize) -> Result<()> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
    }
    std::fs::write(path, serde_json::to_string_pretty(report)? + "\n")
        .with_context(|| format!("cannot write {}", path.display()))?;
    eprintln!("figures in {}", path.display());
    Ok(())
}

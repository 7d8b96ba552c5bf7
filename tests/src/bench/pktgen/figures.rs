//! Rounds to figures, a table of them, and how they are to be read.

use serde::Serialize;

use super::ledger::{Action, Ledger};
use crate::report::{Spread, flow_label};

/// Nanoseconds in a second.
const SECOND_NS: f64 = 1e9;

/// One run of one program.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// Where its frames went.
    pub(crate) ledger: Ledger,
    /// Frames that went all the way, each second.
    pub(crate) rate_pps: f64,
}

/// What was measured of one program.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// The program: scheduler, forwarding mode, family.
    pub(crate) program: String,
    /// Flows that the frames belong to.
    pub(crate) flows: u32,
    /// Frames that went all the way, each second.
    pub(crate) rate_pps: Spread,
    /// The same as time for each frame: generator, wire and program together. Unit: nanoseconds.
    pub(crate) frame_ns: Spread,
    /// That time less the time with `XDP_TX` in the same round. Unit: nanoseconds.
    pub(crate) over_transmit_ns: Spread,
    /// Of all rounds: frames put to the sender's end.
    pub(crate) sent_count: u64,
    /// Of all rounds: frames taken in by the balancer's end. For a datapath, its own counters say
    /// the same.
    pub(crate) received_count: u64,
    /// Of all rounds: answers that the sender's end saw.
    pub(crate) answered_count: u64,
    /// Of all rounds: frames that one of the ends had no room for.
    pub(crate) lost_count: u64,
}

impl Run {
    /// From the ledger of a run and its time.
    pub(crate) fn new(ledger: Ledger, action: Action, elapsed_s: f64) -> Self {
        let rate_pps = ledger.through_count(action) as f64 / elapsed_s;
        Self { ledger, rate_pps }
    }

    fn frame_ns(&self) -> f64 {
        SECOND_NS / self.rate_pps
    }
}

impl Figure {
    /// From the runs of a program, and those of `XDP_TX`, in the order of their rounds.
    pub(crate) fn new(program: &str, flows: u32, runs: &[Run], transmit: &[Run]) -> Self {
        let total = runs
            .iter()
            .fold(Ledger::default(), |total, run| total.plus(&run.ledger));
        let pairs = runs.iter().zip(transmit);
        Self {
            program: program.to_owned(),
            flows,
            rate_pps: Spread::of(runs.iter().map(|run| run.rate_pps).collect()),
            frame_ns: Spread::of(runs.iter().map(Run::frame_ns).collect()),
            over_transmit_ns: Spread::of(
                pairs
                    .map(|(run, base)| run.frame_ns() - base.frame_ns())
                    .collect(),
            ),
            sent_count: total.sent_count,
            received_count: total.wire.received_count,
            answered_count: total.answered_count,
            lost_count: total.lost_count(),
        }
    }

    fn cells(&self) -> [String; HEADINGS.len()] {
        [
            self.program.clone(),
            flow_label(self.flows),
            cell(self.rate_pps, 1e-6, 2),
            cell(self.frame_ns, 1.0, 0),
            cell(self.over_transmit_ns, 1.0, 0),
            self.received_count.to_string(),
            self.answered_count.to_string(),
            self.lost_count.to_string(),
        ]
    }
}

/// Columns of the table, the first two without a heading.
const HEADINGS: [&str; 8] = [
    "",
    "",
    "Mpps",
    "ns a frame",
    "ns over XDP_TX",
    "received",
    "answered",
    "lost",
];

/// One row for each program.
pub(crate) fn print(figures: &[Figure]) {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(figures.iter().map(Figure::cells));
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    for [program, cells @ ..] in &rows {
        print!("{program:<width$}", width = widths[0]);
        for (cell, width) in cells.iter().zip(&widths[1..]) {
            print!("   {cell:>width$}");
        }
        println!();
    }
}

fn cell(spread: Spread, scale: f64, digits: usize) -> String {
    let [median, min, max] = [spread.median, spread.min, spread.max].map(|value| value * scale);
    format!("{median:.digits$} ({min:.digits$}–{max:.digits$})")
}

#[cfg(test)]
mod tests {
    use super::super::wire::WireCounters;
    use super::*;

    fn run(frame_ns: f64) -> Run {
        let ledger = Ledger {
            sent_count: 1000,
            wire: WireCounters {
                received_count: 1000,
                ..WireCounters::default()
            },
            answered_count: 1000,
        };
        Run::new(ledger, Action::Transmit, 1000.0 * frame_ns / SECOND_NS)
    }

    #[test]
    fn a_program_is_compared_with_transmit_in_the_same_round() {
        // The second round is a noisy one, for both.
        let (runs, transmit) = ([110.0, 550.0, 112.0], [100.0, 500.0, 100.0]);
        let figure = Figure::new("x", 1, &runs.map(run), &transmit.map(run));
        assert_eq!(figure.over_transmit_ns.median.round(), 12.0);
        assert_eq!(figure.over_transmit_ns.min.round(), 10.0);
        assert_eq!(figure.frame_ns.max.round(), 550.0);
        assert_eq!(figure.rate_pps.max.round(), (SECOND_NS / 110.0).round());
        assert_eq!(figure.answered_count, 3000);
    }
}

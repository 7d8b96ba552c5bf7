//! The table, and the same with everything in it as JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::outcome::Row;

/// Columns of the table; the first two are text.
const HEADINGS: [&str; 10] = [
    "event",
    "mode",
    "connections",
    "broken",
    "with their backend",
    "new",
    "failed",
    "datagrams",
    "lost",
    "longest gap",
];
const TEXT_COLUMNS: usize = 2;

/// One line for each row, all lanes together.
pub fn table(rows: &[Row]) -> String {
    let mut lines = vec![HEADINGS.map(str::to_owned)];
    lines.extend(rows.iter().map(cells));
    let widths: Vec<usize> = (0..HEADINGS.len())
        .map(|column| {
            lines
                .iter()
                .map(|line| line[column].chars().count())
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in &lines {
        let mut padded = String::new();
        for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
            padded += &if column < TEXT_COLUMNS {
                format!("{cell:<width$}  ")
            } else {
                format!("{cell:>width$}  ")
            };
        }
        text += padded.trim_end();
        text.push('\n');
    }
    text
}

/// A row as soon as it is there, for somebody who waits.
pub fn line(row: &Row) -> String {
    let total = row.total();
    let faults: String = row
        .faults()
        .iter()
        .map(|fault| format!("  {fault}\n"))
        .collect();
    format!(
        "{}, {}: {} connections, {} broken, {} new ({} failed), {} of {} datagrams lost, longest gap \
         {} ms, {} segments repeated; took {:.1} s, settled after {:.1} s\n{faults}",
        row.mode_text(),
        row.step,
        total.connections,
        total.broken,
        total.new_ok + total.new_failed,
        total.new_failed,
        total.lost,
        total.sent,
        total.longest_gap.as_millis(),
        row.retransmitted,
        row.acted_s,
        row.settled_s,
    )
}

fn cells(row: &Row) -> [String; HEADINGS.len()] {
    let total = row.total();
    [
        row.step.to_owned(),
        row.mode_text(),
        total.connections.to_string(),
        total.broken.to_string(),
        total.died_with_backend.to_string(),
        (total.new_ok + total.new_failed).to_string(),
        total.new_failed.to_string(),
        total.sent.to_string(),
        total.lost.to_string(),
        format!("{} ms", total.longest_gap.as_millis()),
    ]
}

/// Everything that was counted.
pub fn json(rows: &[Row], notes: &[String]) -> Value {
    json!({
        "rows": rows.iter().map(row_json).collect::<Vec<_>>(),
        "notes": notes,
    })
}

fn row_json(row: &Row) -> Value {
    let lanes = row.lanes.iter();
    let lanes: Vec<Value> = lanes
        .map(|(lane, outcome)| {
            json!({ "scheduler": lane.scheduler, "family": lane.family, "outcome": outcome })
        })
        .collect();
    json!({
        "step": row.step,
        "mode": row.mode_text(),
        "tcp_segments_retransmitted": row.retransmitted,
        "acted_s": row.acted_s,
        "settled_s": row.settled_s,
        "lanes": lanes,
    })
}

/// Writes a value for programs to read.
pub fn write_json(path: &Path, value: &Value) -> Result<()> {
    let directory = path.parent().context("a file without a directory")?;
    fs::create_dir_all(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let text = serde_json::to_string_pretty(value)? + "\n";
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

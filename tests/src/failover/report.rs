//! The table, and the same with everything in it as JSON.

use std::fmt::Write;

use serde_json::{Value, json};

use super::outcome::Row;

/// One line for each row.
pub fn table(rows: &[Row]) -> String {
    let mut text =
        "| what happens | pair | mode | interval | darkness p50 / p99 / max (ms) | broken | both \
                    Active, max (ms) |\n|---|---|---|---|---|---|---|\n"
            .to_owned();
    for row in rows {
        let summary = row.summary();
        let dark = summary.darkness;
        let _infallible = writeln!(
            text,
            "| {} | {} | {} | {} ms | {:.0} / {:.0} / {:.0} | {} of {} | {:.0} |",
            row.phase,
            row.pair,
            row.mode,
            row.interval.as_millis(),
            dark.p50_ms,
            dark.p99_ms,
            dark.max_ms,
            summary.broken,
            summary.connections,
            summary.both_active.max_ms,
        );
    }
    text
}

/// A row as soon as it is there, for somebody who waits.
pub fn line(row: &Row) -> String {
    let summary = row.summary();
    let dark = summary.darkness;
    let how = match (summary.broken, summary.broken_unproved) {
        (0, 0) => String::new(),
        (_, unproved) => format!(" {:?}, {unproved} without a proof", summary.broken_how),
    };
    format!(
        "{}, {}, {} ms: {}: {} times, dark for {:.0} / {:.0} / {:.0} ms, {} of {} connections broken{how}, {} \
         of {} new ones failed, both Active for {:.0} ms at most, {} false failovers\n",
        row.pair,
        row.mode,
        row.interval.as_millis(),
        row.phase,
        summary.repetitions,
        dark.p50_ms,
        dark.p99_ms,
        dark.max_ms,
        summary.broken,
        summary.connections,
        summary.new_failed,
        summary.new,
        summary.both_active.max_ms,
        summary.false_failovers,
    )
}

/// Everything that was counted.
pub fn json(rows: &[Row]) -> Value {
    json!({ "rows": rows.iter().map(row_json).collect::<Vec<_>>() })
}

fn row_json(row: &Row) -> Value {
    let samples = row.samples.iter();
    let samples: Vec<Value> = samples
        .map(|sample| {
            let seen = sample.seen;
            json!({
                "darkness_ms": seen.darkness.longest.as_secs_f64() * 1e3,
                "darkness_total_ms": seen.darkness.total.as_secs_f64() * 1e3,
                "both_active_ms": seen.both.as_secs_f64() * 1e3,
                "lb1_had_a_vip": seen.had[0],
                "lb2_had_a_vip": seen.had[1],
                "lanes": sample.lanes.as_ref().map(|lanes| {
                    let lanes = lanes.iter();
                    lanes.map(|(lane, outcome)| {
                        json!({ "scheduler": lane.scheduler, "family": lane.family, "outcome": outcome })
                    })
                    .collect::<Vec<_>>()
                }),
            })
        })
        .collect();
    json!({
        "pair": row.pair,
        "mode": row.mode,
        "interval_ms": row.interval.as_millis(),
        "phase": row.phase,
        "summary": row.summary(),
        "samples": samples,
    })
}

//! The table, and the same with everything in it as JSON.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

use super::outcome::{Row, Summary};
use super::pair::Make;

/// Pairs of one make, side by side.
const PLAIN: [Make; 2] = [Make::Rival, Make::Ours];
/// Mixed pairs, in a table of their own: what goes through them breaks whenever it changes between a proxy and a
/// datapath, so what is told of them is who had the VIPs.
const MIXED: [Make; 2] = [Make::OursRival, Make::RivalOurs];

/// Three columns of a make.
struct Columns {
    titles: &'static str,
    /// What they say of a row.
    cells: fn(&Summary) -> String,
}

const COSTS: Columns = Columns {
    titles: "dark for p50 / p99 / max | connections broken | both Active",
    cells: |summary| {
        let (broken, connections) = (summary.broken, summary.connections);
        let both = summary.both_active.max_ms;
        format!(
            "{} | {broken} of {connections} | {both:.0} ms",
            dark(summary)
        )
    },
};
const HOLDERS: Columns = Columns {
    titles: "dark for p50 / p99 / max | both Active | false failovers",
    cells: |summary| {
        let (both, moved) = (summary.both_active.max_ms, summary.false_failovers);
        let repetitions = summary.repetitions;
        format!(
            "{} | {both:.0} ms | {moved} of {repetitions}",
            dark(summary)
        )
    },
};

fn dark(summary: &Summary) -> String {
    let dark = summary.darkness;
    format!(
        "{:.0} / {:.0} / {:.0} ms",
        dark.p50_ms, dark.p99_ms, dark.max_ms
    )
}

/// One line for each phase and interval, with both pairs side by side; the ways through a pair together. Mixed
/// pairs follow in another table.
pub fn table(rows: &[Row]) -> String {
    let tables = [(PLAIN, COSTS), (MIXED, HOLDERS)];
    let tables = tables.map(|(makes, columns)| table_of(rows, makes, &columns));
    let tables = tables.into_iter().flatten();
    tables.collect::<Vec<_>>().join("\n")
}

/// The table of those of these makes that were run, if any was.
fn table_of(rows: &[Row], makes: [Make; 2], columns: &Columns) -> Option<String> {
    let rows: Vec<&Row> = rows
        .iter()
        .filter(|row| makes.contains(&row.make))
        .collect();
    if rows.is_empty() {
        return None;
    }
    let makes = makes.into_iter();
    let makes: Vec<Make> = makes
        .filter(|make| rows.iter().any(|row| row.make == *make))
        .collect();
    let mut text = String::from("| what happens | interval |");
    for make in &makes {
        let _infallible = write!(text, " {}: {} |", make.word(), columns.titles);
    }
    text += &format!("\n|---|---|{}\n", "---|".repeat(3 * makes.len()));
    for (phase, interval) in places(&rows) {
        let _infallible = write!(text, "| {phase} | {} ms |", interval.as_millis());
        for make in &makes {
            let same = rows
                .iter()
                .copied()
                .filter(|row| (row.phase, row.interval, row.make) == (phase, interval, *make));
            text += &cells(same, columns);
        }
        text.push('\n');
    }
    Some(text)
}

/// Phases and intervals in the order of the run, each once.
fn places(rows: &[&Row]) -> Vec<(&'static str, Duration)> {
    let mut places: Vec<(&str, Duration)> = Vec::new();
    for row in rows {
        let place = (row.phase, row.interval);
        if places.contains(&place) {
            continue;
        }
        // Beside the same phase at another interval.
        let sibling = places.iter().rposition(|(phase, _)| *phase == row.phase);
        places.insert(sibling.map_or(places.len(), |at| at + 1), place);
    }
    places
}

/// Three cells.
fn cells<'a>(rows: impl Iterator<Item = &'a Row>, columns: &Columns) -> String {
    let merged = rows.cloned().reduce(|mut merged, row| {
        merged.samples.extend(row.samples);
        for (how, count) in row.broken_unproved {
            *merged.broken_unproved.entry(how).or_default() += count;
        }
        merged
    });
    match merged {
        Some(row) => format!(" {} |", (columns.cells)(&row.summary())),
        None => " – | – | – |".to_owned(),
    }
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
         of {} new ones failed, both Active for {:.0} ms at most, {} false failovers; the client itself stood still for \
         {:.0} ms at most\n",
        row.make.word(),
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
        summary.stall.max_ms,
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
                "client_stalled_ms": seen.darkness.stall.as_secs_f64() * 1e3,
                "darkness_total_ms": seen.darkness.total.as_secs_f64() * 1e3,
                "both_active_ms": seen.both.as_secs_f64() * 1e3,
                "lb1_took_a_vip": seen.took[0],
                "lb2_took_a_vip": seen.took[1],
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
        "pair": row.make.word(),
        "mode": row.mode,
        "interval_ms": row.interval.as_millis(),
        "phase": row.phase,
        "summary": row.summary(),
        "broken_unproved_how": row.broken_unproved,
        "samples": samples,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::failover::event::{Other, Warning};
    use crate::failover::outcome::{Promise, Sample};

    fn row(make: Make, mode: &'static str, phase: &'static str, interval_ms: u64) -> Row {
        Row {
            make,
            mode,
            interval: Duration::from_millis(interval_ms),
            phase,
            promise: Promise::Nothing,
            warning: Warning::None,
            stays: false,
            other: Other::HasNone,
            samples: vec![Sample::default()],
            broken_unproved: BTreeMap::new(),
        }
    }

    #[test]
    fn a_phase_is_a_line_with_both_pairs_in_it() {
        let rows = [
            row(Make::Ours, "dsr", "power loss", 1000),
            row(Make::Ours, "dsr", "hand-over", 1000),
            row(Make::Ours, "dsr", "power loss", 30),
            row(Make::Ours, "nat", "power loss", 30),
            row(Make::Rival, "dsr", "power loss", 30),
        ];
        let text = table(&rows);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        let begins = [
            "| power loss | 1000 ms | – |",
            "| power loss | 30 ms | 0 /",
            "| hand-over | 1000 ms | – |",
        ];
        assert_eq!(lines.len(), begins.len(), "{text}");
        for (line, begin) in lines.iter().zip(begins) {
            assert!(line.starts_with(begin), "{text}");
        }
    }

    #[test]
    fn mixed_pairs_have_a_table_of_their_own() {
        let rows = [
            row(Make::Ours, "dsr", "power loss", 30),
            row(Make::RivalOurs, "dsr", "power loss", 30),
            row(Make::OursRival, "dsr", "power loss", 30),
        ];
        let text = table(&rows);
        let (plain, mixed) = text.split_once("\n\n").unwrap();
        assert!(plain.contains("connections broken"), "{text}");
        assert!(!plain.contains("lb1"), "{text}");
        let [first, second] = MIXED.map(|make| mixed.find(make.word()).unwrap());
        assert!(first < second, "{text}");
        assert!(mixed.contains("| 0 ms | 0 of 1 |"), "{text}");
        assert_eq!(table(&rows[1..]).lines().count(), 3, "{text}");
    }
}

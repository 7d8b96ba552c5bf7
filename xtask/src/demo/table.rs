//! Aligned tables and a little colour.

use std::env;
use std::io::{IsTerminal, stdout};

/// Spaces between two columns.
const GAP: usize = 3;

/// How text stands out. On a terminal only, and not where `NO_COLOR` is set (no-color.org).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Emphasis {
    Bold,
    Dim,
    Good,
    Bad,
}

/// `text`, emphasised where the output is looked at by a person.
pub(super) fn emphasise(emphasis: Emphasis, text: &str) -> String {
    if !stdout().is_terminal() || env::var_os("NO_COLOR").is_some() {
        return text.to_owned();
    }
    let code = match emphasis {
        Emphasis::Bold => "1",
        Emphasis::Dim => "2",
        Emphasis::Good => "32",
        Emphasis::Bad => "31",
    };
    format!("\x1b[{code}m{text}\x1b[0m")
}

/// Prints a heading.
pub(super) fn heading(text: &str) {
    println!("\n{}", emphasise(Emphasis::Bold, text));
}

/// How a table's columns after the first are set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// Sets rows in columns as wide as their widest cell, indented by two. Rows may differ in length.
pub(super) fn format_rows(rows: &[Vec<String>], align: Align) -> String {
    let column_count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..column_count)
        .map(|column| {
            rows.iter()
                .filter_map(|row| row.get(column))
                .map(|cell| width(cell))
                .max()
        })
        .map(Option::unwrap_or_default)
        .collect();
    rows.iter()
        .map(|row| format_row(row, &widths, align))
        .collect()
}

fn format_row(row: &[String], widths: &[usize], align: Align) -> String {
    let mut line = String::from("  ");
    for (column, (cell, column_width)) in row.iter().zip(widths).enumerate() {
        let padding = " ".repeat(column_width - width(cell));
        let gap = " ".repeat(if column == 0 { 0 } else { GAP });
        match (column, align) {
            (0, _) | (_, Align::Left) => line += &format!("{gap}{cell}{padding}"),
            (_, Align::Right) => line += &format!("{gap}{padding}{cell}"),
        }
    }
    format!("{}\n", line.trim_end())
}

fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &[&[&str]]) -> Vec<Vec<String>> {
        text.iter()
            .map(|row| row.iter().map(|cell| (*cell).to_owned()).collect())
            .collect()
    }

    #[test]
    fn numbers_are_set_to_the_right_and_words_to_the_left() {
        let rows = rows(&[
            &["", "IPv4", "IPv6"],
            &["web1", "7", "100"],
            &["web10", "–"],
        ]);
        let expected = "          IPv4   IPv6\n  web1       7    100\n  web10      –\n";
        assert_eq!(format_rows(&rows, Align::Right), expected);
        let expected = "          IPv4   IPv6\n  web1    7      100\n  web10   –\n";
        assert_eq!(format_rows(&rows, Align::Left), expected);
    }
}

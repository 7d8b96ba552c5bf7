//! Aligned tables and a little colour.

use std::env;
use std::io::{IsTerminal, stdout};
use std::ops::Range;

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

/// A heading over several columns of numbers, as lines from top to bottom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) titles: Vec<String>,
    pub(super) column_count: usize,
}

/// As [`format_rows`] for numbers, with headings over groups of the columns after the first.
pub(super) fn format_grouped(groups: &[Group], mut rows: Vec<Vec<String>>) -> String {
    let first_width = rows
        .iter()
        .filter_map(|row| row.first())
        .map(|cell| width(cell))
        .max();
    let mut heads = vec![" ".repeat(2 + first_width.unwrap_or(0)); title_count(groups)];
    let mut column = 1;
    for group in groups {
        let columns = column..column + group.column_count;
        let group_width = widen(&mut rows, columns, group);
        for (line, head) in heads.iter_mut().enumerate() {
            let title = group.titles.get(line).map_or("", String::as_str);
            let padding = " ".repeat(group_width.saturating_sub(width(title)));
            *head += &format!("{}{title}{padding}", " ".repeat(GAP));
        }
        column += group.column_count;
    }
    let heads: String = heads
        .iter()
        .map(|head| format!("{}\n", head.trim_end()))
        .collect();
    heads + &format_rows(&rows, Align::Right)
}

fn title_count(groups: &[Group]) -> usize {
    groups
        .iter()
        .map(|group| group.titles.len())
        .max()
        .unwrap_or(0)
}

/// Makes a group's columns equally wide, and wide enough for its titles. Returns the group's width.
fn widen(rows: &mut [Vec<String>], columns: Range<usize>, group: &Group) -> usize {
    let gaps = GAP * (group.column_count - 1);
    let titles = group
        .titles
        .iter()
        .map(|title| width(title))
        .max()
        .unwrap_or(0);
    let cells = rows
        .iter()
        .flat_map(|row| row.get(columns.clone()).unwrap_or(&[]));
    let widest = cells.map(|cell| width(cell)).max().unwrap_or(0);
    let column_width = widest.max(titles.saturating_sub(gaps).div_ceil(group.column_count));
    for cell in rows
        .iter_mut()
        .filter_map(|row| row.get_mut(columns.clone()))
        .flatten()
    {
        *cell = format!("{cell:>column_width$}");
    }
    column_width * group.column_count + gaps
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
    fn headings_stand_over_their_columns() {
        let group = |titles: &[&str]| Group {
            titles: titles.iter().map(|title| (*title).to_owned()).collect(),
            column_count: 2,
        };
        let groups = [group(&["www.foobar.com", "hash"]), group(&["rr", "turns"])];
        let rows = rows(&[
            &["", "v4", "v6", "v4", "v6"],
            &["web1", "1", "20", "3", "400"],
        ]);
        let expected = concat!(
            "         www.foobar.com    rr\n",
            "         hash              turns\n",
            "             v4       v6    v4    v6\n",
            "  web1        1       20     3   400\n",
        );
        assert_eq!(format_grouped(&groups, rows), expected);
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

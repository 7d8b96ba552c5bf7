use comfy_table::presets::NOTHING;
use comfy_table::{Attribute, Cell, CellAlignment, Table};

/// How a column is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table without lines: a bold header where there is a terminal, and aligned columns.
#[derive(Debug)]
pub(super) struct Grid {
    table: Table,
}

impl Grid {
    /// A table with these columns.
    pub(super) fn new(columns: &[(&str, Align)]) -> Self {
        let mut table = Table::new();
        table.load_style(NOTHING);
        let header = columns
            .iter()
            .map(|(title, _)| Cell::new(title).add_attribute(Attribute::Bold));
        table.set_header(header.collect::<Vec<_>>());
        for (column, (_, align)) in table.column_iter_mut().zip(columns) {
            column.set_padding((0, 2));
            column.set_cell_alignment(match align {
                Align::Left => CellAlignment::Left,
                Align::Right => CellAlignment::Right,
            });
        }
        Self { table }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.table.add_row(cells.into_iter().collect::<Vec<_>>());
    }

    /// The lines of the table, each with its newline.
    pub(super) fn draw(&self) -> String {
        self.table.trim_fmt() + "\n"
    }
}

/// `key: value` lines with the values aligned.
pub(super) fn facts(facts: &[(&str, String)]) -> String {
    let width = facts.iter().map(|(key, _)| key.len()).max().unwrap_or(0) + 1;
    let line = |(key, value): &(&str, String)| format!("{:width$} {value}\n", format!("{key}:"));
    facts.iter().map(line).collect()
}

//! COM_QUERY and its text result set.

use super::packet::{Cursor, Packets, Refusal, garbage};

/// Columns of a result; SHOW ALL SLAVES STATUS has about 60. Unit: columns.
const COLUMNS_MAX: u64 = 256;

/// Rows of a result. Unit: rows.
const ROWS_MAX: usize = 256;

/// A result set; none of columns if the statement has no result.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<Option<String>>>,
}

/// A row of a table, by the names of its columns.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row<'a> {
    columns: &'a [String],
    values: &'a [Option<String>],
}

impl Table {
    pub(super) fn rows(&self) -> impl Iterator<Item = Row<'_>> {
        self.rows.iter().map(|values| Row {
            columns: &self.columns,
            values,
        })
    }

    #[cfg(test)]
    pub(super) fn of(columns: &[&str], rows: &[&[Option<&str>]]) -> Self {
        Self {
            columns: columns.iter().map(|name| (*name).to_owned()).collect(),
            rows: rows
                .iter()
                .map(|row| row.iter().map(|value| value.map(str::to_owned)).collect())
                .collect(),
        }
    }
}

impl<'a> Row<'a> {
    /// A column's value by the first of these names that there is; `None` is also NULL.
    pub(super) fn get(&self, names: &[&str]) -> Option<&'a str> {
        let place = names
            .iter()
            .find_map(|name| self.columns.iter().position(|column| column == name))?;
        self.values.get(place)?.as_deref()
    }

    /// All values in order.
    pub(super) fn values(&self) -> impl Iterator<Item = Option<&'a str>> + use<'a> {
        self.values.iter().map(Option::as_deref)
    }
}

/// Asks, and reads the whole answer.
pub(super) async fn query(packets: &mut Packets, sql: &str, doing: &str) -> Result<Table, Refusal> {
    /// COM_QUERY.
    const QUERY: u8 = 3;
    packets
        .command(&[&[QUERY], sql.as_bytes()].concat(), doing)
        .await?;
    let first = packets.expect(doing).await?;
    match first[0] {
        0x00 => Ok(Table::default()),
        0xfb => Err(garbage(format!("{doing}: the server asks for a file of this node")).into()),
        _ => table(packets, &first, doing).await,
    }
}

async fn table(packets: &mut Packets, first: &[u8], doing: &str) -> Result<Table, Refusal> {
    let malformed = || garbage(format!("{doing}: a malformed result"));
    let count = Cursor::of(first)
        .length()
        .filter(|count| (1..=COLUMNS_MAX).contains(count))
        .ok_or_else(malformed)?;
    let mut table = Table::default();
    for _ in 0..count {
        let definition = packets.expect(doing).await?;
        table
            .columns
            .push(column_name(&definition).ok_or_else(malformed)?);
    }
    if !is_end(&packets.expect(doing).await?) {
        return Err(malformed().into());
    }
    loop {
        let payload = packets.expect(doing).await?;
        if is_end(&payload) {
            return Ok(table);
        }
        if table.rows.len() == ROWS_MAX {
            let many = format!("{doing}: more than {ROWS_MAX} rows: let the query return one");
            return Err(garbage(many).into());
        }
        let row = fields(&payload, table.columns.len()).ok_or_else(malformed)?;
        table.rows.push(row);
    }
}

/// EOF: `0xfe`, which is no length in so short a packet.
fn is_end(payload: &[u8]) -> bool {
    payload[0] == 0xfe && payload.len() < 9
}

/// Of a definition, which begins with catalogue, schema, table, original table, name.
fn column_name(definition: &[u8]) -> Option<String> {
    let mut at = Cursor::of(definition);
    for _ in 0..4 {
        at.text()?;
    }
    Some(String::from_utf8_lossy(at.text()?).into_owned())
}

fn fields(payload: &[u8], count: usize) -> Option<Vec<Option<String>>> {
    let mut at = Cursor::of(payload);
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    (0..count)
        .map(|_| at.field().map(|value| value.map(text)))
        .collect()
}

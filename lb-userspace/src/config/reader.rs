//! A typed reader over the spanned tree that collects mistakes instead of stopping at the first.

use std::net::{IpAddr, SocketAddr};
use std::ops::Range;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};

use super::report::Diagnostic;
use super::spans::Spans;
use crate::model::draft::Field;
use crate::model::text::{self, TextError};
use crate::model::{Keyword, Section};
use crate::suggest::closest;

/// What was read so far: mistakes and places.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) diagnostics: Vec<Diagnostic>,
    pub(super) spans: Spans,
}

impl Reader {
    /// Opens a section: remembers where it and its values are, and reports keys that it does not
    /// have. `header` is where the section begins.
    pub(super) fn open<'t>(
        &mut self,
        section: Section,
        table: (&'t DeTable<'t>, Range<usize>),
        known: &[&'static str],
    ) -> &'t DeTable<'t> {
        let (entries, header) = table;
        self.note(section, entries, header, known.iter().copied());
        self.report_unknown_keys(entries, known);
        entries
    }

    /// Remembers where a section and the values of these keys are.
    pub(super) fn note(
        &mut self,
        section: Section,
        entries: &DeTable<'_>,
        header: Range<usize>,
        keys: impl Iterator<Item = &'static str>,
    ) {
        self.spans.put_section(section, header);
        for key in keys {
            if let Some(value) = entries.get(key) {
                self.spans.put_value(section.key(key), value.span());
            }
        }
    }

    /// Reports each key of a table that is not among `known`.
    pub(super) fn report_unknown_keys(&mut self, entries: &DeTable<'_>, known: &[&'static str]) {
        for key in entries.keys() {
            if !known.contains(&key.get_ref().as_ref()) {
                self.report_unknown_key(key, known);
            }
        }
    }

    /// Reports a key that is not among `known`.
    pub(super) fn report_unknown_key(
        &mut self,
        key: &Spanned<DeString<'_>>,
        known: &[&'static str],
    ) {
        let name = key.get_ref().as_ref();
        let help = match closest(name, known.iter().copied()) {
            Some(word) => format!("did you mean `{word}`?"),
            None => format!("the keys here are `{}`", known.join("`, `")),
        };
        let message = format!("unknown key `{name}`");
        self.push(Diagnostic::error(Some(key.span()), message).help(help));
    }

    pub(super) fn push(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// Reads a string.
    pub(super) fn string(&mut self, table: &DeTable<'_>, key: &'static str) -> Field<String> {
        self.read(table, key, "a string", "\"…\"", |value| {
            Some(Ok(value.as_str()?.to_owned()))
        })
    }

    /// Reads a whole number.
    pub(super) fn integer(&mut self, table: &DeTable<'_>, key: &'static str) -> Field<i64> {
        self.read(table, key, "a whole number", "80", |value| {
            let integer = value.as_integer()?;
            let number = i64::from_str_radix(integer.as_str(), integer.radix());
            Some(number.map_err(|_| TextError {
                message: format!("`{key}` = {integer} is too large a number"),
                help: "write a smaller one".to_owned(),
            }))
        })
    }

    /// Reads `true` or `false`.
    pub(super) fn boolean(&mut self, table: &DeTable<'_>, key: &'static str) -> Field<bool> {
        self.read(table, key, "true or false", "true", |value| {
            value.as_bool().map(Ok)
        })
    }

    /// Reads one word of a closed set.
    pub(super) fn keyword<K: Keyword>(&mut self, table: &DeTable<'_>) -> Field<K> {
        let example = K::ALL.first().map_or("", |(_, word)| word);
        self.read(
            table,
            K::KEY,
            "a string",
            &format!("\"{example}\""),
            |value| {
                let word = value.as_str()?;
                Some(K::from_word(word).map_err(|unknown| TextError {
                    message: unknown.to_string(),
                    help: unknown.help(),
                }))
            },
        )
    }

    /// Reads an IP address.
    pub(super) fn address(&mut self, table: &DeTable<'_>, key: &'static str) -> Field<IpAddr> {
        self.read(
            table,
            key,
            "an address in quotes",
            "\"203.0.113.10\"",
            |value| value.as_str().map(text::address),
        )
    }

    /// Reads an IP address with a port.
    pub(super) fn socket_address(
        &mut self,
        table: &DeTable<'_>,
        key: &'static str,
    ) -> Field<SocketAddr> {
        let example = "\"127.0.0.1:9180\"";
        self.read(
            table,
            key,
            "an address and a port in quotes",
            example,
            |value| value.as_str().map(text::socket_address),
        )
    }

    /// Reads a time span. Unit of the result: seconds.
    pub(super) fn duration_s(&mut self, table: &DeTable<'_>, key: &'static str) -> Field<i64> {
        self.read(table, key, "a time span in quotes", "\"15m\"", |value| {
            value.as_str().map(text::duration_s)
        })
    }

    /// Reads a time span. Unit of the result: milliseconds.
    pub(super) fn duration_ms(&mut self, table: &DeTable<'_>, key: &'static str) -> Field<i64> {
        self.read(table, key, "a time span in quotes", "\"500ms\"", |value| {
            value.as_str().map(text::duration_ms)
        })
    }

    /// Reads a text that stands for something.
    pub(super) fn text<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &'static str,
        example: &str,
        convert: impl FnOnce(&str) -> Result<T, TextError>,
    ) -> Field<T> {
        self.read(table, key, "a string", &format!("\"{example}\""), |value| {
            value.as_str().map(convert)
        })
    }

    /// Reads a value: `convert` answers `None` where it has another type.
    pub(super) fn read<T>(
        &mut self,
        table: &DeTable<'_>,
        key: &'static str,
        expected: &str,
        example: &str,
        convert: impl FnOnce(&DeValue<'_>) -> Option<Result<T, TextError>>,
    ) -> Field<T> {
        let Some(value) = table.get(key) else {
            return Field::Absent;
        };
        let error = match convert(value.get_ref()) {
            Some(Ok(read)) => return Field::Given(read),
            Some(Err(error)) => error,
            None => TextError {
                message: format!("`{key}` is {}, not {}", kind(value.get_ref()), expected),
                help: format!("write it like `{key} = {example}`"),
            },
        };
        self.push(Diagnostic::error(Some(value.span()), error.message).help(error.help));
        Field::Unreadable
    }

    /// The table at a key of `parent`, with its span, if there is one.
    pub(super) fn table<'t>(
        &mut self,
        parent: &'t DeTable<'t>,
        key: &'static str,
    ) -> Option<(&'t DeTable<'t>, Range<usize>)> {
        let value = parent.get(key)?;
        let found = as_table(value);
        if found.is_none() {
            let message = format!("`{key}` is {}, not a table", kind(value.get_ref()));
            let help = format!("write `[{key}]` and its keys below");
            self.push(Diagnostic::error(Some(value.span()), message).help(help));
        }
        found
    }

    /// The tables of an array of tables at a key of `parent`; `header` is how one is written.
    pub(super) fn tables<'t>(
        &mut self,
        parent: &'t DeTable<'t>,
        key: &'static str,
        header: &str,
    ) -> Vec<(&'t DeTable<'t>, Range<usize>)> {
        let Some(value) = parent.get(key) else {
            return Vec::new();
        };
        let wrong = |value: &Spanned<DeValue<'_>>| {
            let found = kind(value.get_ref());
            let message = format!("`{key}` is {found}, not a list of tables");
            let help = format!("write `{header}`, with two brackets, for each one");
            Diagnostic::error(Some(value.span()), message).help(help)
        };
        let Some(elements) = value.get_ref().as_array() else {
            self.push(wrong(value));
            // Its keys are checked all the same.
            return as_table(value).into_iter().collect();
        };
        let mut found = Vec::new();
        for element in elements {
            match as_table(element) {
                Some(table) => found.push(table),
                None => self.push(wrong(element)),
            }
        }
        found
    }
}

fn as_table<'t>(value: &'t Spanned<DeValue<'t>>) -> Option<(&'t DeTable<'t>, Range<usize>)> {
    Some((value.get_ref().as_table()?, value.span()))
}

/// A value's type, in words.
const fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

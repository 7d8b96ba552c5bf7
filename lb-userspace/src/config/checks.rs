//! Health checks in the file.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::reader::Reader;
use super::report::Diagnostic;
use crate::model::check::{CheckType, KEYS, StatusRange, keys_of, types_of};
use crate::model::draft::{CheckDraft, Field, VerdictDraft, WrittenCheck};
use crate::model::text::{self, TextError};
use crate::model::{Section, files};

/// The key that is refused whatever its value.
const PASSWORD: &str = "password";

/// Reads what follows from a service's checks.
pub(super) fn read_verdict(service: &DeTable<'_>, reader: &mut Reader) -> VerdictDraft {
    VerdictDraft {
        check_mode: reader.keyword(service),
        hold_down_s: reader.duration_s(service, "hold_down"),
        doubt_repeated_syns: reader.integer(service, "doubt_repeated_syns"),
        doubt_resets: reader.integer(service, "doubt_resets"),
        role: reader.keyword(service),
        max_lag_s: reader.duration_s(service, "max_lag"),
        primary_as_last_resort: reader.boolean(service, "primary_as_last_resort"),
    }
}

/// Reads the checks of a service or backend; `header` is how one is written.
pub(super) fn read_list<'t>(
    owner: &'t DeTable<'t>,
    header: &str,
    reader: &mut Reader,
    section: impl Fn(usize) -> Section,
) -> Vec<CheckDraft> {
    let tables = reader.tables(owner, "check", header);
    let numbered = tables.into_iter().enumerate();
    numbered
        .map(|(position, (table, header))| {
            reader.note(
                section(position),
                table,
                header,
                KEYS.iter().map(|(key, _)| *key),
            );
            CheckDraft::Written(Box::new(read(table, reader)))
        })
        .collect()
}

fn read(check: &DeTable<'_>, reader: &mut Reader) -> WrittenCheck {
    let check_type: Field<CheckType> = reader.keyword(check);
    report_unknown_keys(check, check_type.given().copied(), reader);
    let mut written = WrittenCheck {
        check_type,
        interval_ms: reader.duration_ms(check, "interval"),
        fast_interval_ms: reader.duration_ms(check, "fast_interval"),
        timeout_ms: reader.duration_ms(check, "timeout"),
        rise: reader.integer(check, "rise"),
        fall: reader.integer(check, "fall"),
        port: reader.integer(check, "port"),
        source: reader.address(check, "source"),
        via: reader.keyword(check),
        method: reader.string(check, "method"),
        path: reader.string(check, "path"),
        host: reader.string(check, "host"),
        headers: read_headers(check, reader),
        status: read_status(check, reader),
        body: reader.string(check, "body"),
        version: reader.keyword(check),
        tls: reader.boolean(check, "tls"),
        tls_name: reader.string(check, "tls_name"),
        verify: reader.boolean(check, "verify"),
        ca: reader.text(check, "ca_file", "/etc/ssl/ca.pem", files::authorities),
        min_valid_days: reader.integer(check, "min_valid_days"),
        user: reader.string(check, "user"),
        password_file: reader.text(check, "password_file", "/etc/lbd/db", files::password_file),
        password_env: reader.string(check, "password_env"),
        database: reader.string(check, "database"),
        query: reader.string(check, "query"),
        writable: reader.boolean(check, "writable"),
        replication: reader.keyword(check),
        max_lag_s: reader.duration_s(check, "max_lag"),
        gtid: reader.string(check, "gtid"),
        grpc_service: reader.string(check, "grpc_service"),
        send: reader.string(check, "send"),
        expect: reader.string(check, "expect"),
        name: reader.string(check, "name"),
        query_type: reader.keyword(check),
        command: read_command(check, reader),
    };
    complete_authorities(check, &mut written, reader);
    written
}

/// The keys of the check's type are offered first; those of other types are known too.
fn report_unknown_keys(check: &DeTable<'_>, check_type: Option<CheckType>, reader: &mut Reader) {
    let offered: Vec<&'static str> = match check_type {
        Some(check_type) => keys_of(check_type).collect(),
        None => KEYS.iter().map(|(key, _)| *key).collect(),
    };
    for key in check.keys() {
        let name = key.get_ref().as_ref();
        if name == PASSWORD {
            let message = "a password does not belong into the config file";
            let help = "write it into a file that lbd alone can read, and that file's name into \
                        `password_file`; or name a variable of lbd's environment in `password_env`";
            reader.push(Diagnostic::error(Some(key.span()), message).help(help));
        } else if types_of(name).is_empty() {
            reader.report_unknown_key(key, &offered);
        }
    }
}

fn complete_authorities(check: &DeTable<'_>, written: &mut WrittenCheck, reader: &mut Reader) {
    let uses_tls = match written.check_type {
        Field::Given(CheckType::Https) => true,
        Field::Given(CheckType::Grpc) => written.tls == Field::Given(true),
        _ => false,
    };
    let Some(value) = check.get("verify").filter(|_| uses_tls) else {
        return;
    };
    if let Err(error) = written.complete_authorities() {
        reader.push(Diagnostic::error(Some(value.span()), error.message).help(error.help));
    }
}

fn read_headers(check: &DeTable<'_>, reader: &mut Reader) -> Field<Vec<(String, String)>> {
    let example = "{ Accept = \"text/html\" }";
    reader.read(check, "headers", "a table of texts", example, |value| {
        let entries = value.as_table()?.iter();
        let header = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
            let name: &std::borrow::Cow<'_, str> = name.get_ref();
            Some((name.to_string(), value.get_ref().as_str()?.to_owned()))
        };
        entries.map(header).collect::<Option<Vec<_>>>().map(Ok)
    })
}

/// `"200-399"`, `200`, or a list of such.
fn read_status(check: &DeTable<'_>, reader: &mut Reader) -> Field<Vec<StatusRange>> {
    let expected = "status codes";
    reader.read(check, "status", expected, "\"200-399\"", |value| {
        let Some(list) = value.as_array() else {
            return status(value);
        };
        if list.is_empty() {
            return None;
        }
        let mut ranges = Vec::new();
        for one in list.iter() {
            match status(one.get_ref())? {
                Ok(more) => ranges.extend(more),
                Err(error) => return Some(Err(error)),
            }
        }
        Some(Ok(ranges))
    })
}

fn status(value: &DeValue<'_>) -> Option<Result<Vec<StatusRange>, TextError>> {
    match (value.as_str(), value.as_integer()) {
        (Some(text), _) => Some(text::status_ranges(text)),
        (None, Some(number)) => Some(text::status_ranges(number.as_str())),
        (None, None) => None,
    }
}

/// A list of words, the first of which is a program.
pub(super) fn command(key: &str, value: &DeValue<'_>) -> Option<Result<Vec<String>, TextError>> {
    let words = value.as_array()?.iter();
    let word = |word: &Spanned<DeValue<'_>>| Some(word.get_ref().as_str()?.to_owned());
    let words: Vec<String> = words.map(word).collect::<Option<_>>()?;
    Some(files::program(key, words.first()?).map(|()| words.clone()))
}

fn read_command(check: &DeTable<'_>, reader: &mut Reader) -> Field<Vec<String>> {
    let example = "[\"/usr/local/bin/check\", \"--fast\"]";
    reader.read(check, "command", "a list of texts", example, |value| {
        command("command", value)
    })
}

//! Rules that all texts of a check obey.

use super::{Findings, Subject};
use crate::model::draft::Field;

/// Longest text. A probe looks at this many bytes of what a server says first, and sends no more in one
/// go. Unit: bytes.
const TEXT_BYTES_MAX: usize = 4_096;

/// Longest word, such as a name or a path. Unit: bytes.
const WORD_BYTES_MAX: usize = 1_024;

pub(super) fn check(subject: &Subject<'_>, findings: &mut Findings) {
    let check = subject.check;
    let texts = [
        ("body", &check.body),
        ("query", &check.query),
        ("send", &check.send),
        ("expect", &check.expect),
    ];
    for (key, text) in texts {
        check_length(subject, key, text, TEXT_BYTES_MAX, findings);
    }
    let words = [
        ("method", &check.method),
        ("path", &check.path),
        ("host", &check.host),
        ("tls_name", &check.tls_name),
        ("user", &check.user),
        ("password_env", &check.password_env),
        ("database", &check.database),
        ("gtid", &check.gtid),
        ("grpc_service", &check.grpc_service),
        ("name", &check.name),
    ];
    for (key, word) in words {
        check_length(subject, key, word, WORD_BYTES_MAX, findings);
        check_word(subject, key, word, findings);
    }
}

fn check_length(
    subject: &Subject<'_>,
    key: &'static str,
    text: &Field<String>,
    bytes_max: usize,
    findings: &mut Findings,
) {
    let bytes = text.given().map_or(0, String::len);
    if bytes > bytes_max {
        let message = format!("{key} has {bytes} bytes; the most is {bytes_max}");
        findings.push(subject.invalid(key, message));
    }
}

/// What is a word to a protocol is not empty, and holds nothing that could end it early.
fn check_word(
    subject: &Subject<'_>,
    key: &'static str,
    word: &Field<String>,
    findings: &mut Findings,
) {
    let Some(word) = word.given() else { return };
    if word.is_empty() {
        let problem = subject.invalid(key, format!("{key} is empty"));
        findings.push(problem.help("leave it out, or write something"));
    } else if let Some(sign) = word.chars().find(|sign| sign.is_control()) {
        findings.push(subject.invalid(key, format!("{key} holds {sign:?}")));
    }
}

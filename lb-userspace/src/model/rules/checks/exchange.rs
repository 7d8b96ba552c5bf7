//! Datagrams, DNS and programs.

use std::net::IpAddr;

use super::{Findings, Subject};
use crate::model::Keyword;
use crate::model::check::{CheckType, DnsType};
use crate::model::text;

/// Longest name (RFC 1035 section 2.3.4), without the final dot. Unit: bytes.
const DNS_NAME_BYTES_MAX: usize = 253;

/// Longest label of a name (RFC 1035 section 2.3.4). Unit: bytes.
const DNS_LABEL_BYTES_MAX: usize = 63;

/// Most words of a command.
const COMMAND_WORDS_MAX: usize = 64;

/// Longest word of a command. Unit: bytes.
const COMMAND_WORD_BYTES_MAX: usize = 4_096;

pub(super) fn check(subject: &Subject<'_>, check_type: CheckType, findings: &mut Findings) {
    match check_type {
        CheckType::Udp => check_datagram(subject, findings),
        CheckType::Dns => check_dns(subject, findings),
        CheckType::Exec => check_command(subject, findings),
        _ => {}
    }
}

/// A server answers to something.
fn check_datagram(subject: &Subject<'_>, findings: &mut Findings) {
    let check = subject.check;
    findings.require(&check.send, subject.section, "send", &subject.name);
    if check.send.given().is_some_and(String::is_empty) {
        findings.push(subject.invalid("send", "send is empty: nobody answers to that"));
    }
}

fn check_dns(subject: &Subject<'_>, findings: &mut Findings) {
    let check = subject.check;
    findings.require(&check.name, subject.section, "name", &subject.name);
    if let Some(name) = check.name.given().filter(|name| !is_dns_name(name))
        && !name.is_empty()
    {
        let problem = subject.invalid("name", format!("name {name:?} is no DNS name"));
        findings.push(problem.help("write it like `www.example.com`"));
    }
    let Some(expect) = check.expect.given() else {
        return;
    };
    match text::address(expect) {
        Err(error) => {
            let message = format!("expect: {}", error.message);
            findings.push(subject.invalid("expect", message).help(error.help));
        }
        Ok(address) => check_expected(subject, address, findings),
    }
}

fn is_dns_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    let is_label = |label: &str| {
        (1..=DNS_LABEL_BYTES_MAX).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_graphic())
    };
    name.len() <= DNS_NAME_BYTES_MAX && name.split('.').all(is_label)
}

/// The address is of the kind that is asked for.
fn check_expected(subject: &Subject<'_>, address: IpAddr, findings: &mut Findings) {
    let asked = match subject.check.query_type.given() {
        None => DnsType::A,
        Some(asked) => *asked,
    };
    let fitting = match address {
        IpAddr::V4(_) => DnsType::A,
        IpAddr::V6(_) => DnsType::Aaaa,
    };
    if asked != fitting {
        let message = format!(
            "expect {address} is an answer to {}, and the question is {}",
            fitting.word(),
            asked.word()
        );
        let help = format!(
            "set query_type = \"{}\", or leave expect out",
            fitting.word()
        );
        let problem = subject.invalid("expect", message);
        findings.push(problem.against(subject.place("query_type")).help(help));
    }
}

fn check_command(subject: &Subject<'_>, findings: &mut Findings) {
    let check = subject.check;
    findings.require(&check.command, subject.section, "command", &subject.name);
    let Some(words) = check.command.given() else {
        return;
    };
    if words.len() > COMMAND_WORDS_MAX {
        let message = format!(
            "command has {} words; the most is {COMMAND_WORDS_MAX}",
            words.len()
        );
        findings.push(subject.invalid("command", message));
    }
    let is_unusable = |word: &String| word.len() > COMMAND_WORD_BYTES_MAX || word.contains('\0');
    if let Some(position) = words.iter().position(is_unusable) {
        let message = format!(
            "word {} of command holds a NUL, or has more than {COMMAND_WORD_BYTES_MAX} bytes",
            position + 1
        );
        findings.push(subject.invalid("command", message));
    }
}

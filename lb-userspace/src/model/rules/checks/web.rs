//! HTTP, FastCGI, gRPC and TLS.

use tokio_rustls::rustls::pki_types::ServerName;

use super::{Findings, Subject};
use crate::model::check::{CheckType, HttpVersion};
use crate::model::problem::{Kind, Problem};

/// Most headers of a request.
const HEADERS_MAX: usize = 32;

/// Days that a certificate should still have.
const DAYS_RANGE: (i64, i64) = (0, 3_650);

/// Headers that the request has anyway, or that would change where it ends.
const OWN_HEADERS: [&str; 5] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "upgrade",
];

/// Headers that tell of a connection, which HTTP/2 has no place for (RFC 9113 section 8.2.2), beside those
/// above.
const HEADERS_OF_CONNECTIONS: [&str; 3] = ["keep-alive", "proxy-connection", "te"];

pub(super) fn check(subject: &Subject<'_>, check_type: CheckType, findings: &mut Findings) {
    match check_type {
        CheckType::Http => check_request(subject, findings),
        CheckType::Https => {
            check_request(subject, findings);
            check_tls(subject, findings);
        }
        CheckType::Fastcgi => check_path(subject, findings),
        CheckType::Grpc => check_grpc(subject, findings),
        _ => {}
    }
}

fn check_request(subject: &Subject<'_>, findings: &mut Findings) {
    check_method(subject, findings);
    check_path(subject, findings);
    if let Some(host) = subject.check.host.given()
        && !host
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/')
    {
        let problem = subject.invalid("host", format!("host {host:?} is no host"));
        findings.push(problem.help("write it like `www.example.com` or `www.example.com:8080`"));
    }
    check_headers(subject, findings);
}

fn check_method(subject: &Subject<'_>, findings: &mut Findings) {
    let Some(method) = subject.check.method.given() else {
        return;
    };
    if !is_token(method) || method == "CONNECT" {
        let problem = subject.invalid("method", format!("method {method:?} asks for no page"));
        findings.push(problem.help("use GET, HEAD or OPTIONS"));
    } else if method == "HEAD" && subject.check.body.is_written() {
        let problem = subject.invalid("body", "the answer to HEAD has no body");
        findings.push(problem.against(subject.place("method")));
    }
}

/// A token (RFC 9110 section 5.6.2).
fn is_token(text: &str) -> bool {
    let is_tchar = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_tchar)
}

fn check_path(subject: &Subject<'_>, findings: &mut Findings) {
    let Some(path) = subject.check.path.given() else {
        return;
    };
    if path.is_empty() {
        // Reported with the other texts.
    } else if !path.starts_with('/') {
        findings
            .push(subject.invalid("path", format!("path {path:?} does not begin with a slash")));
    } else if !path
        .bytes()
        .all(|byte| byte.is_ascii_graphic() && byte != b'#')
    {
        let message = format!("path {path:?} holds what no request may hold");
        let problem = subject.invalid("path", message);
        findings.push(problem.help("write spaces and the like as %20, and no #fragment"));
    }
}

fn check_headers(subject: &Subject<'_>, findings: &mut Findings) {
    let Some(headers) = subject.check.headers.given() else {
        return;
    };
    if headers.len() > HEADERS_MAX {
        let message = format!("{} headers; the most is {HEADERS_MAX}", headers.len());
        findings.push(subject.invalid("headers", message));
    }
    for (name, value) in headers {
        check_header(subject, name, value, findings);
    }
}

fn check_header(subject: &Subject<'_>, name: &str, value: &str, findings: &mut Findings) {
    let lower = name.to_ascii_lowercase();
    if !is_token(name) {
        let message = format!("{name:?} cannot be the name of a header");
        findings.push(subject.invalid("headers", message));
    } else if OWN_HEADERS.contains(&lower.as_str()) {
        let problem = subject.invalid("headers", format!("the header `{name}` is not for here"));
        findings.push(match lower.as_str() {
            "host" => problem.help("the check has a key `host`"),
            _ => problem.help("lbd writes it itself where it is needed"),
        });
    } else if HEADERS_OF_CONNECTIONS.contains(&lower.as_str())
        && subject.check.version.given() == Some(&HttpVersion::Http2)
    {
        let message = format!("HTTP/2 has no header `{name}`");
        let problem = subject.invalid("headers", message);
        findings.push(
            problem
                .against(subject.place("version"))
                .help("leave it out"),
        );
    }
    let is_plain = |byte: u8| byte == b'\t' || byte == b' ' || byte.is_ascii_graphic();
    if !value.bytes().all(is_plain) || value.len() > 4_096 {
        // The value may be a secret.
        let message = format!("the header `{name}` has a value that no request may hold");
        findings.push(subject.invalid("headers", message));
    }
    if lower == "authorization" {
        let place = subject.place("headers");
        let message = "the header `authorization` stands in the clear in the config file";
        let problem = Problem::new(Kind::Warning, place, &subject.name, message);
        findings.push(problem.help("a page that needs no password will do for a check"));
    }
}

fn check_grpc(subject: &Subject<'_>, findings: &mut Findings) {
    if subject.check.tls.given() == Some(&true) {
        check_tls(subject, findings);
        return;
    }
    let check = subject.check;
    let keys = [
        ("tls_name", check.tls_name.is_written()),
        ("verify", check.verify.is_written()),
        (
            "ca_file",
            check.ca.is_written() && !check.verify.is_written(),
        ),
        ("min_valid_days", check.min_valid_days.is_written()),
    ];
    for (key, _) in keys.into_iter().filter(|(_, is_written)| *is_written) {
        let problem = subject.invalid(key, format!("`{key}` is for TLS, and this check uses none"));
        findings.push(problem.help("set tls = true, or leave it out"));
    }
}

fn check_tls(subject: &Subject<'_>, findings: &mut Findings) {
    let check = subject.check;
    let (low, high) = DAYS_RANGE;
    let days = check.min_valid_days.given().copied();
    let number = subject.number("min_valid_days", " (0 means no warning)");
    findings.range(days, low..=high, number);
    if let Some(name) = check.tls_name.given()
        && ServerName::try_from(name.as_str()).is_err()
    {
        let problem = subject.invalid("tls_name", format!("tls_name {name:?} is no host's name"));
        findings.push(problem.help("write it like `www.example.com`, without a port"));
    }
    if check.verify.given() == Some(&false) && check.ca.is_written() {
        let message = "verify = false beside a ca_file, which is not looked at then";
        let problem = Problem::new(
            Kind::Conflict,
            subject.place("verify"),
            &subject.name,
            message,
        );
        findings.push(
            problem
                .against(subject.place("ca_file"))
                .help("leave one of them out"),
        );
    }
}

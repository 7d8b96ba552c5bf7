//! HTTP/1.1 as far as a check needs it (RFC 9112), without I/O: the bytes of a request, and the answer out
//! of whatever pieces it comes in.
//!
//! Written here because hyper's client takes an answer that is there before the request was written for an
//! error, and a server that turns a connection away with a 503 and closes it does just that.

mod body;

use std::fmt::Write;

pub(super) use self::body::{Body, Input};
use super::text::quote;
use crate::health::outcome::{Failure, FailureKind};

/// The status line and headers, those of interim (1xx) answers included. Unit: bytes.
pub(super) const HEAD_BYTES_MAX: usize = 32 * 1024;

/// What a request says.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) host: &'a str,
    pub(super) headers: &'a [(String, String)],
}

impl Request<'_> {
    /// The request in bytes. A header of the operator's takes the place of the one that is sent otherwise.
    ///
    /// # Errors
    /// [`FailureKind::Local`]: a line break where it would end the line.
    pub(super) fn encode(&self) -> Result<String, Failure> {
        let own = self.headers.iter().flat_map(|(name, value)| [name, value]);
        let parts = [self.method, self.path, self.host];
        let mut texts = parts.into_iter().chain(own.map(String::as_str));
        if texts.any(|text| text.contains(['\r', '\n', '\0'])) {
            return Err(Failure::new(
                FailureKind::Local,
                "the method, path, host or a header of this check holds a line break",
            ));
        }
        let mut text = String::with_capacity(256);
        let _ = write!(text, "{} {} HTTP/1.1\r\n", self.method, self.path);
        for (name, value) in [
            ("Host", self.host),
            ("User-Agent", super::http::USER_AGENT),
            ("Accept", "*/*"),
            ("Connection", "close"),
        ] {
            self.add_unless_given(&mut text, name, value);
        }
        if matches!(self.method, "POST" | "PUT" | "PATCH") {
            self.add_unless_given(&mut text, "Content-Length", "0");
        }
        for (name, value) in self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        text.push_str("\r\n");
        Ok(text)
    }

    fn add_unless_given(&self, text: &mut String, name: &str, value: &str) {
        let mut given = self.headers.iter();
        if !given.any(|(own, _)| own.eq_ignore_ascii_case(name)) {
            let _ = write!(text, "{name}: {value}\r\n");
        }
    }
}

/// The head of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// The status code, 200 to 999; 101 too.
    pub(super) status: u16,
    /// How its body ends.
    pub(super) framing: Framing,
    /// Where it begins in the bytes that the head was parsed from. Unit: bytes.
    pub(super) body_at: usize,
}

/// How a body ends (RFC 9112 section 6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Length(u64),
    /// With an empty chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// Finds the head at the begin of an answer, however often it has to look.
#[derive(Debug, Default)]
pub(super) struct HeadReader {
    /// Where the head begins, after the interim ones. Unit: bytes.
    from: usize,
    /// Its end lies behind. Unit: bytes.
    scanned: usize,
}

impl HeadReader {
    /// Parses the head of the answer to a request with this method, `bytes` being all of the answer that
    /// has come so far. `None` = it is not there as a whole yet. Interim answers are passed over.
    ///
    /// # Errors
    /// [`FailureKind::Protocol`]: it is no HTTP/1, or too long.
    pub(super) fn read(&mut self, bytes: &[u8], method: &str) -> Result<Option<Head>, Failure> {
        while let Some(end) = self.find_end(bytes) {
            let (status, framing) = parse_lines(&bytes[self.from..end], method)?;
            if !(100..200).contains(&status) || status == 101 {
                return Ok(Some(Head {
                    status,
                    framing,
                    body_at: end,
                }));
            }
            (self.from, self.scanned) = (end, end);
        }
        check_prefix(&bytes[self.from..])?;
        if bytes.len() < HEAD_BYTES_MAX {
            return Ok(None);
        }
        let words = format_args!("headers of more than {} KiB", HEAD_BYTES_MAX / 1024);
        Err(Failure::new(FailureKind::Protocol, words))
    }

    /// The end of the empty line after the headers.
    fn find_end(&mut self, bytes: &[u8]) -> Option<usize> {
        loop {
            let line_break = bytes[self.scanned..].iter().position(|byte| *byte == b'\n');
            let Some(line_break) = line_break else {
                self.scanned = bytes.len();
                return None;
            };
            let after = self.scanned + line_break + 1;
            match &bytes[after..] {
                [b'\n', ..] => return Some(after + 1),
                [b'\r', b'\n', ..] => return Some(after + 2),
                [] | [b'\r'] => {
                    self.scanned = after - 1;
                    return None;
                }
                _ => self.scanned = after,
            }
        }
    }
}

/// What has come of a status line so far may become one.
fn check_prefix(bytes: &[u8]) -> Result<(), Failure> {
    let prefix = b"HTTP/1.";
    let length = bytes.len().min(prefix.len());
    if bytes[..length] == prefix[..length] {
        Ok(())
    } else {
        Err(no_http(bytes))
    }
}

fn no_http(bytes: &[u8]) -> Failure {
    let first_line = bytes.split(|byte| *byte == b'\n').next().unwrap_or(bytes);
    Failure::new(
        FailureKind::Protocol,
        format_args!(
            "the answer is no HTTP/1: it begins with {}",
            quote(first_line)
        ),
    )
}

fn parse_lines(head: &[u8], method: &str) -> Result<(u16, Framing), Failure> {
    let mut lines = head
        .split(|byte| *byte == b'\n')
        .map(<[u8]>::trim_ascii_end);
    let status = lines
        .next()
        .and_then(parse_status)
        .ok_or_else(|| no_http(head))?;
    let mut framing = Framing::Close;
    for line in lines.take_while(|line| !line.is_empty()) {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            continue; // The value before goes on (RFC 9112 section 5.2).
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            return Err(broken_header(line));
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if value.to_ascii_lowercase().ends_with(b"chunked") {
                framing = Framing::Chunked;
            }
        } else if name.eq_ignore_ascii_case(b"content-length") && framing != Framing::Chunked {
            framing = Framing::Length(parse_number(value, 10).ok_or_else(|| broken_header(line))?);
        }
    }
    if method == "HEAD" || matches!(status, 100..200 | 204 | 304) {
        framing = Framing::Length(0);
    }
    Ok((status, framing))
}

fn broken_header(line: &[u8]) -> Failure {
    // A name alone: a value may be a cookie.
    let name = line.split(|byte| *byte == b':').next().unwrap_or(line);
    Failure::new(
        FailureKind::Protocol,
        format_args!("the answer has a broken header {}", quote(name)),
    )
}

/// `HTTP/1.x` and a status code of three digits (RFC 9112 section 4).
fn parse_status(line: &[u8]) -> Option<u16> {
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let [minor, b' ', digits @ ..] = rest else {
        return None;
    };
    let code = digits.get(..3)?;
    if !minor.is_ascii_digit() || digits.get(3).is_some_and(|byte| *byte != b' ') {
        return None;
    }
    let status = u16::try_from(parse_number(code, 10)?).ok()?;
    (status >= 100).then_some(status)
}

/// Digits only: no sign, no spaces.
fn parse_number(digits: &[u8], radix: u32) -> Option<u64> {
    if !digits.iter().all(|byte| char::from(*byte).is_digit(radix)) {
        return None;
    }
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The head and the body of an answer that comes in such pieces.
    fn take_apart(
        answer: &[u8],
        piece_bytes: usize,
    ) -> Result<Option<(u16, Vec<u8>, bool)>, Failure> {
        let mut reader = HeadReader::default();
        let mut came = Vec::new();
        let mut pieces = answer.chunks(piece_bytes);
        let head = loop {
            let Some(piece) = pieces.next() else {
                return Ok(None);
            };
            came.extend_from_slice(piece);
            if let Some(head) = reader.read(&came, "GET")? {
                break head;
            }
        };
        let mut body = Body::new(head.framing);
        let mut text = Vec::new();
        for mut piece in std::iter::once(&came[head.body_at..]).chain(pieces) {
            loop {
                let part = body.next(&mut piece)?;
                if part.is_empty() {
                    break;
                }
                text.extend_from_slice(part);
            }
        }
        Ok(Some((head.status, text, body.is_complete(Input::Closed))))
    }

    const CHUNKED: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\n  folded\r\n\
        Transfer-Encoding: gzip, Chunked\r\nContent-Length: 7\r\n\r\n\
        5\r\nhello\r\nA ; x=\"y\"\r\n, world!!!\r\n0\r\nTrailer: x\r\n\r\n";

    #[test]
    fn an_answer_is_the_same_in_whatever_pieces_it_comes() {
        for piece_bytes in 1..=CHUNKED.len() {
            let apart = take_apart(CHUNKED, piece_bytes);
            let wanted = (200, b"hello, world!!!".to_vec(), true);
            assert_eq!(apart, Ok(Some(wanted)), "pieces of {piece_bytes}");
        }
    }

    #[test]
    fn a_body_ends_as_its_head_says() {
        let ends = |answer: &[u8]| take_apart(answer, 7).map(|apart| apart.map(|apart| apart.2));
        assert_eq!(
            ends(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
            Ok(Some(true))
        );
        assert_eq!(
            ends(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok"),
            Ok(Some(false))
        );
        assert_eq!(ends(b"HTTP/1.1 200\r\n\r\nok"), Ok(Some(true)));
        assert_eq!(
            ends(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n"),
            Ok(Some(true))
        );
        assert_eq!(
            ends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok"),
            Ok(Some(false))
        );
        for length in ["-1", "+1", "1 1", "0x10", "99999999999999999999", ""] {
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            assert!(ends(answer.as_bytes()).is_err(), "{length:?}");
        }
    }

    #[test]
    fn status_lines_are_those_of_the_standard() {
        for (line, status) in [
            ("HTTP/1.1 200 OK", Some(200)),
            ("HTTP/1.0 404", Some(404)),
            ("HTTP/1.1 999 Odd", Some(999)),
            ("HTTP/1.1 099 Odd", None),
            ("HTTP/1.1  200 OK", None),
            ("HTTP/1.1 20", None),
            ("HTTP/1.1 2000", None),
            ("HTTP/1.x 200", None),
            ("HTTP/2 200", None),
            ("", None),
        ] {
            assert_eq!(parse_status(line.as_bytes()), status, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic_or_hang(
            begin in prop::sample::select(vec![0, 7, 30, 90, 140, CHUNKED.len()]),
            bytes in prop::collection::vec(any::<u8>(), 0..600),
            piece_bytes in 1_usize..64,
        ) {
            let answer = [&CHUNKED[..begin], &bytes].concat();
            let apart = take_apart(&answer, piece_bytes).map_err(|failure| failure.kind);
            let again = take_apart(&answer, 1 + piece_bytes / 2).map_err(|failure| failure.kind);
            prop_assert_eq!(apart, again);
        }
    }
}

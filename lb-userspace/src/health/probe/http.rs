//! An HTTP request: status and body.

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::connect::{self, AnyStream};
use super::http1::{Body, HEAD_BYTES_MAX, Head, HeadReader, Input, Request};
use super::text::{Text, quote};
use super::tls::{self, Protocol};
use super::{Target, http2};
use crate::health::outcome::{Failure, FailureKind, Observed};
use crate::model::check::{HttpCheck, HttpVersion, StatusRange};

/// How a check names itself.
pub(super) const USER_AGENT: &str = concat!("lbd/", env!("CARGO_PKG_VERSION"));

/// Where the wanted text has to be. Unit: bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// What is read at once. Unit: bytes.
const PIECE_BYTES: usize = 4096;

/// Asks for the path; the status decides, and the body if a text is wanted in it. Otherwise the body is
/// not read.
///
/// # Errors
/// [`Failure`].
pub(super) async fn http(
    check: &HttpCheck,
    target: Target,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let mut stream = connect::open(target, observed).await?;
    if let Some(wanted) = &check.tls {
        let protocol = match check.version {
            HttpVersion::Http1 => Protocol::Http1,
            HttpVersion::Http2 => Protocol::Http2,
        };
        let host = check.host.as_deref();
        stream = tls::secure(stream, wanted, host, target, protocol, observed).await?;
    }
    observed.doing = "waiting for an answer".into();
    let host = match &check.host {
        Some(host) => host.clone(),
        None => target.address.to_string(),
    };
    match check.version {
        HttpVersion::Http1 => over_http1(check, &host, stream, observed).await,
        HttpVersion::Http2 => over_http2(check, &host, stream, observed).await,
    }
}

async fn over_http1(
    check: &HttpCheck,
    host: &str,
    mut stream: AnyStream,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let request = Request {
        method: &check.method,
        path: &check.path,
        host,
        headers: &check.headers,
    };
    // An answer that came in spite of it counts: a server may answer and hang up before it is asked.
    let sent = stream.write_all(request.encode()?.as_bytes()).await;
    let sent = match sent {
        Ok(()) => stream.flush().await,
        error => error,
    };
    let mut bytes = Vec::with_capacity(PIECE_BYTES);
    let head = match read_head(&mut stream, &mut bytes, &check.method).await {
        Ok(head) => head,
        Err(failure) => {
            sent.map_err(|error| connect::broken(&error, "sending the request"))?;
            return Err(failure);
        }
    };
    check_status(head.status, &check.status)?;
    if check.body.is_empty() {
        return Ok(());
    }
    observed.doing = body_awaited(&check.body).into();
    bytes.drain(..head.body_at);
    find_in_body(&mut stream, bytes, Body::new(head.framing), &check.body).await
}

async fn read_head(
    stream: &mut AnyStream,
    bytes: &mut Vec<u8>,
    method: &str,
) -> Result<Head, Failure> {
    let mut reader = HeadReader::default();
    loop {
        if read_piece(stream, bytes).await? == 0 {
            return Err(closed_early(bytes));
        }
        if let Some(head) = reader.read(bytes, method)? {
            return Ok(head);
        }
    }
}

/// Appends what comes. 0 = the server has closed the connection.
async fn read_piece(stream: &mut AnyStream, bytes: &mut Vec<u8>) -> Result<usize, Failure> {
    bytes.reserve(PIECE_BYTES.min(HEAD_BYTES_MAX));
    match stream.read_buf(bytes).await {
        Ok(count) => Ok(count),
        // TLS without a farewell. Whether the answer was complete, its framing tells.
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(0),
        Err(error) => Err(connect::broken(&error, "reading the answer")),
    }
}

fn closed_early(bytes: &[u8]) -> Failure {
    let words = match bytes {
        [] => "closed by the server without an answer",
        _ => "closed by the server within the headers",
    };
    Failure::new(FailureKind::Closed, words)
}

/// Looks for `wanted`; `bytes` are what came of the body with the head.
async fn find_in_body(
    stream: &mut AnyStream,
    mut bytes: Vec<u8>,
    mut body: Body,
    wanted: &str,
) -> Result<(), Failure> {
    let mut text = Text::new(wanted, BODY_BYTES_MAX);
    let mut input = Input::Open;
    loop {
        let mut left = bytes.as_slice();
        loop {
            let part = body.next(&mut left)?;
            if part.is_empty() {
                break;
            }
            if text.push(part) {
                return Ok(());
            }
        }
        if text.is_full() || body.is_complete(input) {
            return Err(lacking(&text, wanted));
        }
        if input == Input::Closed {
            return Err(Failure::new(
                FailureKind::Closed,
                format_args!(
                    "closed by the server after {} bytes of the body",
                    text.seen().len()
                ),
            ));
        }
        bytes.clear();
        if read_piece(stream, &mut bytes).await? == 0 {
            input = Input::Closed;
        }
    }
}

fn lacking(text: &Text<'_>, wanted: &str) -> Failure {
    let wanted = quote(wanted);
    let words = match (text.seen().len(), text.is_full()) {
        (0, _) => format!("no body, where {wanted} is wanted"),
        (_, true) => format!(
            "no {wanted} in the body's first {} KiB",
            BODY_BYTES_MAX / 1024
        ),
        (_, false) => format!(
            "no {wanted} in the body, which begins with {}",
            quote(text.seen())
        ),
    };
    Failure::new(FailureKind::Unexpected, words)
}

fn body_awaited(wanted: &str) -> String {
    format!("reading the body, no {} yet", quote(wanted))
}

async fn over_http2(
    check: &HttpCheck,
    host: &str,
    stream: AnyStream,
    observed: &mut Observed,
) -> Result<(), Failure> {
    let scheme = if check.tls.is_some() { "https" } else { "http" };
    let method = check.method.as_str();
    let request = http2::request(method, scheme, host, &check.path, &check.headers)?;
    let (sender, connection) = http2::open(stream).await?;
    http2::beside(connection, async {
        let response = http2::send(sender, request, None).await?;
        check_status(response.status().as_u16(), &check.status)?;
        if check.body.is_empty() {
            return Ok(());
        }
        observed.doing = body_awaited(&check.body).into();
        let mut text = Text::new(&check.body, BODY_BYTES_MAX);
        let mut body = response.into_body();
        while let Some(part) = http2::read(&mut body).await? {
            if text.push(&part) {
                return Ok(());
            }
            if text.is_full() {
                break;
            }
        }
        Err(lacking(&text, &check.body))
    })
    .await
}

pub(super) fn check_status(status: u16, wanted: &[StatusRange]) -> Result<(), Failure> {
    if wanted
        .iter()
        .any(|range| (range.first..=range.last).contains(&status))
    {
        return Ok(());
    }
    Err(Failure::new(
        FailureKind::Unexpected,
        format_args!("HTTP {status} in place of {}", ranges(wanted)),
    ))
}

fn ranges(wanted: &[StatusRange]) -> String {
    let one = |range: &StatusRange| match range.first == range.last {
        true => range.first.to_string(),
        false => format!("{}-{}", range.first, range.last),
    };
    wanted.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;

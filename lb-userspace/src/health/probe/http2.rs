//! One request over HTTP/2 (RFC 9113). The connection is polled beside the exchange and not by a task of
//! its own: dropping the probe drops all of it.

use std::pin::pin;

use h2::client::{Builder, Connection, SendRequest};
use h2::{Reason, RecvStream};
use hyper::body::Bytes;
use hyper::{HeaderMap, Request, Response};

use super::connect::{self, AnyStream};
use super::http::USER_AGENT;
use crate::health::outcome::{Failure, FailureKind};

/// How much of a body a server may send before it is read. Unit: bytes.
const WINDOW_BYTES: u32 = 64 * 1024;

/// The headers, as HTTP/2 counts them. Unit: bytes.
const HEADERS_BYTES_MAX: u32 = 32 * 1024;

/// A connection whose server may be asked at once.
///
/// # Errors
/// [`Failure`]: it broke.
pub(super) async fn open(
    stream: AnyStream,
) -> Result<(SendRequest<Bytes>, Connection<AnyStream, Bytes>), Failure> {
    Builder::new()
        .initial_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .max_concurrent_reset_streams(1)
        .enable_push(false)
        .handshake(stream)
        .await
        .map_err(|error| failed(&error))
}

/// Runs the exchange beside the connection that it needs.
///
/// # Errors
/// [`Failure`]: the exchange's.
pub(super) async fn beside<T>(
    connection: Connection<AnyStream, Bytes>,
    exchange: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    let (mut connection, mut exchange) = (connection, pin!(exchange));
    let ended = tokio::select! {
        biased;
        done = &mut exchange => return done,
        ended = &mut connection => ended,
    };
    // Not every end of a connection wakes who waits for an answer (h2 0.4: where sending fails, for one), and
    // its drop does. What came before the end is still read; why nothing more comes, the connection knows best.
    drop(connection);
    match (exchange.await, ended) {
        (Err(failure), Err(error)) if failure.kind == FailureKind::Closed => Err(failed(&error)),
        (result, _) => result,
    }
}

/// A request's headers.
///
/// # Errors
/// [`FailureKind::Local`]: they cannot be sent.
pub(super) fn request(
    method: &str,
    scheme: &str,
    host: &str,
    path: &str,
    headers: &[(String, String)],
) -> Result<Request<()>, Failure> {
    let mut request = Request::builder()
        .method(method)
        .uri(format!("{scheme}://{host}{path}"))
        .header("user-agent", USER_AGENT)
        .body(())
        .map_err(|error| unsendable(&error))?;
    for (name, value) in headers {
        // The value is left out of the reason: it may be a secret.
        let name = hyper::header::HeaderName::from_bytes(name.as_bytes())
            .map_err(|error| unsendable(&error))?;
        let value = value.parse().map_err(|error| {
            let error: hyper::header::InvalidHeaderValue = error;
            unsendable(&format_args!("header {name}: {error}"))
        })?;
        request.headers_mut().insert(name, value);
    }
    Ok(request)
}

fn unsendable(error: &dyn std::fmt::Display) -> Failure {
    let words = format_args!("this check cannot be asked over HTTP/2: {error}");
    Failure::new(FailureKind::Local, words)
}

/// Sends the request with its body, if any, and waits for the answer's headers.
///
/// # Errors
/// [`Failure`].
pub(super) async fn send(
    sender: SendRequest<Bytes>,
    request: Request<()>,
    body: Option<Bytes>,
) -> Result<Response<RecvStream>, Failure> {
    let mut sender = sender.ready().await.map_err(|error| failed(&error))?;
    let (response, mut stream) = sender
        .send_request(request, body.is_none())
        .map_err(|error| failed(&error))?;
    if let Some(body) = body {
        stream
            .send_data(body, true)
            .map_err(|error| failed(&error))?;
    }
    response.await.map_err(|error| failed(&error))
}

/// The next part of the body, for which it makes room; `None` = it is complete.
///
/// # Errors
/// [`Failure`].
pub(super) async fn read(body: &mut RecvStream) -> Result<Option<Bytes>, Failure> {
    let Some(part) = body.data().await else {
        return Ok(None);
    };
    let part = part.map_err(|error| failed(&error))?;
    // It fails for a stream that has ended; then there is nobody to make room for.
    let _ = body.flow_control().release_capacity(part.len());
    Ok(Some(part))
}

/// The trailers, once the body has been read.
///
/// # Errors
/// [`Failure`].
pub(super) async fn trailers(body: &mut RecvStream) -> Result<HeaderMap, Failure> {
    let trailers = body.trailers().await.map_err(|error| failed(&error))?;
    Ok(trailers.unwrap_or_default())
}

fn failed(error: &h2::Error) -> Failure {
    if let Some(error) = error.get_io() {
        return connect::broken(error, "HTTP/2");
    }
    match error.reason() {
        Some(Reason::NO_ERROR | Reason::CANCEL | Reason::REFUSED_STREAM) => Failure::new(
            FailureKind::Closed,
            format_args!("the server gave the request up ({error})"),
        ),
        Some(_) if error.is_remote() => Failure::new(
            FailureKind::Protocol,
            format_args!("the server refused the request ({error})"),
        ),
        Some(_) => Failure::new(
            FailureKind::Protocol,
            format_args!("the answer is no HTTP/2 ({error})"),
        ),
        None => Failure::new(
            FailureKind::Local,
            format_args!("this check cannot be asked over HTTP/2: {error}"),
        ),
    }
}

#[cfg(test)]
#[path = "http2_tests.rs"]
mod tests;
